"""Masks of one bit per element, made from booleans or read into them."""

import numpy as np
from numba.core import types
from numba.core.typing import signature
from numba.extending import register_jitable

from .._kernels.processor import WORD
from . import arrays


@register_jitable
def _byte(active, start, count):
    bits = np.uint8(0)
    for k in range(count):
        bits |= np.uint8(np.uint8(active[start + k]) << np.uint8(k))
    return bits


def pack(active, mask):
    """Write a mask, as C order counts the elements."""
    active = active.reshape(-1)
    whole = active.size // 8
    for k in range(whole):  # a loop of its own, of eight each time: 1/20 of the time of one that asks how many
        mask[k] = _byte(active, 8 * k, 8)
    if active.size % 8:
        mask[whole] = _byte(active, 8 * whole, active.size % 8)


def unpack(active, mask):
    """Read a mask."""
    active = active.reshape(-1)
    for k in range(active.size):
        active[k] = (mask[k >> 3] >> np.uint8(k & 7)) & 1


def length(builder, view):
    """Return how many bytes the mask of a view has."""
    return builder.lshr(builder.add(view.size(builder), WORD(7)), WORD(3))


class Active:
    """A new array of booleans, which elements are active, while a call needs it."""

    def __init__(self, context, builder, shape):
        self._context, self._builder = context, builder
        self._kind = types.Array(types.boolean, len(shape), "C")
        self._array = arrays.empty(context, builder, self._kind, shape)
        self.view = arrays.view(context, builder, self._kind, self._array, types.boolean)

    def call(self, function, kind, mask):
        """Emit a call of `pack` or `unpack` with a mask of a type."""
        sig = signature(types.void, self._kind, kind)
        self._context.compile_internal(self._builder, function, sig, [self._array, mask])

    def free(self):
        self._context.nrt.decref(self._builder, self._kind, self._array)
