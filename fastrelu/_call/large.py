"""Large host arrays that NumPy would cut into buffers of 8,192 elements: strided, transposed, broadcast, converted.

`numpy.nditer` does here what it does inside a ufunc call: broadcasting, sorting and joining axes, copying
where the output overlaps an input, allocating the output in the layout that the ufunc would give it.
"""

import contextvars
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._kernels.choose import choose
from .._kernels.records import TILE_BYTES, Job
from .._runtime import allocation, compiler, layers, targets, threads, tuning
from .._runtime.jobs import describe
from . import job_cache

#: Elements per side of the tiles in which arrays of different memory order are run.
TILE_SIDE = 64
#: An innermost axis shorter than this gives its place to the longest one.
SHORT = 16

_INPUT = ["readonly", "overlap_assume_elementwise"]
_OUTPUT = ["writeonly", "allocate", "no_broadcast", "no_subtype", "overlap_assume_elementwise"]


def iterate(operands: Sequence[np.ndarray], out: np.ndarray | None, dtype: np.dtype) -> Any:
    """Return NumPy's own plan of an element-wise call, with the output allocated if there is none."""
    nditer: Any = np.nditer
    return allocation.allocate(
        max(operand.size for operand in operands) * dtype.itemsize if out is None else 0,
        nditer,
        [*operands, out],
        flags=["copy_if_overlap", "zerosize_ok"],
        op_flags=[_INPUT] * len(operands) + [_OUTPUT],
        op_dtypes=[None] * len(operands) + [dtype],
        casting="same_kind",
        order="K",
    )


def new_output(operands: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Return an array for a result, in the layout that the ufunc would give it."""
    with iterate(operands, None, dtype) as iterator:
        result: np.ndarray = iterator.operands[-1]
    return result


def _axes_and_blocks(views: Sequence[np.ndarray], itemsize: int) -> tuple[list[int], list[int]]:
    """Choose the order of the axes, and how much of each one tile covers.

    The last axis is the kernel's. Where an operand is contiguous along another one, as in a transposition, that axis
    comes next and tiles are squares, so that each cache line is used up while it is there.
    """
    shape = views[0].shape
    order = list(range(len(shape)))
    if shape[-1] < SHORT:
        order.append(order.pop(max(order, key=lambda axis: shape[axis])))
    inner = order.pop()
    most = TILE_BYTES // itemsize
    crossing = {
        min(axes, key=lambda axis: abs(view.strides[axis]))
        for view in views
        # One that does not change along the inner axis, as a slope per channel, has no use for squares: with them,
        # images of 56 by 56 in 256 channels took 27 ms instead of 4 (leaky_relu_backward of 12,845,056 float32,
        # 2026-11-21)
        if view.strides[inner]
        and (axes := [axis for axis in (*order, inner) if shape[axis] > 1 and view.strides[axis]])
    } - {inner}
    if crossing:
        second = max(crossing, key=lambda axis: shape[axis])
        order.append(order.pop(order.index(second)))
        last = [min(shape[second], TILE_SIDE), min(shape[inner], TILE_SIDE)]
    else:
        columns = min(shape[inner], most)
        last = [min(shape[order[-1]], max(1, most // columns))] if order else []
        last.append(columns)
    return [*order, inner], [1] * (len(order) + 1 - len(last)) + last


def _describe(views: Sequence[np.ndarray], kernel: int, run_tile: int, streaming: bool) -> Job:
    """Return the job, as compiled code reads it."""
    itemsize = views[-1].itemsize
    order, blocks = _axes_and_blocks(views, itemsize)
    shape = [views[0].shape[axis] for axis in order]
    strides = [[view.strides[axis] for axis in order] for view in views]
    addresses = [view.__array_interface__["data"][0] for view in views]
    return describe(run_tile, kernel, itemsize, streaming, shape, blocks, addresses, strides)


def decide(
    operands: Sequence[np.ndarray], out: np.ndarray | None, size: int, dtype: np.dtype, target: str
) -> tuple[bool, bool]:
    """Return ``(parallel, streaming)`` as the compiled loop would for these operands."""
    table = tuning.settings.tables[target]
    moved = size * dtype.itemsize * (1 + sum(operand.size > 1 for operand in operands))
    overlapping = out is not None and any(np.may_share_memory(out, operand) for operand in operands)
    parallel, streaming = choose(
        moved,
        size * dtype.itemsize,
        not overlapping,
        bool(table.allowed) and layers.has_room(table),
        table.parallel_min,
        table.streaming_min,
    )
    return bool(parallel), bool(streaming)


def run(
    name: str,
    operands: Sequence[np.ndarray],
    out: np.ndarray | None,
    dtype: np.dtype,
    target: str,
    key: job_cache.Key | None = None,
) -> np.ndarray:
    """Run an operation on arrays that are of the loop's own type, and keep the job for calls with the same key."""
    table = tuning.settings.tables[target]
    with iterate(operands, out, dtype) as iterator:
        result: np.ndarray = iterator.operands[-1]
        if result.size == 0:
            return result if out is None else out
        parallel, streaming = decide(operands, out, result.size, dtype, target)
        kernel = compiler.for_job(name, dtype, target, parallel)
        views = iterator.itviews
        streaming = streaming and views[-1].strides[-1] == dtype.itemsize
        job = _describe(views, kernel, table.run_tile, streaming)
        copies = any(
            used is not given for used, given in zip(iterator.operands, (*operands, result if out is None else out))
        )
        if key is not None and not copies:
            job_cache.remember(key, job, iterator.operands, (out,), table, parallel)
        job_cache.start(job, table, parallel)
    return result if out is None else out


def run_converting(
    ufunc: np.ufunc, operands: Sequence[np.ndarray], out: np.ndarray | None, dtype: np.dtype
) -> np.ndarray:
    """Run a ufunc serially on pieces of arrays that NumPy must convert, a thread of Python each.

    NumPy converts through its buffers without holding the GIL. Threads are started for the call: at the sizes that
    come here (milliseconds of conversion) that costs a percent, and leaves no pool to survive forks and exits.
    """
    result = new_output(operands, dtype) if out is None else out
    if result.size == 0:  # nothing to share out; the ufunc still refuses what it does not take
        ufunc(*operands, out=result)
        return result
    operands = [np.broadcast_to(operand, result.shape) for operand in operands]
    axis = max(range(result.ndim), key=lambda k: (abs(result.strides[k]) * (result.shape[k] > 1), result.shape[k]))
    length = result.shape[axis]
    pieces = min(layers.thread_count(), length)
    borders = [length * k // pieces for k in range(pieces + 1)]
    failures: list[BaseException] = []

    def work(start: int, stop: int, done: threading.Event) -> None:
        where = (slice(None),) * axis + (slice(start, stop),)
        try:
            with np.errstate(all="ignore"), targets.forced("serial"):
                ufunc(*(operand[where] for operand in operands), out=result[where])
        except BaseException as error:  # handed to the caller's thread below
            failures.append(error)
        finally:
            done.set()

    tasks = [(*piece, threading.Event()) for piece in itertools.pairwise(borders)]
    mine = tasks[:1]
    started: list[threading.Event] = []
    try:
        for task in tasks[1:]:
            if threads.started("fastrelu-convert", contextvars.copy_context().run, work, *task):
                started.append(task[-1])
            else:
                mine.append(task)
        for task in mine:
            work(*task)
    except BaseException as error:  # Ctrl-C: the others must not go on writing after the call has ended
        failures.append(error)
    while started:
        try:
            started[-1].wait()
            started.pop()
        except BaseException as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return result
