"""Any layout in, any layout out, and every kind of overlap, as NumPy has it."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrelu
from fastrelu import ufuncs
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._operations import UFUNCS

from .helpers import (
    ALL_FLOATS,
    BINARY,
    FLOATS,
    INTEGERS,
    OPERATIONS,
    PARAMETERS,
    TARGETS,
    at_edge,
    guarded_page,
    pairs,
    public,
    specials,
    spread,
)


@pytest.fixture(autouse=True)
def _drivers_for_all(monkeypatch):
    """Send small arrays through the drivers for large ones too."""
    monkeypatch.setattr(fastrelu._call.dispatch, "LARGE_BYTES", 1)
    monkeypatch.setattr(fastrelu._call.dispatch, "CONVERT_BYTES", 1)
    with fastrelu.configure(parallel_min_bytes=64):
        yield


def operands(name, dtype, shape):
    """Return data operands of a shape, filled with special values."""
    n = int(np.prod(shape))
    return [spread(column, n).reshape(shape) for column in pairs(name, dtype)]


def strided(array, how):
    """Return an array of the same values in another memory layout."""
    if how == "C":
        return np.ascontiguousarray(array)
    if how == "F":
        return np.asfortranarray(array)
    if how == "every other row":
        big = np.zeros((2 * array.shape[0], *array.shape[1:]), array.dtype)
        big[::2] = array
        return big[::2]
    if how == "every third column":
        big = np.zeros((*array.shape[:-1], 3 * array.shape[-1]), array.dtype)
        big[..., ::3] = array
        return big[..., ::3]
    if how == "negative":
        return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    if how == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        view = raw[1:].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    if how == "byte-swapped":
        return array.astype(array.dtype.newbyteorder("S"))
    if how == "read-only":
        copy = array.copy()
        copy.flags.writeable = False
        return copy
    raise AssertionError(how)


LAYOUTS = ["C", "F", "every other row", "every third column", "negative", "unaligned", "byte-swapped", "read-only"]
SHAPES = [(1, 1), (3, 5), (2, 70), (70, 2), (65, 67), (130, 131)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("how", LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_layouts(name, how, target, stores):
    for dtype in FLOATS:
        parameters = PARAMETERS[name][0]
        for shape in SHAPES:
            plain = operands(name, dtype, shape)
            wanted = expected(name, [*plain, *parameters], dtype)
            data = [strided(array, how) for array in plain]
            numpy_layout = np.copysign(data[0], data[-1])
            result = public(name)(*data, *parameters, target=target)
            assert_same(result, wanted, f"{shape} {dtype}")
            assert result.strides == numpy_layout.strides
            again = public(name)(*(strided(array, how) for array in plain), *parameters, target=target)
            assert_same(again, wanted, f"{shape} {dtype}, the second call")
            assert again.strides == numpy_layout.strides
            assert_same(public(name)(*plain, *parameters, target=target), wanted)
            if how != "read-only":
                for other in ("C", "F", "negative", "negative"):
                    out = strided(np.full(shape, 42, dtype), other)
                    assert public(name)(*data, *parameters, out=out, target=target) is out
                    assert_same(out, wanted, f"{shape} {dtype} into {other}")
                first = strided(plain[0], how)
                assert public(name, twin=True)(first, *data[1:], *parameters, target=target) is first
                assert_same(first.astype(dtype), wanted)
            for array, copy in zip(data, plain, strict=True):
                assert_same(array.astype(dtype), copy, "an input was modified")


@pytest.fixture
def unplanned(monkeypatch):
    """Count the calls that the driver plans anew."""
    planned = []
    iterate = fastrelu._call.large.iterate
    monkeypatch.setattr(fastrelu._call.large, "iterate", lambda *given: planned.append(given) or iterate(*given))
    fastrelu._call.job_cache._known.clear()
    return planned


@pytest.mark.parametrize("how", ["every other row", "every third column", "negative", "F"])
def test_jobs_are_planned_once(how, unplanned):
    shape = (33, 70)

    def call(seed, out=None):
        grad, x = (
            strided(np.random.default_rng(seed + k).standard_normal(shape, np.float32), layout)
            for k, layout in enumerate(("C", how))
        )
        result = fastrelu.leaky_relu_backward(grad, x, 0.5 + seed, out=out, target="parallel")
        assert_same(result, expected("leaky_relu_backward", [grad, x, 0.5 + seed, 0.5 + seed], "float32"))
        return result

    kept = [call(seed) for seed in range(4)]
    assert len(unplanned) == 1
    assert len({array.ctypes.data for array in kept}) == 4
    out = strided(np.zeros(shape, np.float32), how)
    assert all(call(seed, out) is out for seed in range(4))
    assert len(unplanned) == 2
    with fastrelu.configure(parallel_min_bytes=65):  # another choice may be another job
        call(9, out)
    assert len(unplanned) == 3


def test_output_that_overlaps_itself_is_never_planned(unplanned):
    """NumPy computes into a copy, and writes that back in its own order."""
    for _ in range(2):
        base = np.arange(-50, 50, dtype=np.float32)
        windows = np.lib.stride_tricks.as_strided(base, (40, 60), (4, 4))
        fastrelu.leaky_relu_(windows, 2.0)
        assert_same(base, np.array([*range(-100, 0, 2), *range(50)], np.float32))
    assert not unplanned


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("strides", "size"),
    [((0, 4), 700), ((4, 0), 500), ((0, 0), 1), ((4, 4), 1200), ((0, 2), 700), ((1400, 2), 175_000)],
    ids=["rows", "columns", "one", "windows", "halves of rows", "halves"],
)
def test_output_over_itself(strides, size, target):
    """NumPy's result, that of whichever element it writes last: where all are positive, they are passed on."""
    from numpy._core.umath import clip  # the ufunc

    x = np.random.default_rng(0).random((500, 700), np.float32) + 1
    calls = {
        "relu": (np.positive, (x,)), "leaky_relu": (np.copysign, (x, np.float32(0.5))),
        "relu_backward": (clip, (x, np.float32(0.5), np.float32(9))),
    }  # fmt: skip

    def written(function, operands, **options):
        memory = np.zeros(size + 1, np.float32)
        function(*operands, out=np.lib.stride_tricks.as_strided(memory, x.shape, strides), **options)
        return memory

    for name, (peer, operands) in calls.items():
        for layout in (lambda a: a, np.asfortranarray, lambda a: a[::-1, ::-1]):
            laid = [layout(value) if np.ndim(value) else value for value in operands]
            wanted = written(peer, laid)
            ours = [laid[0], layout(np.ones_like(x)), np.float32(0)] if name == "relu_backward" else laid
            for _ in range(2):
                with fastrelu.configure(parallel_min_bytes=0, streaming_min_bytes=64):
                    assert_same(written(public(name), ours, target=target), wanted)
                    assert_same(written(getattr(ufuncs, name), ours), wanted)


