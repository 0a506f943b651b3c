"""The machine code is what the design says: checked, since a result does not show how it was computed."""

import re

import numpy as np
import pytest

from fastrelu._kernels import float16
from fastrelu._runtime import compiler

from .helpers import ALL_FLOATS, OPERATIONS

numba = pytest.importorskip("numba")
from numba.core import types  # noqa: E402
from numba.core.registry import cpu_target  # noqa: E402

TRIPLE, CPU, FEATURES = cpu_target.target_context.codegen().magic_tuple()
X86 = TRIPLE.startswith("x86_64")


@pytest.fixture
def fresh(monkeypatch):
    """Compile without the cache, to see the assembly of what a user's machine runs."""
    from fastrelu._runtime import code_cache

    monkeypatch.setattr(code_cache, "load", lambda *args: None)
    monkeypatch.setattr(code_cache, "save", lambda *args: None)


@pytest.mark.skipif(not X86, reason="x86-64 assembly")
@pytest.mark.parametrize("name", OPERATIONS)
def test_float32_stays_float32(name, fresh):
    """A constant of the wrong type would make Numba compute in float64 behind a float32 result."""
    for dtype in [dtype for dtype in ALL_FLOATS if dtype != "float64"]:
        function = compiler.kernel(name, np.dtype(dtype))
        assembly = function.library.get_asm_str()
        wide = re.findall(r"\bv?(?:cvtss2sd|cvtps2pd|mulsd|mulpd|maxsd|maxpd|cmppd|ucomisd)\b", assembly)
        assert not wide, wide


@pytest.mark.skipif("+avx2" not in FEATURES.split(","), reason="AVX2 assembly")
@pytest.mark.parametrize("name", OPERATIONS)
def test_vectorised_and_streaming(name, fresh):
    for dtype in ALL_FLOATS:
        assembly = compiler.kernel(name, np.dtype(dtype)).library.get_asm_str()
        assert re.search(r"%[yz]mm", assembly), "no vectors"
        assert re.search(r"vmovnt(ps|pd|dq)\s+%[yz]mm", assembly), "no streaming stores"


def test_relu_is_one_instruction_or_two(fresh):
    """`vmaxps`, or without AVX-512 and with a recent LLVM a comparison and a mask."""
    if "+avx2" not in FEATURES.split(","):
        pytest.skip("AVX2 assembly")
    assembly = compiler.kernel("relu", np.dtype("float32")).library.get_asm_str()
    computed = r"\s+(?:vmaxps|vandn?ps)\s+.*%[yz]mm\d+\n"
    assert re.search(computed + r"(?:.*\n){0,8}?\s+vmovntps\s+%[yz]mm", assembly)


class _Elsewhere:
    """A stand-in for a target context that compiles for another processor."""

    def __init__(self, triple, features):
        self._answer = (triple, "generic", features)

    def codegen(self):
        return self

    def magic_tuple(self):
        return self._answer


def test_float16_in_hardware():
    assert float16.in_hardware(_Elsewhere("x86_64-unknown-linux-gnu", "+sse2,+f16c"))
    assert not float16.in_hardware(_Elsewhere("x86_64-unknown-linux-gnu", "+sse2"))
    assert float16.in_hardware(_Elsewhere("aarch64-unknown-linux-gnu", ""))
    assert not float16.in_hardware(_Elsewhere("riscv64-unknown-linux-gnu", ""))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", ALL_FLOATS)
def test_compiles_for_aarch64(name, dtype, fresh):
    """The kernels' IR has nothing of x86 in it; for AArch64 its streaming stores become `stnp`."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    text = compiler.kernel(name, np.dtype(dtype)).library.get_llvm_str()
    assert "llvm.x86" not in text
    text = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', text)
    text = re.sub(r'target datalayout = ".*"\n', "", text)
    text = re.sub(r'"target-(cpu|features)"="[^"]*"', "", text)
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu="neoverse-n1", opt=2)
    assembly = machine.emit_assembly(llvm.parse_assembly(text))
    assert "stnp" in assembly
    assert "__extendhfsf2" not in assembly


def test_aarch64_loop_uses_its_own_instructions():
    from llvmlite import ir

    from fastrelu._kernels import intrinsics

    for intrinsic, arguments, expect in [
        (intrinsics.read_flags, [], "mrs"),
        (intrinsics.write_flags, [1], "msr"),
        (intrinsics.stream_fence, [], None),
    ]:
        signature, generate = intrinsic._defn(None, *[types.intp] * len(arguments))
        module = ir.Module()
        module.triple = "aarch64-unknown-linux-gnu"
        function = ir.Function(module, ir.FunctionType(ir.IntType(64), []), "f")
        builder = ir.IRBuilder(function.append_basic_block())
        context = type("Context", (), {"get_dummy_value": lambda self: ir.IntType(64)(0)})()
        result = generate(context, builder, signature, [ir.IntType(64)(v) for v in arguments])
        builder.ret(result if result is not None and result.type == ir.IntType(64) else ir.IntType(64)(0))
        text = str(module)
        assert "x86" not in text
        if expect:
            assert expect in text


def test_kernels_are_shared():
    """int64 is `l` and `q`: one kernel serves both, and all targets."""
    compiler.warm("relu", np.dtype("int64"))
    before = compiler.kernel_address.cache_info().misses
    compiler.warm("relu", np.dtype("longlong"))
    assert compiler.kernel_address.cache_info().misses == before
