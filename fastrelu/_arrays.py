"""What kind of array each argument is, found without importing anybody's library.

The order matters: many device arrays also have ``__array__``, through which NumPy would copy them to the host.
"""

import sys
from typing import Any

import numpy as np

#: Scalars of the language, which NumPy promotes weakly (NEP 50).
NUMBERS = (bool, int, float, complex)


def kind(value: Any) -> str:
    """Return "host", "device", "override", "torch", "jax" or "foreign" for one argument."""
    if type(value) is np.ndarray or value is None or isinstance(value, (np.generic, *NUMBERS, list, tuple)):
        return "host"
    # First by class: the CUDA interface of some torch tensors raises (sparse ones; on a GPU, what requires grad)
    for name in ("torch", "jax"):
        module = sys.modules.get(name)
        array_type = getattr(module, "Tensor" if name == "torch" else "Array", None)
        if isinstance(array_type, type) and isinstance(value, array_type):
            return name
    if hasattr(value, "__cuda_ndarray__") or hasattr(value, "__cuda_array_interface__"):
        return "device"
    if hasattr(type(value), "__array_ufunc__"):
        return "override"
    if any(hasattr(value, each) for each in ("__array_namespace__", "__dlpack__", "__dlpack_device__")):
        return "foreign"
    return "host"


def type_name(value: Any) -> str:
    """Return how an error message calls an argument's type."""
    if isinstance(value, (np.ndarray, np.generic)):
        shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) and value.ndim else ""
        return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__} of dtype {value.dtype}{shape}"
    return type(value).__qualname__


def supported(dtype: np.dtype) -> bool:
    """Say whether our loops, or NumPy's safe casts to them, take a dtype."""
    return dtype.kind in "biu" or dtype.char in "efd"
