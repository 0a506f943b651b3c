"""The shortest way for the commonest calls: whole contiguous arrays of torch, CuPy or Numba, parameters plain numbers.

On a small array the host's work is the whole cost of a call, and the general way looks at every stride. This one asks
each array a few questions, remembers what it launched for the same answers, and launches. What it does not recognise,
errors included, it leaves alone.

Microseconds per call on the host, with a driver that does nothing (`bench/cuda_host.py`; two-core Xeon, CPython 3.11,
2026-11-21): a launch 1.0, where Numba's own takes 18; `relu(x, out=y)` on torch's tensors 4.6 (5.7 before grids were
remembered), on Numba's arrays 5.2, where the general way took 55; that remembers plans (`_again`) since. Asking whether
torch records adds 0.1, and whether a tensor's storage is large enough 0.12 per tensor (torch 2.13, 2026-11-28).
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays import tensors
from .._operations import DATA, OPERATIONS
from . import NOT_QUICK, cuda_driver, libraries
from . import dtypes as _types
from . import settings as _settings
from .elementwise import _number, contiguous_grid
from .grids import Grid
from .kernels import Spec
from .launcher import Prepared, prepared
from .numba_cuda import SIMULATED
from .settings import VECTOR_BYTES

#: Address, number of elements, dtype and device of an array; None for one that is not plain.
_Facts = tuple[int, int, np.dtype, int] | None

_DATA_COUNT = {name: sum(operand in DATA for operand in operands) for name, operands in OPERATIONS.items()}


class _Ways:
    """How to ask the arrays of one library."""

    def __init__(
        self, library: libraries.Library, facts: Callable[[Any], _Facts], stream: Callable[[int], int],
        recording: Callable[[], bool] | None = None, writing: Callable[[Any], bool] = lambda value: True,
    ) -> None:  # fmt: skip
        self.library, self.facts, self.stream = library, facts, stream
        #: Says whether the library may be recording what is done; notes that an array will be written to, if it may be.
        self.recording, self.writing = recording, writing
        self.attempt: Callable[[str, Sequence[Any], Any], Any] = functools.partial(attempt, self)


def _torch_ways() -> _Ways:
    dtypes = tensors.dtypes()
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
            dtype, n = dtypes.get(value.dtype), value.numel()
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

    return _Ways(libraries.TORCH, facts, libraries.TORCH.stream, recording, writing)


def _cupy_ways() -> _Ways:
    cupy: Any = sys.modules["cupy"]
    current = cupy.cuda.get_current_stream

    def facts(value: Any) -> _Facts:
        if not value.flags.c_contiguous:
            return None
        memory = value.data
        return memory.ptr, value.size, value.dtype, memory.device_id

    return _Ways(libraries.CUPY, facts, lambda device: current().ptr)


def _numba_ways() -> _Ways:
    stream = libraries.NUMBA.stream

    def facts(value: Any) -> _Facts:
        interface = value.__cuda_array_interface__
        # its strides are None for broadcast arrays too
        if interface["stream"] or not value.is_c_contiguous():
            return None
        return interface["data"][0], value.size, value.dtype, 0

    return _Ways(libraries.NUMBA, facts, lambda device: stream)


@functools.lru_cache(maxsize=4096)
def _rounded(value: float, dtype: np.dtype) -> Any:
    return _number(value, dtype)


@functools.lru_cache(maxsize=4096)
def _planned(
    name: str, dtype: np.dtype, n: int, offset: int, device: int, settings: tuple[int, ...]
) -> tuple[Prepared, Grid, int] | None:
    """Return launch, grid and elements before the first vector, for an output that begins `offset` bytes into one.

    None for what NumPy would promote, for no elements, and for what is not aligned.
    """
    code = _types.code_of(dtype)
    if code is None or (name != "relu" and not _types.is_float(dtype)) or not n or offset % dtype.itemsize:
        return None
    arrays = _DATA_COUNT[name]
    scalars = len(OPERATIONS[name]) - arrays
    head, loads, grid = contiguous_grid(offset, n, dtype.itemsize, device)
    roles, stored = ("array",) * arrays + ("scalar",) * scalars, (code,) * arrays + ("",) * scalars
    return prepared(Spec(name, code, roles, stored, code, loads)), grid, head


def _address(ways: _Ways, value: Any, first: Any, dtype: np.dtype, device: int) -> int | None:
    """Return the address of an array that is plain and just like the first one, None for others."""
    if type(value) is not type(first) or value.shape != first.shape:
        return None
    facts = ways.facts(value)
    # types mostly are the same object, which is quicker to ask than whether they are equal
    if facts is None or (facts[2] is not dtype and facts[2] != dtype) or facts[3] != device:
        return None
    return facts[0] or None


def attempt(ways: _Ways, name: str, operands: Sequence[Any], out: Any) -> Any:
    """Run a call of the common kind; return `NOT_QUICK`, having done nothing, for any other."""
    first = operands[0]
    if ways.recording is not None and ways.recording():
        return NOT_QUICK
    facts = ways.facts(first)
    if facts is None:
        return NOT_QUICK
    pointer, n, dtype, device = facts
    if not pointer:
        return NOT_QUICK
    pointers = [pointer]
    count = _DATA_COUNT[name]
    if count == 2:
        other = _address(ways, operands[1], first, dtype, device)
        if other is None:
            return NOT_QUICK
        pointers.append(other)
    # where new memory begins is looked at below
    target = 0 if out is None else pointer if out is first else _address(ways, out, first, dtype, device)
    if target is None:
        return NOT_QUICK
    plan = _planned(name, dtype, n, target % VECTOR_BYTES, device, _settings.of_launches())
    if plan is None:
        return NOT_QUICK
    launch, grid, head = plan
    scalars = []
    for value in operands[count:]:
        if type(value) is not float and type(value) is not int:
            return NOT_QUICK
        # float64 and float32 are rounded, to nearest, as they are packed; that refuses what is too large for float32.
        # A cache would not tell zeros of either sign apart, and a NaN not find itself.
        if dtype.itemsize != 8 and value and (dtype.itemsize == 2 or not -3e38 < value < 3e38):
            value = _rounded(value, dtype)
        scalars.append(float(value) if type(value) is int else value)
    if out is None:
        if any([each % VECTOR_BYTES for each in pointers]):
            return NOT_QUICK
        result = ways.library.like(first)
        target = _address(ways, result, first, dtype, device)
        if target is None or target % VECTOR_BYTES:
            return NOT_QUICK
    for each in pointers:
        # aligned alike, and the very output or all of it elsewhere
        if each != target and ((each - target) % VECTOR_BYTES or abs(each - target) < n * dtype.itemsize):
            return NOT_QUICK
    if out is not None and not ways.writing(out):
        return NOT_QUICK
    launch(grid, ways.stream(device), device, *pointers, target, n, head, *scalars)
    return result if out is None else out


_ways: dict[type, _Ways] = {}


def ways_for(value: Any) -> _Ways | None:
    """Return how to ask an array; None for arrays without a short way."""
    kind = type(value)
    found = _ways.get(kind)
    if found is None:
        torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
        if kind is getattr(torch, "Tensor", None):
            found = _torch_ways()
        elif SIMULATED or cuda_driver.get().count() > 1:  # which GPU is the current one is for the general way
            return None
        elif kind is getattr(cupy, "ndarray", None):
            found = _cupy_ways()
        elif libraries.library_of(value) is libraries.NUMBA and not isinstance(value, np.ndarray):
            found = _numba_ways()
        else:
            return None
        _ways[kind] = found
    return found
