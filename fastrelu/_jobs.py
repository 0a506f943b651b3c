"""A job, as the compiled driver reads it: written here, and laid out in `_layout`."""

import math
from collections.abc import Sequence

import numpy as np

from ._layout import (
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
