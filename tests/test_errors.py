"""Bad input: the right exception, a message that names the argument and its type, and data left alone."""

import numpy as np
import pytest

import fastrelu

from .helpers import BINARY, OPERATIONS, public

X = np.array([-1.0, 2.0])
BAD_TYPES = ["F", "D", "O", "U3", "S3", "m8[s]", "M8[s]", "V4", [("a", "f4")]]


@pytest.mark.parametrize("dtype", BAD_TYPES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_unsupported_types(name, dtype):
    bad = np.zeros(2, dtype)
    with pytest.raises(TypeError, match=rf"{name}: (x|grad) is a numpy\.ndarray of dtype"):
        public(name)(*[bad] * (1 + (name in BINARY)))
    with pytest.raises(TypeError, match=name):
        public(name, twin=True)(*[bad] * (1 + (name in BINARY)))
    if name in BINARY:
        with pytest.raises(TypeError, match=rf"{name}: x is a numpy"):
            public(name)(X, bad)


@pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="longdouble is float64 on this platform")
def test_longdouble():
    with pytest.raises(TypeError, match=r"relu: x is a numpy\.ndarray of dtype (longdouble|float128)"):
        fastrelu.relu(np.zeros(3, "g"))


@pytest.mark.parametrize("bad", [None, "0.1", 1j, object(), b"1", {}, np.complex64(1)], ids=repr)
def test_unsupported_parameters(bad):
    x = X.copy()
    for function in (fastrelu.leaky_relu, fastrelu.leaky_relu_, fastrelu.leaky_relu_grad):
        with pytest.raises(TypeError, match="negative_slope"):
            function(x, bad)
    with pytest.raises(TypeError, match="at_zero"):
        fastrelu.relu_grad(x, bad)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("name", OPERATIONS)
def test_twins_refuse_what_they_cannot_write(name):
    rest = [X] if name in BINARY else []
    twin = public(name, twin=True)
    for bad in ([1.0, 2.0], (1.0,), 1.0, 1, True, np.float64(1.0), None, "x"):
        with pytest.raises(TypeError, match=rf"{name}_ works in place"):
            twin(bad, *rest)
    frozen = X.copy()
    frozen.flags.writeable = False
    for target in (None, "serial", "parallel"):
        with pytest.raises(ValueError, match="read-only"):
            twin(frozen, *rest, target=target)
    np.testing.assert_array_equal(frozen, X)
    with pytest.raises(TypeError, match="out"):
        twin(X.copy(), *rest, out=X.copy())


@pytest.mark.parametrize("target", ["gpu", "", "Serial", 1, ("serial",), b"serial", True])
def test_unknown_target(target):
    x = X.copy()
    with pytest.raises(ValueError, match="target="):
        fastrelu.relu(x, target=target)
    with pytest.raises(ValueError, match="target="):
        fastrelu.relu_(x, target=target)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("size", [3, 200_000])
def test_shapes(size):
    x, long, out = np.ones(size), np.ones(size + 1), np.full(size, 7.0)
    with pytest.raises(ValueError, match="broadcast"):
        fastrelu.relu_backward(x, long)
    with pytest.raises(ValueError, match="broadcast"):
        fastrelu.leaky_relu(x, long)
    with pytest.raises(ValueError, match="shape"):
        fastrelu.relu(x, out=np.ones(size + 1))
    with pytest.raises(ValueError, match="shape"):
        fastrelu.relu(long, out=out)
    with pytest.raises(ValueError, match="shape"):
        fastrelu.leaky_relu_(x, np.ones((2, size)))
    for view in (np.ones((2, 2, size))[:, 0], np.ones((2, size)).T):
        with pytest.raises(ValueError, match=r"shape|broadcast"):
            fastrelu.relu(view, out=np.ones((5, 4)))
    assert (out == 7).all()
    assert (x == 1).all()


