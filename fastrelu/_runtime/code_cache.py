"""Compiled code on disk: in the folders that Numba caches in, with a checksum, a key over everything, and an owner.

Numba's own index sees only the file of the decorated function, so that a changed formula leaves old loops in
use; and it loads damaged entries as they are (one flipped bit ended in SIGSEGV in 2 of 14 trials). Here one
file holds one function. Its name has a digest of all that decides the machine code, so that nothing stale is
ever found; its content starts with a digest of the rest, so that nothing damaged is ever run; nobody else can have
written it; and it appears by an atomic rename, so that processes need no lock. Whatever goes wrong with the disk, or
with the key, costs one compile.
"""

import contextlib
import functools
import hashlib
import importlib.util
import marshal
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.misc.appdirs import AppDirs

from .. import _kernels
from .._versions import package_changed

if sys.platform != "win32":
    import grp
    import pwd

DIGEST = hashlib.sha256
#: What decides the code: the formulas, the rows, and the floor of kernels. What else changes leaves the cache in use.
_DECIDING = ("_formulas", "_operations")
#: Of the files themselves: what follows the checksum in one.
_FORMAT = 1
#: Compiling options: one place. Numba's "python" error model would add a branch per division; there is none.
OPTIONS = {"nopython": True, "nogil": True}


def _options(parallel: bool) -> dict[str, bool]:
    return {**OPTIONS, "parallel": parallel}


#: What is larger is none of our files, of which the largest have some hundred KB, and is not read.
MAX_BYTES = 1 << 24


@functools.cache
def _fingerprint() -> bytes | None:
    """Return a digest of all that our machine code depends on, except the processor and the signature.

    None where our modules cannot be read, or are not the ones that we run: nothing is kept then.
    """
    modules = _modules()
    if modules is None or package_changed():
        return None
    digest = DIGEST()
    for name, content in sorted(modules.items()):
        digest.update(name.encode() + b"\0" + content + b"\0")
    settings = sorted((key, repr(value)) for key, value in vars(config).items() if key in _CODE_SETTINGS)
    versions = (_FORMAT, sys.version, numba.__version__, llvmlite.__version__, settings)
    digest.update(repr(versions).encode())
    return digest.digest()


def _modules() -> dict[str, bytes] | None:
    """Return what our modules consist of, by name."""
    for read in (_files, _codes):
        with contextlib.suppress(Exception):  # of whoever loads us: archives, frozen applications
            modules = read()
            if {"_formulas", "loop"} <= {name.partition(".")[0] for name in modules}:  # some list nothing, or only data
                return modules
    return None


def _files() -> dict[str, bytes]:
    kernels = files(_kernels)  # in a zip too
    found = [file for file in files(_package()).iterdir() if file.name.partition(".")[0] in _DECIDING]
    found += kernels.iterdir()
    return {file.name: file.read_bytes() for file in found if file.name.endswith((".py", ".pyc"))}


def _package() -> str:
    """Return our name, which is longer where another package brings us along."""
    return _kernels.__name__.rpartition(".")[0]


def _codes() -> dict[str, bytes]:
    """Return the code of our modules, which a frozen application has in its executable."""
    import pkgutil

    names = [module.name for module in pkgutil.iter_modules(_kernels.__path__, f"{_kernels.__name__}.")]
    codes = {}
    for name in (*(f"{_package()}.{each}" for each in _DECIDING), *names):
        spec: Any = importlib.util.find_spec(name)
        code = spec.loader.get_code(name)
        if not isinstance(code, CodeType):  # compiled to C: None, which would be the same for all versions
            raise TypeError(name)
        # Version 2, as later ones mark what else the process refers to: another content in each process
        codes[name.rpartition(".")[2] + ".code"] = marshal.dumps(code, 2)
    return codes


