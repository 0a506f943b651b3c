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
from typing import Any

from . import _driver
from ._kernels import Spec, argument_types, kernel
from ._layout import Grid
from ._numba import SIMULATED, cuda, types

#: CUlaunchConfig: grid, block, shared memory, stream, attributes and their number.
_CONFIGURATION = "7I4xQQI4x"


def _nest(spec: Spec, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a kernel's arguments as its signature groups them; `values` are the same, flat."""
    rest = iter(values)

    def take(kind: Any) -> Any:
        if isinstance(kind, types.BaseTuple):
            return tuple(take(item) for item in kind)
        return next(rest)

    return tuple(take(kind) for kind in argument_types(spec))


def _flatten(values: Any) -> Any:
    for value in values:
        if isinstance(value, tuple):
            yield from _flatten(value)
        else:
            yield value


class Prepared:
    """A kernel, ready to launch with plain numbers."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        scalars = len(spec.of_role("scalar"))
        inputs = len(spec.of_role("array"))
        if spec.axes:
            operands, axes = inputs + spec.masked + 1, spec.axes - 1
            words = inputs + 3 + axes + operands * axes + operands + 1
        else:
            words = inputs + 3 + len(spec.of_role("uniform"))
        layout = f"@{_CONFIGURATION}{'q' * words}"
        number = "d" if spec.loop == "d" else "f"
        self._pack = struct.Struct(layout + number * scalars).pack_into
        self._size = struct.calcsize(layout + number * scalars)
        self._places = [struct.calcsize(f"@{_CONFIGURATION}{'q' * k}") for k in range(words)]
        self._places += [
            struct.calcsize(layout + number * (k + 1)) - struct.calcsize("@" + number) for k in range(scalars)
        ]
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
        from numba.core.compiler_lock import global_compiler_lock

        with global_compiler_lock:
            if device not in self._handles:
                self._driver = _driver.get()
                self._several = self._driver.count() > 1
                with cuda.gpus[device]:
                    compiled = kernel(self.spec).compile(argument_types(self.spec))
                    compiled.bind()
                    try:
                        handle = compiled._codelibrary.get_cufunc().handle
                        self._handles[device] = int(getattr(handle, "value", handle))
                    except (AttributeError, TypeError):
                        self._handles[device] = None
        return self._handles[device]

    def __call__(self, grid: Grid, stream: int, device: int, *values: Any) -> None:
        """Launch; `values` are the kernel's arguments, flat."""
        if SIMULATED:
            kernel(self.spec)[grid.blocks, (grid.threads, grid.rows)](*_nest(self.spec, values))
            return
        try:
            handle = self._handles[device]
        except KeyError:
            handle = self.load(device)
        if handle is None:
            with cuda.gpus[device]:
                on = cuda.external_stream(stream) if stream else 0
                kernel(self.spec)[grid.blocks, (grid.threads, grid.rows), on](*_nest(self.spec, values))
            return
        driver = self._driver
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
            if code in _driver.WRONG_CONTEXT:  # a thread that has not used CUDA before
                driver.make_current(device)
                code = driver.launch(start, handle, table, None)
        self._free.append(buffers)
        if code:
            raise driver.error(code, f"launch of {self.spec.name}")


@functools.cache
def prepared(spec: Spec) -> Prepared:
    """Return the prepared launch of a kernel."""
    return Prepared(spec)
