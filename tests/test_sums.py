"""Counts of active elements and gradients of slopes: exact sums on every way through an array, and nothing outside."""

import itertools
import math
from fractions import Fraction

import hypothesis.extra.numpy as hnp
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrelu
import fastrelu._call.sums
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._call.sums import SumPass
from fastrelu._operations import ROWS

from .helpers import (
    ALL_FLOATS,
    INTEGERS,
    LAYOUTS,
    TARGETS,
    at_edge,
    finfo,
    guarded_page,
    in_threads,
    pairs,
    per_unit,
    placed,
    public,
    specials,
    spread,
)  # fmt: skip

COUNTS = tuple(name for name, row in ROWS.items() if row.sums == "counts")
SLOPES = tuple(name for name, row in ROWS.items() if row.sums == "slope_grad")
NAMES = COUNTS + SLOPES
TWINS = tuple(name for name in NAMES if ROWS[name].twin)
SIZES = ("CYCLE_BYTES", "PANEL_BYTES", "FEWEST_ROWS", "PIECE_BYTES", "SHORT")
WAYS = ("_by_cycles", "_by_columns", "_by_runs")


@pytest.fixture(autouse=True)
def _threads_for_all():
    """Send small arrays to threads too."""
    with fastrelu.configure(parallel_min_bytes=64):
        yield


@pytest.fixture
def small(monkeypatch):
    """Cut small arrays into as many pieces as large ones."""
    for name, value in zip(SIZES, (4096, 512, 4, 2048, 16), strict=True):
        monkeypatch.setattr(fastrelu._call.sums, name, value)


def native(dtype):
    return np.dtype(dtype).newbyteorder("=")


