"""The command line: ``python -m tests.fuzz``."""

import argparse
import collections
import os
import sys
import time
from collections.abc import Iterator

from . import Wrong, __doc__, counted, run


def _watched(numbers: range) -> Iterator[int]:
    """Yield numbers, with a progress bar where rich is installed."""
    try:
        from rich.progress import track
    except ImportError:
        for number in numbers:
            if number % 10_000 == 0:
                print(f"case {number:,}", file=sys.stderr, flush=True)
            yield number
    else:
        for start in track(range(numbers.start, numbers.stop, 1000), "thousands of cases"):
            yield from range(start, min(start + 1000, numbers.stop))


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--only", type=int, help="run only this one")
    parser.add_argument("--failures", type=int, default=1, help="stop after so many")
    parser.add_argument("--verbose", action="store_true", help="print each number before its case, should it crash")
    options = parser.parse_args()
    first, cases = (options.first, options.cases) if options.only is None else (options.only, 1)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on a busy machine, threads that spin cost more than the cases
    paths: collections.Counter[str] = collections.Counter()
    done = refused = failures = 0
    start = time.perf_counter()
    numbers = range(first, first + cases)
    with counted(paths):
        for number in numbers if options.verbose or cases == 1 else _watched(numbers):
            if options.verbose:
                print(number, flush=True)
            try:
                refused += not run(options.seed, number)
            except Wrong as wrong:
                print(f"\n{wrong}", flush=True)
                failures += 1
                if failures == options.failures:
                    break
            done += 1
    seconds = time.perf_counter() - start
    print(f"seed {options.seed}: {done:,} cases in {seconds:.1f} s, {refused:,} of them refused, {failures} differ")
    print(", ".join(f"{label}: {count:,}" for label, count in sorted(paths.items())))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
