"""The one-bit backward pass: forward functions that also return which elements were active, and backward from that.

What they compute is in `_formulas`, and the kernels are in `_kernels/bitmask.py`. Here is how a call becomes a job; the
public functions are in `_api/bitmask.py`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import classify
from .._kernels.records import BITMASK_STREAMED, EVEN, TILE_BYTES, Job
from .._runtime.jobs import coalesce
from . import job_cache
from .single_pass import Pass, apart, put

MASK = np.dtype(np.uint8)
#: Elements of a tile are a multiple of this, so that it begins at a byte of the mask, and in an aligned one at a line.
WHOLE = 512


def length(shape: Sequence[int]) -> int:
    """Return the bytes of the mask of an array."""
    return -(-math.prod(shape) // 8)


def check_mask(
    name: str, argument: str, what: str, dtype: np.dtype, shape: tuple[int, ...], data: tuple[int, ...]
) -> None:
    """Raise what a mask deserves, `what` in words, that is not one for data of a shape."""
    if dtype != np.uint8 or len(shape) != 1:
        raise TypeError(f"{name}: {argument} must be a one-dimensional array of uint8, not {what}")
    if shape[0] != length(data):
        size = math.prod(data)
        raise ValueError(f"{name}: {argument} has {shape[0]} bytes; for {size} elements it must have {length(data)}")


class BitmaskPass(Pass):
    """A pass that writes a mask, `mask_out`, or reads one, `mask`."""

    def check(self) -> None:
        super().check()
        argument = "mask" if self.row.reads_bitmask else "mask_out"
        mask = self.inputs.get(argument, self.outputs.get(argument))
        self.length = length(self.shape)
        if mask is None:
            return
        what = classify.described(self.given[argument], mask)
        check_mask(self.name, argument, what, classify.dtype_of(mask), np.shape(mask), self.shape)
        if argument == "mask_out":
            self.check_apart("mask_out", mask)

    def run(self, key: job_cache.Key | None = None) -> Any:
        reads = self.row.reads_bitmask
        out = self.output("out", self.shape, self.dtype)
        mask = self.inputs["mask"] if reads else self.output("mask_out", (self.length,), MASK)
        result = self.writable(out)
        bits = np.ascontiguousarray(mask)  # the kernel writes one without gaps
        views = [apart(view, result) for view in self.views]
        views.insert(1 if reads else len(views), apart(bits, result) if reads else bits)
        if self.views[0].size:
            self.compute([*views, result], key)
        put(out, result)
        if reads:
            return self.leave("out", out)
        put(mask, bits)
        return self.leave("out", out), self.leave("mask_out", mask)

    def compute(self, arrays: Sequence[np.ndarray], key: job_cache.Key | None) -> None:
        """Pass over operands, in the function's order, and outputs, `out` last, of at least one element."""
        self.start(self._job(arrays), arrays, key)

    def _job(self, arrays: Sequence[np.ndarray]) -> Job:
        """Describe a pass in C order over operands and outputs."""
        size = self.views[0].size
        still = (0,) * len(self.shape)  # the mask's strides: the kernel counts its bits itself
        rows = [array.strides if array.shape == self.shape else still for array in arrays]
        extents, strides = coalesce(self.shape, rows, ordered=True)
        block = TILE_BYTES // self.dtype.itemsize * (BITMASK_STREAMED if self.streaming else 1)
        if size < block * EVEN:
            block = -(-size // (EVEN * WHOLE)) * WHOLE
        blocks = [1] * (len(extents) - 1) + [block]
        addresses = [array.ctypes.data for array in arrays]
        tiles = -(-size // block)
        return self.job("run_bitmask_tile", self.streaming, extents, blocks, addresses, strides, tiles=tiles)
