"""What is measured: an operation, how its result is returned, a type, a size, a layout and the kind of data.

The arrays of a case are made when a provider first names them, so that a large case holds only what it needs.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._operations import ROWS, UFUNCS, Operand

FORWARD = tuple(name for name, row in UFUNCS.items() if "grad" not in row.data)
BACKWARD = tuple(name for name, row in UFUNCS.items() if "grad" in row.data)
#: "loop" is an element at a time inside a user's own `@njit` loop, into a given array
MODES = ("new", "out", "inplace", "loop")
#: One bit per element is written beside the result, or read in place of x
MASK_MODES = ("mask", "mask inplace")
MASKED = {row.like: row for row in ROWS.values() if row.has_bitmask}
#: Sums per unit are taken in the same pass, or alone: how many elements are positive, and the gradient of the slope
SUM_MODES = {"counts": "relu", "counts only": "relu"}
SUM_MODES |= {"slope grad": "leaky_relu_backward", "slope grad only": "leaky_relu_backward"}
FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
TYPES = (*FLOATS, "bfloat16", *INTEGERS, "bool")
LAYOUTS: tuple[str, ...] = (
    "contiguous", "every other row", "every other column", "transposed", "slope per channel", "byte-swapped",
    "512 columns", "channels first",
)  # fmt: skip
DATA = ("normal", "positive", "negative", "digits", "file")

SLOPE = 0.01
#: In place, x * 0.01 again and again would run into subnormal numbers, which some CPUs handle slowly.
SLOPE_IN_PLACE = 0.999


def is_slope(operand: Operand) -> bool:
    """Say whether an operand is the slope, or follows it where it is left out."""
    return "negative_slope" in (operand.name, operand.follows)


def is_float(dtype: np.dtype) -> bool:
    """Say whether a type is one of floating-point numbers; to NumPy, bfloat16 is of no kind."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


