"""The one-bit backward pass: masks and values bit for bit, any layout, and nothing outside of the arrays."""

import gc
import itertools
import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrelu
from fastrelu._bench import oracle
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._call import bitmask, job_cache
from fastrelu._kernels.records import BITMASK_STREAMED, EVEN, TILE_BYTES

from .helpers import (
    FLOATS,
    INTEGERS,
    LAYOUTS,
    TARGETS,
    at_edge,
    guarded_page,
    in_threads,
    pairs,
    placed,
    public,
    specials,
    spread,
)

FORWARD = ("relu_with_mask", "leaky_relu_with_mask")
BACKWARD = ("relu_backward_from_mask", "leaky_relu_backward_from_mask")
NAMES = FORWARD + BACKWARD
SLOPES = [0.01, 1.5, -0.5, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 1e300]


@pytest.fixture(autouse=True)
def _threads_for_all(monkeypatch):
    """Send small arrays to threads too, in as many tiles as the mask has bytes, or sixteen."""
    monkeypatch.setattr(bitmask, "WHOLE", 8)
    with fastrelu.configure(parallel_min_bytes=64):
        yield


def slopes(name, slope=-0.5):
    """Return a function's parameters."""
    return (slope,) if name.startswith("leaky") else ()


def wanted_of(name, data, slope, dtype):
    """Return what a function must give: the operation's oracle on x, and on grad and x."""
    if name in FORWARD:
        return expected(name.removesuffix("_with_mask"), [*data, *slope], dtype)
    return expected(name.removesuffix("_from_mask"), [*data, *(slope or (0.0,)), *slope], dtype)


def bits_of(x):
    """Return the mask as NumPy makes it, which is that of the oracle."""
    return np.packbits(~(x <= 0).ravel(), bitorder="little")


def check(name, data, slope, *, out=None, bits=None, target=None, wanted=None):
    """Call a function and its twin on x, or on grad and x; `bits` is where the mask is put, or what is read."""
    data = [np.asarray(each) for each in data]
    before = [each.copy() for each in data]
    dtype = np.dtype(np.result_type(data[0], np.float16) if data[0].dtype.kind == "f" else data[0].dtype)
    dtype = dtype.newbyteorder("=")
    mask = bits_of(data[-1])
    if wanted is None:
        wanted = wanted_of(name, [each.astype(dtype) for each in data], slope, dtype)
    if name in FORWARD:
        y, found = public(name)(data[0], *slope, out=out, mask_out=bits, target=target)
        assert found.dtype == np.uint8
        assert_same(found, mask, f"mask of {name}")
        assert bits is None or found is bits
    else:
        given = mask if bits is None else bits
        given[...] = mask
        y = public(name)(data[0], given, *slope, out=out, target=target)
        assert_same(given, mask, "the mask was modified")
    assert out is None or y is out
    assert_same(np.asarray(y), wanted, name)
    for each, copy in zip(data, before, strict=True):
        assert out is not None or each.tobytes() == copy.tobytes(), "an input was modified"
    return y


def check_twin(name, data, slope, *, target=None, wanted=None):
    """Call the twin on the first array itself."""
    first, mask = data[0], bits_of(data[-1])
    if wanted is None:
        wanted = wanted_of(name, data, slope, first.dtype.newbyteorder("="))
    if name in FORWARD:
        assert_same(public(name, twin=True)(first, *slope, target=target), mask, f"mask of {name}_")
    else:
        assert public(name, twin=True)(first, mask, *slope, target=target) is first
    assert_same(first.astype(first.dtype.newbyteorder("=")), wanted, f"{name}_")


def operands(name, dtype, n):
    """Return x, or grad and x, filled with special values."""
    return [spread(column, n) for column in pairs("relu" if name in FORWARD else "relu_backward", dtype)]


