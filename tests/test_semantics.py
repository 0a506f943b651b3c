"""Every operation on every CPU target, bit for bit against the plain-Python oracle, at edge sizes."""

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._kernels.records import TILE_BYTES
from fastrelu._operations import UFUNCS

from .helpers import ALL_FLOATS, FLOATS, INTEGERS, OPERATIONS, PARAMETERS, TARGETS, pairs, public, specials, spread

# Around every vector width and unrolling: 16 to 64 lanes of AVX-512, with their heads and tails
SIZES = [*range(20), 31, 32, 33, 47, 63, 64, 65, 97, 127, 128, 129, 255, 257, 1000]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_special_values(name, dtype, target, stores):
    data = pairs(name, dtype)
    for parameters in PARAMETERS[name]:
        wanted = expected(name, [*data, *parameters], dtype)
        with np.errstate(all="raise"):
            assert_same(public(name)(*data, *parameters, target=target), wanted, f"{name}{parameters}")
            out = np.full_like(data[0], 42)
            assert public(name)(*data, *parameters, out=out, target=target) is out
            assert_same(out, wanted, f"{name}{parameters} out=")
            first = data[0].copy()
            assert public(name, twin=True)(first, *data[1:], *parameters, target=target) is first
            assert_same(first, wanted, f"{name}_{parameters}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_sizes(name, dtype, target, stores):
    """Pieces begin and end anywhere: sizes around vectors and around the units that threads take."""
    tile = TILE_BYTES // np.dtype(dtype).itemsize
    parameters = PARAMETERS[name][-1]
    pattern = pairs(name, dtype)
    largest = 3 * tile + 7
    data = [spread(column, largest) for column in pattern]
    period = max(61, pattern[0].size) | 1
    one = expected(name, [*(column[:period] for column in data), *parameters], dtype)
    wanted = np.resize(one, largest)
    for n in [*SIZES, tile - 1, tile, tile + 1, 2 * tile, largest]:
        for offset in (0, 1):  # both a 64-byte aligned output and one that is not
            out = np.full(n + 2, 42, dtype)[offset : offset + n]
            arguments = [column[:n] for column in data]
            assert_same(public(name)(*arguments, *parameters, out=out, target=target), wanted[:n], f"n={n}")
            first = arguments[0].copy()
            public(name, twin=True)(first, *arguments[1:], *parameters, target=target)
            assert_same(first, wanted[:n], f"in place, n={n}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_relu_keeps_integers(dtype, target, stores):
    for n in (0, 1, 7, 64, 1001, TILE_BYTES + 1):
        x = spread(specials(dtype), n)
        result = fastrelu.relu(x, target=target)
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result, np.where(x < 0, 0, x) if x.dtype.kind == "i" else x)
        assert fastrelu.relu_(x, target=target) is x
        np.testing.assert_array_equal(x, result)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", [name for name, row in UFUNCS.items() if not row.parameters])
def test_integers_stay_without_parameters(name, dtype):
    data = [specials(dtype)] * len(UFUNCS[name].data)
    result = public(name)(*data)
    assert result.dtype == np.dtype(dtype)
    assert_same(result, expected(name, data, dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", [name for name, row in UFUNCS.items() if row.parameters])
def test_integers_promote_as_heaviside_does(name, dtype):
    x = specials(dtype)
    data = [x] * len(UFUNCS[name].data)
    result = public(name)(*data)
    assert result.dtype == np.heaviside(x, 0.5).dtype == np.float64
    parameters = PARAMETERS[name][0]
    assert_same(result, expected(name, [*data, *parameters], np.float64))
    for value in (2, 2.0, True, 0):
        assert public(name)(*data, value).dtype == np.float64
    with pytest.raises(TypeError):
        public(name, twin=True)(x.copy(), *data[1:])


def test_at_zero_none_means_the_slope():
    x = np.array([-1.0, -0.0, 0.0, 1.0])
    assert_same(fastrelu.leaky_relu_grad(x, 0.3), np.array([0.3, 0.3, 0.3, 1.0]))
    assert_same(fastrelu.leaky_relu_backward(x, x, 0.5), np.array([-0.5, -0.0, 0.0, 1.0]))
    assert_same(fastrelu.leaky_relu_grad(x, 0.3, None), fastrelu.leaky_relu_grad(x, 0.3, 0.3))


@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("slope", [0.01, 0.5, 2.0, np.inf, 1e-300])
def test_backward_from_the_saved_output(dtype, slope):
    grad, x = pairs("relu_backward", dtype)
    assert_same(fastrelu.relu_backward(grad, fastrelu.relu(x)), fastrelu.relu_backward(grad, x))
    slope = np.array(slope).astype(dtype)
    if slope > 0:
        saved = fastrelu.leaky_relu(x, slope)
        assert_same(fastrelu.leaky_relu_backward(grad, saved, slope), fastrelu.leaky_relu_backward(grad, x, slope))


@pytest.mark.parametrize("dtype", FLOATS)
def test_as_numpy_computes(dtype):
    """NumPy's own arithmetic in the same type, float16 included, gives the same bits."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), 100_000, dtype=np.uint64)
    x = bits.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    slope = np.dtype(dtype).type(0.3)
    with np.errstate(all="ignore"):
        assert_same(fastrelu.leaky_relu(x, slope), np.where(x < 0, x * slope, x))
        assert_same(fastrelu.relu_grad(x, slope), np.heaviside(x, slope))
        assert_same(fastrelu.relu(x), np.where(x < 0, np.zeros_like(x), x))


def test_every_float16(stores):
    """All 65,536 of them, through both conversions."""
    x = np.arange(65536, dtype=np.uint16).view(np.float16)
    for slope in (0.01, 0.5, 3.0):
        with np.errstate(all="ignore"):
            wanted = np.where(x < 0, x * np.float16(slope), x)
        assert_same(fastrelu.leaky_relu(x, slope), wanted)


def test_no_floating_point_warning_whatever_the_slope():
    x = np.array([-3e38, -1e-40, np.nan, -np.inf, 1.0], dtype=np.float32)
    with np.errstate(all="raise"):
        for slope in (1e300, -1e300, 1e-300, 5e-324, np.float64(1e300), 10**30, np.inf, np.nan, 0):
            for dtype in ALL_FLOATS:
                small = np.array([-1.0, 2.0], dtype=dtype)
                fastrelu.leaky_relu(small, slope)
                fastrelu.leaky_relu(small, negative_slope=slope)
                fastrelu.relu_grad(small, slope)
                fastrelu.leaky_relu_backward(small, small, slope)
                fastrelu.leaky_relu_(small, slope)
        fastrelu.relu(np.array([1e300, -1e300]), out=np.empty(2, np.float32))
        fastrelu.relu(np.array([1e300, 1e-300]), dtype=np.float32, casting="same_kind")
        fastrelu.leaky_relu(x, np.float32(10.0))


def test_flags_that_the_user_raised_stay():
    """NumPy clears and reads the processor's flags itself; what a loop must not do is raise or drop any."""
    x = np.full(1000, np.nan, dtype=np.float32)
    with np.errstate(all="raise"):
        fastrelu.relu(x)
        with pytest.raises(FloatingPointError):
            np.float32(3e38) * np.float32(10.0)
