"""Public functions: the forward pass that also returns one bit per element, and the backward pass from those bits."""

from typing import Any, TypeVar

from .._arrays.classify import check_in_place
from .._call.errors import explained
from .._call.passes import call

A = TypeVar("A")


@explained
def relu_with_mask(x: Any, /, *, out: Any = None, mask_out: Any = None, target: str | None = None) -> tuple[Any, Any]:
    """`relu`, and one bit per element that says where it was active: all that the backward pass needs.

    Parameters
    ----------
    x : array_like
        Input of any shape and layout: bool, any integer type, float16, float32 or float64. Arrays of NumPy, PyTorch,
        JAX, Dask, CuPy and Numba; what acts on its own, such as masked arrays and pandas objects, is refused.
    out : ndarray, optional
        Where to put the result; it must have the shape of `x`, and may be `x` or overlap it in any way.
    mask_out : ndarray, optional
        Where to put the mask: one-dimensional, uint8, of ``ceil(x.size / 8)`` bytes, apart from `x` and `out`.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.

    Returns
    -------
    y : ndarray or scalar
        What ``relu(x)`` returns, bit for bit, or `out`.
    mask : ndarray
        ``numpy.packbits(~(x <= 0).ravel(), bitorder="little")``, whatever the layout of `x`, or `mask_out`.

    Raises
    ------
    TypeError
        An argument is of a type that is not accepted, or the result does not cast to `out`.
    ValueError
        Shapes or lengths do not agree, an output is read-only, `mask_out` overlaps another argument, or `target` is
        unknown.
    RuntimeError
        The named target is not available here; the message says why.

    See Also
    --------
    relu_backward_from_mask : the backward pass from the mask.

    Notes
    -----
    NaN is active, as in `relu_backward`, which passes its gradient; zeros of both signs are not. The mask is
    written in the pass that writes `y`. It is 1/32 of what float32 training keeps otherwise, and unlike the saved
    output it is right for any slope. The idea is that of Jain et al., "Gist: Efficient Data Encoding for Deep Neural
    Network Training", ISCA 2018.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> y, mask = fastrelu.relu_with_mask(np.array([-1.0, 2.0, 0.0, 3.0]))
    >>> y
    array([0., 2., 0., 3.])
    >>> np.unpackbits(mask, count=4, bitorder="little")
    array([0, 1, 0, 1], dtype=uint8)
    """
    result: tuple[Any, Any] = call("relu_with_mask", {"x": x}, {"mask_out": mask_out, "out": out}, target)
    return result


@explained
def leaky_relu_with_mask(
    x: Any, /, negative_slope: Any = 0.01, *, out: Any = None, mask_out: Any = None, target: str | None = None
) -> tuple[Any, Any]:
    """`leaky_relu`, and one bit per element that says where it was active: all that the backward pass needs.

    Parameters
    ----------
    x : array_like
        Input of any shape and layout. float16, float32 and float64 keep their type; bool and integers become float64.
    negative_slope : array_like, optional
        Any value; it broadcasts to the shape of `x`.
    out, mask_out, target
        As for `relu_with_mask`.

    Returns
    -------
    y : ndarray or scalar
        What ``leaky_relu(x, negative_slope)`` returns, bit for bit, or `out`.
    mask : ndarray
        ``numpy.packbits(~(x <= 0).ravel(), bitorder="little")``, whatever the layout of `x`, or `mask_out`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `relu_with_mask`; ValueError also where `negative_slope` does not broadcast to the shape of `x`.

    See Also
    --------
    leaky_relu_backward_from_mask : the backward pass from the mask.

    Notes
    -----
    NaN is active, zeros of both signs are not, as for `leaky_relu_backward` with its default `at_zero`. The saved
    output tells the sign of `x` only for slopes above 0; the mask tells it for all.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> y, mask = fastrelu.leaky_relu_with_mask(np.array([-2.0, 3.0]), -0.5)
    >>> y
    array([1., 3.])
    >>> fastrelu.leaky_relu_backward_from_mask(np.array([1.0, 1.0]), mask, -0.5)
    array([-0.5,  1. ])
    """
    inputs, outputs = {"x": x, "negative_slope": negative_slope}, {"mask_out": mask_out, "out": out}
    result: tuple[Any, Any] = call("leaky_relu_with_mask", inputs, outputs, target)
    return result


