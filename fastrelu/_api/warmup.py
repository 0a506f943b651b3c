"""Compiling into the cache ahead of the first call."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .._operations import FUNCTIONS, ROWS
from .._runtime import compiler
from .._runtime.dtypes import BFLOAT16


def _names(functions: Iterable[Any] | None) -> list[str]:
    if functions is None:
        return list(ROWS)
    names = []
    for function in functions:
        name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
        if name not in FUNCTIONS:
            raise ValueError(f"warmup: {name!r} is not a function of fastrelu; there are {', '.join(ROWS)}")
        names.append(FUNCTIONS[name].name)
    return list(dict.fromkeys(names))


def warmup_steps(
    functions: Iterable[Any] | None = None, dtypes: Iterable[Any] | None = None
) -> list[tuple[str, Callable[[], object]]]:
    """Return what `warmup` does, as labelled steps, for a progress bar."""
    wanted = None if dtypes is None else [np.dtype(dtype) for dtype in dtypes]
    steps: list[tuple[str, Callable[[], object]]] = []
    for name in _names(functions):
        available = list(dict.fromkeys(np.dtype(code) for code in ROWS[name].typecodes))
        available += [BFLOAT16] if BFLOAT16 is not None else []
        for dtype in available if wanted is None else wanted:
            if dtype not in available:
                if functions is None:
                    continue  # not all functions have loops for integers
                raise ValueError(f"warmup: {name} has no loop for {dtype}; there are {', '.join(map(str, available))}")
            steps.append((f"{name} {dtype}", lambda name=name, dtype=dtype: compiler.warm(name, dtype)))  # type: ignore[misc]
    if wanted is not None and not steps:
        raise ValueError(f"warmup: no function has a loop for {', '.join(map(str, wanted))}")
    steps.append(("threads and large arrays", lambda: compiler.warm_routines(_names(functions))))
    return steps


def warmup(functions: Iterable[Any] | None = None, dtypes: Iterable[Any] | None = None) -> None:
    """Compile into the cache, so that later first calls, in this or other processes, only load.

    Parameters
    ----------
    functions : iterable of functions or names, optional
        What to compile; None means all.
    dtypes : iterable of dtypes, optional
        For which types; None means all that each function has loops for, with bfloat16 where ml_dtypes is installed.

    Raises
    ------
    ValueError
        A function is unknown, or has no loop for a type.

    Examples
    --------
    >>> import fastrelu
    >>> fastrelu.warmup([fastrelu.relu], ["float32"])
    """
    for _, step in warmup_steps(functions, dtypes):
        step()
