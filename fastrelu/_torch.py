"""What tensors in host memory and on a GPU have in common. Torch is imported, where anybody asks; never by us."""

import functools
import sys
from typing import Any

import numpy as np


def dtypes() -> dict[Any, np.dtype]:
    """Return NumPy's types by torch's, for those that both have, and bfloat16 once `dtype_of` has met it."""
    return _table(sys.modules["torch"])


@functools.cache
def _table(torch: Any) -> dict[Any, np.dtype]:
    names = ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
             "float16", "float32", "float64")  # fmt: skip
    return {getattr(torch, each): np.dtype(each) for each in names if hasattr(torch, each)}


def dtype_of(name: str, argument: str, dtype: Any) -> np.dtype | None:
    """Return NumPy's type for one of torch's, None where there is none.

    Only a tensor of bfloat16 needs ml_dtypes, so that the first one imports it.
    """
    known = dtypes()
    if dtype not in known and dtype == getattr(sys.modules["torch"], "bfloat16", None):
        try:
            import ml_dtypes
        except ImportError:
            raise TypeError(
                f"{name}: {argument} is of dtype {dtype}, which NumPy has only with the package ml_dtypes: "
                'pip install "fastrelu[bfloat16]"'
            ) from None
        known[dtype] = np.dtype(ml_dtypes.bfloat16)
    return known.get(dtype)


def torch_dtype(dtype: np.dtype) -> Any:
    """Return torch's type for one of NumPy's."""
    return getattr(sys.modules["torch"], dtype.name)


def memory(tensor: Any) -> np.ndarray:
    """Return the memory of a tensor on the CPU as a NumPy array; torch gives none of bfloat16."""
    torch: Any = sys.modules["torch"]
    tensor = tensor.detach()
    found: np.ndarray
    if tensor.dtype is torch.bfloat16:
        found = tensor.view(torch.int16).numpy().view(dtypes()[torch.bfloat16])
    else:
        found = tensor.numpy()
    return found


def refuse_recorded(name: str, argument: str, value: Any) -> None:
    """Raise TypeError for a tensor whose gradient is being recorded."""
    torch: Any = sys.modules["torch"]
    if value.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{name}: {argument} requires grad, and torch would not see this call: pass {argument}.detach(), "
            "or call fastrelu from a torch.autograd.Function, with the *_backward function in its backward"
        )


def refuse_unusual(name: str, argument: str, value: Any) -> None:
    """Raise TypeError for a tensor that is more, or other, than strided memory with numbers."""
    torch: Any = sys.modules["torch"]
    if value.is_nested or value.layout is not torch.strided:
        layout = "nested" if value.is_nested else value.layout
        raise TypeError(
            f"{name}: {argument} is a torch.Tensor of layout {layout}, not an ordinary strided one; "
            "convert it first, for instance with .to_dense()"
        )
    if value.is_neg():
        raise TypeError(f"{name}: {argument} is a torch.Tensor with its negation bit set; call .resolve_neg()")
    # Of forward-mode differentiation, of which requires_grad says nothing
    forward = torch.autograd.forward_ad
    if forward._current_level >= 0 and forward.unpack_dual(value).tangent is not None:
        raise TypeError(
            f"{name}: {argument} carries a forward-mode tangent, and torch would not see this call; "
            "call fastrelu from a torch.autograd.Function with a jvp"
        )


def address(name: str, argument: str, value: Any) -> int:
    """Return the address of a strided tensor on a GPU; raise TypeError for one without memory for its elements."""
    try:
        storage = value.untyped_storage()
        pointer: int = value.data_ptr() if storage.device == value.device else 0  # fake tensors pretend to a device
    except RuntimeError as error:  # traced or batched tensors, and wrappers of others
        raise TypeError(
            f"{name}: {argument} is a {type(value).__qualname__} without memory of its own, as inside torch.func "
            f"transformations and torch.export; call fastrelu on the tensors themselves (torch says: {error})"
        ) from error
    if not value.numel():
        return pointer
    last = value.storage_offset() + sum((n - 1) * step for n, step in zip(value.shape, value.stride(), strict=True))
    if not pointer or (last + 1) * value.element_size() > storage.nbytes():
        raise TypeError(
            f"{name}: {argument} is a {type(value).__qualname__} whose elements have no memory, as of a storage that "
            "was resized, a fake tensor, or zeros that torch has not written down; pass a clone of its values"
        )
    return pointer
