"""Random calls of every kind, compared bit for bit with plain Python and with NumPy.

``python -m tests.fuzz --cases 1000000 --seed 1`` runs for minutes; ``--seed S --only N`` runs one case again. Each case
draws a function, its operands and keywords, where they lie in memory, and the thresholds between the package's
paths. What it must give is worked out on copies: values by the plain-Python oracle, type, layout and refusal by
NumPy's own ufuncs where it has one of as many operands, else by NumPy's rules.
"""

import argparse
import collections
import contextlib
import functools
import itertools
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import fastrelu
from fastrelu import _again, _dispatch, _large, ufuncs
from fastrelu._bench.oracle import assert_same, expected

from .helpers import BINARY, OPERATIONS, in_context, public, specials

#: The operands of each operation; those after `data` of them are parameters, with their defaults.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "relu": (),
    "leaky_relu": ("negative_slope",),
    "relu_grad": ("at_zero",),
    "leaky_relu_grad": ("negative_slope", "at_zero"),
    "relu_backward": ("at_zero",),
    "leaky_relu_backward": ("negative_slope", "at_zero"),
}
FLOATS, INTEGERS = "efd", "?bBhHiIlLqQ"
NATIVE = {code: np.dtype(code) for code in FLOATS + INTEGERS}
SWAPPED = {code: dtype.newbyteorder("S") for code, dtype in NATIVE.items()}
#: Values to fill arrays with, by type.
POOLS = {
    code: np.concatenate([specials(dtype), np.arange(6).astype(dtype), specials(dtype)[:3]])
    for code, dtype in NATIVE.items()
}
SLOPES = (0.01, 0.5, 0.0, -0.0, 1.0, 1.5, -0.5, -2.0, 2.0**-14, 2.0**-15, 65504.0, 65520.0, 3e38, 1e-45, 5e-324,
          1e300, -1e300, np.inf, -np.inf, np.nan)  # fmt: skip
WHOLE_NUMBERS = (0, 1, 2, -3, 7, True, False)
LENGTHS = (0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 100, 127, 128, 129, 200, 255, 257, 300)
EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 66, 70)
MOST = 300
NEVER = 1 << 62


class Wrong(AssertionError):
    """A case whose result is not what it must be."""


class Place(NamedTuple):
    """Where an array lies: in which block of memory, and how."""

    block: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    writeable: bool

    def of(self, memory: list[np.ndarray]) -> np.ndarray:
        array = np.ndarray(self.shape, self.dtype, memory[self.block], self.offset, self.strides)
        if not self.writeable:
            array.flags.writeable = False
        return array


@dataclass
class Case:
    """One call. Operands and `where` are places or plain values; parameters that are missing take their defaults."""

    name: str
    form: str  # "public", "twin" or "raw"
    target: str | None
    blocks: list[bytes]
    operands: list[Any]
    given: dict[str, Any]
    out: Place | None
    kwargs: dict[str, Any]
    style: int
    shifts: list[int]
    tuning: dict[str, int] = field(default_factory=dict)


