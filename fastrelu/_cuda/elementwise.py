"""One call on device arrays, from its arguments to the launch. All checks come before anything is allocated or run."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import classify
from .._operations import DATA, OPERATIONS
from .._runtime.jobs import coalesce
from . import cuda_driver, dtypes, launch_cache, libraries, settings
from .arguments import check_aligned, check_writable, in_order, new, operand, overlaps, place, the_library
from .grids import MAX_AXES, Grid, broadcast, flat_grid, row_grid
from .kernels import Spec
from .numba_cuda import SIMULATED
from .settings import VECTOR_BYTES
from .view import View

#: Keyword arguments of NumPy's ufuncs that have a meaning here.
KEYWORDS = ("where", "dtype", "casting", "order", "subok", "signature")
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}


_broadcast_shapes = functools.lru_cache(maxsize=4096)(np.broadcast_shapes)


def call(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on device arrays; numbers may stand for any operand but not for all."""
    arguments = OPERATIONS[name]
    order, mask = _check_keywords(name, kwargs)
    library = the_library(name, (*arguments, "where", "out"), (*operands, mask, out))
    views = [operand(name, argument, value, library) for argument, value in zip(arguments, operands, strict=True)]
    where = None if mask is None else library.view(name, "where", mask, write=False)
    into = None if out is None else library.view(name, "out", out, write=True)
    device, stream, others = place(name, [view for view in (into, *views, where) if isinstance(view, View)])
    kinds = [view.dtype if isinstance(view, (View, np.generic)) else type(view) for view in views]
    loop = dtypes.loop_dtype(name, kinds, None if into is None else into.dtype, kwargs)
    if where is not None and where.dtype != np.bool_:
        raise TypeError(f"{name}: where is of dtype {where.dtype}; it must be bool")
    shape = _result_shape(name, [view for view in (*views, where) if isinstance(view, View)], into)
    for argument, view in zip((*arguments, "where", "out"), (*views, where, into), strict=True):
        if isinstance(view, View):
            check_aligned(name, argument, view)
    result, target = out, into
    if target is None:
        data = [view for argument, view in zip(arguments, views, strict=True) if argument in DATA]
        arrays = [view for view in data if isinstance(view, View) and view.shape == shape]
        like = arrays[0] if arrays else next(view for view in views if isinstance(view, View))
        order = (libraries.order_of(arrays) if arrays else "C") if order in ("K", "A") else order
        result, target = new(name, library, shape, loop, order, like)
    else:
        check_writable(name, target)
    if 0 not in shape:
        in_order(stream, others, device, lambda: _run(name, loop, views, target, where, stream, library))
        result = library.finish(result, target, [view for view in (*views, where) if isinstance(view, View)])
    if out is not None:
        library.written(out)
    return result


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
    if libraries.library_of(where) is None:
        raise TypeError(f"{name}: where must be True or a bool array on the same GPU, not {classify.type_name(where)}")
    return order, where


def _result_shape(name: str, views: Sequence[View], into: View | None) -> tuple[int, ...]:
    try:
        shape = _broadcast_shapes(*[view.shape for view in views])
        if into is not None and _broadcast_shapes(shape, into.shape) != into.shape:
            raise ValueError
    except ValueError:
        shapes = ", ".join(str(view.shape) for view in views)
        target = "" if into is None else f" into out of shape {into.shape}"
        raise ValueError(f"{name}: operands of shapes {shapes} could not be broadcast together{target}") from None
    return shape if into is None else into.shape


def _run(
    name: str, loop: np.dtype, operands: Sequence[Any], out: View, where: View | None, stream: int,
    library: libraries.Library,
) -> None:  # fmt: skip
    def write(target: View) -> None:
        launch(name, loop, operands, target, where, stream)

    arrays = [view for view in (*operands, where) if isinstance(view, View)]
    write_apart(name, library, arrays, out, stream, write, where)


