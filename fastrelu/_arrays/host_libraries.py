"""PyTorch tensors and JAX arrays in host memory: read where they lie, answered by arrays of the same library.

`enter` turns the arguments of a call into NumPy views of the same memory, on which the call then runs like any
other, and `HostCall.leave` returns what the caller gets. No library is imported: one that is not in `sys.modules`
cannot have made the array in hand. Arrays in the memory of a GPU are left to `_cuda`.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from .._operations import ROWS
from .._runtime.dtypes import ACCEPTED, supported
from . import classify, tensors

#: Alignment from which JAX takes over memory on the CPU without copying it.
JAX_ALIGNMENT = 64
_ORDERS = ("C", "F", "A", "K")


def enter(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> "HostCall | None":
    """Return a call's arguments as NumPy views, or raise what they deserve. Allocates nothing and writes nothing.

    None for calls without an array of PyTorch or JAX, and for those with an array in the memory of a GPU.

    Parameters
    ----------
    name : str
        The operation.
    operands : sequence
        All of its operands, parameters included.
    out : array or None
        Where to put the result; for an in-place twin, the first operand.
    kwargs : mapping
        Keyword arguments of NumPy's ufuncs.
    """
    where = kwargs.get("where", True)
    found = library_of(name, (*ROWS[name].names, "where", "out"), (*operands, where, out))
    if found is None:
        return None
    library, made = found
    views = [
        library.view(name, argument, value) if ours else value
        for argument, value, ours in zip(ROWS[name].names, operands, made, strict=False)
    ]
    options = library.options(name, kwargs)
    if made[-2]:
        options["where"] = library.view(name, "where", where)
    order = options.pop("order", "K")
    if order not in _ORDERS:
        raise ValueError(f"{name}: order must be one of 'C', 'F', 'A', or 'K' (got {order!r})")
    options.pop("subok", None)
    into = None if out is None else library.writable(name, "out", out)
    return HostCall(name, library, operands, views, out, into, options, order)


def library_of(name: str, arguments: Sequence[str], values: Sequence[Any]) -> "tuple[Library, list[bool]] | None":
    """Return the library whose arrays in host memory are among a call's arguments, and which arguments they are.

    None where there is none, or one of them is in the memory of a GPU. TypeError for what cannot stand beside them.
    """
    libraries = libraries_of(name, arguments, values)
    first = next((k for k, library in enumerate(libraries) if library is not None), None)
    if first is None:
        return None
    if any(
        classify.kind(value) == "device" if library is None else library.on_gpu(value)
        for value, library in zip(values, libraries, strict=True)
    ):
        return None
    found = libraries[first]
    assert found is not None
    for argument, value, library in zip(arguments, values, libraries, strict=True):
        if library is not found:
            _check_companion(name, argument, value, f"{arguments[first]} is a {found.label}")
    return found, [library is found for library in libraries]


def libraries_of(name: str, arguments: Iterable[str], values: Sequence[Any]) -> "list[Library | None]":
    """Return the library of each argument, or raise TypeError for what only looks like an array of one."""
    if "torch" not in sys.modules and "jax" not in sys.modules:
        return [None] * len(values)
    libraries = [_LIBRARIES.get(classify.kind(value)) for value in values]
    for argument, value, library in zip(arguments, values, libraries, strict=True):
        if library is not None:
            library.check_kind(name, argument, value)
    return libraries


def _check_companion(name: str, argument: str, value: Any, other: str) -> None:
    """Raise TypeError for what cannot stand beside an array of a library: everything but its arrays and numbers."""
    output = argument.endswith("out")
    if output and value is None:
        return
    if isinstance(value, (*classify.NUMBERS, np.generic)) and not output:
        dtype = classify.dtype_of(value)
        # `where` is read as true or false by NumPy, which also says what is wrong with it
        if argument == "where" or supported(dtype):
            return
        _refuse_dtype(name, argument, dtype)
    library = _LIBRARIES.get(classify.kind(value))
    what = classify.type_name(value) if library is None else library.label
    raise TypeError(
        f"{name}: {other}, but {argument} is a {what}; pass arrays of one library "
        "(its from_dlpack takes the other's without a copy), or numbers for parameters"
    )


def _refuse_dtype(name: str, argument: str, dtype: object) -> NoReturn:
    raise TypeError(f"{name}: {argument} is of dtype {dtype}; accepted are {ACCEPTED}")


@dataclass
class HostCall:
    """One call on arrays of a library, as NumPy sees it."""

    name: str
    library: "Library"
    given: Sequence[Any]
    operands: Sequence[Any]
    result: Any
    out: np.ndarray | None
    kwargs: dict[str, Any] = field(default_factory=dict)
    order: str = "K"
    new: bool = False

    def allocate(self, dtype: np.dtype) -> None:
        """Make the result's array, for a call without ``out=``; `dtype` is that of the loop."""
        arrays = [view for view in (*self.operands, self.kwargs.get("where")) if classify.is_array(view)]
        try:
            shape = np.broadcast_shapes(*(array.shape for array in arrays))
        except ValueError:
            shapes = " ".join(str(array.shape) for array in arrays)
            raise ValueError(f"{self.name}: operands could not be broadcast together with shapes {shapes}") from None
        data = [
            (value, view)
            for value, view, argument in zip(self.given, self.operands, ROWS[self.name].names, strict=True)
            if argument in ROWS[self.name].data and classify.is_array(view) and view.shape == shape
        ]
        order = self.order
        if order == "A":
            order = "F" if data and all(view.flags.fnc for _, view in data) else "C"
        like = data[0][0] if data else None
        some = like if like is not None else next(value for value in self.given if self.library.made(value))
        self.result, self.out = self.library.empty(self.name, shape, dtype, order, like, some)
        self.new = True

    def leave(self) -> Any:
        """Return what the caller gets: the array that was passed as ``out=``, or the new one."""
        assert self.out is not None
        if self.new:
            return self.library.finish(self.result, self.out)
        self.library.written(self.result)
        return self.result


