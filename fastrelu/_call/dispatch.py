"""One call, from its arguments to the code that runs it. `plan` decides; `call` does; `explain` shows the plan."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .. import ufuncs
from .._arrays import classify, host_libraries
from .._kernels.records import TEAMS
from .._operations import FLOATS, ROWS
from .._runtime import layers, targets, tuning
from .._runtime.dtypes import BFLOAT16, spelled_out
from .._runtime.ufunc_objects import hidden
from . import containers, errors, job_cache, large
from .executors import executor

#: Bytes of output from which a call that NumPy would cut up becomes a job, whose own 10 us (60 to 100 the first
#: time) it must outweigh.
LARGE_BYTES = 1 << 16
#: Bytes of output from which conversions run on threads of Python. At 16 MB two of them took 0.90 of the time of one
#: (byte-swapped float32), at 32 MB 0.73 (int8 to float64), on a quiet Intel Xeon with AMX, 2026-11-21; beside other
#: programs they lost at 16 MB.
CONVERT_BYTES = 1 << 24


class Plan(NamedTuple):
    """How one call will run."""

    path: str  # "ufunc", "job", "convert", "override", "device" or "host to device"
    target: str
    store: str = "plain"
    refused: Mapping[str, str] = MappingProxyType({})
    operands: Sequence[Any] = ()
    dtype: np.dtype | None = None
    table: str = "auto"


#: What `out` is where it is not given. To NumPy, ``out=None`` says that unwritten memory is wanted, where `where` is.
ABSENT: Any = np._NoValue  # which stays itself when we are reloaded


@hidden
def call(name: str, operands: Sequence[Any], out: Any, target: str | None, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on its operands, parameters included."""
    target = targets.chosen(target, name)
    if kwargs:
        errors.check_keywords(name, kwargs)
    given = out
    if out is ABSENT:
        out = None
    quick = _quick.get(type(operands[0]))
    if quick is not None and not kwargs and target in (None, "cuda"):
        result = quick(name, operands, out)
        if result is not None:
            return result
    if target == "parallel":
        layers.require_team()
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    operands = as_floats(name, operands)
    # Where the first of the data is of NumPy's own floats, nothing is bfloat16 but by request
    if BFLOAT16 is not None and (
        kwargs or not (issubclass(type(operands[0]), (np.ndarray, np.generic)) and operands[0].dtype in _LOOPS)
    ):
        operands, kwargs = spelled_out(ufuncs.of(name), operands, kwargs)
    table = _settled(operands, out, target) if not kwargs else None
    if table is not None:
        # What `plan` would find out in 10 us
        try:
            with np.errstate(all="ignore"), targets.forced(table):
                return ufuncs.of(name)(*operands, _output(name, operands) if out is None else out)
        except (TypeError, ValueError) as error:
            errors.refuse(name, operands, out, kwargs, error)
    key = None if kwargs else job_cache.key(name, operands, (out,), target)
    if key is not None and (results := job_cache.run(key, operands, (out,))) is not None:
        return results[0]
    if (foreign := host_libraries.enter(name, operands, out, kwargs)) is not None:
        into = foreign.out
        if into is None:
            arguments = spelled_out(ufuncs.of(name), foreign.operands, foreign.kwargs)
            try:
                into = foreign.allocate(ufuncs.loop_dtype(name, *arguments))
            except (TypeError, ValueError) as error:
                errors.refuse(name, foreign.operands, None, foreign.kwargs, error)
        call(name, foreign.operands, into, target, foreign.kwargs)
        return foreign.leave("out", into)
    todo = plan(name, operands, out, target, kwargs)
    if todo.path in ("device", "host to device"):
        if todo.path == "device" and (ways := executor("cuda").quick_for(operands[0])) is not None:
            _quick[type(operands[0])] = ways
        return executor("cuda").call(name, operands, out, todo.target, kwargs)
    options = kwargs if given is ABSENT else {**kwargs, "out": out}
    if todo.path == "override":
        with targets.forced(todo.table):
            return containers.call(name, ufuncs.of(name), operands, todo.table, options)
    try:
        if todo.path == "job":
            assert todo.dtype is not None
            return large.run(name, todo.operands, out, todo.dtype, todo.table, key)
        if todo.path == "convert":
            assert todo.dtype is not None
            return large.run_converting(ufuncs.of(name), todo.operands, out, todo.dtype)
        if not kwargs:
            options = {"out": _output(name, todo.operands) if out is None else out}
        with np.errstate(all="ignore"), targets.forced(todo.table):
            return ufuncs.of(name)(*todo.operands, **options)
    except (TypeError, ValueError) as error:
        errors.refuse(name, operands, out, kwargs, error)


