"""Public functions: passes that also count active elements per unit, and the gradient of the slope."""

from typing import Any, TypeVar

from .._arrays.classify import check_in_place
from .._call.errors import explained
from .._call.passes import call

A = TypeVar("A")


@explained
def relu_with_counts(
    x: Any, counts: Any, /, *, axis: int | None = -1, out: Any = None, target: str | None = None
) -> Any:  # fmt: skip
    """`relu`, which also adds to `counts` how many elements of each unit were positive.

    Parameters
    ----------
    x : array_like
        Input of any shape and layout: bool, any integer type, float16, float32 or float64.
    counts : ndarray
        int64, with one entry for each unit along `axis`: of shape ``(x.shape[axis],)``, or ``()`` with ``axis=None``.
        The counts of this call are added to it. It may share no memory with the others.
    axis : int or None, optional
        The axis along which the units lie; None counts all elements together.
    out : ndarray, optional
        Where to put the result; it must have the shape of `x`, and may be `x` or overlap it in any way.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.

    Returns
    -------
    ndarray
        What ``relu(x)`` returns, bit for bit, or `out`.

    Raises
    ------
    TypeError
        An argument is of a type that is not accepted, or the result does not cast to `out`.
    ValueError
        Shapes do not agree, `axis` is none of `x` (`numpy.exceptions.AxisError`), an output is read-only, `counts`
        overlaps another argument, or `target` is unknown. Nothing is written before an error.
    RuntimeError
        The named target is not available here; the message says why.

    See Also
    --------
    count_active : the counts alone.
    DeadUnits : what never fired over many batches.

    Notes
    -----
    NaN and zeros of both signs are not positive. Counting happens in the pass that writes the result, so that a
    training loop learns which units are dead without a second look at its data. Dead units are described by Lu et al.,
    "Dying ReLU and Initialization: Theory and Numerical Examples", 2019.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> counts = np.zeros(3, np.int64)
    >>> fastrelu.relu_with_counts(np.array([[1.0, -1.0, 2.0], [3.0, -2.0, 0.0]]), counts)
    array([[1., 0., 2.],
           [3., 0., 0.]])
    >>> counts
    array([2, 0, 1])
    """
    return call("relu_with_counts", {"x": x}, {"out": out, "counts": counts}, target, axis=axis)


@explained
def leaky_relu_with_counts(
    x: Any, counts: Any, /, negative_slope: Any = 0.01, *, axis: int | None = -1, out: Any = None,
    target: str | None = None,
) -> Any:  # fmt: skip
    """`leaky_relu`, which also adds to `counts` how many elements of each unit were positive.

    Parameters
    ----------
    x : array_like
        Input of any shape and layout. float16, float32 and float64 keep their type; bool and integers become float64.
    counts, axis, out, target
        As for `relu_with_counts`.
    negative_slope : array_like, optional
        Any value; it broadcasts to the shape of `x`.

    Returns
    -------
    ndarray
        What ``leaky_relu(x, negative_slope)`` returns, bit for bit, or `out`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `relu_with_counts`; ValueError also where `negative_slope` does not broadcast to the shape of `x`.

    Notes
    -----
    NaN and zeros of both signs are not positive. What is counted does not depend on the slope.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> counts = np.zeros(2, np.int64)
    >>> fastrelu.leaky_relu_with_counts(np.array([[1.0, -1.0], [3.0, -2.0]]), counts, 0.5)
    array([[ 1. , -0.5],
           [ 3. , -1. ]])
    >>> counts
    array([2, 0])
    """
    inputs, outputs = {"x": x, "negative_slope": negative_slope}, {"out": out, "counts": counts}
    return call("leaky_relu_with_counts", inputs, outputs, target, axis=axis)


@explained
def relu_with_counts_(x: A, counts: Any, /, *, axis: int | None = -1, target: str | None = None) -> A:
    """Overwrite `x` with `relu` of it, add to `counts` how many elements were positive, and return `x`.

    Parameters
    ----------
    x : ndarray
        An array that can be written to, of any shape and of a type that `relu` takes.
    counts, axis, target
        As for `relu_with_counts`.

    Returns
    -------
    ndarray
        The same object as `x`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `relu_with_counts`; TypeError also for a list or a scalar.

    Notes
    -----
    NaN and zeros of both signs stay as they are, and are not counted.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x, counts = np.array([[-2.0, 3.0]]), np.zeros(2, np.int64)
    >>> fastrelu.relu_with_counts_(x, counts)
    array([[0., 3.]])
    >>> counts
    array([0, 1])
    """
    check_in_place("relu_with_counts_", x)
    result: A = call("relu_with_counts", {"x": x}, {"out": x, "counts": counts}, target, axis=axis)
    return result


