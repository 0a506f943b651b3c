"""The front door of the public functions: native code for the commonest calls, Python for all others.

A call like ``relu(x)`` or ``relu(x, out=y)`` on ordinary contiguous arrays needs no decision that the loop does
not make itself, yet a Python function with the contract's signature took 165 ns to find that out, as long as
the ufunc call behind it (154 ns; NumPy 2.4, Python 3.11, two-core AMD EPYC 9005, `bench/test_calls.py`, 2026-11). This
one takes less than 20.

What it recognises: ``x`` (and ``grad``), all exact `numpy.ndarray` of one same native float type, bfloat16 too where
it is installed, and contiguous in one same order, C or Fortran; parameters left at their defaults, or the first of them
an ordinary `float`; at most one keyword, ``out``, an array of that kind too. It then calls the raw ufunc.
Everything else, and what the ufunc refuses, goes to the Python function with the arguments untouched.
"""

import ctypes
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir

from .._kernels.records import Recycler
from .._operations import FLOATS, FUNCTIONS
from .dtypes import BFLOAT16
from .native import INT, VOID, WORD, Builder, keep, numpy_functions, python_function
from .tuning import settings

DOUBLE = ir.DoubleType()

F = TypeVar("F", bound=Callable[..., Any])

# Where CPython and NumPy keep what is read here; both are part of their binary interfaces.
_HEAD = object.__basicsize__  # 16 bytes, 32 in a free-threaded Python
_TYPE = _HEAD - 8
_NDIM, _SHAPE, _DESCR, _FLAGS = _HEAD + 8, _HEAD + 16, _HEAD + 40, _HEAD + 48
_TUPLE_SIZE, _TUPLE_ITEMS = _HEAD, tuple.__basicsize__
_CONTIGUOUS = 0x0001 | 0x0002  # NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS
_ALIGNED = 0x0100  # NPY_ARRAY_ALIGNED
_MULTIPLY_LIST = 158  # PyArray_MultiplyList's place in NumPy's C API

#: 1 while the automatic choice is in force; `configure(target=...)` clears it, and all calls take the Python way.
enabled = np.array([settings.target is None], dtype=np.int64)


_TYPES = [np.dtype(code) for code in FLOATS] + ([] if BFLOAT16 is None else [BFLOAT16])
_PARAMETERS = 2  # of a function at most
_OUT = sys.intern("out")  # the very string that the compiler puts into callers' keyword names
keep(enabled, _OUT, *_TYPES)


class _About(ctypes.Structure):
    """What the native code knows of a function."""

    _fields_ = (
        ("data", ctypes.c_int64), ("parameters", ctypes.c_int64),  # how many
        ("in_place", ctypes.c_int64), ("ufunc", ctypes.c_int64), ("python", ctypes.c_int64),
        ("defaults", ctypes.c_int64 * _PARAMETERS * len(_TYPES)),
    )  # fmt: skip


_about = {name: _About() for name, row in FUNCTIONS.items() if row.is_ufunc}
keep(*_about.values())


def emit(module: ir.Module) -> None:
    """Add a function "front_<name>" to a module for each public function."""
    front = _emit_front(module)
    for name, about in _about.items():
        builder = Builder(module, f"front_{name}")
        arguments = [WORD(ctypes.addressof(about)), *builder.function.args[1:]]
        builder.ret(builder.call(front, arguments, tail=True))


