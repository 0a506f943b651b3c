"""Calls of the functions with bitmasks, on device arrays and by way of copies on host arrays, and their launches."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._arrays import classify
from .._call import bitmask as host_bitmask
from .._call.job_cache import Key
from .._operations import ROWS
from .._runtime.jobs import coalesce
from . import dtypes, launch_cache, passes
from .bitmask_kernels import BitmaskSpec
from .elementwise import write_apart
from .grids import flat_grid
from .launch_cache import Planned
from .layouts import arrays_of, contiguous_roles, of_role, roles_of, rows_of, stored_of
from .settings import VECTOR_BYTES
from .staging import Part, flat, stream_through
from .view import View


class OnDevice(passes.Pass):
    """A pass on device arrays that writes a bitmask, `mask_out`, or reads one, `mask`."""

    def check(self) -> None:
        super().check()
        argument = "mask" if self.row.reads_bitmask else "mask_out"
        mask = {**self.inputs, **self.outputs}.get(argument)
        if mask is None:
            return
        if isinstance(mask, View):
            what = f"a {self.library.label} of dtype {mask.dtype} and shape {mask.shape}"
            dtype, shape = mask.dtype, mask.shape
        else:
            what, dtype, shape = classify.type_name(mask), classify.dtype_of(mask), ()
        host_bitmask.check_mask(self.name, argument, what, dtype, shape, self.shape)
        if argument == "mask_out":
            self.check_apart("mask_out")

    def run(self) -> Any:
        reads, out, length = self.row.reads_bitmask, self.result(), host_bitmask.length(self.shape)
        mask = self.inputs["mask"] if reads else self.memory("mask_out", (length,), host_bitmask.MASK)

        def write(target: View) -> None:
            launch(self.name, self.loop, self.operands, target, mask, self.stream)

        self.launch(lambda: write_apart(self, out, write))
        return self.leave("out") if reads else (self.leave("out"), self.leave("mask_out"))


class Staged(host_bitmask.BitmaskPass):
    """A pass on host arrays, copied to the GPU and back in pieces of whole bytes of the bitmask."""

    def compute(self, arrays: Sequence[np.ndarray], key: Key | None) -> None:
        reads, count = self.row.reads_bitmask, len(self.inputs)
        mask = arrays[1 if reads else count]
        # A parameter that is one number everywhere goes to the kernel as one
        numbers = [
            array.flat[0] if k and array is not mask and not any(array.strides) else None
            for k, array in enumerate(arrays[:count])
        ]

        def compute(views: list[View], results: list[View], stream: int) -> None:
            rest = iter(views)
            operands = [next(rest) if number is None else number for number in numbers]
            bits = operands.pop(1) if reads else results[0]
            launch(self.name, self.dtype, operands, results[-1], bits, stream)

        parts = [Part(flat(array), array.dtype, 8 if array is mask else 1) for array in arrays]
        inputs = [part for part, number in zip(parts, numbers, strict=False) if number is None]
        stream_through(arrays[0].size, inputs, parts[count:], compute)


def launch(name: str, loop: np.dtype, operands: Sequence[Any], out: View, mask: View, stream: int) -> None:
    """Choose kernel and grid for data of at least one element, and launch; the mask is none of the `operands`."""
    launch_cache.launch(plan, name, loop, [*operands, mask, out], stream)


def plan(name: str, loop: np.dtype, arguments: Sequence[Any]) -> Iterator[Planned]:
    """Plan the launch for operands, the bitmask, and the output."""
    *operands, mask, out = arguments
    extents, steps = coalesce(out.shape, rows_of([*arrays_of(operands), out], out.shape), ordered=True)
    roles, width = contiguous_roles(operands, out, loop, extents, steps), VECTOR_BYTES // loop.itemsize
    # The first element must begin a vector, as it begins a byte, and a vector must not be more than a byte's elements;
    # and the data, which makes the bits, must be an array
    if roles is None or roles[0] != "array" or out.pointer % VECTOR_BYTES or width > 8:
        roles, width = roles_of(operands), 1
    kinds = [role for role in roles if role != "scalar"]
    rows = [row or [0] for row, kind in zip(steps, (*kinds, "array"), strict=True) if kind == "array"]
    pointers, uniforms, scalars = (of_role(role, operands, roles) for role in ("array", "uniform", "scalar"))
    stored = stored_of(operands)
    if ROWS[name].reads_bitmask:
        roles, stored = (roles[0], "bits", *roles[1:]), (stored[0], "", *stored[1:])
    n = math.prod(out.shape)
    spec = BitmaskSpec(name, dtypes.code(loop), roles, stored, dtypes.code(out.dtype), width, len(rows[0]))
    yield spec, flat_grid(-(-n // 8)), (
        *pointers, out.pointer, mask.pointer, mask.strides[0], n, *(extents or [1]),
        *(step for row in rows for step in row), *(row[-1] if width == 1 else VECTOR_BYTES for row in rows),
        *uniforms, *scalars,
    )  # fmt: skip