@explained
def leaky_relu_with_counts_(
    x: A, counts: Any, /, negative_slope: Any = 0.01, *, axis: int | None = -1, target: str | None = None
) -> A:  # fmt: skip
    """Overwrite `x` with `leaky_relu` of it, add to `counts` how many elements were positive, and return `x`.

    Parameters
    ----------
    x : ndarray
        An array of floats that can be written to, of any shape.
    counts, negative_slope, axis, target
        As for `leaky_relu_with_counts`.

    Returns
    -------
    ndarray
        The same object as `x`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `leaky_relu_with_counts`; TypeError also for a list, a scalar or integers.

    Notes
    -----
    NaN and zeros of both signs are not counted.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x, counts = np.array([[-2.0, 3.0]]), np.zeros(2, np.int64)
    >>> fastrelu.leaky_relu_with_counts_(x, counts, 0.5)
    array([[-1.,  3.]])
    """
    check_in_place("leaky_relu_with_counts_", x)
    inputs, outputs = {"x": x, "negative_slope": negative_slope}, {"out": x, "counts": counts}
    result: A = call("leaky_relu_with_counts", inputs, outputs, target, axis=axis)
    return result


@explained
def count_active(x: Any, /, *, axis: int | None = -1, out: Any = None, target: str | None = None) -> Any:
    """Count the positive elements of each unit.

    Parameters
    ----------
    x : array_like
        Input of any shape and layout: bool, any integer type, float16, float32 or float64.
    axis : int or None, optional
        The axis along which the units lie, which is kept; all others are counted over. None counts all elements.
    out : ndarray, optional
        int64, where to put the counts: of shape ``(x.shape[axis],)``, or ``()`` with ``axis=None``.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.

    Returns
    -------
    ndarray or scalar
        ``numpy.count_nonzero(x > 0, axis=others)``, where `others` are all axes but `axis`, or `out`.

    Raises
    ------
    TypeError
        `x` or `out` is of a type that is not accepted.
    ValueError
        `axis` is none of `x` (`numpy.exceptions.AxisError`), `out` has another shape, is read-only or shares memory
        with `x`, or `target` is unknown.
    RuntimeError
        The named target is not available here; the message says why.

    Notes
    -----
    NaN and zeros of both signs are not positive. There is no temporary of the size of `x`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.count_active(np.array([[1.0, -1.0, 2.0], [3.0, -2.0, np.nan]]))
    array([2, 0, 1])
    """
    return call("count_active", {"x": x}, {"out": out}, target, axis=axis)


@explained
def leaky_relu_slope_grad(
    grad: Any, x: Any, /, *, axis: int | None = None, out: Any = None, target: str | None = None
) -> Any:  # fmt: skip
    """Gradient of Leaky ReLU with respect to its slope: the sum of ``grad * x`` over ``x < 0``.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to the output. float16, float32 and float64 keep their type; bool and integers become
        float64.
    x : array_like
        Input of the forward pass, which broadcasts to the shape of `grad`.
    axis : int or None, optional
        The axis along which there is a slope per unit; None, the default, is for one slope.
    out : ndarray, optional
        Where to put the result: of shape ``(grad.shape[axis],)``, or ``()`` with ``axis=None``. In an array of
        float64, sums of float16 and float32 arrive unrounded.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.

    Returns
    -------
    ndarray or scalar
        The sums, in the type that `grad` and `x` promote to, or `out`.

    Raises
    ------
    TypeError
        An argument is of a type that is not accepted, or the sums do not cast to `out`.
    ValueError
        Shapes do not agree, `axis` is none of `grad` (`numpy.exceptions.AxisError`), `out` is read-only or shares
        memory with an input, or `target` is unknown.
    RuntimeError
        The named target is not available here; the message says why.

    See Also
    --------
    leaky_relu_backward_with_slope_grad : the same, fused with the gradient of the input.

    Notes
    -----
    NaN and zeros in `x` add nothing. Products and sums are float64, and what rounding loses of a sum is
    summed too (Knuth, "The Art of Computer Programming", volume 2, 4.2.2): the error is that of rounding the products,
    and does not grow with the number of terms. Sums are taken in one order, whatever the number of threads. The
    definition is that of PReLU: He et al., "Delving Deep into Rectifiers", ICCV 2015.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad, x = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[-1.0, 5.0], [-0.5, -2.0]])
    >>> float(fastrelu.leaky_relu_slope_grad(grad, x))
    -10.5
    >>> fastrelu.leaky_relu_slope_grad(grad, x, axis=1)
    array([-2.5, -8. ])
    """
    return call("leaky_relu_slope_grad", {"grad": grad, "x": x}, {"out": out}, target, axis=axis)


