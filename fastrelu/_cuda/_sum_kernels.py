"""The kernel that adds something up per unit in its pass over the data: one sum for each thread, in its registers.

Several threads share a unit. Each of them takes every so-many-th element of it, writes `out` on its way, and leaves its
sum in memory; the same kernel, as "fold", then adds up those sums, until there is one for each unit. Who adds what
follows from shapes and strides, so that the sums are the same bits on every run and every GPU, as they would not be
with atomic additions of floats. Without shared memory and votes of a warp, Numba's simulator does the same as a GPU.
Neighbouring threads take neighbouring elements, one at a time: what 16-byte accesses would gain, and what the division
costs that finds an element between two axes, has not been measured yet.
"""

from typing import Any, NamedTuple

import numpy as np

from .._operations import OPERATIONS, WRITTEN
from ._access import applier, compute_dtype, compute_type, loader, mover, storer, termer, unraveler
from ._kernels import Spec, _order
from ._numba import SIMULATED, cuda, types

#: Bytes of a sum between passes: a count of int64, or a sum of float64.
SUM_BYTES = 8


class SumSpec(NamedTuple):
    """What a kernel with sums is compiled for. As `Spec`, whose caches it shares: their names differ."""

    #: The function, or "fold" for one that adds up sums of another launch.
    name: str
    loop: str
    roles: tuple[str, ...]
    stored: tuple[str, ...]
    #: Type character of the element-wise result; "" if there is none.
    out: str
    #: Axes besides that of the units; at least 1.
    axes: int
    #: "q" for a count, "d" for a sum, "dd" for a sum and what rounding has lost of it.
    sums: str
    #: Whether neighbouring threads take neighbouring units, or else neighbouring elements of one unit.
    across: bool
    #: Type character of the result; "" if every thread leaves its sum to another launch.
    result: str = ""
    #: Whether the result is added to what is there.
    adds: bool = False

    def of_role(self, role):
        """Return the types of the operands that have a role."""
        return Spec.of_role(self, role)

    def argument_types(self) -> tuple[Any, ...]:
        """Return the Numba types of the kernel's arguments."""
        word, inputs = types.int64, len(self.of_role("array"))
        arrays = inputs + bool(self.out)
        per_axis, per_array = types.UniTuple(word, self.axes), types.UniTuple(word, arrays)
        scalars = types.UniTuple(compute_type(self.loop), len(self.of_role("scalar")))
        strides = types.UniTuple(per_axis, arrays)
        places = types.UniTuple(word, inputs)
        return places, word, word, word, word, word, word, per_array, per_axis, strides, scalars

    def python_kernel(self):
        """Return the kernel as a Python function, for `cuda.jit` or for `cuda.compile`."""
        return _summed(self)


def _summed(spec):
    arrays, count, code = spec.of_role("array"), len(spec.sums), spec.sums[0]
    folds, exact, writes = spec.name == "fold", count == 2, bool(spec.out)
    joins, leaves, adds, across = folds and exact, not spec.result, spec.adds, spec.across
    operands = len(arrays) + writes
    order, last, lost_at = _order(spec), operands - 1, count - 1
    load = loader(arrays, spec.loop, 1, count if folds else 1)
    find, along = unraveler(operands, spec.axes), mover(operands)
    term_of = None if folds else termer("positive" if code == "q" else "slope_term", spec.loop, order)
    apply = store = None
    if writes:
        # At zero, the derivative is the slope
        order += order[-1:] * (len(OPERATIONS[WRITTEN[spec.name]]) - len(order))
        apply, store = applier(WRITTEN[spec.name], spec.loop, order, 1), storer(spec.out, spec.loop, 1, 1)
    store_sums = storer(code, code, 1, count)
    load_result, store_result = loader((spec.result or code,), code, 1, 1), storer(spec.result or code, code, 1, 1)
    zero = compute_dtype(code).type(0)

    def summed(places, out, target, step, units, length, slots, unit_steps, shape, strides, scalars):
        # Each unit has `length` elements and `slots` threads; `step`: between two results
        thread = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        while thread < units * slots:
            if across:
                unit, index = thread % units, thread // units
            else:
                unit, index = thread // slots, thread % slots
            total, lost = zero, zero
            while index < length:
                here = along(find(index, shape, strides), unit, unit_steps)
                loaded = load(places, here, SUM_BYTES)
                if folds:
                    term = loaded[0][0]
                else:
                    term = term_of(loaded, scalars)
                # Knuth's two-sum, as on the CPU; what nobody stores, the compiler drops
                result = total + term
                taken = result - total
                lost += (total - (result - taken)) + (term - taken)
                total = result
                if joins:
                    lost += loaded[0][lost_at]
                if writes:
                    store(out, here[last], 0, apply(loaded, (), scalars))
                index += slots
            if leaves:
                store_sums(target, thread * (SUM_BYTES * count), SUM_BYTES, (total, lost))
            else:
                if exact and total - total == 0:  # of an infinite sum, what is lost is NaN
                    total += lost
                if adds:
                    total += load_result((target,), unit * step, 0)[0][0]
                store_result(target, unit * step, 0, (total,))
            thread += np.int64(cuda.gridDim.x) * np.int64(cuda.blockDim.x)

    def silent(*arguments):
        with np.errstate(all="ignore"):
            summed(*arguments)

    return silent if SIMULATED else summed
