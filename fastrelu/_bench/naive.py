"""Numba as a user would first write it: ``@vectorize`` over the obvious formula, and loops around it."""

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


def loop(operation: str, dtype: str, function: Any) -> Any:
    """Return a user's compiled loop over one-dimensional arrays, with a function of fastrelu or the formula in it."""
    import numba
    import numpy as np

    zero, one = (np.dtype(dtype).type(value) for value in (0, 1))  # plain 0 and 1 would make the formulas float64
    by_hand = {
        "relu": lambda x: x if x > zero else zero,
        "leaky_relu": lambda x, slope: x if x > zero else x * slope,
        "relu_grad": lambda x: one if x > zero else zero,
        "leaky_relu_grad": lambda x, slope: one if x > zero else slope,
        "relu_backward": lambda grad, x: grad if x > zero else zero,
        "leaky_relu_backward": lambda grad, x, slope: grad if x > zero else grad * slope,
    }
    f = function or numba.njit(by_hand[operation])
    if operation in ("relu", "relu_grad"):

        def run(x: Any, out: Any) -> None:
            for i in range(x.size):
                out[i] = f(x[i])

    elif operation == "relu_backward":

        def run(grad: Any, x: Any, out: Any) -> None:  # type: ignore[misc]
            for i in range(x.size):
                out[i] = f(grad[i], x[i])

    elif operation == "leaky_relu_backward":

        def run(grad: Any, x: Any, slope: Any, out: Any) -> None:  # type: ignore[misc]
            for i in range(x.size):
                out[i] = f(grad[i], x[i], slope)

    else:

        def run(x: Any, slope: Any, out: Any) -> None:  # type: ignore[misc]
            for i in range(x.size):
                out[i] = f(x[i], slope)

    return numba.njit(run)
