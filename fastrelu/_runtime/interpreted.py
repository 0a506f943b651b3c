"""What runs a formula where nothing can be compiled any more: Python, an element at a time.

While the interpreter ends, it calls finalisers, and imports nothing: a first call there finds no Numba. NumPy's loops
cannot fail, and what was a result the moment before should not be an error then.
"""

import builtins
import ctypes
import importlib.util
import types
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from .._kernels.records import DONE
from .._operations import ROWS
from . import native

_loop_type = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_size_t] * 4)


_source: Any = importlib.util.find_spec(f"{__package__.rpartition('.')[0]}._formulas")
#: The code of a module that imports Numba, which is not run here; None where its loader has none.
_code: types.CodeType | None = getattr(_source.loader, "get_code", lambda name: None)(_source.name)


def _formula(operation: str) -> Callable[..., Any]:
    """Return a formula, with a decorator that does nothing."""
    if _code is None:
        raise ImportError("Numba cannot be imported any more")
    numba = types.SimpleNamespace(vectorize=lambda function: function)
    names: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": lambda *_: numba}}
    exec(_code, names)
    formula: Callable[..., Any] = names[operation]
    return formula


def loop(operation: str, dtype: np.dtype) -> int:
    """Return the address of a loop for an operation and a type, which stays."""
    formula, count = _formula(operation), len(ROWS[operation].operands) + 1
    narrow = dtype.itemsize == 2 and dtype.kind not in "iu"
    computed = np.dtype(np.float32) if narrow else dtype
    words, memory = ctypes.POINTER(ctypes.c_int64), cast(Any, ctypes.c_char * dtype.itemsize)

    def run(pointers: int, dimensions: int, strides: int, slot: int) -> int:
        places = ctypes.cast(pointers, words)[:count]
        steps = ctypes.cast(strides, words)[:count]
        with native.flags_kept(), np.errstate(all="ignore"):
            for _ in range(ctypes.cast(dimensions, words)[0]):
                cells = [np.ndarray(1, dtype, memory.from_address(place)) for place in places]
                cells[-1][0] = formula(*(cell.astype(computed)[0] for cell in cells[:-1]))
                places = [place + step for place, step in zip(places, steps, strict=True)]
        return DONE

    function = _loop_type(run)
    native.keep(function)
    return native.address_of(function)
