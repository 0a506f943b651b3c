"""Where large new outputs get their memory: from the recycler, a NumPy memory handler (NEP 49) around NumPy's own.

An array asks the handler that allocated its memory to free it, once its last view, memoryview, DLPack capsule or tensor
is gone. So what the recycler keeps nobody sees any more. Only `allocate` uses the handler; the user's arrays do not.
"""

import contextvars
import ctypes
import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from . import compiler, tuning
from .native import keep, numpy_functions, pointer, python_api

T = TypeVar("T")

NAME = b"fastrelu_recycler"
#: NumPy passes its address to the handler's functions.
recycler = tuning.settings.recycler


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler, version 1."""

    _fields_ = (
        ("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p), ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )  # fmt: skip


_capsule = python_api("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

# PyDataMem_SetHandler, PyDataMem_GetHandler and PyDataMem_DefaultHandler
_set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(numpy_functions[304])
_get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(numpy_functions[305])
_default = ctypes.py_object.from_address(numpy_functions[306]).value


def allocate(nbytes: int, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a NumPy function that allocates an array of so many bytes, of memory that was kept, if it may be used."""
    # A user may have an allocator of his own
    if nbytes < tuning.settings.recycled_from or _get_handler() is not _default:
        return function(*args, **kwargs)
    # In a context of its own there is nothing to restore, whatever happens
    return _recycling().copy().run(function, *args, **kwargs)


@functools.cache
def _recycling() -> contextvars.Context:
    """Return a context in which NumPy allocates by our handler."""
    handler = _Handler.from_buffer_copy(ctypes.string_at(pointer(_default, b"mem_handler"), ctypes.sizeof(_Handler)))
    # NumPy's own calloc and realloc stay: they take no context
    recycler.malloc, recycler.free = handler.malloc, handler.free
    handler.name, handler.context = NAME, ctypes.addressof(recycler)
    handler.malloc, handler.free, _ = compiler.recycler()
    capsule = _capsule(ctypes.addressof(handler), b"mem_handler", None)
    keep(handler, capsule)
    context = contextvars.Context()
    context.run(_set_handler, capsule)
    if hasattr(os, "register_at_fork"):
        # Memory of two processes is copied page by page, as soon as one of them writes to it
        os.register_at_fork(before=trim)
    return context


def trim(limit: int = 0) -> None:
    """Give back what is kept beyond so many bytes."""
    if recycler.kept:
        run = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(compiler.recycler()[-1])
        while not run(ctypes.byref(recycler), limit):  # another thread has the lock, for microseconds
            time.sleep(1e-4)


def describe() -> str:
    """Say what is kept, or why nothing is."""
    if not recycler.usable:
        return "not used: the C library does not tell the size of a block"
    return f"{recycler.kept:,} are kept"
