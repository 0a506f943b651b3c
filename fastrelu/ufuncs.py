"""The raw ufuncs: real ``numpy.ufunc`` objects, with every argument of the operation as an operand.

``relu(x)``, ``leaky_relu(x, negative_slope)``, ``relu_grad(x, at_zero)``,
``leaky_relu_grad(x, negative_slope, at_zero)``, ``relu_backward(grad, x, at_zero)`` and
``leaky_relu_backward(grad, x, negative_slope, at_zero)``. They are what an ``__array_ufunc__`` (Dask, pandas,
xarray) sees, whatever the target, and pickle by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._operations import UFUNCS
from ._runtime import ufunc_objects

__all__ = [
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_grad",
    "relu",
    "relu_backward",
    "relu_grad",
]


def _make(operation: str) -> np.ufunc:
    return ufunc_objects.make(operation, __name__)


relu = _make("relu")
leaky_relu = _make("leaky_relu")
relu_grad = _make("relu_grad")
leaky_relu_grad = _make("leaky_relu_grad")
relu_backward = _make("relu_backward")
leaky_relu_backward = _make("leaky_relu_backward")

_TABLE: dict[str, np.ufunc] = {name: globals()[name] for name in UFUNCS}


def of(name: str) -> np.ufunc:
    """Return the ufunc of an operation."""
    return _TABLE[name]


def loop_dtype(name: str, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> np.dtype:
    """Return the type of the loop that NumPy would choose."""
    weak = (int, float, complex)
    kinds = [type(v) if type(v) in weak else np.asarray(v).dtype for v in operands]
    # Without casting=, which does not choose a loop: NumPy 2.4 dies of casting="equiv" next to a Python float
    signature = kwargs.get("signature", kwargs.get("sig"))
    options = {} if signature is None else {"signature": signature}
    if kwargs.get("dtype") is not None:
        options["signature"] = (None,) * len(operands) + (np.dtype(kwargs["dtype"]),)
    result: np.dtype = of(name).resolve_dtypes((*kinds, None), **options)[-1]
    return result
