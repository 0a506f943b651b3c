"""Public functions that sum per unit: counts of positive elements, and the gradient of the slope."""

from typing import Any, TypeVar

from .._call.passes import call
from .._operations import NEGATIVE_SLOPE
from .public import in_place, public

__all__ = [
    "count_active",
    "leaky_relu_backward_with_slope_grad",
    "leaky_relu_backward_with_slope_grad_",
    "leaky_relu_slope_grad",
    "leaky_relu_with_counts",
    "leaky_relu_with_counts_",
    "relu_with_counts",
    "relu_with_counts_",
]

A = TypeVar("A")


@public
def relu_with_counts(
    x: Any, counts: Any, /, *, axis: int | None = -1, out: Any = None, target: str | None = None
) -> Any:  # fmt: skip
    """`relu`, which also adds to `counts` how many elements of each unit were positive.

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


@public
def leaky_relu_with_counts(
    x: Any, counts: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *,
    axis: int | None = -1, out: Any = None, target: str | None = None,
) -> Any:  # fmt: skip
    """`leaky_relu`, which also adds to `counts` how many elements of each unit were positive.

    Notes
    -----
    NaN and zeros of both signs are not positive. What is counted does not depend on the slope. Why one counts is said
    at `relu_with_counts`.

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


@public
def relu_with_counts_(x: A, counts: Any, /, *, axis: int | None = -1, target: str | None = None) -> A:
    """Overwrite `x` with `relu` of it, add to `counts` how many elements were positive, and return `x`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x, counts = np.array([[-2.0, 3.0]]), np.zeros(2, np.int64)
    >>> fastrelu.relu_with_counts_(x, counts)
    array([[0., 3.]])
    >>> counts
    array([0, 1])
    """
    in_place("relu_with_counts", {"x": x}, {"out": x, "counts": counts}, target, axis=axis)
    return x


@public
def leaky_relu_with_counts_(
    x: A, counts: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *, axis: int | None = -1, target: str | None = None
) -> A:
    """Overwrite `x` with `leaky_relu` of it, add to `counts` how many elements were positive, and return `x`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x, counts = np.array([[-2.0, 3.0]]), np.zeros(2, np.int64)
    >>> fastrelu.leaky_relu_with_counts_(x, counts, 0.5)
    array([[-1.,  3.]])
    """
    inputs, outputs = {"x": x, "negative_slope": negative_slope}, {"out": x, "counts": counts}
    in_place("leaky_relu_with_counts", inputs, outputs, target, axis=axis)
    return x


@public
def count_active(x: Any, /, *, axis: int | None = -1, out: Any = None, target: str | None = None) -> Any:
    """Count the positive elements of each unit.

    Returns
    -------
    ndarray or scalar
        ``numpy.count_nonzero(x > 0, axis=others)``, where `others` are all axes but `axis`, or `out`: of shape
        ``(x.shape[axis],)``, or ``()`` with ``axis=None``.

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


@public
def leaky_relu_slope_grad(
    grad: Any, x: Any, /, *, axis: int | None = None, out: Any = None, target: str | None = None
) -> Any:  # fmt: skip
    """Gradient of Leaky ReLU with respect to its slope: the sum of ``grad * x`` over ``x < 0``.

    Returns
    -------
    ndarray or scalar
        The sums, in the type that `grad` and `x` promote to, or `out`: of shape ``(grad.shape[axis],)``, or ``()`` with
        ``axis=None``, which is the default and for one slope.

    See Also
    --------
    leaky_relu_backward_with_slope_grad : the same, fused with the gradient of the input.

    Notes
    -----
    NaN and zeros in `x` add nothing. Products and sums are float64, and what rounding loses of a sum is summed too
    (Knuth, "The Art of Computer Programming", volume 2, 4.2.2): the error is that of rounding the products, and does
    not grow with the number of terms. Sums are taken in one order, whatever the number of threads. The definition is
    that of PReLU: He et al., "Delving Deep into Rectifiers", ICCV 2015.

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


@public
def leaky_relu_backward_with_slope_grad(
    grad: Any, x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *,
    axis: int | None = None, out: Any = None, slope_out: Any = None, target: str | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Backward pass of Leaky ReLU for input and slope: `leaky_relu_backward` and `leaky_relu_slope_grad` in one pass.

    Notes
    -----
    NaN in `x` passes `grad` on and adds nothing to the sums; at zero the derivative of the input is the slope. The
    definition of the sums, and their accuracy, are those of `leaky_relu_slope_grad`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad_x, grad_slope = fastrelu.leaky_relu_backward_with_slope_grad(
    ...     np.array([1.0, 2.0]), np.array([-3.0, 5.0]), 0.5
    ... )
    >>> grad_x, float(grad_slope)
    (array([0.5, 2. ]), -3.0)
    """
    inputs, outputs = {"grad": grad, "x": x, "negative_slope": negative_slope}, {"out": out, "slope_out": slope_out}
    result: tuple[Any, Any] = call("leaky_relu_backward_with_slope_grad", inputs, outputs, target, axis=axis)
    return result


@public
def leaky_relu_backward_with_slope_grad_(
    grad: Any, x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *,
    axis: int | None = None, slope_out: Any = None, target: str | None = None,
) -> Any:  # fmt: skip
    """Overwrite `grad` with the gradient of the input, and return the gradient of the slope.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad = np.array([1.0, 2.0])
    >>> float(fastrelu.leaky_relu_backward_with_slope_grad_(grad, np.array([-3.0, 5.0]), 0.5))
    -3.0
    >>> grad
    array([0.5, 2. ])
    """
    inputs, outputs = {"grad": grad, "x": x, "negative_slope": negative_slope}, {"out": grad, "slope_out": slope_out}
    return in_place("leaky_relu_backward_with_slope_grad", inputs, outputs, target, axis=axis)
