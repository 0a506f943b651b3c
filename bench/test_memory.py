"""How much the memory of a process grows at most during one call, beyond the arrays that the caller holds."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from conftest import HERE, PRESENT, enabled, replay

from fastrelu._bench.cases import Case

SCRIPT = """
import json, sys, time
from fastrelu._bench import check, providers
from fastrelu._bench.cases import Case, Operands
name, operation, mode, size = json.loads(sys.argv[1])
provider = next(p for p in providers.PROVIDERS if p.name == name)
def names(size):
    made = providers.Names(Operands(Case(operation, mode, "float32", size)), provider.names)
    for used in check.free_names(provider.code[operation, mode]):
        made[used]
    return made
check.run_once(provider, names(4_000_000 if size > 4_000_000 else 8))  # compiles, and starts threads
made = names(size)
def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew; making the arrays took more than holding them does
before = memory("VmRSS")
start = time.perf_counter()
kept = check.run_once(provider, made)
seconds = time.perf_counter() - start
print(json.dumps([seconds, max(0, memory("VmHWM") - before)]))
"""
NAMES = ("fastrelu", "numpy.maximum(x, 0)", "x * (x > 0)", "numpy.where", "numpy.greater + numpy.multiply", "torch")
CASES = [
    Case(operation, mode, "float32", 32_000_000)
    for operation in ("relu", "leaky_relu", "relu_backward")
    for mode in ("new", "out", "inplace")
]
WANTED = [
    (case, each.name)
    for case in CASES
    for each in PRESENT
    if each.name in NAMES and (case.operation, case.mode) in each.code
]


def run(case: Case, provider: str, size: int) -> tuple[float, int]:
    """Return the seconds and the bytes of one call in a process of its own."""
    given = json.dumps([provider, case.operation, case.mode, size])
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-c", SCRIPT, given]
    seconds, grown = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    )
    return seconds, grown


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")
@pytest.mark.parametrize(
    ("case", "name"), WANTED, ids=[f"{case.operation}-{case.mode}-{name}" for case, name in WANTED]
)
def test_memory(request: pytest.FixtureRequest, benchmark: Any, case: Case, name: str) -> None:
    if not enabled(request.config) and (case.operation, name) != ("relu", "fastrelu"):
        pytest.skip("one process shows that the script runs")
    seconds, grown = run(case, name, case.size if enabled(request.config) else 1_000)
    extra = {"operation": case.operation, "mode": case.mode, "size": case.size, "provider": name}
    replay(benchmark, [seconds], f"memory: {case.operation}, {case.mode}", {"memory": grown, **extra})
