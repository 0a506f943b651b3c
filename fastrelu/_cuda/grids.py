"""From shapes and strides to the fewest axes, and from those to a grid."""

import math
from collections.abc import Sequence
from typing import NamedTuple

#: Rows and columns, and four more axes that did not join them; arrays with even more are launched in pieces.
MAX_AXES = 5


def broadcast(shape: Sequence[int], strides: Sequence[int], result: Sequence[int]) -> tuple[int, ...]:
    """Return an operand's strides along the axes of the result, 0 where it broadcasts."""
    missing = len(result) - len(shape)
    inner = (0 if extent == 1 else stride for extent, stride in zip(shape, strides, strict=True))
    return (0,) * missing + tuple(inner)


def extent(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int]:
    """Return the bytes before and after its address that an array reaches; (0, 0) for an empty one."""
    if 0 in shape:
        return 0, 0
    steps = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    return sum(step for step in steps if step < 0), sum(step for step in steps if step > 0) + itemsize


def is_dense(shape: Sequence[int], strides: Sequence[int], itemsize: int, order: str = "C") -> bool:
    """Say whether an array is contiguous in C or Fortran order."""
    expected = itemsize
    axes = range(len(shape)) if order == "F" else reversed(range(len(shape)))
    for axis in axes:
        if shape[axis] != 1:
            if strides[axis] != expected:
                return False
            expected *= shape[axis]
    return True


def dense_strides(shape: Sequence[int], itemsize: int, order: str = "C") -> tuple[int, ...]:
    """Return the strides of a new contiguous array."""
    strides = [0] * len(shape)
    step = itemsize
    for axis in range(len(shape)) if order == "F" else reversed(range(len(shape))):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


class Grid(NamedTuple):
    """How many blocks of how many threads, along columns and rows."""

    blocks: int
    threads: int
    rows: int = 1


def flat_grid(vectors: int, block: int, count: int, limit: int) -> Grid:
    """Return the grid of the contiguous kernel: a tile per block, up to a limit."""
    return Grid(max(1, min(-(-vectors // (block * count)), limit)), block)


def row_grid(columns: int, rows: int, block: int, count: int, limit: int) -> Grid:
    """Return the grid of the strided kernel: blocks as wide as the rows need, and the rest of the threads below."""
    wide = min(block, 1 << max(0, math.ceil(columns / count) - 1).bit_length())
    if columns < 32:  # short rows: one element per thread, or most of a warp would be idle
        wide = min(block, 1 << (columns - 1).bit_length())
    high = max(1, block // wide)
    tiles = -(-columns // (wide * count)) * -(-rows // high)
    return Grid(max(1, min(tiles, limit)), wide, high)
