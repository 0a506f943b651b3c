"""From how the arrays of a call lie to what a kernel does with them: strides by axis, roles, and vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import dtypes
from .settings import VECTOR_BYTES
from .view import View


def arrays_of(operands: Sequence[Any]) -> list[View]:
    """Return the arrays among operands; the others are numbers."""
    return [value for value in operands if isinstance(value, View)]


def roles_of(operands: Sequence[Any]) -> tuple[str, ...]:
    """Return the roles of operands of a kernel that takes arrays as they are."""
    return tuple("array" if isinstance(value, View) else "scalar" for value in operands)


def stored_of(operands: Sequence[Any]) -> tuple[str, ...]:
    """Return the type characters of arrays in memory, and nothing for numbers."""
    return tuple(dtypes.code(value.dtype) if isinstance(value, View) else "" for value in operands)


def of_role(role: str, operands: Sequence[Any], roles: Sequence[str]) -> list[Any]:
    """Return the operands of a role; of arrays, their addresses."""
    found = [value for value, each in zip(operands, roles, strict=True) if each == role]
    return [value.pointer if isinstance(value, View) else value for value in found]


def rows_of(views: Sequence[View], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the strides of arrays along the axes of a result, 0 where they broadcast."""
    return [_row_of(view, len(shape)) for view in views]


def _row_of(view: View, axes: int) -> tuple[int, ...]:
    inner = (0 if extent == 1 else stride for extent, stride in zip(view.shape, view.strides, strict=True))
    return (0,) * (axes - len(view.shape)) + tuple(inner)


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
