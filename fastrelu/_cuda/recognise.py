"""Whose array a value is, found without importing anything."""

import sys
from typing import Any

import numpy as np

from .dlpack import CUDA, CUDA_MANAGED

_HOST = (np.ndarray, np.generic, bool, int, float, complex, list, tuple)

#: Types whose arrays are always in the memory of a GPU, once they were met.
_always: dict[type, str] = {}


def _made_by(value: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def library_name(value: Any) -> str | None:
    """Return what `libraries` calls the library of an array in the memory of a GPU; None for everything else."""
    kind = type(value)
    if kind in _always:
        return _always[kind]
    # Numba's managed and mapped arrays are NumPy's too
    if value is None or (isinstance(value, _HOST) and not hasattr(value, "__cuda_ndarray__")):
        return None
    if _made_by(value, "torch", "Tensor"):
        return "torch" if value.is_cuda else None
    if _made_by(value, "jax", "Array"):
        return "jax" if all(device.platform in ("gpu", "cuda") for device in value.devices()) else None
    if _made_by(value, "cupy", "ndarray"):
        return _always.setdefault(kind, "cupy")
    if hasattr(value, "__cuda_ndarray__"):
        return _always.setdefault(kind, "numba")
    if hasattr(value, "__cuda_array_interface__"):
        return "interface"
    return "dlpack" if _on_gpu(value) else None


def _on_gpu(value: Any) -> bool:
    """Say whether an array's DLPack device is an NVIDIA GPU."""
    if not hasattr(value, "__dlpack_device__"):
        return False
    try:
        kind, _ = value.__dlpack_device__()
        return int(kind) in (CUDA, CUDA_MANAGED)
    except (TypeError, ValueError):  # not what DLPack says: no array of ours, and refused as such by name
        return False


def is_device_array(value: Any) -> bool:
    """Say whether a value is an array in GPU memory."""
    return library_name(value) is not None