def numbers(dtype, size, seed=0):
    """Return small multiples of 1/4 with zeros of both signs and NaN: every sum of their products is exact."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-9, 10, size) / 4).astype(dtype)
    if np.dtype(dtype).kind not in "iub":
        x[rng.random(size) < 0.05] = -0.0
        x[rng.random(size) < 0.05] = np.nan
    return x


def operands(name, dtype, shape, seed=0):
    """Return x, or grad and x; of grad, NaN stands only where x does not let it through."""
    size = math.prod(shape)
    x = numbers(dtype, size, seed)
    if name in COUNTS:
        return [x.reshape(shape)]
    grad = (np.random.default_rng(seed + 1).integers(-9, 10, size) / 8).astype(dtype)
    with np.errstate(all="ignore"):  # ml_dtypes raises flags for NaN
        grad[~(x < 0) & (np.arange(size) % 3 == 0)] = np.nan
    return [grad.reshape(shape), x.reshape(shape)]


def wanted_sums(name, data, axis, dtype):
    """Return the counts, or the exact sums rounded once, in plain Python."""
    shape = data[0].shape
    result = () if axis is None else (shape[axis],)
    plain = [each.astype("d" if each.dtype.name == "bfloat16" else each.dtype).ravel().tolist() for each in data]
    if name in COUNTS:
        return np.array([sum(v > 0 for v in unit) for unit in per_unit(plain[0], shape, axis)], np.int64).reshape(
            result
        )
    terms = [g * v if v < 0 else 0.0 for g, v in zip(*plain, strict=True)]
    with np.errstate(all="ignore"):
        return np.array([exact(unit) for unit in per_unit(terms, shape, axis)], "d").astype(dtype).reshape(result)


def exact(terms):
    """Return the sum of floats, rounded once; of what is not finite, what the terms say."""
    odd = {term for term in terms if math.isinf(term)}
    if any(map(math.isnan, terms)) or len(odd) > 1:
        return math.nan
    if odd:
        return odd.pop()
    total = sum(map(Fraction, terms), Fraction())
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def wanted_y(name, data, slope, dtype):
    operation = ROWS[name].like
    backward = operation == "leaky_relu_backward"
    return expected(operation, [*data, *slope * (1 + backward)], dtype)


def parameters(name, slope=-0.5):
    return (slope,) if "negative_slope" in ROWS[name].names else ()


def call(name, data, slope=(), *, axis, out=None, into=None, twin=False, **options):
    """Call a function or twin; return its element-wise result, or None, and its sums."""
    function = public(name, twin)
    if name == "count_active" or name == "leaky_relu_slope_grad":
        sums = function(*data, axis=axis, out=into, **options)
        assert into is None or sums is into
        return None, sums
    options |= {} if twin else {"out": out}
    if name in COUNTS:
        if into is None:
            into = np.zeros(() if axis is None else np.shape(data[0])[axis], np.int64)
        return function(data[0], into, *slope, axis=axis, **options), into
    if twin:
        return data[0], function(*data, *slope, axis=axis, slope_out=into, **options)
    y, sums = function(*data, *slope, axis=axis, slope_out=into, **options)
    assert into is None or sums is into
    return y, sums


def check(name, data, slope=None, *, axis=-1, out=None, into=None, wanted=None, sums=None, twins=True, **options):
    """Compare a function, the plain function and the twin with the oracle, bit for bit."""
    slope = parameters(name) if slope is None else slope
    dtype = native(data[0].dtype)
    data = [np.asarray(each) for each in data]
    before = [each.tobytes() for each in data]
    if sums is None:
        sums = wanted_sums(name, data, axis, dtype)
    if wanted is None and name in TWINS:
        wanted = wanted_y(name, data, slope, dtype)
    adds = 0
    if into is not None and name in COUNTS:
        into[...] = 1000
        adds = 0 if name == "count_active" else 1000
    y, found = call(name, data, slope, axis=axis, out=out, into=into, **options)
    assert_same(np.asarray(found), np.asarray(sums + adds) if adds else np.asarray(sums), f"sums of {name}")
    assert out is None or y is out
    assert out is not None or [each.tobytes() for each in data] == before, "an input was modified"
    if name not in TWINS:
        return
    assert_same(np.asarray(y), wanted, name)
    if twins and before[0] == data[0].tobytes():
        first = data[0].copy(order="K")
        y, found = call(name, [first, *data[1:]], slope, axis=axis, twin=True, **options)
        assert y is first
        assert_same(first.astype(dtype), wanted, name + "_")
        assert_same(np.asarray(found), np.asarray(sums), f"sums of {name}_")


def beside(array):
    """Say whether nothing was written around an array that `placed` made."""
    raw = array
    while raw.base is not None:
        raw = raw.base
    start = array.ctypes.data - raw.ctypes.data
    return (raw[:start] == 0xA5).all() and (raw[start + array.nbytes :] == 0xA5).all()


@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name, dtype, stores):
    """One element per sum: of each pair, or of each column of a few, what the terms say, without a warning."""
    values = pairs("relu_backward" if name in SLOPES else "relu", dtype)
    count, sums = len(values[0]), wanted_sums(name, values, 0, dtype)
    for slope in (0.01, -1.5, np.inf, np.nan) if parameters(name) else (None,):
        with np.errstate(all="raise"):
            wanted = wanted_y(name, values, parameters(name, slope), dtype) if name in TWINS else None
            for target in TARGETS:
                check(name, values, parameters(name, slope), axis=0, sums=sums, wanted=wanted, target=target)
    if name in COUNTS:
        many = np.resize(values[0], 67 * count).reshape(67, count)
        for axis in (1, None):
            check(name, [many], axis=axis)


@pytest.mark.parametrize("shape", [(300,), (70, 5), (20, 64), (2, 5, 70), (500, 3)], ids=str)
@pytest.mark.parametrize("name", SLOPES)
def test_sums_that_are_not_finite(name, shape, stores, small):
    """Infinities of one sign and of both, NaN, and overflow, at any places: silently, in every way of summing."""
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64", "float16"):
        for placing, axis in itertools.product(range(8), (None, *range(len(shape)))):
            grad, x = np.ones(shape, dtype), np.full(shape, -1, dtype)
            flat = grad.reshape(-1)
            where = rng.choice(flat.size, 6, replace=False)
            flat[where] = [
                [np.inf] * 6, [-np.inf] * 6, [np.inf, -np.inf] * 3, [np.nan] * 6, [np.inf, np.nan] * 3,
                [finfo(dtype).max] * 6, [-finfo(dtype).max] * 6, [0.0, -0.0] * 3,
            ][placing]  # fmt: skip
            with np.errstate(all="raise"):
                found = np.asarray(call(name, [grad, x], parameters(name), axis=axis)[1])
            assert_same(found, wanted_sums(name, [grad, x], axis, dtype), f"{dtype} {placing} {axis}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_sizes(name, dtype, target, stores, small):
    """Lengths around vectors and lines, each with arrays that begin elsewhere; nothing beside them is written."""
    data, size = operands(name, dtype, (300,)), np.dtype(dtype).itemsize
    into = np.dtype(np.int64 if name in COUNTS else dtype)
    wanted = wanted_y(name, data, parameters(name), dtype) if name in TWINS else None
    for n in range(0, 301, 4 if (dtype, target) == ("float32", "serial") else 43):
        some = [placed(each[:n], (5 * n + k) * size % 64) for k, each in enumerate(data)]
        for axis in (0, None):
            shape = (n,) if axis == 0 else ()
            out = placed(np.zeros(n, dtype), 7 * n * size % 64) if name in TWINS else None
            sums = placed(np.zeros(shape, into), n * into.itemsize % 64)
            part = None if wanted is None else wanted[:n]
            check(name, some, axis=axis, out=out, into=sums, wanted=part, target=target, twins=n % 2 == 0)
            assert beside(sums)
            assert out is None or beside(out)


@pytest.mark.parametrize("dtype", [*ALL_FLOATS, "int8"])
def test_alignments(dtype, stores, small):
    """Every place of the output in a line, unaligned ones too, and random places of all else; odd rows, few rows."""
    rng = np.random.default_rng(0)
    for name in NAMES if dtype != "int8" else ("relu_with_counts", "count_active"):
        for shape in ((29, 7), (5, 41)):
            data = operands(name, dtype, shape)
            wanted = wanted_y(name, data, parameters(name), dtype) if name in TWINS else None
            sums = {axis: wanted_sums(name, data, axis, dtype) for axis in (0, 1)}
            for offset in range(0, 64, 1 if shape[1] == 7 else 5):
                some = [placed(each, rng.integers(64)) for each in data]
                out = placed(np.zeros(shape, dtype), offset) if name in TWINS else None
                axis = int(rng.integers(2))
                into = placed(np.zeros_like(sums[axis]), rng.integers(64))
                options = {"axis": axis, "wanted": wanted, "sums": sums[axis], "target": "serial"}
                check(name, some, out=out, into=into, **options)
                check(name, [placed(some[0], offset), *some[1:]], **options)
                assert beside(into)
                assert out is None or beside(out)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype, stores, small):
    for shape in ((0,), (1,), (7,), (9, 13), (301,), (2, 5, 17)):
        x = spread(specials(dtype), math.prod(shape)).reshape(shape)
        wanted = expected("relu", [x], dtype)
        for axis in (None, 0, -1):
            sums = wanted_sums("count_active", [x], axis, dtype)
            for target in TARGETS:
                check("count_active", [x], axis=axis, sums=sums, target=target)
                check("relu_with_counts", [x], axis=axis, sums=sums, wanted=wanted, target=target)
    y = np.zeros(x.shape)
    counts = np.zeros(17, np.int64)
    assert_same(fastrelu.leaky_relu_with_counts(x, counts, 2, out=y), expected("leaky_relu", [x, 2.0], "d"))
    assert_same(counts, wanted_sums("count_active", [x], -1, dtype))
    wide = x.astype("d")
    for found, wanted in zip(
        fastrelu.leaky_relu_backward_with_slope_grad(x, x, 2, axis=1),
        fastrelu.leaky_relu_backward_with_slope_grad(wide, wide, 2, axis=1),
        strict=True,
    ):
        assert_same(found, wanted)
    for twin in (fastrelu.leaky_relu_with_counts_, fastrelu.leaky_relu_backward_with_slope_grad_):
        with pytest.raises(TypeError, match="does not cast"):
            twin(x, counts if "counts" in twin.__name__ else x)


#: Shape, axis, and the way that they lead to with the sizes of `small`, for float32. Behind it, what is special.
SHAPES = [
    ((300, 16), 1, "_by_cycles"),  # a line per row
    ((300, 100), 1, "_by_cycles"),
    ((301, 7), 1, "_by_cycles"),  # rows shorter than a line, of odd length
    ((999, 1), 1, "_by_cycles"),
    ((4001, 3), 1, "_by_cycles"),  # many pieces
    ((40, 512), 1, "_by_cycles"),  # as wide as may be
    ((40, 1025), 1, "_by_columns"),  # too wide
    ((3, 5000), 1, "_by_columns"),  # few rows
    ((1, 600), 1, "_by_columns"),
    ((67, 30), 0, "_by_runs"),  # runs behind a unit
    ((3, 5, 70), 1, "_by_runs"),
    ((2, 3, 3000), 1, "_by_runs"),  # long ones in pieces
    ((2, 3, 3001), 1, "_by_runs"),  # with a remainder
    ((100, 5, 7), 1, "_by_cycles"),  # short ones: a sum for each element
    ((2, 5, 7), 1, "_by_runs"),  # too few of them
    ((5, 1, 40), 1, "_by_runs"),  # one unit
    ((3, 4, 5, 6), 1, "_by_runs"),
    ((3, 4, 5, 6), 2, "_by_cycles"),
    ((20, 4, 5, 2), 2, "_by_cycles"),
    ((5000,), None, "_by_runs"),
    ((50, 100), None, "_by_runs"),
]


@pytest.mark.parametrize(("shape", "axis", "way"), SHAPES, ids=lambda value: str(value))
@pytest.mark.parametrize("name", NAMES)
def test_every_way(name, shape, axis, way, stores, small, monkeypatch):
    """Which way a layout takes, and that the sums of each are exact, in every type and with every target."""
    taken = []
    for each in WAYS:
        function = getattr(SumPass, each)
        monkeypatch.setattr(
            SumPass, each, lambda *given, each=each, function=function: taken.append(each) or function(*given)
        )
    for dtype in ("float32", ALL_FLOATS[math.prod(shape) % len(ALL_FLOATS)]):
        data = operands(name, dtype, shape)
        some = [each.astype("d") for each in data]
        with np.errstate(all="ignore"):
            terms = some[0] > 0 if name in COUNTS else np.where(some[-1] < 0, some[0] * some[-1], 0)
            others = tuple(k for k in range(len(shape)) if axis is None or k != axis)
            sums = np.asarray(terms.sum(others)).astype(np.int64 if name in COUNTS else dtype)
            slope = parameters(name, np.dtype(dtype).type(-0.5))
            wanted = public(ROWS[name].like)(*data, *slope) if name in TWINS else None
        taken.clear()
        for target in ("serial", "parallel"):
            check(name, data, slope, axis=axis, target=target, sums=sums, wanted=wanted)
        if dtype == "float32":
            assert set(taken) == {way}


@pytest.mark.parametrize("name", NAMES)
def test_large_arrays(name, stores):
    """The sizes as they are: many pieces, panels and remainders."""
    for shape, axis in [
        ((5003, 131), 1),
        ((70, 40_001), 1),
        ((3, 2, 300_007), 1),
        ((600_011,), None),
        ((700_003, 2), 1),
    ]:
        data = operands(name, "float32", shape)
        with np.errstate(all="ignore"):
            terms = data[0] > 0 if name in COUNTS else np.where(data[-1] < 0, data[0].astype("d") * data[-1], 0)
            others = tuple(k for k in range(len(shape)) if axis is None or k != axis)
            sums = np.asarray(terms.sum(others)).astype(np.int64 if name in COUNTS else np.float32)
            wanted = public(ROWS[name].like)(*data, *parameters(name)) if name in TWINS else None
        check(name, data, axis=axis, sums=sums, wanted=wanted, target="parallel")


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_any_layout(data):
    """Any shape in any layout, input and output, any axis; a slope that broadcasts in any way; sums with gaps."""
    draw = data.draw
    name, dtype, target = (
        draw(st.sampled_from(NAMES)),
        draw(st.sampled_from(ALL_FLOATS)),
        draw(st.sampled_from(TARGETS)),
    )
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=9))
    axis = draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    plain = operands(name, dtype, shape)
    if draw(st.booleans()):
        plain = [np.broadcast_to(each[:1], shape) for each in plain]
    if len(plain) == 2 and draw(st.booleans()):
        plain[1] = np.broadcast_to(plain[1][..., :1], shape)
    slope = ()
    if parameters(name):
        form = tuple(draw(st.sampled_from([1, extent])) for extent in shape[draw(st.integers(0, len(shape))) :])
        slope = (np.resize(np.array([0.5, -2.0, 3.0]), form).astype(dtype),)
    swappable = [each for each in LAYOUTS if dtype != "bfloat16" or each != "byte-swapped"]
    layouts = st.sampled_from(swappable)
    some = [LAYOUTS[draw(layouts)](each) if each.size and draw(st.booleans()) else each for each in plain]
    size = math.prod(shape)
    out = LAYOUTS[draw(layouts)](np.full(shape, 42, dtype)) if name in TWINS and size and draw(st.booleans()) else None
    into = None
    if draw(st.booleans()):
        step = draw(st.sampled_from([-2, -1, 1, 3]))
        length = 1 if axis is None else shape[axis]
        into = np.full(length * abs(step), 77, np.int64 if name in COUNTS else dtype)[::step]
        into = into[:1].reshape(()) if axis is None else into
    with pytest.MonkeyPatch.context() as patch:
        if draw(st.booleans()):
            for size, value in zip(SIZES, (256, 64, 2, 128, 4), strict=True):
                patch.setattr(fastrelu._call.sums, size, value)
        with fastrelu.configure(streaming_min_bytes=draw(st.sampled_from([0, 1 << 60]))):
            wanted = wanted_y(name, plain, slope, dtype) if name in TWINS else None
            sums = wanted_sums(name, plain, axis, dtype)
            options = {"wanted": wanted, "sums": sums, "target": target}
            if out is not None and out.dtype != dtype:
                y, _ = call(name, some, slope, axis=axis, out=out, into=into, target=target)
                assert y is out
                assert_same(out.astype(dtype), wanted)
                return
            check(name, some, slope, axis=axis, out=out, into=into, **options)
            if out is None and name in TWINS and size:
                y, _ = call(name, some, slope, axis=axis, target=target)
                longer = np.array(shape) > 1  # strides of the others mean nothing
                strides = np.positive(some[0], dtype=dtype).strides
                assert (np.array(y.strides)[longer] == np.array(strides)[longer]).all()


@pytest.mark.parametrize("name", NAMES)
def test_axes(name):
    """Negative ones count from the end; what is none of the array is refused before anything is written."""
    data = operands(name, "float32", (2, 3, 4))
    for axis in (*range(-3, 3), np.int8(1), np.array(-1), True, None):
        check(name, data, axis=None if axis is None else int(axis))
        assert_same(
            np.asarray(call(name, data, parameters(name), axis=axis)[1])
            if name not in TWINS or name in SLOPES
            else np.asarray(wanted_sums(name, data, None if axis is None else int(axis), "float32")),
            np.asarray(wanted_sums(name, data, None if axis is None else int(axis), "float32")),
        )
    for axis in (3, -4, 1 << 70):
        with pytest.raises(np.exceptions.AxisError, match=name):
            call_refused(name, data, axis=axis)
    for axis in (1.0, "1", (0, 1), [1]):
        with pytest.raises(TypeError):
            call_refused(name, data, axis=axis)
    for value in (0.5, np.float32(0.5), np.array(0.5)):
        scalars = [value] * (1 + (name in SLOPES))
        with pytest.raises(np.exceptions.AxisError):
            call_refused(name, scalars, axis=0, into=np.zeros(1, np.int64) if name in COUNTS else None)


def call_refused(name, data, *, axis=-1, into=None, **options):
    """Call a function, which raises; see that no array has changed."""
    if into is None and name in COUNTS and name != "count_active":
        into = np.zeros(4, np.int64)
    arrays = [each for each in (*data, into, *options.values()) if type(each) is np.ndarray and each.dtype != object]
    before = [each.tobytes() for each in arrays]
    try:
        call(name, data, parameters(name), axis=axis, into=into, **options)
    finally:
        assert [each.tobytes() for each in arrays] == before


@pytest.mark.parametrize("name", NAMES)
def test_scalars_and_lists(name):
    for value in (-2.0, np.float64(-2.0), np.array(-2.0)):
        data = [value] * (1 + (name in SLOPES))
        y, sums = call(name, data, parameters(name), axis=None)
        assert type(y) in ((type(None),) if name not in TWINS else (np.float64,))
        assert sums == (0 if name in COUNTS else 4.0)
        if name in SLOPES:
            assert type(sums) is np.float64
    assert type(fastrelu.count_active(3, axis=None)) is np.int64
    for value in ([-1.0, 2.0], (-1.0, 2.0)):
        y, sums = call(name, [value] * (1 + (name in SLOPES)), parameters(name), axis=0, into=None)
        assert_same(sums, np.array([0, 1]) if name in COUNTS else np.array([1.0, 0.0]))
    zero = np.array(-2.0)
    if name in TWINS:
        check(name, [zero] * (1 + (name in SLOPES)), axis=None)


def test_types():
    """Types follow the plain functions; sums of narrow types arrive unrounded in an array of float64."""
    grad, x = np.array([1.5, 3.0, 1.0], np.float16), np.array([-1.001, -2.003, 5], np.float16)
    terms = [g * v for g, v in zip(grad.astype(float).tolist(), x.astype(float).tolist(), strict=True) if v < 0]
    wide, narrow = np.zeros(()), fastrelu.leaky_relu_slope_grad(grad, x)
    assert fastrelu.leaky_relu_slope_grad(grad, x, out=wide) is wide
    assert wide == math.fsum(terms)
    assert type(narrow) is np.float16
    assert narrow == np.float16(math.fsum(terms))
    assert narrow != wide
    y, total = fastrelu.leaky_relu_backward_with_slope_grad(grad, x, np.float64(0.1))
    assert y.dtype == total.dtype == np.float64
    y, total = fastrelu.leaky_relu_backward_with_slope_grad(grad, x, 0.1)
    assert y.dtype == total.dtype == np.float16
    assert fastrelu.leaky_relu_slope_grad(grad, x.astype("f")).dtype == np.float32
    for out in (np.zeros(3, np.float64), np.zeros(3, ">f4"), np.zeros(6, np.float32)[::2]):
        slope_out = np.zeros((), np.float32)
        y, total = fastrelu.leaky_relu_backward_with_slope_grad(grad, x, 0.1, out=out, slope_out=slope_out)
        assert y is out
        assert total is slope_out
        assert_same(y, fastrelu.leaky_relu_backward(grad, x, 0.1).astype(out.dtype))
        assert total == np.float32(math.fsum(terms))
    huge = np.full(4, 1e300)
    narrow = np.zeros((), np.float32)
    with np.errstate(all="raise"):
        assert fastrelu.leaky_relu_slope_grad(huge, -np.ones(4), out=narrow) == -np.inf


@pytest.mark.parametrize("shape", [(200_001,), (2001, 100), (50, 4000), (5, 8, 5001)], ids=str)
@pytest.mark.parametrize("axis", [None, -1, 0])
def test_accuracy(shape, axis):
    """With cancellation: the error is that of rounding the products, and never above that of NumPy's pairwise sum."""
    ours, numpys = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = -np.exp(rng.normal(0, 6, shape))
        sign = rng.choice([-1.0, 1.0], shape)  # products are exact, so that only summing errs
        others = tuple(k for k in range(len(shape)) if axis is None or k != axis % len(shape))
        rows = (
            (sign * x)
            .transpose(*(() if axis is None else (axis % len(shape),)), *others)
            .reshape(1 if axis is None else shape[axis], -1)
        )
        right = np.array([math.fsum(row) for row in rows.tolist()])
        size = np.abs(rows).sum(-1)
        found = np.ravel(fastrelu.leaky_relu_slope_grad(sign, x, axis=axis))
        ours.append(np.abs(found - right) / size)
        numpys.append(np.abs(np.ravel((sign * x).sum(others)) - right) / size)
        assert (ours[-1] <= 4 * finfo("d").eps).all()
    assert np.mean(ours) <= np.mean(numpys)


