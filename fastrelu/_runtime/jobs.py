"""A job, as compiled code reads it; and the axes that it needs."""

import math
from collections.abc import Sequence

from .._kernels.records import Job, job_with


def describe(
    run_tile: int, kernel: int, itemsize: int, streaming: int, extents: Sequence[int], blocks: Sequence[int],
    addresses: Sequence[int], strides: Sequence[Sequence[int]], tiles: int | None = None, period: int = 0,
) -> Job:  # fmt: skip
    """Return a job over axes of these extents, of which a tile covers these blocks; it has two axes at least."""
    if len(extents) < 2:
        extents, blocks = ([1] * (2 - len(each)) + list(each) for each in (extents, blocks))
        strides = [[0] * (2 - len(row)) + list(row) for row in strides]
    counts = [-(-extent // block) for extent, block in zip(extents, blocks, strict=True)]
    tiles = math.prod(counts) if tiles is None else tiles
    axes = [
        (extent, block, count, tuple(row[k] for row in strides))
        for k, (extent, block, count) in enumerate(zip(extents, blocks, counts, strict=True))
    ]
    return job_with(len(axes))(
        run_tile, kernel, len(addresses), itemsize, streaming, tiles, len(axes), period, tuple(addresses), tuple(axes)
    )


def coalesce(
    shape: Sequence[int], strides: Sequence[Sequence[int]], *, ordered: bool = False
) -> tuple[list[int], list[list[int]]]:
    """Return the same elements with as few axes as possible; `strides` are those of each operand, the output last.

    Axes of length 1 go; the others are sorted by the output's strides, so that neighbouring threads of a GPU write
    neighbouring elements, or left as they are if `ordered`; axes that follow each other in every operand become one.
    """
    axes = [(extent, [row[k] for row in strides]) for k, extent in enumerate(shape) if extent != 1]
    if not ordered:
        axes.sort(key=lambda axis: [abs(step) for step in reversed(axis[1])], reverse=True)
    joined: list[tuple[int, list[int]]] = []
    for extent, steps in axes:
        if joined and joined[-1][1] == [step * extent for step in steps]:
            extent *= joined.pop()[0]
        joined.append((extent, steps))
    return [extent for extent, _ in joined], [[steps[k] for _, steps in joined] for k in range(len(strides))]
