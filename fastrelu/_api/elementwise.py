"""Public functions that are a ufunc with options: ReLU, Leaky ReLU, their derivatives and their backward passes.

Each has a result like its data and nothing else, and a twin that writes it over the first argument.
"""

from typing import Any, TypeVar

from .._arrays.classify import check_in_place
from .._call.dispatch import ABSENT, call
from .._operations import AT_ZERO, NEGATIVE_SLOPE
from .public import public

__all__ = [
    "leaky_relu",
    "leaky_relu_",
    "leaky_relu_backward",
    "leaky_relu_backward_",
    "leaky_relu_grad",
    "leaky_relu_grad_",
    "relu",
    "relu_",
    "relu_backward",
    "relu_backward_",
    "relu_grad",
    "relu_grad_",
]

A = TypeVar("A")


def _in_place(name: str, operands: tuple[A, *tuple[Any, ...]], target: str | None, kwargs: dict[str, Any]) -> A:
    first = operands[0]
    check_in_place(f"{name}_", first)
    call(name, operands, first, target, kwargs)
    return first


@public
def relu(x: Any, /, *, out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any) -> Any:
    """Rectified linear unit: 0 where ``x < 0``, else `x`.

    Returns
    -------
    ndarray or scalar
        An array of the shape and type of `x` (a scalar for a scalar), or `out`.

    Notes
    -----
    NaN stays NaN, and -0.0 counts as zero and comes back unchanged. No floating-point warning is ever raised. The
    definition is that of Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu(np.array([-2.0, -0.0, 3.0, np.nan]))
    array([ 0., -0.,  3., nan])
    """
    return call("relu", (x,), out, target, ufunc_kwargs)


@public
def leaky_relu(
    x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *,
    out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any,
) -> Any:  # fmt: skip
    """Leaky ReLU: ``x * negative_slope`` where ``x < 0``, else `x`; with an array of slopes, PReLU.

    Notes
    -----
    NaN stays NaN, and -0.0 comes back unchanged. Negative inputs are multiplied, whatever the slope: with slope 0,
    -1 gives -0.0 and -inf gives NaN, so ``leaky_relu(x, 0)`` is not ``relu(x)``. float16 is computed in float32 and
    rounded once. Defined in Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models",
    ICML 2013; per channel in He et al., arXiv:1502.01852.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu(np.array([-2.0, 0.0, 3.0]))
    array([-0.02,  0.  ,  3.  ])
    >>> fastrelu.leaky_relu(np.array([[-2.0, -2.0]]), np.array([0.5, -1.0]))
    array([[-1.,  2.]])
    """
    return call("leaky_relu", (x, negative_slope), out, target, ufunc_kwargs)


@public
def relu_grad(
    x: Any, /, at_zero: Any = AT_ZERO, *, out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any
) -> Any:
    """Derivative of ReLU: 0 where ``x < 0``, `at_zero` where ``x == 0``, 1 where ``x > 0``.

    Notes
    -----
    NaN gives NaN; -0.0 is zero. This is `numpy.heaviside`, which defines the three cases.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu_grad(np.array([-2.0, 0.0, 3.0]))
    array([0., 0., 1.])
    >>> fastrelu.relu_grad(np.array([-2.0, 0.0, 3.0]), 0.5)
    array([0. , 0.5, 1. ])
    """
    return call("relu_grad", (x, at_zero), out, target, ufunc_kwargs)


