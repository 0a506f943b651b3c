"""Host arrays with target="cuda", in pieces of a few elements."""

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import executor, settings, staging
from fastrelu._operations import UFUNCS

from .data import FLOATS, operands_for, specials

pytestmark = pytest.mark.usefixtures("tiny_blocks")


@pytest.fixture(params=[16, 64, 1 << 20], autouse=True)
def piece(request, monkeypatch):
    monkeypatch.setattr(settings, "STAGING_BYTES", request.param)


@pytest.mark.parametrize("name", UFUNCS)
@pytest.mark.parametrize("code", FLOATS)
def test_values(name, code):
    values = operands_for(name, code, 41)
    assert_same(executor.call(name, values, None, "cuda", {}), expected(name, values, code))
    assert_same(executor.call(name, values, values[0], "cuda", {}), expected(name, operands_for(name, code, 41), code))


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[::-1, ::2], lambda a: a[:, 1], lambda a: a[:0]])
def test_layouts(view):
    x = specials("f", 77).reshape(7, 11)
    wanted = expected("leaky_relu", (view(x), 0.3), "f")
    assert_same(executor.call("leaky_relu", (view(x), 0.3), None, "cuda", {}), wanted)
    out = np.zeros((7, 11), "f")
    assert executor.call("leaky_relu", (view(x), 0.3), view(out), "cuda", {}).base is out
    assert_same(view(out), wanted)


def test_a_slope_per_channel_fortran_order_and_byte_order():
    x = np.asfortranarray(specials("f", 77).reshape(7, 11)).astype(">f4", order="K")
    slope = np.linspace(-1, 1, 7, dtype="f")[:, None]
    result = executor.call("leaky_relu", (x, slope), None, "cuda", {})
    assert result.flags.f_contiguous
    assert_same(result, expected("leaky_relu", (x, slope), "f"))


def test_overlap_where_lists_and_scalars():
    x = specials("f", 40)
    wanted = x.copy()
    wanted[3:] = expected("leaky_relu", (x[:-3], 0.3), "f")
    executor.call("leaky_relu", (x[:-3], 0.3), x[3:], "cuda", {})
    assert_same(x, wanted)
    mask, out = np.resize([True, False], 40), np.full(40, 5, "f")
    executor.call("relu", (x,), out, "cuda", {"where": mask})
    assert_same(out, np.where(mask, expected("relu", (x,), "f"), np.float32(5)))
    assert_same(executor.call("relu", ([[-1.0, 2.0]],), None, "cuda", {}), np.array([[0.0, 2.0]]))
    assert isinstance(executor.call("relu", (np.float32(-1),), None, "cuda", {}), np.float32)


def test_refusals_write_nothing():
    out = np.full(3, 8, "f")
    with pytest.raises(TypeError, match="complex"):
        executor.call("relu", (np.zeros(3, complex),), out, "cuda", {})
    with pytest.raises(ValueError, match="broadcast"):
        executor.call("relu", (np.zeros(4, "f"),), out, "cuda", {})
    with pytest.raises(TypeError, match="cast"):
        executor.call("relu", (np.zeros(3, "f"),), np.zeros(3, "i"), "cuda", {})
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        executor.call("relu", (np.zeros(3, "f"),), out, "cuda", {})
    assert_same(out, np.full(3, 8, "f"))


def test_signatures_as_numpy_takes_them():
    x = specials("f", 40)
    for signature in ("f->f", ("f", "f"), ["f", "f"]):
        assert_same(fastrelu.relu(x, target="cuda", signature=signature), fastrelu.relu(x))


def test_an_interrupted_call_leaves_nothing_to_write(monkeypatch):
    """Ctrl-C while the last pieces are put into their places: later calls use the same buffers."""
    monkeypatch.setattr(settings, "STAGING_BYTES", 64)
    fastrelu.relu(np.ones(64, "f"), target="cuda")

    class Places:
        def __init__(self):
            self.array, self.written = np.zeros(64, "f"), 0

        def __setitem__(self, place, values):
            self.written += 1
            if self.written == 3:
                raise KeyboardInterrupt
            self.array[place] = values

    places = Places()
    parts = [staging.Part(np.ones(64, "f"), np.dtype("f"))], [staging.Part(places, np.dtype("f"))]
    with pytest.raises(KeyboardInterrupt):
        staging.stream_through(64, *parts, lambda *given: None)
    places.array[:] = -1
    for n in (8, 32):
        fastrelu.relu(np.ones(n, "f"), target="cuda")
    assert (places.array == -1).all()