def test_known_jobs_never_skip_a_check(unplanned):
    x = np.random.default_rng(0).standard_normal((40, 60), np.float32)[:, ::2]
    out = np.zeros((40, 30), np.float32)
    wanted = expected("relu", [x], "float32")
    fastrelu.relu(x, out=out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        fastrelu.relu(x, out=out)
    fastrelu.relu(x, out=np.zeros((40, 60), np.float32)[:, ::2])
    big = np.zeros((41, 60), np.float32)
    one, other = big[:40, ::2], big[1:, ::2]
    one[...] = x
    fastrelu.relu(one, out=other)  # the same layouts as a call before, but they overlap
    assert_same(other, wanted)
    with pytest.raises(ValueError, match="target"):
        fastrelu.relu(x, out=np.zeros_like(wanted), target="nowhere")
    with pytest.raises(TypeError):
        fastrelu.relu(x, out=np.zeros((40, 30), np.int32))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [name for name, row in UFUNCS.items() if row.parameters])
def test_parameters_broadcast(name, target, stores):
    shape = (6, 7, 80)
    for dtype in FLOATS:
        data = operands(name, dtype, shape)
        count = len(PARAMETERS[name][0])
        for form in [(80,), (7, 1), (6, 1, 1), (1, 1, 1), (6, 7, 80), (1, 7, 80)]:
            slope = (np.arange(np.prod(form)).reshape(form) / 8 - 2).astype(dtype)
            wanted = expected(name, [*data, *[slope] * count], dtype)
            assert_same(public(name)(*data, *[slope] * count, target=target), wanted, str(form))
            first = data[0].copy()
            public(name, twin=True)(first, *data[1:], *[slope] * count, target=target)
            assert_same(first, wanted)
            if count == 2:
                mixed = expected(name, [*data, slope, 0.25], dtype)
                assert_same(public(name)(*data, slope, 0.25, target=target), mixed)


