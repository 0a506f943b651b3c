"""The GPU's benchmarks run from end to end; what they measure here says nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import EMULATED

ROOT = Path(__file__).parents[2]
SIZE = 4096

pytestmark = [
    pytest.mark.skipif(not EMULATED, reason="for an emulated GPU; on a GPU, run the benchmarks themselves"),
    pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="the benchmarks are not here"),
]


def run(script, *options):
    command = [sys.executable, "-W", "ignore", str(ROOT / "bench" / script), *map(str, options)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["FASTRELU_EMULATED_GPUS"] = "1"
    done = subprocess.run(command, cwd=ROOT.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_bandwidth(tmp_path):
    output = tmp_path / "new" / "gpu.json"
    printed = run("cuda_bench.py", "bandwidth", "--rounds", 1, "--sizes", SIZE, "--dtypes", "bfloat16",
                  "--output", output)  # fmt: skip
    found = json.loads(output.read_text())
    assert "wrong" not in found
    assert found["machine"]["gpu"] == "Emulated GPU 0"
    ours = [row for row in found["bandwidth"] if row["provider"] == "fastrelu"]
    assert len({(row["operation"], row["dtype"], row["bytes"]) for row in ours}) == 12
    assert {row["method"] for row in ours} <= {"graph", "events"}
    assert "share of copy" in printed


def test_time_that_is_up(tmp_path):
    """What was measured until then is written, with the kernels that were checked."""
    output = tmp_path / "gpu.json"
    printed = run("cuda_bench.py", "bandwidth", "--seconds", 1, "--rounds", 1, "--sizes", SIZE, "--output", output)
    assert "the time is up" in printed
    assert "machine" in json.loads(output.read_text())


def test_calls_and_shapes(tmp_path):
    output = tmp_path / "gpu.json"
    run("cuda_bench.py", "calls", "--rounds", 1, "--output", output)
    cases = {row["case"] for row in json.loads(output.read_text())["calls"]}
    assert cases >= {"new", "in place", "out", "leaky", "backward", "masked", "counted", "slope", "strided"}
    run("cuda_bench.py", "tune", "--rounds", 1, "--sizes", SIZE, "--operations", "forward", "--output", output)
    assert {row["operation"] for row in json.loads(output.read_text())["tune"]} == {"forward"}


def test_a_wrong_kernel_is_found():
    broken = (
        "import sys; sys.path.insert(0, 'bench'); import cuda_cases, fastrelu; relu = fastrelu.relu;"
        " fastrelu.relu = lambda x, out: relu(x[:-1], out=out[:-1]);"
        " cuda_cases.case_of('forward', 'float32', 4096).check()"
    )
    environment = os.environ | {"FASTRELU_EMULATED_GPUS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", broken]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "AssertionError: forward float32 of 1024 elements is wrong at 0" in done.stderr


def test_variants(tmp_path):
    output = tmp_path / "variants.json"
    cases = "leaky_relu e,counted f"
    printed = run("cuda_variants.py", output, 60, "--sizes", 65536, "--rounds", 1, "--cases", cases)
    assert "WRONG" not in printed
    found = json.loads(output.read_text())["races"]
    assert {row["case"] for row in found} == set(cases.split(","))
    assert {"copy", "256x4", "256x4 .L1::no_allocate .cs"} <= {row["contestant"] for row in found}
    assert all(row["share_of_copy"] > 0 for row in found)


def states(printed):
    return dict(line.split()[:2] for line in printed.split("---- steps\n")[1].splitlines())


def test_session(tmp_path):
    steps = ["versions", "smoke", "sass", "torch", "tests"]
    found = states(run("gpu_session.py", tmp_path, 200, "--steps", ",".join(steps), "--tests", "bfloat16"))
    assert found.pop("torch") in ("ok", "not")
    assert found == {"versions": "ok", "smoke": "ok", "sass": "ok", "tests": "ok"}
    assert "relu f" in (tmp_path / "sass.txt").read_text()
    # a second time, and in a hurry: what measures stops before it is stopped
    hurry = ["--steps", "variants,bandwidth,calls", "--sizes", SIZE, "--rounds", 1, "--limit", 16]
    printed = run("gpu_session.py", tmp_path, 100, *hurry)
    assert states(printed) == {"variants": "ok", "bandwidth": "ok", "calls": "ok"}
    log = (tmp_path / "log.txt").read_text()
    assert all(f"==== {name}: " in log for name in (*steps, "variants", "bandwidth", "calls"))
    for name, part in (("variants", "races"), ("bench", "bandwidth"), ("calls", "calls")):
        assert json.loads((tmp_path / f"{name}.json").read_text())[part]


def test_steps_that_fail(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "FASTRELU_EMULATED_GPUS"}
    command = [sys.executable, str(ROOT / "bench" / "gpu_session.py"), str(tmp_path), "30", "--steps", "smoke,calls"]
    environment |= {"CUDA_VISIBLE_DEVICES": "", "NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAILED 1" in done.stdout
    assert "RuntimeError" in done.stdout
    assert "calls" not in done.stdout.split("---- steps\n")[1]  # nothing that follows makes sense
