"""Thresholds, and the records in memory from which compiled code reads them."""

import ctypes
import os
import sys
import threading
from pathlib import Path

from .._kernels.records import NEVER, Recycler, Table
from . import native

TARGETS = ("serial", "parallel", "cuda")

#: Bytes read and written from which a call runs on all threads. One core against two on an AMD EPYC 9005 with 1 MiB
#: of L2 each, `python bench/tune.py`, 2026-11-21, time of two over time of one: relu 1.27 at 512 KiB and 0.74 at
#: 1 MiB, leaky_relu 1.84 and 0.76, relu_backward 1.05 at 768 KiB and 0.61 at 1.5 MiB. A launch costs some 2 us.
DEFAULT_PARALLEL_MIN_BYTES = 3 << 18


#: Where streaming stores begin at most. A virtual machine reports the whole of a cache that it shares with others: an
#: Intel Xeon with AMX said 480 MiB to its two cores, yet streaming over plain took 1.10 at 16 MiB of output, 0.93 at
#: 32 MiB, 0.58 at 64 MiB and 0.66 at 128 MiB for relu; 1.01, 0.83, 0.60 and 0.67 for relu_backward
#: (`python bench/tune.py`, 2026-11-21).
STREAMING_MIN_BYTES_AT_MOST = 32 << 20


#: Bytes of output from which its memory is recycled: glibc's DEFAULT_MMAP_THRESHOLD_MAX. Smaller blocks its malloc
#: keeps itself, so that a loop of `y = relu(x)` on 30 MiB meets no page faults.
RECYCLED_FROM = 1 << 25
#: Two such blocks, or one that is twice as large. It is a choice, for which docs/outputs.md argues.
DEFAULT_RECYCLE_BYTES = 2 * RECYCLED_FROM


def default_streaming_min_bytes() -> int:
    """Return the size of the largest cache that the first core sees, within reason; 32 MiB where nothing tells.

    On an AMD EPYC 9005 with 32 MiB of L3 (`python bench/tune.py`, 2026-11-21), streaming over plain: relu 1.21 at
    16 MiB of output, 0.81 at 32 MiB, 0.77 at 128 MiB.
    """
    largest = max((size for _, size in caches()), default=32 << 20)
    return min(largest, STREAMING_MIN_BYTES_AT_MOST)


def caches() -> list[tuple[str, int]]:
    """Return ``(name, bytes)`` of each data cache of the first core, as Linux lists them; elsewhere nothing."""
    found = []
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((index / key).read_text().strip() for key in ("type", "level", "size"))
            if kind != "Instruction":
                found.append((f"L{level}", int(size.rstrip("KMG")) * units.get(size[-1:], 1)))
        except (OSError, ValueError):
            continue
    return found


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ValueError(f"{name}={text!r}: expected a number of bytes, an integer >= 0")
    return value


def check_target(target: object, where: str) -> str | None:
    """Return a target's name, None for the automatic choice; raise ValueError for anything else."""
    if target is None or (isinstance(target, str) and target in TARGETS):
        return target
    raise ValueError(f"{where}={target!r}: expected None, 'serial', 'parallel' or 'cuda'")


def system_function(name: str) -> int:
    """Return the address of a function of Linux's C library, or 0."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return native.address_of(function) if function else 0


def _main_thread() -> int:
    """Return the name of the main thread; one that is nobody's where it is not ours and gevent names threads."""
    main = threading.main_thread()
    return native.thread_ident() if threading.current_thread() is main else main.ident or 0


class Settings:
    """The process-wide choices. ``tables``, one for each CPU target, and ``recycler`` mirror them."""

    def __init__(self) -> None:
        self.tables = {name: Table() for name in ("auto", "serial", "parallel")}
        for table in self.tables.values():
            table.allowed = 1
            table.ident = native.address_of(ctypes.pythonapi.PyThread_get_thread_ident)
            table.mincore = system_function("mincore")
            table.owners[0] = -_main_thread()
        self.tables["auto"].shared = 1
        self.recycler = Recycler(usable=system_function("malloc_usable_size"))
        native.keep(*self.tables.values(), self.recycler)
        self.generation = 0  # of the choices, for whoever keeps what follows from them
        self.target = check_target(os.environ.get("FASTRELU_TARGET") or None, "FASTRELU_TARGET")
        self.parallel_min_bytes = _from_environment("FASTRELU_PARALLEL_MIN_BYTES", DEFAULT_PARALLEL_MIN_BYTES)
        self.streaming_min_bytes = _from_environment("FASTRELU_STREAMING_MIN_BYTES", default_streaming_min_bytes())
        self.recycle_bytes = _from_environment("FASTRELU_RECYCLE_BYTES", DEFAULT_RECYCLE_BYTES)
        self.publish()

    def publish(self) -> None:
        """Write the thresholds to where the loops read them."""
        self.generation += 1
        minimum = {"auto": self.parallel_min_bytes, "serial": NEVER, "parallel": 0}
        instead = self.tables.get(self.target or "auto", self.tables["auto"])
        self.tables["auto"].instead = ctypes.addressof(instead)
        for name, table in self.tables.items():
            table.parallel_min = min(minimum[name], NEVER)
            table.streaming_min = min(self.streaming_min_bytes, NEVER)
        possible = self.recycle_bytes >= RECYCLED_FROM and self.recycler.usable != 0
        self.recycled_from = RECYCLED_FROM if possible else NEVER
        self.recycler.smallest = self.recycled_from
        self.recycler.limit = min(self.recycle_bytes, NEVER)


if sys.maxsize != NEVER:
    raise ImportError("fastrelu needs a 64-bit Python")

settings: Settings = globals().get("settings") or Settings()  # the same after a reload: native code has its addresses
