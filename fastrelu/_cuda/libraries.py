"""The libraries whose arrays we take: how each is recognised, read and asked for memory. None of them is imported.

A library that is not in `sys.modules` cannot have made the array in hand.

Streams. torch and CuPy run everything on the current stream of the array's device, and so do we. Numba's
arrays may carry a stream, and a CUDA Array Interface may name one: we launch there. JAX names none, but makes a
stream wait for an array (DLPack); we launch on a stream of our own, and JAX waits for that one when it takes over
the result.

Memory. torch, CuPy and Numba give freed memory to others in the order of the stream that we launch on. JAX does so in
the order of its own streams, none of which it lends: an array that nobody holds any more while our launch still uses it
would be overwritten. So we hold the arrays of such a launch until it is done (`cuda_driver.Driver.keep`).
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from .._arrays import tensors
from .._runtime.dtypes import ACCEPTED
from . import cuda_driver, dlpack
from .numba_cuda import SIMULATED, cuda, stream_at
from .recognise import library_name
from .view import View, dense_strides

LEGACY_STREAM, PER_THREAD_STREAM = 1, 2


def refuse_dtype(name: str, argument: str, what: object) -> NoReturn:
    """Raise the TypeError for a type without a loop."""
    raise TypeError(f"{name}: {argument} is of {what}; accepted are {ACCEPTED}")


def with_memory(name: str, argument: str, view: View) -> View:
    """Return a view; raise ValueError for one of elements at no address, which a kernel would read or write."""
    if not view.pointer and 0 not in view.shape:
        raise ValueError(f"{name}: {argument} is of shape {view.shape}, but has no memory: its address is 0")
    return view


class Library:
    """What all libraries have in common, and what a plain CUDA Array Interface gives."""

    label = "CUDA array"
    #: The module of a library that we ask for more than its arrays tell.
    module_name = ""

    @property
    def module(self) -> Any:
        """Return the library's module, which is there as its array is."""
        return sys.modules[self.module_name]

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        """Return an array's view; raise for what cannot be read, or be written to where `write` is True."""
        interface = value.__cuda_array_interface__
        try:
            dtype = np.dtype(interface["typestr"])
            if dtype.kind == "V":  # the interface has no word for bfloat16, which the array itself may well have
                dtype = np.dtype(getattr(value, "dtype", dtype))
        except TypeError:
            refuse_dtype(name, argument, f"type {interface['typestr']!r}")
        if interface.get("mask") is not None:
            raise TypeError(f"{name}: {argument} is a masked array, which is not supported on a GPU")
        shape = tuple([int(extent) for extent in interface["shape"]])
        strides = self._strides(value, shape, dtype.itemsize)
        pointer, readonly = interface["data"]
        return with_memory(name, argument, View(
            value, pointer or 0, shape, strides, dtype, cuda_driver.get().device_of(pointer or 0),
            interface.get("stream") or 0, bool(readonly),
        ))  # fmt: skip

    def _strides(self, value: Any, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        strides = value.__cuda_array_interface__.get("strides")
        return dense_strides(shape, itemsize) if strides is None else tuple([int(step) for step in strides])

    def view_of_new(self, array: Any, name: str) -> View:
        """Return the view of a new array, not yet seen by anybody, to which we may write."""
        return self.view(name, "out", array, write=False)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        """Return a new array for the result, allocated by the library on the GPU of `like`."""
        try:
            return self._allocate(shape, dtype, order, like)
        except Exception as error:
            if self.ran_out(error):
                raise self.no_memory(error) from None
            raise

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        namespace = getattr(like.owner, "__array_namespace__", None)
        if namespace is None:
            return NUMBA.empty(shape, dtype, order, like)
        library = namespace()
        return library.empty(shape, dtype=getattr(library, dtype.name), device=like.owner.device)

    def ran_out(self, error: Exception) -> bool:
        """Say whether an error of the library is that memory has run out."""
        return False

    def no_memory(self, error: Exception) -> MemoryError:
        """Return what we raise for it."""
        return MemoryError(f"the GPU has not enough free memory for the result: {error}")

    def finish(self, result: Any, view: View, inputs: Sequence[View]) -> Any:
        """Return the result as the caller gets it; the kernel that writes to `view` has been launched."""
        return result

    def written(self, value: Any) -> None:
        """Note that a caller's array has been written to behind its library's back."""


class Numba(Library):
    """Numba's own device arrays, managed and mapped ones among them."""

    label = "Numba device array"

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        if SIMULATED:
            array = value._ary
            return View(
                value, array.__array_interface__["data"][0], tuple(array.shape), array.strides, array.dtype,
                0, 0, not array.flags.writeable,
            )  # fmt: skip
        view = super().view(name, argument, value, write=write)
        view.stream = view.stream or self.stream
        return view

    def _strides(self, value: Any, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        return tuple(value.strides)  # the interface calls broadcast arrays contiguous

    @functools.cached_property
    def stream(self) -> int:
        """Return the stream of arrays that name none."""
        from numba.core import config

        return PER_THREAD_STREAM if getattr(config, "CUDA_PER_THREAD_DEFAULT_STREAM", False) else 0

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        if like.stream and cuda_driver.get().is_capturing(like.stream):
            # Numba knows nothing of graphs: what it frees, the graph would go on using
            raise RuntimeError(
                "a graph is being captured, for which Numba allocates no arrays: pass all outputs, and call functions "
                "with sums on tensors of torch"
            )
        with cuda.gpus[like.device]:
            stream = stream_at(like.stream if like.stream > PER_THREAD_STREAM else 0)
            return cuda.device_array(shape, dtype, order=order, stream=stream)

    def ran_out(self, error: Exception) -> bool:
        # Numba has a CudaAPIError for everything, whose class depends on its version
        return "OUT_OF_MEMORY" in str(error)


class Cupy(Library):
    """CuPy's arrays."""

    label, module_name = "CuPy array", "cupy"

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        device = value.device.id
        stream = self.module.cuda.get_current_stream(device).ptr
        view = View(value, value.data.ptr, value.shape, value.strides, value.dtype, device, stream)
        return with_memory(name, argument, view)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        with self.module.cuda.Device(like.device):
            return self.module.empty(shape, dtype, order=order)

    def ran_out(self, error: Exception) -> bool:
        return isinstance(error, self.module.cuda.memory.OutOfMemoryError)


class Torch(Library):
    """torch's tensors."""

    label, module_name = "torch tensor", "torch"

    @functools.cached_property
    def stream(self) -> Any:
        """Return the address of a device's current stream. torch's own generated code asks like this."""
        torch = self.module
        quick = getattr(torch._C, "_cuda_getCurrentRawStream", None)
        return quick or (lambda device: torch.cuda.current_stream(device).cuda_stream)

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        dtype = tensors.check(name, argument, value)
        if write:
            tensors.check_writable(name, argument, value)
        else:
            tensors.check_negation(name, argument, value)
        size = dtype.itemsize
        device = value.device.index
        pointer, shape = tensors.place(name, argument, value)
        return View(
            value, pointer, shape,
            tuple([size * step for step in value.stride()]), dtype, device, self.stream(device),
        )  # fmt: skip

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        torch, kind = self.module, tensors.torch_dtype(dtype)
        if order == "F":
            reverse = reversed(range(len(shape)))
            return torch.empty(shape[::-1], dtype=kind, device=like.owner.device).permute(*reverse)
        if shape == like.shape:  # keeps, for instance, channels_last
            return torch.empty_like(like.owner, dtype=kind)
        return torch.empty(shape, dtype=kind, device=like.owner.device)

    def ran_out(self, error: Exception) -> bool:
        return isinstance(error, self.module.cuda.OutOfMemoryError)

    def written(self, value: Any) -> None:
        tensors.written(value)


class DLPack(Library):
    """Arrays that have only DLPack."""

    label = "DLPack array"

    def keep(self, view: View, inputs: Sequence[View]) -> None:
        """Hold on to the arrays of a launch until it is done, as their library does not know of our stream."""
        cuda_driver.get().keep(view.stream, view.device, (view, *inputs))

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        _kind, device = value.__dlpack_device__()
        driver = cuda_driver.get()
        if driver.kept:  # before new memory is asked for
            driver.let_go()
        stream = driver.own_stream(device)
        # the producer makes our stream wait for the array
        capsule = value.__dlpack__(stream=stream or LEGACY_STREAM)
        pointer, shape, strides, dtype, device = dlpack.read(capsule)
        if isinstance(dtype, str):
            refuse_dtype(name, argument, dtype)
        view = View(value, pointer, shape, strides, dtype, device, stream, keeper=capsule)
        return with_memory(name, argument, view)

    def finish(self, result: Any, view: View, inputs: Sequence[View]) -> Any:
        self.keep(view, inputs)
        # Nothing tells the consumer of our stream: make CUDA's default stream, which it waits for, wait for us
        cuda_driver.get().wait(LEGACY_STREAM, view.stream, view.device)
        return result


class Jax(DLPack):
    """JAX's arrays."""

    label, module_name = "JAX array", "jax"

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        if write:
            raise TypeError(
                f"{name}: {argument} is a JAX array, which cannot be written to; use the result of {name} instead"
            )
        if len(value.devices()) != 1:
            raise TypeError(f"{name}: {argument} is spread over several devices; call {name} on each piece")
        return super().view(name, argument, value, write=write)

    def view_of_new(self, array: Any, name: str) -> View:
        return super().view(name, "out", array, write=True)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        (device,) = like.owner.devices()
        try:
            return self.module.numpy.empty(shape, dtype, device=device)
        except Exception as error:
            if not (self.ran_out(error) and cuda_driver.get().kept):
                raise
        cuda_driver.get().let_go(0)  # what earlier calls still use is memory too
        return self.module.numpy.empty(shape, dtype, device=device)

    def ran_out(self, error: Exception) -> bool:
        return "RESOURCE_EXHAUSTED" in str(error)

    def finish(self, result: Any, view: View, inputs: Sequence[View]) -> Any:
        # JAX may give the inputs' memory to somebody else as soon as nobody holds them, our running kernel or not
        self.keep(view, inputs)

        # JAX believes `result` to be complete. Handed over again by DLPack, it waits for our stream instead.
        def ready(stream: Any) -> None:
            cuda_driver.get().wait(int(stream or LEGACY_STREAM), view.stream, view.device)

        device = dlpack.CUDA, view.device
        export = dlpack.Export((result, view), view.pointer, view.shape, view.dtype, device, ready)
        return self.module.dlpack.from_dlpack(export)


NUMBA, TORCH, CUPY, JAX = Numba(), Torch(), Cupy(), Jax()
#: By their names in `recognise`.
LIBRARIES: dict[str, Library] = {
    "numba": NUMBA, "cupy": CUPY, "torch": TORCH, "jax": JAX, "interface": Library(), "dlpack": DLPack(),
}  # fmt: skip


def library_of(value: Any) -> Library | None:
    """Return the library of an array in the memory of a GPU; None for everything else."""
    name = library_name(value)
    return None if name is None else LIBRARIES[name]
