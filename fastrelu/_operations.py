"""The table of operations: which operands each one takes, in order, and which types it has loops for."""

import numpy as np

#: ``grad`` and ``x`` are data, and so is a ``mask``; the other operands are parameters, usually scalars.
OPERATIONS = {
    "relu": ("x",),
    "leaky_relu": ("x", "negative_slope"),
    "relu_grad": ("x", "at_zero"),
    "leaky_relu_grad": ("x", "negative_slope", "at_zero"),
    "relu_backward": ("grad", "x", "at_zero"),
    "leaky_relu_backward": ("grad", "x", "negative_slope", "at_zero"),
}
DATA = ("grad", "x", "mask")

#: NumPy type characters. float16 comes first: NumPy takes the first loop that an input casts to safely.
FLOATS = "efd"
#: Both ``l`` and ``q`` are there because NumPy has a type object for each C type, also where sizes agree.
INTEGERS = "?bBhHiIlLqQ"


_OF_INTEGERS = ("relu", "relu_with_mask", "relu_with_counts", "count_active")


def typecodes(name: str) -> str:
    """Return the type characters for which an operation has a loop of its own."""
    return INTEGERS + FLOATS if name in _OF_INTEGERS else FLOATS


#: Functions that write or read a mask, one bit per element of the data, beside their operands.
MASKED = {
    "relu_with_mask": ("x",),
    "leaky_relu_with_mask": ("x", "negative_slope"),
    "relu_backward_from_mask": ("grad", "mask"),
    "leaky_relu_backward_from_mask": ("grad", "mask", "negative_slope"),
}
#: Functions that sum something per unit in their pass: counts of positive elements, or terms of a slope's gradient.
SUMMED = {
    "relu_with_counts": ("x",),
    "leaky_relu_with_counts": ("x", "negative_slope"),
    "count_active": ("x",),
    "leaky_relu_slope_grad": ("grad", "x"),
    "leaky_relu_backward_with_slope_grad": ("grad", "x", "negative_slope"),
}
#: The operation whose result each of them writes; the others write none.
WRITTEN = {
    "relu_with_counts": "relu",
    "leaky_relu_with_counts": "leaky_relu",
    "leaky_relu_backward_with_slope_grad": "leaky_relu_backward",
}
ARGUMENTS = {**OPERATIONS, **MASKED, **SUMMED}


def sums_of(name: str, dtype: np.dtype) -> list[np.dtype]:
    """Return the types of a function's sums in the kernel: a count, a sum, or a sum and its error."""
    if "grad" not in SUMMED[name]:
        return [np.dtype(np.int32)]
    return [np.dtype(np.float64)] * (2 if dtype == np.float64 else 1)
