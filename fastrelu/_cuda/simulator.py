"""What stands for a GPU where Numba simulates one: memory and arithmetic for `access`, and a driver without a GPU."""

import contextlib
import ctypes
import functools

import numpy as np

from .dtypes import compute_dtype, memory_dtype
from .settings import VECTOR_BYTES


def lowered(result):
    """Make a function of kernels of one of `access`: a decorator. `result` is for the compiler."""

    def decorate(function):
        @functools.wraps(function)
        def run(*arguments):
            with np.errstate(all="ignore"):
                returned = function(Machine, *arguments)
            return tuple(returned) if isinstance(returned, list) else returned

        return run

    return decorate


class Machine:
    """As `emitter.Machine`, on numbers."""

    @staticmethod
    def call(function, operands, code, result):
        """Call a Python function."""
        return function(*operands)

    @staticmethod
    def cast(value, source, target):
        """Return a number in another type."""
        return compute_dtype(target).type(value)

    narrow = wide = staticmethod(int)

    @staticmethod
    def number(bit, loop):
        """Return 0 or 1 in the type in which an operation computes."""
        return compute_dtype(loop).type(bit)

    @staticmethod
    def read(codes, loop, lanes, places):
        """Load from ``places[j][k]`` of each operand; return the operands' rows of values."""
        rows = []
        for code, width, addresses in zip(codes, lanes, places, strict=True):
            size, row = width * memory_dtype(code).itemsize, []
            for address in addresses:
                raw = np.frombuffer(_memory(address, size), dtype=memory_dtype(code))
                found = _rounded(_from_memory(raw, code), loop).astype(compute_dtype(loop))
                row.extend(tuple(found) * (max(lanes) // width))
            rows.append(tuple(row))
        return tuple(rows)

    @staticmethod
    def write(code, loop, width, addresses, values):
        """Store a row of values, `width` adjacent ones at each address."""
        size = width * memory_dtype(code).itemsize
        for k, address in enumerate(addresses):
            lanes = np.array(values[k * width : (k + 1) * width], dtype=compute_dtype(loop))
            _memory(address, size)[:] = to_memory(_rounded(lanes, loop), code).tobytes()


def _memory(address, size):
    if address % size:
        raise AssertionError(f"an access of {size} bytes at address {address:#x} is not aligned")
    return (ctypes.c_char * size).from_address(int(address))


def _from_memory(raw, code):
    return (raw.astype(np.uint32) << 16).view(np.float32) if code == "E" else raw


def to_memory(values, code):
    """Return numbers as they lie in memory."""
    if code != "E":
        return values.astype(code)
    values = values.astype(np.float32)
    bits = np.where(np.isnan(values), values.view(np.uint32) & 0xFFFF0000, values.view(np.uint32))
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)


def _rounded(values, code):
    return _from_memory(to_memory(values, code), code)


class Driver:
    """As `cuda_driver.Driver`, of one GPU whose memory is the host's, and where all work is done at once."""

    #: What unfinished work needs.
    kept = ()

    def __init__(self):
        self._buffers = {}

    def _one(self, *_):
        return 1

    def _first(self, *_):
        return 0

    def _done(self, *_):
        return None

    count = multiprocessors = _one
    device_of = current_device = own_stream = new_stream = _first
    is_capturing = wait = keep = synchronize = _done

    def on(self, device):
        """Use a GPU."""
        return contextlib.nullcontext()

    def new_buffers(self, size, device):
        """Return the addresses of memory, aligned as a GPU's is."""
        memory = [np.empty(size + VECTOR_BYTES, dtype=np.uint8) for _ in range(2)]
        near, far = (-(-each.ctypes.data // VECTOR_BYTES) * VECTOR_BYTES for each in memory)
        self._buffers[near] = memory
        return near, far

    def free_buffers(self, near, far, device):
        """Give such memory back."""
        del self._buffers[near]

    def send(self, near, far, nbytes, stream):
        """Copy to the GPU."""
        ctypes.memmove(far, near, nbytes)

    def fetch(self, near, far, nbytes, stream):
        """Copy back."""
        ctypes.memmove(near, far, nbytes)


DRIVER = Driver()