@explained
def leaky_relu_backward_with_slope_grad(
    grad: Any, x: Any, /, negative_slope: Any = 0.01, *, axis: int | None = None, out: Any = None,
    slope_out: Any = None, target: str | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Backward pass of Leaky ReLU for input and slope: `leaky_relu_backward` and `leaky_relu_slope_grad` in one pass.

    Parameters
    ----------
    grad, x, axis, target
        As for `leaky_relu_slope_grad`.
    negative_slope : array_like, optional
        Any value; it broadcasts to the shape of `grad`.
    out : ndarray, optional
        Where to put the gradient of the input; it must have the shape of `grad`, and may be `grad` or overlap the
        inputs in any way.
    slope_out : ndarray, optional
        Where to put the gradient of the slope, as `out` of `leaky_relu_slope_grad`.

    Returns
    -------
    grad_x : ndarray or scalar
        What ``leaky_relu_backward(grad, x, negative_slope)`` returns, bit for bit, or `out`.
    grad_slope : ndarray or scalar
        What ``leaky_relu_slope_grad(grad, x, axis=axis)`` returns, or `slope_out`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `leaky_relu_slope_grad`; ValueError also where `negative_slope` does not broadcast.

    Notes
    -----
    NaN in `x` passes `grad` on and adds nothing to the sums; at zero the derivative of the input is the slope.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad_x, grad_slope = fastrelu.leaky_relu_backward_with_slope_grad(
    ...     np.array([1.0, 2.0]), np.array([-3.0, 5.0]), 0.5
    ... )
    >>> grad_x, float(grad_slope)
    (array([0.5, 2. ]), -3.0)
    """
    inputs = {"grad": grad, "x": x, "negative_slope": negative_slope}
    outputs = {"out": out, "slope_out": slope_out}
    name = "leaky_relu_backward_with_slope_grad"
    result: tuple[Any, Any] = call(name, inputs, outputs, target, axis=axis)
    return result


@explained
def leaky_relu_backward_with_slope_grad_(
    grad: Any, x: Any, /, negative_slope: Any = 0.01, *, axis: int | None = None, slope_out: Any = None,
    target: str | None = None,
) -> Any:  # fmt: skip
    """Overwrite `grad` with the gradient of the input, and return the gradient of the slope.

    Parameters
    ----------
    grad : ndarray
        An array of floats that can be written to, of any shape.
    x, negative_slope, axis, slope_out, target
        As for `leaky_relu_backward_with_slope_grad`.

    Returns
    -------
    ndarray or scalar
        The gradient of the slope, or `slope_out`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `leaky_relu_backward_with_slope_grad`; TypeError also for a list, a scalar or integers.

    Notes
    -----
    NaN in `x` passes `grad` on and adds nothing to the sums.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad = np.array([1.0, 2.0])
    >>> float(fastrelu.leaky_relu_backward_with_slope_grad_(grad, np.array([-3.0, 5.0]), 0.5))
    -3.0
    >>> grad
    array([0.5, 2. ])
    """
    check_in_place("leaky_relu_backward_with_slope_grad_", grad)
    inputs = {"grad": grad, "x": x, "negative_slope": negative_slope}
    name = "leaky_relu_backward_with_slope_grad"
    return call(name, inputs, {"out": grad, "slope_out": slope_out}, target, axis=axis)[1]
