"""Dask arrays: lazy, one call per block.

Element-wise functions go through Dask's own ``__array_ufunc__``. A target that is forced when the graph is made goes
into it, for whoever runs the block. Functions with masks make one pass per block. The mask of an array is that of its
elements in C order, eight to a byte, so blocks must be whole rows, as many as fill whole bytes. Arrays that are chunked
otherwise are rechunked for the pass, and the result back.

Dask is looked up, and never imported: who freezes a program would get it, and all that it can use, with us.
"""

import functools
import itertools
import math
import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._api import bitmask
from ._arrays import classify
from ._call import containers, dispatch, errors
from ._call.bitmask import BitmaskPass, check_mask
from ._operations import ROWS


@dataclass(frozen=True)
class Block:
    """What a graph holds of a call with a forced target: Dask and xarray take it for the ufunc that it stands for."""

    operation: str
    target: str | None

    nout, signature = 1, None

    @property
    def __name__(self) -> str:
        return self.operation

    @property
    def nin(self) -> int:
        return len(ROWS[self.operation].operands)

    def __call__(self, *operands: Any, **kwargs: Any) -> Any:
        return dispatch.call(self.operation, operands, kwargs.pop("out", dispatch.ABSENT), self.target, kwargs)


def elementwise(
    name: str, ufunc: np.ufunc, operands: Sequence[Any], target: str, kwargs: Mapping[str, Any]
) -> Any:  # fmt: skip
    """Return the lazy result of an element-wise function."""
    da: Any = sys.modules["dask.array"]

    containers.check_parts(name, operands)
    arguments = dict(zip(ROWS[name].names, operands, strict=True))
    if isinstance(kwargs.get("where", True), (da.Array, np.ndarray)):
        arguments["where"] = kwargs["where"]
    shape = None
    if not any(math.isnan(size) for value in arguments.values() for size in np.shape(value)):  # of unknown size
        shape = errors.check_shapes(name, arguments)
    options, out = dict(kwargs), kwargs.get("out")
    if out is not None:
        if not isinstance(out, da.Array):
            raise TypeError(
                f"{name}: out is a {classify.type_name(out)}, but Dask arrays are lazy; compute the result, or pass a "
                "Dask array, which then stands for it"
            )
        if shape is not None and out.shape != shape:
            raise errors.wrong_shape(name, out.shape, shape)
        dtype = containers.result_dtype(name, operands, kwargs)
        if dtype is not None:
            errors.check_cast(name, dtype, "out is", out.dtype)
            if dtype != out.dtype:
                options["dtype"] = out.dtype  # Dask then converts, where it would change the type of `out`
    operands = containers.strong(name, operands, kwargs)
    if target == "auto":
        return ufunc(*operands, **options)
    # Told here, so that Dask need not find out by a call
    options.setdefault("dtype", containers.result_dtype(name, operands, kwargs))
    return containers.lazily(name, ufunc, operands, target, options)


def call(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any) -> Any:
    """Return the lazy result, or results, of a function with masks."""
    da: Any = sys.modules["dask.array"]

    if not ROWS[name].has_bitmask:
        raise TypeError(f"{name}: Dask arrays are not accepted; call it on each block, as map_blocks and reduction do")
    for argument, value in outputs.items():
        if value is not None:
            raise TypeError(f"{name}: {argument} is given, but Dask arrays are lazy and cannot be written to")
    if target == "cuda":
        raise TypeError(f"{name}: target='cuda' does not run on Dask arrays; map it over blocks that are on GPUs")
    data = next(iter(inputs))
    array = da.asarray(inputs[data])
    if any(math.isnan(size) for size in array.shape):
        raise ValueError(f"{name}: {data} has chunks of unknown size; call its compute_chunk_sizes() first")
    rows = _in_rows(array.reshape(1) if array.ndim == 0 else array)
    arguments = [rows]
    per_row = math.prod(rows.shape[1:])
    lengths = tuple(-(-chunk * per_row // 8) for chunk in rows.chunks[0])
    if ROWS[name].reads_bitmask:
        mask = da.asarray(inputs["mask"])
        check_mask(name, "mask", f"{mask.ndim}-d of {mask.dtype}", mask.dtype, mask.shape, array.shape)
        arguments.append(mask.rechunk((lengths,)))
    if "negative_slope" in inputs:
        slope = inputs["negative_slope"]
        if np.ndim(slope):
            slope = da.broadcast_to(da.asarray(slope), array.shape).reshape(rows.shape).rechunk(rows.chunks)
        arguments.append(slope)
    # The type of the result is that of a call on one element of the same types
    some = [np.ones(1, each.dtype) if np.ndim(each) else each for each in arguments]
    kind = BitmaskPass(name, dict(zip(ROWS[name].names, some, strict=True)), {}, None).dtype
    axes, meta = tuple(range(rows.ndim)), np.empty((0,) * rows.ndim, kind)
    pairs = [(each, tuple(range(each.ndim)) if hasattr(each, "chunks") else None) for each in arguments]
    result = da.blockwise(
        functools.partial(_block, name, target), axes, *itertools.chain(*pairs),
        token=name, dtype=kind, meta=meta, align_arrays=False,  # a mask has as many blocks, of other lengths
    )  # fmt: skip

    def shaped(result: Any) -> Any:
        return result.rechunk(array.chunks) if array.ndim else result.reshape(())

    if ROWS[name].reads_bitmask:
        return shaped(result)
    mask = da.blockwise(
        _mask_of, (0,), result, axes, token="mask", dtype=np.uint8, meta=np.empty(0, np.uint8), concatenate=False,
        adjust_chunks={0: lengths},
    )  # fmt: skip
    return shaped(result.map_blocks(operator.itemgetter(0), dtype=kind, meta=meta)), mask


def _mask_of(pair: Any) -> Any:
    while isinstance(pair, list):  # one for each axis that the mask does not have
        (pair,) = pair
    return pair[1]


def _block(name: str, target: str | None, *arguments: Any) -> Any:
    return getattr(bitmask, name)(*arguments, target=target)


def _in_rows(array: Any) -> Any:
    """Return the same array in blocks of whole rows that fill whole bytes of a mask, but for the last."""
    step = 8 // math.gcd(8, math.prod(array.shape[1:]))
    whole = all(len(chunks) == 1 for chunks in array.chunks[1:])
    if whole and all(chunk % step == 0 for chunk in array.chunks[0][:-1]):
        return array
    per_block = math.prod(max(chunks) for chunks in array.chunks)
    rows = max(1, per_block // max(1, math.prod(array.shape[1:])) // step) * step
    return array.rechunk({0: rows, **dict.fromkeys(range(1, array.ndim), -1)})