class _Draw:
    """The drawing of one case."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.blocks: list[bytearray] = []
        self.shared = rng.random() < 0.25
        self.only_bool = False
        self.common: list[tuple[tuple[int, ...], tuple[int, ...], int, int]] = []

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def shape(self) -> tuple[int, ...]:
        rng = self.rng
        ndim = rng.choices(range(5), (6, 44, 30, 13, 7))[0]
        if ndim == 1:
            return (rng.choice(LENGTHS),)
        shape, left = [], MOST
        for _ in range(ndim):
            shape.append(rng.choice([n for n in EXTENTS if n <= left]))
            left //= shape[-1]
        if shape and self.chance(0.03):
            shape[rng.randrange(ndim)] = 0
        rng.shuffle(shape)
        return tuple(shape)

    def part(self, shape: tuple[int, ...], often: float) -> tuple[int, ...]:
        """Return a shape that broadcasts to another one."""
        if self.rng.random() < often:
            return shape
        part = tuple(1 if self.chance(0.4) else n for n in shape)
        return part[self.rng.randrange(len(part) + 1) :] if self.chance(0.5) else part

    def dtype(self) -> np.dtype:
        code = self.rng.choice(FLOATS * 6 + INTEGERS)
        return (SWAPPED if self.chance(0.06) else NATIVE)[code]

    def strides(self, shape: tuple[int, ...], itemsize: int, repeat: bool) -> tuple[tuple[int, ...], int, int]:
        """Return strides, and how far below and above its first element an array reaches."""
        rng, how = self.rng, self.rng.random()
        order = list(range(len(shape)))[::-1]
        plain = how < 0.6
        if 0.5 < how < 0.7:
            order.reverse()
        elif how >= 0.7:
            rng.shuffle(order)
        strides, span, low, high = [0] * len(shape), itemsize, 0, itemsize
        for axis in order:
            n = max(shape[axis], 1)
            step = 1 if plain else rng.choice((1, 1, 1, 2, 3, -1, -1, -2, 0 if repeat else 1))
            stride = strides[axis] = span * step
            reach = (n - 1) * stride
            low, high = low + min(reach, 0), high + max(reach, 0)
            span = max(abs(stride) * n, span)
            if not plain and self.chance(0.05):
                span += rng.randrange(1, 9)
        return tuple(strides), low, high

    def place(self, dtype: np.dtype, shape: tuple[int, ...], *, output: bool = False, mask: bool = False) -> Place:
        rng, itemsize = self.rng, dtype.itemsize
        together = self.shared and self.chance(0.8) and self.only_bool == (dtype.char == "?")
        strides, low, high = self.strides(shape, itemsize, repeat=not output)
        start = None
        if together and self.common and self.chance(0.5):
            # The very place of another array, or that of another type
            other = rng.choice(self.common)
            unique = all(step or n == 1 for step, n in zip(other[1], shape)) or not output
            if other[0] == shape and other[2] == itemsize and unique:
                _, strides, _, start = other
                reach = [(n - 1) * step for n, step in zip(shape, strides) if n]
                low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach) + itemsize
        size = high - low
        if together:
            block = 0
            if not self.blocks:
                self.blocks.append(bytearray())
            memory = self.blocks[0]
            if start is None:
                start = rng.randrange(rng.choice((1, 2, 9, 65, 500))) - low
                start -= start % itemsize if self.chance(0.9) and start - start % itemsize >= -low else 0
            self.common.append((shape, strides, itemsize, start))
        else:
            if not self.blocks:
                self.blocks.append(bytearray())  # block 0 is the common one
            block, memory = len(self.blocks), bytearray()
            self.blocks.append(memory)
            start = rng.choice((0, 0, 0, itemsize, 3 * itemsize, 7 * itemsize)) - low
            if self.chance(0.07):
                start += rng.randrange(8)
        if len(memory) < start + high:
            fill = rng.randbytes(start + high - len(memory) + rng.randrange(0, 20))
            memory += bytes(byte & 1 for byte in fill) if mask or (together and self.only_bool) else fill
        writeable = self.chance(0.99) if output else self.chance(0.93)
        place = Place(block, dtype, shape, strides, start, writeable)
        if size > 0 and not mask and not (output and self.chance(0.5)):
            pool = POOLS[dtype.char]
            view = np.ndarray(shape, dtype, memory, start, strides)
            chosen = np.frombuffer(rng.randbytes(view.size), np.uint8)
            view[...] = pool[chosen % len(pool)].reshape(shape)
        return place

    def value(self, dtype: np.dtype, form: str) -> Any:
        """Return a parameter that is no array."""
        kind = self.rng.random()
        if kind < 0.6:
            return self.rng.choice(SLOPES)
        if kind < 0.75:
            return self.rng.choice(WHOLE_NUMBERS + (() if form == "raw" else (10**30,)))
        pool = POOLS[self.rng.choice(FLOATS + "?bi") if self.chance(0.3) else dtype.char]
        return self.rng.choice(pool)

    def case(self) -> Case:
        rng = self.rng
        name = rng.choice(OPERATIONS)
        form = rng.choices(("public", "twin", "raw"), (45, 25, 30))[0]
        shape, main = self.shape(), self.dtype()
        if name == "relu" and self.chance(0.3):
            main = (SWAPPED if self.chance(0.1) else NATIVE)[rng.choice(INTEGERS)]
        mixed = 0.5 if self.chance(0.15) else 0.02
        self.only_bool = main.char == "?"
        operands: list[Any] = []
        for k in range(1 + (name in BINARY)):
            dtype = self.dtype() if self.chance(mixed) else main
            first = form == "twin" and k == 0
            if first or self.chance(0.95):
                operands.append(self.place(dtype, shape if first else self.part(shape, 0.85), output=first))
            elif self.chance(0.3):
                operands.append(POOLS[dtype.char][:6].tolist())
            else:
                operands.append(self.value(dtype, "raw"))
        if len(operands) == 2 and self.chance(0.03):
            operands[1] = operands[0]
        given: dict[str, Any] = {}
        for parameter in PARAMETERS[name]:
            kind = rng.random()
            dtype = self.dtype() if self.chance(mixed) else main
            if kind < 0.25 and form != "raw":
                continue
            if kind < 0.3 and form != "raw" and parameter == "at_zero" and name.startswith("leaky"):
                given[parameter] = None
            elif kind < 0.75:
                given[parameter] = self.value(dtype, form)
            else:
                given[parameter] = self.place(dtype, self.part(shape, 0.3))
        if self.chance(0.02):  # shapes that do not agree, or that agree in another way
            wrong = [k for k, operand in enumerate(operands) if isinstance(operand, Place)]
            if wrong:
                k = rng.choice(wrong)
                other = tuple(n + (rng.random() < 0.4) for n in operands[k].shape) + (2,) * self.chance(0.3)
                operands[k] = self.place(operands[k].dtype, other, output=form == "twin" and k == 0)
        kwargs = self.keywords(name, form, shape, main)
        out = None
        if form != "twin" and self.chance(0.5):
            places = [operand for operand in operands if isinstance(operand, Place)]
            if places and self.chance(0.15):
                out = rng.choice(places)
                if any(step == 0 and n > 1 for n, step in zip(out.shape, out.strides)):
                    out = None
            else:
                outer = shape
                if self.chance(0.03):
                    outer = rng.choice(((2, *shape), shape[1:], tuple(n + 1 for n in shape), (*shape, 3)))
                out = self.place(self.dtype() if self.chance(mixed / 2) else main, outer, output=True)
        tuning = {
            "parallel_min_bytes": rng.choice((0, 0, 500, NEVER, NEVER)),
            "streaming_min_bytes": rng.choice((0, 64, 500, NEVER)),
            "large": rng.choice((9, 9, 256, 1 << 16)),
            "convert": rng.choice((9, 9, 256, NEVER)),
            "tile": rng.choice((4, 64)),
            "unit": rng.choice((64, 256, 1 << 16)),
        }
        shifts = [rng.choice((0, 0, 8, 16, 32))] + ([rng.randrange(64)] if self.chance(0.3) else [])
        target = rng.choice((None, None, None, None, "serial", "serial", "serial", "parallel"))
        blocks = [bytes(block) for block in self.blocks]
        return Case(name, form, target, blocks, operands, given, out, kwargs, rng.randrange(4), shifts, tuning)

    def keywords(self, name: str, form: str, shape: tuple[int, ...], main: np.dtype) -> dict[str, Any]:
        rng, kwargs = self.rng, {}
        if self.chance(0.75):
            return {}
        if self.chance(0.4):
            kind = rng.random()
            if kind < 0.1:
                kwargs["where"] = rng.choice((True, False, np.True_, np.False_))
            else:
                only_bool, self.only_bool = self.only_bool, True
                self.shared = self.shared and only_bool
                mask = self.place(NATIVE["?"], self.part(shape, 0.7), mask=True)
                self.only_bool = only_bool
                kwargs["where"] = mask
        if self.chance(0.3):
            kwargs["casting"] = rng.choice(("no", "equiv", "safe", "same_kind", "unsafe"))
        if self.chance(0.25):
            kwargs["order"] = rng.choice("CFAK")
        if self.chance(0.3):
            kwargs["dtype"] = NATIVE[rng.choice(FLOATS + main.char)]
        elif self.chance(0.1):
            code = rng.choice(FLOATS)
            count = 1 + (name in BINARY) + len(PARAMETERS[name])
            kwargs["signature"] = rng.choice((code * count + "->" + code, (NATIVE[code],) * (count + 1)))
        if self.chance(0.1):
            kwargs["subok"] = self.chance(0.5)
        return kwargs


def draw(seed: int, number: int) -> Case:
    """Return a case; the same for the same numbers."""
    return _Draw(random.Random(seed << 40 | number)).case()


class Skipped(Exception):
    """A case for which NumPy gives nothing to compare with."""


class Wanted(NamedTuple):
    """What a call must give: its values, and which of them are defined."""

    values: np.ndarray
    defined: np.ndarray | None
    strides: tuple[int, ...]
    scalar: bool


def _operands(case: Case, memory: list[np.ndarray]) -> list[Any]:
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


def wanted(case: Case, memory: list[np.ndarray]) -> Wanted | None:
    """Return what a call must give, and write it into `memory`; None where it must be refused."""
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
        return None
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
    with np.errstate(all="ignore"):
        np.copyto(out, values, where=where, casting="unsafe")
    return Wanted(out, ~np.broadcast_to(undefined, shape) if np.any(undefined) else None, out.strides, False)


def _dtype(case: Case, operands: list[Any], out: np.ndarray | None, kwargs: dict[str, Any]) -> np.dtype:
    """Return the type of the loop that NumPy's rules choose, or raise as they do."""
    kinds = [type(value) if type(value) in (int, float) else np.asarray(value).dtype for value in operands]
    if len(kinds) == 1:  # a number is weak beside another operand only
        kinds = [np.dtype(kinds[0])]
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
    case: Case, operands: list[Any], out: np.ndarray | None, kwargs: dict[str, Any], dtype: np.dtype
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
    nditer: Any = np.nditer
    iterator = nditer(
        [*arrays, None],
        flags=["zerosize_ok"],
        op_flags=[["readonly"]] * len(arrays) + [["writeonly", "allocate", "no_subtype"]],
        op_dtypes=[None] * len(arrays) + [dtype],
        order=kwargs.get("order", "K"),
    )
    return iterator.operands[-1].strides, iterator.operands[-1].ndim == 0


