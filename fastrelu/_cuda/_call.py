"""One call on device arrays, from its arguments to the launch. All checks come before anything is allocated or run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import _arrays
from .._operations import DATA, OPERATIONS
from . import _driver, _libraries, _settings, _types
from ._access import VECTOR_BYTES
from ._kernels import Spec
from ._launch import prepared
from ._layout import MAX_AXES, broadcast, coalesce, extent, flat_grid, row_grid
from ._numba import SIMULATED
from ._view import View

#: Keyword arguments of NumPy's ufuncs that have a meaning here.
KEYWORDS = ("where", "dtype", "casting", "order", "subok", "signature")
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}


def call(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on device arrays; numbers may stand for any operand but not for all."""
    arguments = OPERATIONS[name]
    order, mask = _check_keywords(name, kwargs)
    library = _the_library(name, (*arguments, "where", "out"), (*operands, mask, out))
    views = [_operand(name, argument, value, library) for argument, value in zip(arguments, operands, strict=True)]
    where = None if mask is None else library.view(name, "where", mask, write=False)
    into = None if out is None else library.view(name, "out", out, write=True)
    device, stream, others = _place(name, [view for view in (into, *views, where) if isinstance(view, View)])
    kinds = [view.dtype if isinstance(view, (View, np.generic)) else type(view) for view in views]
    loop = _types.loop_dtype(name, kinds, None if into is None else into.dtype, kwargs)
    if where is not None and where.dtype != np.bool_:
        raise TypeError(f"{name}: where is of dtype {where.dtype}; it must be bool")
    shape = _result_shape(name, [view for view in (*views, where) if isinstance(view, View)], into)
    for argument, view in zip((*arguments, "where", "out"), (*views, where, into), strict=True):
        if isinstance(view, View):
            _check_aligned(name, argument, view)
    result, target = out, into
    if target is None:
        data = [view for argument, view in zip(arguments, views, strict=True) if argument in DATA]
        arrays = [view for view in data if isinstance(view, View) and view.shape == shape]
        like = arrays[0] if arrays else next(view for view in views if isinstance(view, View))
        order = (_libraries.order_of(arrays) if arrays else "C") if order in ("K", "A") else order
        result = library.empty(shape, loop, order, like)
        if isinstance(library, _libraries._Jax):
            target = library.result_view(result, name)
        else:
            target = _view_of_new(name, result, library)
    else:
        _check_writable(name, target)
    if 0 not in shape:
        for other in others:
            _driver.get().wait(stream, other, device)
        _run(name, loop, views, target, where, stream, library)
        for other in others:  # whatever comes next on the other streams may overwrite what we read
            _driver.get().wait(other, stream, device)
    if out is not None:
        library.written(out)
        return out
    if 0 not in shape:
        result = library.finish(result, target, [view for view in (*views, where) if isinstance(view, View)])
    return result


def _view_of_new(name: str, result: Any, library: _libraries.Library) -> View:
    # Numba allocates where an array's own library is unknown
    return (_libraries.library_of(result) or library).view(name, "out", result, write=True)


def _check_keywords(name: str, kwargs: Mapping[str, Any]) -> tuple[str, Any]:
    for key in kwargs:
        if key not in KEYWORDS:
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
    order = kwargs.get("order", "K")
    if order not in ("C", "F", "A", "K"):
        raise ValueError(f"{name}: order must be one of 'C', 'F', 'A', or 'K' (got {order!r})")
    where = kwargs.get("where", True)
    if where is True or (isinstance(where, np.bool_) and where):
        return order, None
    if _libraries.library_of(where) is None:
        raise TypeError(f"{name}: where must be True or a bool array on the same GPU, not {_arrays.type_name(where)}")
    return order, where


def _the_library(name: str, arguments: Sequence[str], values: Sequence[Any]) -> _libraries.Library:
    """Return the one library of all arrays; raise TypeError for a mix."""
    first: tuple[str, _libraries.Library] | None = None
    for argument, value in zip(arguments, values, strict=True):
        library = _libraries.library_of(value)
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
        number = isinstance(value, (bool, int, float, complex, np.generic)) and argument not in ("out", "where")
        if value is not None and not number and _libraries.library_of(value) is None:
            raise TypeError(
                f"{name}: {first[0]} is a {first[1].label} in GPU memory, but {argument} is a "
                f"{_arrays.type_name(value)} in host memory; copy one of them"
            )
    return first[1]


