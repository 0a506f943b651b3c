"""What the kernels have in common: elements, loops and whole cache lines as LLVM IR, and a body as a function.

The loops are emitted as LLVM IR, because plain Numba cannot say what makes them small: their iterations
are independent even when the output *is* an input. Without that, LLVM guards each loop by an overlap test
and runs it scalar in place; the cure, a copy of each loop per aliased operand, compiled five times longer
(0.25 s instead of 0.05 s for a binary operation).
"""

import contextlib
import functools
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from .. import _formulas
from . import bfloat16, float16
from .processor import BYTE, INT, WORD
from .records import LINE

#: A cache line as LLVM moves it.
VECTOR = ir.VectorType(WORD, LINE // 8)
BIT = ir.IntType(1)


class Distinct(ir.values.MDValue):
    """A ``distinct`` metadata node, which LLVM wants for access groups and loop names; llvmlite has none."""

    def __init__(self, module, operands=()):
        super().__init__(module, operands, str(len(module.metadata)))

    def descr(self, buf):
        buf += (f"distinct !{{ {', '.join(op.get_reference() for op in self.operands)} }}", "\n")

    __eq__ = object.__eq__
    __hash__ = object.__hash__


#: Types that are stored as 16 bits and computed as float32, and what converts them.
_NARROW = {"float16": float16, "bfloat16": bfloat16}


class Element:
    """How one element is stored in memory and what the formula computes with."""

    lanes: int | None = None  # of a vector: LLVM chooses

    def __init__(self, context, dtype):
        self.narrow = _NARROW.get(dtype.name)
        self.computes = types.float32 if self.narrow else from_dtype(dtype)
        self.stored = ir.IntType(16) if self.narrow else context.get_data_type(self.computes)
        self.size = dtype.itemsize
        self._context = context

    def load(self, builder, place, group=None):
        # align=1: the kernels also serve unaligned arrays, and unaligned loads cost nothing on x86 and AArch64
        raw = builder.load(builder.bitcast(place, self.stored.as_pointer()), align=1)
        if group:
            raw.set_metadata("llvm.access.group", group)
        return self.decoded(builder, raw)

    def store(self, builder, value, place, group=None):
        raw = self.encoded(builder, value)
        instruction = builder.store(raw, builder.bitcast(place, self.stored.as_pointer()), align=1)
        if group:
            instruction.set_metadata("llvm.access.group", group)

    def decoded(self, builder, raw):
        if self.narrow:
            return self.narrow.to_single(self._context, builder, raw)
        return self._context.data_model_manager[self.computes].from_data(builder, raw)

    def encoded(self, builder, value):
        if self.narrow:
            return self.narrow.from_single(self._context, builder, value)
        return self._context.data_model_manager[self.computes].as_data(builder, value)


def hint(module, name, *values):
    """Return metadata that tells LLVM how to treat a loop."""
    return module.add_metadata([ir.MetaDataString(module, f"llvm.loop.{name}"), *values])


@contextlib.contextmanager
def counted(builder, n, *, unrolled=True):
    """Emit ``for i in range(n)``; yield i and the name of the loop, whose operands are hints."""
    name = Distinct(builder.module)
    name.operands = (name,) if unrolled else (name, hint(builder.module, "unroll.disable"))
    entry = builder.block
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", n, WORD(0)), body, after)
    builder.position_at_end(body)
    i = builder.phi(WORD)
    i.add_incoming(WORD(0), entry)
    yield i, name
    following = builder.add(i, WORD(1), flags=["nuw", "nsw"])
    i.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, n), body, after).set_metadata("llvm.loop", name)
    builder.position_at_end(after)


def loop(builder, elements, formula, operands, steps, n, *, independent, outputs=1):
    """Emit ``for i in range(n): out[i] = formula(...)``; `elements`, `operands` and `steps` end with the output's.

    Of several outputs, the formula returns a list.

    Operands are pointers to bytes; a step of None marks one that is a value already. Addresses must stay
    pointers: with integers made into pointers inside the loop, LLVM's vectoriser gives up.
    """
    module = builder.module
    group = Distinct(module) if independent else None
    with counted(builder, n) as (i, name):
        places = [
            operand if step is None else builder.gep(operand, [builder.mul(i, step)])
            for operand, step in zip(operands, steps, strict=True)
        ]
        values = [
            place if step is None else element.load(builder, place, group)
            for element, place, step in zip(elements[:-outputs], places[:-outputs], steps[:-outputs], strict=True)
        ]
        results = formula(builder, values)
        results = results if isinstance(results, list) else [results]
        for element, result, place in zip(elements[-outputs:], results, places[-outputs:], strict=True):
            element.store(builder, result, place, group)
        if group:
            name.operands += (hint(module, "parallel_accesses", group),)
        lanes = n.constant if isinstance(n, ir.Constant) else elements[-1].lanes
        if lanes:
            name.operands += (hint(module, "vectorize.width", INT(lanes)),)
        if isinstance(n, ir.Constant):
            # A streamed line is one vector, made before anything is unrolled: LLVM would unroll its lanes into
            # scalars. And of the width of the line: where LLVM prefers vectors of 32 bytes, as on Intel's AVX-512
            # processors, it put the line together in memory and waited for both stores: 1.2 times as long.
            name.operands += (hint(module, "unroll.disable"), hint(module, "interleave.count", INT(1)))


def read_word(builder, array, k):
    """Return word k of an array of words."""
    return builder.load(builder.gep(builder.inttoptr(array, WORD.as_pointer()), [WORD(k)]))


def read_pointer(builder, array, k):
    """Return word k of an array of words as a pointer to bytes."""
    return builder.inttoptr(read_word(builder, array, k), BYTE.as_pointer())


