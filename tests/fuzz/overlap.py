"""Outputs whose elements share memory: which of them NumPy leaves there, which is a question of its order."""

from typing import Any

import numpy as np

from .cases import Skipped

#: NumPy's own ufuncs of one to three operands, which return the first where the others have no say in it.
PEERS = (np.positive, np.copysign, np.clip)


def of_itself(array: np.ndarray) -> bool:
    """Say whether elements of an array share memory."""
    starts = np.sort(_starts(array), axis=None)
    return bool((np.diff(starts) < array.itemsize).any())


def partly(array: np.ndarray, written: Any = True) -> bool:
    """Say whether elements may share some of their bytes with others, and not all."""
    starts = _starts(array)[np.broadcast_to(written, array.shape)]
    return np.unique(starts % array.itemsize).size > 1


def write(out: np.ndarray, values: np.ndarray, operands: list[Any], kwargs: dict[str, Any]) -> None:
    """Write values as a ufunc of these operands does; raise Skipped where nothing says how that is."""
    memory, where = _bytes(out), np.asarray(kwargs.get("where", True))
    written = np.broadcast_to(where.copy(), out.shape)
    result = values.astype(out.dtype)
    if partly(out, written) and result.dtype.kind == "f" and np.isnan(result).any():
        raise Skipped  # whose bits are not defined
    if written.all():  # else NumPy may write the others too, as they were
        bits = f"u{out.itemsize}"
        np.copyto(out, result)
        if np.array_equal(np.array(out).view(bits), np.array(result).view(bits)):
            return  # whatever comes last
    arrays = [value for value in operands if isinstance(value, np.ndarray) and value.ndim]
    if (
        len(operands) > len(PEERS)
        or any(np.may_share_memory(out, array) for array in (*arrays, where))
        or any(array.dtype.newbyteorder("=") != values.dtype for array in (*arrays, out))
        or any(isinstance(operand, list) for operand in operands)
        or not isinstance(operands[0], np.ndarray)
        or operands[0].shape != out.shape
        or of_itself(operands[0])
        or values.dtype == bool
    ):
        raise Skipped
    digits = [_digit(out, values.size, digit, operands, kwargs) for digit in (0, 1)]
    elements = result.reshape(-1).view(np.uint8).reshape(-1, out.itemsize)
    starts = (_starts(out) - _starts(out).min()).reshape(-1)
    for position in np.flatnonzero(digits[0] != _UNTOUCHED):
        winner = int(digits[0][position]) + _BASE * int(digits[1][position])
        memory[position] = elements[winner, position - starts[winner]]


#: Elements are counted in two digits of this base, and an untouched byte is none.
_BASE, _UNTOUCHED = 32, 0x7F


def _digit(out: np.ndarray, size: int, digit: int, operands: list[Any], kwargs: dict[str, Any]) -> np.ndarray:
    """Return for each byte of an output a digit of the number of the element that it comes from.

    Each element has that digit in each of its bytes: as a float it is positive and less than 1, in both byte orders.
    """
    kind = np.dtype(f"u{out.itemsize}")
    digits = np.arange(size) // _BASE**digit % _BASE
    numbers = _alike(operands[0])
    bits = np.ndarray(numbers.shape, kind, numbers.base, _offset(numbers), numbers.strides)
    bits[...] = (digits * int.from_bytes(b"\1" * out.itemsize)).astype(kind).reshape(bits.shape)
    given: list[Any] = [numbers]
    for operand, bound in zip(operands[1:], (0, 1)):  # which are those of numpy.clip
        if isinstance(operand, np.ndarray):
            given.append(_alike(operand))
            given[-1][...] = bound
        else:
            given.append(type(operand)(bound))
    copy = _alike(out)
    copy.base[...] = _UNTOUCHED
    # even where=np.True_ may change the order
    PEERS[len(operands) - 1](*given, out=copy, **{key: kwargs[key] for key in ("where", "order") if key in kwargs})
    return _bytes(copy)


def _starts(array: np.ndarray) -> np.ndarray:
    """Return the address of each element."""
    starts = np.full(array.shape, array.ctypes.data)
    for axis, step in enumerate(array.strides):
        extent = [1] * array.ndim
        extent[axis] = -1
        starts += (np.arange(array.shape[axis]) * step).reshape(extent)
    return starts


def _bytes(array: np.ndarray) -> np.ndarray:
    """Return the memory of an array, from its first byte to its last."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return np.ndarray((high - low,), np.uint8, _owner(array), low - _owner(array).ctypes.data)


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _offset(array: np.ndarray) -> int:
    return array.ctypes.data - _owner(array).ctypes.data


def _alike(array: np.ndarray) -> np.ndarray:
    """Return a new array that lies in memory as another one does, in a cache line too."""
    low, high = np.lib.array_utils.byte_bounds(array)
    area = np.zeros(high - low + 128, np.uint8)
    start = (low - area.ctypes.data) % 64
    return np.ndarray(array.shape, array.dtype, area, start + array.ctypes.data - low, array.strides)
