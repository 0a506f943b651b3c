"""Host arrays with ``target="cuda"``: copied to the GPU, computed, and copied back, in pieces that overlap.

A GPU copies asynchronously only from and to pinned memory, and pinning the caller's pages costs more than copying them.
So data travels through pinned buffers, two sets of them: while one piece is on its way or is computed, the
processor fills or empties the other set. Memory is bounded, however large the arrays are.
"""

import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .. import _arrays
from .._operations import DATA, OPERATIONS
from . import _call, _driver, _libraries, _settings, _types
from ._numba import SIMULATED
from ._view import View

#: One call at a time uses the buffers; the copy engines are shared anyway.
_lock = threading.Lock()


class _Buffer:
    """Bytes in pinned host memory, with as many on the GPU."""

    def __init__(self, size: int, device: int) -> None:
        self.size, self.device = size, device
        if SIMULATED:
            self.host = np.empty(size, dtype=np.uint8)
            self._far = np.empty(size + 16, dtype=np.uint8)
            self.pointer = -(-self._far.ctypes.data // 16) * 16
            return
        driver = _driver.get()
        near, far = ctypes.c_void_p(), ctypes.c_uint64()
        with driver.on(device):
            driver.call("cuMemHostAlloc", ctypes.byref(near), ctypes.c_size_t(size), 1)  # 1: for every context
            try:
                driver.call("cuMemAlloc_v2", ctypes.byref(far), ctypes.c_size_t(size))
            except BaseException:
                driver.call("cuMemFreeHost", near)
                raise
        self._near, self.pointer = near, far.value
        self.host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(near.value or 0))

    def send(self, nbytes: int, stream: int) -> None:
        """Copy the first bytes to the GPU, in the stream's order."""
        if SIMULATED:
            ctypes.memmove(self.pointer, self.host.ctypes.data, nbytes)
            return
        _driver.get().call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(self.pointer), self._near, ctypes.c_size_t(nbytes),
            ctypes.c_void_p(stream),
        )  # fmt: skip

    def fetch(self, nbytes: int, stream: int) -> None:
        """Copy the first bytes back, in the stream's order."""
        if SIMULATED:
            ctypes.memmove(self.host.ctypes.data, self.pointer, nbytes)
            return
        _driver.get().call(
            "cuMemcpyDtoHAsync_v2", self._near, ctypes.c_uint64(self.pointer), ctypes.c_size_t(nbytes),
            ctypes.c_void_p(stream),
        )  # fmt: skip

    def free(self) -> None:
        """Give the memory back."""
        if not SIMULATED:
            driver = _driver.get()
            with driver.on(self.device):
                driver.call("cuMemFree_v2", ctypes.c_uint64(self.pointer))
                driver.call("cuMemFreeHost", self._near)


class _Set:
    """The buffers of one piece on its way: one per array operand, the output last."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.stream = 0 if SIMULATED else _driver.get().new_stream(device)
        self.buffers: list[_Buffer] = []
        self.waiting: tuple[np.ndarray, np.ndarray] | None = None

    def provide(self, sizes: Sequence[int]) -> None:
        """Make sure that there are buffers of these sizes."""
        for k, size in enumerate(sizes):
            if k == len(self.buffers):
                self.buffers.append(_Buffer(size, self.device))
            elif self.buffers[k].size < size:
                self.buffers[k].free()
                del self.buffers[k]
                self.buffers.insert(k, _Buffer(size, self.device))

    def drain(self) -> None:
        """Wait for the piece on its way, if any, and put it into its place."""
        if self.waiting is not None:
            if not SIMULATED:
                _driver.get().call("cuStreamSynchronize", ctypes.c_void_p(self.stream))
            (place, piece), self.waiting = self.waiting, None
            place[...] = piece


#: Kept between calls: pinning 32 MiB takes longer than sending them.
_sets: dict[int, tuple[_Set, _Set]] = {}


def _current_device() -> int:
    number = ctypes.c_int()
    if SIMULATED or _driver.get().library.cuCtxGetDevice(ctypes.byref(number)):
        return 0  # no context is current
    return number.value


def call(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on host arrays on the GPU; blocks until the result is there."""
    arguments = OPERATIONS[name]
    for key in kwargs:
        if key not in _call.KEYWORDS:
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
    values = [value if isinstance(value, _arrays.NUMBERS) else np.asarray(value) for value in operands]
    for argument, value in zip(arguments, values, strict=True):
        dtype = value.dtype if isinstance(value, np.ndarray) else np.dtype(type(value))
        if not _arrays.supported(dtype):
            _libraries.refuse_dtype(name, argument, f"dtype {dtype}")
    if out is not None and not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: out must be an array, not {_arrays.type_name(out)}")
    kinds = [
        type(value) if type(value) in (int, float) else np.asarray(value).dtype.newbyteorder("=") for value in values
    ]
    into = None if out is None else out.dtype.newbyteorder("=")
    loop = _types.loop_dtype(name, kinds, into, kwargs)
    where = kwargs.get("where", True)
    shapes = [np.shape(value) for value in (*values, where)]
    try:
        shape = np.broadcast_shapes(*shapes)
        if out is not None and np.broadcast_shapes(shape, out.shape) != out.shape:
            raise ValueError
    except ValueError:
        into_shape = "" if out is None else f" into out of shape {out.shape}"
        raise ValueError(f"{name}: shapes {shapes[:-1]} could not be broadcast together{into_shape}") from None
    if out is not None:
        shape = out.shape
        if not out.flags.writeable:
            raise ValueError(f"{name}: the output array is read-only")
    data = [value for argument, value in zip(arguments, values, strict=True) if argument in DATA]
    like = next((value for value in data if isinstance(value, np.ndarray) and value.shape == shape), None)
    order = kwargs.get("order", "K")
    if out is None and like is not None:
        result = np.empty_like(like, loop, order=order, subok=False)
    elif out is None:
        result = np.empty(shape, loop, order="F" if order == "F" else "C")
    else:
        result = out
    straight = (
        where is True
        and result.dtype == loop
        and (result.flags.c_contiguous or result.flags.f_contiguous)
        and not any(np.may_share_memory(result, v) and v is not result for v in values if isinstance(v, np.ndarray))
    )
    work = result if straight else np.empty(shape, loop)
    if work.size:
        _stream_through(name, loop, values, work)
    if not straight:
        with np.errstate(all="ignore"):
            np.copyto(result, work, where=where, casting="unsafe")
    if out is None and shape == () and all(np.ndim(value) == 0 for value in values):
        return result[()]
    return result


