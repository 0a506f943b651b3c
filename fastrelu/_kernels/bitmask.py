"""Kernels that write or read one bit per element beside their arrays: ``kernel(pointers, n, strides, streaming)``.

The pointers are those of the operands and of the outputs, and then comes the number of the row's first bit. A
contiguous row runs by whole cache lines of elements, which yield as many bits: one comparison makes them and one store
writes them. What is left at both ends, and other rows, take one element and one bit at a time.
"""

import numpy as np
from llvmlite import ir
from numba.core import types

from .._operations import ROWS
from .emit import (
    BIT,
    Element,
    all_of,
    compiled,
    counted,
    either,
    equal,
    line_buffer,
    loop,
    read_pointer,
    read_word,
    store_line,
    to_first_line,
)
from .processor import BYTE, WORD
from .records import LINE


def _place(builder, bitmask, position):
    """Return the byte where a bit is, and how many bits of that byte are before it."""
    return builder.gep(bitmask, [builder.lshr(position, WORD(3))]), builder.and_(position, WORD(7))


def _resize(builder, value, kind):
    return builder.zext(value, kind) if value.type.width < kind.width else builder.trunc(value, kind)


def _read_one(builder, bitmask, position):
    """Return the bit at a position."""
    byte, before = _place(builder, bitmask, position)
    return builder.trunc(builder.lshr(builder.load(byte), builder.trunc(before, BYTE)), BIT)


def _write_one(builder, bitmask, position, bit):
    """Write a bit. Those before it in its byte stay; those behind are left to later calls."""
    byte, before = _place(builder, bitmask, position)
    before = builder.trunc(before, BYTE)
    old = builder.and_(builder.load(byte), builder.sub(builder.shl(BYTE(1), before), BYTE(1)))
    builder.store(builder.or_(old, builder.shl(builder.zext(bit, BYTE), before)), byte)


