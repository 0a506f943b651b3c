"""PyTorch tensors and JAX arrays in host memory: read where they lie, answered by arrays of the same library.

A `HostCall` has the arguments of a call as NumPy views of the same memory, on which it then runs like any other, and
returns what the caller gets. No library is imported: one that is not in `sys.modules` cannot have made the array in
hand. Arrays in the memory of a GPU are left to `_cuda`.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._operations import ROWS
from .._runtime.dtypes import supported
from . import classify, tensors

#: Alignment from which JAX takes over memory on the CPU without copying it.
JAX_ALIGNMENT = 64


def libraries_of(name: str, given: Mapping[str, Any]) -> "dict[str, Library]":
    """Return the library of each argument that has one, or raise TypeError for what only looks like its array."""
    if "torch" not in sys.modules and "jax" not in sys.modules:
        return {}
    libraries = {}
    for argument, value in given.items():
        library = _LIBRARIES.get(classify.kind(value))
        if library is not None:
            library.check_kind(name, argument, value)
            libraries[argument] = library
    return libraries


def on_host(name: str, given: Mapping[str, Any]) -> "dict[str, Library]":
    """Return the one library of arguments in host memory, for each that has it; TypeError for what stands beside it.

    Nothing is returned where there is no such argument, or one of all is in the memory of a GPU.
    """
    libraries = libraries_of(name, given)
    if not libraries or any(
        libraries[argument].on_gpu(value) if argument in libraries else classify.kind(value) == "device"
        for argument, value in given.items()
    ):
        return {}
    first, library = next(iter(libraries.items()))
    for argument, value in given.items():
        if libraries.get(argument) is not library:
            _check_companion(name, argument, value, f"{first} is a {library.label}")
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
        classify.refuse_dtype(name, argument, dtype)
    library = _LIBRARIES.get(classify.kind(value))
    what = classify.type_name(value) if library is None else library.label
    raise TypeError(
        f"{name}: {other}, but {argument} is a {what}; pass arrays of one library "
        "(its from_dlpack takes the other's without a copy), or numbers for parameters"
    )


class Library:
    """What a call asks of a library. As it is, it takes everything for NumPy's."""

    label = ""

    def check_kind(self, name: str, argument: str, value: Any) -> None:
        """Raise TypeError for what only looks like an array, before anything else is asked of it."""

    def on_gpu(self, value: Any) -> bool:
        return False

    def view(self, name: str, argument: str, value: Any) -> Any:
        """Return an array's memory as a NumPy array."""
        return value

    def writable(self, name: str, argument: str, value: Any) -> np.ndarray:
        """Return an array's memory as a NumPy array that may be written to."""
        array: np.ndarray = value
        return array

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
        if order == "K" and isinstance(like, torch.Tensor):
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
            classify.refuse_dtype(name, argument, value.dtype)

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


class HostCall:
    """A call: its `inputs` and `outputs` by name, as NumPy sees them. Making it allocates and writes nothing."""

    #: What sees to arguments without a library.
    plain = Library()

    def __init__(
        self, name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any],
        libraries: Mapping[str, Library] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.row, self.given = name, ROWS[name], {**inputs, **outputs}
        self._libraries = on_host(name, self.given) if libraries is None else libraries
        self.library = next(iter(self._libraries.values()), self.plain)
        self.inputs: dict[str, Any] = {
            argument: self._libraries.get(argument, self.plain).view(name, argument, value)
            for argument, value in inputs.items()
        }
        self.outputs: dict[str, np.ndarray] = {
            argument: self.library.writable(name, argument, value)
            for argument, value in outputs.items()
            if value is not None
        }
        self._new: dict[str, Any] = {}

    def memory(
        self, argument: str, shape: tuple[int, ...], dtype: np.dtype, like: str | None, order: str = "K"
    ) -> np.ndarray:
        """Return an output's memory: what was given, or else new, laid out like an input where `order` leaves that."""
        if argument in self.outputs:
            return self.outputs[argument]
        source = self.given if like in self._libraries else self.inputs  # a list is an array there
        pattern = None if like is None else source[like]
        some = self.given.get(next(iter(self._libraries), ""))
        self._new[argument], memory = self.library.empty(self.name, shape, dtype, order, pattern, some)
        return memory

    def leave(self, argument: str, memory: np.ndarray) -> Any:
        """Return what the caller gets for an output: what was given, or the new array."""
        if argument not in self.outputs:
            return self.library.finish(self._new[argument], memory)
        self.library.written(self.given[argument])
        return self.given[argument]


class ElementwiseCall(HostCall):
    """A call of a ufunc with its keyword arguments, on arrays of a library."""

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Any],
        out: Any,
        kwargs: Mapping[str, Any],
        libraries: Mapping[str, Library],
    ) -> None:
        super().__init__(name, inputs, {"out": out}, libraries)
        self.operands = [self.inputs[argument] for argument in self.row.names]
        self.out = self.outputs.get("out")
        self.kwargs = self.library.options(name, kwargs)
        if "where" in kwargs:
            self.kwargs["where"] = self.inputs["where"]
        self._order = self.kwargs.pop("order", "K")
        if self._order not in ("C", "F", "A", "K"):
            raise ValueError(f"{name}: order must be one of 'C', 'F', 'A', or 'K' (got {self._order!r})")
        self.kwargs.pop("subok", None)

    def allocate(self, dtype: np.dtype) -> np.ndarray:
        """Return memory for the result; `dtype` is that of the loop."""
        arrays = {argument: view for argument, view in self.inputs.items() if classify.is_array(view)}
        shape = np.broadcast_shapes(*(view.shape for view in arrays.values()))
        like = [each for each in self.row.data if each in arrays and arrays[each].shape == shape]
        order = self._order
        if order == "A":
            order = "F" if like and all(arrays[each].flags.fnc for each in like) else "C"
        return self.memory("out", shape, dtype, like[0] if like else None, order)


def enter(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> ElementwiseCall | None:
    """Return a call of a ufunc as NumPy sees it; None for one without arrays of PyTorch or JAX in host memory."""
    inputs = dict(zip((*ROWS[name].names, "where"), (*operands, kwargs.get("where", True)), strict=True))
    libraries = on_host(name, {**inputs, "out": out})
    return ElementwiseCall(name, inputs, out, kwargs, libraries) if libraries else None