@dataclass(frozen=True)
class Case:
    """One thing that providers compete in."""

    operation: str
    mode: str
    dtype: str = "float32"
    size: int = 1_000_000
    layout: str = "contiguous"
    data: str = "normal"

    def __post_init__(self) -> None:
        if self.dtype == "bfloat16":  # a name that NumPy knows from then on
            importlib.import_module("ml_dtypes")

    @property
    def backward(self) -> bool:
        """Whether a gradient is an operand."""
        return self.operation in BACKWARD

    @property
    def masked(self) -> bool:
        """Whether a mask is written or read."""
        return self.mode in MASK_MODES

    @property
    def summed(self) -> bool:
        """Whether something is summed per unit."""
        return self.mode in SUM_MODES

    @property
    def writes(self) -> bool:
        """Whether the result has an element for each of the input."""
        return not self.mode.endswith("only")

    @property
    def in_place(self) -> bool:
        """Whether an operand is overwritten."""
        return self.mode.endswith("inplace")

    @property
    def target(self) -> str:
        """The name of the array that an in-place call overwrites."""
        return "grad" if self.backward else "x"

    @property
    def result_dtype(self) -> np.dtype:
        """The type of the result: relu keeps every type, the others turn integers into float64."""
        dtype = np.dtype(self.dtype)
        return dtype if is_float(dtype) or self.operation == "relu" else np.dtype(np.float64)

    @property
    def bytes(self) -> int:
        """Bytes that any implementation must read and write."""
        x, result = np.dtype(self.dtype).itemsize, self.result_dtype.itemsize
        if self.masked:
            return self.size * (result + (result if self.backward else x)) + -(-self.size // 8)
        return self.size * (x + (result if self.writes else 0) + (result if self.backward else 0))

    @property
    def possible(self) -> bool:
        """Whether the result fits where the mode puts it."""
        return not self.in_place or self.backward or self.result_dtype == np.dtype(self.dtype)


def make_data(kind: str, size: int, dtype: Any, seed: int = 0) -> np.ndarray:
    """Return a one-dimensional array of a kind of data that needs no file."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    # Drawing 1e8 normal numbers takes longer than measuring with them: repeat a block no branch predictor learns
    block: np.ndarray = rng.standard_normal(min(size, 1 << 22), dtype=np.float32)
    if kind == "positive":
        block = np.abs(block) + np.float32(0.001)
    elif kind == "negative":
        block = -np.abs(block) - np.float32(0.001)
    if dtype.kind in "iu":
        block = np.clip(block * 30, -127 if dtype.kind == "i" else 0, 127)
    elif dtype.kind == "b":
        block = block > 0
    return np.resize(block.astype(dtype), size)


def rectangle(size: int) -> tuple[int, int]:
    """Return a shape of about `size` elements, as square as a power of two allows."""
    columns = 1 << max(0, round(math.log2(max(size, 1)) / 2))
    return max(1, size // columns), columns


class Operands(dict[str, Any]):
    """The arrays of one case by name, each made and touched when first asked for."""

    def __init__(self, case: Case, values: np.ndarray | None = None) -> None:
        self.case = case
        self._values = values
        #: What `restore` puts back; the working array is another one, so that peers see the same input
        self._source: np.ndarray | None = None

    def __missing__(self, name: str) -> Any:
        maker = _MAKERS.get(name)
        if maker is None:
            raise KeyError(name)
        value = maker(self)
        if self.case.in_place and name == self.case.target:
            self._source = value
            value = value.copy(order="K")
        self[name] = value
        return value

    def restore(self) -> None:
        """Undo what in-place calls have done."""
        if self._source is not None:
            np.copyto(self[self.case.target], self._source)

    def input(self) -> np.ndarray:
        """Return x in the layout of the case."""
        case = self.case
        if self._values is not None:
            return self._values
        if case.layout == "contiguous":
            return make_data(case.data, case.size, case.dtype)
        rows, columns = rectangle(case.size)
        shape: dict[str, tuple[int, ...]] = {
            "every other row": (2 * rows, columns),
            "every other column": (rows, 2 * columns),
        }
        images = max(1, case.size // (256 * 56 * 56))
        shape |= {"512 columns": (max(1, case.size // 512), 512), "channels first": (images, 256, 56, 56)}
        full = shape.get(case.layout, (rows, columns))
        array = make_data(case.data, math.prod(full), case.dtype).reshape(full)
        if case.layout == "every other row":
            array = array[::2]
        elif case.layout == "every other column":
            array = array[:, ::2]
        elif case.layout == "transposed":
            array = array.T
        elif case.layout == "byte-swapped":
            array = array.astype(array.dtype.newbyteorder())
        return array

    def result(self) -> np.ndarray:
        """Return an output: contiguous in C order for every layout but that of a given array."""
        shape, dtype = self["x"].shape, self.case.result_dtype
        given = self._values is not None
        out = np.empty_like(self["x"], dtype=dtype) if given else np.empty(shape, dtype=dtype)
        out[...] = 0  # touched: page faults of memory that a caller already has are not the call's
        return out

    def gradient(self) -> np.ndarray:
        """Return what comes back from the layer above."""
        x = self["x"]
        grad = np.empty_like(x, dtype=self.case.result_dtype)
        if self.case.layout != "contiguous":
            grad = np.empty(x.shape, dtype=self.case.result_dtype)
        grad[...] = make_data("normal", x.size, grad.dtype, seed=1).reshape(x.shape)
        return grad

    def slope(self) -> Any:
        """Return the slope: a Python float that is exact in the result's type, or one number per column."""
        value = SLOPE_IN_PLACE if self.case.in_place else SLOPE
        dtype = self.case.result_dtype
        if self.case.layout == "slope per channel":
            return np.linspace(value / 2, value, self["x"].shape[-1]).astype(dtype)
        return float(dtype.type(value)) if is_float(dtype) else value

    def bits(self) -> np.ndarray:
        """Return the mask of x for a backward pass, room for it for a forward pass."""
        if self.case.backward:
            return np.packbits(~(self["x"] <= 0), bitorder="little")
        return np.zeros(-(-self["x"].size // 8), np.uint8)

    def axis(self) -> int:
        """Return the axis along which the units lie."""
        return 1 if self.case.layout == "channels first" else -1

    def sums(self) -> np.ndarray:
        """Return room for a sum per unit, of zeros: counts, or the gradient of each slope."""
        units = self["x"].shape[self["axis"]]
        return np.zeros(units, self.case.result_dtype if self.case.backward else np.int64)

    def reference(self) -> tuple[Any, ...]:
        """Return all operands of the operation, as the oracle wants them."""
        return tuple(
            self[operand.name] if operand.kind == "data" else self["slope"] if is_slope(operand) else operand.default
            for operand in UFUNCS[self.case.operation].operands
        )


def _filled(operands: Operands, dtype: Any, value: Any = 0) -> np.ndarray:
    array: np.ndarray = np.empty_like(operands["x"], dtype=dtype)
    array[...] = value
    return array


_MAKERS: Mapping[str, Callable[[Operands], Any]] = {
    "np": lambda o: np,
    "x": Operands.input,
    "out": Operands.result,
    "grad": Operands.gradient,
    "slope": Operands.slope,
    "bits": Operands.bits,
    "axis": Operands.axis,
    "others": lambda o: tuple(k for k in range(o["x"].ndim) if k != o["axis"] % o["x"].ndim),
    "sums": Operands.sums,
    "zeros": lambda o: _filled(o, o["x"].dtype),
    "mask": lambda o: _filled(o, np.bool_),
    "scratch": lambda o: _filled(o, o.case.result_dtype),
    "z": lambda o: np.maximum(o["x"], o["x"].dtype.type(0)),
    "s": lambda o: np.asarray(o["slope"], dtype=o.case.result_dtype),
    "one": lambda o: o.case.result_dtype.type(1),
    "zero": lambda o: np.array(0, dtype=o.case.result_dtype),
    "items": lambda o: o["x"].ravel().tolist(),
    "grads": lambda o: o["grad"].ravel().tolist(),
    "out_items": lambda o: [0.0] * o["x"].size,
}
