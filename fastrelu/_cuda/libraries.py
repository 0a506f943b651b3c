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
from .grids import dense_strides, is_dense
from .numba_cuda import SIMULATED, cuda
from .view import View

LEGACY_STREAM, PER_THREAD_STREAM = 1, 2


def refuse_dtype(name: str, argument: str, what: object) -> NoReturn:
    """Raise the TypeError for a type without a loop."""
    raise TypeError(f"{name}: {argument} is of {what}; accepted are {ACCEPTED}")


def with_memory(name: str, argument: str, view: View) -> View:
    """Return a view; raise ValueError for one of elements at no address, which a kernel would read or write."""
    if not view.pointer and 0 not in view.shape:
        raise ValueError(f"{name}: {argument} is of shape {view.shape}, but has no memory: its address is 0")
    return view


def no_memory(error: Exception) -> MemoryError:
    """Return what we raise for what a library does where it cannot allocate a result."""
    return MemoryError(f"the GPU has not enough free memory for the result: {error}")


class Library:
    """What all libraries have in common, and what a plain CUDA Array Interface gives."""

    label = "CUDA array"

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
        shape = tuple(int(extent) for extent in interface["shape"])
        strides = interface.get("strides")
        pointer, readonly = interface["data"]
        device = _device_of(pointer)
        return with_memory(name, argument, View(
            value, pointer or 0, shape,
            dense_strides(shape, dtype.itemsize) if strides is None else tuple(int(step) for step in strides),
            dtype, device, interface.get("stream") or 0, bool(readonly),
        ))  # fmt: skip

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        """Return a new array for the result, allocated by the library on the GPU of `like`."""
        namespace = getattr(like.owner, "__array_namespace__", None)
        if namespace is not None:
            library = namespace()
            return library.empty(shape, dtype=getattr(library, dtype.name), device=like.owner.device)
        return NUMBA.empty(shape, dtype, order, like)

    def like(self, value: Any) -> Any:
        """Return a new array like a contiguous one, on the current GPU; for libraries that have a quick way."""
        raise NotImplementedError

    def finish(self, result: Any, view: View, inputs: Sequence[View]) -> Any:
        """Return the result as the caller gets it; the kernel that writes to `view` has been launched."""
        return result

    def written(self, value: Any) -> None:
        """Note that a caller's array has been written to behind its library's back."""


def _device_of(pointer: int) -> int:
    if SIMULATED or not pointer:
        return 0
    driver = cuda_driver.get()
    return driver.device_of(pointer) if driver.count() > 1 else 0


class _Numba(Library):
    label = "Numba device array"

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        if SIMULATED:
            array = value._ary
            return View(
                value, array.__array_interface__["data"][0], tuple(array.shape), array.strides, array.dtype,
                0, 0, not array.flags.writeable,
            )  # fmt: skip
        view = super().view(name, argument, value, write=write)
        view.strides = tuple(value.strides)  # the interface calls broadcast arrays contiguous
        view.stream = view.stream or self.stream
        return view

    @functools.cached_property
    def stream(self) -> int:
        """Return the stream of arrays that name none."""
        from numba.core import config

        return PER_THREAD_STREAM if getattr(config, "CUDA_PER_THREAD_DEFAULT_STREAM", False) else 0

    def like(self, value: Any) -> Any:
        return self._new(value.shape, value.dtype, "C", 0)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        if SIMULATED:
            return cuda.device_array(shape, dtype, order=order)
        if like.stream and cuda_driver.get().is_capturing(like.stream):
            # Numba knows nothing of graphs: what it frees, the graph would go on using
            raise RuntimeError(
                "a graph is being captured, for which Numba allocates no arrays: pass all outputs, and call functions "
                "with sums on tensors of torch"
            )
        with cuda.gpus[like.device]:
            stream = cuda.external_stream(like.stream) if like.stream > PER_THREAD_STREAM else 0
            return self._new(shape, dtype, order, stream)

    def _new(self, shape: tuple[int, ...], dtype: np.dtype, order: str, stream: Any) -> Any:
        try:
            return cuda.device_array(shape, dtype, order=order, stream=stream)
        except Exception as error:
            # Numba has a CudaAPIError for everything, whose class depends on its version
            if "OUT_OF_MEMORY" in str(error):
                raise no_memory(error) from None
            raise


class _CuPy(Library):
    label = "CuPy array"

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        device = value.device.id
        stream = sys.modules["cupy"].cuda.get_current_stream(device).ptr
        view = View(value, value.data.ptr, value.shape, value.strides, value.dtype, device, stream)
        return with_memory(name, argument, view)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        cupy: Any = sys.modules["cupy"]
        with cupy.cuda.Device(like.device):
            try:
                return cupy.empty(shape, dtype, order=order)
            except cupy.cuda.memory.OutOfMemoryError as error:
                raise no_memory(error) from None

    def like(self, value: Any) -> Any:
        cupy: Any = sys.modules["cupy"]
        try:
            return cupy.empty_like(value)
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise no_memory(error) from None


class _Torch(Library):
    label = "torch tensor"

    @functools.cached_property
    def stream(self) -> Any:
        """Return the address of a device's current stream. torch's own generated code asks like this."""
        torch: Any = sys.modules["torch"]
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

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        torch: Any = sys.modules["torch"]
        kind = tensors.torch_dtype(dtype)
        try:
            if order == "F":
                reverse = reversed(range(len(shape)))
                return torch.empty(shape[::-1], dtype=kind, device=like.owner.device).permute(*reverse)
            if shape == like.shape:  # keeps, for instance, channels_last
                return torch.empty_like(like.owner, dtype=kind)
            return torch.empty(shape, dtype=kind, device=like.owner.device)
        except torch.cuda.OutOfMemoryError as error:
            raise no_memory(error) from None

    def like(self, value: Any) -> Any:
        torch: Any = sys.modules["torch"]
        try:
            return torch.empty_like(value)
        except torch.cuda.OutOfMemoryError as error:
            raise no_memory(error) from None

    def written(self, value: Any) -> None:
        tensors.written(value)


