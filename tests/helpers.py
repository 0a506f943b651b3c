"""Values, calls and targets that all tests share."""

import ctypes
import itertools
import math
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import fastrelu
from fastrelu._operations import UFUNCS, Operation
from fastrelu._runtime.targets import forced

try:
    from ml_dtypes import finfo
except ImportError:
    from numpy import finfo

FLOATS = ("float16", "float32", "float64")
#: With bfloat16 where ml_dtypes is installed.
ALL_FLOATS = FLOATS if finfo is np.finfo else (*FLOATS, "bfloat16")
INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
OPERATIONS = tuple(UFUNCS)
TARGETS = ("serial", "parallel", None)
BINARY = tuple(name for name, row in UFUNCS.items() if len(row.data) == 2)
#: Values of one parameter: a slope above 1, negative, zeros, not finite.
_ONE = {
    "negative_slope": [0.01, 1.5, -0.5, 0.0, -0.0, np.inf, np.nan, 1e-45, 1e300],
    "at_zero": [0.0, 0.5, -0.0, np.inf, np.nan],
}
#: Values of two.
_TWO = [(0.01, 0.01), (0.0, 0.0), (-2.0, 0.5), (np.inf, -0.0), (np.inf, np.nan)]


def _values(row: Operation) -> list[tuple[float, ...]]:
    if len(row.parameters) == 2:
        return _TWO
    return list(itertools.product(*(_ONE[each.name] for each in row.parameters)))


#: The parameters of each operation, in order, with values to try.
PARAMETERS: dict[str, list[tuple[float, ...]]] = {name: _values(row) for name, row in UFUNCS.items()}


def specials(dtype: Any) -> np.ndarray:
    """Return signed zeros, NaNs of both signs, infinities, subnormals and extremes of a type, and ordinary numbers."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([limits.min, limits.min + 1, 0, 1, 2, 3, limits.max - 1, limits.max], dtype=dtype)
    limits = finfo(dtype)
    some = [
        0.0,
        limits.smallest_subnormal,
        3 * limits.smallest_subnormal,
        limits.smallest_normal,
        limits.eps,
        0.1,
        1.0,
        1 / 3,
        7.0,
        float(limits.max),
        float(np.nextafter(limits.max, dtype.type(0))),
        np.inf,
        np.nan,
    ]
    values = np.array(some, dtype=dtype)
    with np.errstate(all="ignore"):
        return np.concatenate([values, -values])


def pairs(name: str, dtype: Any) -> list[np.ndarray]:
    """Return the data operands of an operation: all special values, or all pairs of them for grad and x."""
    values = specials(dtype)
    if name not in BINARY:
        return [values]
    grid = np.array(list(itertools.product(values, values)), dtype=dtype)
    return [np.ascontiguousarray(grid[:, 0]), np.ascontiguousarray(grid[:, 1])]


def spread(pattern: np.ndarray, n: int) -> np.ndarray:
    """Repeat a pattern to a length; 61 is prime to every vector width, so that values meet all lanes."""
    return np.resize(np.resize(pattern, max(61, pattern.size) | 1), n)


def placed(array: np.ndarray, offset: int) -> np.ndarray:
    """Return a copy that begins so many bytes after the beginning of a cache line."""
    raw = np.full(array.nbytes + 192, 0xA5, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


#: Ways to lie in memory: functions of an array of at least one axis.
LAYOUTS = {
    "C": lambda a: a.copy(),
    "F": np.asfortranarray,
    "swapped axes": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "negative": lambda a: a[::-1, ..., ::-1].copy()[::-1, ..., ::-1] if a.ndim > 1 else a[::-1].copy()[::-1],
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "unaligned": lambda a: placed(a, 1),
}


def guarded_page() -> np.ndarray:
    """Return a page of memory between two without access: who reads or writes there dies."""
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 3 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for guard in (start, start + 2 * page):
        assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(guard), page, 0) == 0
    return np.frombuffer(area, np.uint8)[page : 2 * page]


def at_edge(page: np.ndarray, shape: Sequence[int], dtype: Any, at_end: bool) -> np.ndarray:
    """Return an array at the beginning or at the end of a page."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return (page[page.size - nbytes :] if at_end else page[:nbytes]).view(dtype).reshape(shape)


def per_unit(values: Sequence[Any], shape: Sequence[int], axis: int | None) -> list[list[Any]]:
    """Return the list of each unit's values along an axis; one list with no axis."""
    if axis is None:
        return [list(values)]
    lists: list[list[Any]] = [[] for _ in range(shape[axis])]
    for index, value in zip(np.ndindex(*shape), values, strict=True):
        lists[index[axis]].append(value)
    return lists


def public(name: str, twin: bool = False) -> Any:
    return getattr(fastrelu, name + "_" * twin)


def in_context(target: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose loops run on a target, as those that a container calls."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with forced(target or "auto"):
            return function(*args, **kwargs)

    return call


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run ``work(k)`` in so many threads that begin together; raise what one of them raises."""
    start = threading.Barrier(count)

    def begin(k: int) -> None:
        start.wait(30)
        work(k)

    with ThreadPoolExecutor(count) as pool:
        for each in [pool.submit(begin, k) for k in range(count)]:
            each.result(60)


def run_python(
    code: str, *, expect: int | None = 0, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with warnings as errors, and return what it printed."""
    root = Path(fastrelu.__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    if expect is not None:
        assert result.returncode == expect, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def all_calls() -> Iterator[tuple[str, str]]:
    return itertools.product(OPERATIONS, FLOATS)