@pytest.mark.parametrize("target", TARGETS)
def test_data_operands_broadcast(target):
    grad, x = operands("relu_backward", "float32", (40, 50))
    for g, v in [(grad, x[:1]), (grad[:, :1], x), (grad[:1], x[:, :1]), (grad[0], x), (grad, x[0, 0])]:
        assert_same(fastrelu.relu_backward(g, v, target=target), expected("relu_backward", [g, v, 0.0], "float32"))


def test_zero_dimensional_and_empty():
    for dtype in ALL_FLOATS:
        for value in specials(dtype):
            result = fastrelu.relu(np.array(value))
            assert type(result) is np.dtype(dtype).type
            assert_same(result, expected("relu", [value], dtype))
            array = np.array(value)
            assert fastrelu.relu_(array) is array
            assert_same(array, expected("relu", [value], dtype))
            assert type(fastrelu.relu(np.dtype(dtype).type(value))) is np.dtype(dtype).type
        for shape in [(0,), (3, 0), (0, 5, 2)]:
            empty = np.empty(shape, dtype)
            for target in TARGETS:
                assert fastrelu.leaky_relu(empty, target=target).shape == shape
                assert fastrelu.leaky_relu_(empty, target=target) is empty


def test_scalars_and_lists_give_what_ufuncs_give():
    assert type(fastrelu.relu(-3)) is np.int64
    assert type(fastrelu.relu(-3.0)) is np.float64
    assert type(fastrelu.relu(True)) is np.bool_
    assert type(fastrelu.leaky_relu(np.float32(-1))) is np.float32
    assert type(fastrelu.leaky_relu(np.float32(-1), np.float64(0.1))) is np.float64
    np.testing.assert_array_equal(fastrelu.relu([[-1, 2], [3, -4]]), [[0, 2], [3, 0]])
    assert_same(fastrelu.leaky_relu([-1.0, 2.0], [0.5, 0.5]), np.array([-0.5, 2.0]))


@pytest.mark.parametrize("target", TARGETS)
def test_output_of_another_type(target):
    x = strided(np.clip(operands("relu", "float32", (33, 70))[0], -60000, 60000), "every other row")  # within float16
    for source, to in [(x, "float16"), (x, "float64"), (x.astype("float16"), "float32")]:
        with np.errstate(all="ignore"):
            wanted = np.copysign(np.maximum(source, 0), 1).astype(to)
        result = fastrelu.relu(source, out=np.empty(x.shape, to), target=target, casting="same_kind")
        again = fastrelu.relu(source, out=np.empty(x.shape, to), target=target)
        assert_same(np.abs(result), wanted)
        assert_same(np.abs(again), wanted)


def test_memory_mapped(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, spread(specials("float32"), 5000))
    mapped = np.load(path, mmap_mode="r")
    assert_same(np.asarray(fastrelu.relu(mapped)), expected("relu", [np.asarray(mapped)], "float32"))
    writable = np.load(path, mmap_mode="r+")
    assert fastrelu.relu_(writable) is writable
    writable.flush()
    assert_same(np.load(path), expected("relu", [np.asarray(mapped)], "float32"))
    with pytest.raises(ValueError, match="read-only"):
        fastrelu.relu_(mapped)


@st.composite
def _windows(draw):
    """Return an operation, a type and the windows that its operands have on one buffer."""
    name = draw(st.sampled_from(OPERATIONS))
    count = 3 if name in BINARY else 2
    length = draw(st.sampled_from([1, 2, 5, 16, 33, 64, 130]))
    windows = []
    for _ in range(count):
        step = draw(st.sampled_from([-2, -1, 1, 1, 2, 3]))
        span = (length - 1) * abs(step) + 1
        windows.append((draw(st.integers(0, 420 - span)), step, span))
    return name, draw(st.sampled_from(ALL_FLOATS)), windows


