"""Calls of the functions with sums, on device arrays, and their launches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._call import sums as host_sums
from .._operations import ROWS
from .._runtime.jobs import coalesce
from . import dtypes, launch_cache, passes, settings
from .elementwise import write_apart
from .grids import flat_grid
from .launch_cache import Planned
from .layouts import arrays_of, of_role, roles_of, rows_of, stored_of, vector_lanes
from .numba_cuda import cuda
from .settings import VECTOR_BYTES
from .sum_kernels import FOLD, SUM_BYTES, SumSpec
from .view import View

#: Elements of an access at most: each has a sum of its own, in registers, if neighbours are of different units.
MOST_LANES = 8


class OnDevice(passes.Pass):
    """A pass on device arrays with sums per unit: along `axis`, or one for all with ``axis=None``."""

    def idle(self) -> bool:
        return 0 in self.shape and (self.argument == "counts" or 0 in self.result_shape)

    def check(self) -> None:
        super().check()
        sums = host_sums.sums_of(self.row, self.given, self.options["axis"], self.shape, self.loop)
        self.axis, self.argument, self.result_shape, self.result_dtype = sums
        if (into := self.outputs.get(self.argument)) is not None:
            host_sums.check_sums(self.name, sums, into, f"a {self.library.label} of dtype {into.dtype}")
            self.check_apart(self.argument)

    def run(self) -> Any:
        result = self.memory(self.argument, self.result_shape, self.result_dtype)
        if self.argument in self._new and result.dtype != self.result_dtype:
            raise TypeError(f"{self.name}: the result is of dtype {self.result_dtype}, which JAX holds only with x64")
        out = self.result() if self.row.writes_result else None
        # With another output, strides and alignment can be others, and with them the number of sums: enough for all
        nbytes = scratch_bytes(self.name, self.loop, self.shape, self.axis)
        scratch = self.new((nbytes,), np.dtype("B"), "C", self.views[0])[1] if nbytes else None

        def write(target: View | None) -> None:
            launch(self.name, self.loop, self.operands, target, self.axis, result, scratch, self.stream)

        self.launch(lambda: write(None) if out is None else write_apart(self, out, write))
        if scratch:  # in use until the launches are done, as the inputs are
            self.views.append(scratch)
        if out is None:
            return self.leave("out")
        results = self.leave("out"), self.leave(self.argument)
        return results[0] if self.argument == "counts" else results


class Staged(host_sums.SumPass):
    """A pass on host arrays, of which the GPU gets some rows at a time; the sums of these are added in order."""

    def check(self) -> None:
        super().check()
        if self.dtype.name == "bfloat16":
            raise TypeError(f"{self.name}: Numba copies no bfloat16 to a GPU; pass arrays that are there")

    def _total(self, views: Sequence[np.ndarray]) -> np.ndarray:
        total = np.zeros(self.result_shape, host_sums.COUNT if self.counts else np.float64)
        if not self.shape or not views[0].size:
            return self._sums_of(views) if views[0].size else total
        most = max(1, settings.STAGING_BYTES * self.shape[0] // (views[0].size * self.dtype.itemsize))
        for start in range(0, self.shape[0], most):
            rows = slice(start, start + most)
            with np.errstate(all="ignore"):
                total[rows if self.axis == 0 else ...] += self._sums_of([view[rows] for view in views])
        return total

    def _sums_of(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Copy arrays to the GPU, run there, copy the output back, and return the sums."""
        inputs = {
            argument: view.flat[0] if k and not any(view.strides) else cuda.to_device(np.ascontiguousarray(view))
            for k, (argument, view) in enumerate(zip(self.inputs, views, strict=False))
        }
        shape = () if self.axis is None else (views[0].shape[self.axis],)
        sums = cuda.to_device(np.zeros(shape, host_sums.COUNT if self.counts else np.float64))
        outputs = {"out": sums}
        if self.row.writes_result:
            out = cuda.to_device(np.empty(views[0].shape, self.dtype))
            outputs = {"out": out, self.argument: sums}
        OnDevice(self.name, inputs, outputs, axis=self.axis).run()
        if self.row.writes_result:
            views[-1][...] = out.copy_to_host()
        result: np.ndarray = sums.copy_to_host()
        return result


