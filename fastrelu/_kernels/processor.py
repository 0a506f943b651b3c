"""What llvmlite alone can say about the processor: its floating-point flags, LLVM's own functions. Imports no Numba."""

from llvmlite import ir

WORD, INT, BYTE, VOID = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.VoidType()


def is_x86(triple: str) -> bool:
    return triple.startswith(("x86_64", "i386", "i686"))


def is_aarch64(triple: str) -> bool:
    return triple.startswith(("aarch64", "arm64"))


def call_llvm(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    """Call a function of LLVM's own that returns nothing."""
    kind = ir.FunctionType(VOID, [value.type for value in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def read_flags(builder: ir.IRBuilder) -> ir.Value:
    """Return the floating-point status word of this thread (0 on processors whose register we do not know)."""
    if is_x86(builder.module.triple):
        place = _word_for_flags(builder)
        call_llvm(builder, "llvm.x86.sse.stmxcsr", builder.bitcast(place, BYTE.as_pointer()))
        return builder.zext(builder.load(place), WORD)
    if is_aarch64(builder.module.triple):
        return builder.call(ir.InlineAsm(ir.FunctionType(WORD, []), "mrs $0, fpsr", "=r", side_effect=True), [])
    return WORD(0)


def write_flags(builder: ir.IRBuilder, flags: ir.Value) -> None:
    """Set the floating-point status word of this thread."""
    if is_x86(builder.module.triple):
        place = _word_for_flags(builder)
        builder.store(builder.trunc(flags, INT), place)
        call_llvm(builder, "llvm.x86.sse.ldmxcsr", builder.bitcast(place, BYTE.as_pointer()))
    elif is_aarch64(builder.module.triple):
        kind = ir.FunctionType(VOID, [WORD])
        builder.call(ir.InlineAsm(kind, "msr fpsr, $0", "r", side_effect=True), [flags])


def _word_for_flags(builder: ir.IRBuilder) -> ir.Value:
    with builder.goto_entry_block():
        return builder.alloca(INT)
