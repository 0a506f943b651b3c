"""The raw ufuncs: real ``numpy.ufunc`` objects, with every argument of the operation as an operand.

``relu(x)``, ``leaky_relu(x, negative_slope)``, ``relu_grad(x, at_zero)``,
``leaky_relu_grad(x, negative_slope, at_zero)``, ``relu_backward(grad, x, at_zero)`` and
``leaky_relu_backward(grad, x, negative_slope, at_zero)``. They are what an ``__array_ufunc__`` (Dask, pandas,
xarray) sees, and pickle by name. Those ending in ``_serial`` and ``_parallel`` are the same loops with a
forced target; the public functions call them.
"""

import numpy as np

from . import _ufunc
from ._operations import OPERATIONS

__all__ = [
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_grad",
    "relu",
    "relu_backward",
    "relu_grad",
]


def _make(operation: str) -> tuple[np.ufunc, np.ufunc, np.ufunc]:
    """Return the automatic, the serial and the parallel ufunc of an operation."""
    return (
        _ufunc.make(operation, "auto", operation, __name__),
        _ufunc.make(operation, "serial", f"{operation}_serial", __name__),
        _ufunc.make(operation, "parallel", f"{operation}_parallel", __name__),
    )


relu, relu_serial, relu_parallel = _make("relu")
leaky_relu, leaky_relu_serial, leaky_relu_parallel = _make("leaky_relu")
relu_grad, relu_grad_serial, relu_grad_parallel = _make("relu_grad")
leaky_relu_grad, leaky_relu_grad_serial, leaky_relu_grad_parallel = _make("leaky_relu_grad")
relu_backward, relu_backward_serial, relu_backward_parallel = _make("relu_backward")
leaky_relu_backward, leaky_relu_backward_serial, leaky_relu_backward_parallel = _make("leaky_relu_backward")

_TABLE = {
    (name, target): globals()[name if target == "auto" else f"{name}_{target}"]
    for name in OPERATIONS
    for target in ("auto", "serial", "parallel")
}


def of(name: str, target: str) -> np.ufunc:
    """Return the ufunc of an operation for "auto", "serial" or "parallel"."""
    ufunc: np.ufunc = _TABLE[name, target]
    return ufunc
