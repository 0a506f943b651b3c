"""What every operation must give, one number at a time, in plain Python that shares no code with the package.

Python floats are float64. A float32 or float16 product is computed exactly in float64 (24 + 24 and 11 + 11 bits fit
53) and rounded once by `struct`, which rounds to nearest, ties to even, as IEEE 754 and NumPy do. Of bfloat16, whose
product is a float32 by definition (exact, but for subnormal numbers), the upper half of those bits is kept.
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._operations import UFUNCS

_FORMATS = {"float16": "<e", "bfloat16": "<f", "float32": "<f"}


def _round(value: float, dtype: np.dtype) -> float:
    """Round to the nearest number of a floating-point type."""
    layout = _FORMATS.get(dtype.name)
    if layout is None or math.isnan(value) or math.isinf(value):
        return value
    try:
        rounded: float = struct.unpack(layout, struct.pack(layout, value))[0]
    except OverflowError:
        rounded = math.copysign(math.inf, value)
    return _upper_half(rounded) if dtype.name == "bfloat16" else rounded


def _upper_half(value: float) -> float:
    """Round a float32 number to 8 significant bits, or to fewer where it is subnormal."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    upper, lower = divmod(bits, 1 << 16)
    if lower > 1 << 15 or (lower == 1 << 15 and upper % 2):
        upper += 1
    nearest: float = struct.unpack("<f", struct.pack("<I", upper << 16))[0]
    return nearest


def _times(a: float, b: float, dtype: np.dtype) -> float:
    return _round(a * b, dtype)


def relu(x: float, *, dtype: np.dtype) -> float:
    """Return 0 where x < 0, else x."""
    return type(x)(0) if x < 0 else x


def leaky_relu(x: float, negative_slope: float, *, dtype: np.dtype) -> float:
    """Return x * slope where x < 0, else x."""
    return _times(x, negative_slope, dtype) if x < 0 else x


def relu_grad(x: float, at_zero: float, *, dtype: np.dtype) -> float:
    """Return numpy.heaviside(x, at_zero)."""
    return x if math.isnan(x) else at_zero if x == 0 else float(x > 0)


def leaky_relu_grad(x: float, negative_slope: float, at_zero: float, *, dtype: np.dtype) -> float:
    """Return the slope, the value at zero, 1, or NaN."""
    return x if math.isnan(x) else at_zero if x == 0 else 1.0 if x > 0 else negative_slope


def relu_backward(grad: float, x: float, at_zero: float, *, dtype: np.dtype) -> float:
    """Return the gradient with respect to x; a dead unit is a selection, never a product."""
    if x < 0 or (x == 0 and at_zero == 0):
        return 0.0
    return _times(grad, at_zero, dtype) if x == 0 else grad


def leaky_relu_backward(grad: float, x: float, negative_slope: float, at_zero: float, *, dtype: np.dtype) -> float:
    """Return the gradient with respect to x; always a product below and at zero."""
    if x < 0:
        return _times(grad, negative_slope, dtype)
    return _times(grad, at_zero, dtype) if x == 0 else grad


ORACLES: dict[str, Callable[..., Any]] = {name: globals()[name] for name in UFUNCS}


def expected(name: str, operands: Sequence[Any], dtype: Any) -> np.ndarray:
    """Return what an operation must give for operands that broadcast, computed element by element.

    `operands` are all of the operation's operands, parameters included; they are converted to `dtype`, which is
    the type of the result, before the computation, as NumPy does.
    """
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        arrays = np.broadcast_arrays(*(np.asarray(operand).astype(dtype) for operand in operands))
        if dtype.name == "bfloat16":  # its lists would hold objects of its own
            columns = [array.astype("d").ravel().tolist() for array in arrays]
        else:
            columns = [array.ravel().tolist() for array in arrays]
        oracle = ORACLES[name]
        values = [oracle(*row, dtype=dtype) for row in zip(*columns, strict=True)]
        return np.array(values, dtype=dtype).reshape(arrays[0].shape)


def mask(x: Any) -> np.ndarray:
    """Return where x is active, NaN included: one bit per element in C order, the first in a byte's lowest bit."""
    flags = [not value <= 0 for value in np.asarray(x).ravel().tolist()]
    sums = [sum(flag << k for k, flag in enumerate(flags[first : first + 8])) for first in range(0, len(flags), 8)]
    return np.array(sums, dtype=np.uint8)


def same_bits(a: Any, b: Any) -> np.ndarray:
    """Say for each element whether two arrays of one type hold the same bits; any NaN equals any NaN."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        raise AssertionError(f"{a.dtype}{a.shape} is not {b.dtype}{b.shape}")
    bits = f"u{a.itemsize}"
    equal = np.ascontiguousarray(a).view(bits).reshape(a.shape) == np.ascontiguousarray(b).view(bits).reshape(b.shape)
    if a.dtype.kind == "f" or a.dtype.name == "bfloat16":
        with np.errstate(all="ignore"):  # ml_dtypes raises flags for some NaNs
            equal |= np.isnan(a) & np.isnan(b)
    return np.asarray(equal)


def assert_same(actual: Any, wanted: Any, label: str = "") -> None:
    """Raise AssertionError with the first difference where two arrays are not the same bits."""
    equal = same_bits(actual, wanted)
    if not equal.all():
        where = tuple(int(k) for k in np.argwhere(~equal)[0])
        raise AssertionError(
            f"{label}: {np.count_nonzero(~equal)} of {equal.size} differ, first at {where}: "
            f"{np.asarray(actual)[where]!r} is not {np.asarray(wanted)[where]!r}"
        )
