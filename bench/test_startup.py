"""What a program pays once: imports, and the first call, cold and from the cache. Each is a process of its own."""

import os
import subprocess
import sys
import tempfile
from typing import Any

import pytest
from conftest import HERE, enabled, replay

#: What is timed inside the process, after the interpreter has started. NumPy is imported before, save by itself.
CODES = {
    "import numpy": "import numpy",
    "import numba": "import numba",
    "import fastrelu": "import fastrelu",
    "import torch": "import torch",
    "first call, fastrelu, cold": "import fastrelu; fastrelu.relu(x)",
    "first call, fastrelu, cached": "import fastrelu; fastrelu.relu(x)",
    "first call, numba @vectorize, cold": "import numba; numba.vectorize(['float32(float32)'])(lambda x: max(x, 0))(x)",
    "first call, torch": "import torch; torch.relu(torch.from_numpy(x))",
}
BEFORE = {"import numpy": ""}
USUAL = "import numpy; x = numpy.ones(3, numpy.float32)"
NEEDS = {"import torch": "torch", "first call, torch": "torch"}
ROUNDS = 7


def once(name: str, cache: str) -> float:
    """Run a process and return the seconds that it measured."""
    script = (
        f"{BEFORE.get(name, USUAL)}\nimport time\nstart = time.perf_counter()\n{CODES[name]}\n"
        "print(time.perf_counter() - start)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    # pip compiles what it installs to byte code, and so does the first import from a tree, unless told not to
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # The package under measurement is the tree's, wherever pytest was started
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), environment.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


@pytest.fixture(scope="session")
def startups(request: pytest.FixtureRequest) -> dict[str, list[float]]:
    """Run all processes in turn, as often as wanted."""
    import importlib.util

    names = [name for name in CODES if importlib.util.find_spec(NEEDS.get(name, "numpy"))]
    found: dict[str, list[float]] = {name: [] for name in names}
    if not enabled(request.config):
        names = [name for name in names if "fastrelu" in name]
    with tempfile.TemporaryDirectory() as kept:
        once("first call, fastrelu, cached", kept)  # fills the cache, and the system's cache of files
        for _ in range(ROUNDS if enabled(request.config) else 1):
            for name in names:
                with tempfile.TemporaryDirectory() as empty:
                    found[name].append(once(name, kept if name.endswith("cached") else empty))
    return found


@pytest.mark.parametrize("what", CODES)
def test_startup(benchmark: Any, startups: dict[str, list[float]], what: str) -> None:
    samples = startups.get(what, [])
    if not samples:
        pytest.skip(f"{what}: a module is not installed, or times are not wanted")
    group = what.partition(",")[0] if what.startswith("first") else "import"
    replay(benchmark, samples, group, {"startup": what})