def _output(name: str, operands: Sequence[Any]) -> np.ndarray | None:
    """Return an array for a large result of what may be recycled, or None, and NumPy allocates it."""
    first = operands[0]
    if type(first) is not np.ndarray or first.nbytes < tuning.settings.recycled_from:
        return None
    return large.new_output([np.asarray(value) for value in operands], ufuncs.loop_dtype(name, operands, {}))


def as_floats(name: str, operands: Iterable[Any]) -> list[Any]:
    """Return operands with Python's integers as parameters made floats.

    An integer as slope must not make NumPy choose a narrower loop for integers than a float does.
    """
    return [
        float(value) if type(value) in (int, bool) and operand.kind == "parameter" else value
        for value, operand in zip(operands, ROWS[name].operands, strict=True)
    ]


#: For types of device arrays met before: a function that serves plain calls with little Python.
_quick: dict[type, Callable[[str, Sequence[Any], Any], Any]] = {}


def _settled(operands: Sequence[Any], out: Any, target: str | None) -> str | None:
    """Return the ufunc's table for calls that no path but the ufunc can serve better, else None.

    Those are exact arrays and scalars, all small, or all alike and contiguous.
    """
    if target == "parallel":
        table = tuning.settings.tables["parallel"]
        if not (table.launcher and table.allowed):  # not started, or not any more
            return None
    elif target is not None and target != "serial":
        return None
    first = operands[0]
    some_large = some_small = fortran = False
    for value in (*operands, out):
        kind = type(value)
        if kind is np.ndarray:
            if value.nbytes < LARGE_BYTES:
                some_small = some_small or value.size != 1
                continue
            flags = value.flags
            fortran = fortran if some_large else not flags.c_contiguous
            some_large = True
            if not (
                type(first) is np.ndarray
                and (flags.f_contiguous if fortran else flags.c_contiguous)
                and value.dtype is first.dtype
                and value.shape == first.shape
                and (first.dtype in _LOOPS or first.dtype == BFLOAT16)
            ):
                return None
        elif value is out:
            if out is not None:
                return None
        elif kind is not float and kind is not int and not isinstance(value, np.generic):
            return None
    if some_large and some_small:  # a slope per column: NumPy would pass a row at a time
        return None
    return "auto" if target is None else target


#: Types that all operations have loops for.
_LOOPS = {np.dtype(code) for code in FLOATS}


#: Kinds of arrays that may be in host memory or on a GPU.
_FOREIGN = {"torch", "jax", "foreign"}


