"""Element-wise functions, their twins and their ufuncs, with NumPy's own ufuncs beside them.

Values are those of the plain-Python oracle; type, layout and refusal those of NumPy's own ufuncs where it has one of as
many operands, else of NumPy's rules.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrelu import ufuncs
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._operations import UFUNCS

from ..helpers import BINARY, OPERATIONS, in_context, public
from . import overlap
from .cases import Case, Refused, Result, Skipped, Wanted, Wrong
from .memory import FLOATS, INTEGERS, NATIVE, POOLS, SELF_OVERLAPPING, SWAPPED, Draw, Place

#: The parameters of each operation, in order.
PARAMETERS = {name: tuple(each.name for each in row.parameters) for name, row in UFUNCS.items()}


@dataclass(kw_only=True)
class Elementwise(Case):
    """A call of a public function, a twin or a ufunc; parameters that are missing take their defaults."""

    form: str  # "public", "twin" or "raw"
    operands: list[Any]
    given: dict[str, Any]
    out: Place | None
    kwargs: dict[str, Any]

    def wanted(self, memory: list[np.ndarray]) -> dict[str, Wanted]:
        return {"result": _wanted(self, memory)}

    def call(self, array: Callable[[Any], Any]) -> dict[str, Result]:
        data = [array(operand) for operand in self.operands]
        given = {key: array(value) for key, value in self.given.items()}
        kwargs = {key: array(value) for key, value in self.kwargs.items()}
        out = array(self.out)
        if self.form == "raw":
            function = in_context(self.target, ufuncs.of(self.name))
            operands = [*data, *given.values()]
            if out is None:
                return {"result": Result(function(*operands, **kwargs), None)}
            if self.style == 0:
                return {"result": Result(function(*operands, out, **kwargs), out)}
            return {"result": Result(function(*operands, out=(out,) if self.style == 1 else out, **kwargs), out)}
        if self.target is not None:
            kwargs["target"] = self.target
        if out is not None:
            kwargs["out"] = (out,) if self.style == 1 else out
        positional = list(itertools.takewhile(given.__contains__, PARAMETERS[self.name])) if self.style else []
        named = {key: value for key, value in given.items() if key not in positional}
        function = public(self.name, self.form == "twin")
        result = function(*data, *(given[key] for key in positional), **named, **kwargs)
        return {"result": Result(result, data[0] if self.form == "twin" else out)}

    @property
    def leaves_gaps(self) -> bool:
        """Say whether some of a new result is not computed, of which NumPy may warn."""
        return "where" in self.kwargs and self.out is None and self.form != "twin"

    @property
    def loud(self) -> bool:
        """Say whether NumPy converts nothing in a raw call, so that no warning may come of it."""
        if self.form != "raw":
            return True
        values = (*self.operands, *self.given.values(), self.out)
        dtypes = {value.dtype for value in values if isinstance(value, Place)}
        scalars = [value for value in values[:-1] if not isinstance(value, Place)]
        floats = all(dtype.kind == "f" for dtype in dtypes)
        return len(dtypes) == 1 and floats and not scalars and not {"dtype", "signature"} & set(self.kwargs)


def draw(drawn: Draw) -> Elementwise:
    """Draw a case."""
    rng = drawn.rng
    name = rng.choice(OPERATIONS)
    form = rng.choices(("public", "twin", "raw"), (45, 25, 30))[0]
    shape, main = drawn.shape(), drawn.dtype()
    if name == "relu" and drawn.chance(0.3):
        main = (SWAPPED if drawn.chance(0.1) else NATIVE)[rng.choice(INTEGERS)]
    mixed = 0.5 if drawn.chance(0.15) else 0.02
    drawn.only_bool = main.char == "?"
    operands: list[Any] = []
    for k in range(1 + (name in BINARY)):
        dtype = drawn.dtype() if drawn.chance(mixed) else main
        first = form == "twin" and k == 0
        if first or drawn.chance(0.95):
            part = shape if first else drawn.part(shape, 0.85)
            operands.append(drawn.place(dtype, part, output=first, crowded=SELF_OVERLAPPING * first))
        elif drawn.chance(0.3):
            operands.append(POOLS[dtype.char][:6].tolist())
        else:
            operands.append(drawn.value(dtype, "raw"))
    if len(operands) == 2 and drawn.chance(0.03):
        operands[1] = operands[0]
    given: dict[str, Any] = {}
    for parameter in PARAMETERS[name]:
        kind = rng.random()
        if kind < 0.25 and form != "raw":
            continue
        if kind < 0.3 and form != "raw" and parameter == "at_zero" and name.startswith("leaky"):
            given[parameter] = None
        else:
            given[parameter] = drawn.parameter(main, shape, form, mixed)
    if drawn.chance(0.02):  # shapes that do not agree, or that agree in another way
        wrong = [k for k, operand in enumerate(operands) if isinstance(operand, Place)]
        if wrong:
            k = rng.choice(wrong)
            other = drawn.other(operands[k].shape)
            operands[k] = drawn.place(operands[k].dtype, other, output=form == "twin" and k == 0)
    kwargs = _keywords(drawn, name, shape, main)
    out = None
    if form != "twin" and drawn.chance(0.5):
        places = [operand for operand in operands if isinstance(operand, Place)]
        if places and drawn.chance(0.15):
            out = rng.choice(places)
            if not SELF_OVERLAPPING and any(step == 0 and n > 1 for n, step in zip(out.shape, out.strides)):
                out = None
        else:
            outer = shape
            if drawn.chance(0.03):
                outer = rng.choice(((2, *shape), shape[1:], tuple(n + 1 for n in shape), (*shape, 3)))
            dtype = drawn.dtype() if drawn.chance(mixed / 2) else main
            out = drawn.place(dtype, outer, output=True, crowded=SELF_OVERLAPPING)
    target = rng.choice((None, None, None, None, "serial", "serial", "serial", "parallel"))
    return Elementwise(
        name=name, form=form, target=target, operands=operands, given=given, out=out, kwargs=kwargs,
        **drawn.surroundings(),
    )  # fmt: skip


def _keywords(drawn: Draw, name: str, shape: tuple[int, ...], main: np.dtype) -> dict[str, Any]:
    rng, kwargs = drawn.rng, {}
    if drawn.chance(0.75):
        return {}
    if drawn.chance(0.4):
        kind = rng.random()
        if kind < 0.1:
            kwargs["where"] = rng.choice((True, False, np.True_, np.False_))
        else:
            only_bool, drawn.only_bool = drawn.only_bool, True
            drawn.shared = drawn.shared and only_bool
            mask = drawn.place(NATIVE["?"], drawn.part(shape, 0.7), mask=True)
            drawn.only_bool = only_bool
            kwargs["where"] = mask
    if drawn.chance(0.3):
        kwargs["casting"] = rng.choice(("no", "equiv", "safe", "same_kind", "unsafe"))
    if drawn.chance(0.25):
        kwargs["order"] = rng.choice("CFAK")
    if drawn.chance(0.3):
        kwargs["dtype"] = NATIVE[rng.choice(FLOATS + main.char)]
    elif drawn.chance(0.1):
        code = rng.choice(FLOATS)
        count = 1 + (name in BINARY) + len(PARAMETERS[name])
        kwargs["signature"] = rng.choice((code * count + "->" + code, (NATIVE[code],) * (count + 1)))
    if drawn.chance(0.1):
        kwargs["subok"] = drawn.chance(0.5)
    return kwargs


def _operands(case: Elementwise, memory: list[np.ndarray]) -> list[Any]:
    """Return all operands as values, defaults included."""
    given = [operand.of(memory) if isinstance(operand, Place) else operand for operand in case.operands]
    for parameter in PARAMETERS[case.name]:
        if parameter in case.given and case.given[parameter] is not None:
            value = case.given[parameter]
            value = value.of(memory) if isinstance(value, Place) else value
            if case.form != "raw" and type(value) in (int, bool):
                value = float(value)
        elif parameter == "negative_slope":
            value = 0.01
        else:
            value = given[-1] if case.name.startswith("leaky") else 0.0
        given.append(value)
    return given


def _unrepresentable(values: Any, dtype: np.dtype) -> Any:
    """Say which values have no defined conversion to an integer type."""
    values = np.asarray(values)
    if values.dtype.kind != "f" or dtype.kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        return ~((wide > float(limits.min) - 0.5) & (wide < float(limits.max)))


def _wanted(case: Elementwise, memory: list[np.ndarray]) -> Wanted:
    operands = _operands(case, memory)
    kwargs = {key: value.of(memory) if isinstance(value, Place) else value for key, value in case.kwargs.items()}
    place = case.operands[0] if case.form == "twin" else case.out
    out = place.of(memory) if isinstance(place, Place) else None
    where = np.array(kwargs.get("where", True))  # a copy: numpy.copyto reads it while it writes
    try:
        dtype = _dtype(case, operands, out, kwargs)
        shape = np.broadcast_shapes(*(np.shape(value) for value in operands), where.shape)
        if out is not None:
            if np.broadcast_shapes(shape, out.shape) != out.shape or not out.flags.writeable:
                raise ValueError("out")
            shape = out.shape
    except (TypeError, ValueError):
        _check_refusal(case, operands, out, kwargs)
        raise Refused(TypeError, ValueError) from None
    if out is not None and out.dtype != dtype and not where.all():
        others = [value for value in (*operands, kwargs["where"]) if isinstance(value, np.ndarray)]
        if any(np.may_share_memory(out, other) for other in others):
            # NumPy then works on a copy of the output in the loop's type, and writes all of it back, what `where`
            # leaves out included: numpy.multiply(x, x[::-1], out=x, where=False, dtype="f4") rounds x
            raise Skipped
    copies = [np.array(value) for value in operands]
    values = np.broadcast_to(expected(case.name, copies, dtype), shape)
    if case.name == "relu":
        reference = np.maximum(values, copies[0].astype(dtype)) if dtype.kind != "f" else values
        if dtype.kind == "f":
            with np.errstate(all="ignore"):
                reference = np.maximum(copies[0].astype(dtype), dtype.type(0))
        if not np.array_equal(np.broadcast_to(reference, shape), values, equal_nan=dtype.kind == "f"):
            raise Wrong("the oracle is not numpy.maximum")
    elif case.name == "relu_grad":
        with np.errstate(all="ignore"):
            reference = np.heaviside(*(copy.astype(dtype) for copy in copies))
        assert_same(np.broadcast_to(reference, shape), values, "the oracle against numpy.heaviside")
    undefined: Any = False
    for copy in copies:
        undefined = undefined | _unrepresentable(copy, dtype)
    strides, scalar = _numpy(case, operands, out, kwargs, dtype)
    if out is None:
        defined = np.broadcast_to(where, shape) if where.dtype == bool and "where" in kwargs else None
        if np.any(undefined):
            defined = ~np.broadcast_to(undefined, shape) & (True if defined is None else defined)
        return Wanted(values, defined, strides, scalar)
    undefined = undefined | _unrepresentable(values, out.dtype)
    if overlap.of_itself(out):
        overlap.write(out, values, operands, kwargs)
    else:
        np.copyto(out, values, where=where, casting="unsafe")
    return Wanted(out, ~np.broadcast_to(undefined, shape) if np.any(undefined) else None, out.strides, False)


def _dtype(case: Elementwise, operands: list[Any], out: np.ndarray | None, kwargs: dict[str, Any]) -> np.dtype:
    """Return the type of the loop that NumPy's rules choose, or raise as they do."""
    kinds = kinds_of(operands)
    options = {key: kwargs[key] for key in ("casting", "signature") if key in kwargs}
    if "dtype" in kwargs:
        options["signature"] = (None,) * len(kinds) + (kwargs["dtype"],)
    resolve = getattr(ufuncs, case.name).resolve_dtypes
    last = None if out is None else out.dtype
    if options.get("casting") == "equiv":
        # NumPy 2.4's resolve_dtypes dies of a Python number that it refuses
        loop = resolve((*kinds, None), **{**options, "casting": "unsafe"})
        for kind, chosen in zip(kinds, loop):
            if isinstance(kind, type) and not _equivalent(kind, chosen):
                raise TypeError(f"{kind} to {chosen}")
        kinds = [chosen if isinstance(kind, type) else kind for kind, chosen in zip(kinds, loop)]
    dtype = resolve((*kinds, last), **options)[0]
    floats = [kind for kind in kinds if isinstance(kind, np.dtype)]
    if not options and floats and all(kind.kind == "f" for kind in floats):
        assert dtype == np.result_type(*floats, *(0.0 for kind in kinds if kind is float)), (dtype, kinds)
    return dtype.newbyteorder("=")


