"""Runs tests/cuda where there is no GPU, each way in a process of its own: Numba chooses when it is imported."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(environment):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(ROOT / "tests" / "cuda")]
    command.append(f"--ignore={ROOT / 'tests' / 'cuda' / 'test_ptx.py'}")
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("NUMBA_ENABLE_CUDASIM") == "1", reason="these tests run right here")
def test_under_the_simulator():
    run({"NUMBA_ENABLE_CUDASIM": "1"})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the emulated driver is for Linux")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler for the emulated driver")
@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
@pytest.mark.parametrize("gpus", [1, 2])
def test_on_emulated_gpus(gpus):
    run({"FASTRELU_EMULATED_GPUS": str(gpus), "NUMBA_ENABLE_CUDASIM": "0"})
