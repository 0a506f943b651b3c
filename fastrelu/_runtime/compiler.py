"""Compiling on demand: what the trampoline calls when a loop is not there yet. Imports Numba when it runs."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .._kernels.records import LAUNCHER, OWNER, WISHES, Slot
from .._operations import ROWS
from .._versions import needed
from . import interpreted, layers, numba_import, targets, threads, tuning
from .native import flags_kept, keep

T = TypeVar("T")

Slots = list[tuple[str, np.dtype, Slot]]

#: Each loop of each ufunc: operation, type and the slot that the loop reads.
slots: Slots = []


def _kept(build: Callable[..., Any]) -> Callable[..., int]:
    """Make a function return the address of what it builds, which is built once and stays."""

    @functools.cache
    def address_of(*args: Any) -> int:
        compiled = build(*args)
        keep(compiled)
        address: int = compiled.address
        return address

    return address_of


def kernel(operation: str, dtype: np.dtype) -> Any:
    """Return a kernel, compiled or loaded from the cache. The caller holds Numba's compiler lock."""
    with needed("numba"):
        from .._kernels import emit
        from .code_cache import compile_cfunc

        if ROWS[operation].has_bitmask:
            from .._kernels.bitmask import body
        elif ROWS[operation].sums:
            from .._kernels.sums import body
        else:
            from .._kernels.elementwise import body
    return compile_cfunc(f"{operation}-{dtype.name}", emit.kernel(body, operation, dtype), emit.SIGNATURE)


#: Its address, and that it is one, by type: the types `l` and `q` are one to Numba, and equal.
kernel_address = _kept(kernel)


@_kept
def _routine(name: str) -> Any:
    """Return a compiled function that others call by its address, from the cache if it is there."""
    with needed("numba"):
        from .._kernels.loop import ROUTINES
        from .code_cache import compile_cfunc

    function, signature = ROUTINES[name]
    return compile_cfunc(function.__name__, function, signature, parallel=name == "launcher")


@functools.cache
def recycler() -> list[int]:
    """Return the addresses of the recycler's functions, compiled or loaded from the cache."""

    def work() -> list[Any]:
        from .._kernels.recycler import FUNCTIONS
        from .code_cache import compile_cfunc

        return [compile_cfunc(f"recycler_{each.__name__}", each, signature) for each, signature in FUNCTIONS]

    functions = locked(work)
    keep(functions)
    return [function.address for function in functions]


@flags_kept()
def compile_slot(slots: Slots, index: int) -> None:
    """Make the loop of a slot ready to run, or fetch the routine that it asks for."""
    if index < 0:
        raise RuntimeError("fastrelu: a compiled loop asks again and again for what it has got; please report it")
    operation, dtype, slot = slots[index]
    target = targets.of_loops()
    # Read once: other threads' calls of the same loop write their own wishes here. One that is lost so is made again.
    wanted, slot.wants = slot.wants, 0
    if wanted == OWNER:
        layers.own()
        return
    if wanted == LAUNCHER:
        layers.start_here()

    def work() -> None:
        if wanted:
            provide(target, WISHES[wanted])
        if not slot.loop:
            slot.kernel = kernel_address(operation, dtype)
            slot.loop = _routine("loop")

    try:
        locked(work)
    except Exception:
        if not sys.is_finalizing():
            raise
        slot.loop = interpreted.loop(operation, dtype)


def locked(work: Callable[[], T]) -> T:
    """Compile something under Numba's compiler lock, out of reach of Ctrl-C.

    An exception in the middle of filling Numba's tables of types would leave the process unable to compile anything.
    So a thread of ours does the work. Ctrl-C ends the wait for it, at once, and what was being compiled is ready for
    the next call.
    """

    @flags_kept()
    def compiling() -> T:
        numba_import.import_numba()
        from numba.core.compiler_lock import global_compiler_lock

        # Numba's own lock: a second one around it would invite a deadlock with a thread that compiles other code
        with global_compiler_lock:
            result = work()
        numba_import.hold_numba()
        return result

    return compiling() if numba_import.compiling_here() else threads.elsewhere("fastrelu-compile", compiling)


def provide(target: str, *routines: str) -> None:
    """Compile routines for a target's table; the launcher, or forbid parallel runs where there is none.

    The caller holds Numba's compiler lock.
    """
    table = tuning.settings.tables[target]
    for routine in routines:
        if routine == "launcher":
            reason = layers.unavailable()
            if reason is None and target == "auto":
                reason = layers.pointless()
            if reason is None:
                # Loading a cached function that calls parallel code needs the symbols of the running threading layer
                layers.start()
            elif target == "auto":
                table.allowed = 0
                routine = "run_job"
            else:
                layers.refuse(reason)
        if routine in ("launcher", "run_job"):
            table.run_tile = _routine("run_tile")
            table.run_job = _routine("run_job")
        setattr(table, routine, _routine(routine))


def for_job(operation: str, dtype: np.dtype, target: str, parallel: bool) -> int:
    """Make sure that a table can run a job, and return the kernel's address."""
    table = tuning.settings.tables[target]
    routines = _tile_routine(operation), "launcher" if parallel else "run_job"
    missing = [routine for routine in routines if not getattr(table, routine)]
    if "launcher" in missing:
        layers.start_here()
    if missing:
        locked(lambda: provide(target, *missing))
    return _kernel_of_jobs(operation, dtype)


@functools.cache
def _kernel_of_jobs(operation: str, dtype: np.dtype) -> int:
    """Return a kernel's address, for which the caller need not hold the lock."""
    return locked(lambda: kernel_address(operation, dtype))


def _tile_routine(operation: str) -> str:
    """Return the routine that runs an operation's tiles, beside the common one."""
    row = ROWS[operation]
    return "run_bitmask_tile" if row.has_bitmask else "run_cyclic_tile" if row.sums else "run_tile"


def warm(operation: str, dtype: np.dtype) -> None:
    """Compile the kernel of an operation for a type, and the loop that calls it."""
    locked(lambda: (kernel_address(operation, dtype), _routine("loop")))


def warm_routines(operations: Sequence[str]) -> None:
    """Compile what large arrays need, and what runs the tiles of some functions."""
    layers.start_here()

    def work() -> None:
        recycler()
        for target in tuning.settings.tables:
            starts = "run_job" if target == "serial" or layers.unavailable() else "launcher"
            provide(target, "large", *{*map(_tile_routine, operations)}, starts)

    locked(work)