def test_oracle_and_numpy_agree():
    for dtype in (*FLOATS, *INTEGERS):
        for n in (0, 1, 7, 8, 9, 300):
            x = spread(specials(dtype), n)
            assert_same(oracle.mask(x), bits_of(x))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name, dtype, target, stores):
    data = operands(name, dtype, len(specials(dtype)) ** (1 if name in FORWARD else 2))
    for slope in SLOPES if name.startswith("leaky") else [None]:
        with np.errstate(all="raise"):
            check(name, data, slopes(name, slope), target=target)
            check(name, data, slopes(name, slope), out=np.full_like(data[0], 42), target=target)
            check_twin(name, [data[0].copy(), *data[1:]], slopes(name, slope), target=target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_sizes(name, dtype, target, stores):
    """Every size up to 300, each with arrays that begin elsewhere; nothing beside the arrays is written."""
    data, slope, size = operands(name, dtype, 300), slopes(name), np.dtype(dtype).itemsize
    wanted = wanted_of(name, data, slope, dtype)
    for n in range(0, 301, 1 if (dtype, target) == ("float32", "serial") else 7):
        some = [placed(each[:n], (5 * n + k) * size % 64) for k, each in enumerate(data)]
        out = placed(np.zeros(n, dtype), 7 * n * size % 64)
        bits = placed(np.full(-(-n // 8), 255, np.uint8), n % 64)
        check(name, some, slope, out=out, bits=bits, target=target, wanted=wanted[:n])
        for array in (out, bits):
            raw, start = array.base.base.base if array.base.base is not None else array.base, array.ctypes.data
            start -= raw.ctypes.data
            assert (raw[:start] == 0xA5).all()
            assert (raw[start + array.nbytes :] == 0xA5).all()
        check_twin(name, some, slope, target=target, wanted=wanted[:n])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_tiles(name, dtype, stores, monkeypatch):
    """Sizes around the tiles that threads take."""
    tile = TILE_BYTES // np.dtype(dtype).itemsize
    whole, slope = 512, slopes(name)
    monkeypatch.setattr(bitmask, "WHOLE", whole)
    sizes = [n + k for n in (whole, 2 * whole, EVEN * whole, 2 * EVEN * whole, EVEN * tile) for k in (-1, 0, 1)]
    if dtype == "float64":
        sizes.append(EVEN * tile * BITMASK_STREAMED + 7)
    pattern = operands(name, dtype, 61 * 61)
    one = wanted_of(name, pattern, slope, dtype)
    for n in sizes:
        data, wanted = [np.resize(each, n) for each in pattern], np.resize(one, n)
        mask = bits_of(data[-1])
        for target in ("serial", "parallel"):
            if name in FORWARD:
                y, found = public(name)(data[0], *slope, target=target)
                assert_same(found, mask, f"n={n}")
                assert_same(public(name, twin=True)(data[0].copy(), *slope, target=target), mask)
            else:
                y = public(name)(data[0], mask, *slope, target=target)
            assert_same(y, wanted, f"n={n}")


@pytest.mark.parametrize("dtype", [*FLOATS, "int8"])
def test_alignments(dtype, stores):
    """Every place of the output in a line, unaligned ones too, and random places of all else."""
    rng = np.random.default_rng(0)
    for name in FORWARD[:1] if dtype == "int8" else NAMES:
        data = operands(name, dtype, 203)
        wanted = wanted_of(name, data, slopes(name), dtype)
        for offset in range(64):
            some = [placed(each, rng.integers(64)) for each in data]
            out, bits = placed(np.zeros(203, dtype), offset), placed(np.zeros(26, np.uint8), rng.integers(64))
            check(name, some, slopes(name), out=out, bits=bits, target="serial", wanted=wanted)
            some[0] = placed(data[0], offset)
            check_twin(name, some, slopes(name), target="serial", wanted=wanted)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype, target, stores):
    for n in (0, 1, 7, 8, 64, 130, 1001):
        x = spread(specials(dtype), n)
        y, mask = fastrelu.relu_with_mask(x, target=target)
        assert_same(y, expected("relu", [x], dtype))
        assert_same(mask, bits_of(x))
        assert_same(fastrelu.relu_with_mask_(x, target=target), mask)
        assert_same(x, y)
    x = spread(specials(dtype), 130)
    y, mask = fastrelu.leaky_relu_with_mask(x, 2)
    assert_same(y, expected("leaky_relu", [x, 2.0], "float64"))
    assert_same(mask, bits_of(x))
    grad = fastrelu.leaky_relu_backward_from_mask(x, mask, 2)
    assert_same(grad, expected("leaky_relu_backward", [x, x, 2.0, 2.0], "float64"))
    for name in (*BACKWARD, "leaky_relu_with_mask"):
        with pytest.raises(TypeError, match="does not cast"):
            public(name, twin=True)(x, *([mask] if name in BACKWARD else []))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_rows_that_begin_within_a_byte(name, target, stores):
    """Rows with gaps, so that they cannot be one: of any length, their first bits anywhere in a byte and in a line."""
    for columns, dtype in zip([*range(1, 20), 31, 33, 64, 65, 71, 127, 130, 700], itertools.cycle(FLOATS)):
        shape = (11, columns)
        data = [each.reshape(shape) for each in operands(name, dtype, 11 * columns)]
        gaps = [np.zeros((11, columns + 3), dtype)[:, :columns] for _ in data]
        for gap, each in zip(gaps, data, strict=True):
            gap[...] = each
        wanted = wanted_of(name, data, slopes(name), dtype)
        check(name, gaps, slopes(name), target=target, wanted=wanted)
        check(name, data, slopes(name), out=np.zeros((11, columns + 1), dtype)[:, 1:], target=target, wanted=wanted)
        check_twin(name, gaps, slopes(name), target=target, wanted=wanted)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_any_layout(data):
    """Any shape in any layout, input and output; a slope that broadcasts in any way; a mask with gaps."""
    draw = data.draw
    name, dtype, target = draw(st.sampled_from(NAMES)), draw(st.sampled_from(FLOATS)), draw(st.sampled_from(TARGETS))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9))
    n = int(np.prod(shape))
    plain = [each.reshape(shape) for each in operands(name, dtype, n)]
    if draw(st.booleans()):
        plain = [np.broadcast_to(each[:1], shape) for each in plain]
    slope = ()
    if name.startswith("leaky"):
        form = tuple(draw(st.sampled_from([1, extent])) for extent in shape[draw(st.integers(0, len(shape))) :])
        slope = (np.resize(np.array([0.5, -2.0, 3.0], dtype), form),)
    layouts = st.sampled_from(list(LAYOUTS))
    some = [LAYOUTS[draw(layouts)](each) if each.size and draw(st.booleans()) else each for each in plain]
    out = LAYOUTS[draw(layouts)](np.full(shape, 42, dtype)) if n and draw(st.booleans()) else None
    step = draw(st.sampled_from([-2, -1, 1, 3]))
    bits = np.full(-(-n // 8) * abs(step), 77, np.uint8)[::step] if draw(st.booleans()) else None
    wanted = wanted_of(name, plain, slope, dtype)
    with fastrelu.configure(streaming_min_bytes=draw(st.sampled_from([0, 1 << 60]))):
        for _ in range(2):  # the second time as a known job, where it can be one
            if out is None or out.dtype == dtype:
                y = check(name, some, slope, out=out, bits=bits, target=target, wanted=wanted)
                if out is None and n:
                    like = np.positive(some[0], dtype=dtype)  # axes of length 1 may have any strides
                    long = [axis for axis, extent in enumerate(shape) if extent > 1]
                    assert [y.strides[axis] for axis in long] == [like.strides[axis] for axis in long]
        if n and some[0].flags.writeable:
            first = some[0].copy(order="K")
            check_twin(name, [first, *some[1:]], slope, target=target, wanted=wanted)


@pytest.mark.parametrize("name", NAMES)
def test_scalars_and_lists(name):
    first = (-2.0,) if name in FORWARD else (-2.0, np.array([0], np.uint8))
    for value in (-2.0, np.float64(-2.0), np.array(-2.0)):
        result = public(name)(value, *first[1:], *slopes(name))
        y = result[0] if name in FORWARD else result
        assert type(y) is np.float64
        assert y == (1.0 if name.startswith("leaky") else 0.0)
    for value in ([-1.0, 2.0], (-1.0, 2.0)):
        result = public(name)(value, *([np.array([2], np.uint8)] if name in BACKWARD else []), *slopes(name))
        y = result[0] if name in FORWARD else result
        assert_same(y, np.array([0.5 if name.startswith("leaky") else 0.0, 2.0]))
    zero = np.array(-2.0)
    check_twin(name, [zero] if name in FORWARD else [zero, np.array(-2.0)], slopes(name))
    if name == "relu_with_mask":
        assert type(fastrelu.relu_with_mask(-3)[0]) is np.int64
        assert type(fastrelu.relu_with_mask(True)[0]) is np.bool_


@pytest.mark.parametrize("name", BACKWARD)
def test_bits_beyond_the_last_element_are_ignored(name, stores):
    for n in range(1, 130):
        data = operands(name, "float32", n)
        mask = bits_of(data[1])
        y = public(name)(data[0], mask, *slopes(name))
        if n % 8:
            mask[-1] |= 255 << n % 8 & 255
        assert_same(public(name)(data[0], mask, *slopes(name)), y)


def test_other_types_of_output():
    """A result that casts to `out` does so silently; the mask tells of x, not of what the cast leaves."""
    x = np.array([1e300, -1.0, 1e-300, np.nan])
    for out in (np.zeros(4, np.float32), np.zeros(4, ">f8"), np.zeros(4, np.float16)[::-1]):
        with np.errstate(all="ignore"):
            wanted = fastrelu.relu(x).astype(out.dtype)
        with np.errstate(all="raise"):
            y, mask = fastrelu.relu_with_mask(x, out=out)
            assert_same(fastrelu.relu_backward_from_mask(x, mask, out=np.zeros_like(out)), wanted)
        assert_same(y, wanted)
        assert_same(mask, bits_of(x))
    half = np.array([-1.0, 2.0], np.float16)
    assert_same(fastrelu.leaky_relu_with_mask_(half, np.float64(0.5)), np.array([2], np.uint8))
    assert_same(half, np.array([-0.5, 2.0], np.float16))


@st.composite
def _windows(draw):
    """Return a function, a type and windows on one buffer: grad or x, out, a slope, and in bytes the mask."""
    length = draw(st.sampled_from([1, 2, 5, 16, 33, 64, 130]))
    places = []
    for _ in range(3):
        step = draw(st.sampled_from([-2, -1, 1, 1, 2]))
        span = (length - 1) * abs(step) + 1
        places.append((draw(st.integers(0, 420 - span)), step, span))
    if draw(st.booleans()):
        places[1] = places[0]
    dtype = draw(st.sampled_from(FLOATS))
    step = draw(st.sampled_from([-1, 1, 1, 2]))
    span = (-(-length // 8) - 1) * abs(step) + 1
    start = draw(st.integers(0, 420 * np.dtype(dtype).itemsize - span))
    return draw(st.sampled_from(NAMES)), dtype, length, places, (start, step, span)


@settings(max_examples=400, deadline=None)
@given(_windows(), st.sampled_from(TARGETS), st.booleans())
def test_overlap_of_every_kind(windows, target, streaming):
    """The result is that of copies; a mask to write is refused where it may overlap, before anything is written."""
    name, dtype, length, places, where = windows
    buffer = spread(specials(dtype), 420).copy()
    before = buffer.copy()

    def window(base, place):
        start, step, span = place
        return base[start : start + span][::step]

    first, out, slope = (window(buffer, place) for place in places)
    bits = window(buffer.view(np.uint8), where)
    parameters = (slope,) if name.startswith("leaky") else ()
    copies = [each.copy() for each in (first, *parameters)]
    with fastrelu.configure(streaming_min_bytes=0 if streaming else 1 << 60):
        if name in BACKWARD:
            mask = bits.copy()
            x = np.where(np.unpackbits(mask, count=length, bitorder="little"), 1.0, -1.0).astype(dtype)
            wanted = before.copy()
            window(wanted, places[1])[...] = wanted_of(name, [copies[0], x], copies[1:], dtype)
            public(name)(first, bits, *parameters, out=out, target=target)
            assert_same(buffer, wanted)
            return
        wanted = before.copy()
        window(wanted, places[1])[...] = wanted_of(name, copies[:1], copies[1:], dtype)
        mask = bits_of(copies[0])
        if any(np.may_share_memory(bits, other) for other in (first, out, *parameters)):
            with pytest.raises(ValueError, match="mask_out shares memory"):
                public(name)(first, *parameters, out=out, mask_out=bits, target=target)
            assert_same(buffer, before)
        else:
            window(wanted.view(np.uint8), where)[...] = mask
            public(name)(first, *parameters, out=out, mask_out=bits, target=target)
            assert_same(buffer.view(np.uint8), wanted.view(np.uint8))
            return
        found = public(name)(first, *parameters, out=out, target=target)[1]
        assert_same(found, mask)
        assert_same(buffer, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_output_that_overlaps_itself(name):
    """Each number is computed once, from what was there before, also in the second call."""
    for _ in range(2):
        base = np.arange(-50, 50, dtype=np.float32)
        windows = np.lib.stride_tricks.as_strided(base, (40, 61), (4, 4))
        grad, mask = windows.copy(), bits_of(windows)
        wanted = wanted_of(name, [base.copy()] * (1 + (name in BACKWARD)), slopes(name), "float32")
        public(name, twin=True)(windows, *([mask] if name in BACKWARD else []), *slopes(name))
        assert_same(base, wanted)
        public(name)(grad, *([mask] if name in BACKWARD else []), *slopes(name), out=windows)
        assert_same(base, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (10, 1, 100), (1000,), (10, 100)])
@pytest.mark.parametrize("name", NAMES)
def test_twins_allocate_nothing_that_grows(name, shape):
    x, mask = np.zeros((100, *shape), np.float32), np.zeros(12_500, np.uint8)
    for array in (x, x[:1].repeat(10, axis=0).reshape(1, -1)):
        bits = mask[: -(-array.size // 8)]
        arguments = ([bits] if name in BACKWARD else []) + [*slopes(name)]
        options = {"mask_out": bits} if name in FORWARD else {}
        public(name, twin=True)(array, *arguments, **options)
        gc.collect()
        tracemalloc.start()
        public(name, twin=True)(array, *arguments, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000, peak


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["leaky_relu_with_mask", "leaky_relu_backward_from_mask"])
def test_slopes_broadcast(name, target, stores):
    shape = (6, 7, 80)
    for dtype in FLOATS:
        data = [each.reshape(shape) for each in operands(name, dtype, 6 * 7 * 80)]
        for form in [(80,), (7, 1), (6, 1, 1), (1, 1, 1), (6, 7, 80), (1, 7, 80), (1,), ()]:
            slope = (np.arange(np.prod(form, dtype=int)).reshape(form) / 8 - 2).astype(dtype)
            wanted = wanted_of(name, data, (slope,), dtype)
            check(name, data, (slope,), target=target, wanted=wanted)
            check_twin(name, [data[0].copy(), *data[1:]], (slope,), target=target, wanted=wanted)
    with pytest.raises(ValueError, match=r"negative_slope of shape .* does not broadcast"):
        public(name)(data[0], *([bits_of(data[1])] if name in BACKWARD else []), np.ones((2, 6, 7, 80), dtype))


@pytest.fixture
def planned(monkeypatch):
    """Count the calls that are planned anew."""
    calls = []
    plan = bitmask.BitmaskPass._job
    monkeypatch.setattr(bitmask.BitmaskPass, "_job", lambda *given: calls.append(given) or plan(*given))
    job_cache._known.clear()
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_jobs_are_planned_once(name, planned):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        data = [rng.standard_normal((33, 141), np.float32)[:, ::2] for _ in range(1 + (name in BACKWARD))]
        check(name, data, slopes(name, 0.5 + seed), target="parallel")
    assert len(planned) == 1
    for seed in range(4):
        rng = np.random.default_rng(seed)
        data = [rng.standard_normal((1, 500), np.float32) for _ in range(1 + (name in BACKWARD))]
        check_twin(name, data, slopes(name, 0.5 + seed), target="parallel")
    assert len(planned) == 2


@pytest.mark.parametrize("name", NAMES)
def test_known_jobs_keep_every_check(name, planned):
    n = 64
    first, mask = np.linspace(-1, 1, n, dtype=np.float32), np.zeros(8, np.uint8)
    out = np.zeros(n, np.float32)
    function = public(name)

    def call(first=first, out=out, mask=mask, **options):
        if name in BACKWARD:
            return function(first, mask, *slopes(name), out=out, **options)
        return function(first, *slopes(name), out=out, mask_out=mask, **options)

    call()
    frozen, frozen_mask = out.copy(), mask.copy()
    frozen.flags.writeable = frozen_mask.flags.writeable = False
    refused = [
        (ValueError, {"out": frozen}),
        (ValueError, {"target": "nowhere"}),
        (ValueError, {"mask": np.zeros(9, np.uint8)}),
        (ValueError, {"mask": np.zeros(7, np.uint8)}),
        (ValueError, {"out": out[:-1]}),
        (TypeError, {"mask": mask.view(np.int8)}),
        (TypeError, {"out": np.zeros(n, np.int32)}),
    ]
    if name in FORWARD:
        refused += [(ValueError, {"mask": frozen_mask}), (ValueError, {"mask": first.view(np.uint8)[:8]})]
        refused += [(ValueError, {"mask": out.view(np.uint8)[:8]})]
    before = [array.copy() for array in (first, out, mask, frozen)]
    for error, changed in refused:
        with pytest.raises(error):
            call(**changed)
        for array, copy in zip((first, out, mask, frozen), before, strict=True):
            assert_same(array, copy)
    assert len(planned) == 1
    call(mask=np.zeros(16, np.uint8)[::2])
    assert len(planned) == 2
    # The same layouts as before, but the output is one element further in the input
    longer = np.linspace(-1, 1, n + 1, dtype=np.float32)
    kept = longer[:-1].copy()
    call(first=longer[:-1], out=longer[1:])
    wanted = call(first=kept, out=np.zeros(n, np.float32))
    assert_same(longer[1:], wanted if name in BACKWARD else wanted[0])


def test_one_array_is_never_both_outputs(planned):
    """An input of one byte may be its own output, or lie where the mask would: two keys, not one."""
    x, other = np.array([3], np.uint8), np.array([7], np.uint8)
    assert fastrelu.relu_with_mask(x, out=x, mask_out=other)[1] is other
    for _ in range(2):
        with pytest.raises(ValueError, match="mask_out shares memory"):
            fastrelu.relu_with_mask(x, out=other, mask_out=x)
    assert x[0] == 3
    x, other = np.array([-1.0, 2.0]), np.array([3.0, 4.0])
    for place in (x, other):
        with pytest.raises(ValueError, match="mask_out shares memory"):
            fastrelu.relu_with_mask(x, out=other, mask_out=place.view(np.uint8)[:1])


def test_mask_over_converted_input_is_refused():
    """What is computed with is a copy then; what would be overwritten is the caller's."""
    for x in (np.array([-1.0, 2.0], ">f8"), np.array([-1, 2])):
        before = x.copy()
        with pytest.raises(ValueError, match="mask_out shares memory"):
            fastrelu.leaky_relu_with_mask(x, mask_out=x.view(np.uint8)[:1])
        slope = np.array([0.5], np.float32)
        with pytest.raises(ValueError, match="mask_out shares memory"):
            fastrelu.leaky_relu_with_mask(x, slope, mask_out=slope.view(np.uint8)[:1])
        assert_same(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_no_byte_outside_is_touched(name, stores):
    """Pages without access right before and after the data: a kernel that reads or writes there dies."""
    areas = [guarded_page() for _ in range(4)]

    for dtype in (*FLOATS, *(INTEGERS if name == "relu_with_mask" else ())):
        data = operands(name, dtype, 300)
        slope = slopes(name)
        wanted = wanted_of(name, data, slope, dtype)
        per_element = np.resize(np.array(slope, dtype), 300) if slope else None
        for n, at_end in itertools.product(range(0, 301, 1 if dtype == "float32" else 7), (False, True)):
            mask = bits_of(data[-1][:n])
            x, out, extra = (at_edge(area, (n,), dtype, at_end) for area in areas[:3])
            bits = at_edge(areas[3], (mask.size,), np.uint8, at_end)
            x[...] = data[0][:n]
            for target in ("serial", "parallel")[: 1 + (n % 16 == 5)]:
                for parameters in [(), *([(extra,)] if slope else [])]:  # a slope of its own for each, then one for all
                    if parameters:
                        extra[...] = per_element[:n]
                    given = parameters or slope
                    if name in FORWARD:
                        public(name)(x, *given, out=out, mask_out=bits, target=target)
                        assert_same(bits, mask)
                    else:
                        bits[...] = mask
                        public(name)(x, bits, *given, out=out, target=target)
                    assert_same(out, wanted[:n])
            # Every other element, from the first on or up to the last one
            few = slice(None, None, 2) if not at_end else slice((n + 1) % 2, None, 2)
            mask = bits_of(data[-1][:n][few])
            bits = at_edge(areas[3], (mask.size,), np.uint8, at_end)
            if name in BACKWARD:
                bits[...] = mask
                public(name)(x[few], bits, *slope, out=out[few], target="serial")
            else:
                public(name)(x[few], *slope, out=out[few], mask_out=bits, target="serial")
                assert_same(bits, mask)
            assert_same(out[few], wanted[:n][few])


def refused(error, match, function, *arguments, **options):
    """Call a function, which raises; see that no array among its arguments has changed."""
    arrays = [each for each in (*arguments, *options.values()) if type(each) is np.ndarray and each.dtype != object]
    before = [each.copy() for each in arrays]
    with pytest.raises(error, match=match):
        function(*arguments, **options)
    for each, copy in zip(arrays, before, strict=True):
        assert each.tobytes() == copy.tobytes()


X = np.array([-1.0, 2.0, 0.0])
MASK = np.array([2], np.uint8)


@pytest.mark.parametrize("dtype", ["F", "D", "O", "U3", "S3", "m8[s]", "M8[s]", "V4", [("a", "f4")], "g"], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_types_that_are_refused(name, dtype):
    if dtype == "g" and np.dtype("g").itemsize == 8:
        pytest.skip("longdouble is float64 here")
    rest = [MASK] if name in BACKWARD else []
    bad = np.zeros(3, dtype)
    refused(TypeError, rf"{name}_?: (x|grad) is a numpy\.ndarray of dtype", public(name), bad, *rest)
    refused(TypeError, rf"{name}_?: (x|grad) is a numpy\.ndarray of dtype", public(name, twin=True), bad, *rest)
    if name in BACKWARD:
        refused(TypeError, f"{name}_?: mask ", public(name), X.copy(), np.zeros(1, dtype))
    if name.startswith("leaky"):
        refused(TypeError, f"{name}_?: negative_slope ", public(name), X.copy(), *rest, np.zeros(3, dtype))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_are_refused(name):
    rest = [MASK.copy()] if name in BACKWARD else []
    function, twin, x = public(name), public(name, twin=True), X.copy()
    for bad in ([1.0, 2.0, 3.0], (1.0,), 1.0, 1, True, np.float64(1.0), None, "x"):
        refused(TypeError, rf"{name}_ works in place", twin, bad, *rest)
    for bad in ("x", None, 1j, object(), {}, b"1"):
        refused(TypeError, f"{name}_?: (x|grad)", function, bad, *rest)
    for bad in ([0.0] * 3, 1.0, "x", np.float64(1.0), (x,), object()):
        refused(TypeError, f"{name}_?: out must be an array", function, x, *rest, out=bad)
    frozen = X.copy()
    frozen.flags.writeable = False
    for target in TARGETS:
        refused(ValueError, f"{name}_?: out is read-only", function, x, *rest, out=frozen, target=target)
        refused(ValueError, f"{name}_: (x|grad) is read-only", twin, frozen, *rest, target=target)
    for shape in ((2,), (4,), (3, 1), (1, 3), ()):
        refused(ValueError, f"{name}_?: out has shape", function, x, *rest, out=np.zeros(shape))
    refused(TypeError, "does not cast", function, x, *rest, out=np.zeros(3, np.int64))
    for target in ("gpu", "", "Serial", 1, ("serial",), b"serial", True):
        refused(ValueError, "target=", function, x, *rest, target=target)
        refused(ValueError, "target=", twin, x, *rest, target=target)
    masked = np.ma.masked_less(X, 0)
    refused(TypeError, "MaskedArray", function, masked, *rest)
    refused(TypeError, "MaskedArray", twin, masked, *rest)
    refused(TypeError, "MaskedArray", function, x, *rest, out=masked)
    if name.startswith("leaky"):
        for bad in ("0.1", None, 1j, object(), b"1", {}, np.complex64(1)):
            refused(TypeError, f"{name}_?: negative_slope", function, x, *rest, bad)
            refused(TypeError, f"{name}_?: negative_slope", twin, x, *rest, bad)
        refused(OverflowError, "too large", function, x, *rest, 10**400)


@pytest.mark.parametrize("name", NAMES)
def test_masks_that_are_refused(name):
    """A mask of the wrong type, shape or length, given or to be written."""
    which = "mask" if name in BACKWARD else "mask_out"

    def with_mask(error, match, bad, x=X):
        for function, first in ((public(name), x.copy()), (public(name, twin=True), x.copy())):
            if name in BACKWARD:
                refused(error, match, function, first, bad)
            else:
                refused(error, match, function, first, mask_out=bad)

    for dtype in ("bool", "int8", "uint16", "int64", "float32"):
        with_mask(TypeError, rf"{name}_?: {which} must be a one-dimensional array of uint8, not", np.zeros(1, dtype))
    for shape in ((), (1, 1), (1, 1, 1)):
        with_mask(TypeError, rf"{name}_?: {which} must be a one-dimensional array of uint8", np.zeros(shape, np.uint8))
    for n, length in ((3, 0), (3, 2), (8, 2), (9, 1), (0, 1), (300, 37), (300, 39)):
        message = rf"{name}_?: {which} has {length} bytes; for {n} elements it must have {-(-n // 8)}"
        with_mask(ValueError, message, np.zeros(length, np.uint8), np.ones(n))
    for bad in ([2], (2,), 2, 2.0, np.uint8(2), "x", b"2", object(), {}):
        with_mask(TypeError, f"{name}_?: {which}", bad)
    with_mask(TypeError, "MaskedArray", np.ma.array(MASK))
    if name in FORWARD:
        frozen = MASK.copy()
        frozen.flags.writeable = False
        with_mask(ValueError, f"{name}_?: mask_out is read-only", frozen)
    else:
        with_mask(TypeError, f"{name}_?: mask", None)


def test_read_only_inputs_are_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, spread(specials("float32"), 1000))
    x = np.load(path, mmap_mode="r")
    y, mask = fastrelu.leaky_relu_with_mask(x, -2.0)
    assert_same(np.asarray(y), expected("leaky_relu", [np.asarray(x), -2.0], "float32"))
    np.save(tmp_path / "mask.npy", mask)
    grad = fastrelu.relu_backward_from_mask(x, np.load(tmp_path / "mask.npy", mmap_mode="r"))
    assert_same(np.asarray(grad), expected("relu_backward", [np.asarray(x), np.asarray(x), 0.0], "float32"))
    writable = np.load(path, mmap_mode="r+")
    assert_same(fastrelu.relu_with_mask_(writable), mask)
    writable.flush()
    assert_same(np.load(path), expected("relu", [np.load(path)], "float32"))


def test_pandas_and_xarray_are_refused():
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    for value in (pandas.Series(X), pandas.DataFrame({"a": X}), xarray.DataArray(X)):
        for name in NAMES:
            rest = [MASK] if name in BACKWARD else []
            refused(
                TypeError,
                rf"{name}_?: (x|grad) is a (pandas|xarray)\.(Series|DataFrame|DataArray)",
                public(name),
                value,
                *rest,
            )
            refused(TypeError, f"{name}_?: (x|grad|out) is a ", public(name, twin=True), value, *rest)
    refused(TypeError, r"mask is a pandas\.Series", fastrelu.relu_backward_from_mask, X, pandas.Series(MASK))


@pytest.mark.parametrize("dtype", FLOATS)
def test_torch(dtype):
    torch = pytest.importorskip("torch")
    for name, n in itertools.product(NAMES, (0, 1, 9, 300)):
        data, slope = operands(name, dtype, n), slopes(name)
        wanted, mask = wanted_of(name, data, slope, dtype), bits_of(data[-1])
        tensor, bits = torch.from_numpy(data[0].copy()), torch.from_numpy(mask.copy())
        out = torch.empty_like(tensor)
        if name in FORWARD:
            y, found = public(name)(tensor, *slope)
            assert type(y) is type(found) is torch.Tensor
            assert_same(found.numpy(), mask)
            bits.zero_()
            pair = public(name)(tensor, *slope, out=out, mask_out=bits)
            assert pair[0] is out
            assert pair[1] is bits
            assert_same(bits.numpy(), mask)
            version = tensor._version
            assert_same(public(name, twin=True)(tensor, *slope).numpy(), mask)
        else:
            y = public(name)(tensor, bits, *slope)
            assert type(y) is torch.Tensor
            assert public(name)(tensor, bits, *slope, out=out) is out
            version = tensor._version
            assert public(name, twin=True)(tensor, bits, *slope) is tensor
        assert tensor._version > version  # autograd sees the write
        for each in (y, out, tensor):
            assert_same(each.numpy(), wanted)
    image = torch.from_numpy(spread(specials("float32"), 2 * 3 * 4 * 5).reshape(2, 3, 4, 5))
    image = image.to(memory_format=torch.channels_last)
    y, mask = fastrelu.relu_with_mask(image)
    assert y.stride() == image.stride()
    assert_same(mask.numpy(), bits_of(image.numpy()))


def test_torch_tensors_that_are_refused():
    torch = pytest.importorskip("torch")
    x, mask = torch.tensor([-1.0, 2.0, 0.0]), torch.tensor([2], dtype=torch.uint8)
    for name in NAMES:
        rest = [mask] if name in BACKWARD else []
        function, twin = public(name), public(name, twin=True)
        recorded = x.clone().requires_grad_()
        refused(TypeError, "requires grad|detach", function, recorded, *rest)
        refused(TypeError, "requires grad|detach", twin, recorded, *rest)
        refused(TypeError, "pass arrays of one library", function, X.copy(), *rest, out=x)
        refused(TypeError, "pass arrays of one library", function, x, *rest, out=X.copy())
        refused(TypeError, "is of dtype torch.complex64", function, x.to(torch.complex64), *rest)
        if name in BACKWARD:
            refused(TypeError, "pass arrays of one library", function, x, MASK)
            refused(TypeError, "pass arrays of one library", function, X, mask)
            refused(TypeError, "one-dimensional array of uint8", function, x, mask.to(torch.int8))
            refused(ValueError, "mask has 2 bytes", function, x, torch.zeros(2, dtype=torch.uint8))
        else:
            refused(TypeError, "pass arrays of one library", function, x, mask_out=MASK.copy())
            refused(ValueError, "shares memory", function, x, mask_out=x.view(torch.uint8)[:1])
            refused(TypeError, "one-dimensional array of uint8", function, x, mask_out=mask.bool())
    assert x.tolist() == [-1.0, 2.0, 0.0]
    assert mask.tolist() == [2]


def test_torch_autograd_function():
    """The mask is all that the node keeps, after a forward pass in place with a negative slope."""
    torch = pytest.importorskip("torch")

    class LeakyReLU(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            y, mask = fastrelu.leaky_relu_with_mask(x.detach(), -2.0)
            context.save_for_backward(mask)
            return y

        @staticmethod
        def backward(context, grad):
            return fastrelu.leaky_relu_backward_from_mask(grad, *context.saved_tensors, -2.0)

    x = torch.tensor([-1.0, 2.0, 0.0, float("nan")], requires_grad=True)
    LeakyReLU.apply(x).sum().backward()
    assert x.grad.tolist() == [-2.0, 1.0, -2.0, 1.0]


def test_jax():
    jax = pytest.importorskip("jax")
    for name, n in itertools.product(NAMES, (0, 1, 9, 300)):
        data, slope = operands(name, "float32", n), slopes(name)
        wanted, mask = wanted_of(name, data, slope, "float32"), bits_of(data[-1])
        x, bits = jax.numpy.array(data[0]), jax.numpy.array(mask)
        if name in FORWARD:
            y, found = public(name)(x, *slope)
            assert isinstance(found, jax.Array)
            assert_same(np.asarray(found), mask)
            refused(TypeError, "immutable", public(name), x, *slope, mask_out=bits)
        else:
            y = public(name)(x, bits, *slope)
            refused(TypeError, "pass arrays of one library", public(name), x, mask, *slope)
        assert isinstance(y, jax.Array)
        assert_same(np.asarray(y), wanted)
        refused(TypeError, "immutable", public(name), x, *([bits] if name in BACKWARD else []), *slope, out=x)
        refused(TypeError, "immutable", public(name, twin=True), x, *([bits] if name in BACKWARD else []), *slope)


def test_many_threads_at_once():
    """Each with arrays of its own, known jobs and new ones, all functions."""

    def work(seed):
        rng = np.random.default_rng(seed)
        for turn in range(12):
            x = rng.standard_normal((37, 41 + turn % 3), np.float32)
            y, mask = fastrelu.leaky_relu_with_mask(x, -0.5)
            assert_same(mask, bits_of(x))
            assert_same(y, np.where(x < 0, x * np.float32(-0.5), x))
            assert_same(fastrelu.relu_backward_from_mask(x, mask), np.where(x <= 0, np.float32(0), x))
            grad = y.copy()
            fastrelu.leaky_relu_backward_from_mask_(grad, mask, 3.0)
            assert_same(grad, np.where(x <= 0, y * np.float32(3), y))
            assert_same(fastrelu.relu_with_mask_(x), mask)

    in_threads(8, work)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_types_are_those_of_the_backward_pass(dtype):
    """Of integers and an array of integers as slopes too: an absent at_zero is the slope."""
    grad = np.array([1, 1], dtype)
    mask = np.array([1], np.uint8)
    for kind in INTEGERS:
        slope = np.array([1, 1], kind)
        wanted = fastrelu.leaky_relu_backward(grad, grad, slope)
        assert_same(fastrelu.leaky_relu_backward_from_mask(grad, mask, slope), wanted)
        both = fastrelu.leaky_relu_backward_with_slope_grad(grad, grad, slope)
        assert both[0].dtype == both[1].dtype == wanted.dtype


def test_the_layout_of_what_numpy_makes_an_array_of():
    class Fortran:
        def __array__(self, dtype=None, copy=None):
            return np.asfortranarray(np.arange(-6, 6, dtype=np.float32).reshape(3, 4))

    assert fastrelu.relu_with_mask(Fortran())[0].strides == fastrelu.relu(Fortran()).strides == (4, 12)
