"""What the tests of threads, forks and caches share: code for their child processes, and how they are run."""

import functools
import os
import subprocess
import sys
import textwrap

import pytest

from .helpers import run_python

#: `check(n)` calls every function, its twin and its ufunc on n numbers of a type, contiguous and transposed, and
#: compares with NumPy. It imports fastrelu when it is called, so that a test can choose the thread that does.
#: `explained(n)` is where a call of n float64 would run.
CHECK = """
import functools
import numpy as np

@functools.lru_cache(maxsize=None)
def cases(n, dtype):
    x = (np.arange(n) * 7 % 13 - 6).astype(dtype)
    grad = (np.arange(n) % 5 - 2).astype(dtype)
    half, quarter = x.dtype.type(0.5), x.dtype.type(0.25)
    at = lambda below, zero, above: np.where(x < 0, below, np.where(x == 0, zero, above)).astype(dtype)
    return {
        "relu": ((x,), at(0, x, x)),
        "leaky_relu": ((x, 0.5), at(x * half, x, x)),
        "relu_grad": ((x, 0.25), at(0, quarter, 1)),
        "leaky_relu_grad": ((x, 0.5, 0.25), at(half, quarter, 1)),
        "relu_backward": ((grad, x, 0.0), at(0, 0, grad)),
        "leaky_relu_backward": ((grad, x, 0.5, 0.25), at(grad * half, grad * quarter, grad)),
    }

def check(n, dtype="float32", names=None, target=None):
    import fastrelu
    fine = lambda result, wanted: result.dtype == wanted.dtype and np.array_equal(result, wanted)
    for name, (operands, wanted) in cases(n, dtype).items():
        if names is not None and name not in names:
            continue
        assert fine(getattr(fastrelu, name)(*operands, target=target), wanted), (name, n)
        assert fine(getattr(fastrelu.ufuncs, name)(*operands), wanted), (name, n)
        copy = operands[0].copy()
        assert getattr(fastrelu, name + "_")(copy, *operands[1:], target=target) is copy and fine(copy, wanted)
        square = lambda a: a[: n // 8 * 8].reshape(8, -1).T if isinstance(a, np.ndarray) else a
        out = np.empty(square(wanted).shape, dtype)
        assert fine(getattr(fastrelu, name)(*map(square, operands), out=out, target=target), square(wanted)), (name, n)

def explained(n=1_000_000):
    import fastrelu
    return fastrelu.explain(fastrelu.relu, np.zeros(n))
"""

#: `wait(fork(work))` runs work in a forked child, which is killed if it hangs, and sees to it that it ended well.
FORKING = """
import os, signal, sys, threading, time, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks while threads run, from Python 3.12 on
def fork(work, *args):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(40)
        work(*args)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
def wait(*pids):
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    assert not any(ends), ends
"""

LAYERS = pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue"])


@functools.cache
def available_layers() -> list[str]:
    code = """
    import importlib
    for layer, module in {"omp": "omppool", "tbb": "tbbpool", "workqueue": "workqueue"}.items():
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        print(layer)
    """
    return run_python(textwrap.dedent(code), **_WITH_TBB).stdout.split()  # type: ignore[arg-type]


#: Where `pip install tbb` puts the library that Numba looks for.
_WITH_TBB = {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), f"{sys.prefix}/lib"]))}


def python(code: str, *, layer: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, on a threading layer, or skip the test where Numba does not have that one."""
    if layer is not None:
        if layer not in available_layers():
            pytest.skip(f"Numba has no {layer} layer here")
        environment["NUMBA_THREADING_LAYER"] = layer
        if layer == "tbb":
            environment |= _WITH_TBB
    return run_python(textwrap.dedent(code), **environment)  # type: ignore[arg-type]