def _operand(name: str, argument: str, value: Any, library: _libraries.Library) -> Any:
    """Return an operand's view, or the number itself."""
    if isinstance(value, np.generic):
        if not _arrays.supported(value.dtype):
            _libraries.refuse_dtype(name, argument, f"dtype {value.dtype}")
        return value
    if isinstance(value, complex):
        _libraries.refuse_dtype(name, argument, "type complex")
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, (int, float)):
        # a subclass of float or int counts as one, as in NumPy
        return value if type(value) in (int, float) else (float if isinstance(value, float) else int)(value)
    view = library.view(name, argument, value, write=False)
    if _types.code_of(view.dtype) is None:
        _libraries.refuse_dtype(name, argument, f"dtype {view.dtype}")
    return view


def _place(name: str, views: Sequence[View]) -> tuple[int, int, list[int]]:
    """Return device and stream of the call, and the other streams that its arrays are used on."""
    first = views[0]
    for view in views:
        if view.device != first.device and view.pointer:
            raise TypeError(f"{name}: the arrays are on GPU {first.device} and GPU {view.device}; copy one of them")
    streams = dict.fromkeys(view.stream for view in views)
    stream = next((each for each in streams if each), 0)
    return first.device, stream, [each for each in streams if each != stream]


def _result_shape(name: str, views: Sequence[View], into: View | None) -> tuple[int, ...]:
    try:
        shape = np.broadcast_shapes(*(view.shape for view in views))
        if into is not None and np.broadcast_shapes(shape, into.shape) != into.shape:
            raise ValueError
    except ValueError:
        shapes = ", ".join(str(view.shape) for view in views)
        target = "" if into is None else f" into out of shape {into.shape}"
        raise ValueError(f"{name}: operands of shapes {shapes} could not be broadcast together{target}") from None
    return shape if into is None else into.shape


def _check_aligned(name: str, argument: str, view: View) -> None:
    size = view.dtype.itemsize
    if _types.code_of(view.dtype) is None:
        _libraries.refuse_dtype(name, argument, f"dtype {view.dtype}")
    if view.pointer % size or any(step % size for step in view.strides):
        raise ValueError(f"{name}: {argument} is not aligned to its {size} bytes per element, as GPUs require; copy it")


def _check_writable(name: str, view: View) -> None:
    if view.readonly:
        raise ValueError(f"{name}: the output array is read-only")
    if any(step == 0 and length > 1 for length, step in zip(view.shape, view.strides, strict=True)):
        raise ValueError(f"{name}: several elements of the output array are one in memory; write to a copy")


def _overlaps(view: View, out: View) -> bool:
    """Say whether an input shares memory with the output other than element by element."""
    low, high = extent(view.shape, view.strides, view.dtype.itemsize)
    start, end = extent(out.shape, out.strides, out.dtype.itemsize)
    if view.pointer + high <= out.pointer + start or out.pointer + end <= view.pointer + low:
        return False
    same = view.pointer == out.pointer and view.dtype.itemsize == out.dtype.itemsize and view.shape == out.shape
    return not (same and all(a == b or n == 1 for a, b, n in zip(view.strides, out.strides, out.shape, strict=True)))


def _run(
    name: str, loop: np.dtype, operands: Sequence[Any], out: View, where: View | None, stream: int,
    library: _libraries.Library,
) -> None:  # fmt: skip
    arrays = [view for view in (*operands, where) if isinstance(view, View)]
    if not any(_overlaps(view, out) for view in arrays):
        launch(name, loop, operands, out, where, stream)
        return
    # Into new memory first, and from there to its place. `relu` of unsigned integers is a copy
    between = _view_of_new(name, library.empty(out.shape, out.dtype, "C", out), library)
    launch(name, loop, operands, between, where, stream)
    code = np.dtype(_UNSIGNED[out.dtype.itemsize])
    between.dtype, out = code, View(
        out.owner, out.pointer, out.shape, out.strides, code, out.device, out.stream
    )  # fmt: skip
    if where is not None and _overlaps(where, out):
        raise ValueError(f"{name}: where overlaps the output array; pass a copy of it")
    launch("relu", code, (between,), out, where, stream)


