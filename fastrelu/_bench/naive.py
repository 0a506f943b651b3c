"""Numba as a user would first write it: ``@vectorize`` over the obvious formula, and loops around it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .cases import BACKWARD


def formulas(zero: Any, one: Any) -> Mapping[str, Callable[..., Any]]:
    """Return the obvious formula of each operation."""
    return {
        "relu": lambda x: x if x > zero else zero,
        "leaky_relu": lambda x, slope: x if x > zero else x * slope,
        "relu_grad": lambda x: one if x > zero else zero,
        "leaky_relu_grad": lambda x, slope: one if x > zero else slope,
        "relu_backward": lambda grad, x: grad if x > zero else zero,
        "leaky_relu_backward": lambda grad, x, slope: grad if x > zero else grad * slope,
    }


@functools.cache
def vectorized(operation: str, dtype: str, target: str) -> Any:
    """Return the compiled ufunc of an operation for "cpu" or "parallel"."""
    import numba

    formula = formulas(0, 1)[operation]
    signature = f"{dtype}({', '.join([dtype] * formula.__code__.co_argcount)})"
    return numba.vectorize([signature], target=target)(formula)


def loop(operation: str, dtype: str, function: Any) -> Any:
    """Return a user's compiled loop over one-dimensional arrays, with a function of fastrelu or the formula in it."""
    import numba

    zero, one = (np.dtype(dtype).type(value) for value in (0, 1))  # plain 0 and 1 would make the formulas float64
    f = function or numba.njit(formulas(zero, one)[operation])

    def forward(x: Any, out: Any, *slope: Any) -> None:
        for i in range(x.size):
            out[i] = f(x[i], *slope)

    def backward(grad: Any, x: Any, out: Any, *slope: Any) -> None:
        for i in range(x.size):
            out[i] = f(grad[i], x[i], *slope)

    return numba.njit(backward if operation in BACKWARD else forward)