@hidden
def plan(name: str, operands: Sequence[Any], out: Any, target: str | None, kwargs: Mapping[str, Any]) -> Plan:
    """Decide how a call runs, or raise what it deserves. Runs, allocates and compiles nothing."""
    target = targets.chosen(target, name)
    values = (*operands, out, kwargs.get("where"))
    kinds = {classify.kind(value) for value in values}
    on_gpu = any_on_gpu(values, kinds)
    if not on_gpu:
        instead = "is not a NumPy array; convert it first, for instance with numpy.from_dlpack"
        _refuse(name, operands, out, _FOREIGN & kinds, instead)
    if on_gpu or target == "cuda":
        _refuse(name, operands, out, {"override"} & kinds, "does not run on a GPU")
        path, refused = executor("cuda").describe(name, (*operands, kwargs.get("where")), out, target)
        return Plan(path, "cuda", refused=refused, operands=operands)
    table = target or "auto"
    if target == "parallel":
        layers.require()
    if "override" in kinds:
        other = "this argument's own __array_ufunc__ decides"
        return Plan("override", target or "serial", refused={"parallel": other}, operands=operands, table=table)
    return _plan_host(name, operands, out, target, table, kwargs)


def any_on_gpu(values: Sequence[Any], kinds: set[str]) -> bool:
    """Say whether one of some values, which are of these kinds, is in the memory of a GPU."""
    return "device" in kinds or bool(
        _FOREIGN & kinds and any(executor("cuda").is_device_array(value) for value in values)
    )


def _refuse(name: str, operands: Sequence[Any], out: Any, kinds: set[str], why: str) -> None:
    """Raise TypeError if an argument is of one of these kinds."""
    for argument, value in zip((*ROWS[name].names, "out"), (*operands, out), strict=True):
        if kinds and classify.kind(value) in kinds:
            raise TypeError(f"{name}: {argument} is a {classify.type_name(value)}, which {why}")


def _plan_host(
    name: str, operands: Sequence[Any], out: Any, target: str | None, table: str, kwargs: Mapping[str, Any]
) -> Plan:
    """Decide for NumPy arrays, scalars and lists."""
    operands = errors.checked(name, operands, out)
    operands, kwargs = spelled_out(ufuncs.of(name), operands, kwargs)
    arrays = [np.asarray(value) for value in operands]
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        dtype = ufuncs.loop_dtype(name, operands, kwargs)
    except (TypeError, ValueError, RuntimeError):  # the ufunc says what is wrong with it, or takes more axes
        return Plan("ufunc", target or "serial", operands=operands, table=table)
    nbytes = math.prod(shape) * dtype.itemsize
    parallel, streaming = large.decide(arrays, out, math.prod(shape), dtype, table)
    of_type = all(
        array.dtype == dtype for array, value in zip(arrays, operands, strict=True) if classify.is_array(value)
    ) and (out is None or out.dtype == dtype)
    path, obstacle = "ufunc", ""
    if out is not None and not classify.disjoint(out):
        obstacle = "elements of the output are one in memory, which NumPy writes in its own order"
    elif of_type and _in_one_piece(name, arrays, out, shape):
        if kwargs.get("where", True) is not True:
            obstacle = "where= makes NumPy run each stretch of True by itself"
    elif kwargs:
        obstacle = f"with {', '.join(kwargs)}=, NumPy passes this call in pieces of at most 8,192 elements"
    elif of_type and nbytes >= LARGE_BYTES:
        path = "job"
        streaming = streaming and (out is None or bool(out.flags.c_contiguous or out.flags.f_contiguous))
    elif parallel and nbytes >= CONVERT_BYTES and not _overlapping(arrays, out) and not layers.unavailable():
        path, streaming = "convert", False
    else:
        obstacle = (
            f"NumPy passes this call in pieces of at most 8,192 elements, and {nbytes:,} bytes of output "
            "do not pay for more"
        )
    parallel, streaming = parallel and not obstacle, streaming and not obstacle
    if path != "ufunc":  # scalars become arrays of the loop's type, as NumPy would convert them
        with np.errstate(all="ignore"):
            operands = [
                array if classify.is_array(value) else np.array(value, dtype)
                for array, value in zip(arrays, operands, strict=True)
            ]
    return Plan(
        path,
        "parallel" if parallel or target == "parallel" else "serial",
        "streaming" if streaming else "plain",
        reasons(target, parallel, streaming, obstacle, path, nbytes),
        operands,
        dtype,
        table,
    )