def kinds_of(operands: list[Any]) -> list[Any]:
    """Return the types of operands as NumPy's rules take them."""
    kinds = [type(value) if type(value) in (int, float) else np.asarray(value).dtype for value in operands]
    return kinds if len(kinds) > 1 else [np.dtype(kinds[0])]  # a number is weak beside another operand only


def allocated(arrays: list[np.ndarray], dtype: np.dtype, order: str = "K") -> np.ndarray:
    """Return a new array as NumPy lays it out for these operands."""
    nditer: Any = np.nditer
    iterator = nditer(
        [*arrays, None],
        flags=["zerosize_ok"],
        op_flags=[["readonly"]] * len(arrays) + [["writeonly", "allocate", "no_subtype"]],
        op_dtypes=[None] * len(arrays) + [dtype],
        order=order,
    )
    result: np.ndarray = iterator.operands[-1]
    return result


@functools.cache
def _equivalent(kind: type, dtype: np.dtype) -> bool:
    """Say whether a Python number is equivalent to an operand of a type: to NumPy 2.0 it is, to later ones not always.

    Operations that take such a number beside another operand have loops for floats only, as `numpy.heaviside` has.
    """
    try:
        np.heaviside(np.zeros(1, dtype), kind(1), casting="equiv", dtype=dtype)
    except TypeError:
        return False
    return True


