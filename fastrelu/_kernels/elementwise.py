"""One compiled kernel per operation and type: ``kernel(pointers, n, strides, streaming)``.

A kernel holds a few copies of one loop, and picks by stride:

1. data operands contiguous, parameters scalar (loaded once): SIMD, with plain or with streaming stores;
2. everything contiguous, as a slope per channel is: the same;
3. any strides, in order: what is left, and the only one that is right for partly overlapping operands.
"""

from .._operations import ROWS
from . import bfloat16
from .emit import (
    Element,
    all_of,
    compiled,
    counted,
    either,
    equal,
    line_buffer,
    loop,
    moved,
    read_operands,
    scalars,
    store_line,
)
from .processor import INT, WORD
from .records import LINE


class _Pair(Element):
    """Two neighbouring elements of bfloat16, read, computed and written as one word.

    Words need neither unpacking nor packing, for which processors have few units. Time over torch's of relu and
    relu_backward of 100,000 elements: 0.88 and 1.07 an element at a time; 0.78 and 1.07 in pairs with vectors as LLVM
    chooses them, since it then computes both halves in one vector and shuffles; 0.59 and 0.83 so (two-core Intel Xeon
    with AMX, 2026-11-21).
    """

    narrow, stored, size = bfloat16, INT, 4
    lanes = LINE // size

    def __init__(self):
        pass

    def decoded(self, builder, raw):
        return bfloat16.pair_to_singles(builder, raw)

    def encoded(self, builder, value):
        return bfloat16.pair_from_singles(builder, value)


def _on_pairs(formula):
    """Return a formula that computes twice, with what is no pair, as a slope, taking part in both."""

    def both(builder, values):
        return tuple(formula(builder, [v[k] if isinstance(v, tuple) else v for v in values]) for k in range(2))

    return both


def _streaming_loop(builder, element, formula, operands, steps, n):
    """Emit the loop a cache line at a time, each line written past the caches.

    LLVM vectorises a loop with non-temporal stores only where it knows the vectors to be aligned, so a line is
    computed into a buffer, which LLVM turns into registers, and stored whole. (Computing blocks of 4 KiB into the
    L1 cache and streaming those needed no loop of its own, but took 1.09 to 1.14 times as long: reads wait while
    a block is written.) The caller gives an aligned output and whole lines.
    """
    buffer = line_buffer(builder)
    lanes = WORD(LINE // element.size)
    lines = builder.sdiv(n, lanes)
    # Not unrolled: with nothing between two lines but their load and store, an Intel Xeon with AMX took 1.4 times as
    # long, for an array far larger than its caches, in this loop and in C alike; four nops cured it too
    with counted(builder, lines, unrolled=False) as (index, _):
        start = builder.mul(index, WORD(LINE))
        *sources, out = moved(builder, operands, steps, start)
        loop(builder, [element] * len(steps), formula, [*sources, buffer], steps, lanes, independent=True)
        store_line(builder, element, buffer, out, streamed=True)


def body(context, builder, pointers, n, strides, streaming, *, name, dtype):
    """Emit the kernel's body: load the operands' addresses and strides, choose a loop, run it."""
    element = Element(context, dtype)
    row = ROWS[name]
    output = len(row.operands)
    elements = [element] * (output + 1)
    data, parameters = [*range(len(row.data)), output], range(len(row.data), output)
    formula = compiled(context, name, element.computes, *[element.computes] * output)
    operands, steps = read_operands(builder, pointers, strides, range(output + 1))
    size = WORD(element.size)

    def overlaps(k):
        """Input k and the output share memory without being the same array."""
        length = builder.mul(n, size)
        apart = builder.sub(*(builder.ptrtoint(operands[which], WORD) for which in (-1, k)))
        # unsigned: a negative distance is a huge one
        after = builder.icmp_unsigned("<", builder.sub(apart, WORD(1)), builder.sub(length, WORD(1)))
        before = builder.icmp_unsigned("<", builder.sub(builder.neg(apart), WORD(1)), builder.sub(length, WORD(1)))
        return builder.or_(after, before)

    def contiguous(which):
        dense = equal(builder, [steps[k] for k in which], element.size)
        return dense + [builder.not_(overlaps(k)) for k in which[:-1]]

    def simd(values, sizes):
        kind, compute, steps, count = element, formula, sizes, n
        if element.narrow is bfloat16:
            kind, compute, count = _Pair(), _on_pairs(formula), builder.lshr(n, WORD(1))
            steps = [None if step is None else WORD(_Pair.size) for step in sizes]

        def run(streamed):
            if streamed:
                _streaming_loop(builder, kind, compute, values, steps, count)
                return
            loop(builder, [kind] * len(sizes), compute, values, steps, count, independent=True)
            if element.narrow is bfloat16:
                odd = builder.and_(n, WORD(1))
                last = builder.mul(builder.sub(n, odd), size)
                ends = moved(builder, values, sizes, last)
                loop(builder, elements, formula, ends, sizes, odd, independent=False)

        either(builder, builder.icmp_signed("!=", streaming, WORD(0)), run)

    scalar = equal(builder, [steps[k] for k in parameters], 0)
    with builder.if_else(all_of(builder, contiguous(data) + scalar)) as (fast, rest):
        with fast:
            simd(*scalars(builder, element, operands, parameters))
        with rest:
            if not parameters:
                loop(builder, elements, formula, operands, steps, n, independent=False)
            else:
                with builder.if_else(all_of(builder, contiguous([*range(len(operands))]))) as (all_arrays, in_order):
                    with all_arrays:
                        simd(operands, [size] * len(operands))
                    with in_order:
                        loop(builder, elements, formula, operands, steps, n, independent=False)