def test_accuracy_of_one_large_term():
    """1e16 and its negative, far apart, with ones between: each sum loses what the other does not see."""
    for shape, axis in [((100_001,), None), ((1001, 100), 1), ((100, 1001), 0), ((1001, 7), 1), ((70, 3, 9), 1)]:
        x = np.full(shape, -1.0)
        grad = np.ones(shape)
        moved = np.moveaxis(grad, axis, 0) if axis is not None else grad.reshape(1, -1)
        first, last = (0,) * (moved.ndim - 1), (-1,) * (moved.ndim - 1)
        moved[(slice(None), *first)], moved[(slice(None), *last)] = 1e16, -1e16
        units = 1 if axis is None else shape[axis]
        found = np.ravel(fastrelu.leaky_relu_slope_grad(grad, x, axis=axis))
        assert (np.abs(found + (grad.size / units - 2)) <= 4).all(), (shape, found)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accuracy_beside_torch(dtype):
    """Errors are no greater than those of torch's backward pass of PReLU; float32 is rounded once."""
    torch = pytest.importorskip("torch")
    ours, theirs = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        grad, x = (rng.standard_normal((5000, 60)).astype(dtype) for _ in range(2))
        slope = torch.full((60,), 0.25, dtype=getattr(torch, dtype))
        _, each = torch.ops.aten._prelu_kernel_backward(torch.from_numpy(grad), torch.from_numpy(x), slope)
        terms = np.where(x < 0, grad.astype("d") * x, 0)
        right = np.array([math.fsum(column) for column in terms.T.tolist()])
        y, found = fastrelu.leaky_relu_backward_with_slope_grad(grad, x, 0.25, axis=1)
        assert_same(y, fastrelu.leaky_relu_backward(grad, x, 0.25))
        if dtype == "float32":
            assert_same(found, right.astype(dtype))
        ours.append(np.abs(found - right))
        theirs.append(np.abs(each.sum(0).numpy() - right))
    assert np.max(ours) <= np.max(theirs)
    assert np.mean(ours) <= np.mean(theirs)


