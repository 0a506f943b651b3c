"""One row per public function: what it takes, what it makes beside its result, and whose rules of types it follows.

All that is a list of functions or of operands follows from these rows: ufuncs, native front, passes, kernels, compiled
code, warm-up, signatures, the parameters of benchmarks and tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

#: NumPy type characters. float16 comes first: NumPy takes the first loop that an input casts to safely.
FLOATS = "efd"
#: Both ``l`` and ``q`` are there because NumPy has a type object for each C type, also where sizes agree.
INTEGERS = "?bBhHiIlLqQ"

#: The defaults of the public functions. ``at_zero=None`` of the leaky ones means the slope, as in PyTorch.
NEGATIVE_SLOPE, AT_ZERO = 0.01, 0.0


class Operand(NamedTuple):
    """An input of a function. Data is of the result's shape, and a bitmask goes with it; parameters broadcast."""

    name: str
    kind: str  # "data", "bitmask" or "parameter"
    default: float | None = None  # of a parameter, where it is left out
    follows: str = ""  # the parameter whose value it has, where it is left out and that one is there


@dataclass(frozen=True, eq=False)
class Operation:
    """A row."""

    name: str
    operands: tuple[Operand, ...]
    #: The operation whose result it returns, and whose rules of types it follows; itself where it is a ufunc.
    like: str
    #: What it sums in its pass: "counts" of positive elements, or terms of the "slope_grad".
    sums: str = ""
    #: Whether it writes a mask of one bit per element.
    writes_bitmask: bool = False
    #: Whether it returns a result of the shape of its data. Only such a function has a twin that works in place.
    writes_result: bool = True

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of its operands, in order."""
        return tuple(operand.name for operand in self.operands)

    @cached_property
    def data(self) -> tuple[str, ...]:
        """The names of its data, a bitmask among them, which come first."""
        return tuple(operand.name for operand in self.operands if operand.kind != "parameter")

    @cached_property
    def parameters(self) -> tuple[Operand, ...]:
        """Its parameters, which come last."""
        return tuple(operand for operand in self.operands if operand.kind == "parameter")

    @cached_property
    def reads_bitmask(self) -> bool:
        return any(operand.kind == "bitmask" for operand in self.operands)

    @cached_property
    def has_bitmask(self) -> bool:
        return self.writes_bitmask or self.reads_bitmask

    @property
    def is_ufunc(self) -> bool:
        return self.like == self.name

    @property
    def formula(self) -> str:
        """The name in `_formulas` of what it computes: its own where it has other operands than a ufunc."""
        return self.name if self.reads_bitmask else self.like

    @property
    def twin(self) -> str:
        """The name of the function that works in place, or nothing."""
        return f"{self.name}_" if self.writes_result else ""

    @property
    def typecodes(self) -> str:
        """The type characters for which it has a loop of its own. A parameter, a float, makes floats of integers."""
        return FLOATS if ROWS[self.like].parameters else INTEGERS + FLOATS

    def operands_of_ufunc(self, given: Mapping[str, Any]) -> list[Any]:
        """Return operands, as they decide about types, for the ufunc that it follows, from this function's by name."""
        first = given[self.names[0]]
        return [
            given.get(each.name, given.get(each.follows, first if each.kind == "data" else each.default))
            for each in ROWS[self.like].operands
        ]

    def dtypes_of_sums(self, dtype: np.dtype) -> list[np.dtype]:
        """Return the types of its sums in the kernel: a count, a sum, or a sum and its error."""
        if self.sums == "counts":
            return [np.dtype(np.int32)]
        return [np.dtype(np.float64)] * (2 if dtype == np.float64 else 1)


_X, _GRAD, _MASK = Operand("x", "data"), Operand("grad", "data"), Operand("mask", "bitmask")
_SLOPE = Operand("negative_slope", "parameter", NEGATIVE_SLOPE)
_AT_ZERO = Operand("at_zero", "parameter", AT_ZERO)
_AT_ZERO_OF_SLOPE = Operand("at_zero", "parameter", NEGATIVE_SLOPE, follows="negative_slope")

ROWS = {
    row.name: row
    for row in (
        Operation("relu", (_X,), "relu"),
        Operation("leaky_relu", (_X, _SLOPE), "leaky_relu"),
        Operation("relu_grad", (_X, _AT_ZERO), "relu_grad"),
        Operation("leaky_relu_grad", (_X, _SLOPE, _AT_ZERO_OF_SLOPE), "leaky_relu_grad"),
        Operation("relu_backward", (_GRAD, _X, _AT_ZERO), "relu_backward"),
        Operation("leaky_relu_backward", (_GRAD, _X, _SLOPE, _AT_ZERO_OF_SLOPE), "leaky_relu_backward"),
        Operation("relu_with_mask", (_X,), "relu", writes_bitmask=True),
        Operation("leaky_relu_with_mask", (_X, _SLOPE), "leaky_relu", writes_bitmask=True),
        Operation("relu_backward_from_mask", (_GRAD, _MASK), "relu_backward"),
        Operation("leaky_relu_backward_from_mask", (_GRAD, _MASK, _SLOPE), "leaky_relu_backward"),
        Operation("relu_with_counts", (_X,), "relu", sums="counts"),
        Operation("leaky_relu_with_counts", (_X, _SLOPE), "leaky_relu", sums="counts"),
        Operation("count_active", (_X,), "relu", sums="counts", writes_result=False),
        Operation("leaky_relu_slope_grad", (_GRAD, _X), "leaky_relu_backward", sums="slope_grad", writes_result=False),
        Operation("leaky_relu_backward_with_slope_grad", (_GRAD, _X, _SLOPE), "leaky_relu_backward", sums="slope_grad"),
    )
}
#: The rows with a ufunc of their own.
UFUNCS = {name: row for name, row in ROWS.items() if row.is_ufunc}
#: Every public function with a row: its twin's name has an underscore more.
FUNCTIONS = {name: row for row in ROWS.values() for name in (row.name, row.twin) if name}
