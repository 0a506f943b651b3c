"""The public functions. Each one says what it computes, and hands over to `_dispatch`; see also `_front`."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .. import ufuncs
from .._arrays import classify
from .._call.dispatch import ABSENT, call
from .._call.errors import explained
from .._runtime import front as _front
from .._runtime import ufunc_objects

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])


def _fast(signature: str, *defaults: float) -> Callable[[F], F]:
    """Put the native front before a public function; static tools see the Python function behind it."""

    def decorate(function: F) -> F:
        name = function.__name__
        address, ufunc = ufunc_objects.front_address(name), ufuncs.of(name.removesuffix("_"))
        public = explained(function)
        front = _front.fast(address, ufunc, signature, *defaults)(public)
        if front is public:  # then nothing else says that the default of `out` is None
            known = inspect.signature(function)
            parameters = [p.replace(default=None) if p.default is ABSENT else p for p in known.parameters.values()]
            setattr(public, "__signature__", known.replace(parameters=parameters))  # noqa: B010
        return front

    return decorate


def _in_place(name: str, operands: tuple[Any, ...], target: str | None, kwargs: dict[str, Any]) -> Any:
    first = operands[0]
    classify.check_in_place(f"{name}_", first)
    call(name, operands, first, target, kwargs)
    return first


@_fast("x, /, *, out=None, target=None, **ufunc_kwargs")
def relu(x: Any, /, *, out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any) -> Any:
    """Rectified linear unit: 0 where ``x < 0``, else `x`.

    Parameters
    ----------
    x : array_like
        Input of any shape: bool, any integer type, bfloat16, float16, float32 or float64.
    out : ndarray, optional
        Where to put the result; it must have the result's shape, and may be `x` or overlap it in any way.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.
    **ufunc_kwargs
        ``where``, ``dtype``, ``casting``, ``order``, ``subok`` and ``signature``, as for any `numpy.ufunc`.

    Returns
    -------
    ndarray or scalar
        An array of the shape and type of `x` (a scalar for a scalar), or `out`.

    Raises
    ------
    TypeError
        `x` is complex, longdouble, object, string, datetime or structured, or does not cast to `out`.
    ValueError
        `target` is unknown, shapes do not agree, or `out` is read-only.
    RuntimeError
        The named target is not available here; the message says why.

    Notes
    -----
    NaN stays NaN, and -0.0 counts as zero and comes back unchanged. No floating-point warning is ever
    raised. The definition is that of Nair and Hinton, "Rectified linear units improve restricted
    Boltzmann machines", ICML 2010.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu(np.array([-2.0, -0.0, 3.0, np.nan]))
    array([ 0., -0.,  3., nan])
    """
    return call("relu", (x,), out, target, ufunc_kwargs)


@_fast("x, /, negative_slope=0.01, *, out=None, target=None, **ufunc_kwargs", 0.01)
def leaky_relu(
    x: Any, /, negative_slope: Any = 0.01, *, out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any
) -> Any:
    """Leaky ReLU: ``x * negative_slope`` where ``x < 0``, else `x`; with an array of slopes, PReLU.

    Parameters
    ----------
    x : array_like
        Input of any shape. Floats, bfloat16 too, keep their type; bool and integers become float64.
    negative_slope : array_like, optional
        Any value, negative, above 1 or not finite included; it broadcasts against `x`, as a slope per channel.
        A Python number leaves the type of `x` alone; a NumPy scalar or array takes part in promotion.
    out : ndarray, optional
        Where to put the result; it must have the result's shape, and may be `x` or overlap it in any way.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.
    **ufunc_kwargs
        ``where``, ``dtype``, ``casting``, ``order``, ``subok`` and ``signature``, as for any `numpy.ufunc`.

    Returns
    -------
    ndarray or scalar
        An array of the broadcast shape (a scalar for scalars), or `out`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble, object, string, datetime or structured, or does not cast to `out`.
    ValueError
        `target` is unknown, shapes do not broadcast, or `out` is read-only.
    RuntimeError
        The named target is not available here; the message says why.

    Notes
    -----
    NaN stays NaN, and -0.0 comes back unchanged. Negative inputs are multiplied, whatever the slope: with slope 0,
    -1 gives -0.0 and -inf gives NaN, so ``leaky_relu(x, 0)`` is not ``relu(x)``. float16 is computed in
    float32 and rounded once. Defined in Maas, Hannun and Ng, "Rectifier nonlinearities improve
    neural network acoustic models", ICML 2013; per channel in He et al., arXiv:1502.01852.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu(np.array([-2.0, 0.0, 3.0]))
    array([-0.02,  0.  ,  3.  ])
    >>> fastrelu.leaky_relu(np.array([[-2.0, -2.0]]), np.array([0.5, -1.0]))
    array([[-1.,  2.]])
    """
    return call("leaky_relu", (x, negative_slope), out, target, ufunc_kwargs)


@_fast("x, /, at_zero=0.0, *, out=None, target=None, **ufunc_kwargs", 0.0)
def relu_grad(
    x: Any, /, at_zero: Any = 0.0, *, out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any
) -> Any:
    """Derivative of ReLU: 0 where ``x < 0``, `at_zero` where ``x == 0``, 1 where ``x > 0``.

    Parameters
    ----------
    x : array_like
        Input of any shape. Floats, bfloat16 too, keep their type; bool and integers become float64.
    at_zero : array_like, optional
        The value at zero, where ReLU has no derivative; every number in [0, 1] is a subgradient.
    out : ndarray, optional
        Where to put the result; it must have the result's shape, and may be `x` or overlap it in any way.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.
    **ufunc_kwargs
        ``where``, ``dtype``, ``casting``, ``order``, ``subok`` and ``signature``, as for any `numpy.ufunc`.

    Returns
    -------
    ndarray or scalar
        An array of the broadcast shape (a scalar for scalars), or `out`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble, object, string, datetime or structured, or does not cast to `out`.
    ValueError
        `target` is unknown, shapes do not broadcast, or `out` is read-only.
    RuntimeError
        The named target is not available here; the message says why.

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


