"""What a kernel needs to know of an array, whichever library it comes from, and how two of them lie to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(slots=True)
class View:
    """An array in the memory of a GPU."""

    #: The array itself.
    owner: Any
    pointer: int
    shape: tuple[int, ...]
    #: In bytes.
    strides: tuple[int, ...]
    dtype: np.dtype
    device: int
    #: The stream on which the array is produced and will be used; 0 is CUDA's default stream.
    stream: int
    readonly: bool = False
    #: What keeps the memory alive beside the array.
    keeper: Any = None


def dense_strides(shape: Sequence[int], itemsize: int, order: str = "C") -> tuple[int, ...]:
    """Return the strides of a new contiguous array."""
    strides = [0] * len(shape)
    step = itemsize
    for axis in range(len(shape)) if order == "F" else reversed(range(len(shape))):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def _is_dense(view: View, order: str) -> bool:
    """Say whether an array is contiguous in C or Fortran order."""
    expected = dense_strides(view.shape, view.dtype.itemsize, order)
    return all(n == 1 or a == b for n, a, b in zip(view.shape, view.strides, expected, strict=True))


def order_of(views: Sequence[View]) -> str:
    """Return the memory order of a new result: Fortran's where all the data has it, as NumPy chooses."""

    def dense(order: str) -> bool:
        return all(_is_dense(view, order) for view in views)

    return "F" if dense("F") and not dense("C") else "C"


def _extent(view: View) -> tuple[int, int]:
    """Return the first address that an array reaches, and the one after its last."""
    if 0 in view.shape:
        return view.pointer, view.pointer
    steps = [(length - 1) * stride for length, stride in zip(view.shape, view.strides, strict=True)]
    low, high = sum(step for step in steps if step < 0), sum(step for step in steps if step > 0)
    return view.pointer + low, view.pointer + high + view.dtype.itemsize


def touches(view: View, out: View) -> bool:
    """Say whether two arrays may share memory: whether the ranges that they lie in do."""
    low, high = _extent(view)
    start, end = _extent(out)
    return high > start and end > low


def overlaps(view: View, out: View) -> bool:
    """Say whether an input shares memory with the output other than element by element."""
    if not touches(view, out):
        return False
    same = view.pointer == out.pointer and view.dtype.itemsize == out.dtype.itemsize and view.shape == out.shape
    return not (same and all(a == b or n == 1 for a, b, n in zip(view.strides, out.strides, out.shape, strict=True)))
