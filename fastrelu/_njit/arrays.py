"""Arrays in code that is being emitted: how they broadcast, whether one index serves all, and where they overlap."""

import functools
from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils
from numba.np import arrayobj
from numba.np.numpy_support import as_dtype

from .._kernels.emit import Element, all_of
from .._kernels.processor import BYTE, WORD

_FALSE = ir.Constant(ir.IntType(1), 0)


class _Converted(Element):
    """An element that the formula sees in the type which the call computes in."""

    def __init__(self, context, kind, seen):
        super().__init__(context, as_dtype(kind))
        self._seen = seen

    def load(self, builder, place, group=None):
        return self._context.cast(builder, super().load(builder, place, group), self.computes, self._seen)

    def store(self, builder, value, place, group=None):
        super().store(builder, self._context.cast(builder, value, self._seen, self.computes), place, group)


class View(NamedTuple):
    """An array, which it does not own, or what it broadcasts to."""

    element: Element
    address: ir.Value
    shape: list[ir.Value]
    strides: list[ir.Value]

    @property
    def step(self):
        """The bytes from one element to the next where there are no gaps."""
        return WORD(self.element.size)

    def size(self, builder):
        return functools.reduce(builder.mul, self.shape, WORD(1))


def view(context, builder, kind, array, seen):
    """Return a view of an array, whose elements are seen in some type."""
    array = arrayobj.make_array(kind)(context, builder, array)
    address = builder.bitcast(array.data, BYTE.as_pointer())
    shape, strides = (cgutils.unpack_tuple(builder, words, kind.ndim) for words in (array.shape, array.strides))
    return View(_Converted(context, kind.dtype, seen), address, shape, strides)


def empty(context, builder, kind, shape):
    """Return a new array."""
    return arrayobj._empty_nd_impl(context, builder, kind, shape)._getvalue()


def is_equal(builder, words, wanted):
    """Return for each of some words whether it is as wanted."""
    return [builder.icmp_signed("==", word, value) for word, value in zip(words, wanted, strict=True)]


def _axes(view, shape):
    """Return length, stride and wanted length of the axes that a view and a shape both have, the last first."""
    return zip(reversed(view.shape), reversed(view.strides), reversed(shape), strict=False)


def common_shape(builder, views):
    """Return the shape to which views broadcast, if they do."""
    shape = [WORD(1)] * max(len(view.shape) for view in views)
    for view in views:
        for axis, length in enumerate(view.shape, len(shape) - len(view.shape)):
            free = builder.icmp_signed("==", shape[axis], WORD(1))
            shape[axis] = builder.select(free, length, shape[axis])
    return shape


def fit(builder, views, shape):
    """Say whether views broadcast to a shape."""
    if any(len(view.shape) > len(shape) for view in views):
        return _FALSE
    pairs = [(length, wanted) for view in views for length, _, wanted in _axes(view, shape)]
    return all_of(
        builder, [builder.or_(*is_equal(builder, [length] * 2, [WORD(1), wanted])) for length, wanted in pairs]
    )


def broadcast(builder, view, shape):
    """Return what a view broadcasts to, with strides of zero where it repeats."""
    strides = [
        builder.select(builder.icmp_signed("==", length, wanted), stride, WORD(0))
        for length, stride, wanted in _axes(view, shape)
    ]
    strides += [WORD(0)] * (len(shape) - len(strides))
    return view._replace(shape=shape, strides=strides[::-1])


def one_index(builder, views):
    """Say whether all views lie in memory without gaps and in one same order, so that one index serves all."""

    def without_gaps(axes):
        for view in views:
            step = view.step
            for axis in axes:
                yield builder.or_(*is_equal(builder, [view.shape[axis], view.strides[axis]], [WORD(1), step]))
                step = builder.mul(step, view.shape[axis])

    axes = range(len(views[0].shape))
    return builder.or_(all_of(builder, without_gaps(axes[::-1])), all_of(builder, without_gaps(axes)))


def _extent(builder, view):
    """Return the first address of a view and the one after its last."""
    low = high = builder.ptrtoint(view.address, WORD)
    for length, stride in zip(view.shape, view.strides, strict=True):
        way = builder.mul(builder.sub(length, WORD(1)), stride)
        backward = builder.icmp_signed("<", way, WORD(0))
        low = builder.add(low, builder.select(backward, way, WORD(0)))
        high = builder.add(high, builder.select(backward, WORD(0), way))
    return low, builder.add(high, view.step)


def overlap(builder, views, out):
    """Say whether writing `out` in order could change one of the views, of its shape, before it is read."""
    low, high = _extent(builder, out)
    found = _FALSE
    for view in views:
        first, end = _extent(builder, view)
        meet = builder.and_(builder.icmp_unsigned("<", low, end), builder.icmp_unsigned("<", first, high))
        if view.element.size == out.element.size:
            same = is_equal(builder, [view.address, *view.strides], [out.address, *out.strides])
            meet = builder.and_(meet, builder.not_(all_of(builder, same)))
        found = builder.or_(found, meet)
    return found
