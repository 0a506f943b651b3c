"""bfloat16, which the package ml_dtypes adds to NumPy: recognised, and given its loops, without importing it.

NumPy learns of the type when ml_dtypes is imported, before or after us. A ufunc that has no loop for it by then would
use the one for float32, to which bfloat16 casts safely, and remember that for good: a loop that is registered later is
never found. So our ufuncs answer when they are asked. Where NumPy meets types that are new to a ufunc, it calls
the ufunc's *type resolver*, and remembers the answer. We put a native function in the place of NumPy's own, which
registers the loop first, if the type is there, and then calls NumPy's. No other call notices.
"""

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from .._runtime import untraced
from .._runtime.native import INT, VOID, WORD, python_function

#: Its name, and ours for its loops, which are there before NumPy has a dtype for them.
NAME, ITEMSIZE = "bfloat16", 2

# Where NumPy keeps a ufunc's type resolver: after eight numbers and twelve pointers. Part of its binary interface.
_TYPE_RESOLVER = object.__basicsize__ + 128

_found: np.dtype | None = None


def bfloat16() -> np.dtype | None:
    """Return the dtype; None as long as nobody has imported ml_dtypes, and so nobody can have such an array."""
    global _found
    if _found is None:
        scalar = getattr(sys.modules.get("ml_dtypes"), NAME, None)
        _found = None if scalar is None else np.dtype(scalar)
    return _found


def emit(module: ir.Module, meet: Callable[[np.ufunc], None], resolve: int) -> None:
    """Add the function "resolve_types" to a module; it calls ``meet(ufunc)``, then NumPy's resolver at an address."""
    function = ir.Function(module, ir.FunctionType(INT, [WORD, INT, WORD, WORD, WORD]), "resolve_types")
    builder = ir.IRBuilder(function.append_basic_block())
    failed, met = function.append_basic_block(), function.append_basic_block()
    result = untraced.call_one(builder, meet, function.args[0])
    builder.cbranch(builder.icmp_unsigned("==", result, WORD(0)), failed, met)
    builder.position_at_end(failed)
    builder.ret(INT(-1))
    builder.position_at_end(met)
    python_function(builder, "Py_DecRef", VOID, result)
    builder.ret(builder.call(builder.inttoptr(WORD(resolve), function.type), function.args))


def ask_first(ufunc: np.ufunc, address: int, resolve: int) -> None:
    """Make NumPy call the function at an address where it called its own resolver."""
    place = ctypes.c_size_t.from_address(id(ufunc) + _TYPE_RESOLVER)
    if place.value != resolve:
        raise ImportError("a ufunc does not keep its type resolver where it did")
    place.value = address


def strong(kinds: Sequence[Any]) -> Sequence[Any]:
    """Return dtypes, and Python's types of numbers, with these as bfloat16 if the dtypes compute in it.

    To NumPy, a Python number leaves the choice of type to the arrays (NEP 50). Beside bfloat16 it takes it for float32.
    """
    dtype = bfloat16()
    dtypes = [kind for kind in kinds if isinstance(kind, np.dtype)]
    found = len(dtypes) < len(kinds) and any(type(kind) is type(dtype) for kind in dtypes)  # in any byte order
    if dtype is None or not found or not all(kind is dtype or np.can_cast(kind, dtype) for kind in dtypes):
        return kinds
    return [kind if isinstance(kind, np.dtype) else dtype for kind in kinds]


def spelled_out(
    ufunc: np.ufunc, operands: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of a call so that NumPy treats bfloat16 as one of its own types."""
    dtype = bfloat16()
    if dtype is None:
        return operands, kwargs
    if kwargs:
        asked = kwargs.get("dtype")
        if asked is not None and asked == dtype and kwargs.get("signature") is None:
            # It does not find a registered loop where no operand is of its type; a signature does, after a first use
            ufunc.resolve_dtypes((*[dtype] * ufunc.nin, None))
            others = {key: value for key, value in kwargs.items() if key != "dtype"}
            return operands, {**others, "signature": (dtype,) * ufunc.nargs}
        if asked is not None or kwargs.get("signature") is not None:
            return operands, kwargs
    for value in operands:
        if type(getattr(value, "dtype", None)) is type(dtype) and _is_numpys(value):
            break
    else:
        return operands, kwargs
    kinds = [
        getattr(value, "dtype", None) or (float if isinstance(value, (int, float)) else None) for value in operands
    ]
    if None not in kinds and strong(kinds) is not kinds:  # None: a list, of which an array is made first
        operands = [np.array(float(v), dtype) if isinstance(v, (int, float)) else v for v in operands]
    return operands, kwargs


def _is_numpys(value: Any) -> bool:
    """Say whether NumPy will see an operand as it is, or hand it to its own `__array_ufunc__`; JAX's are for later."""
    return isinstance(value, np.generic) or hasattr(type(value), "__array_ufunc__")
