"""The kernel that adds something up per unit in its pass over the data: one sum for each thread, in its registers.

Several threads share a unit. Each of them takes every so-many-th element of it, writes `out` on its way, and leaves its
sum in memory; the same kernel, as "fold", then adds up those sums, until there is one for each unit. Who adds what
follows from shapes, strides and where arrays begin within 16 bytes, so that the sums are the same bits on every run and
every GPU, as they would not be with atomic additions of floats. Without shared memory and votes of a warp, Numba's
simulator does the same as a GPU. Neighbouring threads take neighbouring vectors of 16 bytes, or elements where the
layout has no such vectors, and each has several in flight.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._operations import ROWS
from .access import adder, applier, closer, gatherer, loader, scatterer, spotter, storer
from .dtypes import compute_dtype, words
from .numba_cuda import cuda
from .specs import Spec

#: Bytes of a sum between passes: a count of int64, or a sum of float64.
SUM_BYTES = 8
#: The name of a kernel that adds up sums of another launch.
FOLD = "fold"


@dataclass(frozen=True)
class SumSpec(Spec):
    """A kernel with sums of a function, or one that adds up sums: a `FOLD`."""

    #: Axes besides that of the units; at least 1.
    axes: int
    #: "q" for a count, "d" for a sum, "dd" for a sum and what rounding has lost of it.
    sums: str
    #: Whether neighbouring threads take neighbouring units, or else neighbouring elements of one unit.
    across: bool
    #: Adjacent elements that one access takes of each array: as many as 16 bytes hold, or 1; and 1 of an array that is
    #: the same for all of them.
    lanes: tuple[int, ...]
    #: Accesses to each array that a thread has in flight.
    loads: int
    #: Type character of the result; "" if every thread leaves its sum to another launch.
    result: str = ""
    #: Whether the result is added to what is there.
    adds: bool = False

    def argument_types(self) -> tuple[Any, ...]:
        word, inputs = words(), len(self.of_role("array"))
        arrays = inputs + bool(self.out)
        head = words(inputs), word, word, word, word, word, word
        return *head, words(arrays), words(self.axes), words(arrays, self.axes), self.scalars()

    def python_kernel(self) -> Any:
        return _summed(self)


def _summed(spec):
    arrays, code, width = spec.of_role("array"), spec.sums[0], max(spec.lanes)
    exact, writes, leaves, adds, across = len(spec.sums) == 2, bool(spec.out), not spec.result, spec.adds, spec.across
    loads, units_each = spec.loads, width if across else 1
    order, operands = spec.order(), len(arrays) + writes
    term = FOLD if spec.name == FOLD else "positive" if code == "q" else "slope_term"
    add = adder(term, code, spec.loop, order, units_each)

    def batch(count):
        """Return how `count` accesses find their places, load, and write."""
        ways = spotter(operands, count), gatherer(arrays, spec.loop, spec.lanes, count)
        if not writes:
            return *ways, None, None
        operation = ROWS[spec.name].like
        # At zero, the derivative is the slope
        whole = order + order[-1:] * (len(ROWS[operation].operands) - len(order))
        return *ways, applier(operation, spec.loop, whole, width * count), scatterer(spec.out, spec.loop, width, count)

    spots, gather, apply, scatter = batch(loads)
    spot, gather_one, apply_one, scatter_one = batch(1)
    result = spec.result or code
    store_sums, store_results = storer(code, code, 1, units_each), storer(result, code, 1, units_each)
    load_results, close = loader((result,), code, (1,), units_each), closer(code, exact, units_each)
    zeros, size = (compute_dtype(code).type(0),) * units_each, SUM_BYTES * len(spec.sums)

    def summed(places, out, target, step, units, length, slots, unit_steps, shape, strides, scalars):
        # Each unit has `length` accesses and `slots` threads, which take one unit or as many as a vector holds;
        # `step`: between two results
        columns = units // units_each
        thread = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        while thread < columns * slots:
            if across:
                unit, slot = thread % columns * units_each, thread // columns
            else:
                unit, slot = thread // slots, thread % slots
            index, totals, lost = slot, zeros, zeros
            while index + slots * (loads - 1) < length:
                here = spots(index, slots, shape, strides, unit, unit_steps)
                loaded = gather(places, here)
                totals, lost = add(totals, lost, loaded, scalars)
                if writes:
                    scatter(out, here, apply(loaded, (), scalars))
                index += slots * loads
            while index < length:
                here_one = spot(index, slots, shape, strides, unit, unit_steps)
                one = gather_one(places, here_one)
                totals, lost = add(totals, lost, one, scalars)
                if writes:
                    scatter_one(out, here_one, apply_one(one, (), scalars))
                index += slots
            if leaves:
                place = (slot * units + unit if across else unit * slots + slot) * size
                store_sums(target, place, size, totals)
                if exact:
                    store_sums(target, place + SUM_BYTES, size, lost)
            else:
                before = zeros
                if adds:
                    before = load_results((target,), unit * step, step)[0]
                store_results(target, unit * step, step, close(totals, lost, before))
            thread += np.int64(cuda.gridDim.x) * np.int64(cuda.blockDim.x)

    return summed