class _DLPack(Library):
    """Arrays that have only DLPack."""

    label = "DLPack array"

    def keep(self, view: View, inputs: Sequence[View]) -> None:
        """Hold on to the arrays of a launch until it is done, as their library does not know of our stream."""
        cuda_driver.get().keep(view.stream, view.device, (view.owner, [each.owner for each in inputs]))

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        _kind, device = value.__dlpack_device__()
        stream = 0
        if not SIMULATED:
            driver = cuda_driver.get()
            if driver.kept:  # before new memory is asked for
                driver.let_go()
            stream = driver.own_stream(device)
        # the producer makes our stream wait for the array
        capsule = value.__dlpack__(stream=stream or LEGACY_STREAM)
        pointer, shape, strides, dtype, device = dlpack.read(capsule)
        if isinstance(dtype, str):
            refuse_dtype(name, argument, dtype)
        view = View((value, capsule), pointer, shape, strides, dtype, device, stream, readonly=False)
        return with_memory(name, argument, view)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        value = like.owner[0]
        if hasattr(value, "__array_namespace__"):
            library = value.__array_namespace__()
            return library.empty(shape, dtype=getattr(library, dtype.name), device=value.device)
        return NUMBA.empty(shape, dtype, order, like)

    def finish(self, result: Any, view: View, inputs: Sequence[View]) -> Any:
        if not SIMULATED:
            self.keep(view, inputs)
            # Nothing tells the consumer of our stream: make CUDA's default stream, which it waits for, wait for us
            cuda_driver.get().wait(LEGACY_STREAM, view.stream, view.device)
        return result


class _Jax(_DLPack):
    label = "JAX array"

    def view(self, name: str, argument: str, value: Any, *, write: bool) -> View:
        if write:
            raise TypeError(
                f"{name}: {argument} is a JAX array, which cannot be written to; use the result of {name} instead"
            )
        if len(value.devices()) != 1:
            raise TypeError(f"{name}: {argument} is spread over several devices; call {name} on each piece")
        return super().view(name, argument, value, write=write)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> Any:
        jax: Any = sys.modules["jax"]
        (device,) = like.owner[0].devices()
        try:
            try:
                return jax.numpy.empty(shape, dtype, device=device)
            except Exception as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or SIMULATED or not cuda_driver.get().kept:
                    raise
            cuda_driver.get().let_go(0)  # what earlier calls still use is memory too
            return jax.numpy.empty(shape, dtype, device=device)
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise no_memory(error) from None
            raise

    def result_view(self, result: Any, name: str) -> View:
        """Return the view of a new array, not yet seen by anybody, to which we may write."""
        return _DLPack.view(self, name, "out", result, write=True)

    def finish(self, result: Any, view: View, inputs: Sequence[View]) -> Any:
        # JAX may give the inputs' memory to somebody else as soon as nobody holds them, our running kernel or not
        self.keep(view, inputs)
        # JAX believes `result` to be complete. Handed over again by DLPack, it waits for our stream instead.
        jax: Any = sys.modules["jax"]

        def ready(stream: Any) -> None:
            cuda_driver.get().wait(int(stream or LEGACY_STREAM), view.stream, view.device)

        owner = (result, view.owner)
        export = dlpack.Export(owner, view.pointer, view.shape, view.dtype, (dlpack.CUDA, view.device), ready)
        return jax.dlpack.from_dlpack(export)


NUMBA, CUPY, TORCH, JAX, INTERFACE, DLPACK = _Numba(), _CuPy(), _Torch(), _Jax(), Library(), _DLPack()

_by_type: dict[type, Library] = {}


def _made_by(value: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def library_of(value: Any) -> Library | None:
    """Return the library of an array in the memory of a GPU; None for everything else."""
    kind = type(value)
    found = _by_type.get(kind)
    if found is not None:
        return found
    # Numba's managed and mapped arrays are NumPy's too
    managed = isinstance(value, np.ndarray) and hasattr(value, "__cuda_ndarray__")
    host = (np.ndarray, np.generic, bool, int, float, complex, list, tuple)
    if value is None or (isinstance(value, host) and not managed):
        return None
    if _made_by(value, "torch", "Tensor"):
        return TORCH if value.is_cuda else None
    if _made_by(value, "jax", "Array"):
        return JAX if all(device.platform in ("gpu", "cuda") for device in value.devices()) else None
    if _made_by(value, "cupy", "ndarray"):
        found = CUPY
    elif hasattr(value, "__cuda_ndarray__"):
        found = NUMBA
    elif hasattr(value, "__cuda_array_interface__"):
        return INTERFACE
    elif hasattr(value, "__dlpack_device__"):
        return DLPACK if dlpack.is_cuda(int(value.__dlpack_device__()[0])) else None
    else:
        return None
    _by_type[kind] = found  # a type whose arrays are never anywhere else
    return found


def order_of(views: Sequence[View]) -> str:
    """Return the memory order of a new result: Fortran's where all the data has it, as NumPy chooses."""

    def dense(order: str) -> bool:
        return all(is_dense(view.shape, view.strides, view.dtype.itemsize, order) for view in views)

    return "F" if dense("F") and not dense("C") else "C"
