"""What kind of array each argument is, found without importing anybody's library.

The order matters: many device arrays also have ``__array__``, through which NumPy would copy them to the host.
"""

import numbers
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TypeGuard

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .._operations import FUNCTIONS, ROWS
from .._runtime.dtypes import ACCEPTED, supported

#: Scalars of the language, which NumPy promotes weakly (NEP 50).
NUMBERS = (bool, int, float, complex)


#: Libraries with code of their own here, and the classes of their arrays and of what stands for one; a proxy claims to
#: have every attribute.
_LIBRARIES = (
    ("torch", "torch", "Tensor"),
    ("jax", "jax", "Array"),
    ("torch", "torch.fx", "Proxy"),
    ("jax", "jax", "Ref"),
)


def kind(value: Any) -> str:
    """Return "host", "device", "override", "torch", "jax" or "foreign" for one argument."""
    if type(value) is np.ndarray or value is None or isinstance(value, (np.generic, *NUMBERS, list, tuple)):
        return "host"
    # First by class: the CUDA interface of some torch tensors raises (sparse ones; on a GPU, what requires grad)
    for name, module, array in _LIBRARIES:
        array_type = getattr(sys.modules.get(module), array, None)
        if isinstance(array_type, type) and isinstance(value, array_type):
            return name
    # Looked at: there are objects that have every attribute, such as pandas.col("a")
    if getattr(value, "__cuda_ndarray__", None) is True or isinstance(
        getattr(value, "__cuda_array_interface__", None), dict
    ):
        return "device"
    if hasattr(type(value), "__array_ufunc__"):
        return "override"
    if any(hasattr(type(value), each) for each in ("__array_namespace__", "__dlpack__", "__dlpack_device__")):
        return "foreign"
    return "host"


def is_array(value: Any) -> TypeGuard[np.ndarray]:
    """Say whether a value really is a NumPy array: objects may claim it through ``__class__``, as mocks do."""
    return issubclass(type(value), np.ndarray)


def dtype_of(value: Any) -> np.dtype:
    """Return the type of an array or of a number; subclasses of Python's numbers are numbers."""
    if is_array(value) or isinstance(value, np.generic):
        return value.dtype
    return np.dtype(next(number for number in NUMBERS if isinstance(value, number)))


def type_name(value: Any) -> str:
    """Return how an error message calls an argument's type."""
    cls = type(value)
    library = cls.__module__.partition(".")[0]
    text = cls.__qualname__ if library in ("builtins", "__main__") else f"{library}.{cls.__qualname__}"
    if is_array(value) or isinstance(value, np.generic):
        text += f" of dtype {value.dtype}" + (f" of shape {value.shape}" if value.ndim else "")
    return text


def described(value: Any, array: Any) -> str:
    """Return how an error message calls an argument of which NumPy makes an array."""
    if array is value or not array.ndim:
        return type_name(value)
    return f"{type_name(value)}, of which NumPy makes an array of dtype {array.dtype}"


def converted(name: str, argument: str, value: Any) -> np.ndarray:
    """Return what NumPy makes of an argument; an error of it names the argument."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):  # of somebody's own kind
            raise
        what = type_name(value)
        raise type(error)(f"{name}: {argument} is a {what}, of which NumPy makes no array: {error}") from error


def refuse_dtype(name: str, argument: str, dtype: object) -> NoReturn:
    """Raise the TypeError for an array of a library whose type no loop takes."""
    raise TypeError(f"{name}: {argument} is of dtype {dtype}; accepted are {ACCEPTED}")


def checked(name: str, argument: str, value: Any) -> Any:
    """Return an argument with lists made arrays, or raise TypeError for what no loop takes."""
    array = value
    if not (is_array(value) or isinstance(value, (np.generic, *NUMBERS))):
        array = converted(name, argument, value)
    if not supported(dtype_of(array)):
        what, instead = described(value, array), _instead(argument, value, array)
        raise TypeError(f"{name}: {argument} is a {what}; accepted are {ACCEPTED}{instead}")
    if type(array) is int and argument in ROWS[name].data and not -(1 << 63) <= array < 1 << 64:
        raise TypeError(f"{name}: {argument} is an int beyond all integer types; pass a float")
    return array


def _instead(argument: str, value: Any, array: Any) -> str:
    """Return what to write instead of an argument, if that is known."""
    if type(value).__module__.startswith("scipy.sparse"):
        return f"; pass {argument}.toarray(), or {argument}.data, the numbers that it holds"
    if isinstance(value, (set, frozenset, dict, Iterator)):
        return "; pass a list, or an array"
    if isinstance(value, numbers.Rational) or type(value).__module__ == "decimal":
        return f"; pass float({argument})"
    if is_array(array) and array.dtype.kind == "O" and array.ndim:
        return f"; an array of Python's numbers becomes one of floats by {argument}.astype(float)"
    return ""


def check_in_place(name: str, value: Any) -> None:
    """Raise TypeError for what a twin cannot write to: a list, or a number."""
    if kind(value) == "host" and not is_array(value):
        argument = FUNCTIONS[name].names[0]
        raise TypeError(f"{name} works in place and needs an array as {argument}, not {type_name(value)}")


def disjoint(array: Any) -> bool:
    """Say whether no two elements of an array are one in memory, or partly so; also of views of a GPU's memory.

    Where NumPy cannot tell with reasonable work, the answer is no.
    """
    shape, strides, itemsize = array.shape, array.strides, array.dtype.itemsize
    reach = itemsize
    for step, extent in sorted((abs(step), n) for step, n in zip(strides, shape, strict=True) if n > 1):
        if step < reach:
            break
        reach += step * (extent - 1)
    else:
        return True
    # Two elements at one place differ along some axis, and can be moved along it until one of them is the first there
    ghost: Any = as_strided(np.empty(1, f"V{itemsize}"), shape, strides)  # nobody looks at its memory
    meet: Any = np.shares_memory  # whose stub knows no other limit than 0
    try:
        return not any(meet(*np.split(ghost, [1], axis), max_work=10_000) for axis in range(ghost.ndim))
    except np.exceptions.TooHardError:
        return False