@pytest.mark.parametrize("shape", [(3001, 130), (300, 4000), (20, 7, 3000), (400_000,)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_sums_on_any_number_of_threads(dtype, shape):
    rng = np.random.default_rng(0)
    grad, x = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    out, before, most = np.empty(shape, dtype), numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS
    try:
        for axis in (None, len(shape) // 2):
            found = {}
            for threads in (1, 2, 4):
                numba.set_num_threads(min(threads, most))
                for target in ("parallel", "serial", None):
                    sums = fastrelu.leaky_relu_slope_grad(grad, x, axis=axis, target=target)
                    fused = fastrelu.leaky_relu_backward_with_slope_grad(
                        grad, x, 0.1, axis=axis, out=out, target=target
                    )
                    counts = fastrelu.count_active(x, axis=axis, target=target)
                    found[np.asarray(sums).tobytes(), np.asarray(fused[1]).tobytes(), counts.tobytes()] = threads
            assert len(found) == 1
    finally:
        numba.set_num_threads(before)


@st.composite
def _windows(draw):
    """Return a function, a type and windows on one buffer: grad or x, out, a slope, and in bytes the sums."""
    length = draw(st.sampled_from([1, 2, 5, 16, 33, 64, 130]))
    places = []
    for _ in range(3):
        step = draw(st.sampled_from([-2, -1, 1, 1, 2]))
        span = (length - 1) * abs(step) + 1
        places.append((draw(st.integers(0, 420 - span)), step, span))
    if draw(st.booleans()):
        places[1] = places[0]
    dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
    name, axis = draw(st.sampled_from(NAMES)), draw(st.sampled_from([0, None]))
    nbytes = (length if axis == 0 else 1) * np.dtype(np.int64 if name in COUNTS else dtype).itemsize
    start = draw(st.integers(0, max(0, 420 * np.dtype(dtype).itemsize - nbytes)))
    return name, dtype, length, places, axis, (start, nbytes)


@settings(max_examples=300, deadline=None)
@given(_windows(), st.sampled_from(TARGETS), st.booleans())
def test_overlap_of_every_kind(windows, target, streaming):
    """The result is that of copies; sums are refused where they may overlap, before anything is written."""
    name, dtype, length, places, axis, (start, nbytes) = windows
    buffer = np.zeros(420, dtype)
    buffer[...] = numbers(dtype, 420)
    raw = np.zeros(buffer.nbytes + nbytes, np.uint8)
    raw[: buffer.nbytes] = buffer.view(np.uint8)
    buffer = raw[: buffer.nbytes].view(dtype)
    before = raw.copy()

    def window(base, place):
        first, step, span = place
        return base[first : first + span][::step]

    first, out, slope = (window(buffer, place) for place in places)
    sums = raw[start : start + nbytes].view(np.int64 if name in COUNTS else dtype)
    sums = sums.reshape(()) if axis is None else sums
    slope = (slope,) if parameters(name) else ()
    x = numbers(dtype, length, 5)
    data = [first, x] if name in SLOPES else [first]
    copies = [[each.copy() for each in group] for group in (data, slope)]
    touched = [*data, *slope, *([out] if name in TWINS else [])]
    options = {"axis": axis, "target": target, "out": out}
    with fastrelu.configure(streaming_min_bytes=0 if streaming else 1 << 60):
        if any(np.may_share_memory(sums, other) for other in touched):
            with pytest.raises(ValueError, match="shares memory"):
                call(name, data, slope, into=sums, **options)
            assert_same(raw, before)
            sums = np.zeros_like(sums)
        elif name in COUNTS:
            sums[...] = 0
        before = raw.copy()
        call(name, data, slope, into=sums, **options)
        assert_same(sums.copy(), wanted_sums(name, copies[0], axis, dtype))
        wanted = before.copy()
        if name in TWINS:
            window(wanted[: buffer.nbytes].view(dtype), places[1])[...] = wanted_y(name, copies[0], copies[1], dtype)
        if np.may_share_memory(sums, raw):
            wanted[start : start + nbytes] = np.ravel(sums).view(np.uint8)
        assert_same(buffer.copy(), wanted[: buffer.nbytes].view(dtype))
        assert_same(raw[buffer.nbytes :], wanted[buffer.nbytes :])


def test_sums_over_converted_input_are_refused():
    """What is computed with is a copy then; what would be overwritten is the caller's."""
    x = np.array([-1.0, 2.0], ">f8")
    for name in NAMES:
        data = [x] * (1 + (name in SLOPES))
        with pytest.raises(ValueError, match="shares memory"):
            call_refused(name, data, into=x.view(np.int64 if name in COUNTS else "=f8"))
    integers = np.array([-1, 2])
    with pytest.raises(ValueError, match="shares memory"):
        call_refused("leaky_relu_with_counts", [integers], into=integers)
    slope = np.array([0.5, 0.25], ">f8")
    with pytest.raises(ValueError, match="shares memory"):
        fastrelu.leaky_relu_with_counts(np.ones((3, 2)), slope.view(np.int64), slope)
    assert slope.tolist() == [0.5, 0.25]


def test_sums_that_overlap_themselves_are_refused():
    base = np.zeros(3, np.int64)
    same = np.lib.stride_tricks.as_strided(base, (3,), (0,))
    for name in COUNTS:
        with pytest.raises(ValueError, match="shares memory"):
            call_refused(name, [np.ones((2, 3))], into=same)
    assert not base.any()


@pytest.mark.parametrize("name", TWINS)
def test_output_that_overlaps_itself(name):
    """Each number is computed once, from what was there before."""
    base = np.arange(-50, 50, dtype=np.float32)
    windows = np.lib.stride_tricks.as_strided(base, (40, 61), (4, 4))
    data = [windows] * (1 + (name in SLOPES))
    sums = wanted_sums(name, data, 1, np.dtype("f"))
    wanted = expected(ROWS[name].like, [base.copy()] * (1 + (name in SLOPES)) + [-0.5] * (2 if name in SLOPES else 1)
                      if parameters(name) else [base.copy()], "float32")  # fmt: skip
    found = call(name, [windows, *(each.copy() for each in data[1:])], parameters(name), axis=1, twin=True)[1]
    assert_same(base, wanted)
    assert_same(found, sums)


@pytest.mark.parametrize("name", NAMES)
def test_no_byte_outside_is_touched(name, stores, small):
    """Pages without access right before and after data, output and sums: a kernel that goes there dies."""
    areas = [guarded_page() for _ in range(5)]

    shapes = [(n,) for n in (0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130, 299)]
    shapes += [(9, 5), (37, 3), (3, 37), (2, 65), (16, 16), (11, 1), (1, 11), (2, 3, 19), (20, 3, 2)]
    for dtype in (*ALL_FLOATS, *(("int8", "bool", "uint64") if name in ("relu_with_counts", "count_active") else ())):
        into = np.int64 if name in COUNTS else dtype
        for shape, at_end in itertools.product(shapes, (False, True)):
            data = operands(name, dtype, shape)
            some = [at_edge(area, shape, dtype, at_end) for area, _ in zip(areas, data, strict=False)]
            for each, value in zip(some, data, strict=True):
                each[...] = value
            axis = len(shape) // 2 if len(shape) < 3 or at_end else None
            axis = None if axis == len(shape) else axis
            out = at_edge(areas[2], shape, dtype, at_end) if name in TWINS else None
            sums = at_edge(areas[3], () if axis is None else (shape[axis],), into, at_end)
            slope = parameters(name)
            if slope and at_end:
                slope = (at_edge(areas[4], shape, dtype, at_end),)
                slope[0][...] = -0.5
            check(name, some, slope, axis=axis, out=out, into=sums, target="serial", twins=False)
            # Every other element, from the first on or up to the last one
            few = (..., slice(None, None, 2) if not at_end else slice((shape[-1] + 1) % 2, None, 2))
            if shape[-1] > 1:
                call(name, [each[few] for each in some], parameters(name), axis=None,
                     out=None if out is None else out[few], target="serial")  # fmt: skip


X = np.array([-1.0, 2.0, 0.0])


@pytest.mark.parametrize("dtype", ["F", "D", "O", "U3", "S3", "m8[s]", "M8[s]", "V4", [("a", "f4")], "g"], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_types_that_are_refused(name, dtype):
    if dtype == "g" and np.dtype("g").itemsize == 8:
        pytest.skip("longdouble is float64 here")
    bad, twice = np.zeros(3, dtype), 1 + (name in SLOPES)
    into = np.zeros(3, np.int64) if name in COUNTS else None
    with pytest.raises(TypeError, match=rf"{name}_?: (x|grad) is a numpy\.ndarray of dtype"):
        call_refused(name, [bad] * twice, into=into)
    if name in SLOPES:
        with pytest.raises(TypeError, match=f"{name}_?: x is a"):
            call_refused(name, [X.copy(), bad])
    if name in TWINS:
        with pytest.raises(TypeError, match=rf"{name}_?: (x|grad) is a numpy\.ndarray of dtype"):
            call_refused(name, [bad] * twice, into=into, twin=True)
    if parameters(name):
        with pytest.raises(TypeError, match=f"{name}_?: negative_slope "):
            call(name, [X.copy()] * twice, (bad,), axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_are_refused(name):
    twice, into = 1 + (name in SLOPES), np.zeros(3, np.int64) if name in COUNTS else np.zeros(3)

    def refused(error, match, data=None, **options):
        with pytest.raises(error, match=match):
            call_refused(name, [X.copy()] * twice if data is None else data, **{"into": into, **options})

    for bad in ("x", None, 1j, object(), {}, b"1"):
        refused(TypeError, f"{name}_?: (x|grad)", [bad] * twice)
    refused(TypeError, "MaskedArray", [np.ma.masked_less(X, 0)] * twice)
    for target in ("gpu", "", "Serial", 1, ("serial",), b"serial", True):
        refused(ValueError, "target=", target=target)
    if name in TWINS:
        frozen = X.copy()
        frozen.flags.writeable = False
        for bad in ([0.0] * 3, 1.0, "x", np.float64(1.0), (X,), object()):
            refused(TypeError, f"{name}_?: out must be an array", out=bad)
        refused(ValueError, f"{name}_?: out is read-only", out=frozen)
        refused(ValueError, f"{name}_: (x|grad) is read-only", [frozen] * twice, twin=True)
        for shape in ((2,), (4,), (3, 1), (1, 3), ()):
            refused(ValueError, f"{name}_?: out has shape", out=np.zeros(shape))
        refused(TypeError, "does not cast", out=np.zeros(3, np.int64))
        for bad in ([1.0, 2.0, 3.0], (1.0,), 1.0, 1, True, np.float64(1.0), None, "x"):
            refused(TypeError, rf"{name}_ works in place", [bad, X.copy()][:twice], twin=True)
    if name in SLOPES:
        refused(ValueError, f"{name}_?: x of shape", [X.copy(), np.ones(4)])
        refused(ValueError, f"{name}_?: x of shape", [X.copy(), np.ones((2, 3))])
    if parameters(name):
        for bad in ("0.1", None, 1j, object(), b"1", {}, np.complex64(1)):
            with pytest.raises(TypeError, match=f"{name}_?: negative_slope"):
                call(name, [X.copy()] * twice, (bad,), axis=-1)
        with pytest.raises(ValueError, match=r"negative_slope of shape .* does not broadcast"):
            call(name, [X.copy()] * twice, (np.ones(4),), axis=-1)


@pytest.mark.parametrize(("name", "twin"), [*((name, False) for name in NAMES), *((name, True) for name in TWINS)])
def test_sums_that_are_refused(name, twin):
    """An array for counts, or for the gradient of slopes, of the wrong type, shape or kind."""
    which = {"count_active": "out", "leaky_relu_slope_grad": "out"}.get(
        name, "counts" if name in COUNTS else "slope_out"
    )
    data = [np.ones((2, 3)) for _ in range(1 + (name in SLOPES))]
    right = np.zeros(3, np.int64) if name in COUNTS else np.zeros(3)

    def refused(error, bad, axis=-1):
        with pytest.raises(error, match=f"{name}_?: {which}"):
            call_refused(name, data, into=bad, twin=twin, axis=axis)

    wrong = ["int32", "uint64", "float64", "bool", "O", ">i8"] if name in COUNTS else ["int64", "bool", "m8[s]"]
    for dtype in wrong:
        refused(TypeError, np.zeros(3, dtype))
    for shape in ((), (2,), (4,), (1, 3), (3, 1), (2, 3)):
        refused(ValueError, np.zeros(shape, right.dtype))
    refused(ValueError, np.zeros(1, right.dtype), axis=None)
    frozen = right.copy()
    frozen.flags.writeable = False
    refused(ValueError, frozen)
    for bad in ([0, 0, 0], (0, 0, 0), 0, 0.0, "x", object(), {}, right[0]):
        refused(TypeError, bad)
    refused(TypeError, np.ma.array(right))
    if which == "counts":
        function = public(name, twin)
        with pytest.raises(TypeError, match=f"{name}_?: counts must be an array"):
            function(np.ones((2, 3)), None)


def test_read_only_inputs_are_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, numbers("float32", 1000).reshape(100, 10))
    x = np.load(path, mmap_mode="r")
    check("count_active", [np.asarray(x)])
    check("leaky_relu_with_counts", [np.asarray(x)])
    check("leaky_relu_backward_with_slope_grad", [np.asarray(np.nan_to_num(x)), np.asarray(x)])
    frozen = np.nan_to_num(np.asarray(x))
    frozen.flags.writeable = False
    check("leaky_relu_backward_with_slope_grad", [frozen, frozen])


def test_pandas_and_xarray_are_refused():
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    for name in NAMES:
        for value in (pandas.Series(X), pandas.DataFrame({"a": X}), xarray.DataArray(X)):
            with pytest.raises(
                TypeError, match=rf"{name}_?: (x|grad) is a (pandas|xarray)\.(Series|DataFrame|DataArray)"
            ):
                call(name, [value] * (1 + (name in SLOPES)), parameters(name), axis=-1, into=np.zeros(3, np.int64))
    with pytest.raises(TypeError, match=r"counts is a pandas\.Series"):
        fastrelu.relu_with_counts(X, pandas.Series(np.zeros(3, np.int64)))


@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_torch(name, dtype):
    torch = pytest.importorskip("torch")

    def tensor(array):
        return torch.from_numpy(array.astype("f")).to(getattr(torch, dtype))

    for shape, axis in (((0, 3), 1), ((5, 9), 1), ((70, 6), -1), ((4, 3, 5), 1), ((300,), None)):
        data = operands(name, dtype, shape)
        tensors, slope = [tensor(each) for each in data], parameters(name)
        sums = wanted_sums(name, data, axis, dtype)
        kind = torch.int64 if name in COUNTS else getattr(torch, dtype)
        into = torch.zeros(sums.shape, dtype=kind)
        out = torch.empty_like(tensors[0]) if name in TWINS else None
        version = into._version
        y, found = call(name, tensors, slope, axis=axis, out=out, into=into)
        assert found is into
        assert into._version > version  # autograd sees the write
        assert torch.equal(found, torch.from_numpy(sums) if name in COUNTS else tensor(sums))
        if name not in TWINS:
            found = call(name, tensors, slope, axis=axis)[1]
            assert type(found) is torch.Tensor
            assert torch.equal(found.reshape(into.shape), into)
            continue
        assert y is out
        wanted = tensor(wanted_y(name, data, slope, dtype))
        assert torch.equal(torch.nan_to_num(y), torch.nan_to_num(wanted))
        into.zero_()
        version = tensors[0]._version
        call(name, tensors, slope, axis=axis, into=into, twin=True)
        assert tensors[0]._version > version
        assert torch.equal(torch.nan_to_num(tensors[0]), torch.nan_to_num(wanted))
        assert torch.equal(into, torch.from_numpy(sums) if name in COUNTS else tensor(sums))


def test_torch_tensors_that_are_refused():
    torch = pytest.importorskip("torch")
    x, counts = torch.tensor([-1.0, 2.0, 0.0]), torch.zeros(3, dtype=torch.int64)
    for error, match, tensor, into in [
        (TypeError, "requires grad|detach", x.clone().requires_grad_(), counts),
        (TypeError, "pass arrays of one library", x, counts.numpy()),
        (TypeError, "pass arrays of one library", x.numpy(), counts),
        (TypeError, "counts must be of int64", x, counts.to(torch.int32)),
        (ValueError, "counts has shape", x, torch.zeros(4, dtype=torch.int64)),
        (ValueError, "shares memory", torch.zeros(3, dtype=torch.int64), None),
    ]:
        for function in (fastrelu.relu_with_counts, fastrelu.relu_with_counts_):
            with pytest.raises(error, match=match):
                function(tensor, tensor if into is None else into)
    assert x.tolist() == [-1.0, 2.0, 0.0]
    assert not counts.any()


def test_jax():
    jax = pytest.importorskip("jax")
    for name in NAMES:
        data = operands(name, "float32", (70, 6))
        sums = wanted_sums(name, data, 1, np.dtype("f"))
        arrays = [jax.numpy.array(each) for each in data]
        if name in (
            "relu_with_counts",
            "leaky_relu_with_counts",
        ):  # nothing can be added to an array that cannot change
            with pytest.raises(TypeError, match=r"immutable|pass arrays of one library"):
                call(name, arrays, parameters(name), axis=1)
            continue
        if name == "count_active":
            with pytest.raises(TypeError, match="jax_enable_x64"):
                fastrelu.count_active(*arrays)
            continue
        y, found = call(name, arrays, parameters(name), axis=1)
        assert isinstance(found, jax.Array)
        assert np.asarray(found).tolist() == sums.tolist()
        if y is not None:
            assert_same(np.asarray(y), wanted_y(name, data, parameters(name), np.dtype("f")))


@pytest.mark.parametrize("name", NAMES)
def test_explain_and_warmup(name):
    data = [np.zeros((2000, 1000), np.float32)] * (1 + (name in SLOPES))
    counts = [np.zeros(1000, np.int64)] if name in COUNTS and name != "count_active" else []
    for twin in (False, True)[: 1 + (name in TWINS)]:
        function = public(name, twin)
        found = fastrelu.explain(function, *data, *counts, axis=-1)
        assert found.target == "parallel"
        with fastrelu.configure(streaming_min_bytes=0):
            wanted = "streaming" if name in TWINS and not twin else "plain"
            assert fastrelu.explain(function, *data, *counts, axis=-1).store == wanted
        assert fastrelu.explain(function, *data, *counts, target="serial").target == "serial"
        with pytest.raises(np.exceptions.AxisError):
            fastrelu.explain(function, *data, *counts, axis=2)
        with pytest.raises(ValueError, match="target="):
            fastrelu.explain(function, *data, *counts, target="nowhere")
    assert not any(each.any() for each in counts)
    fastrelu.warmup([public(name)], ["float32"])


def test_many_threads_at_once():
    """64 of them, each with arrays of its own, all functions."""

    def work(seed):
        for shape, axis in (((90, 41), 1), ((3, 5, 70), 1), ((500,), None)):
            for name in NAMES:
                data = operands(name, "float32", shape, seed)
                slope = parameters(name)
                with np.errstate(all="ignore"):
                    terms = data[0] > 0 if name in COUNTS else np.where(data[-1] < 0, data[0] * data[-1], 0)
                others = tuple(k for k in range(len(shape)) if axis is None or k != axis)
                found = np.asarray(call(name, data, slope, axis=axis)[1])
                assert found.tolist() == np.asarray(terms.sum(others)).tolist()

    in_threads(64, work)


def test_dead_units():
    dead = fastrelu.DeadUnits(4)
    assert dead.share == 1.0
    assert dead.indices.tolist() == [0, 1, 2, 3]
    assert repr(dead) == "<DeadUnits: 4 of 4 dead>"
    dead.add(np.array([[1.0, -1.0, 0.0, np.nan], [-1.0, -1.0, -0.0, 2.0]]))
    assert dead.indices.tolist() == [1, 2]
    assert dead.share == 0.5
    y = fastrelu.relu_with_counts(np.array([[-1.0, -1.0, 3.0, 2.0]], np.float16), dead.counts)
    assert y.dtype == np.float16
    assert dead.counts.tolist() == [1, 0, 1, 2]
    for bad in (np.zeros((2, 3)), np.zeros((4, 5)), np.zeros(5)):
        with pytest.raises(ValueError, match="units along axis -1"):
            dead.add(bad)
    with pytest.raises(np.exceptions.AxisError):
        dead.add(1.0)
    with pytest.raises(TypeError):
        dead.add("x")
    assert dead.counts.tolist() == [1, 0, 1, 2]
    counts = dead.counts
    dead.reset()
    assert dead.counts is counts
    assert not counts.any()
    images = fastrelu.DeadUnits(np.int8(3), axis=1)
    images.add(np.stack([np.full((3, 5, 5), -1.0), np.stack([np.full((5, 5), k) for k in range(3)])]))
    assert images.counts.tolist() == [0, 25, 25]
    images.add(np.ones((0, 3, 5, 5)))
    assert images.indices.tolist() == [0]
    for error, bad in (
        (TypeError, 1.0),
        (TypeError, True),
        (TypeError, None),
        (TypeError, "3"),
        (ValueError, 0),
        (ValueError, -1),
    ):
        with pytest.raises(error, match="units must be"):
            fastrelu.DeadUnits(bad)
    torch = pytest.importorskip("torch")
    images.add(torch.ones(1, 3, 2, 2))
    assert images.counts.tolist() == [4, 29, 29]