def _check_refusal(case: Case, operands: list[Any], out: np.ndarray | None, kwargs: dict[str, Any]) -> None:
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


def _call(case: Case, memory: list[np.ndarray], apart: bool = False) -> tuple[Any, np.ndarray | None]:
    """Make the call on arrays in `memory`, or each in a copy of it; return its result, and what that must be."""
    made: dict[Place, np.ndarray] = {}

    def array(value: Any) -> Any:
        if not isinstance(value, Place):
            return value
        if value not in made:
            made[value] = value.of([block.copy() for block in memory] if apart else memory)
        return made[value]

    data = [array(operand) for operand in case.operands]
    given = {key: array(value) for key, value in case.given.items()}
    kwargs = {key: array(value) for key, value in case.kwargs.items()}
    out = array(case.out)
    if case.form == "raw":
        function = in_context(case.target, ufuncs.of(case.name))
        operands = [*data, *given.values()]
        if out is None:
            return function(*operands, **kwargs), None
        if case.style == 0:
            return function(*operands, out, **kwargs), out
        return function(*operands, out=(out,) if case.style == 1 else out, **kwargs), out
    if case.target is not None:
        kwargs["target"] = case.target
    if out is not None:
        kwargs["out"] = (out,) if case.style == 1 else out
    positional = list(itertools.takewhile(given.__contains__, PARAMETERS[case.name])) if case.style else []
    named = {key: value for key, value in given.items() if key not in positional}
    result = public(case.name, case.form == "twin")(*data, *(given[key] for key in positional), **named, **kwargs)
    return result, data[0] if case.form == "twin" else out


