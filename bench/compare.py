"""Has a change made anything slower? ``python bench/compare.py [REVISION]`` compares this tree with another commit.

Without REVISION: with HEAD if files have changed, else with the commit before it. Both trees run in processes
that take turns, so that a machine that slows down slows both down. The figures are this tree's time over the
other's: above 1, this tree is slower. Nothing is decided by them; the exit status is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Uses public names alone, so that old trees run it as well
WORKER = """
import json, sys, time
import numpy as np, fastrelu
found = {}
for name, dtype, size, mode in json.loads(sys.argv[1]):
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal(size).astype(dtype) for _ in range(2))
    out = np.zeros_like(x)
    operands = (grad, x) if name.endswith("backward") else (x,)
    function = getattr(fastrelu, name + "_" * (mode == "inplace"))
    options = {"out": out} if mode == "out" else {}
    def run(loops):
        start = time.perf_counter()
        for _ in range(loops):
            function(*operands, **options)
        return (time.perf_counter() - start) / loops
    run(1)
    loops = max(1, int(2e-3 / max(min(run(1) for _ in range(3)), 1e-9)))
    found[f"{name}, {mode}, {dtype}, {size:,}"] = sorted(run(loops) for _ in range(7))[3]
print(json.dumps(found))
"""
CASES = [
    (name, "float32", size, mode)
    for name in ("relu", "leaky_relu", "relu_backward")
    for size in (3, 10_000, 1_000_000, 16_000_000)
    for mode in ("out", "new")
] + [
    ("relu", "float32", 16_000_000, "inplace"), ("leaky_relu", "float16", 1_000_000, "out"),
    ("leaky_relu", "float64", 1_000_000, "out"), ("relu_grad", "float32", 1_000_000, "out"),
    ("leaky_relu_backward", "float32", 1_000_000, "out"), ("relu", "int8", 1_000_000, "out"),
]  # fmt: skip


def git(*arguments: str) -> str:
    """Run git in this repository."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def run(tree: Path, cache: Path, cases: str) -> dict[str, float]:
    """Measure a tree in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", WORKER, cases]
    done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> int:
    """Compare, and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", nargs="?", help="a commit, branch or tag")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    given = parser.parse_args()
    changed = git("status", "--porcelain", "--", "fastrelu")
    revision = given.revision or ("HEAD" if changed else "HEAD~1")
    cases = json.dumps([case for case in CASES if not given.quick or case[2] <= 10_000])
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        git("worktree", "add", "--detach", str(other), revision)
        try:
            trees = {"this": ROOT, "other": other}
            times: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
            for number in range(given.rounds + 1):
                for name in sorted(trees, reverse=bool(number % 2)):
                    measured = run(trees[name], Path(folder) / f"cache-{name}", cases)
                    times[name] += [measured] * (number > 0)  # the first only compiles
                print(f"round {number} of {given.rounds}", end="\r", file=sys.stderr)
        finally:
            git("worktree", "remove", "--force", str(other))
    print(f"this tree{' with changes' if changed else ''} over {revision} ({git('rev-parse', '--short', revision)})")
    print(f"{'case':45} {'other':>10} {'ratio':>7}   each round")
    for case in times["this"][0]:
        pairs = [a[case] / b[case] for a, b in zip(times["this"], times["other"], strict=True)]
        usual = statistics.median(each[case] for each in times["other"])
        ratio = statistics.median(pairs)
        # Slower only if (nearly) every round says so: noise falls on both sides of 1
        low, high = sorted(pairs)[len(pairs) // 5], sorted(pairs)[-1 - len(pairs) // 5]
        sure = "slower" if low > 1.03 else "faster" if high < 0.97 else ""
        print(f"{case:45} {usual * 1e6:8.2f}us {ratio:7.2f}   {min(pairs):.2f} to {max(pairs):.2f} {sure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
