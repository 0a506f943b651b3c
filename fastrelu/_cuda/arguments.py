"""What arrays in GPU memory must be to be arguments of one call, what new ones it gets, and whom it waits for."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays import classify
from .._runtime.dtypes import supported
from . import cuda_driver, dtypes, libraries
from .grids import extent
from .view import View


def the_library(name: str, arguments: Sequence[str], values: Sequence[Any]) -> libraries.Library:
    """Return the one library of all arrays; raise TypeError for a mix."""
    first: tuple[str, libraries.Library] | None = None
    for argument, value in zip(arguments, values, strict=True):
        library = libraries.library_of(value)
        if library is None:
            continue
        if first is None:
            first = argument, library
        elif library is not first[1]:
            raise TypeError(
                f"{name}: {first[0]} is a {first[1].label} and {argument} is a {library.label}; "
                "convert one of them first, for instance with from_dlpack, which copies nothing"
            )
    assert first is not None
    for argument, value in zip(arguments, values, strict=True):
        number = (
            isinstance(value, (bool, int, float, complex, np.generic))
            and argument != "where"
            and not argument.endswith("out")
        )
        if value is not None and not number and libraries.library_of(value) is None:
            raise TypeError(
                f"{name}: {first[0]} is a {first[1].label} in GPU memory, but {argument} is a "
                f"{classify.type_name(value)} in host memory; copy one of them"
            )
    return first[1]


def operand(name: str, argument: str, value: Any, library: libraries.Library) -> Any:
    """Return an operand's view, or the number itself."""
    if isinstance(value, np.generic):
        if not supported(value.dtype):
            libraries.refuse_dtype(name, argument, f"dtype {value.dtype}")
        return value
    if isinstance(value, complex):
        libraries.refuse_dtype(name, argument, "type complex")
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, (int, float)):
        # a subclass of float or int counts as one, as in NumPy
        return value if type(value) in (int, float) else (float if isinstance(value, float) else int)(value)
    view = library.view(name, argument, value, write=False)
    if dtypes.code_of(view.dtype) is None:
        libraries.refuse_dtype(name, argument, f"dtype {view.dtype}")
    return view


def place(name: str, views: Sequence[View]) -> tuple[int, int, list[int]]:
    """Return device and stream of the call, and the other streams that its arrays are used on."""
    first = views[0]
    for view in views:
        if view.device != first.device and view.pointer:
            raise TypeError(f"{name}: the arrays are on GPU {first.device} and GPU {view.device}; copy one of them")
    streams = dict.fromkeys(view.stream for view in views)
    stream = next((each for each in streams if each), 0)
    return first.device, stream, [each for each in streams if each != stream]


def check_aligned(name: str, argument: str, view: View) -> None:
    size = view.dtype.itemsize
    if dtypes.code_of(view.dtype) is None:
        libraries.refuse_dtype(name, argument, f"dtype {view.dtype}")
    if view.pointer % size or any(step % size for step in view.strides):
        raise ValueError(f"{name}: {argument} is not aligned to its {size} bytes per element, as GPUs require; copy it")


def check_writable(name: str, view: View) -> None:
    if view.readonly:
        raise ValueError(f"{name}: the output array is read-only")
    if not classify.disjoint(view):
        raise ValueError(f"{name}: several elements of the output array are one in memory; write to a copy")


def touches(view: View, out: View) -> bool:
    """Say whether two arrays may share memory: whether the ranges that they lie in do."""
    low, high = extent(view.shape, view.strides, view.dtype.itemsize)
    start, end = extent(out.shape, out.strides, out.dtype.itemsize)
    return view.pointer + high > out.pointer + start and out.pointer + end > view.pointer + low


def overlaps(view: View, out: View) -> bool:
    """Say whether an input shares memory with the output other than element by element."""
    if not touches(view, out):
        return False
    same = view.pointer == out.pointer and view.dtype.itemsize == out.dtype.itemsize and view.shape == out.shape
    return not (same and all(a == b or n == 1 for a, b, n in zip(view.strides, out.strides, out.shape, strict=True)))


def new(
    name: str, library: libraries.Library, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View
) -> tuple[Any, View]:
    """Return a new array on the GPU of `like`, and its view."""
    array = library.empty(shape, dtype, order, like)
    if isinstance(library, libraries._Jax):
        return array, library.result_view(array, name)
    # Numba allocates where an array's own library is unknown. Nobody else has seen the array: no `write`
    return array, (libraries.library_of(array) or library).view(name, "out", array, write=False)


def in_order(stream: int, others: Sequence[int], device: int, launch: Callable[[], None]) -> None:
    """Launch after what other streams have still to do to our arrays, and before what they will."""
    for other in others:
        cuda_driver.get().wait(stream, other, device)
    launch()
    for other in others:  # whatever comes next on the other streams may overwrite what we read
        cuda_driver.get().wait(other, stream, device)