@pytest.mark.parametrize("size", [3, 200_000])
def test_out_that_does_not_fit(size):
    x = np.full((2, size), -1.5)
    for out in (np.full((2, size), 7), np.full((2, size), True), np.zeros((2, size), "m8[s]")):
        before = out.copy()
        for source in (x, x[::-1], x.astype(np.float16)):
            with pytest.raises(TypeError):
                fastrelu.relu(source, out=out)
        np.testing.assert_array_equal(out, before)
    for bad in ([1, 2], "out", 3.0, np.float64(1)):
        with pytest.raises(TypeError, match="out"):
            fastrelu.relu(x, out=bad)


def test_read_only_out():
    out = np.zeros((500, 500))
    out.flags.writeable = False
    for x in (np.ones((500, 500)), np.ones((500, 500)).T, np.ones((500, 500), np.int8)):
        with pytest.raises(ValueError, match="read-only"):
            fastrelu.leaky_relu(x, out=out)
    assert (out == 0).all()


def test_wrong_arguments():
    for call in (
        lambda: fastrelu.relu(),
        lambda: fastrelu.relu(x=X),
        lambda: fastrelu.relu(X, 0.1),
        lambda: fastrelu.relu(X, nonsense=1),
        lambda: fastrelu.leaky_relu(X, 0.1, 0.2),
        lambda: fastrelu.relu_backward(X),
        lambda: fastrelu.relu_backward(X, X, 0.0, 1.0),
        lambda: fastrelu.relu_(),
        lambda: fastrelu.leaky_relu_backward_(X),
        lambda: fastrelu.relu(X, casting="wrong"),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    with pytest.raises(ValueError, match="inhomogeneous"):
        fastrelu.relu([[1], [2, 3]])


def test_cuda_says_what_is_missing():
    with pytest.raises(RuntimeError, match="target='cuda' is not available"):
        fastrelu.relu(X, target="cuda")


class OnlyDunderArray:
    def __array__(self, dtype=None, copy=None):
        return X.copy()


class ArrayApi:
    def __array_namespace__(self, api_version=None):
        return np

    __array__ = OnlyDunderArray.__array__


class Device:
    @property
    def __cuda_array_interface__(self):
        return {"shape": (2,), "typestr": "<f8", "data": (0, False), "version": 3}

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("device data was converted to the host")


def test_other_libraries_arrays():
    np.testing.assert_array_equal(fastrelu.relu(OnlyDunderArray()), [0.0, 2.0])
    with pytest.raises(TypeError, match="ArrayApi"):
        fastrelu.relu(ArrayApi())
    with pytest.raises((TypeError, RuntimeError)):
        fastrelu.relu(Device())
    with pytest.raises(TypeError, match=r"works in place|array"):
        fastrelu.relu_(OnlyDunderArray())


class Override:
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return ufunc, method, len(inputs), kwargs


def test_array_ufunc_sees_the_raw_ufunc():
    assert fastrelu.relu(Override()) == (fastrelu.ufuncs.relu, "__call__", 1, {})
    assert fastrelu.leaky_relu(X, Override())[0] is fastrelu.ufuncs.leaky_relu
    assert fastrelu.leaky_relu_backward(X, Override(), 0.5)[2] == 4
    value = Override()
    assert fastrelu.relu_(value) is value

    class Refuses:
        __array_ufunc__ = None

    with pytest.raises(TypeError):
        fastrelu.relu(Refuses())


def test_subclasses():
    masked = np.ma.masked_array([-1.0, 2.0, -3.0], mask=[False, False, True])
    result = fastrelu.relu(masked)
    assert type(result) is np.ma.MaskedArray
    np.testing.assert_array_equal(result.mask, masked.mask)
    np.testing.assert_array_equal(result.filled(9), [0.0, 2.0, 9.0])

    class Mine(np.ndarray):
        pass

    mine = X.copy().view(Mine)
    assert type(fastrelu.leaky_relu(mine)) is Mine
    assert fastrelu.relu_(mine) is mine
    assert type(fastrelu.relu(mine, subok=False)) is np.ndarray


def test_a_name_that_moved_says_which_versions_are_supported():
    from fastrelu._versions import needed

    with (
        pytest.raises(ImportError, match=r"fastrelu supports numpy >= 2\.0 and numba >= 0\.60.*; numba \d"),
        needed("numba"),
    ):
        from numba import a_name_that_moved  # noqa: F401
