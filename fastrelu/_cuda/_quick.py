"""The shortest way for the commonest calls: whole contiguous arrays of torch or CuPy, parameters plain numbers.

On a small array the host's work is the whole cost of a call, and the general way looks at every stride. This one asks
each array five questions and launches. What it does not recognise, errors included, it leaves alone.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import _torch
from .._operations import DATA, OPERATIONS
from . import NOT_QUICK, _driver, _libraries, _settings, _types
from ._access import VECTOR_BYTES
from ._call import _limit, _number
from ._kernels import Spec
from ._launch import Prepared, prepared
from ._layout import flat_grid

#: Address, number of elements, dtype and device of an array; None for one that is not plain.
_Facts = tuple[int, int, np.dtype, int] | None

_DATA_COUNT = {name: sum(operand in DATA for operand in operands) for name, operands in OPERATIONS.items()}


class _Ways:
    """How to ask the arrays of one library."""

    def __init__(
        self, library: _libraries.Library, facts: Callable[[Any], _Facts], new: Callable[[Any], Any],
        stream: Callable[[int], int],
    ) -> None:  # fmt: skip
        self.library, self.facts, self.new, self.stream = library, facts, new, stream
        self.attempt: Callable[[str, Sequence[Any], Any], Any] = functools.partial(attempt, self)


def _torch_ways() -> _Ways:
    torch: Any = sys.modules["torch"]
    dtypes = _torch.dtypes()

    def facts(value: Any) -> _Facts:
        if value.requires_grad or not value.is_cuda or not value.is_contiguous() or value.is_neg():
            return None
        dtype = dtypes.get(value.dtype)
        return None if dtype is None else (value.data_ptr(), value.numel(), dtype, value.get_device())

    return _Ways(_libraries.TORCH, facts, torch.empty_like, _libraries.TORCH.stream)


def _cupy_ways() -> _Ways:
    cupy: Any = sys.modules["cupy"]
    current = cupy.cuda.get_current_stream

    def facts(value: Any) -> _Facts:
        if not value.flags.c_contiguous:
            return None
        memory = value.data
        return memory.ptr, value.size, value.dtype, memory.device_id

    def new(value: Any) -> Any:
        # on the array's device, which must be the current one: with several, the general way takes care of that
        return cupy.empty_like(value)

    return _Ways(_libraries.CUPY, facts, new, lambda device: current().ptr)


@functools.lru_cache(maxsize=4096)
def _rounded(value: float, dtype: np.dtype) -> Any:
    return _number(value, dtype)


@functools.lru_cache(maxsize=1024)
def _kernels(name: str, dtype: np.dtype, most: int) -> tuple[Prepared, Prepared] | None:
    """Return the launches with one load in flight and with most; None for a type that NumPy would promote."""
    code = _types.code_of(dtype)
    if code is None or (name != "relu" and not _types.is_float(dtype)):
        return None
    arrays = _DATA_COUNT[name]
    scalars = len(OPERATIONS[name]) - arrays
    roles, stored = ("array",) * arrays + ("scalar",) * scalars, (code,) * arrays + ("",) * scalars
    few, many = (prepared(Spec(name, code, roles, stored, code, count)) for count in (1, most))
    return few, many


def attempt(ways: _Ways, name: str, operands: Sequence[Any], out: Any) -> Any:
    """Run a call of the common kind; return `NOT_QUICK`, having done nothing, for any other."""
    first = operands[0]
    facts = ways.facts(first)
    if facts is None:
        return NOT_QUICK
    pointer, n, dtype, device = facts
    launches = _kernels(name, dtype, _settings.VECTORS)
    if launches is None or not n:
        return NOT_QUICK
    pointers = [pointer]
    count = _DATA_COUNT[name]
    if count == 2:
        second = operands[1]
        if type(second) is not type(first) or second.shape != first.shape:
            return NOT_QUICK
        other = ways.facts(second)
        if other is None or other[2] != dtype or other[3] != device:
            return NOT_QUICK
        pointers.append(other[0])
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
        result = ways.new(first)
        place = ways.facts(result)
        if place is None:
            return NOT_QUICK
        target = place[0]
    elif out is first:
        result, target = out, pointer
    else:
        if type(out) is not type(first) or out.shape != first.shape:
            return NOT_QUICK
        place = ways.facts(out)
        if place is None or place[2] != dtype or place[3] != device:
            return NOT_QUICK
        result, target = out, place[0]
    size = dtype.itemsize
    for each in pointers:
        # aligned alike, and the very output or all of it elsewhere
        if (each - target) % VECTOR_BYTES or (each != target and abs(each - target) < n * size):
            return NOT_QUICK
    head = -target % VECTOR_BYTES // size
    if head > n:
        return NOT_QUICK
    block, many = _settings.BLOCK, _settings.VECTORS
    vectors = (n - head) * size // VECTOR_BYTES
    full = vectors >= _driver.get().multiprocessors(device) * _settings.FILL * block * many
    grid = flat_grid(vectors, block, many if full else 1, _limit())
    launches[full](
        grid, ways.stream(device), device, *pointers, target, n, head, *scalars
    )  # fmt: skip
    if out is not None:
        ways.library.written(out)
    return result


_ways: dict[type, _Ways] = {}


def ways_for(value: Any) -> _Ways | None:
    """Return how to ask an array; None for arrays without a short way."""
    kind = type(value)
    found = _ways.get(kind)
    if found is None:
        torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
        if kind is getattr(torch, "Tensor", None):
            found = _torch_ways()
        elif kind is getattr(cupy, "ndarray", None) and _driver.get().count() == 1:
            found = _cupy_ways()
        else:
            return None
        _ways[kind] = found
    return found
