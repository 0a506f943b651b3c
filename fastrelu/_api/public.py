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
    made = explained(function)
    row = FUNCTIONS[function.__name__]
    if not row.is_ufunc:
        return made
    known = inspect.signature(function)
    parameters = [p.replace(default=None) if p.default is ABSENT else p for p in known.parameters.values()]
    setattr(made, "__signature__", known.replace(parameters=parameters))  # noqa: B010
    return front.fast(made, front_address(function.__name__), ufuncs.of(row.name))


def in_place(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any
) -> Any:
    """Run a function that is no ufunc over its first argument, and return what it makes besides."""
    check_in_place(f"{name}_", outputs["out"])
    result = call(name, inputs, outputs, target, **options)
    return result[1] if isinstance(result, tuple) else None
