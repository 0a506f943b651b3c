"""The raw ufuncs: real ``numpy.ufunc`` objects, one per element-wise function, with every parameter as an operand.

``relu(x)``, ``leaky_relu(x, negative_slope)``, ``leaky_relu_backward(grad, x, negative_slope, at_zero)`` and so on;
each one's docstring names its operands. They are what an ``__array_ufunc__`` (Dask, pandas, xarray) sees, whatever the
target, and pickle by name.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._operations import UFUNCS
from ._runtime import ufunc_objects

_TABLE: dict[str, np.ufunc] = {name: ufunc_objects.make(name, __name__) for name in UFUNCS}
globals().update(_TABLE)
__all__ = tuple(_TABLE)

if TYPE_CHECKING:

    def __getattr__(name: str) -> np.ufunc: ...


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
