"""The few calls of the CUDA driver that we make ourselves, by ctypes: finding GPUs, prepared launches, events, copies.

Numba compiles and loads the kernels. It is not asked for the rest because these calls sit on the path of every launch,
and because "is there a GPU?" must be answered where Numba's CUDA parts are not installed at all.
"""

import collections
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OUT_OF_MEMORY, NO_DEVICE = 2, 100
#: Errors of a launch that a context for this thread cures: none is current, or one of another GPU.
WRONG_CONTEXT = frozenset({201, 400, 709})
_CONTEXT_MAJOR, _CONTEXT_MINOR, _MULTIPROCESSORS = 75, 76, 16
_DEVICE_OF_POINTER = 9
_NON_BLOCKING, _NO_TIMING, _NOT_READY = 1, 2, 600
#: CU_STREAM_CAPTURE_MODE_RELAXED, and what cuStreamIsCapturing says of a stream that is none.
_RELAXED, _NOT_CAPTURING = 2, 0
#: Objects at most that are held for work that may not be done; whoever would hold one more waits for the oldest.
MOST_KEPT = 8

_WORD, _INT = ctypes.c_void_p, ctypes.c_int


class Driver:
    """A loaded CUDA driver."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.launch = library.cuLaunchKernelEx
        self.launch.argtypes, self.launch.restype = [_WORD] * 4, _INT
        self._contexts: dict[int, ctypes.c_void_p] = {}
        #: What unfinished work needs, the oldest first: event, device, objects.
        self.kept: collections.deque[tuple[ctypes.c_void_p, int, object]] = collections.deque()

    def error(self, code: int, what: str) -> Exception:
        """Return the exception for an error code."""
        text = ctypes.c_char_p()
        self.library.cuGetErrorName(code, ctypes.byref(text))
        name = (text.value or b"").decode() or f"error {code}"
        if code == OUT_OF_MEMORY:
            return MemoryError(f"the GPU has not enough free memory ({what}: {name})")
        return RuntimeError(f"the CUDA driver failed: {what}: {name}")

    def call(self, what: str, *arguments: Any) -> None:
        """Call a function of the driver and raise what it reports."""
        code = getattr(self.library, what)(*arguments)
        if code:
            raise self.error(code, what)

    @functools.cache  # noqa: B019 there is one driver, and it lives as long as the process
    def count(self) -> int:
        """Return the number of GPUs."""
        number = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(number))
        return number.value

    def attribute(self, which: int, device: int) -> int:
        """Return a number that describes a GPU."""
        number = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(number), which, device)
        return number.value

    @functools.cache  # noqa: B019 as above
    def multiprocessors(self, device: int) -> int:
        """Return the number of multiprocessors of a GPU."""
        return self.attribute(_MULTIPROCESSORS, device)

    def name(self, device: int) -> str:
        """Return a GPU's name and compute capability."""
        text = ctypes.create_string_buffer(128)
        self.call("cuDeviceGetName", text, len(text), device)
        major, minor = self.attribute(_CONTEXT_MAJOR, device), self.attribute(_CONTEXT_MINOR, device)
        return f"{text.value.decode()} (compute capability {major}.{minor})"

    def version(self) -> str:
        """Return the newest CUDA version that the driver knows."""
        number = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """Let this thread load, allocate and ask while a graph is captured.

        The driver otherwise refuses, and the capture is lost: calls of that kind may depend on work that is captured
        instead of done. Ours do not. Without a capture this changes nothing.
        """
        mode = ctypes.c_int(_RELAXED)
        exchange = self.library.cuThreadExchangeStreamCaptureMode
        changed = not exchange(ctypes.byref(mode))
        try:
            yield
        finally:
            if changed:
                exchange(ctypes.byref(mode))

    def is_capturing(self, stream: int) -> bool:
        """Say whether the work on a stream goes into a graph instead of to the GPU."""
        status = ctypes.c_int()
        code = self.library.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
        return not code and status.value != _NOT_CAPTURING

    def context(self, device: int) -> ctypes.c_void_p:
        """Return a GPU's primary context, which every library here shares."""
        if device not in self._contexts:
            context = ctypes.c_void_p()
            with self.relaxed():
                self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
            self._contexts[device] = context
        return self._contexts[device]

    def make_current(self, device: int) -> None:
        """Give this thread a GPU's primary context."""
        self.call("cuCtxSetCurrent", self.context(device))

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        """Use a GPU for a while, and leave the thread as it was."""
        self.call("cuCtxPushCurrent_v2", self.context(device))
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def load(self, kernel: int) -> None:
        """Have a kernel's code in the GPU of the current context now, where its first launch would bring it there."""
        function = ctypes.c_void_p()
        self.call("cuKernelGetFunction", ctypes.byref(function), ctypes.c_void_p(kernel))
        if hasattr(self.library, "cuFuncLoad"):  # of CUDA 12.4
            self.call("cuFuncLoad", function)

    def device_of(self, pointer: int) -> int:
        """Return which GPU's memory an address belongs to, where there is a choice."""
        number = ctypes.c_int()
        if not pointer or self.count() == 1:
            return 0
        self.call("cuPointerGetAttribute", ctypes.byref(number), _DEVICE_OF_POINTER, ctypes.c_uint64(pointer))
        return number.value

    def new_stream(self, device: int) -> int:
        """Return a stream that waits for no other stream by itself."""
        stream = ctypes.c_void_p()
        with self.relaxed(), self.on(device):
            self.call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        return stream.value or 0

    @functools.cache  # noqa: B019 as above
    def own_stream(self, device: int) -> int:
        """Return our own stream on a GPU, for producers and consumers that name none."""
        return self.new_stream(device)

    def current_device(self) -> int:
        """Return the GPU that this thread uses, the first one where it uses none yet."""
        number = ctypes.c_int()
        return 0 if self.library.cuCtxGetDevice(ctypes.byref(number)) else number.value

    def synchronize(self, stream: int) -> None:
        """Wait for the work so far on a stream."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def new_buffers(self, size: int, device: int) -> tuple[int, int]:
        """Return the addresses of new pinned memory of the host, and of as much on a GPU."""
        near, far = ctypes.c_void_p(), ctypes.c_uint64()
        with self.on(device):
            self.call("cuMemHostAlloc", ctypes.byref(near), ctypes.c_size_t(size), 1)  # 1: for every context
            try:
                self.call("cuMemAlloc_v2", ctypes.byref(far), ctypes.c_size_t(size))
            except BaseException:
                self.call("cuMemFreeHost", near)
                raise
        return near.value or 0, far.value

    def free_buffers(self, near: int, far: int, device: int) -> None:
        """Give such memory back."""
        with self.on(device):
            self.call("cuMemFree_v2", ctypes.c_uint64(far))
            self.call("cuMemFreeHost", ctypes.c_void_p(near))

    def send(self, near: int, far: int, nbytes: int, stream: int) -> None:
        """Copy from pinned memory to a GPU, in the stream's order."""
        size, order = ctypes.c_size_t(nbytes), ctypes.c_void_p(stream)
        self.call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(far), ctypes.c_void_p(near), size, order)

    def fetch(self, near: int, far: int, nbytes: int, stream: int) -> None:
        """Copy back, in the stream's order."""
        size, order = ctypes.c_size_t(nbytes), ctypes.c_void_p(stream)
        self.call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(near), ctypes.c_uint64(far), size, order)

    def _recorded(self, stream: int) -> ctypes.c_void_p:
        """Return an event of the current GPU for the work so far on a stream."""
        event = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(event), _NO_TIMING)
        try:
            self.call("cuEventRecord", event, ctypes.c_void_p(stream))
        except BaseException:
            self.library.cuEventDestroy_v2(event)
            raise
        return event

    def wait(self, waiting: int, first: int, device: int) -> None:
        """Make the work that follows on one stream wait for the work so far on another; returns at once."""
        with self.on(device):
            event = self._recorded(first)
            try:
                self.call("cuStreamWaitEvent", ctypes.c_void_p(waiting), event, 0)
            finally:
                # the driver keeps it until what waits for it has run
                self.call("cuEventDestroy_v2", event)

    def keep(self, stream: int, device: int, what: object) -> None:
        """Hold on to an object until the work so far on a stream is done.

        It is let go of by the first launch, on arrays of any library, that finds the work done. Nothing tells us
        earlier: the driver can call a function when work is done, but not one that takes Python's lock.
        """
        with self.on(device):
            event = self._recorded(stream)
        self.kept.append((event, device, what))
        self.let_go()

    def let_go(self, most: int = MOST_KEPT) -> None:
        """Let go of what was kept for work that is done; where that leaves more than `most`, wait for the oldest."""
        with self.relaxed():
            while True:
                # Whoever takes an entry out of the deque, which is atomic, is alone with it and its event. A lock
                # would stop other threads while this one waits, and itself where dropping an object leads here again.
                try:
                    entry = self.kept.popleft()
                except IndexError:
                    return
                event, device, done = entry[0], entry[1], False
                try:
                    wait = len(self.kept) >= most
                    with self.on(device):
                        code = (self.library.cuEventSynchronize if wait else self.library.cuEventQuery)(event)
                        done = code != _NOT_READY  # an error is that of the work, which has ended
                        if done:
                            self.library.cuEventDestroy_v2(event)
                finally:
                    if not done:
                        self.kept.appendleft(entry)
                if not done:
                    return
                del entry  # here, and not while the next one is waited for


