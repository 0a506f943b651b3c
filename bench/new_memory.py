"""What remedies there are for the page faults of a new output: ``python bench/new_memory.py [elements]``.

The C of `bench/limit.c` computes relu of float32 into new memory, with plain and with streaming stores.
"""

import ctypes
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastrelu._bench import limit

HUGE = 2 << 20
ROUNDS = 15
PRIVATE_ANONYMOUS, READ_WRITE = 0x22, 3
HUGEPAGE, NOHUGEPAGE, POPULATE_WRITE = 14, 15, 23

libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
threads = numba.get_num_threads()
pool = ThreadPoolExecutor(threads)


def advise(place: int, size: int, advice: int) -> None:
    """Give the system advice, or stop: a figure without it would be another one's."""
    if libc.madvise(place, size, advice):
        raise OSError(f"madvise({advice}) failed")


def supply(place: int, size: int, parts: int) -> None:
    """Have memory supplied by so many threads, whole huge pages each."""
    borders = [size // HUGE * k // parts * HUGE for k in range(parts)] + [size]
    list(
        pool.map(
            lambda piece: advise(place + piece[0], piece[1] - piece[0], POPULATE_WRITE), itertools.pairwise(borders)
        )
    )


Ready = Callable[[int, int], None]
#: How far behind the border of a huge page memory begins, and what is done with it first
WAYS: dict[str, tuple[int, Ready]] = {
    "small pages": (0, lambda place, size: advise(place, size, NOHUGEPAGE)),
    "huge pages, as malloc and NumPy get them": (4096 + 64, lambda place, size: advise(place - 64, size, HUGEPAGE)),
    "huge pages, from the border of one": (0, lambda place, size: advise(place, size, HUGEPAGE)),
    "these, supplied first by one thread": (
        0, lambda place, size: (advise(place, size, HUGEPAGE), supply(place, size, 1))[0],
    ),
    "these, supplied first by all threads": (
        0, lambda place, size: (advise(place, size, HUGEPAGE), supply(place, size, threads))[0],
    ),
}  # fmt: skip


def main(elements: int) -> None:
    """Print the median of each way, and that of memory that is there."""
    size = 4 * elements
    room = (size // HUGE + 3) * HUGE
    x, kept = np.ones(elements, np.float32), np.ones(elements + 16, np.float32)
    stores = {name: limit.function(f"relu_{name}", "float32") for name in ("plain", "stream")}
    limit.set_threads(threads)
    samples: dict[tuple[str, str], list[float]] = {}
    everything = list(itertools.product([*WAYS, "memory that was kept"], stores))
    for _ in range(ROUNDS):
        for way, store in random.sample(everything, len(everything)):
            start = time.perf_counter()
            if way in WAYS:
                behind, ready = WAYS[way]
                whole = libc.mmap(None, room, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
                place = -(-whole // HUGE) * HUGE + behind
                ready(place, size)
            else:
                place = -(-kept.ctypes.data // 64) * 64
            stores[store](x.ctypes.data, None, place, elements)
            if way in WAYS:
                libc.munmap(whole, room)
            samples.setdefault((way, store), []).append(time.perf_counter() - start)
    print(f"relu of {elements:,} float32, ms{'':20} plain  streaming")
    for way in dict.fromkeys(way for way, _ in everything):
        medians = [1e3 * statistics.median(samples[way, store]) for store in stores]
        print(f"{way:45} {medians[0]:8.2f} {medians[1]:10.2f}")


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 16_000_000)
