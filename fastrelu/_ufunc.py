"""``numpy.ufunc`` objects from compiled loops, through NumPy's public C-API.

Each ufunc holds for each of its types the same entry point, with a *slot* of its own as `data`: the words from
which the loop learns its kernel, its thresholds and whether it is compiled yet (`_layout`). NumPy copies nothing
of what it is given here, so that all of it lives as long as the process.
"""

import copyreg
import ctypes
import importlib
from typing import Any

import numpy as np

from . import _entry, _front, _native, _tuning
from ._compile import compile_slot, slots
from ._layout import INDEX, ITEMSIZE, OPERANDS, SLOT_WORDS, TABLE
from ._operations import OPERATIONS, typecodes
from ._versions import needed

with needed("numpy"):
    from numpy._core._multiarray_umath import _UFUNC_API

_FROM_FUNC_AND_DATA = 1  # its place in NumPy's table of ufunc functions, which is part of NumPy's ABI
_from_func_and_data = ctypes.PYFUNCTYPE(
    ctypes.py_object,
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p,  # loops, their data, their types
    ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int,  # counts of types, inputs, outputs; identity
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int,  # name, documentation, unused
)(ctypes.cast(_native.pointer(_UFUNC_API, None), ctypes.POINTER(ctypes.c_void_p))[_FROM_FUNC_AND_DATA])  # fmt: skip
_NO_IDENTITY = -1

_module = _native.new_module()
_entry.emit(_module, compile_slot)
_front.emit(_module)
_code = _native.compile_module(_module)
_entry_address = _code.get_function_address("entry")
_keep: list[object] = []


def front_address(name: str) -> int:
    """Return the address of the native front of a public function."""
    address: int = _code.get_function_address(f"front_{name}")
    return address


def make(operation: str, target: str, name: str, module: str) -> np.ufunc:
    """Return a new ufunc of an operation for one target: "auto", "serial" or "parallel"."""
    codes = typecodes(operation)
    operands = len(OPERATIONS[operation]) + 1
    data = (ctypes.c_void_p * len(codes))()
    for k, code in enumerate(codes):
        slot = np.zeros(SLOT_WORDS, dtype=np.int64)
        slot[OPERANDS] = operands
        slot[ITEMSIZE] = np.dtype(code).itemsize
        slot[TABLE] = _tuning.settings.tables[target].ctypes.data
        slot[INDEX] = len(slots)
        slots.append((operation, np.dtype(code), target, slot))
        data[k] = slot.ctypes.data
    loops = (ctypes.c_void_p * len(codes))(*[_entry_address] * len(codes))
    types = bytes(np.dtype(code).num for code in codes for _ in range(operands))
    document = f"{name}({', '.join(OPERATIONS[operation])})\n\nSee `fastrelu.{operation}`."
    strings = name.encode(), document.encode()
    _keep.append((loops, data, types, strings))
    ufunc: np.ufunc = _from_func_and_data(loops, data, types, len(codes), operands - 1, 1, _NO_IDENTITY, *strings, 0)
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
