"""What a wrong call is told: the function, the argument, what was given, and what to write instead.

Most of this runs for calls that fail. `explained` stands around each public function and sees what Python says of
arguments that do not fit; `check_call` looks at the arguments of a call again that NumPy has refused.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from .. import ufuncs
from .._arrays import classify
from .._operations import FUNCTIONS, ROWS, Operation
from .._runtime.dtypes import ACCEPTED, spelled_out

F = TypeVar("F", bound=Callable[..., Any])

#: What NumPy's ufuncs take, and so the element-wise functions.
KEYWORDS = ("where", "dtype", "casting", "order", "subok", "signature", "sig")
#: What other libraries call the slope, and their data.
_SLOPES = ("negative_slope", "alpha", "slope", "leak", "leakiness", "leakage", "negval", "a", "weight")
_DATA = (
    "grad", "x", "mask", "input", "inputs", "X", "a", "arr", "array", "features", "tensor", "data", "gradient",
    "grad_output",
)  # fmt: skip


def explained(function: F) -> F:
    """Let a public function's refusals name it, its arguments, and what to write instead."""
    name = function.__name__
    row = FUNCTIONS[name]

    @functools.wraps(function)
    def public(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except np.exceptions.AxisError as error:
            raise np.exceptions.AxisError(error.axis or 0, error.ndim or 0, f"{name}: axis") from None
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, TypeError) and (text := _misfit_of_call(name, function, kwargs, error)):
                error.args = (text,)
            elif type(error) is RuntimeError and str(error).startswith("target="):  # said where no function is known
                error.args = (f"{name}: {error}",)
            elif name != row.name and type(error) in (TypeError, ValueError, RuntimeError):
                error.args = (_of_twin(row, str(error)),)
            raise

    return public  # type: ignore[return-value]


def _of_twin(row: Operation, text: str) -> str:
    """Return the message of a function in terms of its twin, whose output is its first argument."""
    if not text.startswith(f"{row.name}: "):
        return text
    text = text.removeprefix(f"{row.name}: ")
    if text.startswith("out "):
        text = f"{row.names[0]} {text.removeprefix('out ')}"
    return f"{row.twin}: {text}"


def _misfit_of_call(name: str, function: Callable[..., Any], kwargs: Mapping[str, Any], error: TypeError) -> str | None:
    """Return what to say of arguments that the signature does not take, or None if they are not what is wrong."""
    signature = inspect.signature(function)
    named = [key for key, each in signature.parameters.items() if each.kind is not each.POSITIONAL_ONLY]
    taken = [*named[:-1], *KEYWORDS] if "ufunc_kwargs" in named else named
    for keyword in kwargs:
        if keyword not in taken:
            return unknown(name, keyword, [key for key in taken if key != "sig"])
    if error.__traceback__ is None or error.__traceback__.tb_next is not None:
        return None
    # Python could not even call it, and says so of "relu()"
    return f"{name}: {str(error).partition(') ')[2] or error}; write {name}{signature}"


