"""Every operation and type, bit for bit against the oracle, at sizes around vectors, tiles, blocks and grids."""

import numpy as np
import pytest

from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import executor
from fastrelu._operations import UFUNCS

from .data import FLOATS, Guarded, operands_for, specials, to_device

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65)
CASES = [(name, code) for name in UFUNCS for code in FLOATS]


def on_device(values):
    return [to_device(value) if isinstance(value, np.ndarray) else value for value in values]


@pytest.mark.parametrize(("name", "code"), CASES)
def test_sizes(name, code, shape_of_launch):
    for n in SIZES:
        values = operands_for(name, code, n)
        result = executor.call(name, on_device(values), None, None, {})
        assert_same(result.copy_to_host(), expected(name, values, code), f"{name} {code} {n}")


@pytest.mark.parametrize("code", "?bBhHiIlLqQ")
def test_relu_of_integers(code, shape_of_launch):
    for n in (1, 15, 16, 17, 47, 130):
        x = specials(code, n)
        result = executor.call("relu", (to_device(x),), None, None, {})
        assert_same(result.copy_to_host(), expected("relu", (x,), x.dtype), f"{code} {n}")


@pytest.mark.parametrize(("name", "code"), CASES)
@pytest.mark.parametrize("offset", range(8))
def test_heads_and_tails_write_nothing_else(name, code, offset, tiny_blocks):
    values = operands_for(name, code, 37)
    guards = [Guarded(value, offset) for value in values if isinstance(value, np.ndarray)]
    device = [*(guard.array for guard in guards), *(value for value in values if not isinstance(value, np.ndarray))]
    out = Guarded(np.zeros(37, code), offset)
    assert executor.call(name, device, out.array, None, {}) is out.array
    assert_same(out.array.copy_to_host(), expected(name, values, code))
    executor.call(name, device, device[0], None, {})  # in place
    assert_same(guards[0].array.copy_to_host(), expected(name, values, code))
    for guard in (*guards, out):
        guard.check()


@pytest.mark.parametrize("code", FLOATS)
def test_operands_that_are_not_aligned_alike(code, tiny_blocks):
    values = operands_for("relu_backward", code, 37)
    grad, x = Guarded(values[0], 1), Guarded(values[1], 2)
    out = Guarded(np.zeros(37, code), 3)
    executor.call("relu_backward", (grad.array, x.array, 0.5), out.array, None, {})
    assert_same(out.array.copy_to_host(), expected("relu_backward", (*values[:2], 0.5), code))
    out.check()


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("slope", [0.0, -0.0, 2.5, -1.0, np.inf, -np.inf, np.nan, 1e300, 1e-300, 3])
def test_any_slope(code, slope, tiny_blocks):
    for name, rest in (("leaky_relu", ()), ("leaky_relu_grad", (slope,)), ("leaky_relu_backward", (slope,))):
        values = [*operands_for(name, code, 29)[: 2 if "backward" in name else 1], slope, *rest]
        result = executor.call(name, on_device(values), None, None, {})
        assert_same(result.copy_to_host(), expected(name, values, code), f"{name} {slope}")


@pytest.mark.parametrize("code", FLOATS)
def test_a_dead_unit_is_a_selection(code, tiny_blocks):
    grad = np.array([np.inf, -np.inf, np.nan, -1, np.inf, np.nan], dtype=code)
    x = np.array([-1, -1, -np.inf, -1, 0.0, -0.0], dtype=code)
    result = executor.call("relu_backward", (to_device(grad), to_device(x), 0.0), None, None, {})
    assert_same(result.copy_to_host(), np.zeros(6, code))


def test_every_float16_is_rounded_once(monkeypatch):
    from fastrelu._cuda import settings

    monkeypatch.setattr(settings, "BLOCK", 64)
    x = np.arange(0x8000, 0x10000, 3, dtype=np.uint16).view(np.float16)
    for slope in (0.01, 0.3333):
        result = executor.call("leaky_relu", (to_device(x), slope), None, None, {})
        assert_same(result.copy_to_host(), expected("leaky_relu", (x, slope), "e"))


@pytest.mark.skipif("bfloat16" not in FLOATS, reason="ml_dtypes is not installed")
def test_every_bfloat16_is_rounded_once(monkeypatch):
    from fastrelu._cuda import settings

    monkeypatch.setattr(settings, "BLOCK", 64)
    x = np.arange(0x8000, 0x10000, 3, dtype=np.uint16).view("bfloat16")
    for slope in (0.01, 1e-38):
        result = executor.call("leaky_relu", (to_device(x), slope), None, None, {})
        assert_same(result.copy_to_host(), expected("leaky_relu", (x, slope), "bfloat16"))


def test_operations_have_cases():
    assert {name for name, _ in CASES} == set(UFUNCS)
    assert set("?bBhHiIlLqQefd") == set(UFUNCS["relu"].typecodes)