@explained
def relu_backward_from_mask(grad: Any, mask: Any, /, *, out: Any = None, target: str | None = None) -> Any:
    """Backward pass of ReLU from the mask of `relu_with_mask`: `grad` where the bit is set, else +0.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to the output, of the shape that the input had, in any layout. float16, float32 and
        float64 keep their type; bool and integers become float64.
    mask : ndarray
        What `relu_with_mask` returned: one-dimensional, uint8, of ``ceil(grad.size / 8)`` bytes. Bits beyond the
        last element are ignored.
    out : ndarray, optional
        Where to put the result; it must have the shape of `grad`, and may be `grad` or overlap anything.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.

    Returns
    -------
    ndarray or scalar
        What ``relu_backward(grad, x)`` returns, bit for bit, or `out`.

    Raises
    ------
    TypeError
        `mask` is not a one-dimensional array of uint8, or an argument is of a type that is not accepted.
    ValueError
        `mask` has the wrong length, shapes do not agree, `out` is read-only, or `target` is unknown.
    RuntimeError
        The named target is not available here; the message says why.

    Notes
    -----
    A selection, never a product: a gradient of Inf or NaN at an inactive unit gives +0. Neither the input nor the
    output of the forward pass is read: two arrays and a bit instead of three arrays.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> y, mask = fastrelu.relu_with_mask(np.array([-1.0, 2.0, np.nan]))
    >>> fastrelu.relu_backward_from_mask(np.array([10.0, 20.0, 30.0]), mask)
    array([ 0., 20., 30.])
    """
    return call("relu_backward_from_mask", {"grad": grad, "mask": mask}, {"out": out}, target)


@explained
def leaky_relu_backward_from_mask(
    grad: Any, mask: Any, /, negative_slope: Any = 0.01, *, out: Any = None, target: str | None = None
) -> Any:
    """Backward pass of Leaky ReLU from a mask: `grad` where the bit is set, else ``grad * negative_slope``.

    Parameters
    ----------
    grad, mask, out, target
        As for `relu_backward_from_mask`.
    negative_slope : array_like, optional
        Any value; it broadcasts to the shape of `grad`.

    Returns
    -------
    ndarray or scalar
        What ``leaky_relu_backward(grad, x, negative_slope)`` returns, bit for bit, or `out`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `relu_backward_from_mask`; ValueError also where `negative_slope` does not broadcast.

    Notes
    -----
    Right for any slope, also after an in-place forward pass with a slope of 0 or below, whose output no longer tells
    which elements were negative. A slope of 0 multiplies: Inf at an inactive unit gives NaN.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-1.0, 2.0])
    >>> mask = fastrelu.leaky_relu_with_mask_(x, 0.1)
    >>> fastrelu.leaky_relu_backward_from_mask(np.array([10.0, 20.0]), mask, 0.1)
    array([ 1., 20.])
    """
    inputs = {"grad": grad, "mask": mask, "negative_slope": negative_slope}
    return call("leaky_relu_backward_from_mask", inputs, {"out": out}, target)


