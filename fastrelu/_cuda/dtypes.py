"""Types: their characters, which kernels know them by, and which loop a call uses: NumPy's own rules, remembered."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba.np.numpy_support import from_dtype

from .. import ufuncs
from .._runtime.dtypes import BFLOAT16, spelled_out, strong
from .numba_cuda import types

#: One type character per type, where NumPy has a name per C type.
_CODES = {
    "b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def code_of(dtype: np.dtype) -> str | None:
    """Return the type character that kernels know; None for a type without a loop."""
    if BFLOAT16 is not None and dtype == BFLOAT16:  # to NumPy, float64 is equal to None
        return "E"
    return _CODES.get(f"{dtype.kind}{dtype.itemsize}") if dtype.isnative else None


def code(dtype: np.dtype) -> str:
    """Return the type character of a type with a loop."""
    found = code_of(dtype)
    assert found is not None
    return found


def memory_dtype(code: str) -> np.dtype:
    """Return the dtype of a type character as it lies in memory: bfloat16, "E", as its bits."""
    return np.dtype("H" if code == "E" else code)


def compute_dtype(code: str) -> np.dtype:
    """Return the dtype in which an operation of a type computes: the narrow floats in float32."""
    return np.dtype("f" if code in "eE" else code)


def compute_type(code: str) -> Any:
    """Return the same as a Numba type."""
    return from_dtype(compute_dtype(code))


def words(*extents: int) -> Any:
    """Return the Numba type of nested tuples of integers."""
    kind = types.int64
    for extent in reversed(extents):
        kind = types.UniTuple(kind, extent)
    return kind


def numbers(code: str, count: int) -> Any:
    """Return the Numba type of a tuple of numbers with which an operation computes."""
    return types.UniTuple(compute_type(code), count)


def is_float(dtype: np.dtype) -> bool:
    """Say whether a type is one of floating-point numbers; to NumPy, bfloat16 is of no kind."""
    return code_of(dtype) in ("e", "E", "f", "d")


def loop_dtype(name: str, kinds: Sequence[Any], out: np.dtype | None, kwargs: Mapping[str, Any]) -> np.dtype:
    """Return the type in which NumPy would compute; raise TypeError where it would.

    `kinds` are dtypes, and `int` or `float` for Python's own numbers.
    """
    return _loop_dtype(name, kinds, out, kwargs) if kwargs else _usual_loop_dtype(name, tuple(kinds), out)


@functools.lru_cache(maxsize=4096)
def _usual_loop_dtype(name: str, kinds: tuple[Any, ...], out: np.dtype | None) -> np.dtype:
    return _loop_dtype(name, kinds, out, {})


def _loop_dtype(name: str, kinds: Sequence[Any], out: np.dtype | None, kwargs: Mapping[str, Any]) -> np.dtype:
    casting = kwargs.get("casting", "same_kind")
    _, kwargs = spelled_out(ufuncs.of(name), (), kwargs)
    signature = kwargs.get("signature", kwargs.get("sig"))
    if kwargs.get("dtype") is not None:
        if signature is not None:
            raise TypeError(f"{name}: cannot specify both 'signature' and 'dtype'")
        signature = (None,) * len(kinds) + (np.dtype(kwargs["dtype"]),)
    # (NumPy takes a string, and of a list what it does not take of `resolve_dtypes`)
    options: dict[str, Any] = {"signature": tuple(signature) if isinstance(signature, list) else signature}
    options = options if signature else {}
    kinds = strong(kinds)
    loop: np.dtype = ufuncs.of(name).resolve_dtypes((*kinds, None), **options, casting=casting)[-1]
    if out is not None and not np.can_cast(loop, out, casting):
        raise TypeError(f"{name}: the result is of dtype {loop}, which does not cast to out of dtype {out} ({casting})")
    for kind in (*kinds, None):
        source, target = (loop, out) if kind is None else (kind, loop)
        if isinstance(source, np.dtype) and target is not None and is_float(source) and not is_float(target):
            raise TypeError(f"{name}: casting={casting!r} from {source} to {target} is not supported on a GPU")
    return loop