@settings(max_examples=400, deadline=None)
@given(_windows(), st.sampled_from(TARGETS), st.booleans())
def test_overlap_of_every_kind(windows, target, streaming):
    """`out`, `x` and `grad` are windows on one buffer: the result is that of copies."""
    name, dtype, places = windows
    buffer = spread(specials(dtype), 420)

    def window(base, place):
        start, step, span = place
        view = base[start : start + span]
        return view[::step]

    copies = [window(buffer, place).copy() for place in places[:-1]]
    parameters = PARAMETERS[name][0]
    wanted = buffer.copy()
    window(wanted, places[-1])[...] = expected(name, [*copies, *parameters], dtype)
    with fastrelu.configure(streaming_min_bytes=0 if streaming else 1 << 60):
        data = [window(buffer, place) for place in places[:-1]]
        public(name)(*data, *parameters, out=window(buffer, places[-1]), target=target)
    assert_same(buffer, wanted, f"{name} {places}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_overlap_in_two_dimensions(name, target, stores):
    """An output that is its input transposed, shifted or turned, through the driver for large arrays."""
    views = {
        "transposed": (lambda b: b[:64, :64], lambda b: b[:64, :64].T),
        "shifted": (lambda b: b[:64, :60], lambda b: b[1:65, 3:63]),
        "turned": (lambda b: b[:64, :64], lambda b: b[63::-1, 63::-1]),
        "rows": (lambda b: b[:64:2, :], lambda b: b[1:65:2, :]),
        "same": (lambda b: b[:64:2, ::2], lambda b: b[:64:2, ::2]),
    }
    parameters = PARAMETERS[name][0]
    for dtype in FLOATS:
        for label, (source, destination) in views.items():
            buffers = operands(name, dtype, (80, 80))
            wanted = buffers[0].copy()
            destination(wanted)[...] = expected(name, [*(source(b).copy() for b in buffers), *parameters], dtype)
            public(name)(*(source(b) for b in buffers), *parameters, out=destination(buffers[0]), target=target)
            assert_same(buffers[0], wanted, f"{label} {dtype}")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_view(data):
    """Views of any shape, order, sign and step, in and out."""
    dtype = data.draw(st.sampled_from(ALL_FLOATS))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9))
    base = spread(specials(dtype), int(np.prod(shape))).reshape(shape)
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = np.transpose(base)[::-1] if data.draw(st.booleans()) else base[index]
    target = data.draw(st.sampled_from(TARGETS))
    wanted = expected("leaky_relu", [x, 0.3], dtype)
    result = fastrelu.leaky_relu(x, 0.3, target=target)
    assert_same(result, wanted)
    if isinstance(x, np.ndarray) and x.size:
        out = np.empty_like(np.asarray(x))[...]
        fastrelu.leaky_relu(x, 0.3, out=out, target=target)
        assert_same(out, wanted)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whether_elements_share_memory_is_known(data):
    """Compared with the bytes of every element, for strides of every kind."""
    sides = st.lists(st.integers(0, 4), max_size=4)
    shape = tuple(data.draw(sides))
    strides = tuple(data.draw(st.lists(st.integers(-12, 12), min_size=len(shape), max_size=len(shape))))
    size = data.draw(st.sampled_from([1, 2, 4]))
    array = np.lib.stride_tricks.as_strided(np.zeros(1, f"u{size}"), shape, strides)
    places = [sum(k * step for k, step in zip(index, strides, strict=True)) for index in np.ndindex(shape)]
    occupied = [place + byte for place in places for byte in range(size)]
    assert fastrelu._arrays.classify.disjoint(array) == (len(set(occupied)) == len(occupied))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_where(data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=20))
    mask = data.draw(hnp.arrays(np.bool_, shape))
    x = spread(specials("float32"), int(np.prod(shape))).reshape(shape)
    target = data.draw(st.sampled_from(TARGETS))
    out = np.full(shape, 42, np.float32)
    fastrelu.relu(x, out=out, where=mask, target=target)
    assert_same(out, np.where(mask, expected("relu", [x], "float32"), np.float32(42)))
    fastrelu.leaky_relu_(x, 0.5, where=mask, target=target)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_byte_outside_is_touched(name):
    """Pages without access right before and after the data: a kernel that reads or writes there dies."""
    areas = [guarded_page() for _ in range(3)]
    for dtype in (*ALL_FLOATS, *(INTEGERS if name == "relu" else ())):
        columns = pairs(name, dtype)
        for n in range(0, 301, 1 if dtype == "float32" else 7):
            for at_end in (False, True):
                views = [at_edge(area, (n,), dtype, at_end) for area in areas]
                arguments = views[: len(columns)]
                for view, column in zip(arguments, columns, strict=True):
                    view[...] = spread(column, n)
                for streaming in (0, 1 << 60):
                    with fastrelu.configure(streaming_min_bytes=streaming):
                        for target in ("serial", "parallel"):
                            public(name)(*arguments, *PARAMETERS[name][0], out=views[2], target=target)
                assert_same(views[2], expected(name, [*arguments, *PARAMETERS[name][0]], dtype))


