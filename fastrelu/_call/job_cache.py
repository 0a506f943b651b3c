"""Calls on arrays that are laid out like those of an earlier call.

Planning a job for the driver takes 60 to 100 us of Python and `numpy.nditer`, and all of it follows from types, shapes
and strides. So jobs are kept, and the next call that looks the same fills in its addresses: some 10 us.
"""

import ctypes
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._kernels.records import ALLOWED, AXES, AXIS, JOB_HEAD, RUN_JOB, SHARED
from .._operations import ROWS
from .._runtime import allocation, layers, tuning

#: So many jobs are kept; then all are dropped, which costs the next call of each kind its plan.
KEPT = 1024

Key = tuple[Any, ...]

_job_type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@functools.cache
def _runner(address: int) -> Any:
    return _job_type(address)


def start(job: Any, table: np.ndarray, parallel: bool) -> None:
    """Run a job: on all threads if that is wanted and still allowed, as it is not in a forked child, say."""
    if parallel and not table[SHARED]:
        layers.require()
    elif parallel:
        parallel = bool(table[ALLOWED]) and layers.own()
    _runner(int(table[RUN_JOB]))(job, table.ctypes.data, parallel)


class _New(NamedTuple):
    """An output that the call allocates: its type, and the shape and order of its axes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    axes: Sequence[int]
    nbytes: int


class _Known(NamedTuple):
    words: Any
    job: bytes
    #: Where in a job the first operand's address is, and how far the next one's is from it
    place: int
    step: int
    table: np.ndarray
    parallel: bool
    dtype: np.dtype
    #: From an array's own address to where the job begins in it: the other end, where a stride is negative
    offsets: Sequence[int]
    new: Sequence[_New | None]


_known: dict[Key, _Known] = {}


def key(name: str, operands: Iterable[Any], outputs: Iterable[Any], target: str | None) -> Key | None:
    """Return what a call's job follows from, or None where that is more than layouts."""
    if not (target is None or type(target) is str):
        return None
    parts: list[Any] = [name, target, tuning.settings.generation]
    outputs = tuple(outputs)
    for k, out in enumerate(outputs):
        if out is None:
            parts.append(None)
        elif type(out) is np.ndarray and out.flags.writeable:
            if any(other is not None and np.may_share_memory(out, other) for other in outputs[:k]):
                return None
            parts += out.dtype, out.shape, out.strides
        else:
            return None
    for operand, value in zip(ROWS[name].operands, operands, strict=True):
        if type(value) is np.ndarray:
            for k, out in enumerate(outputs):
                if value is out:
                    parts.append(k)
                elif out is not None and np.may_share_memory(value, out):
                    return None
            parts += value.dtype, value.shape, value.strides
        elif type(value) is float and operand.kind == "parameter":
            parts.append(float)
        else:
            return None
    return tuple(parts)


def run(key: Key, operands: Iterable[Any], outputs: Iterable[Any]) -> list[np.ndarray] | None:
    """Run a call whose key is known; return its outputs, else None."""
    known = _known.get(key)
    if known is None:
        return None
    results = [
        out if new is None else allocation.allocate(new.nbytes, np.empty, new.shape, new.dtype).transpose(new.axes)
        for new, out in zip(known.new, outputs, strict=True)
    ]
    arrays = [value if type(value) is np.ndarray else _number(value, known.dtype) for value in operands]
    job = known.words.from_buffer_copy(known.job)
    place = known.place
    for array, offset in zip((*arrays, *results), known.offsets, strict=True):
        job[place] = array.ctypes.data + offset
        place += known.step
    start(job, known.table, known.parallel)
    return results


def _number(value: float, dtype: np.dtype) -> np.ndarray:
    with np.errstate(all="ignore"):  # a slope too large for float16 is infinite
        return np.array(value, dtype)


def remember(
    key: Key, job: np.ndarray, arrays: Sequence[np.ndarray], outputs: Sequence[Any], table: np.ndarray, parallel: bool
) -> None:
    """Keep a job that was made for these arrays; the last ones are the outputs, None for those that were allocated."""
    new: list[_New | None] = []
    for given, result in zip(outputs, arrays[len(arrays) - len(outputs) :], strict=True):
        new.append(None if given is not None else _layout_of(result))
        if given is None and new[-1] is None:
            return
    axes_of_job = int(job[AXES])
    place, step = JOB_HEAD + AXIS * axes_of_job, axes_of_job + 1
    offsets = [int(job[place + step * k]) - array.ctypes.data for k, array in enumerate(arrays)]
    if len(_known) >= KEPT:
        _known.clear()
    words = ctypes.c_int64 * len(job)
    dtype = arrays[-1].dtype
    _known[key] = _Known(words, job.tobytes(), place, step, table, parallel, dtype, offsets, new)


def _layout_of(array: np.ndarray) -> _New | None:
    """Return how to allocate an array like this one, or None where a new one would have other strides."""
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    shape = tuple(array.shape[axis] for axis in axes)
    back = tuple(sorted(range(array.ndim), key=axes.__getitem__))  # (NumPy 2.0's argsort raises a floating-point flag)
    alike = np.empty(shape, array.dtype).transpose(back).strides == array.strides
    return _New(array.dtype, shape, back, array.nbytes) if alike else None
