"""Where a call would run, and why not elsewhere."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ufuncs
from .._call import dispatch, passes
from .._call.dispatch import Explanation
from .._operations import FUNCTIONS
from . import bitmask, elementwise, sums


def explain(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """Say where a call would run and why, without running or compiling anything.

    Parameters
    ----------
    func : function
        A public function of fastrelu, such as `fastrelu.relu_`, or a raw ufunc from `fastrelu.ufuncs`.
    *args, **kwargs
        The arguments of the call.

    Returns
    -------
    Explanation
        Frozen, with `target`, `store` ("plain" or "streaming") and `refused`, which maps each other choice
        to the reason against it. ``str()`` of it is readable.

    Raises
    ------
    TypeError
        `func` is none of fastrelu's functions, or the arguments do not fit it.
    ValueError, RuntimeError
        What the call itself would raise.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> fastrelu.explain(fastrelu.relu, np.zeros(3)).target
    'serial'
    """
    name = getattr(func, "__name__", "")
    if isinstance(func, np.ufunc) and func is getattr(ufuncs, name, None):
        options = dict(kwargs)
        out = args[func.nin] if len(args) > func.nin else options.pop("out", None)
        return dispatch.explain(name, args[: func.nin], out, None, options)
    if name not in FUNCTIONS or not any(func is getattr(each, name, None) for each in (elementwise, bitmask, sums)):
        raise TypeError(f"explain: {func!r} is not a function of fastrelu")
    row = FUNCTIONS[name]
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    inputs = {operand.name: given.pop(operand.name) for operand in row.operands}
    target = given.pop("target")
    if name != row.name:
        given["out"] = inputs[row.names[0]]
    if not row.is_ufunc:
        options = {"axis": given.pop("axis")} if "axis" in given else {}
        return passes.explain(row.name, inputs, given, target, **options)
    for operand in row.operands:
        if inputs[operand.name] is None and operand.follows:
            inputs[operand.name] = inputs[operand.follows]
    operands = dispatch.as_floats(row.name, inputs.values())
    return dispatch.explain(row.name, operands, given["out"], target, given["ufunc_kwargs"])
