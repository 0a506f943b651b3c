"""Numba's threading layer: which one it is, whether this process may use it, and which threads have a team on it."""

import contextlib
import ctypes
import importlib
import sys
import threading
from typing import NoReturn

from .._kernels.records import TEAMS, Table
from . import forks, tuning
from .native import Lock, flags_kept, thread_ident
from .numba_import import import_numba
from .threads import elsewhere

_forked_from_parallel = False
_forked_from_main = True
#: Why no thread gets a team where the system gives none the threads for it.
_no_team: str | None = None
#: What each thread has: its place as an owner, and whether it has a team.
_mine = threading.local()


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
    modules = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
    # default, safe, threadsafe, forksafe: Numba narrows its order of preference by name
    candidates = {
        "threadsafe": ["tbb", "omp"], "forksafe": ["tbb", "workqueue", "omp"], "safe": ["tbb"],
    }.get(choice, [choice] if choice in modules else list(config.THREADING_LAYER_PRIORITY))  # fmt: skip
    for name in map(str, candidates):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"numba.np.ufunc.{modules[name]}")
            return name
    return None


def thread_count() -> int:
    """Return how many threads a parallel call from this thread would use."""
    return int(import_numba().get_num_threads())


def _room_for_team() -> bool:
    """Say whether the system lets this process start a team of threads, and note why automatic calls do without.

    OpenMP and tbb end the process when it does not. So as many threads are started and ended here; twice as many, since
    the system counts an ended one for a moment longer. Natively: threads of Python may be greenlets, and take longer.
    """
    global _no_team
    before, _no_team = _no_team, None
    if sys.platform == "linux":
        import_numba()
        from numba.core import config

        system = ctypes.CDLL(None)
        count = 2 * (config.NUMBA_NUM_THREADS - 1)
        gate, threads = ctypes.create_string_buffer(64), (ctypes.c_size_t * count)()
        system.sem_init(gate, 0, 0)
        made = 0
        while made < count and not system.pthread_create(
            ctypes.byref(threads, made * ctypes.sizeof(ctypes.c_size_t)), None, system.sem_wait, gate
        ):
            made += 1
        for _ in range(made):
            system.sem_post(gate)
        for thread in threads[:made]:
            system.pthread_join(ctypes.c_size_t(thread), None)
        if made < count:
            _no_team = (
                "the system starts no more threads for this process or its user; "
                "raise the limit (ulimit -u, or the container's limit of processes)"
            )
    if _no_team is not before:
        tuning.settings.tables["auto"].allowed = _no_team is None
    return _no_team is None


def refuse(reason: str) -> NoReturn:
    """Raise the error of a forced parallel call; `_call/errors.py` puts the function's name before it."""
    raise RuntimeError(f"target='parallel' is not available: {reason}")


def require() -> None:
    """Raise the error of a forced parallel call where nothing may run in parallel."""
    if (reason := unavailable()) is not None:
        refuse(reason)


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
    if _no_team is not None:
        _room_for_team()
    return _no_team


def pointless() -> str | None:
    """Return why the automatic choice should not run in parallel although it could, or None."""
    from numba.core import config

    return "NUMBA_NUM_THREADS is 1" if config.NUMBA_NUM_THREADS == 1 else None


def has_room(table: Table) -> bool:
    """Say whether this thread may have a team of threads: it has one, or there is a place for another."""
    return not table.shared or thread_ident() in table.owners[:] or _place(table) is not None


def _place(table: Table) -> int | None:
    """Return where this thread can become an owner."""
    for place in range(TEAMS):
        if table.owners[place] in (0, -thread_ident()):
            return place
    return None


class _Owner:
    """A thread's place among the owners, given back when the thread ends and its local storage goes."""

    def __init__(self, table: Table, place: int, ident: int) -> None:
        self.where = table, place, ident
        table.owners[place] = ident

    def __del__(self) -> None:
        table, place, ident = self.where
        if table.owners[place] == ident:
            table.owners[place] = 0


_owning = Lock()  # the end of another _Owner may come while it is held


def own() -> bool:
    """Make this thread an owner, if there is a place and the system gives it threads; return whether it is one."""
    if getattr(_mine, "owner", None) is not None:
        return True
    table, ident = tuning.settings.tables["auto"], thread_ident()
    with _owning:
        if ident in table.owners[:]:
            return True
        place = _place(table)
        if place is None or not _room_for_team():
            return False
        _mine.owner = _Owner(table, place, ident)
        return True


def require_team() -> None:
    """Let this thread make a forced parallel call, owner or not; raise where the system gives it no threads for it."""
    if not getattr(_mine, "has_team", False):
        if not own():
            with _owning:
                if not _room_for_team():
                    require()
        _mine.has_team = True


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

    with contextlib.suppress(ImportError):  # which Numba imports in there, on a stack that may be small
        elsewhere("fastrelu-import", lambda: importlib.import_module("multiprocessing.synchronize"))
    parallel._launch_threads()


def _note_who_forks() -> None:
    global _forked_from_main
    _forked_from_main = threading.current_thread() is threading.main_thread()


def _forget_in_child() -> None:
    global _forked_from_parallel, _owning
    _mine.__dict__.clear()
    started = any(table.launcher for table in tuning.settings.tables.values())
    if started and (layer() != "tbb" or not _forked_from_main):
        _forked_from_parallel = True
    _owning = Lock()
    for table in tuning.settings.tables.values():
        table.busy = 0  # the thread that had set it is not in this process, nor are the owners
        table.owners[:] = [-thread_ident()] + [0] * (TEAMS - 1)
        if _forked_from_parallel:
            table.allowed = 0


forks.before.append(_note_who_forks)
forks.in_child.append(_forget_in_child)
