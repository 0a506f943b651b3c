"""Native code at import, from llvmlite alone: what others emit becomes one compiled module."""

import _thread
import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from .._kernels.processor import INT as INT
from .._kernels.processor import VOID as VOID
from .._kernels.processor import WORD as WORD
from .._kernels.processor import read_flags, write_flags
from .._versions import needed

with needed("numpy"):
    from numpy._core._multiarray_umath import _ARRAY_API


def python_api(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of Python's C API."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


def address_of(function: Any) -> int:
    """Return the address of a function of C."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


#: What a capsule of C extensions points to.
pointer = python_api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
#: The addresses of NumPy's C API, whose order is part of NumPy's ABI.
numpy_functions = ctypes.cast(pointer(_ARRAY_API, None), ctypes.POINTER(ctypes.c_size_t))

_incref = python_api("Py_IncRef", None, ctypes.py_object)
#: Names the calling thread as native code does. `threading.get_ident` names a greenlet where gevent has patched it.
thread_ident = python_api("PyThread_get_thread_ident", ctypes.c_size_t)
#: The system's, which makes a thread of it wait; also where gevent has patched `threading`, whose locks cannot.
Lock = _thread.RLock


def keep(*objects: object) -> None:
    """Keep objects for as long as the process lives, since native code or NumPy has their addresses.

    References from modules would not do: modules can be dropped or reloaded while our functions are in use, and they go
    before the last call when the interpreter exits.
    """
    for each in objects:
        _incref(each)


class _MethodDef(ctypes.Structure):
    """What a function of native code is made from."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    )  # fmt: skip


_new_function = python_api(
    "PyCFunction_NewEx", ctypes.py_object, ctypes.POINTER(_MethodDef), ctypes.c_void_p, ctypes.py_object
)
#: How functions are called that take a vector of arguments and a tuple of keywords.
_FASTCALL_KEYWORDS = 0x0080 | 0x0002


def python_function(name: str, address: int, document: bytes | None = None, first: object = None) -> Any:
    """Return what Python calls native code by, which gets another object as its first argument."""
    method = _MethodDef(name.encode(), address, _FASTCALL_KEYWORDS, document)
    keep(method, first)
    return _new_function(ctypes.byref(method), id(first) if first else None, "fastrelu")


class Builder(ir.IRBuilder):  # type: ignore[misc]
    """Builds a function of native code, which works on words: numbers, and addresses in this process."""

    def __init__(self, module: ir.Module, name: str, result: ir.Type = WORD, arguments: int = 4) -> None:
        function = ir.Function(module, ir.FunctionType(result, [WORD] * arguments), name)
        super().__init__(function.append_basic_block())

    def equal(self, value: ir.Value, other: int | ir.Value) -> ir.Value:
        return self.icmp_unsigned("==", value, value.type(other) if isinstance(other, int) else other)

    def place(self, address: int | ir.Value, offset: int | ir.Value = 0, kind: ir.Type = WORD) -> ir.Value:
        """Return a pointer to what is so many bytes behind an address."""
        return self.inttoptr(self.add(*map(_word, (address, offset))), kind.as_pointer())

    def read(self, address: int | ir.Value, offset: int | ir.Value = 0, kind: ir.Type = WORD) -> ir.Value:
        return self.load(self.place(address, offset, kind))

    def call_at(self, address: int | ir.Value, *arguments: int | ir.Value, result: ir.Type = WORD) -> ir.Value:
        """Call a function by its address in this process."""
        values = [_word(each) for each in arguments]
        kind = ir.FunctionType(result, [value.type for value in values])
        return self.call(self.inttoptr(_word(address), kind.as_pointer()), values)

    def python(self, name: str, *arguments: int | ir.Value, result: ir.Type = WORD) -> ir.Value:
        """Call a function of Python's C API."""
        return self.call_at(address_of(getattr(ctypes.pythonapi, name)), *arguments, result=result)

    def drop(self, *objects: ir.Value) -> None:
        """Drop references, of which some may be null."""
        for each in objects:
            self.python("Py_DecRef", each, result=VOID)


def _word(value: int | ir.Value) -> ir.Value:
    return WORD(value) if isinstance(value, int) else value


@contextlib.contextmanager
def flags_kept() -> Iterator[None]:
    """Leave this thread's floating-point flags as they are, whatever the Python code in here does.

    Importing and compiling compute with floats too: with constants in modules, at the least. NumPy, which called the
    loop that is being compiled, would take their flags for the loop's own, and warn of them.
    """
    read, write = _flag_functions()
    flags = read()
    try:
        yield
    finally:
        write(flags)


@functools.cache
def _flag_functions() -> tuple[Callable[[], int], Callable[[int], None]]:
    """Return what reads and what sets the flags."""
    module = new_module()
    read = Builder(module, "read", arguments=0)
    read.ret(read_flags(read))
    write = Builder(module, "write", VOID, arguments=1)
    write_flags(write, *write.function.args)
    write.ret_void()
    code = compile_module(module)
    # (PYFUNCTYPE: nothing of another thread runs in between)
    reading = ctypes.PYFUNCTYPE(ctypes.c_int64)(code.get_function_address("read"))
    writing = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(code.get_function_address("write"))
    return reading, writing


def new_module() -> ir.Module:
    """Return an empty module for this process."""
    module = ir.Module("fastrelu")
    module.triple = llvm.get_process_triple()
    return module


def compile_module(module: ir.Module) -> "llvm.ExecutionEngine":
    """Compile a module; the engine knows its functions' addresses."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    keep(engine)
    return engine