def _in_one_piece(name: str, arrays: Sequence[np.ndarray], out: np.ndarray | None, shape: tuple[int, ...]) -> bool:
    """Say whether NumPy hands these arrays to the loop whole, rather than in pieces copied to its buffers."""
    full = list(arrays[: len(ROWS[name].data)])
    full += [array for array in arrays if array.size != 1] + ([] if out is None else [out])
    if any(array.shape != shape or not array.flags.aligned for array in full):
        return False
    return (
        len(shape) <= 1
        or all(array.flags.c_contiguous for array in full)
        or all(array.flags.f_contiguous for array in full)
    )


def _overlapping(arrays: Sequence[np.ndarray], out: np.ndarray | None) -> bool:
    return out is not None and any(np.may_share_memory(out, array) for array in arrays)


def reasons(
    target: str | None, parallel: bool, streaming: bool, obstacle: str, path: str, nbytes: int
) -> dict[str, str]:
    """Say for each choice that was not made why not."""
    settings = tuning.settings
    reasons = {"cuda": "the data is in host memory; target='cuda' copies it to the GPU and back"}
    if parallel:
        bound = f"at least parallel_min_bytes = {settings.parallel_min_bytes:,} bytes are moved"
        reasons["serial"] = "the target is forced" if target else bound
    elif target:
        reasons["serial" if target == "parallel" else "parallel"] = "the target is forced"
    elif not settings.tables["auto"].allowed:
        reasons["parallel"] = layers.unavailable() or layers.pointless() or "threads cannot be used here"
    elif not layers.has_room(settings.tables["auto"]):
        reasons["parallel"] = (
            f"{TEAMS} other threads of this program have run calls in parallel, each on threads of its own"
        )
    else:
        bound = f"fewer than parallel_min_bytes = {settings.parallel_min_bytes:,} bytes are moved"
        reasons["parallel"] = obstacle or bound
    if streaming:
        bound = f"at least streaming_min_bytes = {settings.streaming_min_bytes:,} bytes are written"
        reasons["plain"] = f"{bound}, unless the system has yet to supply their memory"
    elif path == "convert":
        reasons["streaming"] = "NumPy converts the input through its buffers"
    elif nbytes < settings.streaming_min_bytes:
        bound = f"fewer than streaming_min_bytes = {settings.streaming_min_bytes:,} bytes are written"
        reasons["streaming"] = obstacle or bound
    else:
        reasons["streaming"] = obstacle or "the output is an input or not contiguous"
    return reasons


@dataclass(frozen=True)
class Explanation:
    """Where a call would run, with which stores, and why not otherwise."""

    target: str
    store: str
    refused: dict[str, str]

    def __str__(self) -> str:
        lines = [f"runs on: {self.target}, {self.store} stores"]
        lines += [f"not {choice}: {reason}" for choice, reason in self.refused.items()]
        return "\n".join(lines)


def explanation(target: str, store: str, refused: Mapping[str, str]) -> Explanation:
    """Return an explanation without reasons against what was chosen."""
    return Explanation(target, store, {choice: why for choice, why in refused.items() if choice not in (target, store)})


@hidden
def explain(
    name: str, operands: Sequence[Any], out: Any, target: str | None, kwargs: Mapping[str, Any]
) -> Explanation:  # fmt: skip
    """Say where a call of a ufunc would run, or raise what it would."""
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    errors.check_keywords(name, kwargs)
    if (foreign := host_libraries.enter(name, operands, out, kwargs)) is not None:
        operands, out, kwargs = foreign.operands, foreign.out, foreign.kwargs
    todo = plan(name, operands, out, target, kwargs)
    if all(classify.kind(value) == "host" for value in (*operands, out)) and todo.target != "cuda":
        errors.check_call(name, operands, out, kwargs)
    return explanation(todo.target, todo.store, todo.refused)
