"""``numpy.ufunc`` objects from compiled loops, through NumPy's public C-API.

Each ufunc holds for each of its types the same trampoline, with a *slot* of its own as `data`: the record from
which the loop learns its kernel, its thresholds and whether it is compiled yet. NumPy copies nothing
of what it is given here, so that all of it is kept.
"""

import copyreg
import ctypes
import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .._kernels.records import Slot
from .._operations import UFUNCS
from .._versions import needed
from . import front, native, trampoline, tuning, untraced
from .compiler import compile_slot, slots
from .dtypes import BFLOAT16

with needed("numpy"):
    from numpy._core._multiarray_umath import _UFUNC_API

F = TypeVar("F", bound=Callable[..., Any])

# Places in NumPy's table of ufunc functions, which is part of NumPy's ABI
_FROM_FUNC_AND_DATA, _REGISTER_LOOP_FOR_TYPE = 1, 2
_numpy = ctypes.cast(native.pointer(_UFUNC_API, None), ctypes.POINTER(ctypes.c_void_p))
_from_func_and_data = ctypes.PYFUNCTYPE(
    ctypes.py_object,
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p,  # loops, their data, their types
    ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int,  # counts of types, inputs, outputs; identity
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int,  # name, documentation, unused
)(_numpy[_FROM_FUNC_AND_DATA])  # fmt: skip
_register_loop_for_type = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.py_object, ctypes.c_int,  # ufunc and type
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,  # loop, types of the operands (None: all that one), data
)(_numpy[_REGISTER_LOOP_FOR_TYPE])  # fmt: skip
_NO_IDENTITY = -1

_module = native.new_module()
_prepare = functools.partial(compile_slot, slots)
native.keep(_prepare)
untraced.emit(_module)
trampoline.emit(_module, _prepare)
front.emit(_module)
_code = native.compile_module(_module)
_entry_address = _code.get_function_address("entry")


def front_address(name: str) -> int:
    """Return the address of the native front of a public function."""
    address: int = _code.get_function_address(f"front_{name}")
    return address


def hidden(function: F) -> F:
    """Keep a function, and all that it calls, out of sight of torch.compile."""
    return untraced.hide(_code.get_function_address("aside"), function)


def _new_slot(operation: str, dtype: np.dtype) -> int:
    """Return the address of a new slot for a type."""
    operands, table = len(UFUNCS[operation].operands) + 1, ctypes.addressof(tuning.settings.tables["auto"])
    slot = Slot(operands=operands, itemsize=dtype.itemsize, table=table, index=len(slots))
    slots.append((operation, dtype, slot))
    native.keep(slot)
    return ctypes.addressof(slot)


def make(operation: str, module: str) -> np.ufunc:
    """Return a new ufunc of an operation."""
    row = UFUNCS[operation]
    dtypes = [np.dtype(code) for code in row.typecodes]
    operands = len(row.operands) + 1
    data = (ctypes.c_void_p * len(dtypes))(*[_new_slot(operation, dtype) for dtype in dtypes])
    loops = (ctypes.c_void_p * len(dtypes))(*[_entry_address] * len(dtypes))
    types = bytes(dtype.num for dtype in dtypes for _ in range(operands))
    document = f"{operation}({', '.join(row.names)})\n\nSee `fastrelu.{operation}`."
    strings = operation.encode(), document.encode()
    native.keep((loops, data, types, strings))
    ufunc: np.ufunc = _from_func_and_data(loops, data, types, len(dtypes), operands - 1, 1, _NO_IDENTITY, *strings, 0)
    if BFLOAT16 is not None:
        _register_loop_for_type(ufunc, BFLOAT16.num, _entry_address, None, _new_slot(operation, BFLOAT16))
        ufunc.resolve_dtypes((BFLOAT16,) * ufunc.nin + (None,))  # NumPy finds it by a signature only after a first use
    try:
        ufunc.__module__ = module
    except AttributeError:  # NumPy before 2.2
        _modules[ufunc] = module
        copyreg.pickle(np.ufunc, _reduce)
    return ufunc


# Without a module, a ufunc pickles as the first entry of sys.modules that holds it, a user's own included.
_modules: dict[np.ufunc, str] = {}
_numpy_reduce = copyreg.dispatch_table[np.ufunc]


def _by_name(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _reduce(ufunc: np.ufunc) -> Any:
    if ufunc in _modules:
        return _by_name, (_modules[ufunc], ufunc.__name__)
    return _numpy_reduce(ufunc)