def _load() -> Any:
    if sys.platform == "win32":
        return ctypes.WinDLL("nvcuda.dll")
    return ctypes.CDLL("libcuda.so.1")


def simulated() -> bool:
    """Say whether Numba simulates a GPU in Python, as ``NUMBA_ENABLE_CUDASIM=1`` asks when it is imported."""
    config = sys.modules.get("numba.core.config")
    if config is not None:
        return bool(config.ENABLE_CUDASIM)
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def find() -> Any:
    """Return the driver, or the simulator's, or why there is none to use."""
    if simulated():
        from .simulator import DRIVER

        return DRIVER
    return _find()


@functools.cache
def _find() -> Any:
    """Return the driver of the machine, or why there is none."""
    if sys.platform == "darwin":
        return "there is no CUDA on macOS"
    try:
        driver = Driver(_load())
    except OSError:
        return "no NVIDIA driver was found; install it from https://www.nvidia.com/drivers"
    except AttributeError:
        return "the NVIDIA driver is older than CUDA 11.8; update it from https://www.nvidia.com/drivers"
    code = driver.library.cuInit(0)
    if code and code != NO_DEVICE:
        return f"the NVIDIA driver does not start: {driver.error(code, 'cuInit')}"
    if code == NO_DEVICE or not driver.count():
        return "the NVIDIA driver finds no GPU; see what nvidia-smi and CUDA_VISIBLE_DEVICES say"
    return driver


def get() -> Any:
    """Return the driver; raise RuntimeError where there is none."""
    driver = find()
    if isinstance(driver, str):
        raise RuntimeError(f"target='cuda' is not available: {driver}")
    return driver


def let_go() -> None:
    """Let go of what was kept for work that is done, where the driver has been used at all."""
    if _find.cache_info().currsize and isinstance(driver := _find(), Driver):
        driver.let_go()