def test_a_slope_per_channel_takes_whole_rows():
    """Tiles are for arrays that are contiguous along another axis, not for what does not change along a row."""
    from fastrelu._call import large

    x = np.empty((4, 8, 3136), np.float32)
    slope = np.broadcast_to(np.empty((8, 1), np.float32), x.shape)
    order, blocks = large._axes_and_blocks([x, slope, x], 4)
    assert (order[-1], blocks[-1]) == (2, 3136)
    across = np.empty((3136, 8, 4), np.float32).T
    _, blocks = large._axes_and_blocks([across, slope, x], 4)
    assert blocks[-1] == large.TILE_SIDE


@pytest.mark.parametrize("shape", [(3, 4), (200, 300), (5, 6, 7)])
def test_arrays_in_fortran_order_need_no_python(shape, monkeypatch):
    """As those in C order; where the two meet, or axes are exchanged otherwise, a call is planned."""
    called = []
    python = fastrelu._api.elementwise.call
    monkeypatch.setattr(
        fastrelu._api.elementwise, "call", lambda name, *given: called.append(name) or python(name, *given)
    )
    rows = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    columns = np.asfortranarray(rows)
    out = np.empty_like(columns)
    assert fastrelu.relu(columns).flags.f_contiguous
    assert fastrelu.relu(columns, out=out) is out
    assert np.array_equal(out, np.maximum(rows, 0))
    grad = fastrelu.relu_backward(columns, columns, out=np.empty_like(columns))
    assert np.array_equal(grad, np.where(rows > 0, rows, 0))
    assert np.array_equal(fastrelu.leaky_relu_(out, 0.5), np.maximum(rows, 0))
    assert called == []
    assert np.array_equal(fastrelu.relu(rows, out=out), np.maximum(rows, 0))
    assert np.array_equal(fastrelu.relu_backward(rows, columns), np.where(rows > 0, rows, 0))
    assert np.array_equal(fastrelu.relu(columns.swapaxes(0, 1)[::-1]), np.maximum(rows.swapaxes(0, 1)[::-1], 0))
    assert len(called) == 3


@pytest.mark.parametrize("target", [None, "serial"])
def test_large_arrays_in_fortran_order_are_not_planned(target, monkeypatch):
    """A named target takes the way of Python, and there no more than for C order."""
    x = np.asfortranarray(np.random.default_rng(0).standard_normal((200, 300)))
    monkeypatch.setattr(fastrelu._call.dispatch, "plan", None)
    assert np.array_equal(fastrelu.relu(x, target=target), np.maximum(x, 0))
    assert np.array_equal(fastrelu.relu_backward(x, x, out=np.empty_like(x), target=target), np.where(x > 0, x, 0))


def test_a_kept_job_has_its_streaming_stores():
    """Also where the run that it was made for gave them up, since its output was of memory new to the process."""
    from fastrelu._call import job_cache

    x, slopes = np.ones((1024, 1024), np.float32), np.linspace(-1, 1, 1024, dtype=np.float32)
    with fastrelu.configure(streaming_min_bytes=1 << 20, recycle_bytes=0):
        for call in (lambda: fastrelu.leaky_relu(x, slopes), lambda: fastrelu.relu_with_mask(x)):
            job_cache._known.clear()
            call()
            assert [bool(known.job.stream) for known in job_cache._known.values()] == [True]
