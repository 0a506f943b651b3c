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

#: What a capsule of C extensions points to.
pointer = ctypes.pythonapi.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
#: The addresses of NumPy's C API, whose order is part of NumPy's ABI.
numpy_functions = ctypes.cast(pointer(_ARRAY_API, None), ctypes.POINTER(ctypes.c_size_t))

_incref = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))
#: Names the calling thread as native code does. `threading.get_ident` names a greenlet where gevent has patched it.
thread_ident = ctypes.PYFUNCTYPE(ctypes.c_size_t)(("PyThread_get_thread_ident", ctypes.pythonapi))
#: The system's, which makes a thread of it wait; also where gevent has patched `threading`, whose locks cannot.
Lock = _thread.RLock


def keep(*objects: object) -> None:
    """Keep objects for as long as the process lives, since native code or NumPy has their addresses.

    References from modules would not do: modules can be dropped or reloaded while our functions are in use, and they go
    before the last call when the interpreter exits.
    """
    for each in objects:
        _incref(each)


#: How functions are called that take a vector of arguments and a tuple of keywords.
FASTCALL_KEYWORDS = 0x0080 | 0x0002


class MethodDef(ctypes.Structure):
    """What a function of native code is made from."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    )  # fmt: skip


#: Of a `MethodDef`, what is passed to it as the first argument (an address), and its module.
new_function = ctypes.pythonapi.PyCFunction_NewEx
new_function.restype = ctypes.py_object
new_function.argtypes = [ctypes.POINTER(MethodDef), ctypes.c_void_p, ctypes.py_object]


def field(builder: ir.IRBuilder, record: ir.Value, which: Any) -> ir.Value:
    """Return a pointer to a field of a record at an address, `which` as in ``Slot.loop``."""
    return builder.inttoptr(builder.add(record, WORD(which.offset)), WORD.as_pointer())


def python_function(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Call a function of Python's C API by its address in this process."""
    address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
    return call(builder, address, result, *arguments)


def call(builder: ir.IRBuilder, address: int, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Call a function by its address in this process."""
    kind = ir.FunctionType(result, [value.type for value in arguments])
    return builder.call(builder.inttoptr(WORD(address), kind.as_pointer()), arguments)


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
    read = ir.Function(module, ir.FunctionType(WORD, []), "read")
    builder = ir.IRBuilder(read.append_basic_block())
    builder.ret(read_flags(builder, module.triple))
    write = ir.Function(module, ir.FunctionType(VOID, [WORD]), "write")
    builder = ir.IRBuilder(write.append_basic_block())
    write_flags(builder, module.triple, write.args[0])
    builder.ret_void()
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
