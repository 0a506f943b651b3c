"""What tensors in host memory and on a GPU have in common. Torch is imported, where anybody asks; never by us."""

import functools
import sys
from typing import Any

import numpy as np


def dtypes() -> dict[Any, np.dtype]:
    """Return NumPy's types by torch's, for those that both have."""
    return _tables(sys.modules["torch"])[0]


def torch_dtypes() -> dict[np.dtype, Any]:
    """Return torch's types by NumPy's."""
    return _tables(sys.modules["torch"])[1]


@functools.cache
def _tables(torch: Any) -> tuple[dict[Any, np.dtype], dict[np.dtype, Any]]:
    names = ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
             "float16", "float32", "float64")  # fmt: skip
    found = {getattr(torch, each): np.dtype(each) for each in names if hasattr(torch, each)}
    return found, {dtype: each for each, dtype in found.items()}


def refuse_recorded(name: str, argument: str, value: Any) -> None:
    """Raise TypeError for a tensor whose gradient is being recorded."""
    torch: Any = sys.modules["torch"]
    if value.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{name}: {argument} requires grad, and torch would not see this call: pass {argument}.detach(), "
            "or call fastrelu from a torch.autograd.Function, with the *_backward function in its backward"
        )
