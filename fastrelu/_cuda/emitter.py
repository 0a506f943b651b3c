"""How a kernel reads, computes and writes, in LLVM IR: what `access` says, on a GPU.

A function there is run once per call in a kernel, on a `Value` for each number, and what it does with them is emitted.

The addresses become pointers of address space 1; without that, LLVM emits ``ld`` and ``st``, which ask the hardware
which kind of memory is meant, instead of ``ld.global`` and ``st.global``.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.typing import signature
from numba.extending import intrinsic

from .._kernels import bfloat16
from .dtypes import compute_dtype, compute_type, memory_dtype
from .numba_cuda import types
from .settings import VECTOR_BYTES

WORD, INT, BYTE, HALF, SINGLE = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.HalfType(), ir.FloatType()


def lowered(result):
    """Make an intrinsic of a function of `access`: a decorator. `result` is the Numba type of what it returns."""

    def decorate(function):
        @functools.wraps(function)
        def typed(typing_context, *kinds):
            def generate(context, builder, signature, arguments):
                machine = Machine(context, builder)
                values = [machine.opened(kind, each) for kind, each in zip(signature.args, arguments, strict=True)]
                returned = function(machine, *values)
                return context.get_dummy_value() if returned is None else machine.closed(result, returned)

            return result(*kinds), generate

        return intrinsic(typed)

    return decorate


def _operator(of_integers, of_floats=None):
    def operate(self, other):
        name = of_integers if isinstance(self.ir.type, ir.IntType) else of_floats
        other = other.ir if isinstance(other, Value) else ir.Constant(self.ir.type, other)
        return Value(self.builder, getattr(self.builder, name)(self.ir, other))

    return operate


class Value:
    """A number at run time, with the operators of Python that kernels use on it; integers are not negative."""

    __slots__ = ("builder", "ir")

    def __init__(self, builder, value, kind=None):
        self.builder, self.ir = builder, value

    __add__ = __radd__ = _operator("add", "fadd")
    __sub__ = _operator("sub")
    __mul__ = _operator("mul")
    __floordiv__ = _operator("udiv")
    __and__ = _operator("and_")
    __or__ = __ror__ = _operator("or_")
    __lshift__ = _operator("shl")
    __rshift__ = _operator("lshr")


class Values(Sequence[Any]):
    """A tuple at run time, taken apart where its items are used: the order decides between equal ways to compile."""

    def __init__(self, builder, value, kind):
        self.builder, self.ir, self.kind = builder, value, kind

    def __len__(self):
        return len(self.kind)

    def __getitem__(self, k):
        k = range(len(self.kind))[k]
        each = self.kind[k]
        kind_of = Values if isinstance(each, types.BaseTuple) else Value
        return kind_of(self.builder, self.builder.extract_value(self.ir, k), each)


class Machine:
    """What `access` asks for beside arithmetic, emitted by one builder."""

    def __init__(self, context, builder):
        self.context, self.builder = context, builder

    def opened(self, kind, value):
        """Return an argument, which may be a tuple, for functions in Python."""
        kind_of = Values if isinstance(kind, types.BaseTuple) else Value
        return kind_of(self.builder, value, kind)

    def closed(self, kind, value):
        """Return what `opened` takes apart."""
        if not isinstance(kind, types.BaseTuple):
            return value.ir
        whole = ir.Constant(self.context.get_value_type(kind), ir.Undefined)
        for k, (part, each) in enumerate(zip(kind, value, strict=True)):
            whole = self.builder.insert_value(whole, self.closed(part, each), k)
        return whole

    def call(self, function, operands, code, result):
        """Call a Python function on operands of a type; of two characters, `result` is that of a pair."""
        kind = compute_type(result[0])
        kind = kind if len(result) == 1 else types.UniTuple(kind, len(result))
        kinds = signature(kind, *[compute_type(code)] * len(operands))
        value = self.context.compile_internal(self.builder, function, kinds, [each.ir for each in operands])
        return self.opened(kind, value)

    def cast(self, value, source, target):
        """Return a number of one type as one of another, as Numba casts."""
        found = self.context.cast(self.builder, value.ir, compute_type(source), compute_type(target))
        return Value(self.builder, found)

    def narrow(self, word):
        """Return an integer or a bool in 32 bits, where most of its instructions are one."""
        change = self.builder.trunc if word.ir.type.width > INT.width else self.builder.zext
        return Value(self.builder, change(word.ir, INT))

    def wide(self, number):
        """Return a number of 32 bits as one of 64."""
        return Value(self.builder, self.builder.zext(number.ir, WORD))

    def number(self, bit, loop):
        """Return 0 or 1 in the type in which an operation computes."""
        code = compute_dtype(loop).char
        value = self._convert(self.builder.trunc(bit.ir, BYTE), "B", code)
        return Value(self.builder, self._to_compute(value, code))

    def read(self, codes, loop, lanes, places):
        """Load from ``places[j][k]`` of each operand, all of them first; return the operands' rows of values.

        `lanes` is how many adjacent elements each operand has at an address; one that has fewer repeats its own.
        """
        loaded = []
        for code, width, addresses in zip(codes, lanes, places, strict=True):
            align = width * memory_dtype(code).itemsize
            pointers = [self._pointer(each, code, width) for each in addresses]
            loaded.append([self.builder.load(each, align=align) for each in pointers])
        rows = []
        for code, width, batches in zip(codes, lanes, loaded, strict=True):
            row = []
            for batch in batches:
                found = [batch] if width == 1 else self._split(batch, code, width)
                found = [self._to_compute(self._convert(each, code, loop), loop) for each in found]
                row += [Value(self.builder, each) for each in found * (max(lanes) // width)]
            rows.append(row)
        return rows

    def write(self, code, loop, width, addresses, values):
        """Store a row of values, `width` adjacent ones at each address."""
        for k, address in enumerate(addresses):
            row = [values[k * width + lane].ir for lane in range(width)]
            lanes = [self._convert(self._from_compute(each, loop), loop, code) for each in row]
            item = lanes[0] if width == 1 else self._joined(lanes, code)
            align = width * memory_dtype(code).itemsize
            self.builder.store(item, self._pointer(address, code, width), align=align)

    def _pointer(self, address, code, width):
        return self.builder.inttoptr(address.ir, ir.PointerType(_in_memory(code, width), 1))

    def _convert(self, value, source, target):
        """Convert a value as it lies in memory from one type to another, as NumPy casts do. Never float to integer."""
        if source == target:
            return value
        if source == "E":
            return self._convert(self._to_compute(value, "E"), "f", target)
        if target == "E":
            return self._from_compute(self._convert(value, source, "f"), "E")
        builder, to, other = self.builder, _llvm(target), np.dtype(target)
        kind, size = np.dtype(source).kind, np.dtype(source).itemsize
        if kind == "f":
            if other.itemsize == size:
                return value
            return builder.fpext(value, to) if other.itemsize > size else builder.fptrunc(value, to)
        if other.kind == "f":
            # NumPy goes from integers to float16 by way of float32
            first = SINGLE if target == "e" else to
            number = builder.sitofp(value, first) if kind == "i" else builder.uitofp(value, first)
            return builder.fptrunc(number, to) if target == "e" else number
        if other.itemsize == size:
            return value
        if other.itemsize < size:
            return builder.trunc(value, to)
        return builder.sext(value, to) if kind == "i" else builder.zext(value, to)

    def _to_compute(self, value, code):
        if code == "e":
            return self.builder.fpext(value, SINGLE)
        if code == "E":
            return bfloat16.to_single(self.context, self.builder, value)
        return self.context.data_model_manager[compute_type(code)].from_data(self.builder, value)

    def _from_compute(self, value, code):
        builder = self.builder
        if code == "e":
            return builder.fptrunc(value, HALF)
        if code == "E":
            # NVIDIA's own NaN is all ones, which rounding would carry into the sign
            bits = builder.bitcast(value, INT)
            number = builder.fcmp_ordered("ord", value, value)
            bits = builder.select(number, bits, builder.and_(bits, bfloat16.UPPER))
            return bfloat16.from_single(self.context, builder, builder.bitcast(bits, SINGLE))
        return self.context.data_model_manager[compute_type(code)].as_data(builder, value)

    def _split(self, vector, code, width):
        """Return the elements of a vector as it came from memory."""
        builder, kind = self.builder, _llvm(code)
        if not _in_words(kind):
            vector = builder.bitcast(vector, ir.VectorType(kind, width))
            return [builder.extract_element(vector, INT(k)) for k in range(width)]
        # Shifts, not a cast to a vector of bytes: LLVM would make that four accesses of 4 bytes
        each = 32 // kind.width
        words = [builder.extract_element(vector, INT(k // each)) for k in range(width)]
        return [builder.trunc(builder.lshr(word, INT(k % each * kind.width)), kind) for k, word in enumerate(words)]

    def _joined(self, lanes, code):
        """Return elements as one vector, as it goes to memory."""
        builder, kind, memory = self.builder, _llvm(code), _in_memory(code, len(lanes))
        if not _in_words(kind):
            item = ir.Constant(ir.VectorType(kind, len(lanes)), ir.Undefined)
            for k, value in enumerate(lanes):
                item = builder.insert_element(item, value, INT(k))
            return builder.bitcast(item, memory)
        item, each = ir.Constant(memory, ir.Undefined), 32 // kind.width
        for k in range(len(lanes) // each):
            word = INT(0)
            for j, value in enumerate(lanes[k * each : (k + 1) * each]):
                word = builder.or_(word, builder.shl(builder.zext(value, INT), INT(j * kind.width)))
            item = builder.insert_element(item, word, INT(k))
        return item


def _llvm(code):
    return {"e": HALF, "f": SINGLE, "d": ir.DoubleType()}.get(code) or ir.IntType(8 * memory_dtype(code).itemsize)


def _in_words(kind):
    return isinstance(kind, ir.IntType) and kind.width < 32


def _in_memory(code, width):
    """Return the LLVM type of one access: bytes and halves travel in words, or LLVM would split the vector."""
    if width == 1:
        return _llvm(code)
    if memory_dtype(code).itemsize < 4:
        return ir.VectorType(INT, VECTOR_BYTES // 4)
    return ir.VectorType(_llvm(code), width)