class Library:
    """What `enter` asks of a library."""

    label = ""

    def check_kind(self, name: str, argument: str, value: Any) -> None:
        """Raise TypeError for what only looks like an array, before anything else is asked of it."""

    def on_gpu(self, value: Any) -> bool:
        raise NotImplementedError

    def made(self, value: Any) -> bool:
        """Say whether a value is an array of this library."""
        return _LIBRARIES.get(classify.kind(value)) is self

    def view(self, name: str, argument: str, value: Any) -> np.ndarray:
        """Return an array's memory as a NumPy array."""
        raise NotImplementedError

    def writable(self, name: str, argument: str, value: Any) -> np.ndarray:
        """Return an array's memory as a NumPy array that may be written to."""
        raise NotImplementedError

    def options(self, name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return keyword arguments with types of the library made NumPy's."""
        return dict(kwargs)

    def empty(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, order: str, like: Any, some: Any
    ) -> tuple[Any, np.ndarray]:
        """Return a new array, or what `finish` needs to make it, and its memory.

        `like` is an operand of the same shape whose layout to keep, or None; `some` is any array of the call.
        """
        raise NotImplementedError

    def finish(self, result: Any, out: np.ndarray) -> Any:
        return result

    def written(self, value: Any) -> None:
        """Note that a caller's array has been written to behind its library's back."""


class _Torch(Library):
    label = "torch.Tensor"

    def check_kind(self, name: str, argument: str, value: Any) -> None:
        if not isinstance(value, sys.modules["torch"].Tensor):
            raise TypeError(
                f"{name}: {argument} is a {type(value).__name__} of torch.fx, whose symbolic tracing cannot see into "
                "this call: call fastrelu in a function that torch.fx.wrap has made a leaf"
            )

    def on_gpu(self, value: Any) -> bool:
        return bool(value.is_cuda)

    def view(self, name: str, argument: str, value: Any) -> np.ndarray:
        if value.device.type != "cpu":
            raise TypeError(f"{name}: {argument} is a torch.Tensor on device {value.device}; accepted are cpu and cuda")
        tensors.check(name, argument, value)
        tensors.place(name, argument, value)
        try:
            # A set negation bit means that memory holds the values' negatives. This is the one copy
            return tensors.memory(value.detach().resolve_neg() if value.is_neg() else value)
        except RuntimeError as error:  # wrappers of others without elements
            raise tensors.no_memory(name, argument, value, error) from error

    def writable(self, name: str, argument: str, value: Any) -> np.ndarray:
        view = self.view(name, argument, value)
        tensors.check_writable(name, argument, value)
        if not classify.disjoint(view):
            raise ValueError(f"{name}: several elements of {argument} are one in memory; write to a copy")
        return view

    def options(self, name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        options = dict(kwargs)
        dtype = options.get("dtype")
        if isinstance(dtype, sys.modules["torch"].dtype):
            options["dtype"] = tensors.dtype_of(name, "the result", dtype)
        return options

    def empty(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, order: str, like: Any, some: Any
    ) -> tuple[Any, np.ndarray]:
        torch: Any = sys.modules["torch"]
        kind = tensors.torch_dtype(dtype)
        if order == "K" and like is not None:
            # Keeps the strides, channels_last among them, and the class of a subclass
            result = torch.empty_like(like, dtype=kind, requires_grad=False)
        elif order == "F":
            result = torch.empty(shape[::-1], dtype=kind, device="cpu").permute(*reversed(range(len(shape))))
        else:
            result = torch.empty(shape, dtype=kind, device="cpu")
        return result, tensors.memory(result)

    def written(self, value: Any) -> None:
        tensors.written(value)


class _Jax(Library):
    label = "jax.Array"

    def check_kind(self, name: str, argument: str, value: Any) -> None:
        jax: Any = sys.modules["jax"]
        if isinstance(value, jax.core.Tracer):
            raise TypeError(
                f"{name}: {argument} is traced by JAX (jit, grad, vmap), which cannot see into this call: call "
                "fastrelu outside, or by jax.pure_callback, in a jax.custom_vjp where gradients are needed"
            )
        if not isinstance(value, jax.Array):
            raise TypeError(f"{name}: {argument} is a jax.Ref, which JAX may write to; pass its value, {argument}[...]")
        if value.is_deleted():
            raise ValueError(
                f"{name}: {argument} is a jax.Array whose memory was given away: it was deleted, or donated to a call"
            )
        devices = value.devices()
        if len(devices) != 1:
            raise TypeError(f"{name}: {argument} is spread over {len(devices)} devices; call {name} on each piece")
        if not isinstance(value.dtype, np.dtype) or not supported(value.dtype):
            _refuse_dtype(name, argument, value.dtype)

    def on_gpu(self, value: Any) -> bool:
        (device,) = value.devices()
        return device.platform in ("gpu", "cuda")

    def view(self, name: str, argument: str, value: Any) -> np.ndarray:
        (device,) = value.devices()
        if device.platform != "cpu":
            raise TypeError(f"{name}: {argument} is a jax.Array on a {device.platform}; accepted are cpu and cuda")
        return np.asarray(value)  # JAX gives its own memory, read-only, once it has been computed

    def writable(self, name: str, argument: str, value: Any) -> np.ndarray:
        raise TypeError(f"{name}: {argument} is a jax.Array, and JAX arrays are immutable; use the result of {name}")

    def empty(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, order: str, like: Any, some: Any
    ) -> tuple[Any, np.ndarray]:
        jax: Any = sys.modules["jax"]
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise TypeError(
                f"{name}: the result is of dtype {dtype}, which JAX holds only with jax_enable_x64; convert the "
                "arguments to float32 first"
            )
        nbytes = math.prod(shape) * dtype.itemsize
        memory = np.empty(nbytes + JAX_ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % JAX_ALIGNMENT
        # JAX shows no memory order: the last axis is the fastest, whatever `order` says
        return some, memory[start : start + nbytes].view(dtype).reshape(shape)

    def finish(self, result: Any, out: np.ndarray) -> Any:
        jax: Any = sys.modules["jax"]
        (device,) = result.devices()
        if result.committed:
            return jax.device_put(out, device, may_alias=True)
        with jax.default_device(device):  # an array that JAX may move stays one
            return jax.device_put(out, may_alias=True)


_LIBRARIES: dict[str, Library] = {"torch": _Torch(), "jax": _Jax()}
