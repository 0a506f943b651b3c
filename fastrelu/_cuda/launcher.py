"""Launches with as little Python as possible.

An ordinary ``kernel[grid, block](arrays)`` of Numba looks up the kernel by the types of its arguments, which
it finds by asking each array; takes each array apart into seven values; makes a ctypes object of each; and builds
stream and configuration objects, on every call. A `Prepared` launch does this once. What is left per call is to pack
the launch configuration and the arguments, plain numbers, into one buffer (`struct.pack_into`), and one call
of the driver, `cuLaunchKernelEx`, which takes four addresses instead of the eleven arguments of `cuLaunchKernel`.

The simulator, and any release of Numba's CUDA target whose kernels do not tell their address, get the ordinary launch.
"""

import ctypes
import functools
import struct
from collections.abc import Iterator
from typing import Any

from . import cuda_driver
from .grids import Grid
from .numba_cuda import SIMULATED, cuda, stream_at, types
from .specs import Spec, kernel

#: CUlaunchConfig: grid, block, shared memory, stream, attributes and their number.
_CONFIGURATION = "7I4xQQI4x"
#: How `struct` packs the types that kernels take.
_PACKED = {types.int64: "q", types.float32: "f", types.float64: "d"}


def _nest(spec: Spec, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a kernel's arguments as its signature groups them; `values` are the same, flat."""
    rest = iter(values)

    def take(kind: Any) -> Any:
        if isinstance(kind, types.BaseTuple):
            return tuple(take(item) for item in kind)
        return next(rest)

    return tuple(take(kind) for kind in spec.argument_types())


def _flatten(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (tuple, types.BaseTuple)):
            yield from _flatten(item)
        else:
            yield item


class Prepared:
    """A kernel, ready to launch with plain numbers."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        kinds = "".join(_PACKED[kind] for kind in _flatten(spec.argument_types()))
        layout = f"@{_CONFIGURATION}{kinds}"
        self._pack = struct.Struct(layout).pack_into
        self._size = struct.calcsize(layout)
        upto = [struct.calcsize(layout[: len(layout) - len(kinds) + k + 1]) for k in range(len(kinds))]
        self._places = [end - struct.calcsize(kind) for end, kind in zip(upto, kinds, strict=True)]
        self._free: list[tuple[Any, int, Any, int]] = []
        self._handles: dict[int, int | None] = {}
        self._several = False
        self._driver: Any = None

    def _new_buffer(self) -> tuple[Any, int, Any, int]:
        buffer = (ctypes.c_uint64 * -(-self._size // 8))()
        start = ctypes.addressof(buffer)
        table = (ctypes.c_void_p * max(1, len(self._places)))(*(start + place for place in self._places))
        return buffer, start, table, ctypes.addressof(table)

    def load(self, device: int) -> int | None:
        """Compile for a GPU and return the address of its kernel, None where Numba does not tell."""
        if SIMULATED:
            return self._handles.setdefault(device, None)
        from numba.core.compiler_lock import global_compiler_lock

        with global_compiler_lock:
            if device not in self._handles:
                self._driver = cuda_driver.get()
                self._several = self._driver.count() > 1
                # Within a capture of a graph, nothing of this may be refused, and Numba not free what still waits
                # for it: that would wait for the GPU
                with self._driver.relaxed(), cuda.gpus[device], cuda.defer_cleanup():
                    compiled = kernel(self.spec).compile(self.spec.argument_types())
                    compiled.bind()
                    try:
                        handle = compiled._codelibrary.get_cufunc().handle
                        address = int(getattr(handle, "value", handle))
                    except (AttributeError, TypeError):
                        address = None
                    if address is not None and type(handle).__name__ == "CUkernel":
                        # The driver loads code when it is first asked for, which a launch in a capture must not be
                        self._driver.load(address)
                    self._handles[device] = address
        return self._handles[device]

    def __call__(self, grid: Grid, stream: int, device: int, *values: Any) -> None:
        """Launch; `values` are the kernel's arguments, flat."""
        try:
            handle = self._handles[device]
        except KeyError:
            handle = self.load(device)
        if handle is None:
            with cuda.gpus[device]:
                launch = kernel(self.spec)[grid.blocks, (grid.threads, grid.rows), stream_at(stream)]
                launch(*_nest(self.spec, values))
            return
        driver = self._driver
        if driver.kept:
            driver.let_go()
        # A buffer belongs to one call at a time: taking it from a list is atomic, and cheaper than a lock
        try:
            buffers = self._free.pop()
        except IndexError:
            buffers = self._new_buffer()
        buffer, start, _table, table = buffers
        self._pack(buffer, 0, grid.blocks, 1, 1, grid.threads, grid.rows, 1, 0, stream, 0, 0, *values)
        if self._several:
            with driver.on(device):
                code = driver.launch(start, handle, table, None)
        else:
            code = driver.launch(start, handle, table, None)
            if code in cuda_driver.WRONG_CONTEXT:  # a thread that has not used CUDA before
                driver.make_current(device)
                code = driver.launch(start, handle, table, None)
        self._free.append(buffers)
        if code:
            raise driver.error(code, f"launch of {self.spec.name}")


@functools.cache
def prepared(spec: Spec) -> Prepared:
    """Return the prepared launch of a kernel."""
    return Prepared(spec)
