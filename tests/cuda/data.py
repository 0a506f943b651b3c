"""Values that an operation can get wrong, and arrays in awkward places."""

import numpy as np

from fastrelu._bench.oracle import expected
from fastrelu._operations import ROWS

try:
    from ml_dtypes import finfo
except ImportError:
    from numpy import finfo

#: The functions with a bitmask, and those with sums.
MASKED = [name for name, row in ROWS.items() if row.has_bitmask]
SUMMED = [name for name, row in ROWS.items() if row.sums]

#: Names for which there are operations: bfloat16 where ml_dtypes is installed.
FLOATS = "efd" if finfo is np.finfo else ("e", "f", "d", "bfloat16")
NUMBERS = {"negative_slope": 0.3, "at_zero": 0.7}


def specials(dtype, n, shift=0):
    """Return n numbers of a type that go through its special values."""
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return np.resize(np.array([True, False, False]), n)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = [info.min, info.max, 0, 1, info.max // 2, max(info.min, -1)]
    else:
        info = finfo(dtype)
        tiny = float(info.smallest_subnormal)
        values = [-np.inf, float(info.min), -1.7, -tiny, -0.0, 0.0, tiny, 0.3, float(info.max), np.inf, np.nan, -3.1]
    return np.roll(np.resize(np.array(values, dtype=dtype), n), shift)


def operands_for(name, dtype, n):
    """Return host operands of an operation: data arrays, and numbers for parameters."""
    return [
        specials(dtype, n, shift=3 * k) if operand.kind == "data" else NUMBERS[operand.name]
        for k, operand in enumerate(ROWS[name].operands)
    ]


def bits_of(x):
    """Return the mask of an array."""
    with np.errstate(invalid="ignore"):  # ml_dtypes warns of NaN
        return np.packbits(~(x <= 0).ravel(), bitorder="little")


def masked_case(name, x, slope=0.3):
    """Return the arguments of a function with a mask in host memory, and what it returns for them, as a list."""
    slopes = [slope] if "negative_slope" in ROWS[name].names else []
    dtype = np.result_type(x, slope) if slopes and isinstance(slope, np.ndarray) else x.dtype
    if name.endswith("with_mask"):
        values = expected(name.removesuffix("_with_mask"), (x, *slopes), dtype)
        return [x, *slopes], [values, bits_of(x)]
    grad, mask = np.roll(x, 5), bits_of(x)
    if x.size % 8:
        mask[-1] |= 256 - (1 << x.size % 8)  # bits beyond the last element are ignored
    parameters = slopes * 2 or [0.0]
    backward = expected(name.removesuffix("_from_mask"), (grad, x, *parameters), dtype)
    return [grad, mask, *slopes], [backward]


def listed(result):
    """Return what a function returned, one thing or two, as a list."""
    return list(result) if isinstance(result, tuple) else [result]


def to_device(values):
    """Return a Numba device array, of bfloat16 too, which Numba does not copy as such."""
    from fastrelu._cuda.numba_cuda import SIMULATED, cuda

    if SIMULATED or np.dtype(values.dtype).char != "E":
        return cuda.to_device(values)
    return cuda.to_device(values.view(np.uint16)).view(values.dtype)


def view_of(array, take):
    """Return what `take` makes of a device array; Numba's own know few views, and copy for others."""
    from fastrelu._cuda.numba_cuda import SIMULATED

    if SIMULATED:
        return take(array)
    extent = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)) + array.dtype.itemsize
    twin = np.ndarray(array.shape, array.dtype, np.zeros(extent, np.uint8), strides=array.strides)
    part = take(twin)
    start = part.__array_interface__["data"][0] - twin.__array_interface__["data"][0]
    return type(array)(part.shape, part.strides, part.dtype, gpu_data=array.gpu_data.view(start))


class Relabelled:
    """An array in GPU memory that says other things of itself, by the CUDA Array Interface."""

    def __init__(self, array, **changed):
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | changed


class Guarded:
    """A device array that starts some elements into a larger one, whose other bytes must stay as they are."""

    def __init__(self, values, offset, margin=24):
        raw = np.full(values.size + 2 * margin, 1, dtype=values.dtype)
        raw.view(np.uint8)[:] = 0x5A if values.dtype != np.bool_ else 1
        self.start, self.stop = margin + offset, margin + offset + values.size
        raw[self.start : self.stop] = values
        self._before = raw.copy()
        self._whole = to_device(raw)
        self.array = self._whole[self.start : self.stop]

    def check(self):
        """Raise AssertionError where something around the array has changed."""
        after = self._whole.copy_to_host()
        for part in (slice(None, self.start), slice(self.stop, None)):
            assert after[part].tobytes() == self._before[part].tobytes()
