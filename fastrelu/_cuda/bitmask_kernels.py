"""The kernel that writes or reads one bit per element beside its arrays: one thread for eight elements and their byte.

So no two threads share a byte, and neither atomic operations, nor votes of a warp, nor a protocol for the end of the
array are needed. With a vote of 32 lanes, lane k would hold the bits of elements that lie a vector apart, because
each lane loads 16 bytes: float32 would take four votes and a transposition to put its bits in order. Here a
warp reads 1 KiB of float32, all of each 32-byte sector, and its 32 bytes of mask are one sector. The price is that
each of the two vectors of a float32 thread is half a sector, and the other half comes with the next instruction:
the first-level cache joins the loads and the second-level one the stores. What that costs has not been measured yet.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._operations import ROWS
from .access import applier, loader, packer, storer, unpacker, unraveler
from .dtypes import words
from .numba_cuda import cuda
from .specs import Spec


@dataclass(frozen=True)
class BitmaskSpec(Spec):
    """A kernel beside a bitmask. One operand's role is "bits" if it is read; if none is, it is written."""

    #: Elements of one access: as many as 16 bytes hold if all arrays are contiguous, aligned and of the loop's type.
    width: int
    #: Axes, in C order, as the bits are; at least 1.
    axes: int

    def argument_types(self) -> tuple[Any, ...]:
        word, inputs = words(), len(self.of_role("array"))
        arrays, uniforms = inputs + 1, words(len(self.of_role("uniform")))
        head = words(inputs), word, word, word, word
        return *head, words(self.axes), words(arrays, self.axes), words(arrays), uniforms, self.scalars()

    def python_kernel(self) -> Any:
        return _masked(self)


def _masked(spec):
    # the bits are always those of the formula `active`
    arrays, writes = spec.of_role("array"), "bits" not in spec.roles
    # the row of bits comes after those of the arrays
    order = tuple(("array", len(arrays)) if role == "bits" else (role, k) for role, k in spec.order())

    def batch(width, count):
        lanes = width * count
        return (
            loader(arrays, spec.loop, (width,) * len(arrays), count),
            applier(ROWS[spec.name].formula, spec.loop, order, lanes),
            storer(spec.out, spec.loop, width, count),
            packer(spec.loop, lanes),
            unpacker(spec.loop, lanes),
        )

    load, apply, store, pack, unpack = batch(spec.width, 8 // spec.width)
    load_one, apply_one, store_one, pack_one, unpack_one = batch(1, 1)
    uniform = spec.of_role("uniform")
    load_uniforms = loader(uniform, spec.loop, (1,) * len(uniform), 1)
    load_byte, store_byte = loader(("B",), "q", (1,), 1), storer("B", "q", 1, 1)
    find = unraveler(len(arrays) + 1)
    last, inner, several = len(arrays), spec.axes - 1, spec.axes > 1

    def masked(places, out, mask, mask_step, n, shape, strides, steps, uniforms, scalars):
        # `strides`: those of each array along each axis; `steps`: from one access of a batch to the next
        fixed = load_uniforms(uniforms, 0, 0)
        byte = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        while byte * 8 < n:
            index, place = byte * 8, byte * mask_step
            bits = np.int64(0) if writes else load_byte((mask,), place, 0)[0][0]
            if index + 8 <= n and (not several or index % shape[inner] + 8 <= shape[inner]):
                here = find(index, shape, strides)
                loaded = load(places, here, steps)
                if writes:
                    bits = pack(loaded[0], 0)
                store(out, here[last], steps[last], apply(loaded + (unpack(bits, 0),), fixed, scalars))  # noqa: RUF005
            else:
                for k in range(min(np.int64(8), n - index)):
                    here = find(index + k, shape, strides)
                    loaded = load_one(places, here, 0)
                    if writes:
                        bits |= pack_one(loaded[0], k)
                    row = unpack_one(bits, k)
                    store_one(out, here[last], 0, apply_one(loaded + (row,), fixed, scalars))  # noqa: RUF005
            if writes:
                store_byte(mask, place, 0, (bits,))
            byte += np.int64(cuda.gridDim.x) * np.int64(cuda.blockDim.x)

    return masked
