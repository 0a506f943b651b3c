"""Numba intrinsics for what Python cannot say: raw memory, calls by address, streaming stores, flags.

Addresses are plain integers everywhere, so that compiled signatures stay trivial and cacheable.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from . import processor
from .processor import WORD
from .records import LINE


def _pointer(builder, address, to=WORD):
    return builder.inttoptr(address, to.as_pointer())


@intrinsic
def peek(typing_context, address, k):
    """Return word ``k`` of the array of words at an address."""

    def generate(context, builder, signature, arguments):
        address, k = arguments
        return builder.load(builder.gep(_pointer(builder, address), [k]))

    return types.intp(types.intp, types.intp), generate


@intrinsic
def poke(typing_context, address, k, value):
    """Set word ``k`` of the array of words at an address."""

    def generate(context, builder, signature, arguments):
        address, k, value = arguments
        builder.store(value, builder.gep(_pointer(builder, address), [k]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic(prefer_literal=True)
def stack(typing_context, words):
    """Return the address of so many words on the stack, aligned to a cache line; a literal, like an array size."""
    if not isinstance(words, types.IntegerLiteral):
        return None
    count = words.literal_value

    def generate(context, builder, signature, arguments):
        with builder.goto_entry_block():
            place = builder.alloca(WORD, size=WORD(count))
            place.align = LINE
        return builder.ptrtoint(place, WORD)

    return types.intp(words), generate


def _caller(count):
    """Return an intrinsic that calls a function of so many words by its address."""

    def generate(context, builder, signature, arguments):
        function = ir.FunctionType(WORD, [WORD] * count)
        return builder.call(_pointer(builder, arguments[0], function), arguments[1:])

    return types.intp(*[types.intp] * (count + 1)), generate


@intrinsic
def call0(typing_context, function):
    return _caller(0)


@intrinsic
def call1(typing_context, function, a):
    return _caller(1)


@intrinsic
def call2(typing_context, function, a, b):
    return _caller(2)


@intrinsic
def call3(typing_context, function, a, b, c):
    return _caller(3)


@intrinsic
def call4(typing_context, function, a, b, c, d):
    return _caller(4)


@intrinsic
def take(typing_context, address):
    """Turn the word at an address from 0 to 1, atomically; return whether this caller did it."""

    def generate(context, builder, signature, arguments):
        place = _pointer(builder, arguments[0])
        result = builder.cmpxchg(place, WORD(0), WORD(1), ordering="acq_rel", failordering="monotonic")
        return builder.extract_value(result, 1)

    return types.boolean(types.intp), generate


@intrinsic
def release(typing_context, address):
    """Set the word at an address back to 0, atomically."""

    def generate(context, builder, signature, arguments):
        builder.store_atomic(WORD(0), _pointer(builder, arguments[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp), generate


def _triple(context) -> str:
    """Return LLVM's name for the platform that is compiled for."""
    return context.codegen().magic_tuple()[0]


@intrinsic
def ticks(typing_context):
    """Return a time in cycles of a steady clock; 0 on processors where reading one is a privilege."""

    def generate(context, builder, signature, arguments):
        if not processor.is_x86(_triple(context)):
            return WORD(0)
        counter = ir.FunctionType(WORD, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, counter, "llvm.readcyclecounter"), [])

    return types.intp(), generate


@intrinsic
def stream_fence(typing_context):
    """Order streaming stores before all later stores. Only x86 has weakly ordered ones; LLVM's own fences skip them."""

    def generate(context, builder, signature, arguments):
        if processor.is_x86(_triple(context)):
            processor.call_llvm(builder, "llvm.x86.sse.sfence")
        return context.get_dummy_value()

    return types.void(), generate


# NumPy reads the processor's floating-point flags after each loop and warns of what it finds. A vector comparison
# with NaN sets "invalid", and multiplying may set "overflow". So each loop puts the flags back as it found them.
# Reading takes a few cycles and writing tens, so that they are written only where they differ: a `where=` of runs
# of two elements calls a loop per run. Clearing with `feclearexcept` alone made such a call 3.5 times slower, and
# would drop flags that the caller had raised.


@intrinsic
def read_flags(typing_context):
    """Return the floating-point status word of this thread (0 on processors whose register we do not know)."""

    def generate(context, builder, signature, arguments):
        return processor.read_flags(builder, _triple(context))

    return types.intp(), generate


@intrinsic
def write_flags(typing_context, flags):
    """Set the floating-point status word of this thread."""

    def generate(context, builder, signature, arguments):
        processor.write_flags(builder, _triple(context), *arguments)
        return context.get_dummy_value()

    return types.void(types.intp), generate