def write_apart(
    name: str, library: libraries.Library, inputs: Sequence[View], out: View, stream: int,
    write: Callable[[View], None], where: View | None = None,
) -> None:  # fmt: skip
    """Write to an output, or where an input overlaps it to new memory, which is then copied there."""
    if not any(overlaps(view, out) for view in inputs):
        write(out)
        return
    if where is not None and overlaps(where, out):
        raise ValueError(f"{name}: where overlaps the output array; pass a copy of it")
    _, between = new(name, library, out.shape, out.dtype, "C", out)
    write(between)
    # `relu` of unsigned integers is a copy
    code = np.dtype(_UNSIGNED[out.dtype.itemsize])
    between.dtype, out = code, View(
        out.owner, out.pointer, out.shape, out.strides, code, out.device, out.stream
    )  # fmt: skip
    launch("relu", code, (between,), out, where, stream)


def contiguous_roles(
    operands: Sequence[Any], out: View, loop: np.dtype, extents: Sequence[int], steps: Sequence[Sequence[int]]
) -> tuple[str, ...] | None:
    """Return each operand's role in a contiguous kernel; None if the arrays, coalesced, are not for such a one."""
    if len(extents) > 1 or out.dtype != loop or (extents and steps[-1][0] != loop.itemsize):
        return None
    roles, rows = [], iter(steps)
    for view in operands:
        if not isinstance(view, View):
            roles.append("scalar")
            continue
        row = next(rows)
        if extents and not row[0]:
            roles.append("uniform")
        elif view.dtype == loop and (view.pointer - out.pointer) % VECTOR_BYTES == 0 and row[:1] == steps[-1][:1]:
            roles.append("array")
        else:
            return None
    return tuple(roles) if "array" in roles else None


