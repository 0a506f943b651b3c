"""The shortest way for the commonest calls: whole contiguous arrays of torch, CuPy or Numba, parameters plain numbers.

On a small array the host's work is the whole cost of a call, and the general way looks at every stride. This one asks
each array a few questions, remembers what it launched for the same answers, and launches. What it does not recognise,
errors included, it leaves alone.

Microseconds per call on the host, with a driver that does nothing (`bench/cuda_host.py`; two-core Xeon, CPython 3.11,
2026-11-21): a launch 1.0, where Numba's own takes 18; `relu(x, out=y)` on torch's tensors 4.6 (5.7 before grids were
remembered), on Numba's arrays 5.2, where the general way took 55; that remembers plans since. Asking whether torch
records adds 0.1, and whether a tensor's storage is large enough 0.12 per tensor (torch 2.13, 2026-11-28).
"""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import tensors
from .._operations import ROWS, UFUNCS
from . import cuda_driver, dtypes, elementwise, launch_cache, libraries, settings
from .grids import Grid
from .launcher import Prepared, prepared
from .numba_cuda import SIMULATED, cuda
from .settings import VECTOR_BYTES
from .view import View

#: Address, number of elements, dtype and device of an array; None for one that is not plain.
_Facts = tuple[int, int, np.dtype, int] | None
#: ``quick(name, operands, out)``: runs a call of the common kind, or returns None.
Quick = Callable[[str, Sequence[Any], Any], Any]

_DATA_COUNT = {name: len(row.data) for name, row in UFUNCS.items()}


@dataclass
class Ways:
    """How to ask the arrays of one library."""

    library: libraries.Library
    facts: Callable[[Any], _Facts]
    #: Returns a device's stream.
    stream: Callable[[int], int]
    #: Returns a new array like a contiguous one, on the current GPU.
    like: Callable[[Any], Any]
    #: Says whether the library may be recording what is done.
    recording: Callable[[], bool] | None = None
    #: Notes that an array will be written to, if it may be.
    writing: Callable[[Any], bool] = lambda value: True


def _torch_ways() -> Ways:
    known = tensors.dtypes()
    torch: Any = sys.modules["torch"]
    forward, increment_version = torch.autograd.forward_ad, torch.autograd.graph.increment_version
    tracing, level = torch._C._is_tracing, torch._C._functorch.peek_interpreter_stack
    in_inference_mode, modes = torch.is_inference_mode_enabled, torch._C._len_torch_dispatch_stack
    symbolic = torch.fx._symbolic_trace

    def facts(value: Any) -> _Facts:
        # Each question costs some 40 ns. What is not asked: sparse tensors are not contiguous or raise; complex and
        # quantised ones have other dtypes; fake ones are of another type; those of torch.func raise, or are at no
        # address, as are tensors whose storage was freed; one that was shrunk is too small
        try:
            if (
                value.requires_grad or not value.is_cuda or not value.is_contiguous() or value.is_neg()
                or value.is_nested or forward._current_level >= 0
            ):  # fmt: skip
                return None
            dtype, n = known.get(value.dtype), value.numel()
            if dtype is None or (value.storage_offset() + n) * dtype.itemsize > value.untyped_storage().nbytes():
                return None
            return value.data_ptr(), n, dtype, value.get_device()
        except RuntimeError:
            return None

    def recording() -> bool:
        # The last is true in all threads while one of them records
        return tracing() or modes() or level() is not None or symbolic._is_fx_tracing_flag

    def writing(value: Any) -> bool:
        if value.is_inference():
            return bool(in_inference_mode())
        increment_version(value)
        return True

    return Ways(libraries.TORCH, facts, libraries.TORCH.stream, torch.empty_like, recording, writing)


def _cupy_ways() -> Ways:
    cupy: Any = sys.modules["cupy"]
    current = cupy.cuda.get_current_stream

    def facts(value: Any) -> _Facts:
        if not value.flags.c_contiguous:
            return None
        memory = value.data
        return memory.ptr, value.size, value.dtype, memory.device_id

    return Ways(libraries.CUPY, facts, lambda device: current().ptr, cupy.empty_like)


def _numba_ways() -> Ways:
    stream = libraries.NUMBA.stream

    def facts(value: Any) -> _Facts:
        interface = value.__cuda_array_interface__
        # its strides are None for broadcast arrays too
        if interface["stream"] or not value.is_c_contiguous():
            return None
        return interface["data"][0], value.size, value.dtype, 0

    def like(value: Any) -> Any:
        return cuda.device_array(value.shape, value.dtype)

    return Ways(libraries.NUMBA, facts, lambda device: stream, like)