def _memory(case: Case, shift: int) -> list[np.ndarray]:
    """Return the case's blocks, each that far from where NumPy would begin an array."""
    memory = []
    for block in case.blocks:
        area = np.empty(len(block) + 128, np.uint8)
        start = -area.ctypes.data % 64 + shift
        area[start : start + len(block)] = np.frombuffer(block, np.uint8)
        memory.append(area[start : start + len(block)])
    return memory


def _quiet(case: Case) -> bool:
    """Say whether NumPy converts nothing in this raw call, so that no warning may come of it."""
    dtypes = {place.dtype for place in (*case.operands, *case.given.values(), case.out) if isinstance(place, Place)}
    scalars = [v for v in (*case.operands, *case.given.values()) if not isinstance(v, Place)]
    floats = all(dtype.kind == "f" for dtype in dtypes)
    return len(dtypes) == 1 and floats and not scalars and not {"dtype", "signature"} & set(case.kwargs)


def check(case: Case) -> bool:
    """Run a case, on one or two places in memory, and compare; return whether it was computed or refused."""
    after = _memory(case, 0)
    with np.errstate(all="ignore"):
        want = wanted(case, after)
    loud = case.form != "raw" or _quiet(case)
    for shift in case.shifts:
        memory = _memory(case, shift)
        try:
            with np.errstate(all="raise" if loud else "ignore"):
                if case.blocks and case.blocks[0] and case.style == 3:
                    _call(case, memory, apart=True)  # what is kept of this call must not serve the next, which overlaps
                result, out = _call(case, memory)
        except (TypeError, ValueError) as error:
            if want is not None:
                raise Wrong(f"refused: {type(error).__name__}: {error}") from error
            if not str(error):
                raise Wrong("refused without a word") from error
        else:
            if want is None:
                raise Wrong(f"NumPy refuses this; the result was {result!r}")
            _compare(result, out, want)
        for k, (block, wanted_block) in enumerate(zip(memory, after, strict=True)):
            if not np.array_equal(block, wanted_block):
                place = np.flatnonzero(block != wanted_block)
                raise Wrong(f"block {k} of memory differs at bytes {place[:10]}, {place.size} in all")
    return want is not None


