"""Numba intrinsics for what Python cannot say: records in memory, calls by address, streaming stores, flags.

A record is a pointer to Numba, and its fields are attributes; a row of words is a pointer to integers, with ``[k]``.
Both were tried as arrays: `carray`, and rows as nested arrays, take 190 ms to compile.
"""

import ctypes
import functools

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from . import processor, records
from .processor import BYTE, WORD
from .records import LINE


def _kind(structure):
    # NumPy sees only what the last class adds
    fields = [field for each in reversed(structure.__mro__) for field in vars(each).get("_fields_", ())]
    return from_dtype(np.dtype(type(structure.__name__, (ctypes.Structure,), {"_fields_": fields})))


SLOT, TABLE, RECYCLER = map(_kind, (records.Slot, records.Table, records.Recycler))
_FORCE, JOB = _kind(records.Force), _kind(records.job_with(2))
WORDS = types.CPointer(types.int64)  # type: ignore[attr-defined]


def _at(kind):
    """Return an intrinsic that takes an address for that of a record."""

    @intrinsic
    def at(typing_context, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(types.intp), generate

    return at


table_at, force_at, job_at = _at(TABLE), _at(_FORCE), _at(JOB)


def _on_stack(context, builder, nbytes, kind):
    """Return new memory on the stack, aligned to a cache line, as a pointer."""
    with builder.goto_entry_block():
        place = builder.alloca(ir.ArrayType(BYTE, nbytes))
        place.align = LINE
    return builder.bitcast(place, context.get_value_type(kind))


@intrinsic
def new_job(typing_context):
    """Return a job of two axes on the stack."""

    def generate(context, builder, signature, arguments):
        return _on_stack(context, builder, JOB.size, JOB)

    return JOB(), generate


@intrinsic(prefer_literal=True)
def new_words(typing_context, count):
    """Return so many words on the stack; a literal, like an array size."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):
        return _on_stack(context, builder, 8 * count.literal_value, WORDS)

    return WORDS(count), generate


def _field(context, builder, record, offset, kind):
    """Return a pointer to what is so many bytes, a number or a value, behind the beginning of a record."""
    place = builder.gep(builder.bitcast(record, BYTE.as_pointer()), [offset])
    return builder.bitcast(place, context.get_value_type(kind))


@intrinsic(prefer_literal=True)
def words_of(typing_context, record, name):
    """Return a field of words, or a single one, as a pointer."""
    if not isinstance(name, types.StringLiteral):
        return None
    offset = WORD(record.offset(name.literal_value))

    def generate(context, builder, signature, arguments):
        return _field(context, builder, arguments[0], offset, WORDS)

    return WORDS(record, name), generate


@intrinsic(prefer_literal=True)
def item(typing_context, record, name, k):
    """Return record ``k`` of a field of records."""
    if not isinstance(name, types.StringLiteral):
        return None
    first, kind = record.offset(name.literal_value), record.typeof(name.literal_value).dtype

    def generate(context, builder, signature, arguments):
        offset = builder.add(builder.mul(arguments[2], WORD(kind.size)), WORD(first))
        return _field(context, builder, arguments[0], offset, kind)

    return kind(record, name, types.intp), generate


@intrinsic
def call(typing_context, function, *arguments):
    """Call a function by its address, with integers, and the addresses of records and words."""
    kinds = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], types.BaseTuple) else arguments

    def generate(context, builder, signature, arguments):
        function, values = arguments[0], cgutils.unpack_tuple(builder, arguments[1])
        words = [
            builder.ptrtoint(value, WORD)
            if isinstance(value.type, ir.PointerType)
            else context.cast(builder, value, kind, types.intp)
            for value, kind in zip(values, kinds, strict=True)
        ]
        kind = ir.FunctionType(WORD, [WORD] * len(words))
        return builder.call(builder.inttoptr(function, kind.as_pointer()), words)

    return types.intp(types.intp, types.StarArgTuple.from_types(kinds)), generate


def _emitted(signature):
    """Make an intrinsic of a function that emits it, whose first parameter is the builder."""

    def decorate(emit):
        @functools.wraps(emit)
        def define(typing_context, *arguments):
            def generate(context, builder, signature, values):
                return emit(builder, *values) or context.get_dummy_value()

            return signature, generate

        return intrinsic(define)

    return decorate


@_emitted(types.boolean(WORDS))
def take(builder, word):
    """Turn a word from 0 to 1, atomically; return whether this caller did it."""
    result = builder.cmpxchg(word, WORD(0), WORD(1), ordering="acq_rel", failordering="monotonic")
    return builder.extract_value(result, 1)


@_emitted(types.void(WORDS))
def release(builder, word):
    """Set a word back to 0, atomically."""
    builder.store_atomic(WORD(0), word, "release", 8)


@_emitted(types.intp())
def ticks(builder):
    """Return a time in cycles of a steady clock; 0 on processors where reading one is a privilege."""
    if not processor.is_x86(builder.module.triple):
        return WORD(0)
    counter = ir.FunctionType(WORD, [])
    return builder.call(cgutils.get_or_insert_function(builder.module, counter, "llvm.readcyclecounter"), [])


@_emitted(types.void())
def stream_fence(builder):
    """Order streaming stores before all later stores. Only x86 has weakly ordered ones; LLVM's own fences skip them."""
    if processor.is_x86(builder.module.triple):
        processor.call_llvm(builder, "llvm.x86.sse.sfence")


# NumPy reads the processor's floating-point flags after each loop and warns of what it finds. A vector comparison
# with NaN sets "invalid", and multiplying may set "overflow". So each loop puts the flags back as it found them.
# Reading takes a few cycles and writing tens, so that they are written only where they differ: a `where=` of runs
# of two elements calls a loop per run. Clearing with `feclearexcept` alone made such a call 3.5 times slower, and
# would drop flags that the caller had raised.
read_flags = _emitted(types.intp())(processor.read_flags)
write_flags = _emitted(types.void(types.intp))(processor.write_flags)
