"""The functions with masks inside users' compiled code, on arrays: the formulas, eight elements to a byte.

Here the forward pass reads its input twice. What is not contiguous is copied first.
"""

import numpy as np
from numba.core import errors, types
from numba.extending import intrinsic, overload, register_jitable
from numba.np.numpy_support import as_dtype

from .. import _formulas
from .._api import bitmask, elementwise
from . import _check, _compute, _computed_type, _is_none

_relu_backward = register_jitable(_formulas.relu_backward_from_mask.__wrapped__)
_leaky_relu_backward = register_jitable(_formulas.leaky_relu_backward_from_mask.__wrapped__)


@intrinsic
def _active(typingctx, x):
    def codegen(context, builder, sig, args):
        return _compute(context, builder, "active", x, args, types.boolean)

    return types.boolean(x), codegen


def _left_out(kind):
    return kind is None or _is_none(kind)


def _check_call(name, array, mask, target):
    """Refuse what compiled code does not take."""
    if not isinstance(array, types.Array):
        raise errors.TypingError(f"{name}: accepted in compiled code is an array, not {array}")
    _check(name, "the array", array)
    if not (_left_out(mask) or (isinstance(mask, types.Array) and mask.ndim == 1 and mask.dtype == types.uint8)):
        raise errors.TypingError(f"{name}: the mask must be a one-dimensional array of uint8, not {mask}")
    if not _left_out(target):
        raise errors.TypingError(f"{name}: target= is not supported in compiled code, which runs where its caller runs")


@register_jitable
def _check_length(mask, size):
    if mask.size != (size + 7) // 8:
        raise ValueError("fastrelu: a mask has one byte for every eight elements")


@register_jitable
def _byte(flat, start, count):
    bits = np.uint8(0)
    for k in range(count):
        bits |= np.uint8(np.uint8(_active(flat[start + k])) << np.uint8(k))
    return bits


@register_jitable
def _write(x, mask):
    """Write the bits of an array, as C order counts its elements."""
    flat = np.ascontiguousarray(x).reshape(-1)
    whole = flat.size // 8
    for k in range(whole):
        mask[k] = _byte(flat, 8 * k, 8)
    if flat.size % 8:
        mask[whole] = _byte(flat, 8 * whole, flat.size % 8)


