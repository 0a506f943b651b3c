"""What cases of every kind have: a call to make, what it must give, and how the two are compared."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastrelu._bench.oracle import assert_same

from .memory import Place


class Wrong(AssertionError):
    """A case whose result is not what it must be."""


class Skipped(Exception):
    """A case for which there is nothing to compare with."""


class Refused(Exception):
    """A call that must be refused, with one of these errors."""

    def __init__(self, *errors: type[Exception]) -> None:
        super().__init__(*errors)
        self.errors = errors


@dataclass
class Wanted:
    """What a result must be: its values, and which of them are defined; strides and a scalar if it is a new one."""

    values: np.ndarray
    defined: np.ndarray | None = None
    strides: tuple[int, ...] | None = None
    scalar: bool = False

    def check(self, result: Any, out: Any, label: str) -> None:
        """Raise Wrong if a result, or the output that it must be, is not that."""
        if out is not None and result is not out:
            raise Wrong(f"the {label} is not the output")
        if out is None and isinstance(result, np.generic) != self.scalar:
            raise Wrong(f"the {label} is a {type(result)}")
        if result.dtype != self.values.dtype or result.shape != self.values.shape:
            raise Wrong(f"the {label}, {result.dtype}{result.shape}, is not {self.values.dtype}{self.values.shape}")
        if out is None and self.strides is not None and result.size:
            for extent, step, wanted in zip(result.shape, result.strides, self.strides):
                if extent > 1 and step != wanted:
                    raise Wrong(f"the {label} has strides {result.strides}, not {self.strides}")
        self.compare(np.array(result), label)
        if (
            out is not None
        ):  # NaNs are equal, and what is undefined may be anything: the rest of memory is compared next
            np.copyto(out, self.values, casting="no")

    def compare(self, actual: np.ndarray, label: str) -> None:
        """Raise if values differ."""
        if self.defined is not None:
            actual[~self.defined] = self.values[~self.defined]
        assert_same(actual, self.values, label)


class Result(NamedTuple):
    """What a call returned or wrote, and the caller's array that it must be, or None."""

    value: Any
    out: Any


@dataclass(kw_only=True)
class Case(abc.ABC):
    """One call. Arguments are places in memory or plain values."""

    name: str
    target: str | None
    blocks: list[bytes]
    style: int
    shifts: list[int]
    tuning: dict[str, Any]

    @abc.abstractmethod
    def wanted(self, memory: list[np.ndarray]) -> dict[str, Wanted]:
        """Return what the call must give, and write it into `memory`; raise Refused or Skipped."""

    @abc.abstractmethod
    def call(self, array: Callable[[Any], Any]) -> dict[str, Result]:
        """Make the call, on what `array` makes of places, with the same labels as `wanted`."""

    @property
    def loud(self) -> bool:
        """Say whether no warning may come of the call."""
        return True

    def memory(self, shift: int) -> list[np.ndarray]:
        """Return the blocks, each that far from where NumPy would begin an array."""
        memory = []
        for block in self.blocks:
            area = np.empty(len(block) + 128, np.uint8)
            start = -area.ctypes.data % 64 + shift
            area[start : start + len(block)] = np.frombuffer(block, np.uint8)
            memory.append(area[start : start + len(block)])
        return memory


def arrays_in(memory: list[np.ndarray], apart: bool = False) -> Callable[[Any], Any]:
    """Return a function that makes arrays of places, one of each, in `memory` or each in a copy of it."""
    made: dict[Place, np.ndarray] = {}

    def array(value: Any) -> Any:
        if not isinstance(value, Place):
            return value
        if value not in made:
            made[value] = value.of([block.copy() for block in memory] if apart else memory)
        return made[value]

    return array


def check(case: Case) -> bool:
    """Run a case, on one or two places in memory, and compare; return whether it was computed or refused."""
    for shift in case.shifts:
        memory, after = case.memory(shift), case.memory(shift)  # whether arrays are aligned may matter to the result
        try:
            with np.errstate(all="ignore"):
                wanted: dict[str, Wanted] | Refused = case.wanted(after)
        except Refused as refused:
            wanted = refused
        try:
            with np.errstate(all="raise" if case.loud else "ignore"):
                if case.blocks and case.blocks[0] and case.style == 3:
                    # what is kept of this call must not serve the next, which overlaps
                    case.call(arrays_in(memory, apart=True))
                results = case.call(arrays_in(memory))
        except (TypeError, ValueError) as error:
            if not isinstance(wanted, Refused):
                raise Wrong(f"refused: {type(error).__name__}: {error}") from error
            if not isinstance(error, wanted.errors):
                raise Wrong(f"the error is no {wanted.errors}: {type(error).__name__}: {error}") from error
            if not str(error):
                raise Wrong("refused without a word") from error
        else:
            if isinstance(wanted, Refused):
                raise Wrong(f"this must be a {wanted.errors}; the result was {results!r}")
            for label, want in wanted.items():
                want.check(*results[label], label)
        for k, (block, wanted_block) in enumerate(zip(memory, after, strict=True)):
            if not np.array_equal(block, wanted_block):
                place = np.flatnonzero(block != wanted_block)
                raise Wrong(f"block {k} of memory differs at bytes {place[:10]}, {place.size} in all")
    return not isinstance(wanted, Refused)
