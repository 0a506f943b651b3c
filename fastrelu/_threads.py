"""What Numba's threading layer allows here: whether this process may run anything in parallel, and why not."""

import contextlib
import contextvars
import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from . import _tuning
from ._layout import ALLOWED, BUSY, LAUNCHER, OWNER, SHARED, TEAMS
from ._native import flags_kept

T = TypeVar("T")

_forked_from_parallel = False
_forked_from_main = True


def layer() -> str | None:
    """Return the name of the threading layer: the running one, else the one that Numba would start."""
    import_numba()
    from numba.np.ufunc import parallel

    with contextlib.suppress(ValueError):  # not started yet
        running: str = parallel.threading_layer()
        return running
    return _first_layer()


@flags_kept()
def _first_layer() -> str | None:
    """Return the name of the threading layer that Numba would start."""
    from numba.core import config

    choice = str(config.THREADING_LAYER).lower()
    if choice in ("tbb", "omp", "workqueue"):
        candidates = [choice]
    else:  # default, safe, threadsafe, forksafe: Numba narrows its order of preference by name
        candidates = {
            "threadsafe": ["tbb", "omp"], "forksafe": ["tbb", "workqueue", "omp"], "safe": ["tbb"],
        }.get(choice, list(config.THREADING_LAYER_PRIORITY))  # fmt: skip
    modules = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
    for name in candidates:
        try:
            importlib.import_module(f"numba.np.ufunc.{modules[name]}")
        except ImportError:
            continue
        return name
    return None


def thread_count() -> int:
    """Return how many threads a parallel call from this thread would use."""
    return int(import_numba().get_num_threads())


def unavailable() -> str | None:
    """Return why nothing may run in parallel in this process, or None."""
    if _forked_from_parallel:
        return (
            "this process was forked after its parent had started threads, which the omp layer does not survive, and "
            "the tbb layer only where the main thread forks; use the spawn or forkserver start method"
        )
    name = layer()
    if name is None:
        return "Numba finds no threading layer; install tbb, or an OpenMP runtime"
    if name == "workqueue":
        return (
            "Numba runs on its workqueue layer, which aborts the process when two threads use it; "
            "install tbb, or set NUMBA_THREADING_LAYER=omp"
        )
    return None


def pointless() -> str | None:
    """Return why the automatic choice should not run in parallel although it could, or None."""
    from numba.core import config

    return "NUMBA_NUM_THREADS is 1" if config.NUMBA_NUM_THREADS == 1 else None


def has_room(table: np.ndarray) -> bool:
    """Say whether this thread may have a team of threads: it has one, or fewer than `TEAMS` others have."""
    owners = table[OWNER : OWNER + TEAMS]
    return not table[SHARED] or bool(((owners == threading.get_ident()) | (owners == 0)).any())


class _Owner:
    """A thread's place among the owners, given back when the thread ends and its local storage goes."""

    def __init__(self, table: np.ndarray, place: int, ident: int) -> None:
        self.where = table, place, ident
        table[place] = ident

    def __del__(self) -> None:
        table, place, ident = self.where
        if table[place] == ident:
            table[place] = 0


_owning = threading.RLock()  # the end of another _Owner may come while it is held
_mine = threading.local()


def own(table: np.ndarray) -> bool:
    """Make this thread an owner, if there is a place; return whether it is one."""
    ident = threading.get_ident()
    with _owning:
        owners = table[OWNER : OWNER + TEAMS].tolist()
        if ident in owners:
            return True
        if 0 in owners:
            _mine.owner = _Owner(table, OWNER + owners.index(0), ident)
        return 0 in owners


_lender: Any = None


def must_borrow() -> bool:
    """Say whether a forced parallel call from this thread needs another thread's team."""
    own_one = own(_tuning.settings.tables["auto"]) or getattr(_mine, "lends", False)
    return not own_one and layer() == "omp"


def lend(function: Callable[..., T], *args: Any) -> T:
    """Run a forced parallel call on a thread that all share who have no team: it may neither fall back nor get one."""
    global _lender
    numba = import_numba()
    with _owning:
        if _lender is None:
            from concurrent.futures import ThreadPoolExecutor

            _lender = ThreadPoolExecutor(1, "fastrelu-parallel")
    threads = numba.get_num_threads()  # a number that each thread has of its own

    def run() -> T:
        _mine.lends = True
        numba.set_num_threads(threads)
        return function(*args)

    result: T = _lender.submit(contextvars.copy_context().run, run).result()
    return result


def start_here() -> None:
    """Start the threading layer from this thread, where it may run and Numba is imported.

    Elsewhere it would be started by the thread that compiles, and tbb takes the one that starts it for the main
    thread: it then warned of every fork, and did not stop its threads before.
    """
    if "numba" in sys.modules and unavailable() is None:
        start()


@flags_kept()
def start() -> None:
    """Start the threading layer."""
    from numba.np.ufunc import parallel

    parallel._launch_threads()


#: Held while we import Numba. A child forked in the middle of that would wait for ever for the import to end.
numba_import = threading.RLock()
_imported = False


def import_numba() -> Any:
    """Import Numba in one thread at a time, and return it.

    A second one that begins in the middle of the package finds modules that are half there, or Python tells it of a
    deadlock: of two threads whose first calls were forced to be parallel, one failed every other time.

    Numba makes its context for the processor when it is first asked for, under a lock of its own, and takes the lock
    of compilers in there. We ask for it here, where we hold no other: under the lock of compilers, where we import
    `_formulas`, we would wait for a thread that makes its first `njit`, and it for us.
    """
    global _imported
    if not _imported:  # else without the lock: a thread that compiles would wait for one that waits to fork
        with numba_import, flags_kept():
            guard_forks()
            import numba  # noqa: F401 itself first: a part of it alone, beside the whole in another thread, may fail
            from numba.core.registry import cpu_target

            _ = cpu_target.target_context
            _imported = True
    return sys.modules["numba"]


def compiling_here() -> bool:
    """Say whether this very thread is compiling with Numba, so that another one could not."""
    module = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(getattr(module, "global_compiler_lock", None), "_lock", None)
    return lock is not None and bool(lock._is_owned())


def _before_fork() -> None:
    global _forked_from_main
    _forked_from_main = threading.current_thread() is threading.main_thread()
    # A child forked while another thread compiles would find Numba's compiler lock taken for ever
    numba_import.acquire()
    if "numba.core.compiler_lock" in sys.modules:
        sys.modules["numba.core.compiler_lock"].global_compiler_lock.acquire()


def _after_fork() -> None:
    if "numba.core.compiler_lock" in sys.modules:
        sys.modules["numba.core.compiler_lock"].global_compiler_lock.release()
    numba_import.release()


def _after_fork_in_child() -> None:
    global _forked_from_parallel, _owning, _lender
    _after_fork()
    started = any(table[LAUNCHER] for table in _tuning.settings.tables.values())
    if started and (layer() != "tbb" or not _forked_from_main):
        _forked_from_parallel = True
    _owning, _lender = threading.RLock(), None
    for table in _tuning.settings.tables.values():
        table[BUSY] = 0  # the thread that had set it is not in this process, nor are the owners
        table[OWNER : OWNER + TEAMS] = 0
        table[OWNER] = threading.get_ident()
        if _forked_from_parallel:
            table[ALLOWED] = 0


@functools.cache
def guard_forks() -> None:
    """Register what must happen around a fork. Called before Numba is first imported."""
    # Handlers run last registered first, and those of logging take its lock: had it been imported after this, by
    # Numba, a fork would take that lock and then wait for an import that waits for it.
    import logging  # noqa: F401

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
