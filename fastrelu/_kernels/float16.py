"""float16 in the CPU kernels: stored as 16 bits, computed as float32, rounded once.

Numba's CPU target has no float16. Where the processor converts (F16C on x86-64, always on AArch64), LLVM's
``half`` type becomes one instruction per vector. Elsewhere LLVM would call ``__extendhfsf2`` and
``__truncsfhf2``, which no JIT-linked library provides (the process dies with SIGSEGV), so the same conversion
is written in integer and float32 arithmetic, which every vector unit has.
"""

import llvmlite.ir as ir

from .processor import is_aarch64, is_x86

I16, I32 = ir.IntType(16), ir.IntType(32)
HALF, SINGLE = ir.HalfType(), ir.FloatType()


def in_hardware(context) -> bool:
    """Say whether the processor that the context compiles for converts float16 itself."""
    triple, _cpu, features = context.codegen().magic_tuple()
    return "+f16c" in features.split(",") if is_x86(triple) else is_aarch64(triple)


def to_single(context, builder, bits):
    """Convert float16 bits to a float32 value; exact."""
    if in_hardware(context):
        return builder.fpext(builder.bitcast(bits, HALF), SINGLE)
    wide = builder.zext(bits, I32)
    sign = builder.shl(builder.and_(wide, I32(0x8000)), I32(16))
    magnitude = builder.shl(builder.and_(wide, I32(0x7FFF)), I32(13))
    # Moving the exponent from bias 15 to 127 is an integer addition for normal numbers, twice that for Inf and
    # NaN. A subnormal is magnitude * 2**-24, and converting that integer is exact, also under flush-to-zero.
    rebias = I32((127 - 15) << 23)
    normal = builder.add(magnitude, rebias)
    special = builder.icmp_unsigned(">=", magnitude, I32(0x7C00 << 13))
    normal = builder.select(special, builder.add(normal, rebias), normal)
    count = builder.sitofp(builder.and_(wide, I32(0x7FFF)), SINGLE)
    subnormal = builder.bitcast(builder.fmul(count, SINGLE(2.0**-24)), I32)
    tiny = builder.icmp_unsigned("<", magnitude, I32(0x0400 << 13))
    return builder.bitcast(builder.or_(sign, builder.select(tiny, subnormal, normal)), SINGLE)


def from_single(context, builder, value):
    """Convert a float32 value to float16 bits, rounding to nearest, ties to even."""
    if in_hardware(context):
        return builder.bitcast(builder.fptrunc(value, HALF), I16)
    bits = builder.bitcast(value, I32)
    sign = builder.lshr(builder.and_(bits, I32(0x80000000)), I32(16))
    magnitude = builder.and_(bits, I32(0x7FFFFFFF))
    # Normal result: add half of the last kept bit, less one unless that bit is odd, then drop 13 bits.
    odd = builder.and_(builder.lshr(magnitude, I32(13)), I32(1))
    rounded = builder.add(builder.add(magnitude, I32(0xFFF)), odd)
    normal = builder.sub(builder.lshr(rounded, I32(13)), I32((127 - 15) << 10))
    overflow = builder.icmp_unsigned(">=", normal, I32(0x7C00))
    normal = builder.select(overflow, I32(0x7C00), normal)
    # Subnormal result: adding 0.5 makes the float32 unit round to multiples of 2**-24 by itself.
    half = SINGLE(0.5)
    shifted = builder.bitcast(builder.fadd(builder.bitcast(magnitude, SINGLE), half), I32)
    subnormal = builder.sub(shifted, I32(0x3F000000))
    tiny = builder.icmp_unsigned("<", magnitude, I32((127 - 14) << 23))
    result = builder.select(tiny, subnormal, normal)
    nan = builder.icmp_unsigned(">", magnitude, I32(0x7F800000))
    quiet = builder.or_(I32(0x7E00), builder.and_(builder.lshr(magnitude, I32(13)), I32(0x1FF)))
    result = builder.select(nan, quiet, result)
    # An exact zero must not pass through the addition under a user's rounding mode.
    result = builder.select(builder.icmp_unsigned("==", magnitude, I32(0)), I32(0), result)
    return builder.trunc(builder.or_(result, sign), I16)