def vector_lanes(
    views: Sequence[View], loop: np.dtype, extent: int, inner: Sequence[int], others: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    """Return how many elements of each array, the output last, an access takes: those of 16 bytes if it can be so.

    Vectors lie along an axis of this `extent`, along which the arrays have the strides `inner`, and `others` along the
    others. An array that is the same along it has one element for a vector. Ones where there are no vectors.
    """
    width, found = VECTOR_BYTES // loop.itemsize, []
    for view, step, more in zip(views, inner, others, strict=True):
        whole = step == loop.itemsize and not any(each % VECTOR_BYTES for each in (view.pointer, *more))
        if view.dtype != loop or extent % width or not (whole or step == 0):
            return (1,) * len(views)
        found.append(width if whole else 1)
    return tuple(found) if found[-1] == width else (1,) * len(views)


def of_role(role: str, operands: Sequence[Any], roles: Sequence[str]) -> list[Any]:
    """Return the operands of a role; of arrays, their addresses."""
    found = [value for value, each in zip(operands, roles, strict=True) if each == role]
    return [value.pointer if isinstance(value, View) else value for value in found]


def launch(name: str, loop: np.dtype, operands: Sequence[Any], out: View, where: View | None, stream: int) -> None:
    """Choose kernel and grid for arrays of at least one element, and launch."""
    values = [value if isinstance(value, View) else _number(value, loop) for value in operands]
    launch_cache.launch(_plan, name, loop, [*values, where, out], stream)


def _plan(name: str, loop: np.dtype, arguments: Sequence[Any], emit: launch_cache.Emit) -> None:
    *operands, where, out = arguments
    code = dtypes.code_of(loop)
    assert code is not None
    arrays = [view for view in operands if isinstance(view, View)]
    strides = [broadcast(view.shape, view.strides, out.shape) for view in arrays]
    if where is not None:
        strides.append(broadcast(where.shape, where.strides, out.shape))
    extents, steps = coalesce(out.shape, [*strides, out.strides])
    scalars = [value for value in operands if not isinstance(value, View)]
    stored = tuple(dtypes.code_of(view.dtype) or "" if isinstance(view, View) else "" for view in operands)
    target = dtypes.code_of(out.dtype)
    assert target is not None
    roles = None if where is not None else contiguous_roles(operands, out, loop, extents, steps)
    if roles is not None:
        _plan_contiguous(
            Spec(name, code, roles, stored, target, 0), of_role("array", operands, roles), out.pointer,
            extents[0] if extents else 1, loop.itemsize, of_role("uniform", operands, roles), scalars, out.device, emit,
        )  # fmt: skip
        return
    roles = tuple("array" if isinstance(view, View) else "scalar" for view in operands)
    while len(extents) < 2:
        extents.insert(0, 1)
        for row in steps:
            row.insert(0, 0)
    views = [*arrays, *([] if where is None else [where]), out]
    lanes = (1,) * len(views)
    if where is None:  # which says of each element whether it is written
        lanes = vector_lanes(views, loop, extents[-1], [row[-1] for row in steps], [row[:-1] for row in steps])
    extents[-1] //= max(lanes)
    for row, each in zip(steps, lanes, strict=True):
        row[-1] *= each
    spec = Spec(name, code, roles, stored, target, settings.VECTORS, 0, where is not None, lanes[: len(arrays)])
    _plan_strided(spec, [view.pointer for view in views], extents, steps, scalars, emit)


def _number(value: Any, loop: np.dtype) -> Any:
    """Return a scalar operand as the number that NumPy would compute with."""
    with np.errstate(all="ignore"):
        number = np.array(value).astype(loop) if isinstance(value, np.generic) else np.array(value, loop)
    # of float32's own type in the simulator, whose kernels are Python
    result: Any = number.astype("f")[()] if loop.itemsize == 2 and dtypes.is_float(loop) else number[()]
    return result


def _limit() -> int:
    return settings.MAX_BLOCKS or settings.GRID_LIMIT


def _plan_contiguous(
    spec: Spec, pointers: Sequence[int], out: int, n: int, size: int, uniforms: Sequence[int],
    scalars: Sequence[Any], device: int, emit: launch_cache.Emit,
) -> None:  # fmt: skip
    """Plan a contiguous kernel; `spec` is completed by how many loads a thread has in flight."""
    head, loads, grid = contiguous_grid(out, n, size, device)
    emit(spec._replace(loads=loads), grid, (*pointers, out, n, head, *uniforms, *scalars))


def contiguous_grid(out: int, n: int, size: int, device: int) -> tuple[int, int, Grid]:
    """Return elements before the first vector of an output, loads in flight per thread, and the grid."""
    block, many = settings.BLOCK, settings.VECTORS
    head = min(n, -out % VECTOR_BYTES // size)
    vectors = (n - head) * size // VECTOR_BYTES
    processors = 1 if SIMULATED else cuda_driver.get().multiprocessors(device)
    loads = many if vectors >= processors * settings.FILL * block * many else 1
    return head, loads, flat_grid(vectors, block, loads, _limit())


def _plan_strided(
    spec: Spec, pointers: list[Any], extents: list[int], steps: list[list[int]], scalars: Sequence[Any],
    emit: launch_cache.Emit,
) -> None:  # fmt: skip
    if len(extents) > MAX_AXES:
        for k in range(extents[0]):
            moved = [pointer + k * row[0] for pointer, row in zip(pointers, steps, strict=True)]
            _plan_strided(spec, moved, extents[1:], [row[1:] for row in steps], scalars, emit)
        return
    *outer, columns = extents
    rows = 1
    for length in outer:
        rows *= length
    count = spec.loads if columns >= 32 else 1
    grid = row_grid(columns, rows, settings.BLOCK, count, _limit())
    spec = spec._replace(axes=len(extents), loads=count)
    inputs = pointers[: len(spec.of_role("array"))]
    mask = pointers[-2] if spec.masked else 0
    flat = [step for row in steps for step in row[:-1]]
    emit(spec, grid, (
        *inputs, pointers[-1], columns, rows, *outer, *flat, *(row[-1] for row in steps), mask, *scalars,
    ))  # fmt: skip