def launch(name: str, loop: np.dtype, operands: Sequence[Any], out: View, where: View | None, stream: int) -> None:
    """Choose kernel and grid for arrays of at least one element, and launch."""
    shape, code = out.shape, _types.code_of(loop)
    assert code is not None
    arrays = [view for view in operands if isinstance(view, View)]
    strides = [broadcast(view.shape, view.strides, shape) for view in arrays]
    if where is not None:
        strides.append(broadcast(where.shape, where.strides, shape))
    extents, steps = coalesce(shape, [*strides, out.strides])
    scalars = [_number(value, loop) for value in operands if not isinstance(value, View)]
    stored = tuple(_types.code_of(view.dtype) or "" if isinstance(view, View) else "" for view in operands)
    target = _types.code_of(out.dtype)
    assert target is not None
    if where is None and len(extents) <= 1:
        uniform = [not any(row) for row in steps[:-1]] if extents else [False] * len(arrays)
        spread = [view for view, one in zip(arrays, uniform, strict=True) if not one]
        size = loop.itemsize
        alike = all(
            (not extents or row[0] == size) and view.dtype == loop and (view.pointer - out.pointer) % VECTOR_BYTES == 0
            for view, row, one in zip(arrays, steps[:-1], uniform, strict=True)
            if not one
        )
        if spread and alike and out.dtype == loop and (not extents or steps[-1][0] == size):
            kinds = iter(uniform)
            roles = tuple(
                ("uniform" if next(kinds) else "array") if isinstance(view, View) else "scalar" for view in operands
            )
            fixed = [view.pointer for view, one in zip(arrays, uniform, strict=True) if one]
            launch_contiguous(
                Spec(name, code, roles, stored, target, 0), [view.pointer for view in spread], out.pointer,
                extents[0] if extents else 1, size, fixed, scalars, out.device, stream,
            )  # fmt: skip
            return
    roles = tuple("array" if isinstance(view, View) else "scalar" for view in operands)
    while len(extents) < 2:
        extents.insert(0, 1)
        for row in steps:
            row.insert(0, 0)
    pointers = [view.pointer for view in (*arrays, *([] if where is None else [where]), out)]
    _launch_strided(
        Spec(name, code, roles, stored, target, _settings.VECTORS, 0, where is not None), pointers, extents, steps,
        scalars, out.device, stream,
    )  # fmt: skip


def _number(value: Any, loop: np.dtype) -> Any:
    """Return a scalar operand as the number that NumPy would compute with."""
    with np.errstate(all="ignore"):
        number = np.array(value).astype(loop) if isinstance(value, np.generic) else np.array(value, loop)
    # of float32's own type in the simulator, whose kernels are Python
    result: Any = number.astype("f")[()] if loop.itemsize == 2 and _types.is_float(loop) else number[()]
    return result


def _limit() -> int:
    return _settings.MAX_BLOCKS or _settings.GRID_LIMIT


def launch_contiguous(
    spec: Spec, pointers: Sequence[int], out: int, n: int, size: int, uniforms: Sequence[int],
    scalars: Sequence[float], device: int, stream: int,
) -> None:  # fmt: skip
    """Launch the contiguous kernel; `spec` is completed by how many loads a thread has in flight."""
    block, many = _settings.BLOCK, _settings.VECTORS
    head = min(n, -out % VECTOR_BYTES // size)
    vectors = (n - head) * size // VECTOR_BYTES
    processors = 1 if SIMULATED else _driver.get().multiprocessors(device)
    count = many if vectors >= processors * _settings.FILL * block * many else 1
    grid = flat_grid(vectors, block, count, _limit())
    prepared(spec._replace(loads=count))(grid, stream, device, *pointers, out, n, head, *uniforms, *scalars)


def _launch_strided(
    spec: Spec, pointers: list[int], extents: list[int], steps: list[list[int]], scalars: Sequence[float],
    device: int, stream: int,
) -> None:  # fmt: skip
    if len(extents) > MAX_AXES:
        for k in range(extents[0]):
            moved = [pointer + k * row[0] for pointer, row in zip(pointers, steps, strict=True)]
            _launch_strided(spec, moved, extents[1:], [row[1:] for row in steps], scalars, device, stream)
        return
    *outer, columns = extents
    rows = 1
    for length in outer:
        rows *= length
    count = spec.loads if columns >= 32 else 1
    grid = row_grid(columns, rows, _settings.BLOCK, count, _limit())
    spec = spec._replace(axes=len(extents), loads=count)
    inputs = pointers[: len(spec.of_role("array"))]
    mask = pointers[-2] if spec.masked else 0
    flat = [step for row in steps for step in row[:-1]]
    prepared(spec)(
        grid, stream, device, *inputs, pointers[-1], columns, rows, *outer, *flat, *(row[-1] for row in steps), mask,
        *scalars,
    )  # fmt: skip
