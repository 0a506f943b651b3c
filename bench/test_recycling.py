"""A loop of `y = relu(x)`, and what the process holds afterwards; with the recycler off, as it is by default, and wide.

Providers' memory would get in each other's way, so that each loop is a process of its own, and they take turns.
"""

import json
import os
import statistics
import subprocess
import sys
from typing import Any

import pytest
from conftest import BY_NAME, HERE, enabled, replay

#: What a row is called: the provider, and the environment of its process
ROWS = {
    "numpy.maximum(x, 0)": ("numpy.maximum(x, 0)", {}),
    "torch": ("torch", {}),
    "fastrelu, recycle_bytes=0": ("fastrelu", {"FASTRELU_RECYCLE_BYTES": "0"}),
    "fastrelu": ("fastrelu", {}),
    "fastrelu, recycle_bytes=1 GiB": ("fastrelu", {"FASTRELU_RECYCLE_BYTES": str(1 << 30)}),
}
SIZES = (1_000_000, 16_000_000, 64_000_000)
ROUNDS = 5
SCRIPT = """
import json, sys, time
from fastrelu._bench import check, providers
from fastrelu._bench.cases import Case, Operands
provider, size, seconds = json.loads(sys.argv[1])
provider = next(p for p in providers.PROVIDERS if p.name == provider)
names = providers.Names(Operands(Case("relu", "new", "float32", size)), provider.names)
def memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024
code = provider.code["relu", "new"]
for used in check.free_names(code):
    names[used]
before, after = "    for _ in turns:\\n        start = clock()\\n        y = ", "\\n        note(clock() - start)"
# A small call compiles and starts threads
small = providers.Names(Operands(Case("relu", "new", "float32", 1 << 20)), provider.names)
check.compiled(code, small, before, after, "turns, note")(range(1), str)
held = memory()
samples = []
# One loop: its last result is dropped at its end
end = time.perf_counter() + seconds
turns = iter(lambda: time.perf_counter() > end and len(samples) > 5, True)
check.compiled(code, names, before, after, "turns, note")(turns, samples.append)
print(json.dumps([sorted(samples)[len(samples) // 2], max(0, memory() - held)]))
"""


def run(name: str, size: int, seconds: float) -> tuple[float, int]:
    """Return the seconds of a call, and the bytes that the process holds after the loop, in a process of its own."""
    provider, settings = ROWS[name]
    environment = {**os.environ, **settings, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-c", SCRIPT, json.dumps([provider, size, seconds])]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    call, kept = json.loads(done.stdout)
    return call, kept


@pytest.fixture(scope="session")
def loops(request: pytest.FixtureRequest) -> dict[tuple[str, int], list[tuple[float, int]]]:
    """Run all processes in turn, as often as wanted."""
    found: dict[tuple[str, int], list[tuple[float, int]]] = {}
    names = [name for name, (provider, _) in ROWS.items() if provider in BY_NAME]
    if not enabled(request.config):
        return {("fastrelu", SIZES[0]): [run("fastrelu", 1_000, 0)]}
    for size in SIZES:
        for _ in range(ROUNDS):
            for name in names:
                found.setdefault((name, size), []).append(run(name, size, 0.3))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ROWS)
def test_recycling(benchmark: Any, loops: dict[tuple[str, int], list[tuple[float, int]]], name: str, size: int) -> None:
    if (name, size) not in loops:
        pytest.skip(f"{name}: not installed, or times are not wanted")
    calls, kept = zip(*loops[name, size], strict=True)
    extra = {"kept": statistics.median(kept), "call": statistics.median(calls), "provider": name, "size": size}
    replay(benchmark, calls, f"a loop of y = relu(x), {size:,}", extra)
