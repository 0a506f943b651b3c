"""The emulated GPU itself: what its processor makes of instructions, by PTX that is written here."""

import ctypes
import struct

import numpy as np
import pytest

from . import emulator

CHECK = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint32)
PTX = """
.version 8.0
.target sm_90
.visible .entry test(.param .u64 place, .param .b64 a, .param .b64 b)
{{
    .reg .pred %p<9>;
    .reg .b16 %h<9>;
    .reg .b32 %r<9>;
    .reg .b64 %rd<9>;
    ld.param.u64 %rd1, [place];
    ld.param.u64 %rd2, [a];
    ld.param.u64 %rd3, [b];
    cvt.u32.u64 %r2, %rd2;
    cvt.u32.u64 %r3, %rd3;
    {body}
    st.global.u64 [%rd1], %rd4;
    ret;
}}
"""


def run(body, a=0, b=0):
    """Return what some instructions put into %rd4, or into %r4, from %rd2 and %rd3, or %r2 and %r3; and accesses."""
    if "%rd4" not in body:
        body += " cvt.u64.u32 %rd4, %r4;"
    seen = []
    check = CHECK(lambda address, size: seen.append((address, size)))
    kernel = emulator.ptx.compile_kernel(PTX.format(body=body), "test", ctypes.cast(check, ctypes.c_void_p).value)
    result = ctypes.c_uint64()
    mask = (1 << 64) - 1
    parameters = struct.pack("Q8xQ8xQ8x", ctypes.addressof(result), a & mask, b & mask)
    ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)(kernel.address)(parameters, struct.pack("12I", *range(12)))
    assert kernel.sizes == [8, 8, 8]
    assert seen[-1] == (ctypes.addressof(result), 8)
    return result.value


def single(value):
    return struct.unpack("I", struct.pack("f", value))[0]


def test_arithmetic_in_float32_makes_one_nan():
    quiet = 0x7FC01234
    assert run("add.f32 %r4, %r2, %r3;", quiet, single(1)) == 0x7FFFFFFF
    assert run("mul.f32 %r4, %r2, %r3;", single(float("inf")), 0) == 0x7FFFFFFF
    assert run("mov.b32 %r4, %r2;", quiet) == quiet


@pytest.mark.parametrize(
    ("body", "a", "b", "wanted"),
    [
        ("shl.b32 %r4, %r2, %r3;", 1, 32, 0),
        ("shr.u32 %r4, %r2, %r3;", 1 << 31, 31, 1),
        ("shr.u32 %r4, %r2, %r3;", 1 << 31, 40, 0),
        ("shr.s32 %r4, %r2, %r3;", 1 << 31, 40, 0xFFFFFFFF),
        ("mul.wide.s32 %rd4, %r2, %r3;", -3, 5, (1 << 64) - 15),
        ("mul.hi.u32 %r4, %r2, %r3;", 1 << 31, 6, 3),
        ("mad.lo.s32 %r4, %r2, %r3, 7;", 5, -1, 2),
        ("div.s64 %rd4, %rd2, %rd3;", -7, 2, (1 << 64) - 3),
        ("rem.u64 %rd4, %rd2, %rd3;", 7, 4, 3),
        ("setp.lt.s32 %p1, %r2, %r3; selp.b32 %r4, 1, 2, %p1;", -1, 1, 1),
        ("setp.lt.u32 %p1, %r2, %r3; selp.b32 %r4, 1, 2, %p1;", -1, 1, 2),
        ("setp.lt.f32 %p1, %r2, %r3; selp.b32 %r4, 1, 2, %p1;", 0x7FC00000, single(1), 2),
        ("setp.gtu.f32 %p1, %r2, %r3; selp.b32 %r4, 1, 2, %p1;", 0x7FC00000, single(1), 1),
        ("setp.eq.f32 %p1, %r2, 0f00000000; selp.b32 %r4, 1, 2, %p1;", 1 << 31, 0, 1),
        ("prmt.b32 %r4, %r2, %r3, 0x5410;", 0x11112222, 0x33334444, 0x44442222),
        ("bfi.b32 %r4, %r2, %r3, 8, 4;", 0xFF, 0, 0xF00),
        ("bfe.u32 %r4, %r2, 4, 8;", 0xABCD, 0, 0xBC),
        ("mov.u32 %r4, 0x7531; prmt.b32 %r4, %r2, %r3, %r4;", 0x11223344, 0x55667788, 0x55771133),
        ("mov.pred %p1, 0; mov.pred %p1, -1; @%p1 mov.u32 %r4, 5;", 0, 0, 5),
        ("mov.b32 {%h1, %h2}, %r2; mov.b32 %r4, {%h2, %h1};", 0x12345678, 0, 0x56781234),
        ("cvt.rn.f16.f32 %h1, %r2; cvt.u32.u16 %r4, %h1;", single(1 + 2**-11), 0, 0x3C00),
        ("cvt.s64.s32 %rd4, %r2;", -2, 0, (1 << 64) - 2),
        ("mov.u32 %r4, %ctaid.y;", 0, 0, 7),
        ("setp.eq.s32 %p1, %r2, 3; @%p1 bra $L1; mov.u32 %r4, 8; bra.uni $L2; $L1: mov.u32 %r4, 9; $L2:", 3, 0, 9),
        ("setp.eq.s32 %p1, %r2, 3; mov.u32 %r4, 8; @!%p1 mov.u32 %r4, 9;", 4, 0, 9),
    ],
)
def test_instructions(body, a, b, wanted):
    assert run(body, a, b) == wanted


@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 1 + 2**-11, 1 + 2**-11 + 2**-40, 1 + 2**-11 - 2**-40, -65519.99999999, 65520.0, 1e300, -np.inf, np.nan,
     2**-25, 2**-25 + 2**-60, 2**-24 * 1.5, 2**-24 * (1.5 - 2**-40), 5e-324],
)  # fmt: skip
def test_float64_is_rounded_to_float16_once(value):
    (bits,) = struct.unpack("Q", struct.pack("d", value))
    with np.errstate(over="ignore"):
        wanted = int(np.float64(value).astype("e").view("H"))
    found = run("cvt.rn.f16.f64 %h1, %rd2; cvt.u32.u16 %r4, %h1;", bits)
    assert found == (0x7FFF if np.isnan(value) else wanted)


def test_what_is_not_known_is_an_error():
    for body in ("bar.sync 0;", "shfl.sync.down.b32 %r4, %r2, 1, 31, -1;", "min.f32 %r4, %r2, %r3;"):
        with pytest.raises((NotImplementedError, ValueError)):
            run(body)
    with pytest.raises(AssertionError):
        run("add.ftz.f32 %r4, %r2, %r3;")
    with pytest.raises(ValueError, match="there is no kernel"):
        emulator.ptx.compile_kernel(PTX.format(body=""), "other", 0)
