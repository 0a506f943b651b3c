"""Functions that do more in a pass over memory than a ufunc can: what their calls have in common.

A `Pass` is one call on arrays in host memory, of NumPy, PyTorch or JAX. Making it checks all arguments and decides how
it runs, `explain` shows that, and `run` does it. Masks, counts and gradients of slopes are kinds of it.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import ufuncs
from .._arrays import classify, host_libraries
from .._kernels.records import Job
from .._runtime import compiler, layers, targets, tuning
from .._runtime.dtypes import spelled_out
from .._runtime.jobs import describe
from . import errors, job_cache, large
from .dispatch import Explanation, explanation, reasons

Arguments = Mapping[str, Any]


class _NumPy(host_libraries.Library):
    """Arrays of NumPy, and numbers and lists. Others would come back as something else, and are refused."""

    def view(self, name: str, argument: str, value: Any) -> Any:
        _refuse(name, argument, value)
        return classify.checked(name, argument, value)

    def writable(self, name: str, argument: str, value: Any) -> np.ndarray:
        _refuse(name, argument, value)
        if not classify.is_array(value):
            raise TypeError(f"{name}: {argument} must be an array, not {classify.type_name(value)}")
        if not value.flags.writeable:
            raise ValueError(f"{name}: {argument} is read-only")
        return value

    def empty(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, order: str, like: Any, some: Any
    ) -> tuple[Any, np.ndarray]:
        return None, large.new_output([np.asarray(like)], dtype) if classify.is_array(like) else np.empty(shape, dtype)

    def finish(self, result: Any, out: np.ndarray) -> Any:
        return out if out.ndim else out[()]


class Pass(host_libraries.HostCall):
    """One call: `views` are its operands, of the loop's type and of one shape; `out` is where a given output lies."""

    plain = _NumPy()

    def __init__(
        self, name: str, inputs: Arguments, outputs: Arguments, target: str | None, **options: Any
    ) -> None:  # fmt: skip
        super().__init__(name, inputs, outputs)
        self.options = options
        self.shape = np.shape(self.inputs[self.row.names[0]])
        operands = self.row.operands_of_ufunc(self.inputs)
        arguments = spelled_out(ufuncs.of(self.row.like), operands, {})
        self.dtype = ufuncs.loop_dtype(self.row.like, *arguments)
        self.views = [self._view(each.name) for each in self.row.operands if each.kind != "bitmask"]
        self.out = self.outputs.get("out") if self.row.writes_result else None
        self.check()
        self.target = targets.chosen(target, name)
        if self.target == "parallel":
            layers.require()
        self.table = "auto" if self.target in (None, "cuda") else self.target
        size = self.views[0].size
        self.parallel, streaming = large.decide(self.views, self.out, size, self.dtype, self.table)
        self.streaming = streaming and self.row.writes_result

    def check(self) -> None:
        """Raise what the arguments deserve."""
        if self.out is not None:
            check_out(self.name, self.out, self.shape, self.dtype)

    def check_apart(self, argument: str, memory: np.ndarray) -> None:
        """Raise ValueError if an output shares memory with an input, with `out`, or with itself."""
        if not classify.disjoint(memory):
            raise shared(self.name, argument)
        # The inputs as they are given: views of other types are copies by now
        for other in (*self.inputs.values(), self.out):
            if classify.is_array(other) and np.may_share_memory(memory, other):
                raise shared(self.name, argument)

    def writable(self, out: np.ndarray) -> np.ndarray:
        """Return an output that kernels can write to, who write their own type and each element once, or a new one."""
        return out if out.dtype == self.dtype and classify.disjoint(out) else np.empty(self.shape, self.dtype)

    def run(self, key: job_cache.Key | None = None) -> Any:
        """Do it, and return what the caller gets; keep the job for calls with the same key."""
        raise NotImplementedError

    def explain(self) -> Explanation:
        """Say where it would run."""
        nbytes = self.views[0].size * self.dtype.itemsize
        refused = reasons(self.target, self.parallel, self.streaming, "", "job", nbytes)
        where = "parallel" if self.parallel or self.target == "parallel" else "serial"
        return explanation(where, "streaming" if self.streaming else "plain", refused)

    def _view(self, argument: str) -> np.ndarray:
        """Return an operand in the loop's type, converted silently if need be, and in the shape of the data."""
        with np.errstate(all="ignore"):
            array = np.asarray(self.inputs[argument], self.dtype)
        # (broadcasting would change the strides of axes of length 1)
        return array if array.shape == self.shape else errors.broadcast(self.name, argument, array, self.shape)

    def output(self, argument: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an output's memory, laid out like the data where it has its shape."""
        return self.memory(argument, shape, dtype, self.row.names[0] if shape == self.shape else None)

    def start(self, job: Job, arrays: Sequence[np.ndarray], key: job_cache.Key | None) -> None:
        """Run a job on arrays, and keep it if they are the caller's own or were allocated for him."""
        table = tuning.settings.tables[self.table]
        given = [value if classify.is_array(value) else None for value in self.given.values()]
        if (
            key is not None
            and self.shape
            and all(
                value is None or value.ctypes.data == array.ctypes.data
                for value, array in zip(given, arrays, strict=True)
            )
        ):
            job_cache.remember(key, job, arrays, given[len(self.inputs) :], table, self.parallel)
        job_cache.start(job, table, self.parallel)

    def job(self, run_tile: str, *layout: Any, **options: Any) -> Job:
        """Return a job whose tiles are run by the routine of that name; the rest is for `describe`."""
        kernel = compiler.for_job(self.name, self.dtype, self.table, self.parallel)
        routine = getattr(tuning.settings.tables[self.table], run_tile)
        return describe(routine, kernel, self.dtype.itemsize, *layout, **options)


def check_out(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise what an output deserves that does not take a result of a shape and a type."""
    if out.shape != shape:
        raise errors.wrong_shape(name, out.shape, shape)
    errors.check_cast(name, dtype, "out is", out.dtype)


def shared(name: str, argument: str) -> ValueError:
    """Return the error for an output that would be written over another argument."""
    return ValueError(f"{name}: {argument} shares memory with another argument")


def _refuse(name: str, argument: str, value: Any) -> None:
    """Raise TypeError for an array that would come back as something else."""
    plain = classify.is_array(value) and type(value).__array_ufunc__ is np.ndarray.__array_ufunc__
    masked = "numpy.ma" in sys.modules and isinstance(value, np.ma.MaskedArray)
    if masked or (classify.kind(value) in ("override", "foreign") and not plain):
        raise TypeError(
            f"{name}: {argument} is a {classify.type_name(value)}; accepted are arrays of NumPy, PyTorch, JAX and "
            "Dask, and of CuPy and Numba on a GPU: pass the array that it holds"
        )


def apart(array: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return an array, or a copy of it where writing `out` would change what is still to be read."""
    same = array.ctypes.data == out.ctypes.data and array.strides == out.strides
    if (same and array.dtype == out.dtype) or not np.may_share_memory(array, out):
        return array
    return array.copy()


def put(out: np.ndarray, result: np.ndarray) -> None:
    """Write a result where it goes, if it is not there."""
    if result is not out:
        with np.errstate(all="ignore"):
            np.copyto(out, result, casting="unsafe")
