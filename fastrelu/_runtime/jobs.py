"""A job, as the compiled driver reads it: written here, and laid out in `_layout`; and the axes that it needs."""

import math
from collections.abc import Sequence

import numpy as np

from .._kernels.records import (
    AXES,
    AXIS,
    JOB_HEAD,
    JOB_ITEMSIZE,
    JOB_KERNEL,
    JOB_OPERANDS,
    JOB_RUN_UNIT,
    JOB_STREAM,
    JOB_UNITS,
)


def describe(
    run_unit: int, kernel: int, itemsize: int, streaming: int, extents: Sequence[int], blocks: Sequence[int],
    addresses: Sequence[int], strides: Sequence[Sequence[int]], units: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Return a job over axes of these extents, two at least, of which a unit covers these blocks."""
    counts = [-(-extent // block) for extent, block in zip(extents, blocks, strict=True)]
    head = [0] * JOB_HEAD
    head[JOB_RUN_UNIT], head[JOB_KERNEL] = run_unit, kernel
    head[JOB_OPERANDS], head[JOB_ITEMSIZE], head[JOB_STREAM] = len(addresses), itemsize, streaming
    head[JOB_UNITS], head[AXES] = math.prod(counts) if units is None else units, len(extents)
    axes = [word for triple in zip(extents, blocks, counts, strict=True) for word in triple]
    assert len(axes) == AXIS * len(extents)
    operands = [word for address, row in zip(addresses, strides, strict=True) for word in (address, *row)]
    return np.array(head + axes + operands, dtype=np.int64)


def coalesce(
    shape: Sequence[int], strides: Sequence[Sequence[int]], *, ordered: bool = False
) -> tuple[list[int], list[list[int]]]:
    """Return the same elements with as few axes as possible; `strides` are those of each operand, the output last.

    Axes of length 1 go; the others are sorted by the output's strides, so that neighbouring threads of a GPU write
    neighbouring elements, or left as they are if `ordered`; axes that follow each other in every operand become one.
    """
    axes = [axis for axis, extent in enumerate(shape) if extent != 1]
    if not ordered:
        axes.sort(key=lambda axis: tuple(abs(row[axis]) for row in reversed(strides)), reverse=True)
    extents: list[int] = []
    joined: list[list[int]] = [[] for _ in strides]
    for axis in axes:
        if extents and all(done[-1] == row[axis] * shape[axis] for done, row in zip(joined, strides, strict=True)):
            extents[-1] *= shape[axis]
            for done, row in zip(joined, strides, strict=True):
                done[-1] = row[axis]
        else:
            extents.append(shape[axis])
            for done, row in zip(joined, strides, strict=True):
                done.append(row[axis])
    return extents, joined