def read_operands(builder, pointers, strides, places):
    """Return the addresses and the strides of the operands at these places."""
    return [read_pointer(builder, pointers, k) for k in places], [read_word(builder, strides, k) for k in places]


def compiled(context, formula, result, *arguments):
    """Return a function that emits a formula for operands of these types."""
    function, kind = getattr(_formulas, formula).__wrapped__, signature(result, *arguments)
    return lambda builder, values: context.compile_internal(builder, function, kind, values)


def all_of(builder, conditions):
    """Return whether all conditions hold, of which there may be none."""
    return functools.reduce(builder.and_, conditions, BIT(1))


def equal(builder, words, value):
    """Return for each of some words whether it is a number."""
    return [builder.icmp_signed("==", word, WORD(value)) for word in words]


def either(builder, condition, emit):
    """Emit one thing in two ways: ``emit(True)`` runs where a condition holds, ``emit(False)`` where it does not."""
    if condition is None:  # it never holds
        emit(False)
        return
    with builder.if_else(condition) as (holds, fails):
        with holds:
            emit(True)
        with fails:
            emit(False)


def scalars(builder, element, operands, parameters):
    """Return operands and steps of a dense row whose parameters, at these places, are one number each, loaded here."""
    values = [element.load(builder, op) if k in parameters else op for k, op in enumerate(operands)]
    return values, [None if k in parameters else WORD(element.size) for k in range(len(operands))]


def moved(builder, operands, steps, nbytes):
    """Return operands so many bytes further on; a step of None marks one that is a value."""
    return [op if step is None else builder.gep(op, [nbytes]) for op, step in zip(operands, steps, strict=True)]


def in_lines(builder, element, n, streaming, operands, steps, parameters, one, lines, *, writes=True):
    """Emit a row by whole cache lines, where it is dense, with ``one(i)`` for elements before and after them.

    ``lines(head, count, streamed, operands, steps)`` is emitted for parameters, at these places, that are a number
    each, and for arrays of them. Lines begin with the first of the output, the last operand if there is one, where
    streaming is wanted and elements do not straddle lines.
    """
    size, lanes = WORD(element.size), WORD(LINE // element.size)
    slopes = [steps[k] for k in parameters]
    scalar, alike = (all_of(builder, equal(builder, slopes, step)) for step in (0, element.size))
    data = [step for k, step in enumerate(steps) if k not in parameters]
    dense = all_of(builder, [*equal(builder, data, element.size), builder.or_(scalar, alike)])
    head, streamed = WORD(0), None
    if writes:
        ahead = builder.and_(builder.neg(builder.ptrtoint(operands[-1], WORD)), WORD(LINE - 1))
        wanted = builder.and_(dense, builder.icmp_signed("!=", streaming, WORD(0)))
        streamed = builder.and_(wanted, *equal(builder, [builder.urem(ahead, size)], 0))
        head = builder.select(streamed, builder.udiv(ahead, size), WORD(0))
        head = builder.select(builder.icmp_signed("<", head, n), head, n)
    count = builder.select(dense, builder.udiv(builder.sub(n, head), lanes), WORD(0))

    def singly(start, stop):
        with counted(builder, builder.sub(stop, start), unrolled=False) as (k, _):
            one(builder.add(start, k))

    singly(WORD(0), head)
    with builder.if_else(scalar) as (numbers, arrays):
        with numbers:
            lines(head, count, streamed, *scalars(builder, element, operands, parameters))
        with arrays:
            if parameters:
                lines(head, count, streamed, operands, [size] * len(operands))
    singly(builder.add(head, builder.mul(count, lanes)), n)


def line_buffer(builder):
    """Return a place for one cache line on the stack."""
    with builder.goto_entry_block():
        line = builder.alloca(VECTOR)
        line.align = LINE
        return builder.bitcast(line, BYTE.as_pointer())


def store_line(builder, element, buffer, place, *, streamed):
    """Copy a line from its buffer to memory; past the caches, which asks for a place that is aligned."""
    value = builder.load(builder.bitcast(buffer, VECTOR.as_pointer()), align=LINE)
    if element.narrow is float16 and streamed:
        # Where the processor computes with vectors of half (AVX512-FP16), LLVM would store one, for which it knows
        # no streaming instruction, and silently take a plain one
        value = _opaque(builder, value)
    store = builder.store(value, builder.bitcast(place, VECTOR.as_pointer()), align=LINE if streamed else 1)
    if streamed:
        store.set_metadata("nontemporal", builder.module.add_metadata([INT(1)]))


def _opaque(builder, value):
    """Return a line as a vector of floats whose origin LLVM's optimiser does not see."""
    kind = ir.VectorType(ir.FloatType(), LINE // 4)
    fence = ir.FunctionType(kind, [kind])
    function = cgutils.get_or_insert_function(builder.module, fence, "llvm.arithmetic.fence.v16f32")
    return builder.bitcast(builder.call(function, [builder.bitcast(value, kind)]), value.type)


SIGNATURE = types.intp(*[types.intp] * 4)


def kernel(body: Callable[..., None], name: str, dtype: np.dtype) -> Callable[..., int]:
    """Return ``kernel(pointers, n, strides, streaming)`` for Numba, with the body that a function emits."""

    @intrinsic
    def run(typing_context, pointers, n, strides, streaming):
        def generate(context, builder, signature, arguments):
            body(context, builder, *arguments, name=name, dtype=dtype)
            return context.get_dummy_value()

        return types.void(pointers, n, strides, streaming), generate

    def kernel(pointers, n, strides, streaming):
        run(pointers, n, strides, streaming)
        return 0

    return kernel
