"""Functions with masks, counts and sums of slopes, and their twins.

Values are those of the plain-Python oracle. Masks and counts are plain Python's; sums of floats are held between
bounds: those of summing float64 numbers in any order, of products that are exact or rounded as Python rounds them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fastrelu import ufuncs
from fastrelu._bench import oracle

from ..helpers import per_unit, public
from . import overlap
from .cases import Case, Refused, Result, Skipped, Wanted, Wrong
from .elementwise import allocated, kinds_of
from .memory import INTEGERS, NATIVE, SELF_OVERLAPPING, SWAPPED, TAME, Draw, Place

BYTE, COUNT = NATIVE["B"], np.dtype(np.int64)


@dataclass(frozen=True)
class Function:
    """What a function takes and returns: data, parameters and outputs, by the names of their arguments."""

    operation: str
    data: tuple[str, ...]
    #: What stands beside the result `out`, if there is one; "mask" is read, and "counts" are added to.
    beside: str
    writes: bool = True
    slope: bool = False
    #: The default of the argument, where there is one.
    axis: Any = "none"

    @property
    def positional(self) -> tuple[str, ...]:
        """The arguments that are given by position, in order."""
        given = {"mask": ("mask",), "counts": ("counts",)}.get(self.beside, ())
        return (*self.data, *given, *("negative_slope",) * self.slope)


FUNCTIONS = {
    "relu_with_mask": Function("relu", ("x",), "mask_out"),
    "leaky_relu_with_mask": Function("leaky_relu", ("x",), "mask_out", slope=True),
    "relu_backward_from_mask": Function("relu_backward", ("grad",), "mask"),
    "leaky_relu_backward_from_mask": Function("leaky_relu_backward", ("grad",), "mask", slope=True),
    "relu_with_counts": Function("relu", ("x",), "counts", axis=-1),
    "leaky_relu_with_counts": Function("leaky_relu", ("x",), "counts", slope=True, axis=-1),
    "count_active": Function("relu", ("x",), "out", writes=False, axis=-1),
    "leaky_relu_slope_grad": Function("leaky_relu_backward", ("grad", "x"), "out", writes=False, axis=None),
    "leaky_relu_backward_with_slope_grad": Function(
        "leaky_relu_backward", ("grad", "x"), "slope_out", slope=True, axis=None
    ),
}


@dataclass
class Between(Wanted):
    """Sums, each between two bounds; NaN where that is what it must be."""

    low: Any = None
    high: Any = None

    def compare(self, actual: np.ndarray, label: str) -> None:
        sure = np.ones(actual.shape, bool) if self.defined is None else self.defined
        right = ((self.low <= actual) & (actual <= self.high)) | (np.isnan(self.values) & np.isnan(actual))
        if not (right | ~sure).all():
            raise Wrong(f"the {label} {actual} are not between {self.low} and {self.high}")


@dataclass(kw_only=True)
class Fused(Case):
    """A call of a public function or of a twin, with its arguments by their names."""

    twin: bool
    given: dict[str, Any]

    def call(self, array: Callable[[Any], Any]) -> dict[str, Result]:
        function = FUNCTIONS[self.name]
        given = {key: array(value) for key, value in self.given.items()}
        positional = list(itertools.takewhile(given.__contains__, function.positional))
        first = given[positional[0]]
        y = Result(first if self.twin else given.get("out"), first if self.twin else given.get("out"))
        if self.style == 0 and positional[-1] == "negative_slope":
            positional.pop()
        arguments = [given.pop(key) for key in positional]
        if self.target is not None:
            given["target"] = self.target
        beside = arguments[1] if function.beside == "counts" else given.get(function.beside)
        results = public(self.name, self.twin)(*arguments, **given)
        if not function.writes:
            return {"sums": Result(results, beside)}
        if function.beside in ("mask", "counts"):
            found = {"result": Result(results, y.out)}
            return found if function.beside == "mask" else {**found, "sums": Result(beside, beside)}
        label = "mask" if function.beside == "mask_out" else "sums"
        if self.twin:
            return {"result": y, label: Result(results, beside)}
        if type(results) is not tuple or len(results) != 2:
            raise Wrong(f"{results!r} is no pair")
        return {"result": Result(results[0], y.out), label: Result(results[1], beside)}

    def wanted(self, memory: list[np.ndarray]) -> dict[str, Wanted]:
        function = FUNCTIONS[self.name]
        given = {key: value.of(memory) if isinstance(value, Place) else value for key, value in self.given.items()}
        if "negative_slope" in given and type(given["negative_slope"]) in (int, bool):
            given["negative_slope"] = float(given["negative_slope"])
        elif function.slope:
            given.setdefault("negative_slope", 0.01)
        loop = _loop(function, given)
        units = _Units(given[function.data[0]], given.get("axis", function.axis))
        if errors := set(self._faults(given, loop, units)):
            raise Refused(*errors)
        # All that is read, before anything is written
        copies = {key: np.array(given[key]) for key in (*function.positional, function.beside) if key in given}
        inputs = {key: copies[key] for key in function.positional if key != "counts"}
        with np.errstate(all="ignore"):
            exact = {key: each if key == "mask" else each.astype(loop) for key, each in inputs.items()}
        found: dict[str, Wanted] = {}
        if function.writes:
            out = given[function.data[0]] if self.twin else given.get("out")
            values = _values(function, exact, loop)
            found["result"] = _left(values, out, given[function.data[0]])
        if function.beside == "mask_out":
            found["mask"] = _left(oracle.mask(exact["x"]), given.get("mask_out"))
        elif function.beside != "mask":
            counted = function.data == ("x",)
            found["sums"] = (_counts if counted else _sums)(function, exact, units, given.get(function.beside))
        return found

    def _faults(self, given: dict[str, Any], loop: np.dtype, units: _Units) -> Iterator[type[Exception]]:
        """Yield the errors that the arguments deserve, one for each that is wrong."""
        function = FUNCTIONS[self.name]
        first = given[function.data[0]]
        if self.target not in (None, "serial", "parallel"):
            yield ValueError
        for key in (*function.data[1:], *("negative_slope",) * function.slope):
            if not _broadcasts(np.shape(given[key]), units.shape):
                yield ValueError
        out = first if self.twin else given.get("out") if function.writes else None
        if out is not None:
            yield from _faults_of_output(out, units.shape, loop, "same_kind")
        if units.error:
            # What is wrong beside it may be found first
            yield from (units.error, TypeError, ValueError) if given.get(function.beside) is not None else [units.error]
            return
        if function.beside == "mask":
            mask = given["mask"]
            if not isinstance(mask, np.ndarray) or mask.dtype != BYTE or mask.ndim != 1:
                yield TypeError
            elif mask.size != (math.prod(units.shape) + 7) // 8:
                yield ValueError
            return
        beside = given.get(function.beside)
        if beside is None:
            if function.beside == "counts":
                yield TypeError
            return
        if function.beside == "mask_out":
            yield from _faults_of_output(beside, ((math.prod(units.shape) + 7) // 8,), BYTE, "no")
            if isinstance(beside, np.ndarray) and beside.ndim != 1:
                yield TypeError
        else:
            kind, casting = (COUNT, "no") if function.data == ("x",) else (loop, "same_kind")
            yield from _faults_of_output(beside, units.of_sums, kind, casting)
        if isinstance(beside, np.ndarray):
            others = [given[key] for key in (*function.data, "negative_slope") if key in given]
            others = [each for each in (*others, out) if isinstance(each, np.ndarray)]
            if overlap.of_itself(beside) or any(np.may_share_memory(beside, each) for each in others):
                yield ValueError


class _Units:
    """The shape of the data, and the axis of its units."""

    def __init__(self, first: Any, axis: Any) -> None:
        self.shape, self.axis = np.shape(first), axis
        self.error: type[Exception] | None = None
        if axis == "none":
            return
        if axis is not None:
            try:
                range(len(self.shape))[axis]
            except TypeError:
                self.error = TypeError
                return
            except IndexError:
                self.error = np.exceptions.AxisError
                return
        self.of_sums: tuple[int, ...] = () if axis is None else (self.shape[axis],)


def _loop(function: Function, given: dict[str, Any]) -> np.dtype:
    """Return the type that NumPy's rules have for the operation; operands that a function does not take follow."""
    operands = [given[key] for key in function.data]
    if function.operation.endswith("backward"):
        operands += operands * (2 - len(operands))
    operands += {
        "relu": [],
        "relu_backward": [0.0],
        "leaky_relu": [given.get("negative_slope")],
        "leaky_relu_backward": [given.get("negative_slope", 0.0)] * 2,
    }[function.operation]
    dtype = getattr(ufuncs, function.operation).resolve_dtypes((*kinds_of(operands), None))[-1]
    return np.dtype(dtype).newbyteorder("=")


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _faults_of_output(out: Any, shape: tuple[int, ...], dtype: np.dtype, casting: Any) -> Iterator[type[Exception]]:
    if not isinstance(out, np.ndarray):
        yield TypeError
        return
    if not out.flags.writeable or out.shape != shape:
        yield ValueError
    if not np.can_cast(dtype, out.dtype, casting):
        yield TypeError