def _peer(name: str) -> np.ufunc | None:
    """Return a ufunc of NumPy's own with the same types and number of operands."""
    return {"relu": np.absolute, "leaky_relu": np.heaviside, "relu_grad": np.heaviside}.get(name)


def _numpy(
    case: Elementwise, operands: list[Any], out: np.ndarray | None, kwargs: dict[str, Any], dtype: np.dtype
) -> tuple[tuple[int, ...], bool]:
    """Return the strides of NumPy's result for such a call, and whether it is a scalar."""
    if out is not None:
        out = out.copy()
    if (peer := _peer(case.name)) is not None:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = peer(*operands, out=out, **kwargs)
        if out is None and result.dtype != dtype:
            raise Wrong(f"NumPy's rules gave {dtype}, {peer.__name__} gives {result.dtype}")
        return result.strides, out is None and isinstance(result, np.generic)
    if out is not None:
        return out.strides, False
    arrays = [np.asarray(value) for value in operands] + [np.asarray(w) for w in [kwargs.get("where")] if w is not None]
    new = allocated(arrays, dtype, kwargs.get("order", "K"))
    return new.strides, new.ndim == 0


def _check_refusal(case: Elementwise, operands: list[Any], out: np.ndarray | None, kwargs: dict[str, Any]) -> None:
    if (peer := _peer(case.name)) is None:
        return
    if out is not None:
        out, writeable = out.copy(), out.flags.writeable
        out.flags.writeable = writeable
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer(*operands, out=out, **kwargs)
    except (TypeError, ValueError):
        return
    raise Wrong(f"by the rules this is refused, but numpy.{peer.__name__} takes it")
