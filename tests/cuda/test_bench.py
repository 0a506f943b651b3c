"""The GPU's benchmark runs from end to end; what it measures here says nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import EMULATED

ROOT = Path(__file__).parents[2]
START = (
    "import sys; from tests.cuda import emulator; emulator.install(); sys.path.insert(0, 'bench'); import cuda_bench"
)


@pytest.mark.skipif(not EMULATED, reason="for an emulated GPU; on a GPU, run the benchmark itself")
@pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="the benchmarks are not here")
def test_cuda_bench(tmp_path):
    output = tmp_path / "new" / "gpu.json"
    options = ["--rounds", "1", "--largest", "4096", "--output", str(output)]
    command = [sys.executable, "-c", f"{START}; sys.argv[1:] = {options!r}; raise SystemExit(cuda_bench.main())"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(output.read_text())
    assert found["machine"]["gpu"] == "Emulated GPU 0"
    ours = [row for row in found["bandwidth"] if row["provider"] == "fastrelu"]
    cases = {(row["operation"], row["dtype"], row["bytes"]) for row in ours}
    assert len(cases) == 8 * 2 * 2
    assert {row["case"] for row in found["calls"]} >= {"new", "in place", "out", "leaky", "backward", "masked"}
    assert {row["operation"] for row in found["tune"]} == {"forward", "in place", "backward"}