@functools.lru_cache(maxsize=4096)
def _rounded(value: float, dtype: np.dtype) -> Any:
    return launch_cache.number(value, dtype)


@functools.lru_cache(maxsize=4096)
def _planned(
    name: str, dtype: np.dtype, n: int, offset: int, device: int, _settings: tuple[int, ...]
) -> tuple[Prepared, Grid, int] | None:
    """Return launch, grid and elements before the first vector, for an output that begins `offset` bytes into one.

    None for what NumPy would promote, for no elements, and for what is not aligned.
    """
    row, code = ROWS[name], dtypes.code_of(dtype)
    known = code is not None and (dtypes.is_float(dtype) or code in row.typecodes)
    if not known or not n or offset % dtype.itemsize:
        return None
    view = View(None, offset, (n,), (dtype.itemsize,), dtype, device, 0)
    operands = [view if operand.kind == "data" else 0.0 for operand in row.operands]
    ((spec, grid, values),) = elementwise.plan(name, dtype, [*operands, None, view])
    return prepared(spec), grid, values[len(row.data) + 2]  # after the addresses, the output's too, and `n`


def _address(ways: Ways, value: Any, first: Any, dtype: np.dtype, device: int) -> int | None:
    """Return the address of an array that is plain and just like the first one, None for others."""
    if type(value) is not type(first) or value.shape != first.shape:
        return None
    facts = ways.facts(value)
    # types mostly are the same object, which is quicker to ask than whether they are equal
    if facts is None or (facts[2] is not dtype and facts[2] != dtype) or facts[3] != device:
        return None
    return facts[0] or None


def attempt(ways: Ways, name: str, operands: Sequence[Any], out: Any) -> Any:
    """Run a call of the common kind; return None, having done nothing, for any other."""
    first = operands[0]
    if ways.recording is not None and ways.recording():
        return None
    facts = ways.facts(first)
    if facts is None:
        return None
    pointer, n, dtype, device = facts
    if not pointer:
        return None
    pointers = [pointer]
    count = _DATA_COUNT[name]
    if count == 2:
        other = _address(ways, operands[1], first, dtype, device)
        if other is None:
            return None
        pointers.append(other)
    # where new memory begins is looked at below
    target = 0 if out is None else pointer if out is first else _address(ways, out, first, dtype, device)
    if target is None:
        return None
    plan = _planned(name, dtype, n, target % VECTOR_BYTES, device, settings.of_launches())
    if plan is None:
        return None
    launch, grid, head = plan
    scalars = []
    for value in operands[count:]:
        if type(value) is not float and type(value) is not int:
            return None
        # float64 and float32 are rounded, to nearest, as they are packed; that refuses what is too large for float32.
        # A cache would not tell zeros of either sign apart, and a NaN not find itself.
        if dtype.itemsize != 8 and value and (dtype.itemsize == 2 or not -3e38 < value < 3e38):
            value = _rounded(value, dtype)
        scalars.append(float(value) if type(value) is int else value)
    if out is None:
        if any([each % VECTOR_BYTES for each in pointers]):
            return None
        try:
            result = ways.like(first)
        except Exception as error:
            if ways.library.ran_out(error):
                raise ways.library.no_memory(error) from None
            raise
        target = _address(ways, result, first, dtype, device)
        if target is None or target % VECTOR_BYTES:
            return None
    for each in pointers:
        # aligned alike, and the very output or all of it elsewhere
        if each != target and ((each - target) % VECTOR_BYTES or abs(each - target) < n * dtype.itemsize):
            return None
    if out is not None and not ways.writing(out):
        return None
    launch(grid, ways.stream(device), device, *pointers, target, n, head, *scalars)
    return result if out is None else out


_quick: dict[type, Quick] = {}


def quick_for(value: Any) -> Quick | None:
    """Return `attempt` for arrays of this type; None for libraries without such a way."""
    kind = type(value)
    found = _quick.get(kind)
    if found is None:
        torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
        if kind is getattr(torch, "Tensor", None):
            ways = _torch_ways()
        elif SIMULATED or cuda_driver.get().count() > 1:  # which GPU is the current one is for the general way
            return None
        elif kind is getattr(cupy, "ndarray", None):
            ways = _cupy_ways()
        elif libraries.library_of(value) is libraries.NUMBA and not isinstance(value, np.ndarray):
            ways = _numba_ways()
        else:
            return None
        found = _quick[kind] = functools.partial(attempt, ways)
    return found
