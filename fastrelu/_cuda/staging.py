"""Host arrays with ``target="cuda"``: copied to the GPU, computed, and copied back, in pieces that overlap.

A GPU copies asynchronously only from and to pinned memory, and pinning the caller's pages costs more than copying them.
So data travels through pinned buffers, two sets of them: while one piece is on its way or is computed, the
processor fills or empties the other set. Memory is bounded, however large the arrays are.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .._arrays import classify
from .._call import errors
from .._operations import ROWS
from . import cuda_driver, dtypes, elementwise, settings
from .view import View

#: One call at a time uses the buffers; the copy engines are shared anyway.
_lock = threading.Lock()


class _Buffer:
    """Bytes in pinned host memory, with as many on the GPU."""

    def __init__(self, size: int, device: int) -> None:
        self.size, self.device = size, device
        self._near, self.pointer = cuda_driver.get().new_buffers(size, device)
        self.host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._near))

    def send(self, nbytes: int, stream: int) -> None:
        """Copy the first bytes to the GPU, in the stream's order."""
        cuda_driver.get().send(self._near, self.pointer, nbytes, stream)

    def fetch(self, nbytes: int, stream: int) -> None:
        """Copy the first bytes back, in the stream's order."""
        cuda_driver.get().fetch(self._near, self.pointer, nbytes, stream)

    def free(self) -> None:
        """Give the memory back."""
        cuda_driver.get().free_buffers(self._near, self.pointer, self.device)


class _Set:
    """The buffers of one piece on its way: one per array operand, and then one per output."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.stream = cuda_driver.get().new_stream(device)
        self.buffers: list[_Buffer] = []
        self.waiting: list[tuple[Any, slice, np.ndarray]] = []

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
        if self.waiting:
            cuda_driver.get().synchronize(self.stream)
            pieces, self.waiting = self.waiting, []
            for flat, place, piece in pieces:
                flat[place] = piece


#: Kept between calls: pinning 32 MiB takes longer than sending them.
_sets: dict[int, tuple[_Set, _Set]] = {}


def call(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on host arrays on the GPU; blocks until the result is there."""
    row = ROWS[name]
    checked = errors.checked(name, operands, out)
    values = [value if isinstance(value, classify.NUMBERS) else np.asarray(value) for value in checked]
    kinds = [value.dtype.newbyteorder("=") if isinstance(value, np.ndarray) else type(value) for value in values]
    into = None if out is None else out.dtype.newbyteorder("=")
    loop = dtypes.loop_dtype(name, kinds, into, kwargs)
    where = kwargs.get("where", True)
    shapes = [np.shape(value) for value in (*values, where)]
    shape = elementwise.result_shape(name, shapes, None if out is None else out.shape)
    if out is not None and not out.flags.writeable:
        raise ValueError(f"{name}: the output array is read-only")
    data = values[: len(row.data)]
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


class Part(NamedTuple):
    """An operand or an output that travels in pieces."""

    #: Something of one axis: an array, or what `flat` makes of one.
    flat: Any
    #: Its type on the GPU.
    dtype: np.dtype
    #: Elements of the call for each of its own.
    each: int = 1

    def view(self, buffer: _Buffer, n: int, stream: int) -> tuple[View, np.ndarray]:
        """Return where n elements of the call are on the GPU, and in pinned memory."""
        own = -(-n // self.each)
        view = View(buffer, buffer.pointer, (own,), (self.dtype.itemsize,), self.dtype, buffer.device, stream)
        return view, buffer.host[: own * self.dtype.itemsize].view(self.dtype)

    def place(self, start: int, stop: int) -> slice:
        """Return where elements of the call are among its own."""
        return slice(start // self.each, -(-stop // self.each))


def flat(array: np.ndarray) -> Any:
    """Return an array's elements in C order, to be sliced: copies, piece by piece, if it is not contiguous."""
    return array.reshape(-1) if array.flags.c_contiguous else array.flat


def _stream_through(name: str, loop: np.dtype, values: Sequence[Any], result: np.ndarray) -> None:
    order: Literal["C", "F"] = "C" if result.flags.c_contiguous else "F"
    arrays, operands = [], []
    for value in values:
        if np.ndim(value) == 0:
            operands.append(np.asarray(value)[()] if isinstance(value, np.ndarray) else value)
            continue
        value = np.broadcast_to(value, result.shape)
        arrays.append(flat(value.T if order == "F" else value))
        operands.append(None)
    if not arrays:  # an output larger than its operands
        arrays, operands = [np.broadcast_to(values[0], result.shape).flat], [None, *operands[1:]]

    def launch(views: list[View], results: list[View], stream: int) -> None:
        rest = iter(views)
        on_device = [next(rest) if operand is None else operand for operand in operands]
        elementwise.launch(name, loop, on_device, results[0], None, stream)

    out = Part(result.reshape(-1, order=order), loop)
    stream_through(result.size, [Part(array, loop) for array in arrays], [out], launch)


def stream_through(
    size: int, inputs: Sequence[Part], outputs: Sequence[Part], launch: Callable[[list[View], list[View], int], None]
) -> None:
    """Compute `size` elements in pieces; `launch` gets the views of inputs and outputs, and the stream."""
    parts = [*inputs, *outputs]
    whole = max(part.each for part in parts)
    piece = min(size, whole * max(1, settings.STAGING_BYTES // (whole * max(part.dtype.itemsize for part in parts))))
    driver = cuda_driver.get()
    device = driver.current_device()
    # this may be a thread without a context, with buffers that another one has made
    with _lock, driver.on(device):
        if device not in _sets:
            _sets[device] = _Set(device), _Set(device)
        sets = _sets[device]
        for each in sets:  # all memory before the first result, so that running out of it leaves `out` alone
            each.provide([-(-piece // part.each) * part.dtype.itemsize for part in parts])
        try:
            for k, start in enumerate(range(0, size, piece)):
                _send(inputs, outputs, start, min(start + piece, size), sets[k % 2], launch)
            for each in (sets[(k + 1) % 2], sets[k % 2]):
                each.drain()
        finally:
            for each in sets:
                if each.waiting:  # after an error: nothing may still write to the buffers
                    each.drain()


def _send(
    inputs: Sequence[Part], outputs: Sequence[Part], start: int, stop: int, buffers: _Set,
    launch: Callable[[list[View], list[View], int], None],
) -> None:  # fmt: skip
    buffers.drain()
    views, pieces = [], []
    for part, buffer in zip((*inputs, *outputs), buffers.buffers, strict=False):
        view, piece = part.view(buffer, stop - start, buffers.stream)
        views.append(view)
        pieces.append(piece)
    for part, buffer, piece in zip(inputs, buffers.buffers, pieces, strict=False):
        with np.errstate(all="ignore"):
            np.copyto(piece, part.flat[part.place(start, stop)], casting="unsafe")
        buffer.send(piece.nbytes, buffers.stream)
    launch(views[: len(inputs)], views[len(inputs) :], buffers.stream)
    for part, buffer, piece in zip(outputs, buffers.buffers[len(inputs) :], pieces[len(inputs) :], strict=False):
        buffer.fetch(piece.nbytes, buffers.stream)
        buffers.waiting.append((part.flat, part.place(start, stop), piece))
