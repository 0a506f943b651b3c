"""One call of an operation on device arrays, from its arguments to the launch."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays import classify
from .._operations import ROWS
from .._runtime.jobs import coalesce
from . import dtypes, launch_cache, libraries, settings
from .device_call import DeviceCall
from .elementwise_kernels import ElementwiseSpec
from .grids import contiguous_grid, row_grid
from .launch_cache import Planned
from .layouts import arrays_of, contiguous_roles, of_role, roles_of, rows_of, stored_of, vector_lanes
from .view import View, overlaps

#: Rows and columns, and three more axes that did not join them; arrays with even more are launched in pieces.
MAX_AXES = 5

_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_broadcast_shapes = functools.lru_cache(maxsize=4096)(np.broadcast_shapes)


class _Call(DeviceCall):
    """A call of an operation; `where` is a view, or None for everywhere."""

    def __init__(self, name: str, inputs: Mapping[str, Any], out: Any, where: Any, kwargs: Mapping[str, Any]) -> None:
        super().__init__(name, inputs if where is None else {**inputs, "where": where}, {"out": out})
        into = self.outputs.get("out")
        self.operands = [self.inputs[each] for each in self.row.names]
        self.loop = self.loop_dtype(self.operands, into, kwargs)
        self.where: View | None = self.inputs.get("where")
        if self.where is not None and self.where.dtype != np.bool_:
            raise TypeError(f"{name}: where is of dtype {self.where.dtype}; it must be bool")
        shapes = tuple([view.shape for view in self.views])
        self.shape = result_shape(name, shapes, None if into is None else into.shape)
        self.check_aligned()
        self.check_writable()

    def run(self, order: str) -> Any:
        if (out := self.outputs.get("out")) is None:
            data = arrays_of(self.operands[: len(self.row.data)])
            like = [view for view in data if view.shape == self.shape]
            out = self.memory("out", self.shape, self.loop, like, order)

        def write(target: View) -> None:
            launch(self.name, self.loop, self.operands, target, self.where, self.stream)

        self.launch(lambda: write_apart(self, out, write, self.where))
        return self.leave("out")


def call(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on device arrays; numbers may stand for any operand but not for all."""
    order = kwargs.get("order", "K")
    if order not in ("C", "F", "A", "K"):
        raise ValueError(f"{name}: order must be one of 'C', 'F', 'A', or 'K' (got {order!r})")
    where = kwargs.get("where", True)
    if where is True or (isinstance(where, np.bool_) and where):
        where = None
    elif libraries.library_of(where) is None:
        raise TypeError(f"{name}: where must be True or a bool array on the same GPU, not {classify.type_name(where)}")
    inputs = dict(zip(ROWS[name].names, operands, strict=True))
    return _Call(name, inputs, out, where, kwargs).run(order)


def result_shape(
    name: str, shapes: Sequence[tuple[int, ...]], into: tuple[int, ...] | None
) -> tuple[int, ...]:  # fmt: skip
    """Return the shape of the result for operands of these shapes, and maybe an output, to which it broadcasts."""
    try:
        shape: tuple[int, ...] = _broadcast_shapes(*shapes)
        if into is not None and _broadcast_shapes(shape, into) != into:
            raise ValueError
    except ValueError:
        listed, target = ", ".join(map(str, shapes)), "" if into is None else f" into out of shape {into}"
        raise ValueError(f"{name}: operands of shapes {listed} could not be broadcast together{target}") from None
    return shape if into is None else into


def write_apart(this: DeviceCall, out: View, write: Callable[[View], None], where: View | None = None) -> None:
    """Write to an output, or where an input overlaps it to new memory, which is then copied there."""
    if not any(overlaps(view, out) for view in this.views):
        write(out)
        return
    if where is not None and overlaps(where, out):
        raise ValueError(f"{this.name}: where overlaps the output array; pass a copy of it")
    _, between = this.new(out.shape, out.dtype, "C", out)
    write(between)
    # `relu` of unsigned integers is a copy
    bits = np.dtype(_UNSIGNED[out.dtype.itemsize])
    launch("relu", bits, [replace(between, dtype=bits)], replace(out, dtype=bits), where, this.stream)


def launch(name: str, loop: np.dtype, operands: Sequence[Any], out: View, where: View | None, stream: int) -> None:
    """Choose kernel and grid for arrays of at least one element, and launch."""
    launch_cache.launch(plan, name, loop, [*operands, where, out], stream)


def plan(name: str, loop: np.dtype, arguments: Sequence[Any]) -> Iterator[Planned]:
    """Plan the launches for operands, `where` or None, and the output."""
    *operands, where, out = arguments
    arrays = arrays_of(operands)
    views = [*arrays, out] if where is None else [*arrays, where, out]
    extents, steps = coalesce(out.shape, rows_of(views, out.shape))
    spec = ElementwiseSpec(name, dtypes.code(loop), roles_of(operands), stored_of(operands), dtypes.code(out.dtype), 0)
    roles = None if where is not None else contiguous_roles(operands, out, loop, extents, steps)
    if roles is not None:
        n = extents[0] if extents else 1
        head, loads, grid = contiguous_grid(out.pointer, n, loop.itemsize, out.device)
        pointers, uniforms, scalars = (of_role(role, operands, roles) for role in ("array", "uniform", "scalar"))
        yield replace(spec, roles=roles, loads=loads), grid, (*pointers, out.pointer, n, head, *uniforms, *scalars)
        return
    while len(extents) < 2:
        extents.insert(0, 1)
        for row in steps:
            row.insert(0, 0)
    lanes = (1,) * len(views)
    if where is None:  # which says of each element whether it is written
        lanes = vector_lanes(views, loop, extents[-1], [row[-1] for row in steps], [row[:-1] for row in steps])
    extents[-1] //= max(lanes)
    for row, each in zip(steps, lanes, strict=True):
        row[-1] *= each
    spec = replace(spec, masked=where is not None, lanes=lanes[: len(arrays)])
    scalars = of_role("scalar", operands, spec.roles)
    yield from _plan_strided(spec, [view.pointer for view in views], extents, steps, scalars)


def _plan_strided(
    spec: ElementwiseSpec, pointers: list[Any], extents: list[int], steps: list[list[int]], scalars: Sequence[Any]
) -> Iterator[Planned]:
    if len(extents) > MAX_AXES:
        for k in range(extents[0]):
            moved = [pointer + k * row[0] for pointer, row in zip(pointers, steps, strict=True)]
            yield from _plan_strided(spec, moved, extents[1:], [row[1:] for row in steps], scalars)
        return
    *outer, columns = extents
    rows, loads = math.prod(outer), settings.VECTORS if columns >= 32 else 1
    inputs, mask = pointers[: len(spec.of_role("array"))], pointers[-2] if spec.masked else 0
    flat = [step for row in steps for step in row[:-1]]
    yield replace(spec, axes=len(extents), loads=loads), row_grid(columns, rows, loads), (
        *inputs, pointers[-1], columns, rows, *outer, *flat, *(row[-1] for row in steps), mask, *scalars,
    )  # fmt: skip
