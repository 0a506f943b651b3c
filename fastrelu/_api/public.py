"""What stands around the functions that users call."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .. import ufuncs
from .._arrays.classify import check_in_place
from .._call.dispatch import ABSENT
from .._call.errors import explained
from .._call.passes import call
from .._operations import FUNCTIONS
from .._runtime import front
from .._runtime.ufunc_objects import front_address
from . import docs

F = TypeVar("F", bound=Callable[..., Any])


def public(function: F) -> F:
    """Give a function its whole docstring, errors that name it, and the native front if it is a ufunc with options."""
    function.__doc__ = docs.whole(function)
    parameters = [
        each.replace(annotation=each.empty, default=None if each.default is ABSENT else each.default)
        for each in inspect.signature(function).parameters.values()
    ]
    setattr(function, "__signature__", inspect.Signature(parameters))  # noqa: B010
    row, made = FUNCTIONS[function.__name__], explained(function)
    return front.fast(made, front_address(function.__name__), ufuncs.of(row.name)) if row.is_ufunc else made


def in_place(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any
) -> Any:
    """Run a function that is no ufunc over its first argument, and return what it makes besides."""
    check_in_place(f"{name}_", outputs["out"])
    result = call(name, inputs, outputs, target, **options)
    return result[1] if isinstance(result, tuple) else None
