"""These tests run under Numba's simulator, on an emulated GPU, on a GPU, or not at all.

``test_cuda_without_gpu.py`` starts them the first two ways. On a GPU, ``-m "cuda and not exclusive"`` runs all that say
something there, in as many processes as one likes, and ``-m exclusive``, in one, those that fill its memory.
"""

import os
import sys
from pathlib import Path

import pytest

from fastrelu._cuda import executor as target

from . import emulator

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or JAX would take most of a GPU's memory at once
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "1"
EMULATED = int(os.environ.get("FASTRELU_EMULATED_GPUS", "0"))
if EMULATED:
    emulator.install(EMULATED)
    assert not target.unavailable(), target.unavailable()

collect_ignore = []
if SIMULATED:
    collect_ignore += ["test_ptx.py", "test_gpu.py"]
elif target.unavailable():
    collect_ignore += ["test_values.py", "test_layouts.py", "test_calls.py", "test_staging.py", "test_masks.py"]
    collect_ignore += ["test_sums.py", "test_bfloat16.py"]


#: Files of tests that say nothing about a GPU.
WITHOUT_GPU = ("test_ptx.py", "test_emulator.py", "test_bench.py")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none, and mark with "cuda" all that runs on one.

    What carries the mark in its file needs a GPU, real or emulated. The other tests here run under the simulator too.
    """
    reason = "simulated" if SIMULATED else target.unavailable()
    for item in items:
        if item.get_closest_marker("cuda"):
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
        elif item.path.parent == Path(__file__).parent and item.path.name not in WITHOUT_GPU:
            item.add_marker("cuda")


@pytest.fixture(params=[(4, 2, 0), (8, 4, 2), (1, 1, 1)] if SIMULATED else [(32, 2, 0), (64, 4, 2)], ids=str)
def shape_of_launch(request, monkeypatch):
    """Use blocks of a few threads, so that small arrays cross the edges of vectors, tiles, blocks and grids."""
    from fastrelu._cuda import settings

    block, vectors, most = request.param
    monkeypatch.setattr(settings, "BLOCK", block)
    monkeypatch.setattr(settings, "VECTORS", vectors)
    monkeypatch.setattr(settings, "MAX_BLOCKS", most)
    return request.param


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Use blocks of four threads with two loads each."""
    from fastrelu._cuda import settings

    monkeypatch.setattr(settings, "BLOCK", 4)
    monkeypatch.setattr(settings, "VECTORS", 2)


@pytest.fixture
def recorder(monkeypatch):
    """Use a driver that runs nothing and writes down what it is asked."""
    from fastrelu._cuda import cuda_driver

    from . import fakes

    driver = fakes.Driver()
    monkeypatch.setattr(cuda_driver, "get", lambda: driver)
    return driver


@pytest.fixture
def torch(monkeypatch):
    """Have a stand-in imported as torch."""
    from fastrelu._cuda import libraries, quick

    from . import fakes

    module = fakes.torch()
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setattr(quick, "_quick", {})
    monkeypatch.setattr(libraries, "TORCH", libraries.Torch())
    monkeypatch.setitem(libraries.LIBRARIES, "torch", libraries.TORCH)
    return module


@pytest.fixture
def jax(monkeypatch):
    """Have a stand-in imported as jax."""
    from . import fakes

    module = fakes.jax()
    monkeypatch.setitem(sys.modules, "jax", module)
    return module
