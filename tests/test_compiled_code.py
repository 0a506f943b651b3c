"""The public functions by their public names inside users' compiled code."""

import importlib
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fastrelu
from fastrelu import relu as imported_relu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._operations import UFUNCS

from .helpers import INTEGERS, PARAMETERS, pairs, run_python, specials

numba = pytest.importorskip("numba")
njit = numba.njit


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register as the entry point does, so that these tests also run from a source tree."""
    from fastrelu import _njit

    _njit.init()


WAYS = """
def every_way({operands}, out, single, first):
    for i in range(out.size):
        single[i] = fastrelu.{name}({elements})
    fastrelu.{name}({operands}, out=out)
    fastrelu.{name}_({twin})
    return fastrelu.{name}({operands})
"""


def compiled(name):
    """Return a compiled function that calls an operation in each way there is, written as a user would."""
    names = UFUNCS[name].names
    elements = ", ".join(f"{key}[i]" if key in UFUNCS[name].data else key for key in names)
    source = WAYS.format(name=name, operands=", ".join(names), elements=elements, twin=", ".join(("first", *names[1:])))
    scope = {"fastrelu": fastrelu}
    exec(source, scope)
    return njit(scope["every_way"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UFUNCS)
def test_special_values(name, dtype):
    """Scalars, new arrays, `out` and the twins, with parameters as Python floats: bit for bit what the oracle says."""
    every_way = compiled(name)
    data = tuple(pairs(name, dtype))
    for parameters in PARAMETERS[name]:
        wanted = expected(name, [*data, *parameters], dtype)
        out, single, first = np.full_like(data[0], 42), np.full_like(data[0], 42), data[0].copy()
        new = every_way(*data, *parameters, out, single, first)
        for way, result in (("new", new), ("out", out), ("in place", first), ("scalar", single)):
            assert_same(result, wanted, f"{name}{parameters} {way}")


def test_scalars_keep_their_type():
    @njit
    def scalar(x, slope):
        return fastrelu.leaky_relu(x, slope)

    for dtype, given in (("float32", 0.3), ("float32", 1), ("float64", np.float32(0.3)), ("int16", 0.3)):
        scalar(np.dtype(dtype).type(-3), given)
    kinds = [result.signature.return_type for result in scalar.overloads.values()]
    assert kinds == [numba.float32, numba.float32, numba.float64, numba.float64]
    assert scalar(np.float32(-3), 0.3) == np.float32(-3) * np.float32(0.3)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype):
    @njit
    def keeps(x):
        fastrelu.relu_(x)
        return fastrelu.relu(x), fastrelu.relu(x[0])

    x = specials(dtype)
    want = fastrelu.relu(x)
    array, scalar = keeps(x.copy())
    assert array.dtype == x.dtype
    np.testing.assert_array_equal(array, want)
    assert scalar == want[0]


def test_integers_promote():
    @njit
    def promotes(x, slopes):
        return fastrelu.leaky_relu(x), fastrelu.leaky_relu(x, 2), fastrelu.relu_backward(1, x), fastrelu.relu_grad(x[0])

    @njit
    def strong(x, slopes):
        return fastrelu.leaky_relu(x, slopes)

    x = np.array([-3, 0, 3], np.int8)
    for result, wanted in zip(
        promotes(x, x), (fastrelu.leaky_relu(x), fastrelu.leaky_relu(x, 2), fastrelu.relu_backward(1.0, x), 0.0)
    ):
        assert_same(result, np.asarray(wanted))
    for first, second in (("int8", "float32"), ("int32", "float32"), ("float32", "float64"), ("bool", "float32")):
        x, slopes = np.array([-3, 0, 3]).astype(first), np.array([0.5, 2, -1]).astype(second)
        assert_same(strong(x, slopes), fastrelu.leaky_relu(x, slopes), f"{first} {second}")
        assert strong(x, slopes).dtype == fastrelu.leaky_relu(x, slopes).dtype


def test_types_beside_masks():
    """What a function from a mask lacks counts as in `leaky_relu_backward`: x as grad, at_zero as the slope."""

    @njit
    def backward(grad, x, mask, slopes):
        return (
            fastrelu.leaky_relu_backward(grad, x, slopes),
            fastrelu.leaky_relu_backward_from_mask(grad, mask, slopes),
            fastrelu.leaky_relu_with_mask(x, slopes)[0],
        )

    for data, of_slopes in (("int16", "int16"), ("int16", "uint8"), ("int16", "float32"), ("float32", "float64")):
        grad, x = np.array([5, 7, 2]).astype(data), np.array([-3, 0, 3]).astype(data)
        slopes, mask = np.array([2, 3, 1]).astype(of_slopes), fastrelu.relu_with_mask(x)[1]
        wanted, *others = backward(grad, x, mask, slopes)
        assert_same(wanted, fastrelu.leaky_relu_backward(grad, x, slopes))
        for actual, outside in zip(others, backward.py_func(grad, x, mask, slopes)[1:], strict=True):
            assert_same(actual, outside, f"{data} {of_slopes}")
            assert actual.dtype == wanted.dtype


def test_keywords_defaults_and_names():
    @njit
    def calls(x):
        return (
            imported_relu(x),
            fastrelu.relu(x, out=None, target=None),
            fastrelu.leaky_relu(x),
            fastrelu.leaky_relu(x, negative_slope=0.5),
            fastrelu.relu_grad(x, at_zero=0.5),
            fastrelu.leaky_relu_grad(x),
            fastrelu.leaky_relu_grad(x, at_zero=0.5),
            fastrelu.leaky_relu_grad(x, 0.3, None),
            fastrelu.relu_backward(x, x, at_zero=2),
            fastrelu.relu_backward(1.0, x),
            fastrelu.relu_backward(x, 1),
            fastrelu.leaky_relu_backward(x, x, at_zero=0.25, negative_slope=0.5),
            fastrelu.leaky_relu_backward(x, x, 0.5),
        )

    x = np.array([-2, -0.0, 0, 3, np.nan], np.float32)
    for actual, wanted in zip(calls(x), calls.py_func(x), strict=True):
        assert_same(actual, wanted)


def layouts():
    base = np.arange(-30, 30, dtype=np.float32).reshape(3, 4, 5)
    slope_row, slope_column = np.float32([0.5, 2, -1, 3, 0]), np.float32([[0.5], [2], [-1], [4]])
    unaligned = np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view(np.float32)
    yield "C", base, 0.5
    yield "Fortran", np.asfortranarray(base), 0.5
    yield "transposed", base.transpose(1, 0, 2), 0.5
    yield "every other, backwards", base[:, ::-1, ::2], 0.5
    yield "slope per column", base, slope_row
    yield "slope per column, backwards", base, slope_row[::-1]
    yield "slope per row", base, slope_column
    yield "slope per row of a view", base[..., ::2], slope_column
    yield "slope and Fortran", np.asfortranarray(base[0]), slope_column
    yield "slope of more dimensions", base[0, 0], slope_column
    yield "strided, one dimension", base.ravel()[::3], 0.5
    yield "broadcast", np.broadcast_to(slope_column, (4, 6)), 0.5
    yield "unaligned", unaligned, 0.5
    yield "no dimensions", np.array(-3, np.float32), 0.5
    yield "no dimensions, slopes", np.array(-3, np.float32), slope_row
    yield "scalar, slopes", np.float32(-3), slope_row
    yield "empty", base[:, :0], slope_row
    yield "empty row", base[:, :, :0], slope_column
    yield "read-only", np.frombuffer(base.tobytes(), np.float32), 0.5


@njit
def user_leaky_relu(x, slope):
    return fastrelu.leaky_relu(x, slope)


@njit
def user_leaky_relu_out(x, slope, out):
    return fastrelu.leaky_relu(x, slope, out=out)


@pytest.mark.slow
@pytest.mark.parametrize(("x", "slope"), [pytest.param(*case[1:], id=case[0]) for case in layouts()])
def test_layouts(x, slope):
    wanted = fastrelu.leaky_relu(x, slope)
    result = user_leaky_relu(x, slope)
    assert_same(np.float32(result) if np.ndim(result) == 0 else result, wanted)
    if isinstance(x, np.ndarray) and x.flags.f_contiguous and x.ndim > 1 and np.ndim(slope) == 0:
        assert result.flags.f_contiguous
    out = np.full(wanted.shape, 42, np.float64)
    assert user_leaky_relu_out(x, slope, out) is out
    assert_same(out, np.asarray(wanted, np.float64))


def test_broadcasting_errors_leave_the_data_alone():
    x, slopes = np.full(3, -1.0), np.ones(2)
    with pytest.raises(ValueError, match="broadcast"):
        user_leaky_relu(x, slopes)
    for shape in ((2,), (1,), ()):
        out = np.full(shape, 42.0)
        with pytest.raises(ValueError, match="broadcast"):
            user_leaky_relu_out(x, 0.5, out)
        assert (out == 42).all()
    assert_same(user_leaky_relu_out(np.array([-2.0]), 0.5, np.empty((2, 3))), np.full((2, 3), -1.0))


def test_refused_beside_masks_before_anything_is_written():
    @njit
    def forward(x, slope, out, mask):
        fastrelu.leaky_relu_with_mask(x, slope, out=out, mask_out=mask)

    @njit
    def backward(grad, slope, out, mask):
        fastrelu.leaky_relu_backward_from_mask(grad, mask, slope, out=out)

    x = np.array([[-1.0, 2.0, 3.0]])
    for function in (forward, backward):
        for slope, shape, length, message in (
            (np.ones((1, 2)), (1, 3), 1, "broadcast"),
            (np.ones((2, 1, 3)), (1, 3), 1, "broadcast"),
            (np.ones((1, 3)), (2, 3), 1, "out must have the shape"),
            (np.ones((1, 3)), (1, 3), 2, "one byte for every eight"),
        ):
            out, mask = np.full(shape, 42.0), np.full(length, 42, np.uint8)
            with pytest.raises(ValueError, match=message):
                function(x, slope, out, mask)
            assert (out == 42).all()
            assert (mask == 42).all()


def test_masks_of_each_layout():
    """The mask counts in C order, also of Fortran order, whose results are in that order too."""

    @njit
    def there_and_back(x, slope):
        y, mask = fastrelu.leaky_relu_with_mask(x, slope)
        return y, mask, fastrelu.leaky_relu_backward_from_mask(x, mask, slope)

    base = np.arange(-30, 30, dtype=np.float32).reshape(6, 10)
    for x in (base, base.T, base[::-1, ::3], np.array(-3, np.float32), base[:, :0]):
        for actual, wanted in zip(there_and_back(x, 0.5), there_and_back.py_func(x, 0.5), strict=True):
            assert_same(np.asarray(actual, wanted.dtype), np.asarray(wanted))
            assert np.isfortran(np.asarray(actual)) == np.isfortran(np.asarray(wanted))


def test_output_that_overlaps():
    @njit
    def backward(grad, x, out):
        return fastrelu.relu_backward(grad, x, out=out)

    def check(call, make):
        """Compare with what the public function does to the same memory outside compiled code."""
        mine, its = (np.arange(-20, 20, dtype=np.float32) for _ in range(2))
        call(*make(mine))
        call.py_func(*make(its))
        assert_same(mine, its)

    for shift in (0, 1, 3, -1, -3):
        a, b = (slice(3, 30), slice(3 + shift, 30 + shift))
        check(user_leaky_relu_out, lambda m, a=a, b=b: (m[a], 2.0, m[b]))
        check(user_leaky_relu_out, lambda m, a=a, b=b: (m[a], m[b], m[a]))
        check(backward, lambda m, a=a, b=b: (m[a], m[b], m[b]))
    check(user_leaky_relu_out, lambda m: (m, 2.0, m[::-1]))
    check(user_leaky_relu_out, lambda m: (m[:36].reshape(6, 6), 2.0, m[:36].reshape(6, 6).T))
    check(user_leaky_relu_out, lambda m: (m, m[:1], m))
    check(user_leaky_relu_out, lambda m: (m[::2], 2.0, m[1::2]))


def test_twins_return_their_array():
    @njit
    def twice(x):
        return fastrelu.leaky_relu_(fastrelu.leaky_relu_(x, 0.5), 0.5)

    x = np.array([[-4.0, 1.0]]).T
    assert twice(x) is x
    assert_same(x, np.array([[-1.0], [1.0]]))


def test_memory_is_returned():
    from numba.core.runtime import _nrt_python, rtsys

    @njit
    def work(x, out):
        kept = fastrelu.relu(x)
        fastrelu.leaky_relu(x, kept, out=out)
        fastrelu.leaky_relu_(out[1:], out[:-1])
        y, mask = fastrelu.relu_with_mask(x, out=out)
        mask = fastrelu.leaky_relu_with_mask_(y, mask_out=mask)
        fastrelu.relu_backward_from_mask(kept, mask)
        fastrelu.leaky_relu_backward_from_mask_(kept, mask, kept)
        return fastrelu.relu_(out)

    x, out = np.arange(-5.0, 5), np.empty(10)
    work(x, out)
    references = (sys.getrefcount(x), sys.getrefcount(out))
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        for _ in range(10):
            work(x, out)
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    assert after.alloc > before.alloc
    assert after.alloc - before.alloc == after.free - before.free
    assert (sys.getrefcount(x), sys.getrefcount(out)) == references


def test_fastmath_of_the_caller_keeps_the_contract():
    @njit(fastmath=True)
    def function(x):
        return fastrelu.relu_grad(x), fastrelu.leaky_relu(x, 0.0)

    x = np.array([np.nan, -np.inf, -0.0, -1.0, 2.0])
    for actual, wanted in zip(function(x), function.py_func(x)):
        assert_same(actual, wanted)


def test_parallel():
    @njit(parallel=True)
    def rows(x, out):
        for i in numba.prange(x.shape[0]):
            out[i] = fastrelu.leaky_relu(x[i], 0.5)
            for j in range(x.shape[1]):
                out[i, j] += fastrelu.relu(x[i, j])
        return fastrelu.relu_(x)

    x = np.random.default_rng(0).standard_normal((100, 33)).astype(np.float32)
    out, wanted = np.empty_like(x), fastrelu.leaky_relu(x, 0.5) + fastrelu.relu(x)
    assert rows(x, out) is x
    assert_same(out, wanted)
    assert x.min() == 0


def test_vectorize_and_guvectorize():
    @numba.vectorize(["float32(float32, float32)", "float64(float64, float64)"])
    def gate(x, y):
        return fastrelu.leaky_relu(x, 0.1) * fastrelu.relu(y)

    @numba.guvectorize(["float32[:], float32[:]"], "(n)->(n)")
    def centred(x, out):
        fastrelu.relu(x - x.mean(), out=out)

    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    assert_same(gate(x, x[::-1]), fastrelu.leaky_relu(x, 0.1) * fastrelu.relu(x[::-1]))
    np.testing.assert_allclose(centred(x), fastrelu.relu(x - x.mean(axis=1, keepdims=True)), atol=1e-6)


X, HALF, INTS = np.ones(3), np.ones(3, np.float16), np.ones(3, np.int32)
READ_ONLY = np.ones(3)
BITS = np.ones(1, np.uint8)
READ_ONLY.flags.writeable = BITS.flags.writeable = False


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (lambda x: fastrelu.relu(x, where=True), (X,), "where= is not supported in compiled code"),
        (lambda x: fastrelu.relu(x, casting="unsafe"), (X,), "casting= is not supported in compiled code"),
        (lambda x: fastrelu.relu(x, target="serial"), (X,), "target= is not supported in compiled code"),
        (lambda x: fastrelu.relu(x, x), (X,), "too many positional arguments"),
        (lambda x: fastrelu.relu(x=x), (X,), "relu.. .*'?x'?.*positional"),
        (lambda x: fastrelu.relu(), (X,), "missing a required .*argument"),
        (lambda x: fastrelu.relu(x), (HALF,), "x is array.float16.*has no float16"),
        (lambda x: fastrelu.relu(x[0]), (1j * X,), "x is complex128; accepted is"),
        (lambda x: fastrelu.relu((x, x)), (X,), "x is UniTuple.*accepted is"),
        (lambda x: fastrelu.relu("word"), (X,), "x is unicode_type; accepted is"),
        (lambda x: fastrelu.relu(None), (X,), "x is none; accepted is"),
        (lambda x: fastrelu.relu_grad(x, None), (X,), "at_zero is none; accepted is"),
        (lambda x: fastrelu.leaky_relu(x, HALF), (X,), "negative_slope is .*float16"),
        (lambda x: fastrelu.leaky_relu(x, x), (np.ones(3, np.int8),), "to float16, and compiled code has no float16"),
        (lambda x: fastrelu.relu(x, out=1.0), (X,), "out is float64; accepted is an array"),
        (lambda x: fastrelu.relu(x, out=READ_ONLY), (X,), "out is read-only"),
        (lambda x: fastrelu.relu_(x), (READ_ONLY,), "x is read-only"),
        (lambda x: fastrelu.relu(x, out=INTS), (X,), "out is .*cannot hold the result, of type float64"),
        (lambda x: fastrelu.leaky_relu_(x), (INTS,), "x is array.int32.*cannot hold the result, of type float64"),
        (lambda x: fastrelu.relu_(x[0]), (X,), "relu_ works in place and needs an array, not float64"),
        (lambda x: fastrelu.relu_(x, out=x), (X,), "unexpected keyword argument 'out': it writes to its first"),
        (lambda x: fastrelu.relu_with_mask(x[0]), (X,), "x is float64; accepted in compiled code is an array"),
        (lambda x: fastrelu.relu_with_mask(x, x), (X,), "relu_with_mask.. too many positional arguments"),
        (lambda x: fastrelu.relu_with_mask(x, where=True), (X,), "relu_with_mask.. got an unexpected.*where"),
        (lambda x: fastrelu.relu_with_mask(x, mask_out=x), (X,), "mask_out is .*accepted is a one-dimensional"),
        (lambda x: fastrelu.relu_with_mask(x, mask_out=BITS), (X,), "mask_out is read-only"),
        (lambda x: fastrelu.relu_backward_from_mask(x, None), (X,), "mask is none; accepted is a one-dimensional"),
        (lambda x: fastrelu.leaky_relu_backward_from_mask(x, BITS, None), (X,), "negative_slope is none"),
        (lambda x: fastrelu.relu_backward_from_mask_(x, BITS), (INTS,), "grad is .*cannot hold the result"),
    ],
)
def test_typing_errors(call, arguments, message):
    with pytest.raises(numba.TypingError, match=message):
        njit(call)(*arguments)


USER = """
import sys
import numba, numpy as np, fastrelu
from fastrelu import leaky_relu_
if sys.argv[1] == "compile":
    import fastrelu._njit
    fastrelu._njit.init()

