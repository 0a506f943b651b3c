"""What tensors in host memory and on a GPU have in common. Torch is imported, where anybody asks; never by us."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._runtime.dtypes import BFLOAT16
from .classify import refuse_dtype


def dtypes() -> dict[Any, np.dtype]:
    """Return NumPy's types by torch's, for those that both have."""
    return _table(sys.modules["torch"])


@functools.cache
def _table(torch: Any) -> dict[Any, np.dtype]:
    names = ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
             "float16", "float32", "float64")  # fmt: skip
    table = {getattr(torch, each): np.dtype(each) for each in names if hasattr(torch, each)}
    return table if BFLOAT16 is None else {**table, torch.bfloat16: BFLOAT16}


def dtype_of(name: str, argument: str, dtype: Any) -> np.dtype:
    """Return NumPy's type for one of torch's; raise TypeError where there is none that our loops take."""
    known = dtypes()
    if dtype not in known and dtype is sys.modules["torch"].bfloat16:
        raise TypeError(
            f"{name}: {argument} is of dtype {dtype}, which NumPy has only with the package ml_dtypes: "
            'pip install "fastrelu[bfloat16]"'
        )
    if dtype not in known:
        refuse_dtype(name, argument, dtype)
    return known[dtype]


def torch_dtype(dtype: np.dtype) -> Any:
    """Return torch's type for one of NumPy's."""
    return getattr(sys.modules["torch"], dtype.name)


@contextlib.contextmanager
def _not_traced() -> Iterator[None]:
    """Ask torch something out of sight of torch.jit.trace, under which it gives tensors for numbers, and warns."""
    torch: Any = sys.modules["torch"]
    state = torch._C._get_tracing_state()
    if state is None:
        yield
        return
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


def memory(tensor: Any) -> np.ndarray:
    """Return the memory of a tensor on the CPU as a NumPy array; torch gives none of bfloat16."""
    torch: Any = sys.modules["torch"]
    found: np.ndarray
    # What a subclass makes of these functions is not its memory
    with _not_traced(), torch._C.DisableTorchFunctionSubclass():
        tensor = tensor.detach()
        if tensor.dtype is torch.bfloat16:
            found = tensor.view(torch.int16).numpy().view(dtypes()[torch.bfloat16])
        else:
            found = tensor.numpy()
    return found


def _recorder() -> tuple[str, str] | None:
    """Return what records torch's functions in this thread, or replaces them, and what to do instead; None for nothing.

    A tensor may look like any other meanwhile. What is recorded of a call of ours is that memory was allocated, and not
    what was written there; replayed, it gives whatever that memory holds.
    """
    torch: Any = sys.modules["torch"]
    if torch.jit.is_tracing():
        if torch.onnx.is_in_onnx_export():
            return "torch.onnx.export", "call torch's own functions while torch.onnx.is_in_onnx_export()"
        # Of a torch.autograd.Function, only the call is recorded (exporters look into it). While it runs, neither
        # kind of differentiation is on; inference mode looks the same
        if torch._C._is_fwd_grad_enabled() or torch.is_inference_mode_enabled():
            return "torch.jit.trace", "call fastrelu in a torch.library.custom_op or a torch.autograd.Function"
    level = torch._C._functorch.peek_interpreter_stack()
    if level is not None:
        return (
            f"a torch.func transformation ({level.key().name.lower()})",
            "call fastrelu in a torch.autograd.Function with setup_context, and in another one for its backward pass",
        )
    proxies: Any = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        return "make_fx or torch.export", "call fastrelu in a torch.library.custom_op"
    return None


def check(name: str, argument: str, value: Any) -> np.dtype:
    """Return a tensor's type, or raise TypeError if it is more, or other, than strided memory with numbers.

    That is for tensors in host memory and on a GPU; whether the memory is there, `place` finds out.
    """
    torch: Any = sys.modules["torch"]
    if (recorder := _recorder()) is not None:
        what, instead = recorder
        raise TypeError(
            f"{name}: {argument} is a torch.Tensor, and {what} records what is done to tensors but cannot see this "
            f"call: {instead}"
        )
    if value.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{name}: {argument} requires grad, and torch would not see this call: pass {argument}.detach(), "
            "or call fastrelu from a torch.autograd.Function, with the *_backward function in its backward"
        )
    dtype = dtype_of(name, argument, value.dtype)
    if value.is_nested or value.layout is not torch.strided:
        layout = "nested" if value.is_nested else value.layout
        raise TypeError(
            f"{name}: {argument} is a torch.Tensor of layout {layout}, not an ordinary strided one; "
            "convert it first, for instance with .to_dense()"
        )
    # Of forward-mode differentiation, of which requires_grad says nothing
    forward = torch.autograd.forward_ad
    if forward._current_level >= 0 and forward.unpack_dual(value).tangent is not None:
        raise TypeError(
            f"{name}: {argument} carries a forward-mode tangent, and torch would not see this call; "
            "call fastrelu from a torch.autograd.Function with a jvp"
        )
    return dtype


def check_negation(name: str, argument: str, value: Any) -> None:
    """Raise TypeError for a tensor whose memory holds the negatives of its values."""
    if value.is_neg():
        raise TypeError(f"{name}: {argument} is a torch.Tensor with its negation bit set; call .resolve_neg()")


def check_writable(name: str, argument: str, value: Any) -> None:
    """Raise TypeError for a tensor that torch itself would not overwrite here, or only with more than a write."""
    torch: Any = sys.modules["torch"]
    check_negation(name, argument, value)
    if value.is_inference() and not torch.is_inference_mode_enabled():
        raise TypeError(
            f"{name}: {argument} is an inference tensor, which torch lets nobody overwrite outside inference "
            "mode; write to a clone of it"
        )
    if torch._C._len_torch_dispatch_stack() and _copies_before_writes():
        raise TypeError(
            f"{name}: {argument} would be written to without a copy for autograd, which "
            "torch.autograd.graph.allow_mutation_on_saved_tensors promises; write to a clone of it"
        )


def _copies_before_writes() -> bool:
    torch: Any = sys.modules["torch"]
    mode = getattr(torch.autograd.graph, "_CloneArgBeforeMutateMode", None)
    modes = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    return mode is not None and any(isinstance(each, mode) for each in modes)


def written(value: Any) -> None:
    """Tell autograd that a tensor was written to: it then notices if it had saved it, as with torch's own functions."""
    torch: Any = sys.modules["torch"]
    if not value.is_inference():
        torch.autograd.graph.increment_version(value)


