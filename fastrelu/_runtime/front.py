"""The front door of the public functions: native code for the commonest calls, Python for all others.

A call like ``relu(x)`` or ``relu(x, out=y)`` on ordinary contiguous arrays needs no decision that the loop does
not make itself, yet a Python function with the contract's signature took 165 ns to find that out, as long as
the ufunc call behind it (154 ns; NumPy 2.4, Python 3.11, two-core AMD EPYC 9005, `bench/calls.py`, 2026-11). This
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
from .._operations import FLOATS, FUNCTIONS, UFUNCS
from .dtypes import BFLOAT16
from .native import (
    FASTCALL_KEYWORDS,
    INT,
    VOID,
    WORD,
    MethodDef,
    call,
    keep,
    new_function,
    numpy_functions,
    python_function,
)
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


# What the native code knows of a function: an array of words.
_NDATA, _NOPERANDS, _IN_PLACE, _UFUNC, _PYTHON, _DEFAULTS = range(6)
_PARAMETERS = 2  # words per type in the defaults
_TYPES = [np.dtype(code) for code in FLOATS] + ([] if BFLOAT16 is None else [BFLOAT16])
_about = {
    name: np.zeros(_DEFAULTS + _PARAMETERS * len(_TYPES), dtype=np.int64)
    for row in UFUNCS.values()
    for name in (row.name, row.twin)
}
_OUT = sys.intern("out")  # the very string that the compiler puts into callers' keyword names
keep(enabled, _OUT, *_TYPES, *_about.values())


def emit(module: ir.Module) -> None:
    """Add a function "front_<name>" to a module for each public function."""
    front = _emit_front(module)
    for name, about in _about.items():
        function = ir.Function(module, ir.FunctionType(WORD, [WORD] * 4), f"front_{name}")
        builder = ir.IRBuilder(function.append_basic_block())
        builder.ret(builder.call(front, [WORD(about.ctypes.data), *function.args[1:]], tail=True))


def _emit_front(module: ir.Module) -> ir.Function:
    function = ir.Function(module, ir.FunctionType(WORD, [WORD] * 4), "front")
    function.linkage = "internal"
    about, arguments, given, keywords = function.args
    builder = ir.IRBuilder(function.append_basic_block("start"))
    python = function.append_basic_block("python")
    operands = builder.alloca(WORD, size=WORD(8))
    count, made, orders = builder.alloca(WORD), builder.alloca(WORD), builder.alloca(INT)
    builder.store(WORD(0), made)
    builder.store(INT(_CONTIGUOUS), orders)

    def read(address: ir.Value, offset: int | ir.Value, kind: ir.Type = WORD) -> ir.Value:
        offset = WORD(offset) if isinstance(offset, int) else offset
        return builder.load(builder.inttoptr(builder.add(address, offset), kind.as_pointer()))

    def require(condition: ir.Value) -> None:
        fine = function.append_basic_block()
        builder.cbranch(condition, fine, python)
        builder.position_at_end(fine)

    def equal(value: ir.Value, other: int | ir.Value) -> ir.Value:
        return builder.icmp_unsigned("==", value, value.type(other) if isinstance(other, int) else other)

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

    ndata, noperands, in_place, ufunc, fallback = (
        read(about, 8 * k) for k in (_NDATA, _NOPERANDS, _IN_PLACE, _UFUNC, _PYTHON)
    )
    builder.store(WORD(0), count)
    require(equal(read(WORD(enabled.ctypes.data), 0), 1))
    require(builder.icmp_unsigned(">=", given, ndata))

    first = argument(WORD(0))
    descr = require_plain_array(first)
    append(first)
    with builder.if_then(equal(ndata, 2)):
        second = argument(WORD(1))
        require(equal(require_plain_array(second), descr))
        append(second)

    # A float within float16's normal range, which NumPy converts to any of the types without a warning. It is the
    # first parameter, and as the default of `at_zero` is the slope, also the second where there is one.
    parameters = builder.sub(noperands, ndata)
    explicit = builder.icmp_unsigned("!=", given, ndata)
    with builder.if_then(explicit):
        require(equal(given, builder.add(ndata, WORD(1))))
        require(builder.icmp_unsigned("!=", parameters, WORD(0)))
        number = argument(ndata)
        require(equal(read(number, _TYPE), id(float)))
        value = read(number, _HEAD, DOUBLE)
        size = builder.select(builder.fcmp_ordered("<", value, DOUBLE(0)), builder.fneg(value), value)
        above = builder.fcmp_ordered(">=", size, DOUBLE(2.0**-14))
        normal = builder.and_(above, builder.fcmp_ordered("<=", size, DOUBLE(65504.0)))
        require(builder.or_(normal, builder.fcmp_ordered("==", size, DOUBLE(0))))
    # Which type it is, also where no parameter depends on it: byte-swapped and integer data go the other way
    kind, itemsize = WORD(len(_TYPES)), WORD(0)
    for k, dtype in enumerate(_TYPES):
        found = equal(descr, id(dtype))
        kind = builder.select(found, WORD(k), kind)
        itemsize = builder.select(found, WORD(dtype.itemsize), itemsize)
    require(builder.icmp_unsigned("<", kind, WORD(len(_TYPES))))
    for k in range(_PARAMETERS):
        with builder.if_then(builder.icmp_unsigned(">", parameters, WORD(k))):
            place = builder.mul(builder.add(builder.mul(kind, WORD(_PARAMETERS)), WORD(_DEFAULTS + k)), WORD(8))
            default = read(about, place)
            append(builder.select(explicit, argument(builder.select(explicit, ndata, WORD(0))), default))

    with builder.if_else(equal(in_place, 0)) as (new, over):
        with new, builder.if_else(equal(keywords, 0)) as (without, with_output):
            with without:
                # A large new output is for `allocation` to make
                size = call(
                    builder, numpy_functions[_MULTIPLY_LIST], WORD, read(first, _SHAPE), read(first, _NDIM, INT)
                )
                size = builder.mul(size, itemsize)
                smallest = WORD(ctypes.addressof(settings.recycler) + Recycler.smallest.offset)
                require(builder.icmp_signed("<", size, read(smallest, 0)))
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
            number = argument(ndata)
            scalar = python_function(builder, "PyObject_CallOneArg", WORD, WORD(id(BFLOAT16.type)), number)
            with builder.if_then(equal(scalar, 0)):
                builder.ret(WORD(0))
            builder.store(scalar, made)
            for k in (ndata, builder.sub(noperands, WORD(1))):  # the first parameter and the last, which may be one
                builder.store(scalar, builder.gep(operands, [k]))
    result = python_function(builder, "PyObject_Vectorcall", WORD, ufunc, vector, builder.load(count), WORD(0))
    with builder.if_then(builder.icmp_unsigned("!=", builder.load(made), WORD(0))):
        python_function(builder, "Py_DecRef", VOID, builder.load(made))
    fine, failed, told = (function.append_basic_block(name) for name in ("fine", "failed", "told"))
    builder.cbranch(equal(result, 0), failed, fine)
    builder.position_at_end(fine)
    builder.ret(result)

    # What NumPy refuses, Python is to refuse, in words that name the argument. Nothing has been written
    builder.position_at_end(failed)
    refused = [
        builder.icmp_signed("!=", python_function(builder, "PyErr_ExceptionMatches", INT, WORD(id(kind))), INT(0))
        for kind in (TypeError, ValueError)
    ]
    builder.cbranch(builder.or_(*refused), told, fine)
    builder.position_at_end(told)
    python_function(builder, "PyErr_Clear", VOID)
    builder.branch(python)

    builder.position_at_end(python)
    builder.ret(python_function(builder, "PyObject_Vectorcall", WORD, fallback, arguments, given, keywords))
    return function


def _layout_holds() -> bool:
    """Check the offsets on an array and a tuple of this process, rather than trust them."""
    array, pair, half = np.zeros(1), ("a", "b"), 0.5
    word = ctypes.c_size_t.from_address
    return (
        word(id(array) + _TYPE).value == id(np.ndarray)
        and ctypes.c_double.from_address(id(half) + _HEAD).value == half
        and ctypes.c_int.from_address(id(array) + _NDIM).value == 1
        and word(word(id(array) + _SHAPE).value).value == 1
        and word(id(array) + _DESCR).value == id(array.dtype)
        and ctypes.c_int.from_address(id(array) + _FLAGS).value & (_CONTIGUOUS | _ALIGNED) == _CONTIGUOUS | _ALIGNED
        and word(id(pair) + _TUPLE_SIZE).value == 2
        and word(id(pair) + _TUPLE_ITEMS).value == id(pair[0])
    )


def fast(function: F, address: int, ufunc: np.ufunc) -> F:
    """Return the native front at an address, which stands before a public function of an operation with a ufunc."""
    if not _layout_holds():
        return function
    name = function.__name__
    row = FUNCTIONS[name]
    about = _about[name]
    about[_NDATA], about[_NOPERANDS], about[_IN_PLACE] = len(row.data), len(row.operands), name != row.name
    about[_UFUNC], about[_PYTHON] = id(ufunc), id(function)
    for k, dtype in enumerate(_TYPES):
        values = [np.array(parameter.default, dtype) for parameter in row.parameters]
        place = _DEFAULTS + _PARAMETERS * k
        about[place : place + len(values)] = [id(value) for value in values]
        keep(values)
    document = f"{name}{inspect.signature(function)}\n--\n\n{function.__doc__ or ''}".encode()
    method = MethodDef(name.encode(), address, FASTCALL_KEYWORDS, document)
    keep((function, ufunc, method))
    front: F = new_function(ctypes.byref(method), None, "fastrelu")
    return front
