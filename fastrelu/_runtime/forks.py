"""What is done around a fork: the modules that it concerns add their parts."""

import functools
import os
from collections.abc import Callable

#: Run before a fork; after it, in the parent and in the child; and then in the child alone.
before: list[Callable[[], None]] = []
after: list[Callable[[], None]] = []
in_child: list[Callable[[], None]] = []


def _run(*lists: list[Callable[[], None]]) -> None:
    for functions in lists:
        for function in functions:
            function()


@functools.cache
def guard() -> None:
    """Register all that with Python. Called before Numba is first imported."""
    # Handlers run last registered first, and those of logging take its lock: had it been imported after this, by
    # Numba, a fork would take that lock and then wait for an import that waits for it.
    import logging  # noqa: F401

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: _run(before),
            after_in_parent=lambda: _run(after),
            after_in_child=lambda: _run(after, in_child),
        )
