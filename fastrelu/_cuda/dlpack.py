"""DLPack capsules, read and written through ctypes: how arrays of libraries without a CUDA Array Interface get here.

See https://dmlc.github.io/dlpack/latest/c_api.html (the unversioned struct, which every library still speaks).
"""

import atexit
import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._runtime.dtypes import BFLOAT16
from .view import dense_strides

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
_KINDS = {0: "i", 1: "u", 2: "f", 4: "V", 6: "b"}  # V: bfloat16


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]


def read(capsule: Any) -> tuple[int, tuple[int, ...], tuple[int, ...], np.dtype | str, int]:
    """Return address, shape, strides in bytes, dtype (its name in words if NumPy has none) and device of a capsule.

    The capsule stays the owner of the memory: keep it as long as the address is used. Its own destructor frees it.
    """
    tensor = ctypes.cast(_pointer(capsule, b"dltensor"), ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    size = tensor.bits * tensor.lanes // 8
    dense = dense_strides(shape, size)
    strides = tuple(tensor.strides[k] * size for k in range(tensor.ndim)) if tensor.strides else dense
    kind = _KINDS.get(tensor.code)
    known = kind is not None and tensor.lanes == 1 and tensor.bits in (8, 16, 32, 64)
    found = None
    if known:
        found = BFLOAT16 if kind == "V" else np.dtype(f"{kind}{size}")
    dtype = f"DLPack type {tensor.code} of {tensor.bits} bits" if found is None else found
    return tensor.data + tensor.byte_offset if tensor.data else 0, shape, strides, dtype, tensor.device_id


#: What was handed out, by the address of its struct, which native code reads until it calls the struct's deleter.
_exported: dict[int, tuple[Any, ...]] = {}

_get = ctypes.pythonapi["PyCapsule_GetPointer"]  # a function of its own, of the capsule as an address
_get.restype, _get.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]


# The interpreter empties modules while it ends, and arrays may live longer: what these functions need is bound to them


def _forget(managed: Any, exported: Any = _exported, address_of: Any = ctypes.addressof) -> None:
    exported.pop(address_of(managed.contents), None)


def _drop_capsule(capsule: int, exported: Any = _exported, is_valid: Any = _is_valid, get: Any = _get) -> None:
    # Renamed to "used_dltensor" by whoever took it; only a capsule that nobody took is ours to free
    if is_valid(capsule, b"dltensor"):
        exported.pop(get(capsule, b"dltensor"), None)


_delete = _Deleter(_forget)
_drop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_drop_capsule)
for _callback in (_delete, _drop):
    # C code keeps their addresses, and nobody knows for how long: they are never freed
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))


@atexit.register
def _leave_to_the_process() -> None:
    """Take Python out of what is still handed out: its deleters may be called when there is no interpreter any more.

    From here on they do nothing. The memory, and what keeps it, lasts as long as the process.
    """
    nothing = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, _Deleter)  # a C function that has no effect
    for entry in list(_exported.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(entry))
        entry[0].deleter = nothing


class Export:
    """Memory of `owner`, offered by DLPack; `ready(stream)` is called when a consumer names its stream."""

    def __init__(
        self, owner: Any, pointer: int, shape: Sequence[int], dtype: np.dtype, device: tuple[int, int], ready: Any
    ) -> None:
        self._owner, self._pointer, self._shape = owner, pointer, tuple(shape)
        self._dtype, self._device, self._ready = dtype, device, ready

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: Any = None, **_options: Any) -> Any:
        if stream != -1:
            self._ready(stream)
        managed = _Managed()
        shape = (ctypes.c_int64 * max(1, len(self._shape)))(*self._shape)
        code = {kind: number for number, kind in _KINDS.items()}[self._dtype.kind]
        managed.tensor = _Tensor(
            self._pointer, *self._device, len(self._shape), code, 8 * self._dtype.itemsize, 1,
            ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)), None, 0,
        )  # fmt: skip
        managed.deleter = _delete
        address = ctypes.addressof(managed)
        _exported[address] = (managed, shape, self._owner)
        return _new(address, b"dltensor", ctypes.cast(_drop, ctypes.c_void_p))