def _compare(result: Any, out: np.ndarray | None, want: Wanted) -> None:
    if out is not None and result is not out:
        raise Wrong("the result is not the output")
    if out is None and isinstance(result, np.generic) != want.scalar:
        raise Wrong(f"the result is a {type(result)}")
    if result.dtype != want.values.dtype or result.shape != want.values.shape:
        raise Wrong(f"{result.dtype}{result.shape} is not {want.values.dtype}{want.values.shape}")
    if out is None and result.size:
        for extent, step, wanted_step in zip(result.shape, result.strides, want.strides):
            if extent > 1 and step != wanted_step:
                raise Wrong(f"strides {result.strides} are not {want.strides}")
    actual = np.array(result)
    if want.defined is not None:
        actual[~want.defined] = want.values[~want.defined]
    assert_same(actual, want.values, "values")
    if out is not None:  # NaNs are equal, and what is undefined may be anything: the rest of memory is compared next
        np.copyto(out, want.values, casting="no")


@contextlib.contextmanager
def tuned(tuning: dict[str, int]) -> Iterator[None]:
    """Move the thresholds, so that small arrays take the ways of large ones too."""
    names = ((_dispatch, "LARGE_BYTES", "large"), (_dispatch, "CONVERT_BYTES", "convert"),
             (_large, "TILE", "tile"), (_large, "UNIT_BYTES", "unit"))  # fmt: skip
    before = [getattr(module, name) for module, name, _ in names]
    try:
        for module, name, key in names:
            setattr(module, name, tuning[key])
        with fastrelu.configure(**{key: tuning[key] for key in ("parallel_min_bytes", "streaming_min_bytes")}):
            yield
    finally:
        for (module, name, _), value in zip(names, before):
            setattr(module, name, value)


