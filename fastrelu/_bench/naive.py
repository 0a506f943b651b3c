"""Numba as a user would first write it: ``@vectorize`` over the obvious formula, with explicit signatures."""

from __future__ import annotations

import functools
from typing import Any

_FORMULAS = {
    "relu": (1, lambda x: x if x > 0 else 0),
    "leaky_relu": (2, lambda x, slope: x if x > 0 else x * slope),
    "relu_grad": (1, lambda x: 1 if x > 0 else 0),
    "leaky_relu_grad": (2, lambda x, slope: 1 if x > 0 else slope),
    "relu_backward": (2, lambda grad, x: grad if x > 0 else 0),
    "leaky_relu_backward": (3, lambda grad, x, slope: grad if x > 0 else grad * slope),
}


@functools.cache
def vectorized(operation: str, dtype: str, target: str) -> Any:
    """Return the compiled ufunc of an operation for "cpu" or "parallel"."""
    import numba

    count, formula = _FORMULAS[operation]
    signature = f"{dtype}({', '.join([dtype] * count)})"
    return numba.vectorize([signature], target=target)(formula)