def stages_of(columns: int, length: int) -> list[int]:
    """Return how many sums each launch leaves for each unit, for columns of `length` accesses; the last leaves one.

    A column is a unit, or as many units as a vector holds.
    """
    slots = min(-(-length // settings.SUM_TERMS), -(-settings.SUM_THREADS // max(1, columns)))
    stages = [max(1, slots)]
    while stages[-1] > 1:
        stages.append(-(-stages[-1] // settings.SUM_FOLD))
    return stages


def scratch_bytes(name: str, loop: np.dtype, shape: tuple[int, ...], axis: int | None) -> int:
    """Return the bytes of memory for sums between launches, whichever way these go over the data."""
    units = 1 if axis is None else shape[axis]
    length, width, sums = math.prod(shape) // max(1, units), VECTOR_BYTES // loop.itemsize, _kinds(name, loop)
    ways = ((units, length), (units, -(-length // width)), (-(-units // width), length))
    return max(units * sum(stages_of(*way)[:-1]) for way in ways) * SUM_BYTES * len(sums)


def _kinds(name: str, loop: np.dtype) -> str:
    """Return the types of a function's sums: a count, a sum, or a sum and what rounding has lost of it."""
    return "q" if ROWS[name].sums == "counts" else "d" * len(ROWS[name].dtypes_of_sums(loop))


def launch(
    name: str, loop: np.dtype, operands: Sequence[Any], out: View | None, axis: int | None, result: View,
    scratch: View | None, stream: int,
) -> None:  # fmt: skip
    """Launch the pass over the data, whose first operand is an array, and those over its sums."""
    arguments = [*operands, out, scratch, result]
    launch_cache.launch(plan, name, loop, arguments, stream, axis, settings.of_sums())


def plan(name: str, loop: np.dtype, arguments: Sequence[Any], axis: int | None, _settings: Any) -> Iterator[Planned]:
    """Plan the launches for operands, output or None, memory for sums between launches or None, and the result."""
    *operands, out, scratch, result = arguments
    inputs = arrays_of(operands)
    arrays, shape = inputs if out is None else [*inputs, out], inputs[0].shape
    rows, units, unit_steps, others = rows_of(arrays, shape), 1, [0] * len(arrays), shape
    if axis is not None:
        units, unit_steps, others = shape[axis], [row[axis] for row in rows], shape[:axis] + shape[axis + 1 :]
        rows = [row[:axis] + row[axis + 1 :] for row in rows]
    extents, steps = coalesce(others, rows)
    # Neighbours in the memory of the last array, which is the output if there is one
    nearer = [abs(step) for step in reversed(unit_steps)] < [abs(row[-1]) for row in reversed(steps) if row]
    across = units > 1 and (not extents or nearer)
    extents, steps = extents or [1], [row or [0] for row in steps]
    if across:
        lanes = vector_lanes(arrays, loop, units, unit_steps, steps)
    else:
        between = [[step, *row[:-1]] for step, row in zip(unit_steps, steps, strict=True)]
        lanes = vector_lanes(arrays, loop, extents[-1], [row[-1] for row in steps], between)
    if across and max(lanes) > MOST_LANES:
        lanes = (1,) * len(arrays)
    width = max(lanes)
    if not across:
        extents[-1] //= width
        steps = [[*row[:-1], row[-1] * each] for row, each in zip(steps, lanes, strict=True)]
    columns, length = units // width if across else units, math.prod(extents)
    kinds, written = _kinds(name, loop), "" if out is None else dtypes.code(out.dtype)
    spec = SumSpec(
        name, dtypes.code(loop), roles_of(operands), stored_of(operands), written, len(extents), kinds, across,
        lanes[: len(inputs)], settings.SUM_LOADS,
    )  # fmt: skip
    pointers, scalars = [view.pointer for view in inputs], of_role("scalar", operands, spec.roles)
    place, written_to = 0 if scratch is None else scratch.pointer, 0 if out is None else out.pointer
    parts, size = len(kinds), SUM_BYTES * len(kinds)
    adds = ROWS[name].sums == "counts" and ROWS[name].writes_result  # to the caller's counts
    for slots in stages_of(columns, length):
        target, step = place, 0
        if slots == 1:
            target, step = result.pointer, 0 if axis is None else result.strides[0]
            spec = replace(spec, result=dtypes.code(result.dtype), adds=adds)
        yield spec, flat_grid(columns * slots), (
            *pointers, written_to, target, step, units, length, slots, *unit_steps, *extents,
            *(each for row in steps for each in row), *scalars,
        )  # fmt: skip
        # The next launch reads what this one leaves: the sums of a unit, and beside each what was lost of it
        spec = SumSpec(
            FOLD, kinds[0], ("array",) * parts, tuple(kinds), "", 1, kinds, across, (1,) * parts,
            settings.SUM_FOLD_LOADS,
        )  # fmt: skip
        pointers, place = [place + SUM_BYTES * k for k in range(parts)], place + units * slots * size
        columns, written_to, scalars, length, extents = units, 0, [], slots, [slots]
        unit_steps, steps = [size if across else slots * size] * parts, [[units * size if across else size]] * parts
