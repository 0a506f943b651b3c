"""Calls of our Python functions out of sight of torch.compile.

It replaces the frames of all Python functions that run inside of it by code of its own, in which NumPy's arrays are
tensors. Where it did so to ours, native code got the addresses of copies that were gone by then (seen: SIGSEGV in
`count_active`, torch 2.13). `torch.compiler.disable` keeps it away, by two calls of a function that sets a thread's
hook; but it is a wrapper in Python, and to have it torch must be imported. So native code makes those two calls.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir

from .native import VOID, WORD, Builder, keep, python_function

F = TypeVar("F", bound=Callable[..., Any])

#: Where the hook is set, once torch is imported.
_MODULE, _SETTER = sys.intern("torch._C._dynamo.eval_frame"), sys.intern("set_eval_frame")
keep((_MODULE, _SETTER))


def emit(module: ir.Module) -> None:
    """Add the function "aside" to a module: PyObject_Vectorcall, without the hook while the call runs."""
    builder = Builder(module, "aside")
    error = [builder.alloca(WORD) for _ in range(3)]
    places = [builder.ptrtoint(each, WORD) for each in error]

    def call() -> ir.Value:
        return builder.python("PyObject_Vectorcall", *builder.function.args)

    torch = builder.python("PyDict_GetItem", builder.python("PyImport_GetModuleDict"), id(_MODULE))
    with builder.if_then(builder.icmp_unsigned("!=", torch, WORD(0))):
        setter = builder.python("PyObject_GetAttr", torch, id(_SETTER))
        with builder.if_then(builder.equal(setter, 0)):
            builder.ret(WORD(0))
        before = builder.python("PyObject_CallOneArg", setter, id(None))
        with builder.if_then(builder.equal(before, 0)):
            builder.drop(setter)
            builder.ret(WORD(0))
        with builder.if_then(builder.icmp_unsigned("!=", before, WORD(id(None)))):
            result = call()
            builder.python("PyErr_Fetch", *places, result=VOID)
            after = builder.python("PyObject_CallOneArg", setter, before)
            with builder.if_then(builder.equal(after, 0)):
                builder.python("PyErr_WriteUnraisable", setter, result=VOID)
            builder.drop(after, before, setter)
            builder.python("PyErr_Restore", *map(builder.load, error), result=VOID)
            builder.ret(result)
        builder.drop(before, setter)
    builder.ret(call())


def call_one(builder: Builder, function: Callable[..., Any], argument: ir.Value) -> ir.Value:
    """Call a Python function of one argument from native code, in a module that has "aside"."""
    with builder.goto_entry_block():
        place = builder.alloca(WORD)
    builder.store(argument, place)
    aside = builder.module.globals["aside"]
    return builder.call(aside, [WORD(id(function)), builder.ptrtoint(place, WORD), WORD(1), WORD(0)])


def hide(address: int, function: F) -> F:
    """Return a function that calls another one through "aside", which is at an address."""
    hidden: F = python_function(function.__name__, address, first=function)
    return hidden
