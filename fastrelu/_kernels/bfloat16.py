"""bfloat16 in the CPU kernels: stored as 16 bits, computed as float32, rounded once; the sibling of `float16`.

A bfloat16 is the upper half of a float32, so that widening is a shift. Rounding is integer arithmetic too, which every
vector unit has: the instruction made for it (``vcvtneps2bf16`` of AVX512_BF16, LLVM's ``fptrunc`` where it is there)
takes subnormal numbers for zeros.
"""

import llvmlite.ir as ir

I16, I32, SINGLE = ir.IntType(16), ir.IntType(32), ir.FloatType()
UPPER = I32(0xFFFF0000)


def to_single(context, builder, bits):
    """Convert bfloat16 bits to a float32 value; exact."""
    return builder.bitcast(builder.shl(builder.zext(bits, I32), I32(16)), SINGLE)


def from_single(context, builder, value):
    """Convert a float32 value to bfloat16 bits, rounding to nearest, ties to even."""
    return builder.trunc(builder.lshr(_rounded(builder, value), I32(16)), I16)


def pair_to_singles(builder, word):
    """Convert two neighbours in one word of 32 bits."""
    return tuple(builder.bitcast(bits, SINGLE) for bits in (builder.shl(word, I32(16)), builder.and_(word, UPPER)))


def pair_from_singles(builder, values):
    low, high = (_rounded(builder, value) for value in values)
    return builder.or_(builder.lshr(low, I32(16)), builder.and_(high, UPPER))


def _rounded(builder, value):
    """Return float32 bits whose upper half is the rounded value.

    NaN needs no care: it is an operand's, widened, or the processor's own, and the lower half of both is zero. What is
    added then reaches no further.
    """
    bits = builder.bitcast(value, I32)
    # Half of the last kept bit, less one unless that bit is odd
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    return builder.add(builder.add(bits, odd), I32(0x7FFF))
