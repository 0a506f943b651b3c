"""Kernels that sum something per unit in the pass over their data: ``kernel(pointers, n, strides, streaming)``.

The pointers are those of the operands, of the sums, and of the output where there is one. A row has one sum where the
sums' stride is 0, else one for each element. Where it is `CYCLE`, those begin with the column and start again
after the number of columns that stand behind the pointers, so that one contiguous stream runs over all rows: rows of
512 elements one by one took 2.6 times as long, for their ends.

Counts are of int32, which a tile cannot overflow and which take half of the L1 cache that int64 would. Sums of
float16 and float32 are of float64, whose rounding disappears in that of the result. A sum of float64 is two: the sum,
and what rounding has lost of it (Knuth's two-sum), so that the error does not grow with the number of terms.
"""

from llvmlite import ir
from numba.core import cgutils, types

from .._operations import ROWS
from .emit import (
    Element,
    compiled,
    counted,
    either,
    in_lines,
    line_buffer,
    loop,
    moved,
    read_operands,
    read_word,
    store_line,
)
from .processor import BYTE, INT, WORD
from .records import CYCLE, LINE, NEVER


def _two_sum(builder, total, lost, term):
    """Add a term to a sum; return the sum and what has been lost."""
    result = builder.fadd(total, term)
    taken = builder.fsub(result, total)
    error = builder.fadd(builder.fsub(total, builder.fsub(result, taken)), builder.fsub(term, taken))
    return [result, builder.fadd(lost, error)]


def body(context, builder, pointers, n, strides, streaming, *, name, dtype):
    number = Element(context, dtype)
    row = ROWS[name]
    sums = [Element(context, kind) for kind in row.dtypes_of_sums(dtype)]
    inputs, places, writes = len(row.operands), len(row.operands) + len(sums), row.writes_result
    lanes, size, sum_size = LINE // number.size, WORD(number.size), WORD(sums[0].size)
    elements = [number] * inputs + sums + [number] * writes
    parameters = range(len(row.data), inputs)

    bases, steps = read_operands(builder, pointers, strides, range(len(elements)))
    add, join = _addition(context, number, sums)
    if writes:
        arity = len(ROWS[row.like].operands)
        plain = compiled(context, row.formula, number.computes, *[number.computes] * arity)

    def formula(builder, values):
        """Return the new sums and the output, from the operands and the sums."""
        results = add(builder, values[:inputs], values[inputs:])
        if writes:  # at zero, the derivative is the slope
            results.append(plain(builder, [*values[:inputs], *values[inputs - 1 : inputs] * (arity - inputs)]))
        return results

    cycle = builder.icmp_signed("==", steps[inputs], WORD(CYCLE))
    whole_row = builder.icmp_signed("==", steps[inputs], WORD(0))
    column, period = (cgutils.alloca_once_value(builder, WORD(value)) for value in (0, NEVER))
    with builder.if_then(cycle):
        builder.store(read_word(builder, pointers, len(elements)), column)
        builder.store(read_word(builder, pointers, len(elements) + 1), period)

    def advance(count):
        """Go on by so many columns; return the one from which on it is."""
        here = builder.load(column)
        after = builder.add(here, count)
        around = builder.icmp_signed(">=", after, builder.load(period))
        after = builder.select(around, builder.sub(after, builder.load(period)), after)
        builder.store(builder.select(whole_row, WORD(0), after), column)
        return builder.mul(here, sum_size)

    def one(i):
        moved_sums = advance(WORD(1))
        at = [
            builder.gep(base, [moved_sums if k in range(inputs, places) else builder.mul(i, step)])
            for k, (base, step) in enumerate(zip(bases, steps, strict=True))
        ]
        results = formula(builder, [element.load(builder, place) for element, place in zip(elements, at[:places])])
        for element, result, place in zip(elements[inputs:], results, at[inputs:], strict=True):
            element.store(builder, result, place)

    buffer = line_buffer(builder)

    def dense_lines(start, count, streamed, targets, operands, sizes):
        """Emit so many lines; `targets` are the sums of a line, or None for those of the columns."""
        with counted(builder, count, unrolled=False) as (k, _):
            here = builder.add(builder.mul(start, size), builder.mul(k, WORD(LINE)))
            sources = moved(builder, operands, sizes, here)
            into = targets or moved(builder, bases[inputs:places], sums, advance(WORD(lanes)))
            loop(
                builder, elements[:places] + elements[inputs:], formula,
                [*sources[:inputs], *into, *into, *[buffer] * writes],
                [*sizes[:inputs], *[sum_size] * (2 * len(sums)), *sizes[inputs:]], WORD(lanes),
                independent=True, outputs=len(sums) + writes,
            )  # fmt: skip
            for out in sources[inputs:]:
                store_line(builder, number, buffer, out, streamed=streamed)

    def lines(head, count, streamed, operands, sizes):
        def each_store(targets):
            either(builder, streamed, lambda past: dense_lines(head, count, past, targets, operands, sizes))

        with builder.if_else(whole_row) as (one_sum, columns):
            with columns:
                each_store(None)
            with one_sum, builder.if_then(builder.icmp_signed(">", count, WORD(0))):
                line = [_zeros(builder, element, lanes) for element in sums]
                each_store(line)
                join_line(line)

    def join_line(line):
        """Add the sums of a line to those of the row."""
        homes = bases[inputs:places]
        first = [element.load(builder, home) for element, home in zip(sums, homes, strict=True)]
        totals = [cgutils.alloca_once_value(builder, value) for value in first]
        with counted(builder, WORD(lanes)) as (k, _):
            lane = moved(builder, line, sums, builder.mul(k, sum_size))
            others = [element.load(builder, place) for element, place in zip(sums, lane, strict=True)]
            for total, result in zip(totals, join(builder, [*map(builder.load, totals)], others), strict=True):
                builder.store(result, total)
        for element, home, total in zip(sums, homes, totals, strict=True):
            element.store(builder, builder.load(total), home)

    arrays, their_steps = (each[:inputs] + each[places:] for each in (bases, steps))
    in_lines(builder, number, n, streaming, arrays, their_steps, parameters, one, lines, writes=writes)


def _addition(context, number, sums):
    """Return how an element is added to sums, and how sums are added to sums."""
    if len(sums) == 1 and sums[0].computes == types.int32:
        positive = compiled(context, "positive", types.boolean, number.computes)

        def add(builder, values, totals):
            return [builder.add(totals[0], builder.zext(positive(builder, values[:1]), INT))]

        return add, lambda builder, totals, others: [builder.add(totals[0], others[0])]

    term = compiled(context, "slope_term", types.float64, types.float64, types.float64)
    sum_up = _two_sum if len(sums) > 1 else lambda builder, total, value: [builder.fadd(total, value)]

    def add(builder, values, totals):
        wide = [context.cast(builder, value, number.computes, types.float64) for value in values[:2]]
        return sum_up(builder, *totals, term(builder, wide))

    def join(builder, totals, others):
        total, *lost = sum_up(builder, *totals, others[0])
        return [total, *[builder.fadd(lost[0], other) for other in others[1:]]]

    return add, join


def _zeros(builder, element, lanes):
    """Return sums of zero on the stack, one for each element of a line."""
    kind = ir.ArrayType(BYTE, lanes * element.size)
    with builder.goto_entry_block():
        place = builder.alloca(kind)
        place.align = LINE
    builder.store(ir.Constant(kind, None), place)
    return builder.bitcast(place, BYTE.as_pointer())
