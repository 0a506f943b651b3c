"""Public functions with a bit per element: forward passes that write such a mask, backward passes that read it."""

from typing import Any, TypeVar

from .._call.passes import call
from .._operations import NEGATIVE_SLOPE
from .public import in_place, public

__all__ = [
    "leaky_relu_backward_from_mask",
    "leaky_relu_backward_from_mask_",
    "leaky_relu_with_mask",
    "leaky_relu_with_mask_",
    "relu_backward_from_mask",
    "relu_backward_from_mask_",
    "relu_with_mask",
    "relu_with_mask_",
]

A = TypeVar("A")


@public
def relu_with_mask(x: Any, /, *, out: Any = None, mask_out: Any = None, target: str | None = None) -> tuple[Any, Any]:
    """`relu`, and one bit per element that says where it was active: all that the backward pass needs.

    See Also
    --------
    relu_backward_from_mask : the backward pass from the mask.

    Notes
    -----
    NaN is active, as in `relu_backward`, which passes its gradient; zeros of both signs are not. The mask is written
    in the pass that writes the result. It is 1/32 of what float32 training keeps otherwise, and unlike the saved
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


@public
def leaky_relu_with_mask(
    x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *, out: Any = None, mask_out: Any = None, target: str | None = None
) -> tuple[Any, Any]:
    """`leaky_relu`, and one bit per element that says where it was active: all that the backward pass needs.

    See Also
    --------
    leaky_relu_backward_from_mask : the backward pass from the mask.

    Notes
    -----
    NaN is active, zeros of both signs are not, as for `leaky_relu_backward` with its default `at_zero`. The saved
    output tells the sign of `x` only for slopes above 0; the mask tells it for all. The idea is that of "Gist", as for
    `relu_with_mask`.

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


@public
def relu_backward_from_mask(grad: Any, mask: Any, /, *, out: Any = None, target: str | None = None) -> Any:
    """Backward pass of ReLU from the mask of `relu_with_mask`: `grad` where the bit is set, else +0.

    Notes
    -----
    A selection, never a product: a gradient of Inf or NaN at an inactive unit, zeros of both signs among them, gives
    +0. Neither the input nor the output of the forward pass is read: two arrays and a bit instead of three arrays. The
    definition is that of `relu_backward`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> y, mask = fastrelu.relu_with_mask(np.array([-1.0, 2.0, np.nan]))
    >>> fastrelu.relu_backward_from_mask(np.array([10.0, 20.0, 30.0]), mask)
    array([ 0., 20., 30.])
    """
    return call("relu_backward_from_mask", {"grad": grad, "mask": mask}, {"out": out}, target)


@public
def leaky_relu_backward_from_mask(
    grad: Any, mask: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *, out: Any = None, target: str | None = None
) -> Any:
    """Backward pass of Leaky ReLU from a mask: `grad` where the bit is set, else ``grad * negative_slope``.

    Notes
    -----
    Right for any slope, also after an in-place forward pass with a slope of 0 or below, whose output no longer tells
    which elements were negative. A slope of 0 multiplies: Inf at an inactive unit gives NaN, and zeros have the sign
    of the product. The definition is that of `leaky_relu_backward`.

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


@public
def relu_with_mask_(x: Any, /, *, mask_out: Any = None, target: str | None = None) -> Any:
    """Overwrite `x` with `relu` of it, and return the mask of where it was active.

    Notes
    -----
    After this call the mask is all that is left of the signs of `x`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.relu_with_mask_(x)
    array([2], dtype=uint8)
    >>> x
    array([0., 3.])
    """
    return in_place("relu_with_mask", {"x": x}, {"mask_out": mask_out, "out": x}, target)


@public
def leaky_relu_with_mask_(
    x: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *, mask_out: Any = None, target: str | None = None
) -> Any:
    """Overwrite `x` with `leaky_relu` of it, and return the mask of where it was active.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> x = np.array([-2.0, 3.0])
    >>> fastrelu.leaky_relu_with_mask_(x, 0.5)
    array([2], dtype=uint8)
    >>> x
    array([-1.,  3.])
    """
    inputs, outputs = {"x": x, "negative_slope": negative_slope}, {"mask_out": mask_out, "out": x}
    return in_place("leaky_relu_with_mask", inputs, outputs, target)


@public
def relu_backward_from_mask_(grad: A, mask: Any, /, *, target: str | None = None) -> A:
    """Overwrite `grad` with `relu_backward_from_mask` of it, and return it.

    Notes
    -----
    Memory of the forward pass is not needed any more.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad = np.array([10.0, 20.0])
    >>> fastrelu.relu_backward_from_mask_(grad, np.array([2], np.uint8))
    array([ 0., 20.])
    """
    in_place("relu_backward_from_mask", {"grad": grad, "mask": mask}, {"out": grad}, target)
    return grad


@public
def leaky_relu_backward_from_mask_(
    grad: A, mask: Any, /, negative_slope: Any = NEGATIVE_SLOPE, *, target: str | None = None
) -> A:
    """Overwrite `grad` with `leaky_relu_backward_from_mask` of it, and return it.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> grad = np.array([10.0, 20.0])
    >>> fastrelu.leaky_relu_backward_from_mask_(grad, np.array([2], np.uint8), 0.5)
    array([ 5., 20.])
    """
    inputs = {"grad": grad, "mask": mask, "negative_slope": negative_slope}
    in_place("leaky_relu_backward_from_mask", inputs, {"out": grad}, target)
    return grad