@public
def leaky_relu_grad(
    x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, at_zero: Any = None, *,
    out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any,
) -> Any:  # fmt: skip
    """Derivative of Leaky ReLU: `negative_slope` where ``x < 0``, `at_zero` where ``x == 0``, 1 where ``x > 0``.

    Notes
    -----
    NaN gives NaN, -0.0 is zero. The function is defined in Maas, Hannun and Ng, "Rectifier nonlinearities improve
    neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_grad(np.array([-2.0, 0.0, 3.0]), 0.1)
    array([0.1, 0.1, 1. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    return call("leaky_relu_grad", (x, negative_slope, slope), out, target, ufunc_kwargs)


@public
def relu_backward(
    grad: Any, x: Any, /, at_zero: Any = AT_ZERO, *, out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any
) -> Any:
    """Backward pass of ReLU: 0 where ``x < 0``, ``grad * at_zero`` where ``x == 0``, else `grad`.

    Parameters
    ----------
    x : array_like
        The input of `relu`, or, with ``at_zero=0``, its output; it broadcasts against `grad`.

    Notes
    -----
    A dead unit is a selection, not a product: an infinite or NaN gradient at ``x < 0`` gives exactly +0, and with
    ``at_zero=0`` at zeros of both signs too. Where `x` is NaN, `grad` passes through unchanged, as in PyTorch's
    ``threshold_backward`` and in scikit-learn. Because ``relu_backward(grad, relu(x)) == relu_backward(grad, x)`` for
    ``at_zero=0``, the forward pass may run in place. With another `at_zero` it may not: the output does not tell 0
    from a negative input.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-2.0, 0.0, 3.0]))
    array([0., 0., 5.])
    """
    return call("relu_backward", (grad, x, at_zero), out, target, ufunc_kwargs)


@public
def leaky_relu_backward(
    grad: Any, x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, at_zero: Any = None, *,
    out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any,
) -> Any:  # fmt: skip
    """Backward pass of Leaky ReLU: ``grad * negative_slope`` where ``x < 0``, ``grad * at_zero`` at 0, else `grad`.

    Parameters
    ----------
    x : array_like
        The input of `leaky_relu`, or, with a slope above 0 and ``at_zero=None``, its output; it broadcasts against
        `grad`.

    Notes
    -----
    Always a product, slope 0 and ``at_zero=0`` included: an infinite gradient then gives NaN. Where `x` is NaN, `grad`
    passes through unchanged; -0.0 is zero. From the saved output the result is the same for a slope above 0 and
    ``at_zero=None``; with a slope of 0 or less the sign of `x` is lost, and with another `at_zero` an
    ``x * negative_slope`` that underflows to zero would take that value. As PyTorch's ``leaky_relu_backward``.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-2.0, 0.0, 3.0]), 0.1)
    array([0.5, 0.5, 5. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    return call("leaky_relu_backward", (grad, x, negative_slope, slope), out, target, ufunc_kwargs)


@public
def relu_(x: A, /, *, target: str | None = None, **ufunc_kwargs: Any) -> A:
    """Overwrite `x` with `relu` of it, and return it.

    Notes
    -----
    `relu_backward` works on the result as on the input; see there.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.relu_(x) is x
    True
    >>> x
    array([0., 3.])
    """
    return _in_place("relu", (x,), target, ufunc_kwargs)


@public
def leaky_relu_(
    x: A, /, negative_slope: Any = NEGATIVE_SLOPE, *, target: str | None = None, **ufunc_kwargs: Any
) -> A:  # fmt: skip
    """Overwrite `x` with `leaky_relu` of it, and return it.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.leaky_relu_(x, 0.5)
    array([-1.,  3.])
    """
    return _in_place("leaky_relu", (x, negative_slope), target, ufunc_kwargs)


@public
def relu_grad_(x: A, /, at_zero: Any = AT_ZERO, *, target: str | None = None, **ufunc_kwargs: Any) -> A:
    """Overwrite `x` with `relu_grad` of it, and return it.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu_grad_(np.array([-2.0, 0.0, 3.0]), 1.0)
    array([0., 1., 1.])
    """
    return _in_place("relu_grad", (x, at_zero), target, ufunc_kwargs)


@public
def leaky_relu_grad_(
    x: A, /, negative_slope: Any = NEGATIVE_SLOPE, at_zero: Any = None, *,
    target: str | None = None, **ufunc_kwargs: Any,
) -> A:  # fmt: skip
    """Overwrite `x` with `leaky_relu_grad` of it, and return it.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_grad_(np.array([-2.0, 0.0, 3.0]), 0.1)
    array([0.1, 0.1, 1. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    return _in_place("leaky_relu_grad", (x, negative_slope, slope), target, ufunc_kwargs)


@public
def relu_backward_(grad: A, x: Any, /, at_zero: Any = AT_ZERO, *, target: str | None = None, **ufunc_kwargs: Any) -> A:
    """Overwrite `grad` with `relu_backward` of it, and return it.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu_backward_(np.array([np.inf, 5.0]), np.array([-2.0, 3.0]))
    array([0., 5.])
    """
    return _in_place("relu_backward", (grad, x, at_zero), target, ufunc_kwargs)


@public
def leaky_relu_backward_(
    grad: A, x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, at_zero: Any = None, *,
    target: str | None = None, **ufunc_kwargs: Any,
) -> A:  # fmt: skip
    """Overwrite `grad` with `leaky_relu_backward` of it, and return it.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_backward_(np.array([5.0, 5.0]), np.array([-2.0, 3.0]), 0.1)
    array([0.5, 5. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    return _in_place("leaky_relu_backward", (grad, x, negative_slope, slope), target, ufunc_kwargs)
