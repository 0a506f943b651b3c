"""The kernels. Two of them serve every operation, type and layout; an `ElementwiseSpec` says which.

`contiguous` is for operands that lie in memory element after element, all in the operation's own type: 16-byte
accesses, with single elements before the first and after the last vector. `strided` is for everything else: operands
that broadcast, step, run backwards, are converted, or are not aligned alike. It takes a two-dimensional block of
threads, rows by columns, so that finding a row costs one division per axis for many elements, and short rows
(three colour channels) leave no thread idle. Where rows are whole vectors of 16 bytes, a column is such a vector; an
operand that is the same for all of it, such as a slope per row, gives one element.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .access import applier, loader, mover, storer, unraveler
from .dtypes import memory_dtype, words
from .numba_cuda import cuda
from .settings import VECTOR_BYTES
from .specs import Spec


@dataclass(frozen=True)
class ElementwiseSpec(Spec):
    """An operation's kernel. In the contiguous one, an operand may be "uniform": one element in device memory."""

    #: Loads in flight per thread.
    loads: int
    #: Axes of the strided kernel, at least 2; 0 means the contiguous kernel.
    axes: int = 0
    #: Whether the strided kernel's last input is a mask of bools, True where to compute (``where=``).
    masked: bool = False
    #: Per array, how many adjacent elements a column of the strided kernel is; () for one each.
    lanes: tuple[int, ...] = ()

    def argument_types(self) -> tuple[Any, ...]:
        word, inputs = words(), len(self.of_role("array"))
        if not self.axes:
            return words(inputs), word, word, word, words(len(self.of_role("uniform"))), self.scalars()
        operands, axes = inputs + self.masked + 1, self.axes - 1
        return (
            words(inputs),
            word,
            word,
            word,
            words(axes),
            words(operands, axes),
            words(operands),
            word,
            self.scalars(),
        )

    def python_kernel(self) -> Any:
        return _strided(self) if self.axes else _contiguous(self)


def _batch(spec, lanes, count):
    """Return how `spec` loads, computes and stores a batch."""
    width = max(lanes)
    return (
        loader(spec.of_role("array"), spec.loop, lanes, count),
        applier(spec.name, spec.loop, spec.order(), width * count),
        storer(spec.out, spec.loop, width, count),
    )


def _contiguous(spec):
    size, count, uniform = memory_dtype(spec.out).itemsize, spec.loads, spec.of_role("uniform")
    width, arrays = VECTOR_BYTES // size, len(spec.of_role("array"))
    load, apply, store = _batch(spec, (width,) * arrays, count)
    load_vector, apply_vector, store_vector = _batch(spec, (width,) * arrays, 1)
    load_one, apply_one, store_one = _batch(spec, (1,) * arrays, 1)
    load_uniforms = loader(uniform, spec.loop, (1,) * len(uniform), 1)

    def contiguous(arrays, out, n, head, uniforms, scalars):
        # n elements, of which `head` come before the first boundary of 16 bytes
        fixed = load_uniforms(uniforms, 0, 0)
        thread, block = np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x)
        vectors = (n - head) // width
        start, step = head * size, block * VECTOR_BYTES
        tile = np.int64(cuda.blockIdx.x) * block * count
        while tile < vectors:
            vector = tile + thread
            offset = start + vector * VECTOR_BYTES
            if tile + block * count <= vectors:
                store(out, offset, step, apply(load(arrays, offset, step), fixed, scalars))
            else:
                while vector < vectors:
                    store_vector(out, offset, step, apply_vector(load_vector(arrays, offset, step), fixed, scalars))
                    offset += step
                    vector += block
            tile += np.int64(cuda.gridDim.x) * block * count
        if cuda.blockIdx.x == 0:
            after = head + vectors * width
            edges = head + n - after
            edge = thread
            while edge < edges:
                offset = edge * size
                if edge >= head:
                    offset += (after - head) * size
                store_one(out, offset, step, apply_one(load_one(arrays, offset, step), fixed, scalars))
                edge += block

    return contiguous


def _strided(spec):
    arrays = spec.of_role("array")
    operands = len(arrays) + spec.masked + 1
    lanes = spec.lanes or (1,) * len(arrays)
    load, apply, store = _batch(spec, lanes, spec.loads)
    load_one, apply_one, store_one = _batch(spec, lanes, 1)
    load_mask = loader(("?",), "?", (1,), 1)
    start_of_row = unraveler(operands)
    along = mover(operands)
    count, masked, last, before_last = spec.loads, spec.masked, operands - 1, operands - 2

    def strided(places, out, columns, rows, shape, outer, inner, mask, scalars):
        # `shape`: the axes of rows; `outer` and `inner`: each operand's strides along rows and along columns
        tx, ty = np.int64(cuda.threadIdx.x), np.int64(cuda.threadIdx.y)
        bx, by = np.int64(cuda.blockDim.x), np.int64(cuda.blockDim.y)
        across = (columns + bx * count - 1) // (bx * count)
        down = (rows + by - 1) // by
        tile = np.int64(cuda.blockIdx.x)
        while tile < across * down:
            row = tile // across * by + ty
            column = tile % across * (bx * count) + tx
            if row < rows:
                starts = start_of_row(row, shape, outer)
                if not masked and column + bx * (count - 1) < columns:
                    here, steps = along(starts, column, inner), along(0, bx, inner)
                    store(out, here[last], steps[last], apply(load(places, here, steps), (), scalars))
                else:
                    end = min(columns, column + bx * count)
                    while column < end:
                        here = along(starts, column, inner)
                        if not masked or load_mask((mask,), here[before_last], 0)[0][0]:
                            store_one(out, here[last], 0, apply_one(load_one(places, here, 0), (), scalars))
                        column += bx
            tile += np.int64(cuda.gridDim.x)

    return strided
