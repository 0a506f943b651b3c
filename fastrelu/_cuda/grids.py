"""How many blocks of how many threads."""

import math
from typing import NamedTuple

from . import cuda_driver, settings
from .settings import VECTOR_BYTES


class Grid(NamedTuple):
    """Blocks in one row, of threads along columns and rows."""

    blocks: int
    threads: int
    rows: int = 1


def _blocks(tiles: int) -> int:
    return max(1, min(tiles, settings.MAX_BLOCKS or settings.GRID_LIMIT))


def flat_grid(units: int, count: int = 1) -> Grid:
    """Return the grid for threads that take `count` units each: a tile of these per block, up to a limit."""
    return Grid(_blocks(-(-units // (settings.BLOCK * count))), settings.BLOCK)


def row_grid(columns: int, rows: int, count: int) -> Grid:
    """Return the grid of the strided kernel: blocks as wide as the rows need, and the rest of the threads below."""
    block = settings.BLOCK
    wide = min(block, 1 << max(0, math.ceil(columns / count) - 1).bit_length())
    if columns < 32:  # short rows: one element per thread, or most of a warp would be idle
        wide = min(block, 1 << (columns - 1).bit_length())
    high = max(1, block // wide)
    return Grid(_blocks(-(-columns // (wide * count)) * -(-rows // high)), wide, high)


def contiguous_grid(out: int, n: int, size: int, device: int) -> tuple[int, int, Grid]:
    """Return elements before the first vector of an output, loads in flight per thread, and the grid."""
    head = min(n, -out % VECTOR_BYTES // size)
    vectors = (n - head) * size // VECTOR_BYTES
    processors, many = cuda_driver.get().multiprocessors(device), settings.VECTORS
    loads = many if vectors >= processors * settings.FILL * settings.BLOCK * many else 1
    return head, loads, flat_grid(vectors, loads)
