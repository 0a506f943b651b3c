"""How a kernel reads, computes and writes: small functions that run in kernels, written once for GPU and simulator.

On a GPU, each is an intrinsic: `emitter` runs its Python once, at compile time, on stand-ins for the numbers, and emits
what it does with them. The simulator runs the same Python on numbers. Both bring a machine, the first argument,
for what is more than arithmetic.

Addresses are plain 64-bit integers. That is what makes launches cheap (an array argument is seven values, and
Numba takes microseconds to unpack it), lets one kernel serve every library, and says nothing about overlap:
LLVM keeps loads and stores in the order in which they are written, so that a kernel may run in place.

A batch is `count` times `width` elements: `count` loads of `width` adjacent elements, each load a step away from the
one before. All loads of a batch are issued before the first of its elements is computed.
"""

import functools
from collections.abc import Sequence

from .. import _formulas
from .dtypes import numbers, words
from .numba_cuda import SIMULATED, types

if SIMULATED:
    from .simulator import lowered
else:
    from .emitter import lowered


def formula(name):
    """Return the one formula of an operation, as plain Python."""
    return getattr(_formulas, name).__wrapped__


def two_sum(total, lost, term):
    """Return a sum with a term added, and what rounding has lost of it so far (Knuth), as on the CPU."""
    result = total + term
    taken = result - total
    return result, lost + ((total - (result - taken)) + (term - taken))


def joined(total, lost):
    """Return a sum with what rounding has lost of it; of an infinite sum, that is NaN."""
    result = total
    if total - total == 0:
        result = total + lost
    return result


def _of(values, k):
    """Return item k of a tuple, or a number that stands for all items."""
    return values[k] if isinstance(values, Sequence) else values


def _steps(start, step, count):
    return [start + step * k for k in range(count)]


@functools.cache
def loader(codes, loop, lanes, count):
    """Return ``load(addresses, offsets, steps)``: a batch of each operand.

    `lanes` are the adjacent elements of an access to each; an operand with fewer than others, which is one, is the
    same for all.
    """

    @lowered(types.UniTuple(numbers(loop, max(lanes, default=1) * count), len(codes)))
    def load(machine, addresses, offsets, steps):
        places = [_steps(each + _of(offsets, j), _of(steps, j), count) for j, each in enumerate(addresses)]
        return machine.read(codes, loop, lanes, places)

    return load


@functools.cache
def gatherer(codes, loop, lanes, count):
    """Return ``gather(addresses, places)``: the same from `count` places, of which each has an offset per operand."""

    @lowered(types.UniTuple(numbers(loop, max(lanes) * count), len(codes)))
    def gather(machine, addresses, places):
        spots = [[address + place[j] for place in places] for j, address in enumerate(addresses)]
        return machine.read(codes, loop, lanes, spots)

    return gather


@functools.cache
def storer(code, loop, width, count):
    """Return ``store(address, offset, step, values)``."""

    @lowered(types.void)
    def store(machine, address, offset, step, values):
        machine.write(code, loop, width, _steps(address + offset, step, count), values)

    return store


@functools.cache
def scatterer(code, loop, width, count):
    """Return ``scatter(address, places, values)``: to the last offset of each of `count` places."""

    @lowered(types.void)
    def scatter(machine, address, places, values):
        machine.write(code, loop, width, [address + place[-1] for place in places], values)

    return scatter


@functools.cache
def applier(name, loop, order, lanes):
    """Return ``apply(loaded, uniforms, scalars)``: the formula, the Python function that the CPU compiles, by lanes.

    `order` says of each operand where it is: its role, and its place among those of that role.
    """

    @lowered(numbers(loop, lanes))
    def apply(machine, loaded, uniforms, scalars):
        def operand(role, j, k):
            return scalars[j] if role == "scalar" else loaded[j][k] if role == "array" else uniforms[j][0]

        rows = [[operand(*each, k) for each in order] for k in range(lanes)]
        return [machine.call(formula(name), operands, loop, loop) for operands in rows]

    return apply