def no_memory(name: str, argument: str, value: Any, error: Exception) -> TypeError:
    """Return the error for a tensor that pretends to have memory, by what torch said when it was asked for it."""
    return TypeError(
        f"{name}: {argument} is a {type(value).__qualname__} without memory of its own, as a wrapper of other tensors "
        f"or one of torch.export is; call fastrelu on the tensors themselves (torch says: {error})"
    )


def place(name: str, argument: str, value: Any) -> tuple[int, tuple[int, ...]]:
    """Return address and shape of a strided tensor; raise TypeError for one without memory for all of its elements."""
    try:
        storage = value.untyped_storage()
        pointer: int = value.data_ptr() if storage.device == value.device else 0  # fake tensors pretend to a device
    except (RuntimeError, ValueError) as error:  # (ValueError: parameters that are not initialised yet)
        raise no_memory(name, argument, value, error) from error
    with _not_traced():
        shape = tuple(value.shape)
    if 0 in shape:
        return pointer, shape
    last = value.storage_offset() + sum((n - 1) * step for n, step in zip(shape, value.stride(), strict=True))
    if not pointer or (last + 1) * value.element_size() > storage.nbytes():
        raise TypeError(
            f"{name}: {argument} is a {type(value).__qualname__} whose elements have no memory, as where a storage "
            "was resized, in a wrapper of other tensors, or of zeros that torch has not written down; pass a clone of "
            "its values, or what it wraps"
        )
    return pointer, shape
