"""bfloat16 in the CPU kernels: stored as 16 bits, computed as float32, rounded once; the sibling of `_half`.

A bfloat16 is the upper half of a float32, so that widening is a shift. Rounding is integer arithmetic too, which every
vector unit has: the instruction made for it (``vcvtneps2bf16`` of AVX512_BF16, LLVM's ``fptrunc`` where it is there)
takes subnormal numbers for zeros.
"""

import llvmlite.ir as ir

I16, I32, SINGLE = ir.IntType(16), ir.IntType(32), ir.FloatType()


def to_single(context, builder, bits):
    """Convert bfloat16 bits to a float32 value; exact."""
    return builder.bitcast(builder.shl(builder.zext(bits, I32), I32(16)), SINGLE)


def from_single(context, builder, value):
    """Convert a float32 value to bfloat16 bits, rounding to nearest, ties to even; a NaN keeps its upper half.

    So that no payload is lost: a NaN here is an operand's, widened, or the processor's own, which has its bits there.
    """
    bits = builder.bitcast(value, I32)
    # Half of the last kept bit, less one unless that bit is odd. In a GPU's own NaN, 0x7fffffff, it would carry
    # into the sign.
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    rounded = builder.add(builder.add(bits, I32(0x7FFF)), odd)
    nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.lshr(builder.select(nan, bits, rounded), I32(16)), I16)