@numba.njit(cache=True)
def layer(x, slope):
    leaky_relu_(x, slope)
    return fastrelu.relu_grad(x) + fastrelu.relu(x[0])

x = np.array([-2.0, 4.0])
print(layer(x, 0.5).tolist(), x.tolist(), sum(layer.stats.cache_hits.values()))
"""


def test_from_the_cache_of_a_fresh_process(tmp_path):
    """What the user's cache holds is complete: a fresh process runs it without even registering the functions."""
    (tmp_path / "user.py").write_text(USER)
    run = "import runpy, sys; sys.argv[1:] = [{!r}]; runpy.run_path({!r}, run_name='user')"
    for step, hits in (("compile", 0), ("load", 1)):
        code = run.format(step, str(tmp_path / "user.py"))
        done = run_python(code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        assert done.stdout.strip() == f"[0.0, 1.0] [-1.0, 4.0] {hits}"


def test_importing_fastrelu_leaves_numba_alone():
    run_python("import fastrelu, sys; assert 'numba' not in sys.modules and 'fastrelu._njit' not in sys.modules")


KERNEL = """
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning, module="numba")  # numba-cuda's import, of NumPy 2.5
import numpy as np, fastrelu
from numba import cuda
import fastrelu._njit
fastrelu._njit.init()

@cuda.jit
def kernel(grad, x, out):
    i = cuda.grid(1)
    if i < x.size:
        out[0, i] = fastrelu.relu(x[i])
        out[1, i] = fastrelu.leaky_relu(x[i], 0.3)
        out[2, i] = fastrelu.relu_grad(x[i], at_zero=0.5)
        out[3, i] = fastrelu.leaky_relu_grad(x[i], 0.3)
        out[4, i] = fastrelu.relu_backward(grad[i], x[i])
        out[5, i] = fastrelu.leaky_relu_backward(grad[i], x[i], at_zero=2.0)
"""

RUN = """
x = np.array([-2, -0.0, 0.0, 3, np.nan, -np.inf], np.float32)
grad = np.array([np.inf, 1, 2, 3, 4, 5], np.float32)
out = np.zeros((6, 6), np.float32)
kernel[1, 8](grad, x, out)
wanted = [
    fastrelu.relu(x), fastrelu.leaky_relu(x, 0.3), fastrelu.relu_grad(x, 0.5), fastrelu.leaky_relu_grad(x, 0.3),
    fastrelu.relu_backward(grad, x), fastrelu.leaky_relu_backward(grad, x, at_zero=2.0),
]
from fastrelu._bench.oracle import assert_same
assert_same(out, np.array(wanted))
"""


def test_cuda_kernel_in_the_simulator(tmp_path):
    (tmp_path / "kernel.py").write_text(KERNEL + RUN)
    code = f"import runpy; runpy.run_path({str(tmp_path / 'kernel.py')!r})"
    run_python(code, NUMBA_ENABLE_CUDASIM="1")


PTX = """
import re
array = numba.types.float32[:]
ptx, _ = cuda.compile_ptx(kernel.py_func, (array, array, numba.types.float32[:, :]), cc=(8, 0))
assert not re.search(r"\\.f64", ptx), "a float32 kernel computes in float64"
try:
    cuda.compile_ptx(lambda x: fastrelu.relu_(x), (array,), cc=(8, 0))
except numba.TypingError as e:
    assert "in a CUDA kernel each thread gives it numbers" in str(e)
else:
    raise AssertionError("accepted an array")
"""


def test_cuda_kernel_compiles_to_ptx(tmp_path):
    """Numba's CUDA target proper, which compiles without a GPU."""
    pytest.importorskip("numba_cuda")
    (tmp_path / "kernel.py").write_text("import numba\n" + KERNEL + PTX)
    run_python(f"import runpy; runpy.run_path({str(tmp_path / 'kernel.py')!r})", NUMBA_ENABLE_CUDASIM="0")


def test_the_entry_point():
    """Numba finds us by what the installed package says, which names a function that is there."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("the tests run outside of the repository")
    (entry,) = tomllib.loads(project.read_text())["project"]["entry-points"]["numba_extensions"].values()
    module, _, function = entry.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
