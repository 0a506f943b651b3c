"""The functions with masks in users' compiled code and on Dask arrays, against the same functions on NumPy arrays."""

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same

numba = pytest.importorskip("numba")
njit = numba.njit


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register as the entry point does, so that these tests also run from a source tree."""
    from fastrelu import _njit

    _njit.init()


@njit
def forward(x):
    return fastrelu.relu_with_mask(x)


@njit
def leaky_forward(x, slope):
    return fastrelu.leaky_relu_with_mask(x, negative_slope=slope)


@njit
def backward(grad, mask):
    return fastrelu.relu_backward_from_mask(grad, mask)


@njit
def leaky_backward(grad, mask, slope):
    return fastrelu.leaky_relu_backward_from_mask(grad, mask, slope)


@njit
def into(x, slope, out, mask):
    first, second = fastrelu.leaky_relu_with_mask(x, slope, out=out, mask_out=mask)
    return first is out, fastrelu.leaky_relu_backward_from_mask(x, second, slope, out=out)


@njit
def twins(x, grad, mask, slope):
    fastrelu.leaky_relu_with_mask_(x, slope, mask_out=mask)
    fastrelu.leaky_relu_backward_from_mask_(grad, mask, slope)
    other = x.copy()
    bits = fastrelu.relu_with_mask_(other)
    return fastrelu.relu_backward_from_mask_(other, bits), bits


def arrays(dtype):
    rng = np.random.default_rng(0)
    for n in (0, 1, 7, 8, 9, 64, 1003):
        x = (rng.standard_normal(n) * 5).astype(dtype)
        if n > 5 and x.dtype.kind == "f":
            x[:4] = [np.nan, 0.0, -0.0, -np.inf]
        yield x
    yield (rng.standard_normal((5, 6, 14)) * 5).astype(dtype)[::-1, :, 1::2]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_compiled(dtype):
    for x in arrays(dtype):
        y, mask = forward(x)
        wanted, bits = fastrelu.relu_with_mask(x)
        assert_same(y, wanted)
        assert_same(mask, bits)
        assert_same(backward(x, mask), fastrelu.relu_backward_from_mask(x, mask))
        slopes = (0.5, -2.0, np.arange(x.shape[-1]) - 1.5) if x.ndim > 1 else (0.5,)
        for slope in slopes:
            y, mask = leaky_forward(x, slope)
            wanted, bits = fastrelu.leaky_relu_with_mask(x, slope)
            assert_same(mask, bits)
            assert_same(y, wanted)
            assert_same(leaky_backward(x, mask, slope), fastrelu.leaky_relu_backward_from_mask(x, mask, slope))


@pytest.mark.slow
def test_compiled_in_place():
    for x in arrays("float64"):
        out, mask, grad = np.empty_like(x), np.zeros(-(-x.size // 8), np.uint8), x[::-1].copy()
        same, result = into(x, 0.5, out, mask)
        assert same
        assert_same(result, fastrelu.leaky_relu_backward_from_mask(x, mask, 0.5))
        ours, theirs = x.copy(), x.copy()
        wanted = grad.copy()
        result, bits = twins(ours, grad, mask, 0.25)
        assert_same(mask, fastrelu.leaky_relu_with_mask_(theirs, 0.25))
        assert_same(ours, theirs)
        assert_same(grad, fastrelu.leaky_relu_backward_from_mask_(wanted, mask, 0.25))
        assert_same(bits, fastrelu.relu_with_mask_(theirs))
        assert_same(result, fastrelu.relu_backward_from_mask_(theirs, bits))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, mask: forward(3.0), "an array"),
        (lambda x, mask: forward(x.astype(np.float16)), "float16"),
        (lambda x, mask: backward(x, mask.astype(np.int8)), "one-dimensional array of uint8"),
        (lambda x, mask: njit(lambda x: fastrelu.relu_with_mask(x, target="serial"))(x), "target="),
        (
            lambda x, mask: njit(lambda x, m: fastrelu.relu_backward_from_mask_(x, m))(x.astype(int), mask),
            "cannot hold",
        ),
    ],
)
def test_compiled_refusals(call, message):
    x = np.arange(9.0)
    with pytest.raises(numba.TypingError, match=message):
        call(x, fastrelu.relu_with_mask(x)[1])


def test_compiled_length():
    with pytest.raises(ValueError, match="one byte for every eight"):
        backward(np.arange(9.0), np.zeros(1, np.uint8))


CHUNKS = [
    ((1000,), (100,)), ((100,), (7,)), ((50, 40), (10, 40)), ((50, 41), (10, 20)), ((5, 4, 3), (2, 2, 2)),
    ((3, 1000), (1, 100)), ((0,), (1,)), ((), ()),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "chunks"), CHUNKS)
def test_dask(shape, chunks):
    """Lazy, with the chunks of the input, and the mask of the whole array, however it is cut."""
    dask, da = pytest.importorskip("dask"), pytest.importorskip("dask.array")
    rng = np.random.default_rng(0)
    for dtype in ("float32", "int32"):
        x = (rng.standard_normal(shape) * 5).astype(dtype)
        lazy = da.from_array(x, chunks=chunks)
        for slope in (0.5, -1, np.float32(2), *([np.arange(shape[-1]) - 2.0] if shape else [])):
            y, mask = fastrelu.leaky_relu_with_mask(lazy, slope)
            wanted, bits = fastrelu.leaky_relu_with_mask(x, slope)
            assert isinstance(y, da.Array)
            assert isinstance(mask, da.Array)
            assert (y.chunks, y.dtype, mask.shape) == (lazy.chunks, np.asarray(wanted).dtype, bits.shape)
            computed = dask.compute(y, mask, scheduler="synchronous")
            assert_same(np.asarray(computed[0]), np.asarray(wanted))
            assert_same(computed[1], bits)
            back = fastrelu.leaky_relu_backward_from_mask(lazy, mask, slope).compute(scheduler="synchronous")
            assert_same(np.asarray(back), np.asarray(fastrelu.leaky_relu_backward_from_mask(x, bits, slope)))
        y, mask = fastrelu.relu_with_mask(lazy)
        result = fastrelu.relu_backward_from_mask(lazy, fastrelu.relu_with_mask(x)[1])
        wanted = fastrelu.relu_backward_from_mask(x, mask.compute(scheduler="synchronous"))
        assert_same(np.asarray(result.compute(scheduler="synchronous")), np.asarray(wanted))


def test_dask_refusals():
    da = pytest.importorskip("dask.array")
    lazy = da.ones(20, chunks=7)
    for call, error, message in [
        (lambda: fastrelu.relu_with_mask_(lazy), TypeError, "cannot be written to"),
        (lambda: fastrelu.relu_with_mask(lazy, out=np.empty(20)), TypeError, "cannot be written to"),
        (lambda: fastrelu.relu_backward_from_mask(lazy, np.zeros(2, np.uint8)), ValueError, "3"),
        (lambda: fastrelu.relu_backward_from_mask(lazy, np.zeros(3, np.int8)), TypeError, "uint8"),
        (lambda: fastrelu.relu_with_mask(lazy[lazy > 0]), ValueError, "compute_chunk_sizes"),
        (lambda: fastrelu.relu_with_mask(lazy, target="cuda"), TypeError, "cuda"),
        (lambda: fastrelu.count_active(lazy), TypeError, "map_blocks"),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert fastrelu.explain(fastrelu.relu_with_mask, lazy).target == "serial"
