"""On which target a call runs: the one that it names, that of the call around it, or the configured one.

A container's ``__array_ufunc__`` calls our ufunc again, on what it holds. It must see one ufunc whatever the target,
as its own tables have rows for ufuncs. So a target is not a ufunc: it is forced on the loops that NumPy runs in this
thread, which look themselves up in a list that `forced` writes.
"""

import numpy as np

from . import _native, _tuning
from ._layout import FORCE_WORDS, FORCED, NEXT, USES, WHO

_tables = _tuning.settings.tables
_address = {name: table.ctypes.data for name, table in _tables.items()}
_name = {address: name for name, address in _address.items()}
#: All that were ever made, last one first in the list. Loops of other threads may read any of them, at any time.
_forces: list[np.ndarray] = []
_of_thread: dict[int, np.ndarray] = {}
_lock = _native.Lock()  # a finaliser may call while it is held


def chosen(target: str | None, name: str = "fastrelu") -> str | None:
    """Return the target of a call whose argument that is, None for the automatic choice; raise for anything else."""
    if target is not None:
        return _tuning.check_target(target, f"{name}: target")
    force = _of_thread.get(_native.thread_ident()) if _of_thread else None
    return _tuning.settings.target if force is None else _name.get(int(force[USES]), _tuning.settings.target)


def of_loops() -> str:
    """Return the name of the table that the loops of this thread use."""
    name = chosen(None)
    return name if name in ("serial", "parallel") else "auto"


class forced:
    """In a ``with`` statement, run the loops of this thread on a CPU target; "auto" leaves all as it is."""

    def __init__(self, target: str) -> None:
        self._address = 0 if target == "auto" else _address[target]

    def __enter__(self) -> None:
        if self._address:
            with _lock:
                self._force = _mine()
                self._before = int(self._force[USES])
                self._force[USES] = self._address

    def __exit__(self, *error: object) -> None:
        if self._address:
            with _lock:
                self._force[USES] = self._before
                if not self._before:
                    del _of_thread[int(self._force[WHO])]
                    self._force[WHO] = 0
                    if not _of_thread:
                        _tables["auto"][FORCED] = 0


def _mine() -> np.ndarray:
    ident = _native.thread_ident()
    if (force := _of_thread.get(ident)) is None:
        force = next((each for each in _forces if not each[WHO]), None)
        if force is None:
            force = np.zeros(FORCE_WORDS, np.int64)
            force[NEXT] = _forces[-1].ctypes.data if _forces else 0
            _native.keep(force)
            _forces.append(force)
        force[WHO] = ident
        _of_thread[ident] = force
        _tables["auto"][FORCED] = _forces[-1].ctypes.data
    return force


def forget_other_threads() -> None:
    """In a forked child, drop what other threads had forced, and a lock that one of them may have held."""
    global _lock
    _lock = _native.Lock()
    ident = _native.thread_ident()
    for other in [each for each in _of_thread if each != ident]:
        force = _of_thread.pop(other)
        force[USES] = force[WHO] = 0
    if not _of_thread:
        _tables["auto"][FORCED] = 0
