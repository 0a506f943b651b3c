"""The quick way of Numba's device arrays: what it takes is right, and what it must not take it leaves alone."""

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import cuda_driver, executor
from fastrelu._cuda.numba_cuda import SIMULATED, cuda
from fastrelu._operations import UFUNCS

from .data import Guarded, Relabelled, operands_for, specials, to_device, view_of

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        bool(SIMULATED or executor.unavailable() or cuda_driver.get().count() > 1),
        reason="with several GPUs there is none",
    ),
]


def quick(name, *operands, out=None):
    return executor.quick_for(operands[0])(name, operands, out)


@pytest.mark.parametrize("name", UFUNCS)
@pytest.mark.parametrize("code", ["e", "f", "d"])
def test_whole_arrays(name, code, shape_of_launch):
    for n in (1, 7, 8, 9, 64, 1023, 5000):
        values = operands_for(name, code, n)
        arrays = [to_device(value) if isinstance(value, np.ndarray) else value for value in values]
        wanted = expected(name, values, code)
        result = quick(name, *arrays)
        assert (type(result), result.dtype, result.shape) == (type(arrays[0]), code, (n,))
        assert_same(result.copy_to_host(), wanted)
        out = to_device(np.zeros(n, code))
        assert quick(name, *arrays, out=out) is out
        assert_same(out.copy_to_host(), wanted)
        assert quick(name, *arrays, out=arrays[0]) is arrays[0]
        assert_same(arrays[0].copy_to_host(), wanted)


@pytest.mark.parametrize("offset", range(5))
def test_heads_and_tails(offset):
    for n in (1, 2, 3, 4, 5, 37):
        x, out = Guarded(specials("f", n), offset), Guarded(np.zeros(n, "f"), offset)
        assert quick("relu", x.array, out=out.array) is out.array
        assert_same(out.array.copy_to_host(), expected("relu", (specials("f", n),), "f"))
        out.check()


def test_shapes_of_several_axes():
    x = specials("f", 60).reshape(3, 4, 5)
    assert_same(quick("leaky_relu", to_device(x), 0.3).copy_to_host(), expected("leaky_relu", (x, 0.3), "f"))


def test_what_is_left_alone():
    x, whole = to_device(specials("f", 40)), to_device(specials("f", 60))
    before = whole.copy_to_host()
    named = cuda.device_array(40, "f", stream=cuda.external_stream(cuda_driver.get().new_stream(0)))
    for name, operands, out in [
        ("relu", [whole[::2]], None),
        ("relu", [view_of(x, lambda a: a.reshape(8, 5).T)], None),
        ("relu", [whole[:40]], whole[1:41]),  # overlap
        ("relu", [whole[:40]], whole[20:]),
        ("relu", [x], to_device(np.zeros(40, "d"))),
        ("relu", [x], to_device(np.zeros((2, 40), "f"))),
        ("relu", [x], np.zeros(40, "f")),
        ("relu", [x[:0]], None),
        ("relu", [named], None),  # the order of its stream
        ("relu", [x], named),
        ("relu_backward", [x, whole[:1], 0.0], None),
        ("relu_backward", [x, to_device(np.zeros(40, "d")), 0.0], None),
        ("leaky_relu", [x, np.float64(0.1)], None),
        ("leaky_relu", [x, to_device(np.zeros(40, "f"))], None),
        ("leaky_relu", [to_device(specials("i", 40)), 0.1], None),
    ]:
        assert quick(name, *operands, out=out) is None, (name, out)
    assert_same(whole.copy_to_host(), before)


def test_the_public_functions_take_it(monkeypatch):
    from fastrelu._cuda import elementwise

    x = to_device(specials("f", 40))
    fastrelu.relu(x)
    monkeypatch.setattr(elementwise, "call", None)
    assert_same(fastrelu.relu(x).copy_to_host(), expected("relu", (specials("f", 40),), "f"))
    fastrelu.leaky_relu_(x, 0.3)
    assert_same(x.copy_to_host(), expected("leaky_relu", (specials("f", 40), 0.3), "f"))


@pytest.fixture(params=["first call", "later"])
def turn(request, monkeypatch):
    """Call for the first time, by the general way, and then with the quick way known."""
    from fastrelu._call import dispatch

    monkeypatch.setattr(dispatch, "_quick", {})
    if request.param == "later":
        fastrelu.relu(to_device(specials("f", 40)))
        assert dispatch._quick


def test_broadcast_arrays(turn):
    row, whole = specials("f", 5), to_device(specials("f", 15))
    wide = cuda.as_cuda_array(Relabelled(to_device(row), shape=(3, 5), strides=(0, 4)))
    assert_same(fastrelu.relu(wide).copy_to_host(), expected("relu", (np.broadcast_to(row, (3, 5)),), "f"))
    one = cuda.as_cuda_array(Relabelled(to_device(row[:1]), shape=(15,), strides=(0,)))
    fastrelu.relu_backward(one, whole, out=(out := to_device(np.zeros(15, "f"))))
    wanted = expected("relu_backward", (np.broadcast_to(row[:1], 15), specials("f", 15), 0.0), "f")
    assert_same(out.copy_to_host(), wanted)
    with pytest.raises(ValueError, match="one in memory"):
        fastrelu.relu_(wide)


def test_integers_take_any_parameter(turn):
    for code in ("b", "h", "i", "H"):
        x = specials(code, 21)
        for slope in (-1, 1e9, 1e39, np.inf, np.nan, 3):
            found = fastrelu.leaky_relu(to_device(x), slope)
            assert_same(found.copy_to_host(), fastrelu.leaky_relu(x, slope))


def test_unaligned_arrays(turn):
    memory = to_device(np.zeros(80, np.uint8))
    x = cuda.as_cuda_array(Relabelled(memory[1:65], shape=(16,), typestr="<f4", strides=None))
    for call in (fastrelu.relu, fastrelu.relu_, lambda x: fastrelu.relu(to_device(specials("f", 16)), out=x)):
        with pytest.raises(ValueError, match="not aligned"):
            call(x)


def test_managed_memory(turn):
    x = cuda.managed_array(40, "f")
    x[:] = specials("f", 40)
    wanted = expected("relu", (specials("f", 40),), "f")
    for _ in range(2):
        result = fastrelu.relu(x)
        cuda.synchronize()
        assert_same(result.copy_to_host(), wanted)
    assert fastrelu.relu_(x) is x
    cuda.synchronize()
    assert_same(np.asarray(x), wanted)
