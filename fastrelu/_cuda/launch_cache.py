"""Launches that were planned before, for arrays of the same types, shapes, strides and alignment.

Which kernel, which grid and which numbers beside the addresses follow from these alone; to find out takes some 30 us of
Python. So a plan is made once, for arrays whose addresses are left open, and is filled in for each call.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import settings
from .grids import Grid
from .launcher import Prepared, Spec, prepared
from .settings import VECTOR_BYTES
from .view import View

#: Plans at most, and launches of one; arrays of more axes than a kernel has may take thousands.
MOST, LONGEST = 4096, 16

#: ``emit(spec, grid, values)``: what a plan calls for each launch.
Emit = Callable[[Spec, Grid, Sequence[Any]], None]


class Open(int):
    """An address or a number that a plan leaves open: argument `index`, and so many bytes on.

    As an integer it is what alignment follows from: the address modulo the size of a vector.
    """

    index: int
    offset: int

    def __new__(cls, value: int, index: int, offset: int = 0) -> "Open":
        made = super().__new__(cls, value % VECTOR_BYTES)
        made.index, made.offset = index, offset
        return made

    def __add__(self, other: int) -> "Open":
        return Open(int(self) + other, self.index, self.offset + other)


class _Launch(NamedTuple):
    """A launch, with the positions among its values that are open."""

    prepared: Prepared
    grid: Grid
    values: list[Any]
    places: list[tuple[int, int, int]]


_plans: dict[Any, list[_Launch]] = {}


def launch(plan: Callable[..., None], name: str, loop: Any, arguments: Sequence[Any], stream: int) -> None:
    """Launch what ``plan(name, loop, arguments, emit)`` emits for arguments: views, numbers, None; the output last."""
    device = arguments[-1].device
    layouts = tuple([
        (each.shape, each.strides, each.dtype, each.pointer % VECTOR_BYTES) if isinstance(each, View)
        else each is None
        for each in arguments
    ])  # fmt: skip
    key = plan, name, loop, device, layouts, settings.of_launches()
    found = _plans.get(key)
    if found is None:
        found = _record(plan, name, loop, arguments)
        if len(found) <= LONGEST:
            if len(_plans) >= MOST:
                _plans.clear()
            _plans[key] = found
    for each, grid, template, places in found:
        values = template.copy()
        for position, index, offset in places:
            argument = arguments[index]
            values[position] = argument.pointer + offset if isinstance(argument, View) else argument
        each(grid, stream, device, *values)


def _record(plan: Callable[..., None], name: str, loop: Any, arguments: Sequence[Any]) -> list[_Launch]:
    found = []

    def emit(spec: Spec, grid: Grid, values: Sequence[Any]) -> None:
        places = [(k, value.index, value.offset) for k, value in enumerate(values) if isinstance(value, Open)]
        found.append(_Launch(prepared(spec), grid, list(values), places))

    def opened(k: int, each: Any) -> Any:
        if isinstance(each, View):
            return View(None, Open(each.pointer, k), each.shape, each.strides, each.dtype, each.device, 0)
        return None if each is None else Open(0, k)

    plan(name, loop, [opened(k, each) for k, each in enumerate(arguments)], emit)
    return found
