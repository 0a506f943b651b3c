"""The mathematics, once: every CPU loop and every CUDA kernel compiles these functions.

``x < zero`` is false for NaN and for -0.0, which is all the special-casing that the contract needs.
Constants are written in the operand's own type: a bare ``0`` or ``0.01`` would make Numba compute in
float64 behind a float32 result.

Each is statements that fall through to the one ``return``. A conditional expression at the end returns twice in the
bytecode of Python 3.12 and later: the CPU then took 20 to 50 % longer (two-core Xeon, November 2026), and NVIDIA's
compiler compared float16 by ``le`` instead of ``lt``, which made +0.0 of -0.0. Conditional expressions that are
assigned, and returned once, do not help. With a return per case, the derivatives had several branches per element.
"""

from numba import vectorize


@vectorize
def relu(x):
    zero = type(x)(0)
    result = x
    if x < zero:
        result = zero
    return result


@vectorize
def leaky_relu(x, negative_slope):
    result = x
    if x < type(x)(0):
        result = x * negative_slope
    return result


@vectorize
def relu_grad(x, at_zero):
    zero = type(x)(0)
    result = x  # NaN
    if x > zero:
        result = type(x)(1)
    if x == zero:
        result = at_zero
    if x < zero:
        result = zero
    return result


@vectorize
def leaky_relu_grad(x, negative_slope, at_zero):
    zero = type(x)(0)
    result = x  # NaN
    if x > zero:
        result = type(x)(1)
    if x == zero:
        result = at_zero
    if x < zero:
        result = negative_slope
    return result


@vectorize
def relu_backward(grad, x, at_zero):
    zero = type(x)(0)
    there = grad * at_zero
    if at_zero == zero:
        there = zero  # a selection: Inf * 0 would be NaN
    result = grad
    if x == zero:
        result = there
    if x < zero:
        result = zero
    return result


@vectorize
def leaky_relu_backward(grad, x, negative_slope, at_zero):
    zero = type(x)(0)
    result = grad
    if x == zero:
        result = grad * at_zero
    if x < zero:
        result = grad * negative_slope
    return result


@vectorize
def active(x):
    return not x <= type(x)(0)  # NaN is active: its gradient passes


@vectorize
def positive(x):
    return x > type(x)(0)  # NaN is not


@vectorize
def slope_term(grad, x):
    result = type(x)(0)
    if x < type(x)(0):
        result = grad * x
    return result


@vectorize
def relu_backward_from_mask(grad, active):
    result = type(grad)(0)
    if active:
        result = grad
    return result


@vectorize
def leaky_relu_backward_from_mask(grad, active, negative_slope):
    result = grad * negative_slope
    if active:
        result = grad
    return result