def check_keywords(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError for a keyword that neither the function nor NumPy's ufuncs have."""
    for keyword in kwargs:
        if keyword not in KEYWORDS:
            parameters = [each.name for each in ROWS[name].parameters]
            raise TypeError(unknown(name, keyword, [*parameters, "out", "target", *KEYWORDS[:-1]]))


def unknown(name: str, keyword: str, accepted: Sequence[str]) -> str:
    """Return what to say of a keyword that a function does not have."""
    row = FUNCTIONS[name]
    data = [*row.data, "counts"] if row.sums == "counts" and row.writes_result else row.data
    if keyword == "out":
        hint = f"it writes to its first argument; {row.name} takes out="
    elif keyword in ("inplace", "in_place"):
        twin = f"{row.twin}({', '.join(data)}) works in place"
        hint = twin if row.twin else "it has no twin that works in place"
    elif keyword in _SLOPES and "negative_slope" in row.names:
        hint = "the slope is called negative_slope"
    elif keyword in _SLOPES and f"leaky_{row.name}" in ROWS:
        hint = f"leaky_{row.name} takes a slope, called negative_slope"
    elif keyword in (*_DATA, *data):
        hint = f"{' and '.join(data)} are positional: write {name}({', '.join(data)})"
        hint = hint.replace(" are ", " is ") if len(data) == 1 else hint
    else:
        hint = f"accepted are {', '.join(accepted)}"
    return f"{name}: unexpected keyword argument {keyword!r}; {hint}"


def misfit(name: str, argument: str, shape: tuple[int, ...], data: tuple[int, ...]) -> ValueError:
    """Return the error for an argument that does not broadcast to the data."""
    text = f"{name}: {argument} of shape {shape} does not broadcast to the shape {data} of the data"
    places = [axis for axis, extent in enumerate(data) if shape == (extent,)]
    if places and argument not in ROWS[name].data:
        axis = places[-1]
        ones = ", ".join("1" for _ in data[axis + 1 :])
        text += f"; for one per unit of axis {axis}, write {argument}.reshape(-1, {ones})"
    return ValueError(text)


def broadcast(name: str, argument: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an argument in the shape of the data, or raise ValueError."""
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise misfit(name, argument, array.shape, shape) from None


def check_shapes(name: str, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape to which arguments broadcast, or raise ValueError that names those that do not."""
    shapes = {argument: tuple(np.shape(value)) for argument, value in arguments.items()}
    data = {argument: shape for argument, shape in shapes.items() if argument in ROWS[name].data}
    common = _broadcast(name, data)
    for argument, shape in shapes.items():
        try:
            np.broadcast_shapes(common, shape)
        except ValueError:
            raise misfit(name, argument, shape, common) from None
    return _broadcast(name, shapes)


def _broadcast(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = " and ".join(f"{argument} of shape {shape}" for argument, shape in shapes.items())
        raise ValueError(f"{name}: {listed} do not broadcast to one shape") from None


def check_shape(name: str, into: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise ValueError if a result of a shape does not broadcast into an output, which may be larger."""
    try:
        fits = np.broadcast_shapes(shape, into) == into
    except ValueError:
        fits = False
    if not fits:
        raise wrong_shape(name, into, shape)


def wrong_shape(name: str, into: tuple[int, ...], shape: tuple[int, ...]) -> ValueError:
    """Return the error for an output to which a result of a shape does not go."""
    return ValueError(f"{name}: out has shape {into}; the result has shape {shape}")


def check_cast(
    name: str, dtype: np.dtype, what: str, into: np.dtype, casting: Any = "same_kind", called: Any = None
) -> None:
    """Raise TypeError if a result of a type does not go into an output, or a part of it: `what`, of dtype `called`."""
    if not np.can_cast(dtype, into, casting):
        rule = "" if casting == "same_kind" else f" under casting={casting!r}"
        into = into if called is None else called
        raise TypeError(f"{name}: {what} of dtype {into}, to which the result of dtype {dtype} does not cast{rule}")


def checked(name: str, operands: Sequence[Any], out: Any) -> list[Any]:
    """Return the operands with lists made arrays, or raise TypeError for what no loop takes."""
    found = [
        classify.checked(name, argument, value) for argument, value in zip(ROWS[name].names, operands, strict=True)
    ]
    if out is not None and not classify.is_array(out):
        raise TypeError(f"{name}: out must be an array, not {classify.type_name(out)}")
    return found


def checked_where(name: str, where: Any) -> np.ndarray:
    """Return `where` as an array, or raise TypeError for one that is not of bool."""
    array = classify.converted(name, "where", where)
    if not np.can_cast(array.dtype, bool, "safe"):
        raise TypeError(f"{name}: where must be an array of bool, not {classify.described(where, array)}")
    return array


def check_call(name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise what a call on NumPy arrays deserves, if it is known: what the call itself leaves to NumPy to find out."""
    operands = checked(name, operands, out)
    arguments = dict(zip(ROWS[name].names, operands, strict=True))
    where = kwargs.get("where", True)
    if where is not True:
        arguments["where"] = checked_where(name, where)
    if all(np.ndim(value) <= 32 for value in arguments.values()):  # NumPy's own function for it knows no more axes
        shape = check_shapes(name, arguments)
        if out is not None:
            check_shape(name, out.shape, shape)
            if not out.flags.writeable:
                raise ValueError(f"{name}: out is read-only")
    if kwargs.get("dtype") is not None:
        try:
            np.dtype(kwargs["dtype"])
        except TypeError as error:
            raise TypeError(f"{name}: dtype={kwargs['dtype']!r} is not a type of NumPy") from error
    try:
        result = ufuncs.loop_dtype(name, *spelled_out(ufuncs.of(name), operands, kwargs))
    except (TypeError, ValueError) as error:
        asked = " and ".join(f"{key}={kwargs[key]!r}" for key in ("dtype", "signature", "sig") if key in kwargs)
        if not asked:
            return
        text = f"{name}: there is no loop for {asked}; there are those of {ACCEPTED}"
        raise (TypeError if isinstance(error, TypeError) else ValueError)(text) from error
    casting = kwargs.get("casting", "same_kind")
    if casting in ("no", "equiv", "safe", "same_kind", "unsafe"):
        for argument, value in arguments.items():
            if argument != "where" and hasattr(value, "dtype") and not np.can_cast(value.dtype, result, casting):
                rule = f"casting={casting!r}"
                raise TypeError(
                    f"{name}: {argument} is of dtype {value.dtype}, which does not cast to {result} under {rule}"
                )
        if out is not None:
            check_cast(name, result, "out is", out.dtype, casting)


def refuse(
    name: str, operands: Sequence[Any], out: Any, kwargs: Mapping[str, Any], error: Exception
) -> NoReturn:  # fmt: skip
    """Raise what is known of a call on NumPy arrays, or subclasses, that NumPy has refused; else NumPy's own error."""
    try:
        check_call(name, operands, out, kwargs)
    except (TypeError, ValueError, RuntimeError) as known:
        raise known from error
    text, kind = str(error), type(error)
    if text.startswith(f"{name}: ") or not (kind in (TypeError, ValueError) or kind.__module__.startswith("numpy")):
        raise error
    raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}: {text}") from error
