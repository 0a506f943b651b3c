"""Numba, imported in one place, by one thread at a time, in one order of locks."""

import sys
import time
from typing import Any

from . import forks
from .native import Lock, flags_kept
from .threads import elsewhere

#: Held while we import Numba. A child forked in the middle of that would wait for ever for the import to end.
_importing = Lock()
_numba: Any = None


def import_numba() -> Any:
    """Import Numba in one thread at a time, and return it.

    A second one that begins in the middle of the package finds modules that are half there, or Python tells it of a
    deadlock: of two threads whose first calls were forced to be parallel, one failed every other time. Where a thread
    of the program imports a part of Numba meanwhile, both imports fail. To drop what there is of Numba and import it
    anew, once the other has failed, helped most times, and left a Numba that compiles nothing the other times.
    """
    if "numba" not in sys.modules:
        sys.modules.update(_parts)
    if _numba is None:  # else without the lock: a thread that compiles would wait for one that waits to fork
        elsewhere("fastrelu-import", _import)
    return _numba


def _import() -> None:
    global _numba
    with _importing, flags_kept():
        forks.guard()
        import numba  # itself first: a part of it alone, beside the whole in another thread, fails

        _make_context()
        _numba = numba


#: The modules of Numba, in case a patch of `sys.modules` around a call drops them: it does not survive being two.
_parts: dict[str, Any] = {}


def hold_numba() -> None:
    """Note what has been imported of Numba."""
    _parts.update((name, module) for name, module in list(sys.modules.items()) if name.partition(".")[0] == "numba")


def _make_context() -> None:
    """Let Numba make its context for the processor, which it does when it is first asked for it.

    It takes two locks for that: the first `njit` of a thread that of the context, then that of compilers; the first
    `cfunc` the other way round. In either order we would wait for one of them, and it for us. So we do not wait for the
    second while we hold the first.
    """
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import CPUTarget, cpu_target

    of_context = getattr(vars(CPUTarget)["_toplevel_target_context"], "_lock", None) or Lock()
    while "_toplevel_target_context" not in vars(cpu_target):
        with global_compiler_lock:
            if of_context.acquire(blocking=False):
                try:
                    _ = cpu_target.target_context
                finally:
                    of_context.release()
        time.sleep(1e-4)


def _compiler_lock() -> Any:
    """Return Numba's lock for compilers, if there is one yet."""
    return getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)


def compiling_here() -> bool:
    """Say whether this very thread is compiling with Numba, so that another one could not."""
    lock = getattr(_compiler_lock(), "_lock", None)
    return lock is not None and bool(lock._is_owned())


def _take_locks() -> None:
    """Take the locks that a child, forked while another thread imports or compiles, would find taken for ever."""
    _importing.acquire()
    if lock := _compiler_lock():
        lock.acquire()


def _release_locks() -> None:
    if lock := _compiler_lock():
        lock.release()
    _importing.release()


forks.before.append(_take_locks)
forks.after.append(_release_locks)
