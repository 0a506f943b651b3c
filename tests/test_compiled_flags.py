"""Floating-point flags inside users' own compiled ufuncs, where NumPy reads them: comparisons raise none."""

import itertools
import re

import numpy as np
import pytest

import fastrelu
from fastrelu._operations import UFUNCS

from .helpers import run_python
from .test_processors import SETTINGS, lacks

numba = pytest.importorskip("numba")


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register as the entry point does, so that these tests also run from a source tree."""
    from fastrelu import _njit

    _njit.init()


#: A user's ufunc for each operation.
SCALARS = {
    "relu": lambda grad, x, slope, at_zero: fastrelu.relu(x),
    "leaky_relu": lambda grad, x, slope, at_zero: fastrelu.leaky_relu(x, slope),
    "relu_grad": lambda grad, x, slope, at_zero: fastrelu.relu_grad(x, at_zero=at_zero),
    "leaky_relu_grad": lambda grad, x, slope, at_zero: fastrelu.leaky_relu_grad(x, slope, at_zero=at_zero),
    "relu_backward": lambda grad, x, slope, at_zero: fastrelu.relu_backward(grad, x, at_zero=at_zero),
    "relu_backward by default": lambda grad, x, slope, at_zero: fastrelu.relu_backward(grad, x),
    "leaky_relu_backward": lambda grad, x, slope, at_zero: fastrelu.leaky_relu_backward(grad, x, slope),
}


def new(grad, x, slope, at_zero, out):
    out[:] = fastrelu.relu(x)
    out[:] = fastrelu.leaky_relu(x, slope)
    out[:] = fastrelu.relu_grad(x, at_zero=at_zero)
    out[:] = fastrelu.leaky_relu_grad(x, slope[0], at_zero=at_zero[0])
    out[:] = fastrelu.relu_backward(grad, x, at_zero=at_zero[0])
    out[:] = fastrelu.leaky_relu_backward(grad, x, slope, at_zero=at_zero)


def no_products(grad, x, slope, at_zero, out):
    fastrelu.relu(x, out=out)
    fastrelu.relu_grad(x, at_zero=at_zero[0], out=out)
    fastrelu.leaky_relu_grad(x, slope, at_zero=at_zero, out=out)
    fastrelu.relu_backward(grad, x, out=out)
    fastrelu.relu_backward(grad[::-1], x[::-1], out=out)


def twins(grad, x, slope, at_zero, out):
    out[:] = x
    fastrelu.leaky_relu_(out, slope)
    fastrelu.leaky_relu_grad_(out, slope, at_zero=at_zero[0])
    out[:] = x
    fastrelu.relu_grad_(out)
    out[:] = x
    fastrelu.relu_(out)
    out[:] = grad
    fastrelu.relu_backward_(out, x, at_zero=at_zero)
    fastrelu.leaky_relu_backward_(out, x, slope[0])


def masks(grad, x, slope, at_zero, out):
    _, mask = fastrelu.relu_with_mask(x, out=out)
    fastrelu.leaky_relu_with_mask(x, slope[0], out=out, mask_out=mask)
    fastrelu.relu_backward_from_mask(grad, mask, out=out)
    fastrelu.leaky_relu_backward_from_mask(grad, mask, slope, out=out)
    out[:] = x
    fastrelu.leaky_relu_with_mask_(out, slope[0])
    fastrelu.relu_with_mask_(out)
    out[:] = grad
    fastrelu.relu_backward_from_mask_(out, mask)
    fastrelu.leaky_relu_backward_from_mask_(out, mask, slope[0])


def only_masks(grad, x, slope, at_zero, out):
    _, mask = fastrelu.relu_with_mask(x, out=out)
    fastrelu.relu_backward_from_mask_(out, mask)


@pytest.fixture(scope="module", params=["float32", "float64"])
def columns(request):
    """Return grad, x and one: all pairs of what takes part in products with 1 without a flag."""
    info = np.finfo(request.param)
    values = [
        0,
        info.smallest_subnormal,
        3 * info.smallest_subnormal,
        info.smallest_normal,
        3,
        info.max,
        np.inf,
        np.nan,
    ]
    signed = np.array([*values, *(-value for value in values)], request.param)
    grad, x = np.array([*itertools.product(signed, signed)], request.param).T
    return np.ascontiguousarray(grad), np.ascontiguousarray(x), np.ones_like(x)


def signalling(column):
    """Return zeros and signalling NaNs of both signs."""
    bits = (0, 0x7FA00000, 0xFFA00000) if column.itemsize == 4 else (0, 0x7FF4 << 48, 0xFFF4 << 48)
    return np.resize(np.array(bits, f"u{column.itemsize}"), column.size).view(column.dtype)


def vectorized(function, dtype):
    kind = getattr(numba, dtype.name)
    return numba.vectorize([kind(*[kind] * 4)])(function)


def guvectorized(function, dtype):
    return numba.guvectorize([(getattr(numba, dtype.name)[:],) * 5], "(n),(n),(n),(n)->(n)")(function)


def check(ufunc, grad, x, one, parameters):
    for n, value in itertools.product((1, 5, x.size), parameters):
        with np.errstate(all="raise"):
            ufunc(grad[:n], x[:n], one[:n] * value, one[:n] * value)
            ufunc(grad[-n:], x[-n:], one[:n] * value, one[:n] * value)


@pytest.mark.parametrize("name", SCALARS)
def test_vectorize(name, columns):
    grad, x, one = columns
    own = vectorized(SCALARS[name], x.dtype)
    check(own, grad, x, one, (1, np.nan))
    if name != "leaky_relu":  # whose product with a signalling NaN raises a flag
        check(own, one, signalling(x), one, (1, np.nan))


@pytest.mark.parametrize("function", [new, no_products, twins, masks, only_masks])
def test_guvectorize(function, columns):
    grad, x, one = columns
    own = guvectorized(function, x.dtype)
    check(own, grad, x, one, (1, np.nan))
    if function in (no_products, only_masks):
        check(own, one, signalling(x), one, (1, np.nan))


def test_fast_and_parallel(columns):
    """Options of the user's do not reach into the comparisons."""
    grad, x, one = columns
    kind = getattr(numba, x.dtype.name)
    for options in ({"fastmath": True}, {"target": "parallel"}):
        check(numba.vectorize([kind(*[kind] * 4)], **options)(SCALARS["relu_backward"]), grad, x, one, (1,))


