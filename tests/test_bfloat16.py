"""bfloat16, a type that NumPy learns of from ml_dtypes: its values, its types, and how it gets into our ufuncs.

The tests of values, sizes, strides and overlap of the other types run for it too, where they say ``ALL_FLOATS``.
"""

import copy
import inspect
import itertools
import pickle
import re
import sys

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")

import fastrelu  # noqa: E402
from fastrelu import ufuncs  # noqa: E402
from fastrelu._bench.oracle import ORACLES, assert_same, expected  # noqa: E402
from fastrelu._kernels.records import TILE_BYTES  # noqa: E402
from fastrelu._runtime.targets import forced  # noqa: E402

from .helpers import BINARY, OPERATIONS, PARAMETERS, TARGETS, pairs, public, run_python, specials, spread  # noqa: E402
from .test_layouts import LAYOUTS, strided  # noqa: E402

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
EVERY = np.arange(1 << 16, dtype=np.uint16).view(BFLOAT16)


def bits(array):
    return np.asarray(array).view(np.uint16)


def is_nan(array):
    """As `numpy.isnan`, which warns of some NaNs of ml_dtypes."""
    return bits(array) & 0x7FFF > 0x7F80


NUMBERS = EVERY[~is_nan(EVERY) & (bits(EVERY) & 0x7FFF != 0x7F80)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_number(name, target, stores):
    """All 65,536 of them as x, and as the gradient of units that fire, do not, and stand at zero."""
    for parameters in PARAMETERS[name][:2]:
        for x in (EVERY,) if name not in BINARY else (EVERY, BFLOAT16.type(-1), BFLOAT16.type(0)):
            x = np.ascontiguousarray(np.broadcast_to(x, EVERY.shape))
            data = [EVERY[::-1].copy(), x] if name in BINARY else [x]
            result = public(name)(*data, *parameters, target=target)
            if target == "serial":
                wanted = expected(name, [*data, *parameters], BFLOAT16)
                assert_same(result, wanted, f"{name}{parameters}")
            else:
                assert_same(result, public(name)(*data, *parameters, target="serial"))


def test_what_is_passed_through_keeps_every_bit(stores):
    """Payloads of NaN, signalling ones too, of which ml_dtypes itself keeps none when it computes."""
    below = (bits(EVERY) > 0x8000) & ~is_nan(EVERY)
    for target in TARGETS:
        for result in (fastrelu.relu(EVERY, target=target), fastrelu.leaky_relu(EVERY, 0.25, target=target)):
            assert np.array_equal(bits(result)[~below], bits(EVERY)[~below])
        ones = np.ones_like(EVERY)
        assert np.array_equal(bits(fastrelu.relu_backward(EVERY, ones, target=target)), bits(EVERY))


def test_subnormal_numbers_are_kept_and_rounded_to_even():
    """The instruction that AVX512_BF16 has for it would make zeros of them."""
    tiny = np.array([-1, -2, -3, -5, -127, -128, -255], np.int16)
    x = (tiny.astype(np.uint16) * 0 + np.abs(tiny).astype(np.uint16) | 0x8000).view(BFLOAT16)
    halves = np.array([0, 1, 2, 2, 64, 64, 128]) | 0x8000
    assert np.array_equal(bits(fastrelu.leaky_relu(x, 0.5)), halves)
    assert np.array_equal(bits(fastrelu.leaky_relu_(x.copy(), 0.5, target="serial")), halves)


def test_rounding_is_that_of_the_definition():
    """Against exact arithmetic of integers, which the oracle does not do: ties, carries into the exponent, overflow."""
    rng = np.random.default_rng(0)
    x = -np.abs(rng.choice(NUMBERS, 20_000))
    slopes = rng.choice(NUMBERS, 20_000)
    with np.errstate(all="ignore"):
        products = x.astype(np.float32) * slopes.astype(np.float32)
    results = bits(fastrelu.leaky_relu(x, slopes)).tolist()
    for number, product, result in zip(x.tolist(), products.view(np.uint32).tolist(), results, strict=True):
        nearest = sorted((product >> 16, (product >> 16) + 1), key=lambda each: (abs((each << 16) - product), each % 2))
        assert number == 0 or result == nearest[0], (number, hex(product))


@pytest.mark.parametrize("how", LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_layouts(name, how, monkeypatch):
    """As `test_layouts.py` has it for the other types: by NumPy, by a job, and by that of an earlier call."""
    parameters = PARAMETERS[name][0]
    plain = [spread(column, 65 * 67).reshape(65, 67) for column in pairs(name, BFLOAT16)]
    wanted = expected(name, [*plain, *parameters], BFLOAT16)
    for large in (1 << 30, 1):
        monkeypatch.setattr(fastrelu._call.dispatch, "LARGE_BYTES", large)
        monkeypatch.setattr(fastrelu._call.dispatch, "CONVERT_BYTES", large)
        for target, again in itertools.product(TARGETS, range(2)):
            data = [strided(array.copy(), how) for array in plain]
            assert_same(public(name)(*data, *parameters, target=target), wanted, f"{target} {again}")
            if how != "read-only":
                assert public(name, twin=True)(data[0], *data[1:], *parameters, target=target) is data[0]
                assert_same(data[0].astype(BFLOAT16), wanted, f"in place, {target} {again}")


def test_a_slope_per_channel():
    x = spread(specials(BFLOAT16), 6 * 7 * 80).reshape(6, 7, 80)
    for form in [(80,), (7, 1), (6, 1, 1), (6, 7, 80)]:
        slope = (np.arange(np.prod(form)).reshape(form) / 8 - 2).astype(BFLOAT16)
        wanted = expected("leaky_relu", [x, slope], BFLOAT16)
        with fastrelu.configure(parallel_min_bytes=0):
            for target in TARGETS:
                assert_same(fastrelu.leaky_relu(x, slope, target=target), wanted)


def test_the_native_front_and_python_agree():
    x = spread(specials(BFLOAT16), 100)
    grad = x[::-1].copy()
    out = np.empty_like(x)
    for slope in (0.01, 0.1, -3.0, 0.0, -0.0, 1e-3, 65504.0, 1e-5, 1e30, 1e300, np.inf, np.nan, 2, True, 10**20):
        wanted = expected("leaky_relu", [x, float(slope)], BFLOAT16)
        assert_same(fastrelu.leaky_relu(x, slope), wanted, f"{slope}")
        assert_same(fastrelu.leaky_relu(x, negative_slope=slope), wanted, f"{slope}")
        assert fastrelu.leaky_relu(x, slope, out=out) is out
        assert_same(out, wanted)
        wanted = expected("leaky_relu_backward", [grad, x, float(slope), float(slope)], BFLOAT16)
        assert_same(fastrelu.leaky_relu_backward(grad, x, slope), wanted)
        assert_same(fastrelu.leaky_relu_backward_(grad.copy(), x, slope), wanted)
    for name in OPERATIONS:  # with defaults
        data = [grad, x] if name in BINARY else [x]
        default = [0.01, 0.01] if name.startswith("leaky_relu_") else [0.01] if "leaky" in name else [0.0]
        wanted = expected(name, [*data, *default[: ufuncs.of(name).nin - len(data)]], BFLOAT16)
        assert_same(public(name)(*data), wanted)
        assert_same(public(name)(*data, target="serial"), wanted)


def test_the_native_front_keeps_nothing():
    """It makes a bfloat16 of a slope on each call."""
    x = np.ones(3, BFLOAT16)
    for _ in range(100):
        fastrelu.leaky_relu_(x, 0.3)
    before = sys.getallocatedblocks()
    for _ in range(10_000):
        fastrelu.leaky_relu_(x, 0.3)
    assert sys.getallocatedblocks() - before < 1000


def test_contiguous_arrays_need_no_plan(monkeypatch):
    x, out = np.ones(100_000, BFLOAT16), np.empty(100_000, BFLOAT16)
    fastrelu.relu(x)
    monkeypatch.setattr(fastrelu._call.dispatch, "plan", None)
    assert fastrelu.leaky_relu(x, negative_slope=0.3, out=out, target="serial") is out


def test_scalars_and_arrays_without_dimensions():
    for value in specials(BFLOAT16):
        for x in (value, np.array(value)):
            result = fastrelu.leaky_relu(x, 0.3)
            assert type(result) is ml_dtypes.bfloat16
            assert_same(result, expected("leaky_relu", [value, 0.3], BFLOAT16))
    assert fastrelu.relu([ml_dtypes.bfloat16(-1), ml_dtypes.bfloat16(2)]).dtype == BFLOAT16
    assert fastrelu.leaky_relu([ml_dtypes.bfloat16(-1)], 0.5).dtype == BFLOAT16
    assert fastrelu.relu(np.empty((3, 0), BFLOAT16)).dtype == BFLOAT16


def test_promotion():
    """Python's numbers leave the type alone; everything else promotes as ml_dtypes and NumPy have it."""
    x = np.array([-1.5, 2.0], BFLOAT16)
    for slope in (0.5, 2, True):
        assert fastrelu.leaky_relu(x, slope).dtype == BFLOAT16
        assert fastrelu.relu_backward(1.5, x, slope).dtype == BFLOAT16
        assert fastrelu.explain(fastrelu.leaky_relu, x, slope).target == "serial"
    others = [np.float32(0.5), np.float64(0.5), np.int8(2), np.uint8(2), np.bool_(True), np.int32(2), np.int64(2)]
    for slope in others:
        for value in (slope, np.full(2, slope)):
            wanted = np.multiply(x, value).dtype
            assert fastrelu.leaky_relu(x, value).dtype == wanted
            assert fastrelu.relu_backward(value, x).dtype == fastrelu.relu_backward(x, value).dtype == wanted
            assert fastrelu.leaky_relu_backward(value, x, 0.3).dtype == wanted
    mixed = fastrelu.leaky_relu_backward(x.astype(np.float32), x, 0.3)
    assert_same(mixed, expected("leaky_relu_backward", [x, x, 0.3, 0.3], np.float32), "the slope is of float32, too")
    large = np.resize(x, (300, 500))
    assert_same(
        fastrelu.leaky_relu_backward(large.astype(np.float32).T, large.T, 0.3, target="parallel"),
        expected("leaky_relu_backward", [large.T, large.T, 0.3, 0.3], np.float32),
    )


def test_dtype_casting_and_out():
    narrow, wide = np.array([-1.5, 2.0], BFLOAT16), np.array([-1.5, 2.0], np.float32)
    for dtype in (BFLOAT16, ml_dtypes.bfloat16, "bfloat16"):
        assert_same(fastrelu.leaky_relu(wide, 0.3, dtype=dtype), expected("leaky_relu", [wide, 0.3], BFLOAT16))
        assert_same(fastrelu.leaky_relu(narrow, 0.3, dtype=dtype), expected("leaky_relu", [narrow, 0.3], BFLOAT16))
    # Not a slope rounded to bfloat16 and widened
    assert_same(fastrelu.leaky_relu(narrow, 0.3, dtype=np.float32), expected("leaky_relu", [narrow, 0.3], np.float32))
    assert fastrelu.relu(narrow, signature=(BFLOAT16, BFLOAT16)).dtype == BFLOAT16
    out = np.zeros(2, np.float32)
    assert fastrelu.leaky_relu(narrow, 0.3, out=out) is out
    assert_same(out, expected("leaky_relu", [narrow, 0.3], BFLOAT16).astype(np.float32), "computed in bfloat16")
    assert_same(fastrelu.relu(wide, out=np.zeros(2, BFLOAT16)), expected("relu", [wide], np.float32).astype(BFLOAT16))
    for call in (
        lambda: fastrelu.relu(wide, dtype=BFLOAT16, casting="safe"),
        lambda: fastrelu.relu(wide, out=np.zeros(2, BFLOAT16), casting="safe"),
        lambda: fastrelu.relu(narrow, out=np.zeros(2, np.int32)),
        lambda: fastrelu.leaky_relu_(np.ones(3, np.int8), narrow[:1]),
    ):
        with pytest.raises(TypeError):
            call()
    mask, out = np.array([True, False]), np.full(2, 7, BFLOAT16)
    fastrelu.leaky_relu(narrow, 0.5, out=out, where=mask)
    assert_same(out, np.array([-0.75, 7], BFLOAT16))


def test_no_call_raises_a_floating_point_warning():
    grad, x = pairs("relu_backward", BFLOAT16)
    with np.errstate(all="raise"):
        for slope in (1e300, -1e300, 1e-300, np.inf, np.nan, 0):
            for target in TARGETS:
                fastrelu.leaky_relu(x, slope, target=target)
                fastrelu.leaky_relu_backward(grad, x, slope, target=target)
                fastrelu.leaky_relu(x.reshape(26, 26).T, slope, target=target)
                fastrelu.leaky_relu_(x.copy()[::2], slope, target=target)


def test_other_types_of_ml_dtypes_are_refused():
    for name in ("float8_e4m3fn", "float8_e5m2"):
        with pytest.raises(TypeError, match=f"x is a numpy.ndarray of dtype {name}.*bfloat16"):
            fastrelu.relu(np.zeros((300, 400), getattr(ml_dtypes, name)).T)


# --- The ufuncs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_ufunc(name):
    ufunc = getattr(ufuncs, name)
    before = list(ufunc.types)
    operands = [spread(specials(BFLOAT16), 50) for _ in range(ufunc.nin)]
    for target in ("auto", "serial", "parallel"):
        with forced(target):
            assert_same(ufunc(*operands), expected(name, operands, BFLOAT16))
    assert ufunc.resolve_dtypes((*[BFLOAT16] * ufunc.nin, None)) == (BFLOAT16,) * (ufunc.nin + 1)
    assert list(ufunc.types) == before, "NumPy lists no registered loops"
    assert pickle.loads(pickle.dumps(ufunc)) is ufunc
    assert copy.deepcopy(ufunc) is ufunc
    # The loops of other types are untouched
    assert ufunc(*[values.astype(np.float32) for values in operands]).dtype == np.float32
    with pytest.raises(TypeError):
        ufunc(*[values.astype(np.complex64) for values in operands])


def test_methods_of_binary_ufuncs():
    values = spread(specials(BFLOAT16), TILE_BYTES)  # twice a tile
    values = values[np.isfinite(values)]
    if ml_dtypes.__version__ < "0.6":  # `accumulate` of more, by NumPy's own ufuncs too, ends in a segmentation fault
        values = values[:400]

    def oracle(a, b):
        return ORACLES["leaky_relu"](float(a), float(b), dtype=BFLOAT16)

    wanted = [float(values[0])]
    for value in values[1:]:
        wanted.append(oracle(wanted[-1], value))
    with fastrelu.configure(parallel_min_bytes=0, streaming_min_bytes=0), np.errstate(all="raise"):
        assert_same(ufuncs.leaky_relu.accumulate(values), np.array(wanted, BFLOAT16))
        assert_same(ufuncs.leaky_relu.reduce(values), BFLOAT16.type(wanted[-1]))
        assert_same(ufuncs.leaky_relu.reduceat(values, [0, 5])[1], BFLOAT16.type(oracle_fold(oracle, values[5:])))
        table = ufuncs.leaky_relu.outer(values[:40], values[:30])
        assert_same(table, expected("leaky_relu", [values[:40, None], values[None, :30]], BFLOAT16))
        target, again = values[:10].copy(), values[:10].copy()
        ufuncs.leaky_relu.at(target, [1, 1, 3], BFLOAT16.type(0.5))
        for k in (1, 1, 3):
            again[k] = oracle(again[k], 0.5)
        assert_same(target, again)


def oracle_fold(oracle, values):
    result = float(values[0])
    for value in values[1:]:
        result = oracle(result, value)
    return result


BEFORE = "import ml_dtypes, fastrelu"
AFTER = "import fastrelu, ml_dtypes"
USED = """
import numpy as np, fastrelu
for u in (fastrelu.ufuncs.relu, fastrelu.ufuncs.leaky_relu):
    for dtype in ("float32", "int8", "float16"):
        u(*[np.ones(3, dtype)] * u.nin)
    u(*[np.ones(3, "float32"), np.ones(3, "float16")][:u.nin])
try:
    fastrelu.ufuncs.relu(np.ones(3, "complex64"))
except TypeError:
    pass
import ml_dtypes
"""
FIRST = {
    "raw": "fastrelu.ufuncs.relu(x)",
    "public": "fastrelu.relu(x)",
    "forced": "fastrelu.relu(x, target='serial')",
    "keyword": "fastrelu.leaky_relu(x, negative_slope=0.5)",
    "large": "fastrelu.relu(np.resize(x, (600, 700)).T)",
    "in place": "fastrelu.relu_(x.copy())",
    "scalar": "fastrelu.relu(x[0])",
    "dtype": "fastrelu.relu(x.astype('f'), dtype=x.dtype)",
    "signature": "fastrelu.ufuncs.relu(x.astype('f'), signature=(x.dtype, x.dtype))",
    "outer": "fastrelu.ufuncs.leaky_relu.outer(x, x)",
}


@pytest.mark.parametrize("start", [BEFORE, AFTER, USED], ids=["before", "after", "after calls"])
def test_the_first_call(start):
    """Whichever comes first, and whichever call meets the type: NumPy remembers what it finds then."""
    calls = "; ".join(f"run({code!r})" for code in FIRST.values())
    run_python(
        f"{start}\nimport os, sys\nimport numpy as np\n"
        "x = np.array([-1, 2, -3], ml_dtypes.bfloat16)\n"
        "def run(code):\n"
        "    pid = os.fork() if hasattr(os, 'fork') else 0\n"
        "    if pid:\n"
        "        assert os.waitpid(pid, 0)[1] == 0, code\n"
        "        return\n"
        "    result = eval(code)\n"
        "    again = fastrelu.ufuncs.relu(x), fastrelu.leaky_relu(x, 0.5), fastrelu.ufuncs.leaky_relu(x, x)\n"
        "    good = {each.dtype.name for each in (result, *again)} == {'bfloat16'}\n"
        "    os._exit(not good) if hasattr(os, 'fork') else None\n"
        "    assert good, code\n"
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        f"{calls}\n"
    )


def test_many_threads_meet_it_at_once():
    run_python(
        """
import threading
import numpy as np, fastrelu, ml_dtypes
x = np.array([-1, 2, -3], ml_dtypes.bfloat16)
barrier, types = threading.Barrier(16), []
def work(k):
    barrier.wait()
    for _ in range(20):
        types.append(fastrelu.relu(x).dtype.name)
        types.append(fastrelu.ufuncs.leaky_relu(x, x).dtype.name)
        types.append(fastrelu.leaky_relu(x, 0.5).dtype.name)
threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert types == ["bfloat16"] * 16 * 60, set(types)
"""
    )


BROKEN = """
import importlib.abc, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "ml_dtypes":
            raise {error}
sys.meta_path.insert(0, Broken())
"""
ABSENT = {
    "not installed": BROKEN.format(error="ModuleNotFoundError(name)"),
    "built for another NumPy": BROKEN.format(error="AttributeError('_ARRAY_API not found')"),
    "a library missing": BROKEN.format(error="OSError('cannot open shared object file')"),
    "a folder of that name": "import sys, types; sys.modules['ml_dtypes'] = types.ModuleType('ml_dtypes')\n",
}


@pytest.mark.parametrize("how", ABSENT)
def test_without_ml_dtypes(how):
    """Not installed, or broken: the import of fastrelu succeeds, and nothing is known of the type."""
    run_python(
        ABSENT[how]
        + """
import numpy as np, fastrelu
for dtype in ("float16", "float32", "float64", "int8"):
    x = np.ones((300, 400), dtype)
    fastrelu.relu(x); fastrelu.relu(x.T); fastrelu.leaky_relu(x, negative_slope=2); fastrelu.explain(fastrelu.relu, x)
fastrelu.warmup([fastrelu.relu], ["float32"])
assert "bfloat16" not in str(fastrelu._api.warmup.warmup_steps())
try:
    fastrelu.relu(np.ones(3, "V2"))
except TypeError as error:
    assert "bfloat16" in str(error), error
"""
    )


def test_warmup():
    names = [label for label, _ in fastrelu._api.warmup.warmup_steps()]
    assert {f"{name} bfloat16" for name in OPERATIONS} <= set(names)
    fastrelu.warmup([fastrelu.relu], [ml_dtypes.bfloat16])
    with pytest.raises(ValueError, match="no loop for float8"):
        fastrelu.warmup([fastrelu.relu], [ml_dtypes.float8_e5m2])


def test_compiled_code_says_that_numba_has_no_such_type():
    numba = pytest.importorskip("numba")
    compiled = numba.njit(lambda x: fastrelu.relu(x))
    with pytest.raises(numba.TypingError, match="Unsupported array dtype: bfloat16"):
        compiled(np.ones(3, BFLOAT16))


# --- Containers and libraries ---------------------------------------------------------------------------------------


def test_masked_arrays_and_dask():
    masked = fastrelu.leaky_relu(np.ma.masked_array(EVERY[-3:], [0, 1, 0]), 0.3)
    assert type(masked) is np.ma.MaskedArray
    assert masked.dtype == BFLOAT16
    dask = pytest.importorskip("dask.array")
    lazy = fastrelu.leaky_relu(dask.from_array(-np.ones(6, BFLOAT16), chunks=3), 0.3)
    assert isinstance(lazy, dask.Array)
    assert_same(lazy.compute(), np.full(6, -0.3, BFLOAT16))


def load(name):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_torch(name):
    torch = load("torch")

    def tensor(array):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)

    def array(tensor):
        assert tensor.dtype is torch.bfloat16
        return tensor.view(torch.int16).numpy().view(BFLOAT16)

    data = pairs(name, BFLOAT16)
    data = [spread(each, 4096).reshape(64, 64) for each in data]
    parameters = PARAMETERS[name][0]
    wanted = expected(name, [*data, *parameters], BFLOAT16)
    tensors = [tensor(each) for each in data]
    result = public(name)(*tensors, *parameters)
    assert_same(array(result), wanted)
    assert_same(array(public(name)(*(t.T for t in tensors), *parameters)), wanted.T)
    assert_same(array(public(name)(*(t[::2, 1::3] for t in tensors), *parameters)), wanted[::2, 1::3])
    out = torch.empty_like(result)
    assert public(name)(*tensors, *parameters, out=out, target="parallel") is out
    assert_same(array(out), wanted)
    first, version = tensors[0].clone(), tensors[0].clone()._version
    assert public(name, twin=True)(first, *tensors[1:], *parameters) is first
    assert_same(array(first), wanted)
    assert first._version == version + 1


def test_torch_mixed_types_and_requests():
    torch = load("torch")
    narrow = torch.tensor([-1.5, 2.0], dtype=torch.bfloat16)
    assert fastrelu.leaky_relu(narrow.float(), 0.3, dtype=torch.bfloat16).dtype is torch.bfloat16
    assert fastrelu.leaky_relu(narrow, 0.3, dtype=torch.float32)[0] == np.float32(0.3) * np.float32(-1.5)
    assert fastrelu.relu_backward(narrow.float(), narrow).dtype is torch.float32
    assert fastrelu.leaky_relu(narrow, narrow).dtype is torch.bfloat16
    assert fastrelu.explain(fastrelu.leaky_relu, narrow, 0.3).target == "serial"
    assert fastrelu.relu(torch.tensor(-1.0, dtype=torch.bfloat16)).shape == ()
    with pytest.raises(TypeError, match=r"float8.*accepted are bool, integers, bfloat16"):
        fastrelu.relu(torch.zeros(3, dtype=torch.float8_e5m2))


def test_torch_without_ml_dtypes():
    load("torch")
    run_python(
        ABSENT["not installed"]
        + """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
import fastrelu
fastrelu.relu(torch.ones(3))
try:
    fastrelu.relu(torch.ones(3, dtype=torch.bfloat16))
except TypeError as error:
    assert "x is of dtype torch.bfloat16" in str(error) and 'pip install "fastrelu[bfloat16]"' in str(error), error
else:
    raise AssertionError
"""
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_jax(name):
    jax = load("jax")
    data = [spread(each, 999) for each in pairs(name, BFLOAT16)]
    parameters = PARAMETERS[name][0]
    result = public(name)(*map(jax.numpy.asarray, data), *parameters)
    assert isinstance(result, jax.Array)
    assert_same(np.asarray(result), expected(name, [*data, *parameters], BFLOAT16))


# --- Machine code ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_machine_code(name, monkeypatch):
    """No instruction that flushes subnormal numbers, and in the loop over whole lines no packing of vectors."""
    from fastrelu._runtime import code_cache, compiler

    monkeypatch.setattr(code_cache, "load", lambda *args: None)
    monkeypatch.setattr(code_cache, "save", lambda *args: None)
    library = compiler.kernel(name, BFLOAT16).library
    assert "bf16" not in library.get_asm_str()
    assert "bfloat" not in library.get_llvm_str().replace("-bfloat16", "")
    from numba.core.registry import cpu_target

    if "+avx2" not in cpu_target.target_context.codegen().magic_tuple()[2].split(","):
        pytest.skip("AVX2 assembly")
    for store in re.finditer(r"vmovntdq|vmovntps", assembly := library.get_asm_str()):
        loop = assembly[assembly.rindex(".LBB", 0, store.start()) : store.start()]
        assert not re.search(r"vpmovdw|vpackusdw|vpmovzxwd", loop), loop


@pytest.mark.parametrize(("cpu", "features"), [("x86-64", "+sse,+sse2"), ("haswell", "+sse2,+avx,+avx2,+fma,+f16c")])
def test_other_processors(cpu, features, tmp_path):
    """The same bits from older instructions, at lengths around their vectors."""
    from numba.core.registry import cpu_target

    triple, _, own = cpu_target.target_context.codegen().magic_tuple()
    if not triple.startswith("x86_64") or not set(features.split(",")) <= set(own.split(",")):
        pytest.skip("not this processor's")
    source = f"import numpy as np, fastrelu, ml_dtypes\n{inspect.getsource(_digest)}print(_digest())"
    done = run_python(
        source, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path), timeout=100
    )
    assert done.stdout.strip() == _digest()


def _digest():
    import hashlib

    digest = hashlib.sha256()
    every = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    for streaming in (0, 1 << 60):
        with fastrelu.configure(streaming_min_bytes=streaming):
            for n in (0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1 << 16):
                for x in (every[: 2 * n : 2], every[-n:]):
                    out = fastrelu.leaky_relu(np.ascontiguousarray(x), 0.3)
                    for result in (out, fastrelu.relu_backward(out, np.ascontiguousarray(x), 0.5)):
                        result[result.view(np.uint16) & 0x7FFF > 0x7F80] = np.nan
                        digest.update(result.tobytes())
    return digest.hexdigest()
