"""One compiled kernel per operation and type: ``kernel(pointers, n, strides, streaming)``.

A kernel holds a few copies of one loop, and picks by stride:

1. data operands contiguous, parameters scalar (loaded once): SIMD, with plain or with streaming stores;
2. everything contiguous, as a slope per channel is: the same;
3. any strides, in order: what is left, and the only one that is right for partly overlapping operands.

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
from .._operations import DATA, OPERATIONS
from .._runtime import code_cache
from . import bfloat16, float16
from .intrinsics import VECTOR
from .records import LINE

WORD, INT32, BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)


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

    lanes = None  # of a vector: LLVM chooses

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
        if self.narrow:
            return self.narrow.to_single(self._context, builder, raw)
        return self._context.data_model_manager[self.computes].from_data(builder, raw)

    def store(self, builder, value, place, group=None):
        if self.narrow:
            raw = self.narrow.from_single(self._context, builder, value)
        else:
            raw = self._context.data_model_manager[self.computes].as_data(builder, value)
        instruction = builder.store(raw, builder.bitcast(place, self.stored.as_pointer()), align=1)
        if group:
            instruction.set_metadata("llvm.access.group", group)


class _Pair:
    """Two neighbouring elements of bfloat16, read, computed and written as one word.

    Words need neither unpacking nor packing, for which processors have few units. Time over torch's of relu and
    relu_backward of 100,000 elements: 0.88 and 1.07 an element at a time; 0.78 and 1.07 in pairs with vectors as LLVM
    chooses them, since it then computes both halves in one vector and shuffles; 0.59 and 0.83 so (two-core Intel Xeon
    with AMX, 2026-11-21).
    """

    narrow, size = bfloat16, 4
    lanes = LINE // size

    def load(self, builder, place, group):
        word = builder.load(builder.bitcast(place, INT32.as_pointer()), align=1)
        word.set_metadata("llvm.access.group", group)
        return bfloat16.pair_to_singles(builder, word)

    def store(self, builder, values, place, group):
        word = bfloat16.pair_from_singles(builder, values)
        instruction = builder.store(word, builder.bitcast(place, INT32.as_pointer()), align=1)
        instruction.set_metadata("llvm.access.group", group)


def _on_pairs(formula):
    """Return a formula that computes twice, with what is no pair, as a slope, taking part in both."""

    def both(builder, values):
        return [formula(builder, [v[k] if isinstance(v, tuple) else v for v in values]) for k in range(2)]

    return both


def hint(module, name, *values):
    """Return metadata that tells LLVM how to treat a loop."""
    return module.add_metadata([ir.MetaDataString(module, f"llvm.loop.{name}"), *values])


@contextlib.contextmanager
def counted(builder, n):
    """Emit ``for i in range(n)``; yield i and the name of the loop, whose operands are hints."""
    name = Distinct(builder.module)
    name.operands = (name,)
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
        results = results if outputs > 1 else [results]
        for element, result, place in zip(elements[-outputs:], results, places[-outputs:], strict=True):
            element.store(builder, result, place, group)
        if group:
            name.operands += (hint(module, "parallel_accesses", group),)
        lanes = n.constant if isinstance(n, ir.Constant) else elements[-1].lanes
        if lanes:
            name.operands += (hint(module, "vectorize.width", INT32(lanes)),)
        if isinstance(n, ir.Constant):
            # A streamed line is one vector, made before anything is unrolled: LLVM would unroll its lanes into
            # scalars. And of the width of the line: where LLVM prefers vectors of 32 bytes, as on Intel's AVX-512
            # processors, it put the line together in memory and waited for both stores: 1.2 times as long.
            name.operands += (hint(module, "unroll.disable"), hint(module, "interleave.count", INT32(1)))


def _streaming_loop(builder, element, formula, operands, steps, n):
    """Emit the loop a cache line at a time, each line written past the caches.

    LLVM vectorises a loop with non-temporal stores only where it knows the vectors to be aligned, so a line is
    computed into a buffer, which LLVM turns into registers, and stored whole. (Computing blocks of 4 KiB into the
    L1 cache and streaming those needed no loop of its own, but took 1.09 to 1.14 times as long: reads wait while
    a block is written.) The caller gives an aligned output and whole lines.
    """
    buffer = line_buffer(builder)
    lanes = WORD(LINE // element.size)
    lines = builder.sdiv(n, lanes)
    with counted(builder, lines) as (index, name):
        start = builder.mul(index, WORD(LINE))
        here = [op if step is None else builder.gep(op, [start]) for op, step in zip(operands, steps, strict=True)]
        elements = [element] * len(steps)
        loop(builder, elements, formula, [*here[:-1], buffer], steps, lanes, independent=True)
        store_line(builder, element, buffer, here[-1], streamed=True)
        # Not unrolled: with nothing between two lines but their load and store, an Intel Xeon with AMX took 1.4 times
        # as long, for an array far larger than its caches, in this loop and in C alike; four nops cured it too
        name.operands += (hint(builder.module, "unroll.disable"),)


def read_word(builder, array, k):
    """Return word k of an array of words."""
    return builder.load(builder.gep(builder.inttoptr(array, WORD.as_pointer()), [WORD(k)]))


def compiled(context, formula, result, *arguments):
    """Return a function that emits a formula for operands of these types."""
    function, kind = getattr(_formulas, formula).__wrapped__, signature(result, *arguments)
    return lambda builder, values: context.compile_internal(builder, function, kind, values)


def all_of(builder, conditions):
    """Return whether all conditions hold, of which there may be none."""
    return functools.reduce(builder.and_, conditions, ir.Constant(ir.IntType(1), 1))


def to_first_line(builder, element, out, n, wanted):
    """Return whether to stream, as wanted, and how many of n elements come before the first whole line of an output.

    None, if they are not streamed; and elements that straddle lines are not.
    """
    ahead, unit = builder.and_(builder.neg(builder.ptrtoint(out, WORD)), WORD(LINE - 1)), WORD(element.size)
    streamed = builder.and_(wanted, builder.icmp_unsigned("==", builder.urem(ahead, unit), WORD(0)))
    head = builder.select(streamed, builder.udiv(ahead, unit), WORD(0))
    return streamed, builder.select(builder.icmp_signed("<", head, n), head, n)


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
        store.set_metadata("nontemporal", builder.module.add_metadata([INT32(1)]))


def _opaque(builder, value):
    """Return a line as a vector of floats whose origin LLVM's optimiser does not see."""
    kind = ir.VectorType(ir.FloatType(), LINE // 4)
    fence = ir.FunctionType(kind, [kind])
    function = cgutils.get_or_insert_function(builder.module, fence, "llvm.arithmetic.fence.v16f32")
    return builder.bitcast(builder.call(function, [builder.bitcast(value, kind)]), value.type)


def _emit(context, builder, pointers, n, strides, streaming, *, name, dtype):
    """Emit the kernel's body: load the operands' addresses and strides, choose a loop, run it."""
    element = Element(context, dtype)
    names = OPERATIONS[name]
    elements = [element] * (len(names) + 1)
    data = [k for k, operand in enumerate(names) if operand in DATA] + [len(names)]
    parameters = [k for k, operand in enumerate(names) if operand not in DATA]
    formula = compiled(context, name, element.computes, *[element.computes] * len(names))
    addresses = [read_word(builder, pointers, k) for k in range(len(names) + 1)]
    operands = [builder.inttoptr(address, BYTE.as_pointer()) for address in addresses]
    steps = [read_word(builder, strides, k) for k in range(len(names) + 1)]
    unit = WORD(element.size)

    def overlaps(k):
        """Input k and the output share memory without being the same array."""
        length = builder.mul(n, unit)
        apart = builder.sub(addresses[-1], addresses[k])
        # unsigned: a negative distance is a huge one
        after = builder.icmp_unsigned("<", builder.sub(apart, WORD(1)), builder.sub(length, WORD(1)))
        before = builder.icmp_unsigned("<", builder.sub(builder.neg(apart), WORD(1)), builder.sub(length, WORD(1)))
        return builder.or_(after, before)

    def contiguous(which):
        return [builder.icmp_signed("==", steps[k], unit) for k in which] + [
            builder.not_(overlaps(k)) for k in which[:-1]
        ]

    def scalar(which):
        return [builder.icmp_signed("==", steps[k], WORD(0)) for k in which]

    def simd(values, units):
        run = element, formula, values, units, n
        if element.narrow is bfloat16:
            steps = [None if step is None else WORD(_Pair.size) for step in units]
            run = _Pair(), _on_pairs(formula), values, steps, builder.lshr(n, WORD(1))
        with builder.if_else(builder.icmp_signed("!=", streaming, WORD(0))) as (past_caches, plain):
            with past_caches:
                _streaming_loop(builder, *run)
            with plain:
                loop(builder, [run[0]] * len(units), *run[1:], independent=True)
                if element.narrow is bfloat16:
                    odd = builder.and_(n, WORD(1))
                    last = builder.mul(builder.sub(n, odd), unit)
                    ends = [v if s is None else builder.gep(v, [last]) for v, s in zip(values, units, strict=True)]
                    loop(builder, elements, formula, ends, units, odd, independent=False)

    with builder.if_else(all_of(builder, contiguous(data) + scalar(parameters))) as (fast, rest):
        with fast:
            values = [element.load(builder, op) if k in parameters else op for k, op in enumerate(operands)]
            simd(values, [None if k in parameters else unit for k in range(len(values))])
        with rest:
            if not parameters:
                loop(builder, elements, formula, operands, steps, n, independent=False)
            else:
                with builder.if_else(all_of(builder, contiguous([*range(len(operands))]))) as (all_arrays, in_order):
                    with all_arrays:
                        simd(operands, [unit] * len(operands))
                    with in_order:
                        loop(builder, elements, formula, operands, steps, n, independent=False)


def build(name: str, dtype: np.dtype) -> code_cache.Compiled:
    """Return the kernel of an operation for a type, compiled or loaded from the cache."""
    return compile_kernel(f"{name}-{dtype.name}", functools.partial(_emit, name=name, dtype=dtype))


def compile_kernel(name: str, emit: Callable[..., None]) -> code_cache.Compiled:
    """Return ``kernel(pointers, n, strides, streaming)`` with a body that a function emits."""

    @intrinsic
    def run(typing_context, pointers, n, strides, streaming):
        def generate(context, builder, signature, arguments):
            emit(context, builder, *arguments)
            return context.get_dummy_value()

        return types.void(pointers, n, strides, streaming), generate

    def kernel(pointers, n, strides, streaming):
        run(pointers, n, strides, streaming)
        return 0

    word = types.intp
    return code_cache.compile_cfunc(name, kernel, word(*[word] * 4))