@functools.cache
def adder(name, code, loop, order, sums):
    """Return ``add(totals, lost, loaded, scalars)``, which gives both anew, `sums` of each, of int64 ("q") or float64.

    Each lane adds to the sum of its place modulo `sums`: "positive" whether the operand is above zero, "slope_term" a
    product, "fold" a sum of an earlier launch, with what was lost as a second operand.
    """

    @lowered(types.UniTuple(numbers(code, sums), 2))
    def add(machine, totals, lost, loaded, scalars):
        totals, lost = list(totals), list(lost)

        def operands(k):
            return [scalars[j] if role == "scalar" else loaded[j][k] for role, j in order[:2]]

        def count(lanes):
            some = 0  # in 32 bits first, where adding takes one instruction
            for k in lanes:
                some = some + machine.narrow(machine.call(formula(name), operands(k)[:1], loop, "?"))
            return machine.wide(some)

        def add_term(j, k):
            term, *more = [machine.cast(each, loop, code) for each in operands(k)]
            if name != "fold":
                term, more = machine.call(formula(name), [term, *more], code, code), []
            if code == "q":
                totals[j] = totals[j] + term
                return
            totals[j], lost[j] = machine.call(two_sum, [totals[j], lost[j], term], code, 2 * code)
            for each in more:  # what a launch before has lost
                lost[j] = lost[j] + each

        for j in range(sums):
            lanes = range(j, len(loaded[0]), sums)
            if name == "positive":
                totals[j] = totals[j] + count(lanes)
                continue
            for k in lanes:
                add_term(j, k)
        return tuple(totals), tuple(lost)

    return add


@functools.cache
def closer(code, exact, sums):
    """Return ``close(totals, lost, before)``: the sums, whole if `exact`, added to others."""

    @lowered(numbers(code, sums))
    def close(machine, totals, lost, before):
        if exact:
            pairs = zip(totals, lost, strict=True)
            totals = [machine.call(joined, pair, code, code) for pair in pairs]
        return [total + more for total, more in zip(totals, before, strict=True)]

    return close


def _unravel(index, shape, strides):
    offsets = [0] * len(strides)
    for axis in reversed(range(len(shape))):
        position = index
        if axis:
            index = position // shape[axis]
            position = position - index * shape[axis]
        offsets = [offset + position * steps[axis] for offset, steps in zip(offsets, strides, strict=True)]
    return offsets


def _move(starts, k, steps):
    return [_of(starts, j) + k * step for j, step in enumerate(steps)]


@functools.cache
def unraveler(operands):
    """Return ``unravel(index, shape, strides)``: where a row starts in each operand."""

    @lowered(words(operands))
    def unravel(machine, index, shape, strides):
        return _unravel(index, shape, strides)

    return unravel


@functools.cache
def mover(operands):
    """Return ``move(starts, k, steps)``: each operand's place, k steps on."""

    @lowered(words(operands))
    def move(machine, starts, k, steps):
        return _move(starts, k, steps)

    return move


@functools.cache
def spotter(operands, count):
    """Return ``spots(index, step, shape, strides, unit, unit_steps)``: places of elements of a unit, `step` apart."""

    @lowered(words(count, operands))
    def spots(machine, index, step, shape, strides, unit, unit_steps):
        return tuple(_move(_unravel(index + step * k, shape, strides), unit, unit_steps) for k in range(count))

    return spots


@functools.cache
def packer(loop, lanes):
    """Return ``pack(row, first)``: a bit per lane, set if it is active, from bit `first` on."""

    @lowered(types.int64)
    def pack(machine, row, first):
        found = 0
        for k in range(lanes):
            found = found | machine.narrow(machine.call(formula("active"), [row[k]], loop, "?")) << k
        return machine.wide(found) << first

    return pack


@functools.cache
def unpacker(loop, lanes):
    """Return ``unpack(bits, first)``: a row of ones and zeros, an operand for `apply`."""

    @lowered(numbers(loop, lanes))
    def unpack(machine, bits, first):
        found = machine.narrow(bits >> first)
        return [machine.number(found >> k & 1, loop) for k in range(lanes)]

    return unpack
