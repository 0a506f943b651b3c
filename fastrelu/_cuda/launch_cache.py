"""Launches that were planned before, for arrays of the same types, shapes, strides and alignment.

Which kernel, which grid and which numbers beside the addresses follow from these alone; to find out takes some 30 us of
Python. So a plan is made once, for arrays whose addresses are left open, and is filled in for each call.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import dtypes, settings
from .grids import Grid
from .launcher import Prepared, prepared
from .settings import VECTOR_BYTES
from .specs import Spec
from .view import View

#: Plans at most, and launches of one; arrays of more axes than a kernel has may take thousands.
MOST, LONGEST = 4096, 16

#: What a plan has for each launch: kernel, grid, and the kernel's arguments, flat.
Planned = tuple[Spec, Grid, Sequence[Any]]
#: ``plan(name, loop, arguments, *more)``: what plans launches for arguments, which are views, numbers or None.
Plan = Callable[..., Iterator[Planned]]


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


#: A launch: kernel, grid, arguments, and of those that are open the position, the argument, and the bytes on.
_Launch = tuple[Prepared, Grid, list[Any], list[tuple[int, int, int]]]
_plans: dict[Any, list[_Launch]] = {}


def number(value: Any, loop: np.dtype) -> Any:
    """Return a scalar operand as the number that NumPy would compute with."""
    with np.errstate(all="ignore"):
        found = np.array(value).astype(loop) if isinstance(value, np.generic) else np.array(value, loop)
    # of float32's own type in the simulator, whose kernels are Python
    result: Any = found.astype("f")[()] if loop.itemsize == 2 and dtypes.is_float(loop) else found[()]
    return result


def launch(plan: Plan, name: str, loop: np.dtype, arguments: Sequence[Any], stream: int, *more: Any) -> None:
    """Launch what is planned for arguments: views, an output the last of them, numbers, None."""
    arguments = [each if each is None or isinstance(each, View) else number(each, loop) for each in arguments]
    device = arguments[-1].device
    layouts = tuple([
        (each.shape, each.strides, each.dtype, each.pointer % VECTOR_BYTES) if isinstance(each, View)
        else each is None
        for each in arguments
    ])  # fmt: skip
    key = plan, name, loop, device, layouts, settings.of_launches(), more
    found = _plans.get(key)
    if found is None:
        opened = [_opened(k, each) for k, each in enumerate(arguments)]
        found = [_recorded(*planned) for planned in plan(name, loop, opened, *more)]
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


def _opened(k: int, argument: Any) -> Any:
    if isinstance(argument, View):
        return replace(argument, owner=None, keeper=None, pointer=Open(argument.pointer, k), stream=0)
    return None if argument is None else Open(0, k)


def _recorded(spec: Spec, grid: Grid, values: Sequence[Any]) -> _Launch:
    places = [(k, value.index, value.offset) for k, value in enumerate(values) if isinstance(value, Open)]
    return prepared(spec), grid, list(values), places
