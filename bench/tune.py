"""Where parallel beats serial, and streaming beats plain stores, on this machine: ``python bench/tune.py``.

Uses `fastrelu.configure` alone: the same call runs with a threshold that is always reached and one that
never is, in turn. The suggestion is the smallest size from which the second way wins at every larger size too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import fastrelu
from fastrelu._bench import machine

NEVER = 1 << 62


def measure(call: Callable[[], Any], option: str, rounds: int, **fixed: int) -> tuple[float, float]:
    """Return the medians of a call with an option's threshold never and always reached."""
    times: dict[int, list[float]] = {NEVER: [], 0: []}
    loops = 1
    for number in range(rounds + 1):
        for threshold in sorted(times, reverse=bool(number % 2)):
            with fastrelu.configure(**{option: threshold}, **fixed):
                call()
                call()  # a pool that the other way has let fall asleep is awake now
                start = time.perf_counter()
                for _ in range(loops):
                    call()
                spent = (time.perf_counter() - start) / loops
            if number:
                times[threshold].append(spent)
        if number == 0:
            loops = max(1, min(1000, int(2e-3 / max(spent, 1e-9))))
    return statistics.median(times[NEVER]), statistics.median(times[0])


def cases(size: int) -> dict[str, tuple[Callable[[], Any], int, int]]:
    """Return calls with the bytes that they move and write."""
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal(size, dtype=np.float32) for _ in range(2))
    out = np.zeros_like(x)
    return {
        "relu": (lambda: fastrelu.relu(x, out=out), 2 * x.nbytes, out.nbytes),
        "leaky_relu": (lambda: fastrelu.leaky_relu(x, out=out), 2 * x.nbytes, out.nbytes),
        "relu_backward": (lambda: fastrelu.relu_backward(grad, x, out=out), 3 * x.nbytes, out.nbytes),
    }


def crossing(rows: Sequence[tuple[int, float, float]]) -> int | None:
    """Return the smallest number of bytes from which the second way is faster, there and everywhere above."""
    found = None
    for size, first, second in reversed(rows):
        if second >= first:
            break
        found = size
    return found


def search(option: str, sizes: Sequence[int], which: int, rounds: int, **fixed: int) -> list[int]:
    """Print the times around a crossing and return it for each operation."""
    table: dict[str, list[tuple[int, float, float]]] = {}
    for size in sizes:
        for name, case in cases(size).items():
            below, above = measure(case[0], option, rounds, **fixed)
            table.setdefault(name, []).append((case[which], below, above))
    found = []
    for name, rows in table.items():
        print(f"\n{option}: {name}\n{'bytes':>14} {'below':>12} {'above':>12} {'above/below':>12}")
        for size, below, above in rows:
            print(f"{size:14,} {below * 1e6:10.1f}us {above * 1e6:10.1f}us {above / below:12.2f}")
        where = crossing(rows)
        print(f"crossing: {'none in this range' if where is None else f'{where:,} bytes'}")
        found += [] if where is None else [where]
    return found


def main() -> int:
    """Measure and suggest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few and small sizes: shows that it runs")
    given = parser.parse_args()
    import numba

    print(f"{machine.line(machine.describe(numba.get_num_threads()))}\ncommand: python {' '.join(sys.argv)}")
    small = [1 << power for power in range(13, 20)] if not given.quick else [1 << 14, 1 << 16]
    parallel = search("parallel_min_bytes", small, 1, given.rounds, streaming_min_bytes=NEVER)
    large = [1 << power for power in range(19, 26)] if not given.quick else [1 << 18]
    streaming = search("streaming_min_bytes", large, 2, given.rounds)
    for name, values in (("PARALLEL", parallel), ("STREAMING", streaming)):
        if values:
            # The largest of the operations' crossings: too late costs little, too early makes small calls slower
            print(f"\nsuggested: FASTRELU_{name}_MIN_BYTES={max(values)}", end="")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
