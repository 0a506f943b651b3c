"""How a call in compiled code is read: which parameter each argument is for, what is refused, and what types follow."""

import functools
import inspect
from typing import NamedTuple

import numpy as np
from numba.core import errors, types
from numba.np.numpy_support import as_dtype, from_dtype

from .. import ufuncs
from .._api import bitmask, elementwise
from .._operations import FUNCTIONS, ROWS

#: The public functions that compiled code knows: those without sums.
PUBLIC = {
    name: getattr(bitmask if row.has_bitmask else elementwise, name) for name, row in FUNCTIONS.items() if not row.sums
}
BITMASK = types.Array(types.uint8, 1, "C")

_ACCEPTED = "a boolean, an integer, float32 or float64, or an array of these"


class Plan(NamedTuple):
    """What the types of a call's arguments decide."""

    sources: dict[str, str]  #: which parameter each operand but a mask comes from
    computed: types.Type  #: the type to compute in
    computes: types.Type  #: the type of the array or the number that the formula gives
    out: str  #: the parameter that holds this array, or nothing
    result: types.Type  #: the type of what the call returns, with the mask where it writes one


@functools.cache
def flat(name):
    """Return the signature by which Numba puts arguments in order: all parameters by position or by name."""
    named = [p for p in inspect.signature(PUBLIC[name]).parameters.values() if p.kind is not p.VAR_KEYWORD]
    # Numba's own folding of keyword-only parameters takes positional arguments for them
    return inspect.Signature([p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in named])


def is_none(kind):
    return isinstance(kind, types.NoneType) or (isinstance(kind, types.Omitted) and kind.value is None)


def bind(name, args, kws):
    """Return the type of each parameter of a call, in order, defaults included; refuse what Python would."""
    try:
        given = inspect.signature(PUBLIC[name]).bind(*args, **dict(kws)).arguments
    except TypeError as e:
        raise errors.TypingError(f"{name}() {e}") from None
    unsupported = list(given.pop("ufunc_kwargs", {}))
    if name != FUNCTIONS[name].name and "out" in unsupported:
        raise errors.TypingError(f"{name}() got an unexpected keyword argument 'out': it writes to its first argument")
    if unsupported:
        raise errors.TypingError(f"{name}: {unsupported[0]}= is not supported in compiled code")
    if not is_none(given.get("target", types.none)):
        raise errors.TypingError(
            f"{name}: target= is not supported in compiled code, which runs where its caller runs; leave it out"
        )
    kinds = {}
    for key, parameter in flat(name).parameters.items():
        kind = given.get(key, types.none if parameter.default is None else types.float64)
        kinds[key] = types.none if is_none(kind) else types.unliteral(kind)
    return kinds


def _check(name, argument, kind):
    """Refuse what is neither a number nor an array that the contract knows."""
    element = kind.dtype if isinstance(kind, types.Array) else kind
    if element == types.float16:
        raise errors.TypingError(
            f"{name}: {argument} is {kind}, and compiled code has no float16, because Numba has none on the CPU; "
            "convert to float32, or call fastrelu outside compiled code"
        )
    if not isinstance(element, (types.Boolean, types.Integer, types.Float)):
        raise errors.TypingError(f"{name}: {argument} is {kind}; accepted is {_ACCEPTED}")


def _check_mask(name, argument, kind):
    if not (isinstance(kind, types.Array) and kind.ndim == 1 and kind.dtype == types.uint8):
        raise errors.TypingError(f"{name}: {argument} is {kind}; accepted is a one-dimensional array of uint8")


def _check_output(name, argument, kind, computed):
    """Refuse what cannot be written to."""
    if not isinstance(kind, types.Array):
        raise errors.TypingError(f"{name}: {argument} is {kind}; accepted is an array")
    _check(name, argument, kind)
    if not kind.mutable:
        raise errors.TypingError(f"{name}: {argument} is read-only")
    if not np.can_cast(as_dtype(computed), as_dtype(kind.dtype), "same_kind"):
        raise errors.TypingError(f"{name}: {argument} is {kind}, which cannot hold the result, of type {computed}")


def _computed_type(name, row, kinds):
    """Return the type that an operation computes in, by NumPy's rules.

    Numba has one type for ``float`` and ``numpy.float64``. So a scalar parameter, and scalar data next to an array
    of data, count as Python numbers, which leave the type of the array alone.
    """
    weak_data = any(isinstance(kinds[key], types.Array) for key in row.data)
    asked = []
    for operand, kind in zip(ROWS[row.like].operands, row.operands_of_ufunc(kinds), strict=True):
        is_data = operand.kind == "data"
        if isinstance(kind, types.Array):
            asked.append(as_dtype(kind.dtype))
        elif is_data and (not weak_data or kind == types.boolean):
            asked.append(as_dtype(kind))
        else:
            asked.append(int if is_data and isinstance(kind, types.Integer) else float)
    try:
        dtype = ufuncs.of(row.like).resolve_dtypes((*asked, None))[-1]
    except TypeError as e:
        raise errors.TypingError(f"{name}: {e}") from None
    if dtype == np.float16:
        raise errors.TypingError(
            f"{name}: NumPy promotes {' and '.join(map(str, kinds.values()))} to float16, and compiled code has no "
            "float16, because Numba has none on the CPU; convert one of them to float32"
        )
    return from_dtype(dtype)


def _new_type(row, computed, kinds):
    """Return the type of a new result."""
    arrays = [kind for kind in kinds.values() if isinstance(kind, types.Array)]
    shaped = [kinds[row.names[0]]] if row.has_bitmask else arrays
    ndim = max((kind.ndim for kind in shaped), default=0)
    if ndim == 0:
        return computed  # NumPy, too, gives a scalar for arrays without dimensions
    fortran = ndim > 1 and all(kind.layout == "F" and kind.ndim == ndim for kind in arrays)
    return types.Array(computed, ndim, "F" if fortran else "C")


def plan(name, bound):
    """Return what follows from the types of a call's arguments, or refuse them."""
    row, in_place = FUNCTIONS[name], name != FUNCTIONS[name].name
    sources = {
        each.name: each.follows if each.follows and is_none(bound[each.name]) else each.name
        for each in row.operands
        if each.kind != "bitmask"
    }
    kinds = {each: bound[source] for each, source in sources.items()}
    for operand, kind in kinds.items():
        _check(name, operand, kind)
    first = row.names[0]
    if not isinstance(bound[first], types.Array):
        if row.has_bitmask:
            raise errors.TypingError(f"{name}: {first} is {bound[first]}; accepted in compiled code is an array")
        if in_place:
            raise errors.TypingError(f"{name} works in place and needs an array, not {bound[first]}")
    computed = _computed_type(name, row, kinds)
    out = first if in_place else "" if is_none(bound["out"]) else "out"
    if out:
        _check_output(name, out, bound[out], computed)
    computes = bound[out] if out else _new_type(row, computed, kinds)
    result = computes
    if row.reads_bitmask:
        _check_mask(name, "mask", bound["mask"])
    if row.writes_bitmask:
        mask = BITMASK if is_none(bound["mask_out"]) else bound["mask_out"]
        _check_mask(name, "mask_out", mask)
        _check_output(name, "mask_out", mask, types.uint8)
        result = mask if in_place else types.Tuple([computes, mask])
    return Plan(sources, computed, computes, out, result)