#: Numba's settings that change generated code, as its documentation of environment variables lists them.
_CODE_SETTINGS = {
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "DEBUGINFO_DEFAULT", "BOUNDSCHECK",
    "FULL_TRACEBACKS", "DISABLE_INTEL_SVML", "LLVM_REFPRUNE_PASS", "CPU_NAME", "CPU_FEATURES",
}  # fmt: skip


def _folders() -> Iterator[str]:
    """Yield where compiled code may lie, as Numba has it: where the user says, beside us, in the user's cache folder.

    One name for all versions and places of ours: the key tells them apart, and Numba's names, made from our path,
    would be new ones at each start of an application that unpacks itself.
    """
    if config.CACHE_DIR:
        yield os.path.join(config.CACHE_DIR, "fastrelu")
    if os.path.isfile(__file__) and not getattr(sys, "frozen", False):  # what is frozen may be unpacked anew each time
        yield os.path.join(os.path.dirname(os.path.dirname(__file__)), "__pycache__")
    home = AppDirs("numba", appauthor=False).user_cache_dir
    if os.path.isabs(home):  # `~/.cache` where a user has no home
        yield os.path.join(home, "fastrelu")


def _distrusted(folder: str) -> str | None:
    """Say why code from a folder is not run, or return None. Its name is a real path.

    Who can write to a folder above it can put another folder of ours in its place. So those are looked at too, up to
    the first that we are installed below: who can write there can change us.
    """
    if sys.platform == "win32":
        return None
    place = folder
    while place == folder or place not in _above_us():
        with contextlib.suppress(FileNotFoundError):  # nobody's yet
            reason = _writers(os.lstat(place), place, folder != place)
            if reason is not None:
                return f"{place} {reason}"
        place = os.path.dirname(place)
    return None


@functools.cache
def _above_us() -> frozenset[str]:
    package = Path(os.path.realpath(__file__)).parents[1]
    return frozenset(map(str, (package, *package.parents)))


def _writers(status: os.stat_result, place: str | int, is_parent: bool = False) -> str | None:
    """Say who else can write to a file or folder, or return None."""
    if sys.platform == "win32":
        return None
    # As of now, since servers change their user; all of them, since one that they have set aside may come back
    users = set(os.getresuid() if hasattr(os, "getresuid") else (os.getuid(), os.geteuid()))
    if status.st_uid != 0 and users != {status.st_uid}:
        return f"belongs to user {status.st_uid}"
    if is_parent and status.st_mode & stat.S_ISVTX:  # as /tmp: nobody replaces there what belongs to others
        return None
    if status.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if status.st_mode & stat.S_IWGRP:
        if len(users) > 1 or not _is_private(*users, status.st_gid):
            return f"can be written by group {status.st_gid}"
        if _has_access_list(place):  # whose members the group's bit stands for
            return "has an access list"
    return None


@functools.cache
def _is_private(user: int, group: int) -> bool:
    """Return whether a group is its user's own, by the rule by which systems give such users the umask 0002."""
    try:
        person, members = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    name = person.pw_name
    return user != 0 and person.pw_gid == group and members.gr_name == name and set(members.gr_mem) <= {name}


def _has_access_list(place: str | int) -> bool:
    if not hasattr(os, "listxattr"):
        return False
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except OSError:  # a file system that has none
        return False


def _refused(folder: str) -> str | None:
    """Say why no new code is kept in a folder, which is made if need be, or return None."""
    try:
        folder = os.path.realpath(folder)
        reason = _distrusted(folder)
        if reason is None:
            _make(folder)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        reason = f"{folder} cannot be written"
    return reason


def _search() -> tuple[Path | None, list[str]]:
    """Return the folder for new code, the first that is trusted and can be written, and why those before it are not."""
    passed: list[str] = []
    for place in _folders():
        reason = _refused(place)
        if reason is None:
            return Path(os.path.realpath(place)), passed
        passed.append(reason)
    return None, passed