@_fast("x, /, negative_slope=0.01, at_zero=None, *, out=None, target=None, **ufunc_kwargs", 0.01, 0.01)
def leaky_relu_grad(
    x: Any, /, negative_slope: Any = 0.01, at_zero: Any = None, *,
    out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any,
) -> Any:  # fmt: skip
    """Derivative of Leaky ReLU: `negative_slope` where ``x < 0``, `at_zero` where ``x == 0``, 1 where ``x > 0``.

    Parameters
    ----------
    x : array_like
        Input of any shape. Floats, bfloat16 too, keep their type; bool and integers become float64.
    negative_slope : array_like, optional
        The derivative of the negative part; it broadcasts against `x`.
    at_zero : array_like, optional
        The value at zero; None, the default, means `negative_slope`, as in PyTorch.
    out : ndarray, optional
        Where to put the result; it must have the result's shape, and may be `x` or overlap it in any way.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.
    **ufunc_kwargs
        ``where``, ``dtype``, ``casting``, ``order``, ``subok`` and ``signature``, as for any `numpy.ufunc`.

    Returns
    -------
    ndarray or scalar
        An array of the broadcast shape (a scalar for scalars), or `out`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble, object, string, datetime or structured, or does not cast to `out`.
    ValueError
        `target` is unknown, shapes do not broadcast, or `out` is read-only.
    RuntimeError
        The named target is not available here; the message says why.

    Notes
    -----
    NaN gives NaN; -0.0 is zero. The function is defined in Maas, Hannun and Ng, ICML 2013.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_grad(np.array([-2.0, 0.0, 3.0]), 0.1)
    array([0.1, 0.1, 1. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    return call("leaky_relu_grad", (x, negative_slope, slope), out, target, ufunc_kwargs)


@_fast("grad, x, /, at_zero=0.0, *, out=None, target=None, **ufunc_kwargs", 0.0)
def relu_backward(
    grad: Any, x: Any, /, at_zero: Any = 0.0, *, out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any
) -> Any:
    """Backward pass of ReLU: 0 where ``x < 0``, ``grad * at_zero`` where ``x == 0``, else `grad`.

    Parameters
    ----------
    grad : array_like
        The gradient with respect to the output of `relu`.
    x : array_like
        The input of `relu`, or, with ``at_zero=0``, its output; it broadcasts against `grad`.
    at_zero : array_like, optional
        The derivative at zero. With 0, the result there is exactly 0, whatever `grad` is.
    out : ndarray, optional
        Where to put the result; it must have the result's shape, and may be or overlap any argument.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.
    **ufunc_kwargs
        ``where``, ``dtype``, ``casting``, ``order``, ``subok`` and ``signature``, as for any `numpy.ufunc`.

    Returns
    -------
    ndarray or scalar
        The gradient with respect to `x`: an array of the broadcast shape, or `out`. float16, float32
        and float64 keep their type; bool and integers become float64.

    Raises
    ------
    TypeError
        An argument is complex, longdouble, object, string, datetime or structured, or does not cast to `out`.
    ValueError
        `target` is unknown, shapes do not broadcast, or `out` is read-only.
    RuntimeError
        The named target is not available here; the message says why.

    Notes
    -----
    A dead unit is a selection, not a product: an infinite or NaN gradient at ``x < 0`` gives exactly +0. Where `x` is
    NaN, `grad` passes through unchanged, as in PyTorch's ``threshold_backward`` and in scikit-learn.
    Because ``relu_backward(grad, relu(x)) == relu_backward(grad, x)`` for ``at_zero=0``, the forward pass
    may run in place. With another `at_zero` it may not: the output does not tell 0 from a negative input.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-2.0, 0.0, 3.0]))
    array([0., 0., 5.])
    """
    return call("relu_backward", (grad, x, at_zero), out, target, ufunc_kwargs)


@_fast("grad, x, /, negative_slope=0.01, at_zero=None, *, out=None, target=None, **ufunc_kwargs", 0.01, 0.01)
def leaky_relu_backward(
    grad: Any, x: Any, /, negative_slope: Any = 0.01, at_zero: Any = None, *,
    out: Any = ABSENT, target: str | None = None, **ufunc_kwargs: Any,
) -> Any:  # fmt: skip
    """Backward pass of Leaky ReLU: ``grad * negative_slope`` where ``x < 0``, ``grad * at_zero`` at 0, else `grad`.

    Parameters
    ----------
    grad : array_like
        The gradient with respect to the output of `leaky_relu`.
    x : array_like
        The input of `leaky_relu`, or, with a slope above 0 and ``at_zero=None``, its output.
    negative_slope : array_like, optional
        The slope of the forward pass; it broadcasts.
    at_zero : array_like, optional
        The derivative at zero; None, the default, means `negative_slope`, as in PyTorch.
    out : ndarray, optional
        Where to put the result; it must have the result's shape, and may be or overlap any argument.
    target : {None, "serial", "parallel", "cuda"}, optional
        None chooses by where the data is and how large it is. A named target runs there or raises.
    **ufunc_kwargs
        ``where``, ``dtype``, ``casting``, ``order``, ``subok`` and ``signature``, as for any `numpy.ufunc`.

    Returns
    -------
    ndarray or scalar
        The gradient with respect to `x`: an array of the broadcast shape, or `out`. float16, float32
        and float64 keep their type; bool and integers become float64.

    Raises
    ------
    TypeError
        An argument is complex, longdouble, object, string, datetime or structured, or does not cast to `out`.
    ValueError
        `target` is unknown, shapes do not broadcast, or `out` is read-only.
    RuntimeError
        The named target is not available here; the message says why.

    Notes
    -----
    Always a product, slope 0 and ``at_zero=0`` included: an infinite gradient then gives NaN. Where `x` is
    NaN, `grad` passes through unchanged. From the saved output the result is the same for a slope above
    0 and ``at_zero=None``; with a slope of 0 or less the sign of `x` is lost, and with another `at_zero` an
    ``x * negative_slope`` that underflows to zero would take that value.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-2.0, 0.0, 3.0]), 0.1)
    array([0.5, 0.5, 5. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    return call("leaky_relu_backward", (grad, x, negative_slope, slope), out, target, ufunc_kwargs)


@_fast("x, /, *, target=None, **ufunc_kwargs")
def relu_(x: A, /, *, target: str | None = None, **ufunc_kwargs: Any) -> A:
    """Overwrite `x` with `relu` of it, and return it.

    Parameters
    ----------
    x : ndarray
        An array that can be written to, of any shape and of a type that `relu` takes.
    target, **ufunc_kwargs
        As for `relu`.

    Returns
    -------
    ndarray
        The same object as `x`.

    Raises
    ------
    TypeError
        `x` is a list or a scalar, or of a type that `relu` does not take.
    ValueError
        `x` is read-only. Nothing is written before an error.
    RuntimeError
        The named target is not available here.

    Notes
    -----
    NaN and -0.0 stay as they are. `relu_backward` works on the result as on the input; see there.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.relu_(x) is x
    True
    >>> x
    array([0., 3.])
    """
    result: A = _in_place("relu", (x,), target, ufunc_kwargs)
    return result


@_fast("x, /, negative_slope=0.01, *, target=None, **ufunc_kwargs", 0.01)
def leaky_relu_(x: A, /, negative_slope: Any = 0.01, *, target: str | None = None, **ufunc_kwargs: Any) -> A:
    """Overwrite `x` with `leaky_relu` of it, and return it.

    Parameters
    ----------
    x : ndarray
        A floating-point array that can be written to, of the broadcast shape.
    negative_slope, target, **ufunc_kwargs
        As for `leaky_relu`.

    Returns
    -------
    ndarray
        The same object as `x`.

    Raises
    ------
    TypeError
        `x` is a list or a scalar, or cannot hold the result, as an integer array.
    ValueError
        `x` is read-only, or shapes do not agree. Nothing is written before an error.
    RuntimeError
        The named target is not available here.

    Notes
    -----
    NaN and -0.0 stay as they are.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.leaky_relu_(x, 0.5)
    array([-1.,  3.])
    """
    result: A = _in_place("leaky_relu", (x, negative_slope), target, ufunc_kwargs)
    return result


@_fast("x, /, at_zero=0.0, *, target=None, **ufunc_kwargs", 0.0)
def relu_grad_(x: A, /, at_zero: Any = 0.0, *, target: str | None = None, **ufunc_kwargs: Any) -> A:
    """Overwrite `x` with `relu_grad` of it, and return it.

    Parameters
    ----------
    x : ndarray
        A floating-point array that can be written to, of the broadcast shape.
    at_zero, target, **ufunc_kwargs
        As for `relu_grad`.

    Returns
    -------
    ndarray
        The same object as `x`.

    Raises
    ------
    TypeError
        `x` is a list or a scalar, or cannot hold the result, as an integer array.
    ValueError
        `x` is read-only, or shapes do not agree. Nothing is written before an error.
    RuntimeError
        The named target is not available here.

    Notes
    -----
    NaN gives NaN; -0.0 is zero.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu_grad_(np.array([-2.0, 0.0, 3.0]), 1.0)
    array([0., 1., 1.])
    """
    result: A = _in_place("relu_grad", (x, at_zero), target, ufunc_kwargs)
    return result


@_fast("x, /, negative_slope=0.01, at_zero=None, *, target=None, **ufunc_kwargs", 0.01, 0.01)
def leaky_relu_grad_(
    x: A, /, negative_slope: Any = 0.01, at_zero: Any = None, *, target: str | None = None, **ufunc_kwargs: Any
) -> A:
    """Overwrite `x` with `leaky_relu_grad` of it, and return it.

    Parameters
    ----------
    x : ndarray
        A floating-point array that can be written to, of the broadcast shape.
    negative_slope, at_zero, target, **ufunc_kwargs
        As for `leaky_relu_grad`.

    Returns
    -------
    ndarray
        The same object as `x`.

    Raises
    ------
    TypeError
        `x` is a list or a scalar, or cannot hold the result, as an integer array.
    ValueError
        `x` is read-only, or shapes do not agree. Nothing is written before an error.
    RuntimeError
        The named target is not available here.

    Notes
    -----
    NaN gives NaN; -0.0 is zero.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_grad_(np.array([-2.0, 0.0, 3.0]), 0.1)
    array([0.1, 0.1, 1. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    result: A = _in_place("leaky_relu_grad", (x, negative_slope, slope), target, ufunc_kwargs)
    return result


@_fast("grad, x, /, at_zero=0.0, *, target=None, **ufunc_kwargs", 0.0)
def relu_backward_(grad: A, x: Any, /, at_zero: Any = 0.0, *, target: str | None = None, **ufunc_kwargs: Any) -> A:
    """Overwrite `grad` with `relu_backward` of it, and return it.

    Parameters
    ----------
    grad : ndarray
        A floating-point array that can be written to, of the broadcast shape.
    x, at_zero, target, **ufunc_kwargs
        As for `relu_backward`.

    Returns
    -------
    ndarray
        The same object as `grad`.

    Raises
    ------
    TypeError
        `grad` is a list or a scalar, or cannot hold the result, as an integer array.
    ValueError
        `grad` is read-only, or shapes do not agree. Nothing is written before an error.
    RuntimeError
        The named target is not available here.

    Notes
    -----
    Dead units give exactly +0; where `x` is NaN, `grad` stays.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.relu_backward_(np.array([np.inf, 5.0]), np.array([-2.0, 3.0]))
    array([0., 5.])
    """
    result: A = _in_place("relu_backward", (grad, x, at_zero), target, ufunc_kwargs)
    return result


@_fast("grad, x, /, negative_slope=0.01, at_zero=None, *, target=None, **ufunc_kwargs", 0.01, 0.01)
def leaky_relu_backward_(
    grad: A, x: Any, /, negative_slope: Any = 0.01, at_zero: Any = None, *,
    target: str | None = None, **ufunc_kwargs: Any,
) -> A:  # fmt: skip
    """Overwrite `grad` with `leaky_relu_backward` of it, and return it.

    Parameters
    ----------
    grad : ndarray
        A floating-point array that can be written to, of the broadcast shape.
    x, negative_slope, at_zero, target, **ufunc_kwargs
        As for `leaky_relu_backward`.

    Returns
    -------
    ndarray
        The same object as `grad`.

    Raises
    ------
    TypeError
        `grad` is a list or a scalar, or cannot hold the result, as an integer array.
    ValueError
        `grad` is read-only, or shapes do not agree. Nothing is written before an error.
    RuntimeError
        The named target is not available here.

    Notes
    -----
    Always a product; where `x` is NaN, `grad` stays.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.leaky_relu_backward_(np.array([5.0, 5.0]), np.array([-2.0, 3.0]), 0.1)
    array([0.5, 5. ])
    """
    slope = negative_slope if at_zero is None else at_zero
    result: A = _in_place("leaky_relu_backward", (grad, x, negative_slope, slope), target, ufunc_kwargs)
    return result