@pytest.mark.parametrize("name", UFUNCS)
def test_vectors_of_integers_are_compared(name, columns):
    """Loops stay SIMD, and no comparison that signals is among them."""
    kind = getattr(numba, columns[0].dtype.name)
    row = UFUNCS[name]
    operands = ", ".join(row.names)
    source = f"def own({operands}, out):\n    fastrelu.{name}({operands}, out=out)"
    scope = {"fastrelu": fastrelu}
    exec(source, scope)
    own = numba.njit(scope["own"])
    own.compile((*(kind[::1] if operand in row.data else kind for operand in row.names), kind[::1]))
    (assembly,) = own.inspect_asm().values()
    assert re.search(r"\tv?pcmp\w+\t.*%[xyz]mm", assembly), "no vectors"
    assert not re.findall(r"\tv?(?:u?comi|cmpn?[lg][te]\w*|min|max)[ps][sd]\t", assembly)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["SSE2 only", "AVX2", "AVX-512", "AVX-512 of 32 bytes"])
def test_on_other_processors(label, tmp_path):
    """All tests above, as other processors would run them."""
    if missing := lacks(label):
        pytest.skip(f"this processor has no {', '.join(missing)}")
    cpu, features, _ = SETTINGS[label]
    code = f"import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {__file__!r}]))"
    run_python(code, timeout=600, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path))