@contextlib.contextmanager
def counted(paths: collections.Counter[str]) -> Iterator[None]:
    """Count how often the driver's ways are taken."""
    ways = ((_large, "run", "driver"), (_large, "run_converting", "converted on threads"), (_again, "run", "known job"))
    before = [getattr(module, name) for module, name, _ in ways]

    def counting(function: Any, label: str) -> Any:
        def count(*args: Any) -> Any:
            result = function(*args)
            paths[label] += result is not None
            return result

        return count

    try:
        for (module, name, label), function in zip(ways, before):
            setattr(module, name, counting(function, label))
        yield
    finally:
        for (module, name, _), function in zip(ways, before):
            setattr(module, name, function)


def run(seed: int, number: int) -> bool:
    """Run one case; return whether it was computed or refused, and raise Wrong with the way to run it again."""
    case = draw(seed, number)
    try:
        with tuned(case.tuning), warnings.catch_warnings():
            warnings.simplefilter("error")
            if "where" in case.kwargs and case.out is None and case.form != "twin":
                warnings.filterwarnings("ignore", message=".*uninitialized memory|.*unitialized memory")
            return check(case)
    except Skipped:
        return False
    except Exception as error:
        detail = "\n".join(f"  {key}: {value}" for key, value in vars(case).items() if key != "blocks")
        again = f"python -m tests.fuzz --seed {seed} --only {number}"
        raise Wrong(f"seed {seed}, case {number}: {error}\n{detail}\nrun it again: {again}") from error


def _watched(numbers: range) -> Iterator[int]:
    """Yield numbers, with a progress bar where rich is installed."""
    try:
        from rich.progress import track
    except ImportError:
        for number in numbers:
            if number % 10_000 == 0:
                print(f"case {number:,}", file=sys.stderr, flush=True)
            yield number
    else:
        for start in track(range(numbers.start, numbers.stop, 1000), "thousands of cases"):
            yield from range(start, min(start + 1000, numbers.stop))


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--only", type=int, help="run only this one")
    parser.add_argument("--failures", type=int, default=1, help="stop after so many")
    parser.add_argument("--verbose", action="store_true", help="print each number before its case, should it crash")
    options = parser.parse_args()
    first, cases = (options.first, options.cases) if options.only is None else (options.only, 1)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on a busy machine, threads that spin cost more than the cases
    paths: collections.Counter[str] = collections.Counter()
    done = refused = failures = 0
    start = time.perf_counter()
    numbers = range(first, first + cases)
    with counted(paths):
        for number in numbers if options.verbose or cases == 1 else _watched(numbers):
            if options.verbose:
                print(number, flush=True)
            try:
                refused += not run(options.seed, number)
            except Wrong as wrong:
                print(f"\n{wrong}", flush=True)
                failures += 1
                if failures == options.failures:
                    break
            done += 1
    seconds = time.perf_counter() - start
    print(f"seed {options.seed}: {done:,} cases in {seconds:.1f} s, {refused:,} of them refused, {failures} differ")
    print(", ".join(f"{label}: {count:,}" for label, count in sorted(paths.items())))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
