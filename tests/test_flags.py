"""The processor's floating-point flags and modes: no way through the package raises, drops or changes any."""

import ctypes
import gc
import platform
import sys

import numpy as np
import pytest

import fastrelu
from fastrelu import ufuncs

from .helpers import FLOATS, OPERATIONS, PARAMETERS, TARGETS, in_context, pairs, public, run_python, spread

GLIBC_X86 = sys.platform == "linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


def layouts(array):
    """Yield an array of two axes in layouts that take different ways through the package."""
    raw = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    every_other = np.zeros((array.shape[0], 2 * array.shape[1]), array.dtype)[:, ::2]
    every_other[...] = array
    yield from (array, np.asfortranarray(array), array[::-1, ::-1], every_other, unaligned)
    yield array.astype(array.dtype.newbyteorder("S"))


@pytest.fixture(params=["as it is", "jobs for all"])
def ways(request, monkeypatch):
    """Run as it is, then with jobs, which are for large arrays, serving small ones too."""
    if request.param == "jobs for all":
        monkeypatch.setattr(fastrelu._call.dispatch, "LARGE_BYTES", 1)
        monkeypatch.setattr(fastrelu._call.dispatch, "CONVERT_BYTES", 1)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_numpy_never_finds_a_flag(name, target, ways, stores):
    """Signalling comparisons, overflow, underflow, Inf * 0: under "raise", NumPy would tell of any flag."""
    for dtype in FLOATS:
        plain = [spread(column, 4900).reshape(70, 70) for column in pairs(name, dtype)]
        out, mask = np.zeros((70, 70), dtype), np.random.default_rng(0).random((70, 70)) < 0.5
        for parameters in PARAMETERS[name][::3]:
            with np.errstate(all="ignore"):
                exact = [np.array(value).astype(dtype) for value in parameters]
            raw = in_context(target, ufuncs.of(name))
            with np.errstate(all="raise"):
                for views in zip(*map(layouts, plain), strict=True):
                    public(name)(*views, *parameters, target=target)
                    public(name)(*views, *parameters, out=out.T, where=mask, target=target)
                    public(name, twin=True)(views[0].copy(), *views[1:], *parameters, target=target)
                    raw(*views, *exact, out)
                    raw(*views, *(np.broadcast_to(value, (70, 1)) for value in exact), where=mask, out=out)
                if dtype != "float16":
                    narrow = np.zeros((70, 70), "float16")
                    public(name)(*plain, *parameters, out=narrow, target=target)


@pytest.fixture
def no_garbage():
    """Let no cycles be collected in the middle of a call: what then runs computes too, as Hypothesis's clock does."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.skipif(not GLIBC_X86, reason="the numbers of x86-64 and glibc")
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_flag_is_new(name, ways, stores, no_garbage):
    """Nor does one stay behind that NumPy does not look at, as in a job, which NumPy does not start."""
    libm = ctypes.CDLL("libm.so.6")
    every = 0x3D  # invalid, division by zero, overflow, underflow, inexact
    for dtype in ("float32", "float64"):
        plain = [spread(column, 4900).reshape(70, 70) for column in pairs(name, dtype)]
        with np.errstate(all="ignore"):
            exact = [np.array(value).astype(dtype) for value in PARAMETERS[name][-1]]
        for target in TARGETS:
            for views in zip(*map(layouts, plain), strict=True):
                if views[0].dtype.isnative:
                    libm.feclearexcept(every)
                    public(name)(*views, *exact, target=target)
                    assert libm.fetestexcept(every) == 0, (dtype, target, views[0].strides)


COMPILING = """
import ctypes, threading
import numpy as np, fastrelu
from fastrelu._runtime import compiler, layers

libm = ctypes.CDLL("libm.so.6")
every, huge = 0x3D, 1e300
noisy = 0

