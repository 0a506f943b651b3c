"""Calls of our Python functions out of sight of torch.compile.

It replaces the frames of all Python functions that run inside of it by code of its own, in which NumPy's arrays are
tensors. Where it did so to ours, native code got the addresses of copies that were gone by then (seen: SIGSEGV in
`count_active`, torch 2.13). `torch.compiler.disable` keeps it away, by two calls of a function that sets a thread's
hook; but it is a wrapper in Python, and to have it torch must be imported. So native code makes those two calls.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir

from .native import FASTCALL_KEYWORDS, VOID, WORD, MethodDef, keep, new_function, python_function

F = TypeVar("F", bound=Callable[..., Any])

#: Where the hook is set, once torch is imported.
_MODULE, _SETTER = sys.intern("torch._C._dynamo.eval_frame"), sys.intern("set_eval_frame")
keep((_MODULE, _SETTER))


def emit(module: ir.Module) -> None:
    """Add the function "aside" to a module: PyObject_Vectorcall, without the hook while the call runs."""
    function = ir.Function(module, ir.FunctionType(WORD, [WORD] * 4), "aside")
    builder = ir.IRBuilder(function.append_basic_block("start"))
    plain, hooked, failed, ready, hidden, done = map(
        function.append_basic_block, ("plain", "hooked", "failed", "ready", "hidden", "done")
    )
    error = [builder.alloca(WORD) for _ in range(3)]
    places = [builder.ptrtoint(each, WORD) for each in error]

    def is_null(value: ir.Value) -> ir.Value:
        return builder.icmp_unsigned("==", value, WORD(0))

    modules = python_function(builder, "PyImport_GetModuleDict", WORD)
    torch = python_function(builder, "PyDict_GetItem", WORD, modules, WORD(id(_MODULE)))
    builder.cbranch(is_null(torch), plain, hooked)

    builder.position_at_end(hooked)
    setter = python_function(builder, "PyObject_GetAttr", WORD, torch, WORD(id(_SETTER)))
    with builder.if_then(is_null(setter)):
        builder.ret(WORD(0))
    before = python_function(builder, "PyObject_CallOneArg", WORD, setter, WORD(id(None)))
    builder.cbranch(is_null(before), failed, ready)
    builder.position_at_end(failed)
    python_function(builder, "Py_DecRef", VOID, setter)
    builder.ret(WORD(0))
    builder.position_at_end(ready)
    nothing = builder.icmp_unsigned("==", before, WORD(id(None)))
    with builder.if_then(nothing):
        for each in (before, setter):
            python_function(builder, "Py_DecRef", VOID, each)
    builder.cbranch(nothing, plain, hidden)

    builder.position_at_end(hidden)
    result = python_function(builder, "PyObject_Vectorcall", WORD, *function.args)
    python_function(builder, "PyErr_Fetch", VOID, *places)
    after = python_function(builder, "PyObject_CallOneArg", WORD, setter, before)
    with builder.if_then(is_null(after)):
        python_function(builder, "PyErr_WriteUnraisable", VOID, setter)
    for each in (after, before, setter):
        python_function(builder, "Py_DecRef", VOID, each)  # of a null pointer, that is nothing
    python_function(builder, "PyErr_Restore", VOID, *(builder.load(each) for each in error))
    builder.branch(done)
    builder.position_at_end(done)
    builder.ret(result)

    builder.position_at_end(plain)
    builder.ret(python_function(builder, "PyObject_Vectorcall", WORD, *function.args))


def call_one(builder: ir.IRBuilder, function: Callable[..., Any], argument: ir.Value) -> ir.Value:
    """Call a Python function of one argument from native code, in a module that has "aside"."""
    with builder.goto_entry_block():
        place = builder.alloca(WORD)
    builder.store(argument, place)
    aside = builder.module.globals["aside"]
    return builder.call(aside, [WORD(id(function)), builder.ptrtoint(place, WORD), WORD(1), WORD(0)])


def hide(address: int, function: F) -> F:
    """Return a function that calls another one through "aside", which is at an address."""
    method = MethodDef(function.__name__.encode(), address, FASTCALL_KEYWORDS, None)
    keep((method, function))
    hidden: F = new_function(ctypes.byref(method), id(function), "fastrelu")
    return hidden
