"""Compiled code on disk: Numba's cache folder and format, with a checksum and a key over everything.

Numba's own index sees only the file of the decorated function, so that a changed formula leaves old loops in
use; and it loads damaged entries as they are (one flipped bit ended in SIGSEGV in 2 of 14 trials). Here one
file holds one function. Its name has a digest of all that decides the machine code, so that nothing stale is
ever found; its content starts with a digest of the rest, so that nothing damaged is ever run; and it
appears by an atomic rename, so that processes need no lock. Whatever goes wrong with the disk costs one compile.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

DIGEST = hashlib.sha256
#: Compiling options: one place. Numba's "python" error model would add a branch per division; there is none.
OPTIONS = {"nopython": True, "nogil": True}


@functools.cache
def _fingerprint() -> bytes:
    """Return a digest of all that our machine code depends on, except the processor and the signature."""
    digest = DIGEST()
    sources = [file for file in files(__package__).iterdir() if file.name.endswith((".py", ".pyc"))]  # in a zip too
    for source in sorted(sources, key=lambda file: file.name):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    settings = sorted((key, repr(value)) for key, value in vars(config).items() if key in _CODE_SETTINGS)
    versions = (sys.version, numba.__version__, llvmlite.__version__, settings)
    digest.update(repr(versions).encode())
    return digest.digest()


#: Numba's settings that change generated code, as its documentation of environment variables lists them.
_CODE_SETTINGS = {
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "DEBUGINFO_DEFAULT", "BOUNDSCHECK",
    "FULL_TRACEBACKS", "DISABLE_INTEL_SVML", "LLVM_REFPRUNE_PASS", "CPU_NAME", "CPU_FEATURES",
}  # fmt: skip


def folder() -> Path | None:
    """Return the folder that Numba would cache our functions in, or None where there is none."""
    try:
        return Path(CompileResultCacheImpl(folder).locator.get_cache_path())
    except (RuntimeError, OSError):  # "no locator available": a read-only install without a home
        return None


def _preferred() -> Path | None:
    """Return the folder that Numba takes if it can be written. It may be there to be read: an image brings it along."""
    if not config.CACHE_DIR:
        return Path(__file__).parent / "__pycache__"
    subpath = getattr(CompileResultCacheImpl._locator_classes[0], "get_suitable_cache_subpath", None)
    return Path(config.CACHE_DIR, subpath(__file__)) if subpath else None


@dataclass(frozen=True)
class Compiled:
    """Machine code in memory, and the address of the function in it that has a C interface."""

    library: Any
    address: int


def _file(name: str, sig) -> str:
    key = DIGEST(_fingerprint() + repr((sig, _codegen().magic_tuple())).encode()).hexdigest()
    return f"fastrelu-{name}-{key[:32]}.nbc"


def _codegen():
    # Not through a refresh of the target context, as Numba's own caches do: that fills the tables of everything
    # that can be typed, and imports SciPy, which is two thirds of a first call from the cache
    return cpu_target.target_context.codegen()


def _read(path: Path) -> bytes | None:
    """Return what `save` has put into a file, or None if it is not there or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    size = DIGEST().digest_size
    checksum, payload = content[:size], content[size:]
    return payload if payload and DIGEST(payload).digest() == checksum else None


def load(name: str, sig) -> Compiled | None:
    """Return a function from the cache, or None."""
    file = _file(name, sig)
    for find in (_preferred, folder):  # `folder` tries whether it can write, for which a warm start need not wait
        where = find()
        payload = _read(where / file) if where else None
        if payload is not None:
            break
    else:
        return None
    entry, serialized = pickle.loads(payload)
    rtsys.initialize(cpu_target.target_context)  # parallel code refers to symbols of Numba's runtime
    library = _codegen().unserialize_library(serialized)
    return Compiled(library, library.get_pointer_to_function(entry))


def save(name: str, sig, library, entry: str) -> None:
    """Put a function into the cache, if that is possible."""
    where = folder()
    if where is None or library.has_dynamic_globals:
        return
    path = where / _file(name, sig)
    payload = pickle.dumps((entry, library.serialize_using_object_code()), protocol=pickle.HIGHEST_PROTOCOL)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(DIGEST(payload).digest() + payload)
        os.replace(temporary, path)
    except OSError:  # full, read-only or removed under our feet: the function is compiled already
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


@contextlib.contextmanager
def _jit_enabled():
    """Compile also under NUMBA_DISABLE_JIT, which is for debugging other people's Python: a NumPy loop is none."""
    before, config.DISABLE_JIT = config.DISABLE_JIT, 0
    try:
        yield
    finally:
        config.DISABLE_JIT = before


def compile_cfunc(name: str, pyfunc, sig, *, parallel: bool = False) -> Compiled:
    """Compile a function with a C interface, or load it from the cache."""
    function = load(name, sig)
    if function is None:
        with _jit_enabled():
            compiled: Any = CFunc(pyfunc, (sig.args, sig.return_type), {}, {**OPTIONS, "parallel": parallel})
            compiled.compile()
        function = Compiled(compiled._library, compiled.address)
        save(name, sig, compiled._library, compiled.native_name)
    return function
