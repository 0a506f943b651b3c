"""Shapes, strides, broadcasting, conversion and overlap give what NumPy gives."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import elementwise, executor, launch_cache
from fastrelu._runtime import jobs

from .data import FLOATS, Guarded, specials, to_device, view_of

pytestmark = pytest.mark.usefixtures("tiny_blocks")
BASE = specials("f", 6 * 5 * 7).reshape(6, 5, 7)
VIEWS = {
    "whole": lambda a: a,
    "columns": lambda a: a[:, :, ::2],
    "rows": lambda a: a[::2],
    "middle": lambda a: a[:, 1:3],
    "transposed": lambda a: a.T,
    "swapped": lambda a: a.transpose((1, 0, 2)),
    "one": lambda a: a[2:3, :1, 1:2],
}


@pytest.mark.parametrize("view", VIEWS)
def test_views(view):
    take = VIEWS[view]
    result = executor.call("leaky_relu", (view_of(to_device(BASE), take), 0.3), None, None, {})
    assert_same(result.copy_to_host(), expected("leaky_relu", (take(BASE), 0.3), "f"))


@pytest.mark.parametrize("view", VIEWS)
def test_into_views_and_in_place(view):
    take = VIEWS[view]
    out = to_device(np.full_like(BASE, 9))
    executor.call("relu", (view_of(to_device(BASE), take),), view_of(out, take), None, {})
    host = np.full_like(BASE, 9)
    take(host)[...] = expected("relu", (take(BASE),), "f")
    assert_same(out.copy_to_host(), host)
    x = to_device(BASE)
    host = BASE.copy()
    take(host)[...] = expected("leaky_relu", (take(BASE), -0.5), "f")
    executor.call("leaky_relu", (view_of(x, take), -0.5), view_of(x, take), None, {})
    assert_same(x.copy_to_host(), host)


@pytest.fixture
def specs(monkeypatch):
    """Write down what kernels are planned."""
    seen, prepared = [], launch_cache.prepared
    monkeypatch.setattr(launch_cache, "prepared", lambda spec: seen.append(spec) or prepared(spec))
    monkeypatch.setattr(launch_cache, "_plans", {})
    return seen


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_rows_of_whole_vectors(code, rows, specs):
    """An access is 16 bytes, and one element of a slope per row; single elements where a row begins elsewhere."""
    width = 16 // np.dtype(code).itemsize
    columns = 5 * width
    part = (slice(None), slice(None), slice(width, width + columns))
    x = specials(code, 2 * rows * 8 * width).reshape(2, rows, 8 * width)
    slope = np.linspace(-1, 1, rows).astype(code).reshape(rows, 1)
    device = to_device(x)
    for slopes, host, lanes in (
        (0.3, 0.3, (width,)), (to_device(slope), slope, (width, 1)), (device[part], x[part], (width, width)),
    ):  # fmt: skip
        specs.clear()
        found = executor.call("leaky_relu", (device[part], slopes), None, None, {})
        assert_same(found.copy_to_host(), expected("leaky_relu", (x[part], host), code))
        assert [spec.lanes for spec in specs] == [lanes]
    shifted = (slice(None), slice(None), slice(1, 1 + columns))
    specs.clear()
    found = executor.call("relu", (device[shifted],), None, None, {})
    assert_same(found.copy_to_host(), expected("relu", (x[shifted],), code))
    assert [spec.lanes for spec in specs] == [(1,)]


def test_negative_strides():
    result = executor.call("relu", (view_of(to_device(BASE), lambda a: a[::-1, :, ::-2]),), None, None, {})
    assert_same(result.copy_to_host(), expected("relu", (BASE[::-1, :, ::-2],), "f"))


@pytest.mark.parametrize("shape", [(7,), (5, 1), (6, 1, 1), (1,), (), (1, 5, 7), (6, 5, 7)])
def test_a_slope_per_channel(shape):
    slope = np.linspace(-2, 2, int(np.prod(shape, dtype=int)), dtype="f").reshape(shape)
    result = executor.call("leaky_relu", (to_device(BASE), to_device(slope)), None, None, {})
    assert_same(result.copy_to_host(), expected("leaky_relu", (BASE, slope), "f"))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 1), (5, 2), (3, 4), (2, 9), (7, 37)])
def test_rows_and_columns_that_fill_no_block_write_nothing_else(rows, columns):
    x = specials("f", rows * columns).reshape(rows, columns)
    out = Guarded(np.zeros(x.size, "f"), 1)
    slope = np.linspace(-1, 1, columns, dtype="f")
    executor.call("leaky_relu", (to_device(x), to_device(slope)), out.array.reshape(rows, columns), None, {})
    assert_same(out.array.copy_to_host(), expected("leaky_relu", (x, slope), "f").ravel())
    out.check()


@pytest.mark.parametrize("order", ["C", "F"])
def test_contiguous_axes_become_one(order, monkeypatch):
    whole, plan = [], elementwise.plan
    monkeypatch.setattr(elementwise, "plan", lambda *given: (whole.append(each) or each for each in plan(*given)))
    monkeypatch.setattr(launch_cache, "_plans", {})
    executor.call("relu", (to_device(np.asarray(BASE, order=order)),), None, None, {})
    assert [(spec.axes, values[2]) for spec, _, values in whole] == [(0, BASE.size)]


def test_both_sides_broadcast():
    grad, x = BASE[:, :1], BASE[:1, :, 2:3]
    device = to_device(grad.copy()), to_device(x.copy())
    result = executor.call("relu_backward", (*device, 1.0), None, None, {})
    assert_same(result.copy_to_host(), expected("relu_backward", (grad, x, 1.0), "f"))


def test_more_axes_than_a_kernel_has():
    x = specials("f", 3**8).reshape((3,) * 8)[(slice(None, None, 2),) * 8]
    whole = to_device(np.ascontiguousarray(np.pad(x, [(0, 1)] * 8)))
    result = executor.call("relu", (whole[(slice(0, 2),) * 8],), None, None, {})
    assert_same(result.copy_to_host(), expected("relu", (x,), "f"))


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
def test_empty_and_0d(shape, monkeypatch):
    launched = []
    if 0 in shape:
        monkeypatch.setattr(elementwise, "launch", lambda *_: launched.append(1))
    x = np.full(shape, -1, "f")
    result = executor.call("relu", (to_device(x),), None, None, {})
    assert result.shape == shape
    assert not launched
    assert_same(result.copy_to_host(), np.zeros(shape, "f"))


@pytest.mark.parametrize(("code", "other"), [("e", "f"), ("f", "d"), ("e", "d"), ("d", "e")])
def test_mixed_precision(code, other):
    x, slope = specials(code, 33), specials(other, 33, 5)
    wide = np.result_type(code, other)
    result = executor.call("leaky_relu", (to_device(x), to_device(slope)), None, None, {})
    with np.errstate(all="ignore"):
        assert_same(result.copy_to_host(), expected("leaky_relu", (x, slope), wide))
        into = to_device(np.zeros(33, "e"))
        executor.call("relu", (to_device(x),), into, None, {})
        assert_same(into.copy_to_host(), expected("relu", (x,), code).astype("e"))


@pytest.mark.parametrize("code", "?bBhHiIqQ")
def test_integers_are_promoted(code):
    from fastrelu import ufuncs

    x = specials(code, 21)
    result = executor.call("leaky_relu", (to_device(x), 0.3), None, None, {})
    wanted = ufuncs.leaky_relu(x, 0.3)
    assert_same(result.copy_to_host(), wanted)
    wide = to_device(np.zeros(21, "d"))
    executor.call("relu", (to_device(x),), wide, None, {})
    assert_same(wide.copy_to_host(), np.maximum(x, 0).astype("d"))


@pytest.mark.parametrize("shift", [-5, -4, -1, 1, 3, 4, 8])
def test_overlap(shift):
    host = specials("f", 60)
    source, target = slice(10, 50), slice(10 + shift, 50 + shift)
    device = to_device(host)
    executor.call("leaky_relu", (device[source], 0.3), device[target], None, {})
    host[target] = expected("leaky_relu", (host[source], 0.3), "f")
    assert_same(device.copy_to_host(), host)


def test_overlap_with_a_transpose():
    host = specials("f", 49).reshape(7, 7)
    device = to_device(host)
    executor.call("relu", (view_of(device, np.transpose),), device, None, {})
    assert_same(device.copy_to_host(), expected("relu", (host.T,), "f"))


def test_fortran_order_stays():
    x = np.asfortranarray(BASE)
    result = executor.call("relu", (to_device(x),), None, None, {})
    assert result.is_f_contiguous()
    assert_same(result.copy_to_host(), expected("relu", (BASE,), "f"))


@pytest.mark.parametrize("code", "?bef")
@pytest.mark.parametrize("shape", [(6, 5, 7), (4, 32), (64,)], ids=str)
def test_where(code, shape):
    """Of whole vectors too, and of bool, which is the type of the mask."""
    x = specials(code, int(np.prod(shape))).reshape(shape)
    mask = np.resize([True, False, True, True, False], shape)
    before = np.resize(np.array([0, 1, 1, 0], code), shape)
    out = to_device(before)
    executor.call("relu", (to_device(x),), out, None, {"where": to_device(mask)})
    assert_same(out.copy_to_host(), np.where(mask, expected("relu", (x,), code), before))


@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_coalescing_keeps_every_element(data):
    shape = data.draw(st.lists(st.integers(1, 4), max_size=5).map(tuple))
    base = np.arange(4 ** len(shape)).reshape((4,) * len(shape))
    views = []
    for _ in range(2):
        order = data.draw(st.permutations(range(len(shape))))
        back = data.draw(st.lists(st.sampled_from([1, -1]), min_size=len(shape), max_size=len(shape)))
        view = base.transpose(order)[tuple(slice(0, n) for n in shape)]
        views.append(view[tuple(slice(None, None, step) for step in back)])
    extents, steps = jobs.coalesce(shape, [view.strides for view in views])

    def places(extents, strides):
        index = np.indices(extents).reshape(len(extents), -1) if extents else np.zeros((0, 1), int)
        return [tuple(sum(i * s for i, s in zip(at, row, strict=True)) for row in strides) for at in index.T]

    assert sorted(places(extents, steps)) == sorted(places(shape, [view.strides for view in views]))
    assert all(extent != 1 for extent in extents)
