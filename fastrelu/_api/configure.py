"""Process-wide choices and what a user can ask about them."""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import numpy as np

from .. import ufuncs
from .._arrays import classify, ml_bfloat16
from .._call import errors, front, passes
from .._call.bitmask import MaskPass
from .._call.dispatch import Explanation, as_floats, explain_plan, plan
from .._call.sums import SumPass
from .._operations import ARGUMENTS, OPERATIONS, typecodes
from .._runtime import allocation, compiler, threads, tuning
from .._versions import __version__

_PASSES: dict[str, type[passes.Pass]] = {name: kind for kind in (MaskPass, SumPass) for name in kind.functions}
_UNSET: Any = type("Unset", (), {"__repr__": lambda self: "<unchanged>"})()


class _Configured:
    """What `configure` returns: in a ``with`` statement, it restores the former choices at the end."""

    def __init__(self, before: dict[str, Any]) -> None:
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _apply(self._before)


def _apply(choices: dict[str, Any]) -> None:
    for name, value in choices.items():
        setattr(tuning.settings, name, value)
    front.enabled[0] = tuning.settings.target is None
    tuning.settings.publish()
    allocation.trim(tuning.settings.recycle_bytes)


def configure(
    *,
    target: str | None = _UNSET,
    parallel_min_bytes: int = _UNSET,
    streaming_min_bytes: int = _UNSET,
    recycle_bytes: int = _UNSET,
) -> _Configured:
    """Set process-wide choices; in a ``with`` statement, until its end.

    Parameters
    ----------
    target : {None, "serial", "parallel", "cuda"}, optional
        What calls with ``target=None`` use. None is the automatic choice.
    parallel_min_bytes : int, optional
        Bytes read and written from which the automatic choice is parallel.
    streaming_min_bytes : int, optional
        Bytes of output from which stores bypass the caches.
    recycle_bytes : int, optional
        Bytes of dropped results that are kept for later calls; 0 keeps none. What is kept beyond is given back at once.

    Returns
    -------
    context manager
        Restores the former choices when a ``with`` statement ends.

    Raises
    ------
    ValueError
        A target is unknown, or a number of bytes is negative.
    TypeError
        A number of bytes is not an integer.

    Notes
    -----
    The choices are those of the process, not of a thread. The environment variables ``FASTRELU_TARGET``,
    ``FASTRELU_PARALLEL_MIN_BYTES``, ``FASTRELU_STREAMING_MIN_BYTES`` and ``FASTRELU_RECYCLE_BYTES`` set the start
    values.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> with fastrelu.configure(target="serial"):
    ...     print(fastrelu.explain(fastrelu.relu, np.zeros(10_000_000)).target)
    serial
    """
    new: dict[str, Any] = {}
    if target is not _UNSET:
        new["target"] = tuning.check_target(target, "target")
    for name, value in (
        ("parallel_min_bytes", parallel_min_bytes),
        ("streaming_min_bytes", streaming_min_bytes),
        ("recycle_bytes", recycle_bytes),
    ):
        if value is _UNSET:
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer number of bytes, not {type(value).__name__}")
        if value < 0:
            raise ValueError(f"{name} must not be negative: {value}")
        new[name] = int(value)
    before = {name: getattr(tuning.settings, name) for name in new}
    _apply(new)
    return _Configured(before)


def release_memory() -> None:
    """Give the memory of dropped results back, which is kept for later calls (`configure` says how much of it).

    Arrays that are in use keep theirs. On a GPU, arrays of JAX that were held for calls that are done are let go of.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> y = fastrelu.relu(np.ones(10_000_000))
    >>> del y  # its memory awaits the next call of that size
    >>> fastrelu.release_memory()
    """
    allocation.trim()
    if (driver := sys.modules.get("fastrelu._cuda.cuda_driver")) is not None:
        driver.let_go()