def _values(function: Function, exact: dict[str, np.ndarray], loop: np.dtype) -> np.ndarray:
    """Return the result of the operation; x is known by its mask alone where there is one."""
    first = exact[function.data[0]]
    operands = [np.broadcast_to(exact[key], first.shape) for key in function.data]
    if function.beside == "mask":
        bits = [exact["mask"][k // 8] >> k % 8 & 1 for k in range(first.size)]
        operands.append(np.array([1 if bit else -1 for bit in bits], loop).reshape(first.shape))
    if function.operation == "relu_backward":
        operands.append(np.zeros((), loop))
    elif function.slope:
        operands += [exact["negative_slope"]] * (1 + (function.operation == "leaky_relu_backward"))
    return oracle.expected(function.operation, operands, loop)


def _left(values: np.ndarray, out: np.ndarray | None, like: Any = None) -> Wanted:
    """Write values to an output, and return what the result must be; a new array lies in memory as another one."""
    if out is None:
        strides = None if like is None else allocated([np.asarray(like)], values.dtype).strides
        return Wanted(values, strides=strides, scalar=values.ndim == 0)
    with np.errstate(all="ignore"):
        written = values.astype(out.dtype)
    if overlap.of_itself(out) and overlap.partly(out) and written.dtype.kind == "f" and np.isnan(written).any():
        raise Skipped  # whose bits are not defined
    with np.errstate(all="ignore"):
        np.copyto(out, values, casting="unsafe")
    return Wanted(out)


def _units_of(values: np.ndarray, units: _Units) -> list[list[float]]:
    axis = None if units.axis is None else range(values.ndim)[units.axis]
    return per_unit(values.ravel().tolist(), values.shape, axis)


def _counts(function: Function, exact: dict[str, np.ndarray], units: _Units, into: np.ndarray | None) -> Wanted:
    counts = [sum(value > 0 for value in unit) for unit in _units_of(exact["x"], units)]
    values = np.array(counts, COUNT).reshape(units.of_sums)
    if function.beside == "counts" and into is not None:
        values = np.asarray(np.add(into, values))
    return _left(values, into)


def _sums(function: Function, exact: dict[str, np.ndarray], units: _Units, into: np.ndarray | None) -> Wanted:
    """Return the bounds of sums of ``grad * x`` over ``x < 0``."""
    grad, loop = exact["grad"], exact["grad"].dtype
    x = np.broadcast_to(exact["x"], grad.shape)
    terms = [
        [g * v if v < 0 else 0.0 for g, v in zip(*pair, strict=True)]
        for pair in zip(_units_of(grad, units), _units_of(x, units), strict=True)
    ]
    # to a sum of float64, what it lost is added; sums of narrower types are of float64 and lose what they lose
    found = [_bounds(unit, 8 if loop == np.float64 else 2 * len(unit)) for unit in terms]
    kind = loop if into is None else into.dtype
    with np.errstate(all="ignore"):
        low, high, middle = (
            np.array([row[k] for row in found], "d").astype(kind).reshape(units.of_sums) for k in range(3)
        )
    defined = np.array([row[3] for row in found], bool).reshape(units.of_sums)
    plain = _left(middle, into)
    return Between(plain.values, defined, None, plain.scalar, low, high)


def _bounds(terms: list[float], roundings: int) -> tuple[float, float, float, bool]:
    """Return the least and the greatest sum that is right, the exact one, and whether there is one.

    Of terms that are not finite, it is what they say; sums that might overflow in between have no right value.
    """
    odd = {term for term in terms if math.isinf(term)}
    if any(map(math.isnan, terms)) or len(odd) > 1:
        return math.nan, math.nan, math.nan, True
    size = sum((Fraction(abs(term)) for term in terms if math.isfinite(term)), Fraction())
    if size >= Fraction(2) ** 1023:
        return math.nan, math.nan, math.nan, False
    if odd:
        value = odd.pop()
        return value, value, value, True
    total = sum(map(Fraction, terms), Fraction())
    error = size * roundings / 2**53
    return float(total - error), float(total + error), float(total), True


def draw(drawn: Draw) -> Fused:
    """Draw a case."""
    rng, chance = drawn.rng, drawn.chance
    name = rng.choice(list(FUNCTIONS))
    function = FUNCTIONS[name]
    twin = function.writes and chance(0.3)
    shape, main = drawn.shape(), drawn.dtype()
    if function.operation == "relu" and chance(0.3):
        main = (SWAPPED if chance(0.1) else NATIVE)[rng.choice(INTEGERS)]
    if chance(0.6):
        drawn.pools = TAME
    mixed = 0.5 if chance(0.15) else 0.02
    drawn.only_bool = main.char == "?"
    given: dict[str, Any] = {}
    for key in function.data:
        dtype = drawn.dtype() if chance(mixed) else main
        first = key == function.data[0]
        part = shape if first else drawn.part(shape, 0.85)
        if chance(0.02):
            part = drawn.other(part)
        if (twin and first) or chance(0.95):
            crowded = SELF_OVERLAPPING * (twin and first)
            given[key] = drawn.place(dtype, part, output=twin and first, crowded=crowded)
        elif chance(0.3):
            given[key] = drawn.pools[dtype.char][:6].tolist()
        else:
            given[key] = drawn.value(dtype, "raw")
    first = given[function.data[0]]
    shape = first.shape if isinstance(first, Place) else np.shape(first)
    if len(function.data) == 2 and chance(0.05):
        given["x"] = first
    if function.axis != "none" and chance(0.8):
        given["axis"] = _axis(drawn, len(shape))
    _beside(drawn, function, given, shape, main)
    if function.slope and chance(0.75):
        given["negative_slope"] = drawn.parameter(main, shape, "public", mixed)
    if function.writes and not twin and chance(0.5):
        places = [value for value in given.values() if isinstance(value, Place)]
        if chance(0.15) and places:
            given["out"] = rng.choice(places)
        else:
            outer = rng.choice(((2, *shape), shape[1:], (*shape, 1))) if chance(0.03) else shape
            dtype = drawn.dtype() if chance(mixed) else main
            given["out"] = drawn.place(dtype, outer, output=True, crowded=SELF_OVERLAPPING)
    target = rng.choice((None, None, None, None, "serial", "serial", "serial", "parallel"))
    target = "nowhere" if chance(0.01) else target
    return Fused(name=name, twin=twin, target=target, given=given, **drawn.surroundings())


def _axis(drawn: Draw, ndim: int) -> Any:
    if drawn.chance(0.2) or not ndim:
        return None
    if drawn.chance(0.04):
        return drawn.rng.choice((ndim, -ndim - 1, 1 << 70, 1.0, "0", [0]))
    axis = drawn.rng.randrange(-ndim, ndim)
    return np.int8(axis) if drawn.chance(0.05) else axis


def _beside(drawn: Draw, function: Function, given: dict[str, Any], shape: tuple[int, ...], main: np.dtype) -> None:
    """Draw what stands beside the result: a mask to read or to write, counts, or sums."""
    rng, chance = drawn.rng, drawn.chance
    needed = function.beside in ("mask", "counts")
    if not needed and chance(0.5):
        return
    if function.beside.startswith("mask"):
        dtype, extent = BYTE, ((math.prod(shape) + 7) // 8,)
    else:
        axis = given.get("axis", function.axis)
        try:
            extent = () if axis is None else (shape[axis],)
        except (TypeError, IndexError):
            extent = (3,)
        dtype = COUNT if function.data == ("x",) else main
        if dtype is main and chance(0.2):
            dtype = NATIVE[rng.choice("efd")]
    if chance(0.03):
        dtype = rng.choice((drawn.dtype(), dtype.newbyteorder("S"), NATIVE["b"], NATIVE["Q"]))
    if chance(0.03):
        extent = rng.choice(((*extent, 1), extent[1:], tuple(n + 1 for n in extent), (2, *extent)))
    value = drawn.place(dtype, extent, output=function.beside != "mask", crowded=SELF_OVERLAPPING)
    given[function.beside] = rng.choice((None, [0, 1], 3)) if chance(0.01) else value
