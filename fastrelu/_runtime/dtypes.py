"""The types that our loops take: NumPy's, and bfloat16, which the package ml_dtypes adds to them where it is installed.

A ufunc that has no loop for bfloat16 when it first meets the type uses the one for float32, to which bfloat16 casts
safely, and remembers that for good. So our ufuncs get theirs when they are made, for which ml_dtypes must be imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: What `supported` says yes to, in words.
ACCEPTED = "bool, integers, bfloat16, float16, float32 and float64"


#: None where ml_dtypes is not installed.
BFLOAT16: np.dtype | None
try:
    import ml_dtypes

    BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
except Exception:  # broken, it may raise anything, which is nothing to calls on other types
    BFLOAT16 = None


def supported(dtype: np.dtype) -> bool:
    """Say whether our loops, or NumPy's safe casts to them, take a dtype."""
    return dtype.kind in "biu" or dtype.char in "efd" or type(dtype) is type(BFLOAT16)


def strong(kinds: Sequence[Any]) -> Sequence[Any]:
    """Return dtypes, and Python's types of numbers, with these as bfloat16 if the dtypes compute in it.

    To NumPy, a Python number leaves the choice of type to the arrays (NEP 50). Beside bfloat16 it takes it for float32.
    """
    dtypes = [kind for kind in kinds if isinstance(kind, np.dtype)]
    found = len(dtypes) < len(kinds) and any(type(kind) is type(BFLOAT16) for kind in dtypes)  # in any byte order
    if BFLOAT16 is None or not found or not all(kind is BFLOAT16 or np.can_cast(kind, BFLOAT16) for kind in dtypes):
        return kinds
    return [kind if isinstance(kind, np.dtype) else BFLOAT16 for kind in kinds]


def spelled_out(
    ufunc: np.ufunc, operands: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of a call so that NumPy treats bfloat16 as one of its own types."""
    if BFLOAT16 is None:
        return operands, kwargs
    if kwargs:
        asked = kwargs.get("dtype")
        if asked is not None and asked == BFLOAT16 and kwargs.get("signature") is None:
            # It does not find a registered loop where no operand is of its type; a signature does
            others = {key: value for key, value in kwargs.items() if key != "dtype"}
            return operands, {**others, "signature": (BFLOAT16,) * ufunc.nargs}
        if asked is not None or kwargs.get("signature") is not None:
            return operands, kwargs
    for value in operands:  # (a loop, as `any` takes a scalar's call 0.3 us more)
        if type(getattr(value, "dtype", None)) is type(BFLOAT16) and _is_numpys(value):
            break
    else:
        return operands, kwargs
    kinds = [
        getattr(value, "dtype", None) or (float if isinstance(value, (int, float)) else None) for value in operands
    ]
    if None not in kinds and strong(kinds) is not kinds:  # None: a list, of which an array is made first
        operands = [np.array(float(v), BFLOAT16) if isinstance(v, (int, float)) else v for v in operands]
    return operands, kwargs


def _is_numpys(value: Any) -> bool:
    """Say whether NumPy will see an operand as it is, or hand it to its own `__array_ufunc__`; JAX's are for later."""
    return isinstance(value, np.generic) or hasattr(type(value), "__array_ufunc__")