def explain(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """Say where a call would run and why, without running or compiling anything.

    Parameters
    ----------
    func : function
        A public function of fastrelu, such as `fastrelu.relu_`, or a raw ufunc from `fastrelu.ufuncs`.
    *args, **kwargs
        The arguments of the call.

    Returns
    -------
    Explanation
        Frozen, with `target`, `store` ("plain" or "streaming") and `refused`, which maps each other choice
        to the reason against it. ``str()`` of it is readable.

    Raises
    ------
    TypeError
        `func` is none of fastrelu's functions, or the arguments do not fit it.
    ValueError, RuntimeError
        What the call itself would raise.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.explain(fastrelu.relu, np.zeros(3)).target
    'serial'
    """
    from . import bitmask, elementwise, sums

    name = getattr(func, "__name__", "")
    operation = name.removesuffix("_")
    if isinstance(func, np.ufunc) and func is getattr(ufuncs, name, None):
        operation, target = name, None
        operands, kwargs = args[: func.nin], dict(kwargs)
        out = args[func.nin] if len(args) > func.nin else kwargs.pop("out", None)
    elif operation in OPERATIONS and func is getattr(elementwise, name, None):
        bound = inspect.signature(func).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if "at_zero" in given and given["at_zero"] is None:
            given["at_zero"] = given["negative_slope"]
        operands = tuple(as_floats(operation, (given[operand] for operand in OPERATIONS[operation])))
        out = operands[0] if name.endswith("_") else given["out"]
        target, kwargs = given["target"], given["ufunc_kwargs"]
    elif operation in _PASSES and func in (getattr(bitmask, name, None), getattr(sums, name, None)):
        bound = inspect.signature(func).bind(*args, **kwargs)
        bound.apply_defaults()
        outputs = dict(bound.arguments)
        target = outputs.pop("target")
        inputs = {argument: outputs.pop(argument) for argument in ARGUMENTS[operation]}
        outputs.setdefault("out", next(iter(inputs.values())))
        options = {"axis": outputs.pop("axis")} if "axis" in outputs else {}
        return passes.explain(_PASSES[operation], operation, inputs, outputs, target, **options)
    else:
        raise TypeError(f"explain: {func!r} is not a function of fastrelu")
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    errors.check_keywords(operation, kwargs)
    todo = plan(operation, operands, out, target, kwargs)
    if all(classify.kind(value) == "host" for value in (*operands, out)) and todo.target != "cuda":
        errors.check_call(operation, operands, out, kwargs)
    return explain_plan(todo)


def _names(functions: Iterable[Any] | None) -> list[str]:
    if functions is None:
        return list(ARGUMENTS)
    names = []
    for function in functions:
        name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
        if name.removesuffix("_") not in ARGUMENTS:
            raise ValueError(f"warmup: {name!r} is not a function of fastrelu; there are {', '.join(ARGUMENTS)}")
        names.append(name.removesuffix("_"))
    return list(dict.fromkeys(names))


def warmup_steps(
    functions: Iterable[Any] | None = None, dtypes: Iterable[Any] | None = None
) -> list[tuple[str, Callable[[], object]]]:
    """Return what `warmup` does, as labelled steps, for a progress bar."""
    wanted = None if dtypes is None else [np.dtype(dtype) for dtype in dtypes]
    bfloat16 = ml_bfloat16.bfloat16()
    steps: list[tuple[str, Callable[[], object]]] = []
    for name in _names(functions):
        available = list(dict.fromkeys(np.dtype(code) for code in typecodes(name)))
        available += [bfloat16] if bfloat16 is not None else []
        for dtype in available if wanted is None else wanted:
            if dtype not in available:
                if functions is None:
                    continue  # relu alone has integer loops
                raise ValueError(f"warmup: {name} has no loop for {dtype}; there are {', '.join(map(str, available))}")
            steps.append((f"{name} {dtype}", lambda name=name, dtype=dtype: compiler.warm(name, dtype)))  # type: ignore[misc]
    if wanted is not None and not steps:
        raise ValueError(f"warmup: no function has a loop for {', '.join(map(str, wanted))}")
    steps.append(("threads and large arrays", lambda: compiler.warm_driver(_names(functions))))
    return steps


def warmup(functions: Iterable[Any] | None = None, dtypes: Iterable[Any] | None = None) -> None:
    """Compile into the cache, so that later first calls, in this or other processes, only load.

    Parameters
    ----------
    functions : iterable of functions or names, optional
        What to compile; None means all.
    dtypes : iterable of dtypes, optional
        For which types; None means all that each function has loops for, with bfloat16 where ml_dtypes is imported.

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


def config_lines() -> list[tuple[str, str]]:
    """Return what `show_config` prints, as pairs."""
    import llvmlite

    numba = threads.import_numba()
    from numba.core.registry import cpu_target

    from .. import _cuda
    from .._runtime import code_cache

    features = cpu_target.target_context.codegen().magic_tuple()
    have = [
        name for name in ("sse2", "avx2", "f16c", "avx512f", "neon", "fp16") if f"+{name}" in features[2].split(",")
    ]
    reason = threads.unavailable()
    settings = tuning.settings
    return [
        ("fastrelu", __version__),
        ("python", f"{platform.python_version()} ({sys.platform} {platform.machine()})"),
        ("numpy", np.__version__),
        ("numba", f"{numba.__version__} (llvmlite {llvmlite.__version__})"),
        ("processor", f"{features[1]}: {', '.join(have) or 'no known vector features'}"),
        ("caches", ", ".join(f"{name} {size >> 10:,} KiB" for name, size in tuning.caches()) or "unknown"),
        ("threads", str(threads.thread_count())),
        ("threading layer", f"{threads.layer()}" + (f"; not used: {reason}" if reason else "")),
        ("target", str(settings.target or "automatic")),
        ("parallel_min_bytes", f"{settings.parallel_min_bytes:,}"),
        ("streaming_min_bytes", f"{settings.streaming_min_bytes:,}"),
        ("recycle_bytes", f"{settings.recycle_bytes:,}; {allocation.describe()}"),
        ("compiled code", code_cache.describe()),
        ("gpu", _cuda.status_line()),
    ]


def show_config() -> None:
    """Print versions, processor features, cache sizes, threads, threading layer, thresholds and GPUs.

    Examples
    --------
    >>> import fastrelu
    >>> fastrelu.show_config()  # doctest: +ELLIPSIS
    fastrelu ...
    """
    for label, value in config_lines():
        print(f"{label:20} {value}")
