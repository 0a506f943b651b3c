"""All that a GPU is asked, in one go: ``python bench/gpu_session.py OUT BUDGET_SECONDS [--steps smoke,tests,...]``.

For a GPU that is there for minutes. Every step is a process of its own with a limit of its own, so that one that hangs
or poisons the context ends alone; what it printed is in ``OUT/log.txt`` at once. The essentials of each step, and a
table of all, come last. Writes ``sass.txt``, ``variants.json``, ``bench.json`` and ``calls.json`` beside the log.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cuda_home  # noqa: F401 the steps find what it finds

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
#: As `cuda_checks.NOT_INSTALLED`, without importing what that imports.
NOT_INSTALLED = 77
#: What is left at least when a step is started, and what a step's own time ends before its limit, in seconds.
LEAST, MARGIN = 8, 8
#: Of what a step printed, this many characters are kept: the last ones.
KEPT = 400_000
TEST_FILES = ("gpu", "streams", "quick", "values", "layouts", "calls", "masks", "sums", "bfloat16", "staging")


class Step(NamedTuple):
    """A process."""

    name: str
    #: Seconds.
    limit: float
    command: Sequence[str]
    #: How many of the last lines are shown.
    shown: int
    #: Whether nothing that follows makes sense where it fails.
    vital: bool = False


def python(script: str, *arguments: object) -> list[str]:
    """Return the command that runs one of the scripts beside this one."""
    return [sys.executable, "-W", "ignore", str(BENCH / script), *map(str, arguments)]


def pytest(files: Sequence[str], marked: str, *, several: bool) -> list[str]:
    """Return the command that runs tests with such marks, with what is installed of pytest's plug-ins."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "--tb=short"]
    if several and importlib.util.find_spec("xdist"):
        command += ["-n", str(min(10, os.cpu_count() or 1)), "--dist", "load"]
    if importlib.util.find_spec("pytest_timeout"):
        command += ["--timeout=60"]
    return [*command, "-m", marked, *files]


def steps(given: argparse.Namespace) -> list[Step]:
    """Return all steps, in order."""
    files = [str(ROOT / "tests" / "cuda" / f"test_{name}.py") for name in given.tests]
    peers = ("torch", "cupy", "jax", "graph-warm", "graph-cold", "odd-tensors")
    sizes = ["--sizes", given.sizes] if given.sizes else []
    rounds = ["--rounds", given.rounds] if given.rounds else []
    return [
        Step("versions", 30, python("cuda_checks.py", "versions"), 30),
        Step("smoke", 120, python("cuda_checks.py", "smoke"), 8, vital=True),
        Step("sass", 40, python("cuda_checks.py", "sass", given.out), 20),
        *(Step(name, 45, python("cuda_checks.py", name), 5) for name in peers),
        Step("tests", 170, pytest(files, "cuda and not exclusive", several=True), 25),
        Step("variants", 80, python("cuda_variants.py", given.out / "variants.json", "{seconds}", *sizes, *rounds), 30),
        Step("bandwidth", 150, python(
            "cuda_bench.py", "bandwidth", "--seconds", "{seconds}", "--output", given.out / "bench.json", *sizes,
            *(rounds or ["--rounds", 7]),
        ), 50),
        Step("calls", 40, python(
            "cuda_bench.py", "calls", "--seconds", "{seconds}", "--output", given.out / "calls.json", *rounds,
        ), 45),
        Step("exclusive-tests", 60, pytest(files, "exclusive", several=False), 8),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """Return the environment of the steps."""
    return dict(
        os.environ, PYTHONUNBUFFERED="1", NUMBA_CACHE_DIR=tempfile.mkdtemp(prefix="fastrelu-"),
        XLA_PYTHON_CLIENT_PREALLOCATE="false", TF_CPP_MIN_LOG_LEVEL="2", OMP_NUM_THREADS="4",
    )  # fmt: skip


@dataclass
class Session:
    """Runs steps until the time is up, and remembers what came of them."""

    out: Path
    end: float
    environment: dict[str, str]
    #: Seconds of a step at most, beside its own limit.
    longest: float
    table: list[tuple[str, str, float]] = field(default_factory=list)
    essentials: list[tuple[str, str]] = field(default_factory=list)

    def run(self, step: Step) -> bool:
        """Run a step; say whether what follows makes sense."""
        left = self.end - time.monotonic()
        if left < LEAST:
            self.table.append((step.name, "no time", 0.0))
            return True
        limit, start = min(step.limit, left, self.longest), time.monotonic()
        # a step that can measures until shortly before its limit
        seconds = f"{max(1.0, limit - MARGIN):.0f}"
        code, text = self._process([seconds if word == "{seconds}" else word for word in step.command], limit)
        spent = time.monotonic() - start
        state = (
            {0: "ok", NOT_INSTALLED: "not installed"}.get(code, f"FAILED {code}") if code is not None else "TIME-OUT"
        )
        if step.name.endswith("tests") and code == 5:
            state = "no such tests"
        with open(self.out / "log.txt", "a", errors="replace") as log:
            log.write(f"\n==== {step.name}: {state} after {spent:.1f} s\n{text[-KEPT:]}\n")
        self.table.append((step.name, state, spent))
        shown = step.shown if state == "ok" else max(step.shown, 15)
        self.essentials.append((step.name, "\n".join(text.strip().splitlines()[-shown:])))
        return state == "ok" or not step.vital

    def _process(self, command: Sequence[str], limit: float) -> tuple[int | None, str]:
        """Return what a process exits with, None where it took too long, and what it printed until then."""
        with tempfile.TemporaryFile() as output:
            # in a session of its own, so that a test's own processes end with it
            process = subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            code: int | None
            try:
                code = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                code = None
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def report(self) -> None:
        """Print the essentials of each step, then all steps."""
        for name, text in self.essentials:
            print(f"---- {name}\n{text}")
        print("---- steps")
        for name, state, seconds in self.table:
            print(f"{name:14} {state:14} {seconds:7.1f} s", flush=True)


def main() -> int:
    """Run the steps that were asked for."""

    def listed(text: str) -> list[str]:
        return [each.strip() for each in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("budget", type=float, help="seconds for all steps together")
    parser.add_argument("--steps", type=listed, help="only these, with commas between them")
    parser.add_argument("--tests", type=listed, default=list(TEST_FILES), help="files of tests/cuda, without test_")
    parser.add_argument("--sizes", help="bytes of an operand, for variants and bandwidth")
    parser.add_argument("--rounds", help="rounds of variants, bandwidth and calls")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds of each step at most")
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    known = steps(given)
    wanted = given.steps or [step.name for step in known]
    if unknown := set(wanted) - {step.name for step in known}:
        parser.error(f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(step.name for step in known)}")
    session = Session(given.out, time.monotonic() + given.budget, environment(), given.limit)
    try:
        for step in known:
            if step.name in wanted and not session.run(step):
                break
    finally:
        session.report()
        shutil.rmtree(session.environment["NUMBA_CACHE_DIR"], ignore_errors=True)
    return 0 if all(state in ("ok", "not installed") for _, state, _ in session.table) else 1


if __name__ == "__main__":
    sys.exit(main())
