"""Compile PTX for the processor that runs the tests, so that compiled kernels run where there is no GPU.

Every register becomes a variable of its width, every instruction a few of LLVM's; LLVM makes machine code of it. Only
what our kernels need is known, and anything else is an error: threads that talk to each other, for instance.

As on a GPU, arithmetic in float32 makes NaNs with all bits set, whatever its operands were, and every access to memory
is checked: for its alignment and for lying in memory of the GPU. The instructions are described in NVIDIA's "PTX ISA".
"""

import re
from typing import Any, NamedTuple

from llvmlite import binding as llvm
from llvmlite import ir

I1, I8, I16, I32, I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))
HALF, SINGLE, DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
WIDTHS = {"pred": 1, "b8": 8, "b16": 16, "f16": 16, "b32": 32, "f32": 32, "b64": 64, "f64": 64}
FLOATS = {"f16": HALF, "f32": SINGLE, "f64": DOUBLE}
NANS = {"f16": I16(0x7FFF), "f32": I32(0x7FFFFFFF)}
#: What tells threads apart, in the order in which the driver passes it.
SPECIAL = [f"%{what}.{axis}" for what in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"]
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
               "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # fmt: skip
PARAMETER_SIZE = 16


class Kernel(NamedTuple):
    """A kernel that the processor can run, one thread at a time."""

    #: Keeps the code alive.
    engine: Any
    #: Address of a function of the parameters, each in `PARAMETER_SIZE` bytes, and of `SPECIAL`, 32 bits each.
    address: int
    #: Sizes of the parameters in bytes.
    sizes: list[int]


def width_of(kind: str) -> int:
    """Return the bits of a type such as ``u32``."""
    return int(kind[1:])


class Function:
    """The translation of one kernel."""

    def __init__(self, ptx: str, name: str, check: int) -> None:
        ptx = re.sub(r"//.*|/\*.*?\*/", "", ptx)
        found = re.search(
            rf"\.entry\s+{re.escape(name)}\s*\(([^)]*)\)[^{{]*\{{(.*?)^\}}", ptx, re.DOTALL | re.MULTILINE
        )
        if found is None:
            raise ValueError(f"there is no kernel {name}")
        self.sizes, self.places = [], {}
        for k, line in enumerate(filter(None, map(str.strip, found[1].split(",")))):
            kind, place, many = re.fullmatch(r"\.param(?: \.align \d+)? \.(\w+) ([\w$]+)(?:\[(\d+)\])?", line).groups()
            size = int(many) if many else width_of(kind) // 8
            assert size <= PARAMETER_SIZE, line
            self.sizes.append(size)
            self.places[place] = PARAMETER_SIZE * k
        self.module = ir.Module(name)
        self.function = ir.Function(
            self.module, ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32.as_pointer()]), name
        )
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.check = self.builder.inttoptr(I64(check), ir.FunctionType(ir.VoidType(), [I64, I32]).as_pointer())
        self.registers: dict[str, Any] = {}
        self.blocks: dict[str, Any] = {}
        # a statement ends with a semicolon, a label with a colon; braces around statements, not operands, are scopes,
        # whose names we let live on
        body = re.sub(r"(\{[^{};]*\})|[{}]", lambda brace: brace[1] or " ", found[2])
        for statement in re.split(r";|(?<=:)\s", body):
            if statement.strip():
                self.statement(statement.strip())
        assert self.builder.block.is_terminated, "the kernel does not end"

    def statement(self, text: str) -> None:
        if text.endswith(":"):
            block = self.block(text[:-1])
            if not self.builder.block.is_terminated:
                self.builder.branch(block)
            self.builder.position_at_end(block)
        elif text.startswith(".reg"):
            self.declare(text)
        elif text.startswith("."):
            assert text.startswith(".pragma"), text  # advice for the next compiler
        else:
            if self.builder.block.is_terminated:  # code that nothing leads to
                self.builder.position_at_end(self.function.append_basic_block())
            found = re.fullmatch(r"(?:@(!?%\w+)\s+)?([\w.:]+)\s*(.*)", text, re.DOTALL)
            if found is None:
                raise NotImplementedError(text)
            guard, operation, rest = found.groups()
            operands = [part.strip() for part in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", rest)]
            self.instruction(guard, operation.split("."), operands, text)

    def declare(self, text: str) -> None:
        kind, prefix, many = re.fullmatch(r"\.reg \.(\w+)\s+(%\w+?)(?:<(\d+)>)?", text).groups()
        names = [prefix] if many is None else [f"{prefix}{k}" for k in range(int(many))]
        with self.builder.goto_entry_block():
            for name in names:
                self.registers[name] = self.builder.alloca(ir.IntType(WIDTHS[kind]))

    def block(self, label: str) -> Any:
        if label not in self.blocks:
            self.blocks[label] = self.function.append_basic_block(label)
        return self.blocks[label]

    # ---- operands ---------------------------------------------------------------------------------------------------

    def bits(self, operand: str, width: int) -> Any:
        """Return an operand as an integer of this width: cut off, or filled with zeros."""
        if operand in SPECIAL:
            place = self.builder.gep(self.function.args[1], [I32(SPECIAL.index(operand))])
            value = self.builder.load(place)
        elif operand.startswith("%"):
            value = self.builder.load(self.registers[operand])
        elif found := re.fullmatch(r"0[fFdD]([0-9a-fA-F]+)", operand):
            value = ir.IntType(4 * len(found[1]))(int(found[1], 16))
        else:
            return ir.IntType(width)(int(operand, 0) & (1 << width) - 1)
        if value.type.width > width:
            return self.builder.trunc(value, ir.IntType(width))
        return self.builder.zext(value, ir.IntType(width)) if value.type.width < width else value

    def value(self, operand: str, kind: str) -> Any:
        """Return an operand as a number of a type: float types as LLVM's, others as integers."""
        if kind == "pred":
            return self.builder.load(self.registers[operand]) if operand.startswith("%") else I1(int(operand, 0) != 0)
        bits = self.bits(operand, width_of(kind))
        return self.builder.bitcast(bits, FLOATS[kind]) if kind in FLOATS else bits

    def predicate(self, operand: str) -> Any:
        value = self.builder.load(self.registers[operand.removeprefix("!")])
        return self.builder.not_(value) if operand.startswith("!") else value

    def set(self, register: str, value: Any, kind: str = "") -> None:
        """Put a value into a register; one that is wider than the value gets its sign, or zeros."""
        if register == "_":
            return
        place, builder = self.registers[register], self.builder
        if isinstance(value.type, (ir.HalfType, ir.FloatType, ir.DoubleType)):
            value = builder.bitcast(value, ir.IntType({HALF: 16, SINGLE: 32, DOUBLE: 64}[value.type]))
        width = place.type.pointee.width
        if value.type.width < width:
            value = (builder.sext if kind.startswith("s") else builder.zext)(value, place.type.pointee)
        assert value.type.width == width, (register, value.type)
        builder.store(value, place)

    def canonical(self, value: Any, kind: str) -> Any:
        """Return the result of arithmetic, as a GPU makes it."""
        if kind not in NANS:
            return value
        number = self.builder.fcmp_ordered("ord", value, value)
        return self.builder.select(number, value, self.builder.bitcast(NANS[kind], FLOATS[kind]))

    def address(self, operand: str) -> Any:
        base, offset = re.fullmatch(r"\[(%\w+)(?:\+(-?\d+))?\]", operand).groups()
        return self.builder.add(self.builder.load(self.registers[base]), I64(int(offset or 0)))

    # ---- instructions -----------------------------------------------------------------------------------------------

    def instruction(self, guard: str | None, name: list[str], operands: list[str], text: str) -> None:
        builder = self.builder
        if name[0] == "bra":
            if guard is None:
                builder.branch(self.block(operands[0]))
                return
            after = self.function.append_basic_block()
            builder.cbranch(self.predicate(guard), self.block(operands[0]), after)
            builder.position_at_end(after)
            return
        after = None
        if guard is not None:
            then, after = self.function.append_basic_block(), self.function.append_basic_block()
            builder.cbranch(self.predicate(guard), then, after)
            builder.position_at_end(then)
        if name[0] in ("ret", "exit"):
            builder.ret_void()
        else:
            emit = getattr(self, f"emit_{name[0]}", None)
            if emit is None:
                raise NotImplementedError(text)
            try:
                emit(name[1:], *operands)
            except Exception as error:
                error.add_note(text)
                raise
        if after is not None:
            if not builder.block.is_terminated:
                builder.branch(after)
            builder.position_at_end(after)

    def emit_ld(self, how: list[str], target: str, source: str) -> None:
        space, kind = how[0], how[-1]
        element = ir.IntType(width_of(kind))
        if space == "param":
            place, offset = re.fullmatch(r"\[([\w$]+)(?:\+(\d+))?\]", source).groups()
            start = self.builder.gep(self.function.args[0], [I32(self.places[place] + int(offset or 0))])
            address = self.builder.ptrtoint(start, I64)
        else:
            address = self.address(source)
        targets = target.strip("{}").replace(" ", "").split(",")
        if space != "param":
            assert space == "global", how
            self.builder.call(self.check, [address, I32(len(targets) * element.width // 8)])
        values = []
        for k in range(len(targets)):
            place = self.builder.add(address, I64(k * element.width // 8))
            values.append(self.builder.load(self.builder.inttoptr(place, element.as_pointer()), align=1))
        for register, value in zip(targets, values, strict=True):
            self.set(register, value, kind)

    def emit_st(self, how: list[str], target: str, source: str) -> None:
        assert how[0] == "global", how
        element = ir.IntType(width_of(how[-1]))
        sources, address = source.strip("{}").replace(" ", "").split(","), self.address(target)
        self.builder.call(self.check, [address, I32(len(sources) * element.width // 8)])
        for k, each in enumerate(sources):
            place = self.builder.inttoptr(self.builder.add(address, I64(k * element.width // 8)), element.as_pointer())
            self.builder.store(self.bits(each, element.width), place, align=1)

    def emit_mov(self, how: list[str], target: str, source: str) -> None:
        kind, builder = how[-1], self.builder
        if target.startswith("{"):
            parts = target.strip("{}").replace(" ", "").split(",")
            width = width_of(kind) // len(parts)
            whole = self.bits(source, width_of(kind))
            for k, part in enumerate(parts):
                self.set(part, builder.trunc(builder.lshr(whole, whole.type(k * width)), ir.IntType(width)))
        elif source.startswith("{"):
            parts = source.strip("{}").replace(" ", "").split(",")
            whole = ir.IntType(width_of(kind))
            width, value = whole.width // len(parts), whole(0)
            for k, part in enumerate(parts):
                moved = builder.shl(builder.zext(self.bits(part, width), whole), whole(k * width))
                value = builder.or_(value, moved)
            self.set(target, value)
        elif kind == "pred":
            self.set(target, self.value(source, kind))
        else:
            self.set(target, self.bits(source, width_of(kind)))

    def emit_cvta(self, how: list[str], target: str, source: str) -> None:
        self.set(target, self.bits(source, 64))

    def emit_cvt(self, how: list[str], target: str, source: str) -> None:
        to, given = how[-2:]
        rounding = how[:-2]
        builder, value = self.builder, self.value(source, given)
        if given in FLOATS and to in FLOATS:
            if width_of(to) < width_of(given):
                assert rounding == ["rn"], how
                if (given, to) == ("f64", "f16"):
                    value = self.rounded_to_odd(value)
                value = builder.fptrunc(value, FLOATS[to])
            else:
                assert not rounding, how
                value = builder.fpext(value, FLOATS[to])
            value = self.canonical(value, to)
        elif to in FLOATS:
            assert rounding == ["rn"], how
            value = (builder.sitofp if given[0] == "s" else builder.uitofp)(value, FLOATS[to])
        elif given in FLOATS:
            raise NotImplementedError("a conversion to integers")
        else:
            assert not rounding, how
            width = width_of(to)
            if value.type.width > width:
                value = builder.trunc(value, ir.IntType(width))
            elif value.type.width < width:
                value = (builder.sext if given[0] == "s" else builder.zext)(value, ir.IntType(width))
        self.set(target, value, to)

    def rounded_to_odd(self, value: Any) -> Any:
        """Return a float64 as float32, so that rounding that to float16 gives what rounding once would.

        LLVM calls a function from float64 to float16, whose name other libraries have too, torch for one, and not
        for the same function: the process then dies.
        """
        builder = self.builder
        single = builder.fptrunc(value, SINGLE)
        back, bits = builder.fpext(single, DOUBLE), builder.bitcast(single, I32)
        magnitudes = [builder.and_(builder.bitcast(each, I64), I64((1 << 63) - 1)) for each in (back, value)]
        toward_zero = builder.select(builder.icmp_unsigned(">", *magnitudes), builder.sub(bits, I32(1)), bits)
        inexact = builder.fcmp_ordered("!=", back, value)
        bits = builder.select(inexact, builder.or_(toward_zero, I32(1)), bits)
        return builder.bitcast(bits, SINGLE)

    def emit_setp(self, how: list[str], target: str, first: str, second: str, third: str | None = None) -> None:
        comparison, kind, builder = how[0], how[-1], self.builder
        assert len(how) == 2 + (third is not None), how
        a, b = self.value(first, kind), self.value(second, kind)
        if kind in FLOATS:
            if comparison in ("num", "nan"):
                result = (builder.fcmp_ordered if comparison == "num" else builder.fcmp_unordered)(
                    {"num": "ord", "nan": "uno"}[comparison], a, b
                )
            elif comparison.endswith("u") and comparison != "u":
                result = builder.fcmp_unordered(COMPARISONS[comparison[:-1]], a, b)
            else:
                result = builder.fcmp_ordered(COMPARISONS[comparison], a, b)
        else:
            compare = builder.icmp_signed if kind[0] == "s" else builder.icmp_unsigned
            result = compare(COMPARISONS[comparison], a, b)
        if third is not None:
            result = {"and": builder.and_, "or": builder.or_, "xor": builder.xor}[how[1]](result, self.predicate(third))
        self.set(target, result)

    def emit_selp(self, how: list[str], target: str, first: str, second: str, condition: str) -> None:
        width = width_of(how[-1])
        self.set(
            target, self.builder.select(self.predicate(condition), self.bits(first, width), self.bits(second, width))
        )

    def arithmetic(self, how: list[str], target: str, operands: tuple[str, ...], integer: str, real: str) -> None:
        kind = how[-1]
        assert how[:-1] in ([], ["rn"]), how
        values = [self.value(each, kind) for each in operands]
        if kind in FLOATS:
            self.set(target, self.canonical(getattr(self.builder, real)(*values), kind))
        else:
            self.set(target, getattr(self.builder, integer)(*values))

    def emit_add(self, how: list[str], target: str, *operands: str) -> None:
        self.arithmetic(how, target, operands, "add", "fadd")

    def emit_sub(self, how: list[str], target: str, *operands: str) -> None:
        self.arithmetic(how, target, operands, "sub", "fsub")

    def emit_neg(self, how: list[str], target: str, operand: str) -> None:
        self.arithmetic(how, target, (operand,), "neg", "fneg")

    def emit_abs(self, how: list[str], target: str, operand: str) -> None:
        kind = how[-1]
        value = self.bits(operand, width_of(kind))
        if kind in FLOATS:
            self.set(target, self.builder.and_(value, value.type((1 << width_of(kind) - 1) - 1)))
        else:
            negative = self.builder.icmp_signed("<", value, value.type(0))
            self.set(target, self.builder.select(negative, self.builder.neg(value), value))

    def emit_fma(self, how: list[str], target: str, *operands: str) -> None:
        self.arithmetic(how, target, operands, "", "fma")

    def product(self, how: list[str], first: str, second: str) -> Any:
        """Return what ``mul`` and ``mad`` multiply."""
        kind, part = how[-1], how[0]
        a, b = self.bits(first, width_of(kind)), self.bits(second, width_of(kind))
        if part == "lo":
            return self.builder.mul(a, b)
        wide = ir.IntType(2 * width_of(kind))
        extend = self.builder.sext if kind[0] == "s" else self.builder.zext
        whole = self.builder.mul(extend(a, wide), extend(b, wide))
        if part == "wide":
            return whole
        assert part == "hi", how
        return self.builder.trunc(self.builder.lshr(whole, wide(width_of(kind))), a.type)

    def emit_mul(self, how: list[str], target: str, first: str, second: str) -> None:
        if how[-1] in FLOATS:
            self.arithmetic(how, target, (first, second), "", "fmul")
        else:
            self.set(target, self.product(how, first, second))

    def emit_mad(self, how: list[str], target: str, first: str, second: str, third: str) -> None:
        product = self.product(how, first, second)
        self.set(target, self.builder.add(product, self.bits(third, product.type.width)))

    def emit_div(self, how: list[str], target: str, *operands: str) -> None:
        assert how[-1] not in FLOATS or how[0] == "rn", how
        self.arithmetic(how, target, operands, "sdiv" if how[-1][0] == "s" else "udiv", "fdiv")

    def emit_rem(self, how: list[str], target: str, *operands: str) -> None:
        self.arithmetic(how, target, operands, "srem" if how[-1][0] == "s" else "urem", "")

    def extreme(self, how: list[str], target: str, first: str, second: str, comparison: str) -> None:
        kind = how[-1]
        if kind in FLOATS:
            raise NotImplementedError("which treat NaN and -0.0 unlike NumPy")
        a, b = self.value(first, kind), self.value(second, kind)
        compare = self.builder.icmp_signed if kind[0] == "s" else self.builder.icmp_unsigned
        self.set(target, self.builder.select(compare(comparison, a, b), a, b))

    def emit_min(self, how: list[str], target: str, first: str, second: str) -> None:
        self.extreme(how, target, first, second, "<")

    def emit_max(self, how: list[str], target: str, first: str, second: str) -> None:
        self.extreme(how, target, first, second, ">")

    def logic(self, how: list[str], target: str, operands: tuple[str, ...], operation: str) -> None:
        kind = how[-1]
        take = self.predicate if kind == "pred" else lambda operand: self.bits(operand, width_of(kind))
        self.set(target, getattr(self.builder, operation)(*map(take, operands)))

    def emit_and(self, how: list[str], target: str, *operands: str) -> None:
        self.logic(how, target, operands, "and_")

    def emit_or(self, how: list[str], target: str, *operands: str) -> None:
        self.logic(how, target, operands, "or_")

    def emit_xor(self, how: list[str], target: str, *operands: str) -> None:
        self.logic(how, target, operands, "xor")

    def emit_not(self, how: list[str], target: str, operand: str) -> None:
        self.logic(how, target, (operand,), "not_")

    def shift(self, how: list[str], target: str, first: str, second: str, operation: str) -> None:
        kind, builder = how[-1], self.builder
        value, by = self.bits(first, width_of(kind)), self.bits(second, 32)
        # a shift by the width or more leaves nothing, or the sign
        most = I32(width_of(kind) - 1)
        too_far = builder.icmp_unsigned(">", by, most)
        near = builder.select(too_far, most, by)
        near = builder.zext(near, value.type) if width_of(kind) > 32 else builder.trunc(near, value.type)
        result = getattr(builder, operation)(value, near)
        if operation != "ashr":
            result = builder.select(too_far, value.type(0), result)
        self.set(target, result)

    def emit_shl(self, how: list[str], target: str, first: str, second: str) -> None:
        self.shift(how, target, first, second, "shl")

    def emit_shr(self, how: list[str], target: str, first: str, second: str) -> None:
        self.shift(how, target, first, second, "ashr" if how[-1][0] == "s" else "lshr")

    def emit_bfe(self, how: list[str], target: str, source: str, start: str, length: str) -> None:
        assert how == ["u32"], how
        moved = self.builder.lshr(self.bits(source, 32), I32(int(start)))
        self.set(target, self.builder.and_(moved, I32((1 << int(length)) - 1)))

    def emit_bfi(self, how: list[str], target: str, field: str, into: str, start: str, length: str) -> None:
        kind = ir.IntType(width_of(how[0]))
        mask = (1 << int(length)) - 1 << int(start)
        moved = self.builder.shl(self.bits(field, kind.width), kind(int(start)))
        rest = self.builder.and_(self.bits(into, kind.width), kind(~mask))
        self.set(target, self.builder.or_(self.builder.and_(moved, kind(mask)), rest))

    def emit_prmt(self, how: list[str], target: str, first: str, second: str, selector: str) -> None:
        builder = self.builder
        assert how == ["b32"], how
        both = builder.or_(builder.zext(self.bits(first, 32), I64),
                           builder.shl(builder.zext(self.bits(second, 32), I64), I64(32)))  # fmt: skip
        chosen, result = builder.zext(self.bits(selector, 32), I64), I32(0)
        for k in range(4):
            nibble = builder.lshr(chosen, I64(4 * k))
            byte = builder.trunc(builder.lshr(both, builder.shl(builder.and_(nibble, I64(7)), I64(3))), I8)
            sign = builder.icmp_unsigned("!=", builder.and_(nibble, I64(8)), I64(0))
            byte = builder.select(sign, builder.ashr(byte, I8(7)), byte)
            result = builder.or_(result, builder.shl(builder.zext(byte, I32), I32(8 * k)))
        self.set(target, result)


def compile_kernel(ptx: str, name: str, check: int) -> Kernel:
    """Compile a kernel; `check` is the address of a C function of an address and a size, called before accesses."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    function = Function(ptx, name, check)
    module = llvm.parse_assembly(str(function.module))
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=1
    )
    if hasattr(llvm, "create_pass_builder"):  # without it, llvmlite of Numba 0.60, every register is in memory
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return Kernel(engine, engine.get_function_address(name), function.sizes)