def _emit_front(module: ir.Module) -> ir.Function:
    builder = Builder(module, "front")
    builder.function.linkage = "internal"
    about, arguments, given, keywords = builder.function.args
    read, equal = builder.read, builder.equal
    python = builder.append_basic_block("python")
    operands = builder.alloca(WORD, size=WORD(8))
    count, made, orders = builder.alloca(WORD), builder.alloca(WORD), builder.alloca(INT)
    builder.store(WORD(0), count)
    builder.store(WORD(0), made)
    builder.store(INT(_CONTIGUOUS), orders)

    def require(condition: ir.Value) -> None:
        fine = builder.append_basic_block()
        builder.cbranch(condition, fine, python)
        builder.position_at_end(fine)

    def argument(k: ir.Value) -> ir.Value:
        return read(arguments, builder.mul(k, WORD(8)))

    def append(value: ir.Value) -> None:
        k = builder.load(count)
        builder.store(value, builder.gep(operands, [k]))
        builder.store(builder.add(k, WORD(1)), count)

    def require_plain_array(array: ir.Value) -> ir.Value:
        require(equal(read(array, _TYPE), id(np.ndarray)))
        flags = read(array, _FLAGS, INT)
        require(equal(builder.and_(flags, INT(_ALIGNED)), _ALIGNED))
        common = builder.and_(builder.load(orders), flags)
        require(builder.icmp_unsigned("!=", common, INT(0)))
        builder.store(common, orders)
        return read(array, _DESCR)

    data, parameters, in_place, ufunc, fallback = (
        read(about, getattr(_About, name).offset) for name in ("data", "parameters", "in_place", "ufunc", "python")
    )
    require(equal(read(enabled.ctypes.data), 1))
    require(builder.icmp_unsigned(">=", given, data))

    first = argument(WORD(0))
    descr = require_plain_array(first)
    append(first)
    with builder.if_then(equal(data, 2)):
        second = argument(WORD(1))
        require(equal(require_plain_array(second), descr))
        append(second)

    # A float within float16's normal range, which NumPy converts to any of the types without a warning. It is the
    # first parameter, and as the default of `at_zero` is the slope, also the second where there is one.
    explicit = builder.icmp_unsigned("!=", given, data)
    with builder.if_then(explicit):
        require(equal(given, builder.add(data, WORD(1))))
        require(builder.icmp_unsigned("!=", parameters, WORD(0)))
        number = argument(data)
        require(equal(read(number, _TYPE), id(float)))
        value = read(number, _HEAD, DOUBLE)
        size = builder.select(builder.fcmp_ordered("<", value, DOUBLE(0)), builder.fneg(value), value)
        above = builder.fcmp_ordered(">=", size, DOUBLE(2.0**-14))
        normal = builder.and_(above, builder.fcmp_ordered("<=", size, DOUBLE(65504.0)))
        require(builder.or_(normal, builder.fcmp_ordered("==", size, DOUBLE(0))))
    # Which type it is, also where no parameter depends on it: byte-swapped and integer data go the other way
    kind = WORD(len(_TYPES))
    for k, dtype in enumerate(_TYPES):
        kind = builder.select(equal(descr, id(dtype)), WORD(k), kind)
    require(builder.icmp_unsigned("<", kind, WORD(len(_TYPES))))
    for k in range(_PARAMETERS):
        with builder.if_then(builder.icmp_unsigned(">", parameters, WORD(k))):
            place = builder.mul(builder.add(builder.mul(kind, WORD(_PARAMETERS)), WORD(k)), WORD(8))
            default = read(about, builder.add(place, WORD(_About.defaults.offset)))
            append(builder.select(explicit, argument(builder.select(explicit, data, WORD(0))), default))

    with builder.if_else(equal(in_place, 0)) as (new, over):
        with new, builder.if_else(equal(keywords, 0)) as (without, with_output):
            with without:
                # A large new output is for `allocation` to make
                itemsize = WORD(0)
                for k, dtype in enumerate(_TYPES):
                    itemsize = builder.select(equal(kind, k), WORD(dtype.itemsize), itemsize)
                shape, ndim = read(first, _SHAPE), read(first, _NDIM, INT)
                size = builder.mul(builder.call_at(numpy_functions[_MULTIPLY_LIST], shape, ndim), itemsize)
                smallest = read(ctypes.addressof(settings.recycler), Recycler.smallest.offset)
                require(builder.icmp_signed("<", size, smallest))
            with with_output:
                require(equal(read(keywords, _TUPLE_SIZE), 1))
                require(equal(read(keywords, _TUPLE_ITEMS), id(_OUT)))
                output = argument(given)
                require(equal(require_plain_array(output), descr))
                append(output)
        with over:
            require(equal(keywords, 0))
            append(first)
    vector = builder.ptrtoint(operands, WORD)
    if BFLOAT16 is not None:  # whose scalars NumPy does not make of a float by itself
        with builder.if_then(builder.and_(equal(descr, id(BFLOAT16)), explicit)):
            number = argument(data)
            scalar = builder.python("PyObject_CallOneArg", id(BFLOAT16.type), number)
            with builder.if_then(equal(scalar, 0)):
                builder.ret(WORD(0))
            builder.store(scalar, made)
            last = builder.sub(builder.add(data, parameters), WORD(1))
            for k in (data, last):  # the first parameter and the last, which may be one
                builder.store(scalar, builder.gep(operands, [k]))
    result = builder.python("PyObject_Vectorcall", ufunc, vector, builder.load(count), 0)
    builder.drop(builder.load(made))
    with builder.if_then(builder.icmp_unsigned("!=", result, WORD(0))):
        builder.ret(result)

    # What NumPy refuses, Python is to refuse, in words that name the argument. Nothing has been written
    refused = [
        builder.icmp_signed("!=", builder.python("PyErr_ExceptionMatches", id(kind), result=INT), INT(0))
        for kind in (TypeError, ValueError)
    ]
    with builder.if_then(builder.not_(builder.or_(*refused))):
        builder.ret(WORD(0))
    builder.python("PyErr_Clear", result=VOID)
    builder.branch(python)

    builder.position_at_end(python)
    builder.ret(builder.python("PyObject_Vectorcall", fallback, arguments, given, keywords))
    return builder.function


def _layout_holds() -> bool:
    """Check the offsets on an array and a tuple of this process, rather than trust them."""
    array, pair, half = np.zeros(1), ("a", "b"), 0.5

    def read(thing: object, offset: int, kind: Any = ctypes.c_size_t) -> Any:
        return kind.from_address(id(thing) + offset).value

    return bool(
        read(array, _TYPE) == id(np.ndarray)
        and read(half, _HEAD, ctypes.c_double) == half
        and read(array, _NDIM, ctypes.c_int) == 1
        and ctypes.c_size_t.from_address(read(array, _SHAPE)).value == 1
        and read(array, _DESCR) == id(array.dtype)
        and read(array, _FLAGS, ctypes.c_int) & (_CONTIGUOUS | _ALIGNED) == _CONTIGUOUS | _ALIGNED
        and read(pair, _TUPLE_SIZE) == 2
        and read(pair, _TUPLE_ITEMS) == id(pair[0])
    )


def fast(function: F, address: int, ufunc: np.ufunc) -> F:
    """Return the native front at an address, which stands before a public function of an operation with a ufunc."""
    if not _layout_holds():
        return function
    name = function.__name__
    row = FUNCTIONS[name]
    about = _about[name]
    about.data, about.parameters, about.in_place = len(row.data), len(row.parameters), name != row.name
    about.ufunc, about.python = id(ufunc), id(function)
    for defaults, dtype in zip(about.defaults, _TYPES, strict=True):
        for k, parameter in enumerate(row.parameters):
            value = np.array(parameter.default, dtype)
            keep(value)
            defaults[k] = id(value)
    keep(function, ufunc)
    document = f"{name}{inspect.signature(function)}\n--\n\n{function.__doc__ or ''}".encode()
    front: F = python_function(name, address, document)
    return front