class _Words:
    """Words of bits, read or written one after another from a position on that may be within a byte.

    What a word to write leaves over goes on in a register. Reading it back from memory took 1.27 of the plain kernel's
    time instead of 1.07, in place 1.79 instead of 1.15 (16,000,000 float32, one core, Intel Xeon with AMX, 2026-11-21).
    """

    def __init__(self, builder, bitmask, position, width):
        self.builder = builder
        self.word, self.wide = ir.IntType(width), ir.IntType(2 * width)
        self.start, before = _place(builder, bitmask, position)
        self.before = _resize(builder, before, self.wide)
        # A byte that has none of the bits is not touched
        self.behind = builder.sub(WORD(width // 8), builder.zext(builder.icmp_unsigned("==", before, WORD(0)), WORD))
        kept = builder.sub(builder.shl(BYTE(1), builder.trunc(before, BYTE)), BYTE(1))
        with builder.goto_entry_block():
            self.carried = builder.alloca(self.wide)
        builder.store(builder.zext(builder.and_(builder.load(self.start), kept), self.wide), self.carried)

    def _at(self, k):
        return self.builder.gep(self.start, [self.builder.mul(k, WORD(self.word.width // 8))])

    def read(self, k):
        """Return word k."""
        builder = self.builder
        low = builder.load(builder.bitcast(self._at(k), self.word.as_pointer()), align=1)
        high = builder.load(builder.gep(self._at(k), [self.behind]))
        high = builder.shl(builder.zext(high, self.wide), self.wide(self.word.width))
        both = builder.or_(builder.zext(low, self.wide), high)
        return builder.trunc(builder.lshr(both, self.before), self.word)

    def write(self, k, bits):
        """Write word k."""
        builder = self.builder
        shifted = builder.shl(builder.zext(bits, self.wide), self.before)
        both = builder.or_(builder.load(self.carried), shifted)
        builder.store(builder.trunc(both, self.word), builder.bitcast(self._at(k), self.word.as_pointer()), align=1)
        builder.store(builder.lshr(both, self.wide(self.word.width)), self.carried)

    def end(self, count):
        """Write what is left over after so many words."""
        builder = self.builder
        with builder.if_then(builder.icmp_unsigned("!=", self.before, self.wide(0))):
            builder.store(builder.trunc(builder.load(self.carried), BYTE), self._at(count))


def body(context, builder, pointers, n, strides, streaming, *, name, dtype):
    number, flag = Element(context, dtype), Element(context, np.dtype(bool))
    row = ROWS[name]
    names, reads = row.names, row.reads_bitmask
    order = [*names, "out"] if reads else [*names, "mask", "out"]
    arrays = [operand for operand in order if operand != "mask"]  # one element at a time, the output last
    output = len(arrays) - 1
    lanes, size = LINE // number.size, WORD(number.size)

    kinds = [types.boolean if operand == "mask" else number.computes for operand in names]
    formula = compiled(context, row.formula, number.computes, *kinds)
    active = compiled(context, "active", types.boolean, number.computes)

    places = {operand: read_pointer(builder, pointers, k) for k, operand in enumerate(order)}
    bitmask, first = places["mask"], read_word(builder, pointers, len(order))
    bases = [places[operand] for operand in arrays]
    steps = [read_word(builder, strides, order.index(operand)) for operand in arrays]
    flags, buffer = line_buffer(builder), line_buffer(builder)

    def singly(start, stop):
        """Emit the elements of a range in order."""
        with counted(builder, builder.sub(stop, start), unrolled=False) as (k, _):
            i = builder.add(start, k)
            places = [builder.gep(base, [builder.mul(i, step)]) for base, step in zip(bases, steps, strict=True)]
            values = [number.load(builder, place) for place in places[:-1]]
            position = builder.add(first, i)
            if reads:
                values.insert(1, _read_one(builder, bitmask, position))
            else:
                _write_one(builder, bitmask, position, active(builder, values[:1]))
            number.store(builder, formula(builder, values), places[-1])

    def by_lines(start, count, parameters, streamed):
        """Emit so many lines of contiguous data; `parameters` are values, or None where they are arrays like it."""
        with builder.if_then(builder.icmp_signed(">", count, WORD(0))):  # else the bitmask may have ended
            lines(start, count, parameters, streamed)

    def lines(start, count, parameters, streamed):
        words = _Words(builder, bitmask, builder.add(first, start), lanes)
        with counted(builder, count, unrolled=False) as (k, _):
            i = builder.add(start, builder.mul(k, WORD(lanes)))
            here = [builder.gep(base, [builder.mul(i, size)]) for base in bases]
            vector = builder.bitcast(flags, ir.VectorType(BYTE, lanes).as_pointer())
            elements, sources, sizes = [number] * output, here[:-1], [size] * output
            if parameters is not None:
                sources[1:], sizes[1:] = parameters, [None] * len(parameters)
            if reads:
                bits = builder.bitcast(words.read(k), ir.VectorType(BIT, lanes))
                builder.store(builder.zext(bits, vector.type.pointee), vector)
                elements.insert(1, flag), sources.insert(1, flags), sizes.insert(1, WORD(1))
            else:
                loop(builder, [number, flag], active, [here[0], flags], [size, WORD(1)], WORD(lanes), independent=True)
            elements, sources, sizes = [*elements, number], [*sources, buffer], [*sizes, size]
            loop(builder, elements, formula, sources, sizes, WORD(lanes), independent=True)
            if not reads:
                bits = builder.trunc(builder.load(vector), ir.VectorType(BIT, lanes))
                words.write(k, builder.bitcast(bits, words.word))
            store_line(builder, number, buffer, here[-1], streamed=streamed)
        if not reads:
            words.end(count)

    scalar, alike = (all_of(builder, equal(builder, steps[1:output], step)) for step in (0, number.size))
    dense = all_of(builder, equal(builder, [steps[0], steps[output]], number.size))
    contiguous = builder.and_(dense, builder.or_(scalar, alike))
    wanted = builder.and_(contiguous, builder.icmp_signed("!=", streaming, WORD(0)))
    streamed, head = to_first_line(builder, number, bases[-1], n, wanted)
    count = builder.select(contiguous, builder.udiv(builder.sub(n, head), WORD(lanes)), WORD(0))

    singly(WORD(0), head)
    with builder.if_else(scalar) as (values, others):
        with values:
            loaded = [number.load(builder, base) for base in bases[1:output]]
            either(builder, streamed, lambda past_caches: by_lines(head, count, loaded, past_caches))
        with others:
            if output > 1:
                by_lines(head, count, None, False)
    singly(builder.add(head, builder.mul(count, WORD(lanes))), n)
