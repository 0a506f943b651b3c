"""Native code at import, from llvmlite alone: what `_entry` and `_front` emit becomes one compiled module."""

import ctypes

import llvmlite.binding as llvm
from llvmlite import ir

from ._versions import needed

with needed("numpy"):
    from numpy._core._multiarray_umath import _ARRAY_API

#: What a capsule of C extensions points to.
pointer = ctypes.pythonapi.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
#: The addresses of NumPy's C API, whose order is part of NumPy's ABI.
numpy_functions = ctypes.cast(pointer(_ARRAY_API, None), ctypes.POINTER(ctypes.c_size_t))

WORD, INT, VOID = ir.IntType(64), ir.IntType(32), ir.VoidType()


def python_function(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Call a function of Python's C API by its address in this process."""
    address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
    return call(builder, address, result, *arguments)


def call(builder: ir.IRBuilder, address: int, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Call a function by its address in this process."""
    kind = ir.FunctionType(result, [value.type for value in arguments])
    return builder.call(builder.inttoptr(WORD(address), kind.as_pointer()), arguments)


def new_module() -> ir.Module:
    """Return an empty module for this process."""
    module = ir.Module("fastrelu")
    module.triple = llvm.get_process_triple()
    return module


def compile_module(module: ir.Module) -> "llvm.ExecutionEngine":
    """Compile a module; the engine knows its functions' addresses, and keeps their code alive."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    return engine
