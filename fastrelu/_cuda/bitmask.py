"""Calls of the functions with masks, on device arrays and by way of copies on host arrays, and their launches."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import classify
from .._call import bitmask
from .._call.job_cache import Key
from .._operations import MASKED
from .._runtime.jobs import coalesce
from . import dtypes, launch_cache, passes, settings
from .bitmask_kernels import MaskSpec
from .elementwise import _limit, _number, contiguous_roles, of_role, write_apart
from .grids import broadcast, flat_grid
from .settings import VECTOR_BYTES
from .staging import Part, flat, stream_through
from .view import View


class MaskPass(passes.Pass):
    """A pass on device arrays that writes a mask, `mask_out`, or reads one, `mask`."""

    def check(self) -> None:
        super().check()
        self.reads = "mask" in self.inputs
        argument = "mask" if self.reads else "mask_out"
        mask = (self.inputs if self.reads else self.outputs).get(argument)
        if mask is None:
            return
        if not isinstance(mask, View):  # a number
            bitmask.check_mask(self.name, argument, classify.type_name(mask), classify.dtype_of(mask), (), self.shape)
            return
        what = f"a {self.library.label} of dtype {mask.dtype} and shape {mask.shape}"
        bitmask.check_mask(self.name, argument, what, mask.dtype, mask.shape, self.shape)
        if not self.reads:
            self.check_apart("mask_out")

    def run(self) -> Any:
        out = self.memory("out", self.shape, self.loop)
        mask = (
            self.inputs["mask"] if self.reads else self.memory("mask_out", (bitmask.length(self.shape),), bitmask.MASK)
        )

        def write(target: View) -> None:
            launch(self.name, self.loop, self.operands, target, mask, self.stream)

        self.launch(lambda: write_apart(self.name, self.library, self.views, out, self.stream, write))
        return self.leave("out") if self.reads else (self.leave("out"), self.leave("mask_out"))


class StagedMaskPass(bitmask.MaskPass):
    """A pass on host arrays, copied to the GPU and back in pieces of whole bytes of the mask."""

    def compute(self, arrays: Sequence[np.ndarray], key: Key | None) -> None:
        reads, count = "mask" in self.inputs, len(self.inputs)
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
    values = [value if isinstance(value, View) else _number(value, loop) for value in operands]
    launch_cache.launch(_plan, name, loop, [*values, mask, out], stream)


def _plan(name: str, loop: np.dtype, arguments: Sequence[Any], emit: launch_cache.Emit) -> None:
    *operands, mask, out = arguments
    arrays = [view for view in operands if isinstance(view, View)]
    strides = [broadcast(view.shape, view.strides, out.shape) for view in arrays]
    extents, steps = coalesce(out.shape, [*strides, out.strides], ordered=True)
    roles, width = contiguous_roles(operands, out, loop, extents, steps), VECTOR_BYTES // loop.itemsize
    # The first element must begin a vector, as it begins a byte, and a vector must not be more than a byte's elements;
    # and the data, which makes the bits, must be an array
    if roles is None or roles[0] != "array" or out.pointer % VECTOR_BYTES or width > 8:
        roles, width = tuple("array" if isinstance(view, View) else "scalar" for view in operands), 1
    kinds = [role for role in roles if role != "scalar"]
    rows = [row or [0] for row, kind in zip(steps, (*kinds, "array"), strict=True) if kind == "array"]
    pointers = of_role("array", operands, roles)
    uniforms = of_role("uniform", operands, roles)
    scalars = of_role("scalar", operands, roles)
    stored = tuple(_code(view.dtype) if isinstance(view, View) else "" for view in operands)
    if "mask" in MASKED[name]:
        roles, stored = (roles[0], "bits", *roles[1:]), (stored[0], "", *stored[1:])
    spec = MaskSpec(name, _code(loop), roles, stored, _code(out.dtype), width, len(rows[0]))
    n = math.prod(out.shape)
    grid = flat_grid(-(-n // 8), settings.BLOCK, 1, _limit())
    emit(spec, grid, (
        *pointers, out.pointer, mask.pointer, mask.strides[0], n, *(extents or [1]),
        *(step for row in rows for step in row), *(row[-1] if width == 1 else VECTOR_BYTES for row in rows),
        *uniforms, *scalars,
    ))  # fmt: skip


def _code(dtype: np.dtype) -> str:
    code = dtypes.code_of(dtype)
    assert code is not None
    return code