def _stream_through(name: str, loop: np.dtype, values: Sequence[Any], result: np.ndarray) -> None:
    order: Literal["C", "F"] = "C" if result.flags.c_contiguous else "F"
    flat = result.reshape(-1, order=order)
    arrays, operands = [], []
    for value in values:
        if np.ndim(value) == 0:
            operands.append(np.asarray(value)[()] if isinstance(value, np.ndarray) else value)
            continue
        value = np.broadcast_to(value, result.shape)
        if order == "F":
            value = value.T
        # `flat` of a non-contiguous array copies what is taken from it, piece by piece
        arrays.append(value.reshape(-1) if value.flags.c_contiguous else value.flat)
        operands.append(None)
    if not arrays:  # an output larger than its operands
        arrays, operands = [np.broadcast_to(values[0], result.shape).flat], [None, *operands[1:]]
    piece = min(flat.size, max(1, _settings.STAGING_BYTES // loop.itemsize))
    device = _current_device()
    with _lock:
        if device not in _sets:
            _sets[device] = _Set(device), _Set(device)
        sets = _sets[device]
        for each in sets:  # all memory before the first result, so that running out of it leaves `out` alone
            each.provide([piece * loop.itemsize] * (len(arrays) + 1))
        try:
            for k, start in enumerate(range(0, flat.size, piece)):
                _send(name, loop, operands, arrays, flat, start, min(start + piece, flat.size), sets[k % 2])
            for each in (sets[(k + 1) % 2], sets[k % 2]):
                each.drain()
        finally:
            for each in sets:
                if each.waiting is not None:  # after an error: nothing may still write to the buffers
                    each.drain()


def _send(
    name: str, loop: np.dtype, operands: Sequence[Any], arrays: Sequence[Any], flat: np.ndarray, start: int, stop: int,
    buffers: _Set,
) -> None:  # fmt: skip
    buffers.drain()
    n = stop - start
    nbytes = n * loop.itemsize
    views = []
    for array, buffer in zip(arrays, buffers.buffers, strict=False):
        with np.errstate(all="ignore"):
            np.copyto(buffer.host[:nbytes].view(loop), array[start:stop], casting="unsafe")
        buffer.send(nbytes, buffers.stream)
        views.append(View(buffer, buffer.pointer, (n,), (loop.itemsize,), loop, buffers.device, buffers.stream))
    last = buffers.buffers[len(arrays)]
    target = View(last, last.pointer, (n,), (loop.itemsize,), loop, buffers.device, buffers.stream)
    rest = iter(views)
    on_device = [next(rest) if operand is None else operand for operand in operands]
    _call.launch(name, loop, on_device, target, None, buffers.stream)
    last.fetch(nbytes, buffers.stream)
    buffers.waiting = flat[start:stop], last.host[:nbytes].view(loop)
