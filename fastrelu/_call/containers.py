"""Calls on what has an ``__array_ufunc__`` of its own: subclasses of arrays, pandas, xarray, Dask, units, and others.

All of them see the public ufunc. NumPy's rules stop where a library goes part by part: pandas through the columns of a
frame, xarray through the variables of a data set, Dask through blocks. There all parts are checked before the call, so
that it fails before anything is written, and numbers of Python stay weak.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import ufuncs
from .._arrays import classify
from .._operations import ROWS
from .._runtime.dtypes import ACCEPTED, supported
from . import errors
from .executors import executor


def call(name: str, ufunc: np.ufunc, operands: Sequence[Any], target: str, kwargs: Mapping[str, Any]) -> Any:
    """Call a ufunc as the library of an argument, or of ``kwargs["out"]``, wants it called.

    `target` is "auto" or a forced one. Only lazy arrays need it: others run now, under what the ufunc runs under.
    """
    values = (*operands, kwargs.get("out"))
    libraries = {_library(value) for value in values}
    with np.errstate(all="ignore"):
        if "xarray" in libraries:
            return _xarray(name, ufunc, operands, target, kwargs)
        if "dask.array" in libraries:
            return executor("dask").elementwise(name, ufunc, operands, target, kwargs)
        if "dask.dataframe" in libraries:  # its partitions are pandas' frames, for which numbers are to stay weak
            return lazily(name, ufunc, operands, target, kwargs)
        if "pandas" in libraries and libraries <= {"pandas", ""}:
            return _pandas(name, ufunc, operands, kwargs)
        try:
            return ufunc(*operands, **kwargs)
        except (TypeError, ValueError) as error:
            if any(_acts_itself(value) for value in values):  # it knows best
                raise
            errors.refuse(name, operands, kwargs.get("out"), kwargs, error)


def _library(value: Any) -> str:
    """Return the library of a container that goes part by part, "" for what NumPy knows, else "other"."""
    if not _acts_itself(value):
        return ""
    if hasattr(type(value), "dtype") or hasattr(type(value), "dtypes"):
        for base in type(value).__mro__:  # subclasses too, such as geopandas'
            for library in ("pandas", "xarray", "dask.array", "dask.dataframe"):
                if base.__module__ == library or base.__module__.startswith(library + "."):
                    return library
    return "other"


def _acts_itself(value: Any) -> bool:
    return getattr(type(value), "__array_ufunc__", None) not in (None, np.ndarray.__array_ufunc__)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what to call each part of a container, and its type."""
    # Asked of classes: to pandas, labels are attributes too
    if hasattr(type(value), "data_vars"):
        for label, variable in value.data_vars.items():
            yield f"variable {label!r}", variable.dtype
    elif hasattr(type(value), "columns") and value.ndim == 2:  # (a series of Dask has columns too)
        for label, dtype in zip(value.columns, value.dtypes, strict=True):
            yield f"column {label!r}", dtype
    else:
        yield "", value.dtype


def _numpys(dtype: Any) -> np.dtype | None:
    """Return the type in which a part computes; None for extensions that nobody here knows."""
    if isinstance(dtype, np.dtype):
        return dtype
    # Of nullable types and of Arrow's, and of sparse ones
    known = dtype.subtype if type(dtype).__name__ == "SparseDtype" else getattr(dtype, "numpy_dtype", None)
    if isinstance(known, np.dtype):
        return known
    return np.dtype(object) if type(dtype).__module__.partition(".")[0] == "pandas" else None


def _kind(value: Any) -> Any:
    """Return an operand's type, or a number where NumPy promotes it weakly; None for a type that is not known."""
    if type(value) in (int, float):
        return value
    if _is_frame(value):
        (dtype,) = set(value.dtypes)
        return _numpys(dtype)
    return _numpys(value.dtype) if hasattr(type(value), "dtype") else np.asarray(value).dtype


