"""On which target a call runs: the one that it names, that of the call around it, or the configured one.

A container's ``__array_ufunc__`` calls our ufunc again, on what it holds. It must see one ufunc whatever the target,
as its own tables have rows for ufuncs. So a target is not a ufunc: it is forced on the loops that NumPy runs in this
thread, which look themselves up in a list that `forced` writes.
"""

import ctypes

from .._kernels.records import Force
from . import forks, tuning
from .native import Lock, keep, thread_ident

_address = {name: ctypes.addressof(table) for name, table in tuning.settings.tables.items()}
_name = {address: name for name, address in _address.items()}
_auto = tuning.settings.tables["auto"]
#: One for each thread that has forced anything, the last one first in the list. Loops may read any of them at any time.
_forces: dict[int, Force] = {}
_first = 0
_active = 0
_lock = Lock()  # a finaliser may call while it is held


def chosen(target: str | None, name: str = "fastrelu") -> str | None:
    """Return the target of a call whose argument that is, None for the automatic choice; raise for anything else."""
    if target is not None:
        return tuning.check_target(target, f"{name}: target")
    if _active and (force := _forces.get(thread_ident())) is not None and force.uses:
        return _name[force.uses]
    return tuning.settings.target


def of_loops() -> str:
    """Return the name of the table that the loops of this thread use."""
    name = chosen(None)
    return name if name in ("serial", "parallel") else "auto"


class forced:
    """In a ``with`` statement, run the loops of this thread on a CPU target; "auto" leaves all as it is."""

    __slots__ = ("_before", "_force", "_uses")

    def __init__(self, target: str) -> None:
        self._uses = 0 if target == "auto" else _address[target]

    def __enter__(self) -> None:
        global _active
        if self._uses:
            self._force = force = _forces.get(thread_ident()) or _new_force()
            with _lock:
                self._before, force.uses = force.uses, self._uses
                if not self._before:
                    _active += 1
                    _auto.forced = _first

    def __exit__(self, *error: object) -> None:
        global _active
        if self._uses:
            with _lock:
                self._force.uses = self._before
                if not self._before:
                    _active -= 1
                    if not _active:
                        _auto.forced = 0


def _new_force() -> Force:
    global _first
    force = Force(who=thread_ident())
    keep(force)
    with _lock:
        force.next = _first
        _forces[force.who], _first = force, ctypes.addressof(force)
    return force


def _forget_other_threads() -> None:
    """In a forked child, drop what other threads had forced, and a lock that one of them may have held."""
    global _lock, _active
    _lock = Lock()
    for ident, force in _forces.items():
        if ident != thread_ident():
            force.uses = 0
    _active = sum(force.uses != 0 for force in _forces.values())
    _auto.forced = _first if _active else 0


forks.in_child.append(_forget_other_threads)
