"""The same bits whatever vectors a processor has: every kernel, compiled for all those that this one can be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrelu

from .helpers import BINARY, FLOATS, OPERATIONS, PARAMETERS, pairs, spread

llvm = pytest.importorskip("llvmlite.binding")
HOST = llvm.get_host_cpu_features()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HOST.get("sse2"), reason="not an x86-64 processor")]

_SSE = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt"
_AVX2 = f"{_SSE},+avx,+avx2,+fma,+bmi,+bmi2"
_AVX512 = f"{_AVX2},+avx512f,+avx512cd,+avx512bw,+avx512dq,+avx512vl"
#: Numba's names for a processor and its features; the features that it must really have.
SETTINGS = {
    "native": ("", "", ""),
    "SSE2 only": ("generic", "", ""),
    "AVX": ("sandybridge", f"{_SSE},+avx", "avx"),
    "AVX2": ("haswell", f"{_AVX2},+f16c", "avx2 f16c"),
    "AVX2 without F16C": ("haswell", f"{_AVX2},-f16c", "avx2"),
    "AVX-512": ("skylake-avx512", f"{_AVX512},+f16c", "avx512f avx512bw avx512dq avx512vl f16c"),
    "AVX-512 of 32 bytes": ("skylake-avx512", f"{_AVX512},+f16c,+prefer-256-bit", "avx512f avx512bw avx512dq avx512vl"),
    "AVX512-FP16": ("sapphirerapids", f"{_AVX512},+f16c,+avx512fp16", "avx512fp16 avx512bw avx512dq avx512vl"),
}
#: Around vectors of 16, 32 and 64 bytes of 2, 4 and 8, and their multiples that loops are unrolled to.
LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 127, 128, 129, 255, 256, 257, 1000)

PROGRAM = """
import hashlib, json, sys
import numpy as np
import fastrelu
from numba.core.registry import cpu_target

data = np.load(sys.argv[1])
lengths, parameters, binary, names = json.loads(sys.argv[2])
digests = {}
for name in names:
    for dtype in ("float16", "float32", "float64"):
        columns = [data[f"{name}-{dtype}-{k}"] for k in range(1 + (name in binary))]
        digest = hashlib.sha256()
        for streaming in (0, 1 << 60):
            fastrelu.configure(streaming_min_bytes=streaming)
            for target in ("serial", "parallel"):
                for values in parameters[name] if target == "serial" else parameters[name][:1]:
                    for n in lengths if target == "serial" else [*lengths[::4], columns[0].size]:
                        for start in (0, 1):
                            out = np.full(n + 2, 42, dtype)[start : start + n]
                            views = [column[:n] for column in columns]
                            getattr(fastrelu, name)(*views, *values, out=out, target=target)
                            out[np.isnan(out)] = np.nan
                            digest.update(out.tobytes())
                    strided = [column[:990].reshape(33, 30)[:, ::2] for column in columns]
                    result = getattr(fastrelu, name)(*strided, *values, target=target)
                    result[np.isnan(result)] = np.nan
                    digest.update(result.tobytes())
        digests[f"{name} {dtype}"] = digest.hexdigest()
print(json.dumps({"processor": cpu_target.target_context.codegen().magic_tuple()[1:], "digests": digests}))
"""


def lacks(label):
    """Return which features of a setting this processor has not."""
    return [feature for feature in SETTINGS[label][2].split() if not HOST.get(feature)]


@pytest.fixture(scope="module")
def operands(tmp_path_factory):
    """Return a file of special values for every operation and type, long enough for several threads."""
    path = tmp_path_factory.mktemp("processors") / "operands.npz"
    columns = {
        f"{name}-{dtype}-{k}": spread(column, 40_001)
        for name in OPERATIONS
        for dtype in FLOATS
        for k, column in enumerate(pairs(name, dtype))
    }
    np.savez(path, **columns)
    return path


def start(label, operands, cache, names=OPERATIONS):
    """Start a process that computes everything as one processor would."""
    cpu, features, _ = SETTINGS[label]
    root = Path(fastrelu.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "NUMBA_CACHE_DIR": str(cache)}
    environment.setdefault("OMP_WAIT_POLICY", "passive")  # many short parallel calls, perhaps on a busy machine
    if cpu:
        environment.update(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    arguments = json.dumps([LENGTHS, PARAMETERS, BINARY, list(names)])
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(operands), arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process):
    """Return what a process computed."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, f"exit {process.returncode}\n{errors}"
    return json.loads(output)


@pytest.fixture(scope="module")
def native(operands, tmp_path_factory):
    return finish(start("native", operands, tmp_path_factory.mktemp("native")))


@pytest.mark.parametrize("label", [label for label in SETTINGS if label != "native"])
def test_the_same_bits(label, operands, native, tmp_path):
    if missing := lacks(label):
        pytest.skip(f"this processor has no {', '.join(missing)}")
    result = finish(start(label, operands, tmp_path))
    assert result["processor"] == list(SETTINGS[label][:2])
    assert len(result["digests"]) == len(OPERATIONS) * len(FLOATS)
    assert result["digests"] == native["digests"]


def test_processors_that_share_a_cache(operands, native, tmp_path):
    """A home folder on several machines: each finds its own code only, compiled at the same time or before."""
    names = ("relu", "leaky_relu")
    wanted = {key: value for key, value in native["digests"].items() if key.split()[0] in names}
    labels = [label for label in ("native", "SSE2 only", "AVX2") if not lacks(label)]
    together = [start(label, operands, tmp_path, names) for label in labels]
    assert all(finish(process)["digests"] == wanted for process in together)
    files = set(tmp_path.rglob("*.nbc"))
    kernels = len([file for file in files if "relu-float" in file.name])
    assert kernels == len(labels) * len(names) * len(FLOATS)
    for label in reversed(labels):
        assert finish(start(label, operands, tmp_path, names))["digests"] == wanted
    assert set(tmp_path.rglob("*.nbc")) == files