@explained
def relu_with_mask_(x: Any, /, *, mask_out: Any = None, target: str | None = None) -> Any:
    """Overwrite `x` with `relu` of it, and return the mask of where it was active.

    Parameters
    ----------
    x : ndarray
        An array that can be written to, of any shape and of a type that `relu` takes.
    mask_out, target
        As for `relu_with_mask`.

    Returns
    -------
    ndarray
        The mask, as `relu_with_mask` returns it.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `relu_with_mask`; TypeError also for a list or a scalar. Nothing is written before an error.

    Notes
    -----
    NaN stays NaN and is active; zeros of both signs stay as they are and are not. After this call the mask is all that
    is left of the signs of `x`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.relu_with_mask_(x)
    array([2], dtype=uint8)
    >>> x
    array([0., 3.])
    """
    check_in_place("relu_with_mask_", x)
    return call("relu_with_mask", {"x": x}, {"mask_out": mask_out, "out": x}, target)[1]


@explained
def leaky_relu_with_mask_(
    x: Any, /, negative_slope: Any = 0.01, *, mask_out: Any = None, target: str | None = None
) -> Any:
    """Overwrite `x` with `leaky_relu` of it, and return the mask of where it was active.

    Parameters
    ----------
    x : ndarray
        An array of floats that can be written to, of any shape.
    negative_slope : array_like, optional
        Any value; it broadcasts to the shape of `x`.
    mask_out, target
        As for `relu_with_mask`.

    Returns
    -------
    ndarray
        The mask, as `leaky_relu_with_mask` returns it.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `leaky_relu_with_mask`; TypeError also for a list, a scalar or integers.

    Notes
    -----
    NaN is active, zeros are not. With a slope of 0 or below the result no longer tells which elements were negative;
    the mask does.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.leaky_relu_with_mask_(x, 0.5)
    array([2], dtype=uint8)
    >>> x
    array([-1.,  3.])
    """
    check_in_place("leaky_relu_with_mask_", x)
    inputs, outputs = {"x": x, "negative_slope": negative_slope}, {"mask_out": mask_out, "out": x}
    return call("leaky_relu_with_mask", inputs, outputs, target)[1]


@explained
def relu_backward_from_mask_(grad: A, mask: Any, /, *, target: str | None = None) -> A:
    """Overwrite `grad` with `relu_backward_from_mask` of it, and return it.

    Parameters
    ----------
    grad : ndarray
        An array of floats that can be written to, of any shape.
    mask, target
        As for `relu_backward_from_mask`.

    Returns
    -------
    ndarray
        The same object as `grad`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `relu_backward_from_mask`; TypeError also for a list, a scalar or integers.

    Notes
    -----
    A selection: Inf and NaN at inactive units become +0. Memory of the forward pass is not needed any more.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad = np.array([10.0, 20.0])
    >>> fastrelu.relu_backward_from_mask_(grad, np.array([2], np.uint8))
    array([ 0., 20.])
    """
    check_in_place("relu_backward_from_mask_", grad)
    result: A = call("relu_backward_from_mask", {"grad": grad, "mask": mask}, {"out": grad}, target)
    return result


@explained
def leaky_relu_backward_from_mask_(
    grad: A, mask: Any, /, negative_slope: Any = 0.01, *, target: str | None = None
) -> A:
    """Overwrite `grad` with `leaky_relu_backward_from_mask` of it, and return it.

    Parameters
    ----------
    grad : ndarray
        An array of floats that can be written to, of any shape.
    mask, negative_slope, target
        As for `leaky_relu_backward_from_mask`.

    Returns
    -------
    ndarray
        The same object as `grad`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `leaky_relu_backward_from_mask`; TypeError also for a list, a scalar or integers.

    Notes
    -----
    NaN and Inf are multiplied at inactive units, zeros keep the sign that the product has.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad = np.array([10.0, 20.0])
    >>> fastrelu.leaky_relu_backward_from_mask_(grad, np.array([2], np.uint8), 0.5)
    array([ 5., 20.])
    """
    check_in_place("leaky_relu_backward_from_mask_", grad)
    inputs = {"grad": grad, "mask": mask, "negative_slope": negative_slope}
    result: A = call("leaky_relu_backward_from_mask", inputs, {"out": grad}, target)
    return result