def _writer(name, x, mask_out, target):
    """Return a function that returns the mask of `x`, in `mask_out` if that is given."""
    _check_call(name, x, mask_out, target)
    if _left_out(mask_out):
        new = register_jitable(lambda x, mask_out: np.empty((x.size + 7) // 8, np.uint8))
    else:
        new = register_jitable(lambda x, mask_out: mask_out)

    @register_jitable
    def write(x, mask_out):
        mask = new(x, mask_out)
        _check_length(mask, x.size)
        _write(x, mask)
        return mask

    return write


@overload(bitmask.relu_with_mask)
def _relu_with_mask(x, out=None, mask_out=None, target=None):
    write = _writer("relu_with_mask", x, mask_out, target)

    def impl(x, out=None, mask_out=None, target=None):
        mask = write(x, mask_out)
        return elementwise.relu(x, out=out), mask

    return impl


@overload(bitmask.leaky_relu_with_mask)
def _leaky_relu_with_mask(x, negative_slope=0.01, out=None, mask_out=None, target=None):
    write = _writer("leaky_relu_with_mask", x, mask_out, target)

    def impl(x, negative_slope=0.01, out=None, mask_out=None, target=None):
        mask = write(x, mask_out)
        return elementwise.leaky_relu(x, negative_slope, out=out), mask

    return impl


@overload(bitmask.relu_with_mask_)
def _relu_with_mask_(x, mask_out=None, target=None):
    write = _writer("relu_with_mask_", x, mask_out, target)

    def impl(x, mask_out=None, target=None):
        mask = write(x, mask_out)
        elementwise.relu_(x)
        return mask

    return impl


@overload(bitmask.leaky_relu_with_mask_)
def _leaky_relu_with_mask_(x, negative_slope=0.01, mask_out=None, target=None):
    write = _writer("leaky_relu_with_mask_", x, mask_out, target)

    def impl(x, negative_slope=0.01, mask_out=None, target=None):
        mask = write(x, mask_out)
        elementwise.leaky_relu_(x, negative_slope)
        return mask

    return impl


def _reader(name, grad, mask, slope, out, target):
    """Return a function that returns the gradient, in `out` if that is given."""
    _check_call(name, grad, mask, target)
    kinds = {"grad": grad, "x": grad, "negative_slope": slope, "at_zero": types.float64}
    kinds = {key: kind for key, kind in kinds.items() if kind is not None}
    for argument, kind in kinds.items():
        _check(name, argument, kind)
    computed = _computed_type(name.removesuffix("_").removesuffix("_from_mask"), kinds)
    dtype = as_dtype(computed)
    if slope is None:
        apply = register_jitable(lambda grad, active, slope, k: _relu_backward(grad, active))
    elif isinstance(slope, types.Array):
        apply = register_jitable(lambda grad, active, slope, k: _leaky_relu_backward(grad, active, slope[k]))
    else:
        apply = register_jitable(lambda grad, active, slope, k: _leaky_relu_backward(grad, active, computed(slope)))
    if isinstance(slope, types.Array):
        spread = register_jitable(lambda s, shape: np.broadcast_to(s, shape).copy().astype(dtype).reshape(-1))
    else:
        spread = register_jitable(lambda s, shape: s)
    if _left_out(out):
        leave = register_jitable(lambda result, out: result)
    elif isinstance(out, types.Array) and np.can_cast(dtype, as_dtype(out.dtype), "same_kind"):

        @register_jitable
        def leave(result, out):
            if out.shape != result.shape:
                raise ValueError("fastrelu: out must have the shape of the result")
            out[...] = result
            return out

    else:
        raise errors.TypingError(f"{name}: out is {out}, which cannot hold the result, of type {computed}")

    @register_jitable
    def read(grad, mask, slope, out):
        _check_length(mask, grad.size)
        source = np.ascontiguousarray(grad).reshape(-1)
        slopes = spread(slope, grad.shape)
        result = np.empty(grad.shape, dtype)
        flat = result.reshape(-1)
        for k in range(flat.size):
            active = (mask[k >> 3] >> np.uint8(k & 7)) & 1
            flat[k] = apply(computed(source[k]), active != 0, slopes, k)
        return leave(result, out)

    return read


@overload(bitmask.relu_backward_from_mask)
def _relu_backward_from_mask(grad, mask, out=None, target=None):
    read = _reader("relu_backward_from_mask", grad, mask, None, out, target)

    def impl(grad, mask, out=None, target=None):
        return read(grad, mask, 0.0, out)

    return impl


@overload(bitmask.leaky_relu_backward_from_mask)
def _leaky_relu_backward_from_mask(grad, mask, negative_slope=0.01, out=None, target=None):
    slope = types.float64 if isinstance(negative_slope, float) else negative_slope
    read = _reader("leaky_relu_backward_from_mask", grad, mask, slope, out, target)

    def impl(grad, mask, negative_slope=0.01, out=None, target=None):
        return read(grad, mask, negative_slope, out)

    return impl


@overload(bitmask.relu_backward_from_mask_)
def _relu_backward_from_mask_(grad, mask, target=None):
    read = _reader("relu_backward_from_mask_", grad, mask, None, grad, target)

    def impl(grad, mask, target=None):
        return read(grad, mask, 0.0, grad)

    return impl


@overload(bitmask.leaky_relu_backward_from_mask_)
def _leaky_relu_backward_from_mask_(grad, mask, negative_slope=0.01, target=None):
    slope = types.float64 if isinstance(negative_slope, float) else negative_slope
    read = _reader("leaky_relu_backward_from_mask_", grad, mask, slope, grad, target)

    def impl(grad, mask, negative_slope=0.01, target=None):
        return read(grad, mask, negative_slope, grad)

    return impl
