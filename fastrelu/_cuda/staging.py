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

Launch = Callable[[list[View], list[View], int], None]

#: One call at a time uses the buffers; the copy engines are shared anyway.
_lock = threading.Lock()


class Part(NamedTuple):
    """An operand or an output that travels in pieces."""

    #: Something of one axis: an array, or what `flat` makes of one.
    flat: Any
    #: Its type on the GPU.
    dtype: np.dtype
    #: Elements of the call for each of its own.
    each: int = 1

    def size(self, n: int) -> int:
        """Return how many of its own elements go with n of the call."""
        return -(-n // self.each)

    def place(self, start: int, stop: int) -> slice:
        """Return where elements of the call are among its own."""
        return slice(start // self.each, self.size(stop))


class _Buffer:
    """Bytes in pinned host memory, with as many on the GPU."""

    def __init__(self, size: int, device: int) -> None:
        self.size, self.device = size, device
        self.near, self.far = cuda_driver.get().new_buffers(size, device)
        self._host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.near))

    def views(self, part: Part, n: int, stream: int) -> tuple[View, np.ndarray]:
        """Return where n elements of a call are on the GPU, and in pinned memory."""
        own, size = part.size(n), part.dtype.itemsize
        view = View(self, self.far, (own,), (size,), part.dtype, self.device, stream)
        return view, self._host[: own * size].view(part.dtype)

    def free(self) -> None:
        """Give the memory back."""
        cuda_driver.get().free_buffers(self.near, self.far, self.device)


class _Set:
    """The buffers of one piece on its way: one per array operand, and then one per output."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.stream = cuda_driver.get().new_stream(device)
        self.buffers: list[_Buffer] = []
        self._waiting: list[tuple[Any, slice, np.ndarray]] = []

    def provide(self, sizes: Sequence[int]) -> None:
        """Make sure that there are buffers of these sizes."""
        for k, size in enumerate(sizes):
            if k < len(self.buffers) and self.buffers[k].size < size:
                self.buffers.pop(k).free()
                self.buffers.insert(k, _Buffer(size, self.device))
            elif k == len(self.buffers):
                self.buffers.append(_Buffer(size, self.device))

    def run(self, inputs: Sequence[Part], outputs: Sequence[Part], start: int, stop: int, launch: Launch) -> None:
        """Send a piece on its way, when the one before has arrived."""
        self.drain()
        driver, stream, parts = cuda_driver.get(), self.stream, (*inputs, *outputs)
        on_gpu, pieces = zip(
            *(b.views(part, stop - start, stream) for part, b in zip(parts, self.buffers)), strict=True
        )
        for part, buffer, piece in zip(inputs, self.buffers, pieces, strict=False):
            with np.errstate(all="ignore"):
                np.copyto(piece, part.flat[part.place(start, stop)], casting="unsafe")
            driver.send(buffer.near, buffer.far, piece.nbytes, stream)
        count = len(inputs)
        launch(list(on_gpu[:count]), list(on_gpu[count:]), stream)
        for part, buffer, piece in zip(outputs, self.buffers[count:], pieces[count:], strict=False):
            driver.fetch(buffer.near, buffer.far, piece.nbytes, stream)
            self._waiting.append((part.flat, part.place(start, stop), piece))

    def drain(self) -> None:
        """Wait for the piece on its way, if any, and put it into its place."""
        if self._waiting:
            cuda_driver.get().synchronize(self.stream)
            pieces, self._waiting = self._waiting, []
            for flat, place, piece in pieces:
                flat[place] = piece


#: Kept between calls: pinning 32 MiB takes longer than sending them.
_sets: dict[int, tuple[_Set, _Set]] = {}


def call(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on host arrays on the GPU; blocks until the result is there."""
    row = ROWS[name]
    checked = errors.checked(name, operands, out)
    values = [value if isinstance(value, classify.NUMBERS) else np.asarray(value) for value in checked]
    python = (int, float)
    kinds = [type(v) if type(v) in python else np.asarray(v).dtype.newbyteorder("=") for v in values]
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


def stream_through(size: int, inputs: Sequence[Part], outputs: Sequence[Part], launch: Launch) -> None:
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
            each.provide([part.size(piece) * part.dtype.itemsize for part in parts])
        try:
            for k, start in enumerate(range(0, size, piece)):
                sets[k % 2].run(inputs, outputs, start, min(start + piece, size), launch)
            for each in (sets[(k + 1) % 2], sets[k % 2]):
                each.drain()
        finally:  # after an error too, of the first of these as well: nothing may still write to the buffers
            for each in sets:
                each.drain()
