"""bfloat16 on a GPU, beside other types: the values of each operation are in `test_values.py`."""

import ctypes

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")

import fastrelu  # noqa: E402
from fastrelu._bench.oracle import assert_same, expected  # noqa: E402
from fastrelu._cuda import (  # noqa: E402
    dlpack,
    dtypes,
    executor,
)

from .data import specials, to_device, view_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("tiny_blocks")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def test_float64_is_not_bfloat16_where_there_is_none(monkeypatch):
    monkeypatch.setattr(dtypes, "BFLOAT16", None)
    assert [dtypes.code_of.__wrapped__(np.dtype(code)) for code in "efd"] == ["e", "f", "d"]


def test_types_of_results():
    x = specials(BFLOAT16, 29)
    device = to_device(x)
    for slope in (0.3, 2, True):
        assert_same(
            fastrelu.leaky_relu(device, slope).copy_to_host(), expected("leaky_relu", [x, float(slope)], BFLOAT16)
        )
    for other in (np.float32(0.3), np.float64(0.3), np.int8(3)):
        wanted = np.multiply(BFLOAT16.type(1), other).dtype
        assert_same(fastrelu.leaky_relu(device, other).copy_to_host(), expected("leaky_relu", [x, other], wanted))
    grad = specials(np.float32, 29)
    result = fastrelu.relu_backward(to_device(grad), device, 0.3).copy_to_host()
    assert_same(result, expected("relu_backward", [grad, x, 0.3], np.float32))


@pytest.mark.parametrize("other", ["float16", "float32", "float64"])
def test_conversions(other):
    x = specials(BFLOAT16, 29)
    wide = specials(other, 29)
    result = fastrelu.leaky_relu(to_device(wide), 0.3, dtype=BFLOAT16).copy_to_host()
    assert_same(result, expected("leaky_relu", [wide, 0.3], BFLOAT16))
    out = to_device(np.zeros(29, BFLOAT16))
    if other != "float16":
        fastrelu.leaky_relu(to_device(wide), 0.3, out=out)
        with np.errstate(all="ignore"):
            assert_same(out.copy_to_host(), expected("leaky_relu", [wide, 0.3], other).astype(BFLOAT16))
        out = to_device(np.zeros(29, other))
        fastrelu.leaky_relu(to_device(x), 0.3, out=out)
        assert_same(out.copy_to_host(), expected("leaky_relu", [x, 0.3], BFLOAT16).astype(other))
    with pytest.raises(TypeError, match="does not cast"):
        fastrelu.relu(to_device(x), out=to_device(np.zeros(29, np.int32)))


def test_views_masks_and_overlap():
    x = specials(BFLOAT16, 60).reshape(6, 10)
    device = to_device(x)
    for view in (lambda a: a.T, lambda a: a[::2, 1::3]):
        assert_same(
            fastrelu.leaky_relu(view_of(device, view), 0.3).copy_to_host(),
            expected("leaky_relu", [view(x), 0.3], BFLOAT16),
        )
    mask = np.resize([True, False, False], (6, 10))
    out = to_device(np.ones((6, 10), BFLOAT16))
    fastrelu.relu(device, out=out, where=to_device(mask))
    assert_same(out.copy_to_host(), np.where(mask, expected("relu", [x], BFLOAT16), BFLOAT16.type(1)))
    flat = to_device(x.ravel())
    fastrelu.relu(flat[:-3], out=flat[3:])
    assert_same(flat.copy_to_host()[3:], expected("relu", [x.ravel()[:-3]], BFLOAT16))


def test_dlpack():
    x = specials(BFLOAT16, 29)
    export = dlpack.Export(x, x.ctypes.data, x.shape, x.dtype, (dlpack.CPU, 0), lambda stream: None)
    capsule = export.__dlpack__(stream=-1)
    managed = ctypes.cast(dlpack._pointer(capsule, b"dltensor"), ctypes.POINTER(dlpack._Managed)).contents
    assert (managed.tensor.code, managed.tensor.bits) == (4, 16)  # kDLBfloat
    assert dlpack.read(capsule) == (x.ctypes.data, (29,), (2,), BFLOAT16, 0)


def test_nan_of_the_hardware_stays_nan():
    """NVIDIA's is all ones, which rounding would carry into the sign: 0x8000 is a zero."""
    from fastrelu._cuda import simulator

    ones = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F810000], np.uint32).view(np.float32)
    assert simulator.to_memory(ones, "E").tolist() == [0x7FFF, 0xFFFF, 0x7FC0, 0x7F81]
    assert (
        executor.call("relu", [to_device(np.array([0x7F81], np.uint16).view(BFLOAT16))], None, None, {})
        .copy_to_host()
        .view(np.uint16)
        == 0x7F81
    )
