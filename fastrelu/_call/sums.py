"""Sums per unit in one pass: how many elements were positive, and the gradient of the slope.

What is summed is in `_formulas`, and the kernels are in `_kernels/sums.py`. Here is how a call becomes jobs. Each tile
has sums of its own, which are added in one order, so that the result does not depend on the number of threads.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import classify
from .._kernels.records import CYCLE, LINE, PLAIN, STREAM
from .._operations import Operation
from .._runtime import tuning
from .._runtime.jobs import coalesce
from . import job_cache
from .single_pass import Pass, apart, put

#: Bytes of sums that stay in the L2 cache beside a stream over all rows, and in the L1 cache beside parts of rows.
CYCLE_BYTES, PANEL_BYTES = 1 << 20, 1 << 14
#: Rows that at least share a row of sums, which is then a small part of the memory that the pass moves.
FEWEST_ROWS = 64
#: Bytes of data in a tile, which has sums of its own.
PIECE_BYTES = 1 << 20
#: Shorter runs behind a unit have a sum for each of their elements.
SHORT = 64

COUNT = np.dtype(np.int64)


class _Axis(NamedTuple):
    extent: int
    strides: tuple[int, ...]


def _join(axes: Sequence[_Axis], operands: int) -> list[_Axis]:
    """Return the same elements with as few axes as possible."""
    rows = [[axis.strides[k] for axis in axes] for k in range(operands)]
    extents, joined = coalesce([axis.extent for axis in axes], rows, ordered=True)
    return [_Axis(extent, tuple(row[k] for row in joined)) for k, extent in enumerate(extents)]


def _times(axis: _Axis, count: int) -> tuple[int, ...]:
    return tuple(step * count for step in axis.strides)


def _single(views: Sequence[np.ndarray]) -> _Axis:
    return _Axis(1, (0,) * len(views))


def _zeros(shape: tuple[int, ...], kind: np.dtype, after: int = 0) -> np.ndarray:
    """Return zeros that begin so many bytes after the start of a cache line."""
    nbytes = math.prod(shape) * kind.itemsize
    memory = np.zeros(nbytes + 2 * LINE, np.uint8)
    start = -memory.ctypes.data % LINE + after
    return memory[start : start + nbytes].view(kind).reshape(shape)


def axis_of(name: str, axis: Any, ndim: int) -> int | None:
    """Return the axis of the units, counted from the first; None for one sum of all."""
    if axis is None:
        return None
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"{name}: axis must be an integer or None, not {classify.type_name(axis)}") from None
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim, f"{name}: axis")
    return int(axis % ndim)


class Sums(NamedTuple):
    """Which sums a call takes: along which axis, for which argument, of which shape and type."""

    axis: int | None
    argument: str
    shape: tuple[int, ...]
    dtype: np.dtype


def sums_of(
    row: Operation, given: Mapping[str, Any], axis: Any, shape: tuple[int, ...], dtype: np.dtype
) -> Sums:  # fmt: skip
    """Return which sums a call takes over data of a shape and a type."""
    axis = axis_of(row.name, axis, len(shape))
    argument = "counts" if "counts" in given else "slope_out" if "slope_out" in given else "out"
    if argument == "counts" and given[argument] is None:
        raise TypeError(f"{row.name}: counts must be an array, not NoneType")
    return Sums(axis, argument, () if axis is None else (shape[axis],), COUNT if row.sums == "counts" else dtype)


def check_sums(name: str, sums: Sums, into: Any, what: str) -> None:
    """Raise what an output deserves that does not take these sums; `what` is what to call it."""
    if into.shape != sums.shape:
        raise ValueError(f"{name}: {sums.argument} has shape {into.shape}; it must have {sums.shape}")
    if into.dtype != COUNT if sums.dtype == COUNT else not np.can_cast(sums.dtype, into.dtype, "same_kind"):
        wanted = "int64" if sums.dtype == COUNT else f"a type that holds {sums.dtype}"
        raise TypeError(f"{name}: {sums.argument} must be of {wanted}, not {what}")


class SumPass(Pass):
    """A pass with sums per unit: along `axis`, or one for all with ``axis=None``."""

    def check(self) -> None:
        super().check()
        self.counts = self.row.sums == "counts"
        sums = sums_of(self.row, self.given, self.options["axis"], self.shape, self.dtype)
        self.axis, self.argument, self.result_shape, self.result_dtype = sums
        if (into := self.outputs.get(self.argument)) is not None:
            check_sums(self.name, sums, into, classify.type_name(into))
            self.check_apart(self.argument, into)

    def run(self, key: job_cache.Key | None = None) -> Any:
        sums = self.output(self.argument, self.result_shape, self.result_dtype)
        if not self.row.writes_result:
            put(sums, self._total(self.views))
            return self.leave("out", sums)
        out = self.output("out", self.shape, self.dtype)
        result = self.writable(out)
        total = self._total([*(apart(view, result) for view in self.views), result])
        put(out, result)
        if self.argument == "counts":
            sums += total
            self.leave("counts", sums)
            return self.leave("out", out)
        put(sums, total)
        return self.leave("out", out), self.leave(self.argument, sums)

    def _total(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Run over views of one shape, the output last, and return the sums."""
        if not views[0].size:
            return np.zeros(self.result_shape, self.result_dtype)
        axes = self._axes(views)
        if axes is None:  # of contiguous arrays there are three at most
            plain = [np.ascontiguousarray(view) for view in views]
            total = self._total(plain)
            if self.row.writes_result:
                np.copyto(views[-1], plain[-1])
            return total
        outer, units, inner = axes
        columns = units.extent * inner.extent
        # What is behind a unit joins it, where neither has gaps, and few or short runs are better than many
        joins = inner.extent == 1 or units.extent == 1 or units.strides == _times(inner, inner.extent)
        if joins and inner.extent < SHORT and (inner.extent == 1 or outer.extent >= FEWEST_ROWS):
            along = units.strides if inner.extent == 1 else inner.strides
            ways = self._by_cycles if self._dense(outer, columns, along) else self._by_columns
            sums = ways(views, outer, _Axis(columns, along))
            sums = [each.reshape(-1, units.extent, inner.extent).transpose(1, 0, 2) for each in sums]
        else:
            sums = self._by_runs(views, outer, units, inner)
        kind = COUNT if self.counts else None
        with np.errstate(all="ignore"):
            # Pairwise, as NumPy sums along contiguous memory
            totals = [np.ascontiguousarray(each.reshape(units.extent, -1)).sum(-1, dtype=kind) for each in sums]
            total = totals[0]
            if len(totals) > 1:  # of an infinite sum, what is lost is NaN
                total = np.where(np.isfinite(total), total + totals[1], total)
        result: np.ndarray = total.reshape(self.result_shape)
        return result

    def _axes(self, views: Sequence[np.ndarray]) -> tuple[_Axis, _Axis, _Axis] | None:
        """Return the axes before, along and behind the units, as they lie in memory, or None for more than one each."""
        order = sorted(range(len(self.shape)), key=lambda axis: -abs(views[-1].strides[axis]))
        axes = [_Axis(self.shape[axis], tuple(view.strides[axis] for view in views)) for axis in order]
        single = _single(views)
        if self.axis is None:
            joined = [single, single, *_join(axes, len(views))]
            return (joined[-2], single, joined[-1]) if len(joined) <= 4 else None
        place = order.index(self.axis)
        before, behind = _join(axes[:place], len(views)), _join(axes[place + 1 :], len(views))
        if len(before) > 1 or len(behind) > 1:
            return None
        return (before or [single])[0], axes[place], (behind or [single])[0]

    def _dense(self, outer: _Axis, columns: int, along: Sequence[int]) -> bool:
        """Say whether rows follow each other without gaps, and their sums stay in the cache."""
        size = self.dtype.itemsize
        steps = zip((*self.row.names, "out"), outer.strides, along)
        return columns * sum(kind.itemsize for kind in self._kinds()) <= CYCLE_BYTES and all(
            (far, near) == ((size * columns, size) if argument in (*self.row.data, "out") else (0, 0))
            for argument, far, near in steps
        )

    def _kinds(self) -> list[np.dtype]:
        return self.row.dtypes_of_sums(self.dtype)

    def _by_cycles(self, views: Sequence[np.ndarray], outer: _Axis, column: _Axis) -> list[np.ndarray]:
        """A sum for every column, in one stream over all rows."""
        size, n = self.dtype.itemsize, outer.extent * column.extent
        lanes = LINE // size
        period = column.extent * -(-lanes // column.extent)  # a line of sums must not meet itself
        block = min(n, max(PIECE_BYTES // size, FEWEST_ROWS * period))
        pieces = -(-n // block)
        head = -views[-1].ctypes.data % LINE // size if self.row.writes_result else 0  # elements before the first line
        sums = [_zeros((pieces, period + lanes), kind, -head * kind.itemsize % LINE) for kind in self._kinds()]
        addresses = [view.ctypes.data for view in views]
        into = [(each.strides[0], CYCLE) for each in sums]
        axes = [_single(views), _Axis(n, column.strides)]
        self._start("run_cyclic_tile", axes, (1, block), addresses, sums, into, period)
        with np.errstate(all="ignore"):
            for each in sums:  # what a line at the end of a cycle has beyond it belongs to the beginning
                each[:, :lanes] += each[:, period:]
        return [each[:, :period].reshape(-1, column.extent) for each in sums]

    def _by_columns(self, views: Sequence[np.ndarray], outer: _Axis, column: _Axis) -> list[np.ndarray]:
        """A sum for every column, a part of a row at a time, and one row of sums for some rows."""
        panel = min(column.extent, PANEL_BYTES // sum(kind.itemsize for kind in self._kinds()))
        pieces = max(1, outer.extent // max(FEWEST_ROWS, PIECE_BYTES // (panel * self.dtype.itemsize)))
        sums = [_zeros((pieces + 1, column.extent), kind) for kind in self._kinds()]
        self._in_pieces(views, [outer, column], 0, panel, sums)
        return sums

    def _by_runs(self, views: Sequence[np.ndarray], outer: _Axis, units: _Axis, inner: _Axis) -> list[np.ndarray]:
        """A sum for every run of elements behind a unit, or for each of its pieces; the units first."""
        most = PIECE_BYTES // self.dtype.itemsize
        pieces = -(-inner.extent // most)
        sums = [np.zeros((pieces + 1, outer.extent, units.extent), kind) for kind in self._kinds()]
        self._in_pieces(views, [outer, units, inner], 2, max(1, most // (inner.extent // pieces)), sums)
        return [each.transpose() for each in sums]

    def _in_pieces(
        self, views: Sequence[np.ndarray], axes: Sequence[_Axis], cut: int, block: int, sums: Sequence[np.ndarray]
    ) -> None:
        """Sum over pieces of one axis, and over what is left of it: these lie along the first axis of the sums.

        A tile covers a piece, and `block` of the second axis.
        """
        into = [[*each.strides[: cut + 1], 0, *each.strides[cut + 1 :]] for each in sums]
        pieces, (extent, steps) = len(sums[0]) - 1, axes[cut]
        length = extent // pieces
        for first, count, n in ((0, pieces, length), (pieces, 1, extent - pieces * length)):
            if n:
                parts = [_Axis(count, _times(axes[cut], n)), *axes]
                parts[cut + 1] = _Axis(n, steps)
                blocks = [1] * len(parts)
                blocks[2], blocks[cut + 1] = block, n
                skip = int(count == 1)  # an axis less to describe, and to go through for each tile
                addresses = [view.ctypes.data + first * length * step for view, step in zip(views, steps, strict=True)]
                self._start(
                    "run_tile", parts[skip:], blocks[skip:], addresses,
                    [each[first:] for each in sums], [row[skip:] for row in into],
                )  # fmt: skip

    def _start(
        self, run_tile: str, axes: Sequence[_Axis], blocks: Sequence[int], addresses: Sequence[int],
        sums: Sequence[np.ndarray], into: Sequence[Sequence[int]], period: int = 0,
    ) -> None:  # fmt: skip
        """Run a job over views that begin at these addresses, and sums that have the strides `into`."""
        extents, inputs = [axis.extent for axis in axes], len(self.row.operands)
        strides: list[Sequence[int]] = list(zip(*(axis.strides for axis in axes), strict=True))
        strides[inputs:inputs] = into
        places = [*addresses[:inputs], *(each.ctypes.data for each in sums), *addresses[inputs:]]
        wanted = self.streaming and self.row.writes_result and strides[-1][-1] == self.dtype.itemsize
        job = self.job(run_tile, STREAM if wanted else PLAIN, extents, blocks, places, strides, period=period)
        job_cache.start(job, tuning.settings.tables[self.table], self.parallel)
