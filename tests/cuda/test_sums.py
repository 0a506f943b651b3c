"""Counts of active elements and gradients of slopes: exact sums over any axis of any layout, in device memory."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import launch_cache, libraries, recognise, settings, sums
from fastrelu._cuda.numba_cuda import SIMULATED
from fastrelu._operations import ROWS, UFUNCS

from ..helpers import per_unit
from . import fakes
from .data import FLOATS, MASKED, SUMMED, Guarded, specials, to_device, view_of
from .test_layouts import VIEWS

COUNTS = [name for name in SUMMED if ROWS[name].sums == "counts"]
SLOPES = [name for name in SUMMED if ROWS[name].sums != "counts"]
SHAPE = (5, 6, 7)
SLOPE = 0.3
simulated = pytest.mark.skipif(not SIMULATED, reason="these arrays are in host memory")


NAMES = ("BLOCK", "MAX_BLOCKS", "SUM_TERMS", "SUM_THREADS", "SUM_FOLD", "SUM_LOADS", "SUM_FOLD_LOADS")


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    """Use few threads of a few elements each, so that small arrays take several passes over their sums."""
    for name, value in zip(NAMES, (8, 2, 1, 60, 2, 2, 2), strict=True):
        monkeypatch.setattr(settings, name, value)


@pytest.fixture(params=[(4, 0, 2, 12, 3, 1, 3), (8, 2, 1, 60, 2, 2, 1), (4, 1, 3, 1, 2, 4, 2)], ids=str)
def launches(request, few_threads, monkeypatch):
    """Use several shapes of launches."""
    for name, value in zip(NAMES, request.param, strict=True):
        monkeypatch.setattr(settings, name, value)


def numbers(code, shape, seed=0):
    """Return multiples of 1/4 with zeros of both signs and NaN: sums of their products are exact."""
    rng = np.random.default_rng(seed)
    size = math.prod(shape)
    x = (rng.integers(-9, 10, size) / 4).astype(code)
    if np.dtype(code).kind not in "iub":
        x[rng.random(size) < 0.1] = -0.0
        x[rng.random(size) < 0.1] = np.nan
    return x.reshape(shape)


def plain(array):
    return np.asarray(array, "d" if np.dtype(array.dtype).kind not in "iub" else None).ravel().tolist()


def counts_of(x, axis):
    lists = per_unit(plain(x), x.shape, axis)
    return np.array([sum(v > 0 for v in unit) for unit in lists], np.int64).reshape(() if axis is None else -1)


def sums_of(grad, x, axis, code):
    """Return the sums of exact products, rounded to float64 and then to a type."""
    terms = [Fraction(g) * Fraction(v) if v < 0 else Fraction(0) for g, v in zip(plain(grad), plain(x), strict=True)]
    found = [float(sum(unit)) for unit in per_unit(terms, x.shape, axis)]
    return np.array(found).astype(code).reshape(() if axis is None else -1)


def case(name, code, shape, seed=0):
    x = numbers(code, shape, seed)
    if name in COUNTS:
        return [x]
    grad = np.nan_to_num(numbers(code, shape, seed + 1).astype("d")).astype(code)
    return [grad, x]


def values_of(name, data, slope=SLOPE, code=None):
    """Return the element-wise result."""
    operation = ROWS[name].like
    slopes = {"relu": [], "leaky_relu": [slope], "leaky_relu_backward": [slope, slope]}[operation]
    return expected(operation, (*data, *slopes), code or data[0].dtype)


def slopes_for(name, slope=SLOPE):
    return [slope] if "negative_slope" in ROWS[name].names else []


def to_host(array):
    return array.copy_to_host() if hasattr(array, "copy_to_host") else array


def run(name, data, axis, put=to_device, slope=SLOPE, views=None):
    """Call a function on device arrays of the data, and compare all that it returns or writes."""
    device = [put(each) for each in data] if views is None else views
    code, slopes = data[0].dtype, slopes_for(name, slope)
    if name in COUNTS:
        wanted = counts_of(data[0], axis)
        if name == "count_active":
            assert_same(to_host(fastrelu.count_active(*device, axis=axis)), wanted, f"{name} {axis}")
            return
        counts = put(np.full(wanted.shape, 7))
        y = getattr(fastrelu, name)(device[0], counts, *slopes, axis=axis)
        assert_same(to_host(counts), wanted + 7, f"{name} {axis}")
    else:
        found = getattr(fastrelu, name)(*device, *slopes, axis=axis)
        y, found = found if ROWS[name].writes_result else (None, found)
        assert_same(to_host(found), sums_of(*data, axis, code), f"{name} {axis}")
    if y is not None:
        assert_same(to_host(y), values_of(name, data, slope), f"{name} {axis}")


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3])
@pytest.mark.parametrize("name", SUMMED)
def test_axes(name, axis, launches):
    run(name, case(name, "f", SHAPE), axis)


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("name", SUMMED)
def test_types(name, code):
    for axis in (None, 1, -1):
        run(name, case(name, code, (4, 5, 3)), axis)


@pytest.mark.parametrize("code", "?bBhHiIlLqQ")
def test_integers(code):
    x = specials(code, 35).reshape(5, 7)
    for name in ("relu_with_counts", "count_active"):
        run(name, [x], -1)
    device, counts = to_device(x), to_device(np.zeros(7, np.int64))
    y = fastrelu.leaky_relu_with_counts(device, counts, SLOPE)
    assert_same(y.copy_to_host(), fastrelu.leaky_relu(x, SLOPE))
    assert_same(counts.copy_to_host(), counts_of(x, -1))
    if code != "?":
        found = fastrelu.leaky_relu_slope_grad(device, device).copy_to_host()
        negative = x[x < 0].astype("d")
        assert_same(found, np.array((negative * negative).sum()))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 65])
def test_sizes(n, launches):
    for name in SUMMED:
        run(name, case(name, "f", (n,)), None)
        run(name, case(name, "f", (n,)), 0)
        run(name, case(name, "f", (n, 3)), -1)


@pytest.fixture
def specs(monkeypatch):
    """Write down what is launched."""
    seen, prepared = [], launch_cache.prepared
    monkeypatch.setattr(launch_cache, "_plans", {})
    monkeypatch.setattr(launch_cache, "prepared", lambda spec: seen.append(spec) or prepared(spec))
    return seen


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("shape", [(4, 3, 16), (1, 2, 48), (9, 8)], ids=str)
def test_vectors_of_16_bytes(code, shape, launches, specs):
    """Whole vectors of a unit, or of neighbouring units; slopes are numbers, one per unit or one per element."""
    width = 16 // np.dtype(code).itemsize
    for name in SUMMED:
        data = case(name, code, shape)
        for axis in (None, *range(len(shape))):
            specs.clear()
            run(name, data, axis)
            assert max(specs[0].lanes) == width
            assert {each.lanes for each in specs[1:]} <= {(1,), (1, 1)}
            if "negative_slope" not in ROWS[name].names or axis is None:
                continue
            slope = np.linspace(-1, 1, shape[axis]).astype(code).reshape(-1, *(1,) * (len(shape) - 1 - axis))
            device = [to_device(each) for each in (*data, slope)]
            counts = [to_device(np.zeros(shape[axis], np.int64))] if name in COUNTS else []
            specs.clear()
            result = getattr(fastrelu, name)(*device[:-1], *counts, device[-1], axis=axis)
            assert max(specs[0].lanes) == width
            assert_same(to_host(result if counts else result[0]), values_of(name, data, slope))
            found, wanted = (counts[0], counts_of(*data, axis)) if counts else (result[1], sums_of(*data, axis, code))
            assert_same(to_host(found), wanted)


@pytest.mark.parametrize("start", [0, 1, 3, 4, 8])
def test_elements_where_there_are_no_vectors(start, specs):
    """Rows that do not end or begin at 16 bytes, an output that does not, and data in two types."""
    x = numbers("f", (8 * 12 + 16,))
    whole, memory = to_device(x), to_device(np.zeros(x.size + 8, "f"))
    rows, taken = whole[start : start + 96].reshape(8, 12), x[start : start + 96].reshape(8, 12)
    for first in (0, 1, 4):
        for axis in (None, 0, 1):
            counts = to_device(np.zeros((8, 12)[axis] if axis is not None else (), np.int64))
            out = memory[first : first + 96].reshape(8, 12)
            specs.clear()
            launch_cache._plans.clear()
            fastrelu.relu_with_counts(rows, counts, axis=axis, out=out)
            assert max(specs[0].lanes) == (1 if start % 4 or first % 4 else 4)
            assert_same(out.copy_to_host(), expected("relu", (taken,), "f"))
            assert_same(counts.copy_to_host(), counts_of(taken, axis))
    specs.clear()
    run("relu_with_counts", [numbers("f", (4, 6))], 1)
    run("relu_with_counts", [numbers("f", (4, 6))], 0)
    assert {each.lanes for each in specs} == {(1,)}


@pytest.mark.parametrize("view", VIEWS)
def test_views(view):
    take = VIEWS[view]
    for name in SUMMED:
        data = case(name, "f", (6, 5, 7))
        views = [view_of(to_device(each), take) for each in data]
        taken = [take(each) for each in data]
        for axis in (None, *range(taken[0].ndim)):
            run(name, taken, axis, views=views)


@pytest.mark.parametrize("shape", [(7,), (6, 1), (5, 1, 1), (1,), (), (5, 6, 7)])
def test_a_slope_per_unit(shape):
    slope = np.linspace(-2, 2, math.prod(shape), dtype="f").reshape(shape)
    for name in ("leaky_relu_with_counts", "leaky_relu_backward_with_slope_grad"):
        data = case(name, "f", SHAPE)
        device = [to_device(each) for each in (*data, slope)]
        counts = [to_device(np.zeros(6, np.int64))] if name in COUNTS else []
        result = getattr(fastrelu, name)(*device[:-1], *counts, device[-1], axis=1)
        wanted = values_of(name, data, slope)
        assert_same(to_host(result if counts else result[0]), wanted)
        found, wanted = (counts[0], counts_of(*data, 1)) if counts else (result[1], sums_of(*data, 1, "f"))
        assert_same(to_host(found), wanted)


def test_x_that_broadcasts_or_is_a_number():
    grad, x = case("leaky_relu_slope_grad", "f", (5, 7))
    row = np.nan_to_num(x[0])
    for other, device in ((row, to_device(row)), (np.float32(-2.5), -2.5), (np.float32(-2), np.float32(-2))):
        whole = np.broadcast_to(other, grad.shape)
        for axis in (None, 0, 1):
            found = fastrelu.leaky_relu_slope_grad(to_device(grad), device, axis=axis)
            assert_same(found.copy_to_host(), sums_of(grad, whole, axis, "f"))


@pytest.mark.parametrize("name", [name for name in SUMMED if ROWS[name].writes_result])
def test_twins_and_outputs_write_nothing_else(name, launches):
    data, slopes = case(name, "f", (37,)), slopes_for(name)
    guards = [Guarded(each, 1) for each in data]
    device = [guard.array for guard in guards]
    out, counts = Guarded(np.zeros(37, "f"), 2), Guarded(np.full(37, 3), 1)
    sums = Guarded(np.zeros(37), 1)
    for into in (out, guards[0]):
        if name in COUNTS:
            function = getattr(fastrelu, name if into is out else name + "_")
            more = {"out": out.array} if into is out else {}
            assert function(*device, counts.array, *slopes, **more) is into.array
        else:
            more = {"out": into.array, "slope_out": sums.array}
            found = getattr(fastrelu, name)(*device, *slopes, axis=0, **more)
            assert found[0] is into.array
            assert found[1] is sums.array
            assert_same(sums.array.copy_to_host(), sums_of(*data, 0, "d"))
        assert_same(into.array.copy_to_host(), values_of(name, data))
    if name in COUNTS:
        assert_same(counts.array.copy_to_host(), 3 + 2 * counts_of(*data, 0))
    else:
        twin = getattr(fastrelu, name + "_")(to_device(data[0]), device[1], *slopes)
        assert_same(twin.copy_to_host(), sums_of(*data, None, "f"))
    for guard in (*guards, out, counts, sums):
        guard.check()


@pytest.mark.parametrize("shift", [-3, 1, 5])
@pytest.mark.parametrize("name", [name for name in SUMMED if ROWS[name].writes_result])
def test_overlap(name, shift):
    data, slopes = case(name, "f", (40,)), slopes_for(name)
    memory = np.zeros(60, "f")
    memory[10:50] = data[0]
    device = to_device(memory)
    into, rest = device[10 + shift : 50 + shift], [to_device(each) for each in data[1:]]
    if name in COUNTS:
        counts = to_device(np.zeros((), np.int64))
        getattr(fastrelu, name)(device[10:50], counts, *slopes, axis=None, out=into)
        assert_same(counts.copy_to_host(), counts_of(*data, None))
    else:
        found = getattr(fastrelu, name)(device[10:50], *rest, *slopes, out=into)[1]
        assert_same(found.copy_to_host(), sums_of(*data, None, "f"))
    memory[10 + shift : 50 + shift] = values_of(name, data)
    assert_same(device.copy_to_host(), memory)


def test_results_with_gaps_and_of_other_types():
    grad, x = case("leaky_relu_slope_grad", "e", (9, 5))
    wide = to_device(np.full(15, 9.0))
    fastrelu.leaky_relu_slope_grad(to_device(grad), to_device(x), axis=1, out=wide[::3])
    memory = np.full(15, 9.0)
    memory[::3] = sums_of(grad, x, 1, "d")
    assert_same(wide.copy_to_host(), memory)
    counts = to_device(np.full(10, 4))
    y = to_device(np.zeros((9, 5)))
    assert fastrelu.relu_with_counts(to_device(x), counts[::2], out=y) is y
    assert_same(counts.copy_to_host()[::2], 4 + counts_of(x, -1))
    assert_same(y.copy_to_host(), expected("relu", (x,), "e").astype("d"))


@pytest.mark.parametrize("code", "fd")
def test_sums_are_rounded_once(code, launches):
    """Terms that cancel to what is lost when each is added."""
    n = 200
    big = np.finfo("d" if code == "d" else "f").max ** 0.5 / 4
    grad = np.ones(n, code)
    x = -np.linspace(1, 2, n).astype(code)
    grad[3], x[3], grad[150], x[150] = big, -1, -big, -1
    if code == "f":
        grad[3], grad[150] = 2**27, -(2**27)
    found = fastrelu.leaky_relu_slope_grad(to_device(grad), to_device(x))
    wanted = sums_of(grad, x, None, code)
    assert found.copy_to_host() == pytest.approx(wanted, rel=2 * np.finfo(code).eps if code == "d" else 1e-6)


@pytest.mark.parametrize("code", "efd")
@pytest.mark.parametrize("where", [[3], [3, 30], [3, 31]])
def test_sums_that_overflow(code, where):
    x, grad = np.full(40, -2, code), np.ones(40, code)
    grad[where] = np.inf
    if where[-1] == 31:
        grad[31] = -np.inf
    found = fastrelu.leaky_relu_slope_grad(to_device(grad), to_device(x)).copy_to_host()
    assert_same(found, np.array(np.nan if where[-1] == 31 else -np.inf, code))
    grad[...], x[...] = np.finfo(code).max, -1
    assert_same(fastrelu.leaky_relu_slope_grad(to_device(grad), to_device(x)).copy_to_host(), np.array(-np.inf, code))


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0), (3, 0, 2), (1, 1)])
@pytest.mark.parametrize("name", SUMMED)
def test_empty_and_0d(name, shape):
    for axis in (None, *range(len(shape))):
        run(name, case(name, "f", shape), axis)


def test_empty_counts_launch_nothing(monkeypatch):
    monkeypatch.setattr(sums, "launch", None)
    counts = to_device(np.full(4, 5))
    fastrelu.relu_with_counts(to_device(np.zeros((0, 4), "f")), counts)
    assert_same(counts.copy_to_host(), np.full(4, 5))
    assert fastrelu.count_active(to_device(np.zeros((3, 0), "f"))).shape == (0,)


def test_the_kernels_of_others_are_others():
    """All kinds are kept in one cache, by tuples whose first item is the name."""
    assert not {*SUMMED, "fold"} & {*UFUNCS, *MASKED}


def test_the_same_sums_on_any_grid(monkeypatch):
    rng = np.random.default_rng(5)
    grad, x = (to_device(rng.standard_normal((11, 13)).astype("f")) for _ in range(2))
    found = []
    for block, most in ((1, 0), (4, 1), (32, 0)):
        monkeypatch.setattr(settings, "BLOCK", block)
        monkeypatch.setattr(settings, "MAX_BLOCKS", most)
        out = to_device(np.zeros(13))
        found.append(fastrelu.leaky_relu_slope_grad(grad, x, axis=1, out=out).copy_to_host())
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


def test_stages(monkeypatch):
    for name, value in (("SUM_TERMS", 32), ("SUM_THREADS", 1 << 18), ("SUM_FOLD", 64)):
        monkeypatch.setattr(settings, name, value)
    assert sums.stages_of(1, 1 << 40) == [1 << 18, 1 << 12, 64, 1]
    assert sums.stages_of(1 << 20, 1 << 12) == sums.stages_of(7, 32) == sums.stages_of(0, 0) == [1]
    assert sums.stages_of(1000, 1000) == [32, 1]


def test_2_to_the_31_elements_need_no_32_bit_number(monkeypatch):
    seen = []
    monkeypatch.setattr(launch_cache, "_plans", {})
    monkeypatch.setattr(launch_cache, "prepared", lambda spec: lambda grid, *values: seen.append((spec, grid, values)))
    n = 1 << 36
    x = sums.View(None, 1 << 40, (n, 4), (16, 4), np.dtype("f"), 0, 0)
    counts = sums.View(None, 1 << 50, (4,), (8,), np.dtype("q"), 0, 0)
    scratch = sums.View(None, 1 << 45, (1 << 40,), (1,), np.dtype("B"), 0, 0)
    sums.launch("count_active", x.dtype, (x,), None, 1, counts, scratch, 0)
    spec, _, values = seen[0]
    slots = settings.SUM_THREADS
    assert (spec.across, values) == (True, (0, 0, 1 << 40, 0, 1 << 45, 0, 4, n, slots, 4, n, 16))


# ---- Whose arrays, in which order, and what is refused ---------------------------------------------------------------

X = numbers("f", SHAPE)
GRAD = np.nan_to_num(numbers("f", SHAPE, 1))


@simulated
def test_torch(torch, recorder):
    x, counts = fakes.Tensor(X.copy()), fakes.Tensor(np.zeros(7, np.int64))
    y = fastrelu.relu_with_counts(x, counts)
    assert (type(y), x.version, counts.version, y.version) == (fakes.Tensor, 0, 1, 0)
    assert_same(counts.array, counts_of(X, -1))
    assert fastrelu.relu_with_counts_(x, counts) is x
    assert (x.version, counts.version) == (1, 2)
    assert_same(counts.array, 2 * counts_of(X, -1))
    assert_same(fastrelu.count_active(fakes.Tensor(X), axis=None).array, counts_of(X, None))
    both = fastrelu.leaky_relu_backward_with_slope_grad(fakes.Tensor(GRAD), fakes.Tensor(X), SLOPE, axis=1)
    assert {type(each) for each in both} == {fakes.Tensor}
    assert_same(both[1].array, sums_of(GRAD, X, 1, "f"))
    with pytest.raises(TypeError, match="count_active: x requires grad"):
        fastrelu.count_active(fakes.Tensor(X, grad=True))


@simulated
def test_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fakes.cupy())
    monkeypatch.setattr(recognise, "_always", {})
    streams, launch = [], sums.launch
    monkeypatch.setattr(sums, "launch", lambda *given: (streams.append(given[-1]), launch(*given)))
    found = fastrelu.leaky_relu_slope_grad(fakes.CupyArray(GRAD), fakes.CupyArray(X), axis=0)
    assert type(found) is fakes.CupyArray
    assert_same(found.array, sums_of(GRAD, X, 0, "f"))
    assert streams == [66]


@simulated
def test_arrays_with_dlpack_only():
    x, counts = fakes.OnlyDLPack(X.copy()), fakes.OnlyDLPack(np.zeros(7, np.int64))
    assert fastrelu.relu_with_counts_(x, counts) is x
    assert_same(x.array, expected("relu", (X,), "f"))
    assert_same(counts.array, counts_of(X, -1))


@simulated
def test_jax(jax, recorder):
    y, slope = fastrelu.leaky_relu_backward_with_slope_grad(fakes.JaxArray(GRAD), fakes.JaxArray(X), SLOPE)
    assert_same(y.array, values_of("leaky_relu_backward_with_slope_grad", [GRAD, X]))
    assert_same(slope.array, sums_of(GRAD, X, None, "f"))
    # JAX's stream waits for ours, for each of both; what the launches use stays, their sums too
    assert [each for each in recorder.log if each[0] == "wait"] == [("wait", 7, 0)] * 2
    kept = [each[3][1:] for each in recorder.log if each[0] == "keep"]
    assert [len(views) for views in kept] == [3, 3]
    assert_same(fastrelu.count_active(fakes.JaxArray(X)).array, counts_of(X, -1))
    recorder.log.clear()
    empty = fakes.JaxArray(np.zeros((0, 4), "f"))
    y, slope = fastrelu.leaky_relu_backward_with_slope_grad(empty, empty, SLOPE, axis=1)
    assert (y.array.shape, slope.array.tolist()) == ((0, 4), [0] * 4)
    assert len([each for each in recorder.log if each[0] == "keep"]) == 1  # of the empty one nothing is in use
    with pytest.raises(TypeError, match="counts is a JAX array, which cannot be written to"):
        fastrelu.relu_with_counts(fakes.JaxArray(X), fakes.JaxArray(np.zeros(7, np.int64)))
    jax.numpy.empty = lambda shape, dtype, device: fakes.JaxArray(np.zeros(shape, "i" if dtype == np.int64 else dtype))
    with pytest.raises(TypeError, match="count_active: the result is of dtype int64, which JAX holds only with"):
        fastrelu.count_active(fakes.JaxArray(X))


@simulated
def test_work_is_ordered_after_producers_and_before_consumers(recorder):
    x, counts = fakes.Interface(X, stream=22), fakes.Interface(np.zeros(7, np.int64), stream=33)
    fastrelu.relu_with_counts(x, counts, out=fakes.Interface(np.zeros_like(X), stream=11))
    assert recorder.log == [("wait", 11, 33), ("wait", 11, 22), ("wait", 33, 11), ("wait", 22, 11)]


@simulated
def test_refusals_write_nothing():
    array, numbers = np.full(24, 5, "f"), np.full(24, 7)
    memory = np.zeros(24, np.int64)
    face = fakes.Interface
    x, out, counts = face(specials("f", 24)), face(array), face(numbers)
    count, one = face(memory[:1].reshape(())), face(array[3:4].reshape(()))
    with_counts, backward = fastrelu.relu_with_counts, fastrelu.leaky_relu_backward_with_slope_grad
    for error, match, call, arguments, kwargs in [
        (TypeError, "counts must be an array, not NoneType", with_counts, (x, None), {"out": out}),
        (TypeError, r"counts is a numpy.ndarray .* in host memory", with_counts, (x, numbers), {"out": out}),
        (TypeError, r"x is a numpy.ndarray .* in host memory", with_counts, (array, counts), {}),
        (TypeError, "x is a float", with_counts, (3.0, counts), {}),
        (ValueError, "axis 1 is out of bounds", with_counts, (x, counts), {"axis": 1}),
        (ValueError, "axis -2 is out of bounds", fastrelu.count_active, (x,), {"axis": -2}),
        (TypeError, "integer", with_counts, (x, counts), {"axis": 0.0}),
        (TypeError, "must be of int64, not a CUDA array of dtype int32", with_counts, (x, face(np.zeros(24, "i"))), {}),
        (TypeError, "a type that holds float32", fastrelu.leaky_relu_slope_grad, (x, x), {"out": count}),
        (ValueError, r"counts has shape \(24,\); it must have \(\)", with_counts, (x, counts), {"axis": None}),
        (ValueError, "read-only", with_counts, (x, face(numbers, readonly=True)), {"out": out}),
        (ValueError, "one in memory", with_counts, (x, face(np.broadcast_to(numbers[:1], 24))), {"out": out}),
        (ValueError, "not aligned", with_counts, (x, face(numbers, data=(numbers.ctypes.data + 4, False))), {}),
        (
            ValueError, "counts shares memory with another", with_counts, (face(memory.view("f")[:24]), face(memory)),
            {"out": out},
        ),
        (
            ValueError, "counts shares memory with another", with_counts, (x, face(memory)),
            {"out": face(memory.view("f")[24:])},
        ),
        (ValueError, "slope_out shares memory", backward, (x, x), {"out": out, "slope_out": one}),
        (ValueError, "out shares memory", fastrelu.count_active, (face(memory),), {"out": face(memory)}),
        (ValueError, "x of shape", backward, (x, face(np.zeros((2, 24), "f"))), {"out": out}),
        (TypeError, "target='serial'", with_counts, (x, counts), {"target": "serial"}),
        (TypeError, "does not cast", backward, (x, x), {"out": face(np.zeros(24, "i"))}),
        (TypeError, "in place", fastrelu.relu_with_counts_, ([1.0], counts), {}),
        (TypeError, "x is of dtype complex64", fastrelu.count_active, (face(np.zeros(24, "F")),), {}),
    ]:  # fmt: skip
        with pytest.raises(error, match=match):
            call(*arguments, **kwargs)
    assert (array == 5).all()
    assert (numbers == 7).all()
    assert not memory.any()


@simulated
@pytest.mark.parametrize(
    ("name", "rest", "kwargs"),
    [
        ("relu_with_counts", (np.zeros(4, np.int64),), {}),
        ("relu_with_counts", (np.zeros(5, np.int64),), {"axis": 2}),
        ("relu_with_counts", (np.zeros(5, np.int64),), {"out": np.zeros(5, "f")}),
        ("count_active", (), {"out": np.zeros((), np.int64)}),
        ("leaky_relu_slope_grad", (np.zeros((7, 5), "f"),), {"out": np.zeros(5, "f")}),
        ("leaky_relu_slope_grad", (np.zeros((2, 7, 5), "f"),), {}),
        ("leaky_relu_backward_with_slope_grad", (np.zeros((7, 5), "f"),), {"slope_out": np.zeros(1, "f")}),
    ],
)
def test_the_words_are_those_of_host_arrays(name, rest, kwargs):
    x = numbers("f", (7, 5))
    with pytest.raises((TypeError, ValueError)) as on_host:
        getattr(fastrelu, name)(x, *rest, **kwargs)
    arrays = [fakes.Interface(each) for each in rest]
    kwargs = {key: fakes.Interface(each) if isinstance(each, np.ndarray) else each for key, each in kwargs.items()}
    with pytest.raises(on_host.type) as found:
        getattr(fastrelu, name)(fakes.Interface(x), *arrays, **kwargs)
    assert str(found.value) == str(on_host.value)


def test_explain_runs_nothing_and_refuses_what_the_call_does(monkeypatch):
    monkeypatch.setattr(sums, "launch", None)
    monkeypatch.setattr(libraries.Library, "empty", None)
    x = to_device(X)
    assert fastrelu.explain(fastrelu.count_active, x).target == "cuda"
    with pytest.raises(ValueError, match="out of bounds"):
        fastrelu.explain(fastrelu.count_active, x, axis=3)


@pytest.mark.parametrize("staging", [1, 100, 1 << 20])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("name", SUMMED)
def test_host_arrays(name, axis, staging, monkeypatch):
    """In pieces of rows, however few; bits of the output, exact counts, and sums of exact terms as on the CPU."""
    monkeypatch.setattr(settings, "STAGING_BYTES", staging)
    for data in (numbers("f", (5, 6, 7)), numbers("d", (4, 3)).T, numbers("e", (3, 4, 2))[::-1, :, ::2]):
        if axis == 1 and data.ndim < 2:
            continue
        arguments = [np.where(np.isnan(data), 1, data).astype(data.dtype)] if name in SLOPES else []
        arguments.append(data)
        slopes = [0.5] if "negative_slope" in ROWS[name].names else []
        results = []
        for target in ("cuda", "serial"):
            extent = () if axis is None else (data.shape[axis],)
            counts = [np.ones(extent, np.int64)] if "with_counts" in name else []
            result = getattr(fastrelu, name)(*arguments, *counts, *slopes, axis=axis, target=target)
            results.append([*(result if isinstance(result, tuple) else [result]), *counts])
        for ours, wanted in zip(*results, strict=True):
            assert_same(np.asarray(ours), np.asarray(wanted), name)


def test_host_arrays_in_place_and_empty(monkeypatch):
    monkeypatch.setattr(settings, "STAGING_BYTES", 64)
    x, counts = numbers("f", (9, 5)), np.zeros(5, np.int64)
    wanted = fastrelu.relu(x)
    assert fastrelu.relu_with_counts_(x, counts, target="cuda") is x
    assert_same(x, wanted)
    assert counts.tolist() == np.count_nonzero(wanted > 0, axis=0).tolist()
    assert fastrelu.count_active(np.zeros((0, 3), "f"), target="cuda").tolist() == [0, 0, 0]
    assert fastrelu.count_active(np.float32(2), axis=None, target="cuda") == 1
    with fastrelu.configure(target="cuda"):
        assert fastrelu.explain(fastrelu.count_active, x).target == "cuda"