def _make(folder: str) -> None:
    """Make a folder, and those above it, readable as the umask says, and writable by nobody else."""
    with contextlib.suppress(FileExistsError):  # by another process, at any time
        try:
            os.mkdir(folder, 0o755)
        except FileNotFoundError:
            _make(os.path.dirname(folder))
            os.mkdir(folder, 0o755)


def folder() -> Path | None:
    """Return the folder that new code is kept in, or None where there is none."""
    return _search()[0]


def describe() -> str:
    """Say where compiled code is kept, and why not in the places that come before."""
    if _fingerprint() is None:
        return "not kept: the package cannot be read, or has changed since it was imported"
    found, passed = _search()
    return "; ".join([str(found or "not kept"), *passed])


@dataclass(frozen=True)
class Compiled:
    """Machine code in memory, and the address of the function in it that has a C interface."""

    library: Any
    address: int


def _file(name: str, sig, parallel: bool = False) -> str | None:
    fingerprint = _fingerprint()
    if fingerprint is None:
        return None
    key = DIGEST(fingerprint + repr((sig, _options(parallel), _codegen().magic_tuple())).encode()).hexdigest()
    return f"fastrelu-{name}-{key[:32]}.nbc"


def _codegen():
    # Not through a refresh of the target context, as Numba's own caches do: that fills the tables of everything
    # that can be typed, and imports SciPy, which is two thirds of a first call from the cache
    return cpu_target.target_context.codegen()


def _read(where: str, file: str) -> bytes | None:
    """Return what `save` has put into a file, or None if it is not there, damaged, or may be somebody else's."""
    try:
        where = os.path.realpath(where)
        with open(os.path.join(where, file), "rb", opener=_open_for_reading) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                return None
            if _writers(status, opened.fileno()) or _distrusted(where):
                return None
            content = opened.read(MAX_BYTES)
    except OSError:
        return None
    size = DIGEST().digest_size
    checksum, payload = content[:size], content[size:]
    return payload if payload and DIGEST(payload).digest() == checksum else None


def _open_for_reading(path: str, flags: int) -> int:
    # Neither through a link to somewhere else, nor waiting for whoever writes to a pipe
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _open_for_writing(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)  # less what the umask forbids: others may read it, and nobody else write


def load(name: str, sig, parallel: bool = False) -> Compiled | None:
    """Return a function from the cache, or None."""
    file = _file(name, sig, parallel)
    if file is None:
        return None
    for where in _folders():
        payload = _read(where, file)
        if payload is not None:
            entry, serialized = pickle.loads(payload)
            rtsys.initialize(cpu_target.target_context)  # parallel code refers to symbols of Numba's runtime
            library = _codegen().unserialize_library(serialized)
            return Compiled(library, library.get_pointer_to_function(entry))
        if _refused(where) is None:  # there it belongs. One that can only be read comes with an image, or is another's
            break
    return None


def save(name: str, sig, library, entry: str, parallel: bool = False) -> None:
    """Put a function into the cache, if that is possible."""
    file = _file(name, sig, parallel)
    if file is None or library.has_dynamic_globals or package_changed():
        return
    where = folder()
    if where is None:
        return
    payload = pickle.dumps((entry, library.serialize_using_object_code()), protocol=pickle.HIGHEST_PROTOCOL)
    temporary = where / f"{file}.{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb", opener=_open_for_writing) as opened:
            opened.write(DIGEST(payload).digest() + payload)
        os.replace(temporary, where / file)
    except OSError:  # full, read-only or removed under our feet: the function is compiled already
        with contextlib.suppress(OSError):
            temporary.unlink()


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
    function = load(name, sig, parallel)
    if function is None:
        with _jit_enabled():
            compiled: Any = CFunc(pyfunc, (sig.args, sig.return_type), {}, _options(parallel))
            compiled.compile()
        function = Compiled(compiled._library, compiled.address)
        save(name, sig, compiled._library, compiled.native_name, parallel)
    return function
