"""Threads of ours: started with enough stack, to do what the calling thread should not."""

import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from . import forks
from .native import Lock

T = TypeVar("T")

_mine = threading.local()

#: Bytes of stack of our own threads, in which Numba and LLVM compile: what main threads usually have.
STACK_BYTES = 8 << 20
_starting = Lock()


def started(name: str, function: Callable[..., object], *args: Any) -> bool:
    """Run a function in a thread of ours; return False where no thread can be started any more."""
    if sys.is_finalizing():  # Python 3.11 would wait for ever for the thread to begin
        return False
    with _starting:
        try:
            before = threading.stack_size(STACK_BYTES)  # the program's own threads may be many, and have little
            try:
                threading.Thread(target=function, name=name, args=args).start()
            finally:
                threading.stack_size(before)
        except RuntimeError:  # a limit of the system, or the interpreter is shutting down
            return False
    return True


def elsewhere(name: str, work: Callable[[], T]) -> T:
    """Do in a thread of ours, if there can be one, what no signal may interrupt or what takes much stack."""
    if getattr(_mine, "is_ours", False):
        return work()
    results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        _mine.is_ours = True
        try:
            results.put((work(), None))
        except BaseException as failure:  # raised in the caller's thread below
            results.put((None, failure))

    if not started(name, run):
        return work()
    result, failure = results.get()
    if failure is not None:
        raise failure
    value: T = result
    return value


def _forget_in_child() -> None:
    """In a forked child, drop a lock that another thread may have held; its only thread is none of ours."""
    global _starting
    _starting = Lock()
    _mine.__dict__.clear()


forks.in_child.append(_forget_in_child)
