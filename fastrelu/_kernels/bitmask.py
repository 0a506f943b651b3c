"""Kernels that write or read one bit per element beside their arrays: ``kernel(pointers, n, strides, streaming)``.

The pointers are those of the operands and of the outputs, and then comes the number of the row's first bit. A
contiguous row runs by whole cache lines of elements, which yield as many bits: one comparison makes them and one store
writes them. What is left at both ends, and other rows, take one element and one bit at a time.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from .._operations import ROWS
from .emit import (
    BIT,
    Element,
    compiled,
    counted,
    either,
    in_lines,
    line_buffer,
    loop,
    moved,
    read_operands,
    read_pointer,
    read_word,
    store_line,
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
        kept = builder.zext(builder.and_(builder.load(self.start), kept), self.wide)
        self.carried = cgutils.alloca_once_value(builder, kept)

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
    reads = row.reads_bitmask
    order = [*row.names, "out"] if reads else [*row.names, "mask", "out"]
    arrays = [k for k, operand in enumerate(order) if operand != "mask"]  # one element at a time, the output last
    parameters = range(1, len(arrays) - 1)
    lanes, size = LINE // number.size, WORD(number.size)

    kinds = [types.boolean if operand == "mask" else number.computes for operand in row.names]
    formula = compiled(context, row.formula, number.computes, *kinds)
    active = compiled(context, "active", types.boolean, number.computes)

    bitmask, first = read_pointer(builder, pointers, order.index("mask")), read_word(builder, pointers, len(order))
    bases, steps = read_operands(builder, pointers, strides, arrays)
    flags, buffer = line_buffer(builder), line_buffer(builder)

    def one(i):
        places = [builder.gep(base, [builder.mul(i, step)]) for base, step in zip(bases, steps, strict=True)]
        values = [number.load(builder, place) for place in places[:-1]]
        position = builder.add(first, i)
        if reads:
            values.insert(1, _read_one(builder, bitmask, position))
        else:
            _write_one(builder, bitmask, position, active(builder, values[:1]))
        number.store(builder, formula(builder, values), places[-1])

    def dense_lines(start, count, streamed, operands, sizes):
        words = _Words(builder, bitmask, builder.add(first, start), lanes)
        with counted(builder, count, unrolled=False) as (k, _):
            i = builder.add(start, builder.mul(k, WORD(lanes)))
            *sources, out = moved(builder, operands, sizes, builder.mul(i, size))
            vector = builder.bitcast(flags, ir.VectorType(BYTE, lanes).as_pointer())
            each = [*zip([number] * len(sizes), [*sources, buffer], sizes, strict=True)]
            if reads:
                bits = builder.bitcast(words.read(k), ir.VectorType(BIT, lanes))
                builder.store(builder.zext(bits, vector.type.pointee), vector)
                each.insert(1, (flag, flags, WORD(1)))
            else:
                pair = [sources[0], flags], [size, WORD(1)]
                loop(builder, [number, flag], active, *pair, WORD(lanes), independent=True)
            elements, *rest = zip(*each, strict=True)
            loop(builder, elements, formula, *rest, WORD(lanes), independent=True)
            if not reads:
                bits = builder.trunc(builder.load(vector), ir.VectorType(BIT, lanes))
                words.write(k, builder.bitcast(bits, words.word))
            store_line(builder, number, buffer, out, streamed=streamed)
        if not reads:
            words.end(count)

    def lines(head, count, streamed, operands, sizes):
        past_caches = streamed if None in sizes or not parameters else None
        with builder.if_then(builder.icmp_signed(">", count, WORD(0))):  # else the bitmask may have ended
            either(builder, past_caches, lambda past: dense_lines(head, count, past, operands, sizes))

    in_lines(builder, number, n, streaming, bases, steps, parameters, one, lines)