def result_dtype(name: str, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> np.dtype | None:
    """Return the type of a result by the types of operands of one type each; None if one is not known."""
    kinds = [_kind(value) for value in operands]
    if any(kind is None for kind in kinds):
        return None
    return ufuncs.loop_dtype(
        name, [np.empty(0, kind) if isinstance(kind, np.dtype) else kind for kind in kinds], kwargs
    )


def check_parts(name: str, operands: Sequence[Any]) -> None:
    """Raise TypeError for an operand with a part of a type that is not accepted."""
    for argument, value in zip(ROWS[name].names, operands, strict=True):
        library = _library(value)
        if not library:
            classify.checked(name, argument, value)
        elif library != "other":
            for part, dtype in _parts(value):
                kind = _numpys(dtype)
                if kind is not None and not supported(kind):
                    has = f"has a {part}" if part else f"is a {classify.type_name(value)}"
                    raise TypeError(f"{name}: {argument} {has} of dtype {dtype}; accepted are {ACCEPTED}")


def lazily(name: str, ufunc: np.ufunc, operands: Sequence[Any], target: str, kwargs: Mapping[str, Any]) -> Any:
    """Call as NumPy would, with a function in the ufunc's place that takes the target along, to whoever runs it."""
    block = executor("dask").Block(name, None if target == "auto" else target)
    options = {key: value for key, value in kwargs.items() if key != "out"}
    out = kwargs.get("out")
    if out is not None:
        options["out"] = (out,)
    for value in (*operands, out):
        if _acts_itself(value):
            result = type(value).__array_ufunc__(value, block, "__call__", *operands, **options)
            if result is not NotImplemented:
                return result
    return ufunc(*operands, **kwargs)  # which says what NumPy has to say


def _xarray(name: str, ufunc: np.ufunc, operands: Sequence[Any], target: str, kwargs: Mapping[str, Any]) -> Any:
    out = kwargs.get("out")
    if _library(out) == "xarray":
        raise TypeError(
            f"{name}: out is a {classify.type_name(out)}, and xarray lets no ufunc write to its objects; "
            "pass its .values, or use the result"
        )
    check_parts(name, operands)
    if out is not None and any(hasattr(type(value), "data_vars") for value in operands):
        raise TypeError(f"{name}: out is one array, and a Dataset has several; leave it out")
    if target != "auto" and any(_lazy(value) for value in operands):
        return lazily(name, ufunc, operands, target, kwargs)
    return ufunc(*operands, **kwargs)


def _lazy(value: Any) -> bool:
    graph = getattr(value, "__dask_graph__", None)
    return callable(graph) and graph() is not None


def _is_frame(value: Any) -> bool:
    return _library(value) == "pandas" and hasattr(type(value), "columns")


def _pandas(name: str, ufunc: np.ufunc, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    check_parts(name, operands)
    if any(_is_frame(value) for value in operands):
        for argument, value in zip(ROWS[name].names, operands, strict=True):
            if _library(value) == "pandas" and not _is_frame(value):
                raise TypeError(
                    f"{name}: {argument} is a {classify.type_name(value)} beside a DataFrame, and pandas does not say "
                    f"along which axis it lies; pass {argument}.to_numpy(), or that with [:, None]"
                )
    out = kwargs.get("out")
    if out is None:
        return _computed(name, ufunc, operands, kwargs)
    _check_out(name, out)
    options = {key: value for key, value in kwargs.items() if key not in ("out", "where")}
    where = _where(name, kwargs.get("where", True), np.shape(out))
    result = _labelled(name, _computed(name, ufunc, operands, options), out, out is operands[0])
    _check_held(name, result, out, kwargs.get("casting", "same_kind"))
    _write(result, out, where)
    return out


def strong(name: str, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    """Return operands with numbers in the type of the result.

    Pandas makes arrays of numbers, which then count for types. Dask hands them to the ufunc when it computes, and what
    is too large for the type would warn there.
    """
    dtype = result_dtype(name, operands, kwargs)
    if dtype is None:
        return operands
    return [dtype.type(value) if type(value) is float else value for value in operands]


def _computed(name: str, ufunc: np.ufunc, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return a new object: each column as it would be alone."""
    frames = [value for value in operands if _is_frame(value)]
    # A frame alone pandas goes through itself; frames of one type it may take for arrays
    if not (len(operands) == 1 and not kwargs) and not all(
        len(set(frame.dtypes)) == 1 and isinstance(frame.dtypes.iloc[0], np.dtype) for frame in frames
    ):
        return _by_columns(name, ufunc, operands, kwargs)
    if len(operands) > 1:
        operands = strong(name, operands, kwargs)
    return ufunc(*operands, **kwargs)


def _by_columns(name: str, ufunc: np.ufunc, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return a frame, computed column by column: pandas would make one array of all, in one type."""
    frames = [value for value in operands if _is_frame(value)]
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.align(frame, join="outer")[0]
    where = _where(name, kwargs.get("where", True), whole.shape)

    def aligned(argument: str, value: Any) -> Any:
        if _is_frame(value):
            return value if value is whole else value.align(whole, join="right")[0]
        array = value if type(value) in (int, float) else np.asarray(value)
        return errors.broadcast(name, argument, array, whole.shape) if np.ndim(array) else array

    everything = [aligned(argument, value) for argument, value in zip(ROWS[name].names, operands, strict=True)]
    result = whole.copy(deep=False)
    for k in range(whole.shape[1]):
        if where is not True:
            kwargs = {**kwargs, "where": where[:, k]}
        result.isetitem(k, ufunc(*strong(name, [_column(value, k) for value in everything], kwargs), **kwargs))
    return result


def _column(value: Any, k: int) -> Any:
    """Return a column of a frame or an array; a number is in all of them."""
    if _is_frame(value):
        return value.iloc[:, k]
    return value[:, k] if np.ndim(value) else value


def _where(name: str, where: Any, shape: tuple[int, ...]) -> Any:
    """Return `where` as an array of a shape, or True."""
    if where is True:
        return True
    return errors.broadcast(name, "where", errors.checked_where(name, where), shape)


def _check_out(name: str, out: Any) -> None:
    """Raise what an output deserves that cannot be written to."""
    pandas: Any = sys.modules["pandas"]
    if isinstance(out, pandas.Index):
        raise TypeError(f"{name}: out is a {classify.type_name(out)}, which is immutable; use the result")
    if not (_library(out) == "pandas" or classify.is_array(out)):
        raise TypeError(f"{name}: out must be an array, or an object of pandas, not {classify.type_name(out)}")
    whole = [("", out)] if not _is_frame(out) else [(f" in column {k!r}", out.iloc[:, n]) for n, k in enumerate(out)]
    for place, part in whole:
        if type(part.dtype).__name__ == "SparseDtype":
            raise TypeError(f"{name}: out is sparse{place}, and pandas writes to no sparse array; use the result")
        if _read_only(part):
            raise ValueError(f"{name}: out is read-only{place}")


def _read_only(part: Any) -> bool:
    """Say whether a column's memory is read-only: pandas finds out after it has written to others."""
    values = getattr(part, "_values", part)
    memory = [values, getattr(values, "_data", None), getattr(values, "_ndarray", None)]
    return bool(getattr(values, "_readonly", False)) or any(
        classify.is_array(each) and not each.flags.writeable for each in memory
    )


def _labelled(name: str, result: Any, out: Any, in_place: bool) -> Any:
    """Return a result in the order of the output's labels, or raise ValueError if it does not go there."""
    if in_place and hasattr(result, "axes"):
        for ours, theirs in zip(result.axes, out.axes, strict=True):
            if len(ours) != len(theirs) or (ours.get_indexer_for(theirs) < 0).any():
                raise ValueError(f"{name}: out lacks labels that another argument has; align them first")
        if not all(ours.equals(theirs) for ours, theirs in zip(result.axes, out.axes, strict=True)):
            return result.reindex_like(out)
    if np.shape(result) != np.shape(out):
        if hasattr(result, "axes"):
            raise errors.wrong_shape(name, np.shape(out), np.shape(result))
        errors.check_shape(name, np.shape(out), np.shape(result))
        return np.broadcast_to(result, np.shape(out))
    return result


def _check_held(name: str, result: Any, out: Any, casting: Any) -> None:
    """Raise TypeError if a part of the output cannot hold its part of the result."""
    news, places = [dtype for _, dtype in _parts(result)], list(_parts(out))
    if len(news) != len(places):  # one of them is an array
        news, places = (news * len(places), places) if len(news) == 1 else (news, places * len(news))
    for dtype, (part, into) in zip(news, places, strict=True):
        ours, theirs = _numpys(dtype), _numpys(into)
        if ours is not None and theirs is not None:
            errors.check_cast(name, ours, f"out has a {part}" if part else "out is", theirs, casting, into)


def _write(result: Any, out: Any, where: Any) -> None:
    """Write a result to an output that holds it, in the output's own types."""
    if not _is_frame(out):
        result = _held(result, out, where)
    elif not (where is True and _is_frame(result) and list(result.dtypes) == list(out.dtypes)):
        held = out.copy(deep=False)
        for k in range(out.shape[1]):
            held.isetitem(k, _held(_column(result, k), _column(out, k), _column(where, k)))
        result = held
    out[:] = result


def _held(new: Any, old: Any, where: Any) -> Any:
    """Return values of the type of `old`: new ones where a mask is true."""
    if isinstance(old.dtype, np.dtype):
        values = np.asarray(new).astype(old.dtype, copy=False)
        return values if where is True else np.where(where, values, np.asarray(old))
    pandas: Any = sys.modules["pandas"]
    series = pandas.Series(np.asarray(new) if not _library(new) else new).astype(old.dtype).reset_index(drop=True)
    if where is not True:
        series = series.where(where, pandas.Series(old).reset_index(drop=True))
    return series.array