def make_noisy(module, name):
    function = getattr(module, name)
    def calling(*args):
        global noisy
        noisy += 1
        result = function(*args)
        infinite, small = huge * huge, 1 / huge
        infinite - infinite, small * small  # overflow, invalid, underflow, inexact
        return result
    setattr(module, name, calling)

make_noisy(compiler, "kernel_address")
make_noisy(compiler, "_routine")
make_noisy(layers.importlib, "import_module")

def work(dtype):
    x = np.arange(-2450, 2450, dtype=dtype).reshape(70, 70)
    for target in ("serial", "parallel", None):
        for view in (x, x.T, x[::-1, ::-1], x[:, ::2]):
            libm.feclearexcept(every)
            with np.errstate(all="raise"):
                fastrelu.leaky_relu(view, 0.5, target=target)
            assert libm.fetestexcept(every) == 0, (target, view.strides)

fastrelu._call.dispatch.LARGE_BYTES = {large}
with fastrelu.configure(parallel_min_bytes=0, streaming_min_bytes=0):
    work("float32")  # another thread compiles for the main one
    failures = []
    threading.excepthook = failures.append
    thread = threading.Thread(target=work, args=("float64",))
    thread.start()
    thread.join()
    assert not failures, failures
    assert noisy > 4
"""


@pytest.mark.skipif(not GLIBC_X86, reason="the numbers of x86-64 and glibc")
@pytest.mark.parametrize("large", [1, 1 << 16], ids=["jobs for all", "as it is"])
def test_no_flag_of_compiling(large, tmp_path):
    """Flags that compiling raises, as importing a module may, are not taken for those of the loop that is compiled."""
    code = COMPILING.replace("{large}", str(large))
    run_python(code, OMP_WAIT_POLICY="passive", NUMBA_CACHE_DIR=str(tmp_path))


MODES = """
import ctypes, sys
import numpy as np, fastrelu

libm = ctypes.CDLL("libm.so.6")
mode = {mode}

def register():
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    return environment

def set_modes(bits):
    environment = register()
    environment[7] = environment[7] & ~0xE040 | bits
    libm.fesetenv(environment)

def modes():
    return register()[7] & 0xE040  # flush to zero, denormals are zero, rounding

tiny = np.float32(1e-40)
calls = []
for dtype in (np.float16, np.float32):
    x = np.resize(np.array([-1, 2, np.nan, -np.inf, 1e-7, -1e-7], dtype), (200, 200))
    out = np.zeros_like(x)
    for target in (None, "serial", "parallel"):
        for views in ((x,), (x.T,), (x[:, ::3],), (x[:2, :3],), (x.astype(x.dtype.newbyteorder("S")),)):
            calls.append(lambda v=views, t=target: fastrelu.leaky_relu(*v, 0.3, target=t))
            calls.append(lambda v=views, t=target: fastrelu.relu_backward(*v, *v, 0.5, target=t))
        calls.append(lambda t=target: fastrelu.relu(x, out=out, target=t))
        calls.append(lambda t=target: fastrelu.leaky_relu(x, 0.3, out=out, where=x > 0, target=t))
for streaming in (0, 1 << 60):
    with fastrelu.configure(streaming_min_bytes=streaming):
        for k, call in enumerate(calls):
            call()
            set_modes(mode)
            flushed = float(tiny * np.float32(1)) == 0
            call()
            found = modes()
            set_modes(0)
            assert found == mode, (streaming, k, hex(found))
            assert flushed == bool(mode & 0x8000), "the mode was not in force"
            call()
            assert modes() == 0, (streaming, k)
"""


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC_X86, reason="the register of x86-64 and glibc's place for it")
@pytest.mark.parametrize("mode", [0x8040, 0x2000], ids=["FTZ and DAZ", "down"])
def test_modes_are_left_as_found(mode):
    """Flush-to-zero, denormals-are-zero and the direction of rounding survive every way through the package."""
    run_python(MODES.replace("{mode}", str(mode)), OMP_WAIT_POLICY="passive", timeout=300)
