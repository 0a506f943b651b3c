"""Calls that are wrong in every way: computed as NumPy computes them, or refused clearly, with all data left alone."""

import array
import collections
import datetime
import decimal
import enum
import fractions
import itertools
import re
import textwrap
import types

import numpy as np
import pytest

import fastrelu
from fastrelu import ufuncs
from fastrelu._bench.oracle import assert_same, expected

from .helpers import run_python

F = fastrelu
#: A message names one of these: a function, an argument, or what NumPy calls them.
NAMES = re.compile(
    r"relu|\bx\b|grad|negative_slope|at_zero|\bout\b|where|target|dtype|casting|order|signature|subok|keyword|argument"
    r"|operand|output|shape|array|ufunc|float|warmup|explain|min_bytes|data type|binary functions"
)
as_strided = np.lib.stride_tricks.as_strided


@pytest.fixture(params=["as it is", "parallel", "jobs for all"], autouse=True)
def ways(request, monkeypatch):
    """Each call goes through the front door, through the ufunc with a forced target, and through the drivers."""
    if request.param == "as it is":
        yield
    elif request.param == "parallel":
        with fastrelu.configure(target="parallel"):
            yield
    else:
        monkeypatch.setattr(fastrelu._call.dispatch, "LARGE_BYTES", 9)
        monkeypatch.setattr(fastrelu._call.dispatch, "CONVERT_BYTES", 9)
        with fastrelu.configure(parallel_min_bytes=0, streaming_min_bytes=0):
            yield


class Data:
    """Arrays for one call; none of them may change unless it is the output of a call that succeeds."""

    def __init__(self):
        self.x = np.array([[-1.5, -0.0, 2.5], [np.nan, np.inf, -7.0]], np.float32)
        self.y = np.array([[1.5, 0.0, -2.5], [4.0, -np.inf, 1e-45]], np.float32)
        self.out = np.full((2, 3), 42, np.float32)
        self.mask = np.array([[True, False, True], [False, True, True]])
        self.ints = np.array([[-3, 0, 3], [4, -5, 6]])
        self.wide = np.full((2, 5), 42, np.float32)
        self.frozen = self.x.copy()
        self.frozen.flags.writeable = False
        self.raw = np.zeros(64, np.uint8)

    def bytes(self):
        return {name: value.tobytes() for name, value in vars(self).items()}


def having(**attributes):
    """Return an object with these attributes in its class; functions become methods."""
    return type("Liar", (), attributes)()


def constant(value):
    return lambda *args, **kwargs: value


def fail(*args, **kwargs):
    raise ValueError("x: this object fails on purpose")


def recursive():
    result = []
    result.append(result)
    return result


def nested(depth):
    result = [1.0]
    for _ in range(depth):
        result = [result]
    return result


class FailsToFinalize(np.ndarray):
    def __array_finalize__(self, parent):
        if parent is not None and type(parent) is FailsToFinalize:
            fail()


class FailsAsUfunc(np.ndarray):
    __array_ufunc__ = fail


class FailsToWrap(np.ndarray):
    __array_wrap__ = fail


class Declines(np.ndarray):
    def __array_ufunc__(self, *args, **kwargs):
        return NotImplemented


class Liar(np.ndarray):
    """Tells a wrong shape, type and size to whoever asks in Python."""

    shape = property(lambda self: (10**6,))
    dtype = property(lambda self: np.dtype("float64"))
    nbytes = property(lambda self: 1 << 40)
    size = property(lambda self: 1 << 30)
    strides = property(lambda self: (8,))
    flags = property(lambda self: types.SimpleNamespace(writeable=True, aligned=True, c_contiguous=True))


class Number(enum.IntEnum):
    TWO = 2


class StrangeFloat(float):
    def __float__(self):
        return 99.0

    def __mul__(self, other):
        return fail()


def liar(d):
    return d.x.copy().view(Liar)


def interface(**changes):
    """Return an object that describes memory, wrongly."""
    right = {"shape": (2,), "typestr": "<f8", "data": bytearray(16), "version": 3}
    return having(__array_interface__={**right, **changes})


X_VALUES = {
    "None": None,
    "Ellipsis": ...,
    "str": "1.0",
    "empty str": "",
    "bytes": b"1",
    "set": {1.0, 2.0},
    "frozenset": frozenset([1.0]),
    "dict": {"x": 1.0},
    "dict view": {1.0: 2}.keys(),
    "generator": (k for k in range(3)),
    "iterator": iter([1.0]),
    "map": map(float, [1]),
    "deque of str": collections.deque(["a"]),
    "class": float,
    "function": len,
    "module": np,
    "object": object(),
    "NotImplemented": NotImplemented,
    "slice": slice(3),
    "Decimal": decimal.Decimal("1.5"),
    "Fraction": fractions.Fraction(1, 3),
    "date": datetime.date(2000, 1, 1),
    "complex": 1j,
    "numpy.str_": np.str_("1"),
    "numpy.bytes_": np.bytes_(b"1"),
    "numpy.datetime64": np.datetime64("2000-01-01"),
    "numpy.timedelta64": np.timedelta64(3, "s"),
    "numpy.void": np.void(b"abcd"),
    "numpy.complex64": np.complex64(1),
    "ragged list": [[1.0], [2.0, 3.0]],
    "ragged deeper": [[[1.0]], [[2.0], 3.0]],
    "recursive list": recursive(),
    "list of 100 axes": nested(99),
    "list with None": [1.0, None],
    "list with str": [1.0, "a"],
    "list with set": [{1.0}],
    "list of dicts": [{}, {}],
    "list of huge ints": [10**30, 1],
    "list of complex": [1j, 2.0],
    "list of arrays that differ": [np.ones(2), np.ones(3)],
    "structured": np.zeros(3, [("a", "f4"), ("b", "i2")]),
    "record": np.rec.array([(1.0, 2)], dtype=[("a", "f4"), ("b", "i2")]),
    "one field of structure": np.zeros(3, [("a", "f4", (2,))]),
    "object array": np.array([1.0, 2.0], object),
    "object array of arrays": np.array([np.ones(2), None], object),
    "unicode array": np.array(["a", "b"]),
    "bytes array": np.array([b"a", b"b"]),
    "StringDType": np.array(["a", "b"], np.dtypes.StringDType()),
    "datetime array": np.zeros(3, "M8[s]"),
    "timedelta array": np.zeros(3, "m8[s]"),
    "complex64 array": np.zeros(3, "F"),
    "complex256 array": np.zeros(3, "G"),
    "longdouble array": np.zeros(3, "g"),
    "void array": np.zeros(3, "V7"),
    "empty structured": np.zeros(0, [("a", "f4")]),
    "__array__ gives a list": having(__array__=constant([1.0, 2.0])),
    "__array__ gives None": having(__array__=constant(None)),
    "__array__ gives objects": having(__array__=constant(np.array([None]))),
    "__array__ gives text": having(__array__=constant(np.array(["a"]))),
    "__array__ is no function": having(__array__=5),
    "__array__ fails": having(__array__=fail),
    "__array_interface__ is None": having(__array_interface__=None),
    "__array_interface__ is a list": having(__array_interface__=[]),
    "__array_interface__ is empty": having(__array_interface__={}),
    "__array_interface__ of a negative shape": interface(shape=(-2,)),
    "__array_interface__ of a float shape": interface(shape=(2.0,)),
    "__array_interface__ of no type": interface(typestr="nonsense"),
    "__array_interface__ of objects": interface(typestr="|O8"),
    "__array_interface__ of wrong strides": interface(strides=(8, 8)),
    "__array_interface__ of a huge shape": interface(shape=(1 << 62, 8)),
    "__array_struct__ is a number": having(__array_struct__=5),
    "__cuda_array_interface__ is None": having(__cuda_array_interface__=None),
    "__cuda_array_interface__ is nonsense": having(__cuda_array_interface__={"shape": "?", "typestr": 3}),
    "__cuda_array_interface__ of host memory": having(
        __cuda_array_interface__={"shape": (2,), "typestr": "<f8", "data": (0, False), "version": 3}
    ),
    "__cuda_array_interface__ fails": having(__cuda_array_interface__=property(fail)),
    "__cuda_ndarray__": having(__cuda_ndarray__=True),
    "__dlpack__ is a number": having(__dlpack__=5, __dlpack_device__=constant((1, 0))),
    "__dlpack__ fails": having(__dlpack__=fail, __dlpack_device__=constant((1, 0))),
    "__dlpack__ of a GPU that is not there": having(__dlpack__=fail, __dlpack_device__=constant((2, 0))),
    "__dlpack_device__ is empty": having(__dlpack__=fail, __dlpack_device__=constant(())),
    "__dlpack_device__ is None": having(__dlpack__=fail, __dlpack_device__=constant(None)),
    "__dlpack_device__ is text": having(__dlpack__=fail, __dlpack_device__=constant("cuda")),
    "__dlpack_device__ fails": having(__dlpack__=fail, __dlpack_device__=fail),
    "__array_namespace__ alone": having(__array_namespace__=constant(np)),
    "__array_ufunc__ is None": having(__array_ufunc__=None),
    "__array_ufunc__ is a number": having(__array_ufunc__=5),
    "__array_ufunc__ declines": having(__array_ufunc__=constant(NotImplemented)),
    "__array_ufunc__ fails": having(__array_ufunc__=fail),
    "__len__ is huge": having(__len__=constant(1 << 62), __getitem__=fail),
    "__len__ is negative": having(__len__=constant(-1), __getitem__=constant(1.0)),
    "__getitem__ fails": having(__len__=constant(3), __getitem__=fail),
    "__getattr__ fails": having(__getattr__=fail),
    "__getattr__ gives anything": having(__getattr__=lambda self, name: self),
    "__class__ is ndarray": having(__class__=property(constant(np.ndarray))),
    "__class__ is float": having(__class__=property(constant(float))),
    "__class__ fails": having(__class__=property(fail)),
}
#: What a refusal may be; others, such as OverflowError, IndexError or AttributeError, come from inside.
ERRORS = (TypeError, ValueError, RuntimeError, MemoryError)


def refused(d, call, bad=None):
    """Assert that a call is refused, with a message that names something or is NumPy's own, and changes nothing."""
    before = d.bytes()
    with pytest.raises(ERRORS) as caught:
        call()
    message = str(caught.value)
    if not NAMES.search(message):
        with pytest.raises(type(caught.value), match=f"^{re.escape(message)}$"):
            np.absolute(bad)
    assert d.bytes() == before


@pytest.mark.parametrize("label", X_VALUES)
def test_x(label):
    """Whatever is no array of numbers, as the data of an operation, in place, and as a raw ufunc's operand."""
    d, bad = Data(), X_VALUES[label]
    refused(d, lambda: F.relu(bad), bad)
    refused(d, lambda: F.relu_backward(d.x, bad, out=d.out), bad)
    refused(d, lambda: F.leaky_relu_backward_(d.x, bad), bad)
    if label not in ("__array_ufunc__ fails", "__array_ufunc__ is a number"):
        refused(d, lambda: F.leaky_relu_(bad), bad)


def test_int_beyond_all_floats():
    """An OverflowError, which is what NumPy's own ufuncs raise."""
    d, before = Data(), Data().bytes()
    for call in (
        lambda: np.multiply(d.x, 10**400),
        lambda: F.leaky_relu(d.x, 10**400),
        lambda: F.relu_grad_(d.x, 10**400),
    ):
        with pytest.raises(OverflowError, match="too large to convert to float"):
            call()
    assert d.bytes() == before


@pytest.mark.parametrize("label", X_VALUES)
def test_parameter(label):
    """The same things as a slope, and as the value at zero."""
    d, bad = Data(), X_VALUES[label]
    refused(d, lambda: F.leaky_relu(d.x, bad, out=d.out), bad)
    refused(d, lambda: F.relu_grad_(d.x, bad), bad)
    if bad is not None:
        refused(d, lambda: F.leaky_relu_backward_(d.x, d.y, 0.5, at_zero=bad), bad)


NOT_OUT = [label for label in X_VALUES if label not in ("None", "__array_ufunc__ fails", "__array_ufunc__ is a number")]


@pytest.mark.parametrize("label", NOT_OUT)
def test_out(label):
    d, bad = Data(), X_VALUES[label]
    refused(d, lambda: F.relu(d.x, out=bad), bad)
    refused(d, lambda: F.leaky_relu(d.x[:, ::2], 0.5, out=bad), bad)


#: Wrong calls on arrays that are right, by label.
REFUSED = {
    # shapes
    "out is too small": lambda d: F.relu(d.x, out=d.out[:1]),
    "out is too large": lambda d: F.relu(d.x, out=d.wide),
    "out has fewer axes": lambda d: F.relu(d.x, out=d.out[0]),
    "out is 0-d": lambda d: F.relu(d.x, out=np.zeros((), np.float32)),
    "out is empty": lambda d: F.relu(d.x, out=d.out[:0]),
    "x is empty, out is not": lambda d: F.relu(d.x[:0], out=d.out),
    "grad and x do not fit": lambda d: F.relu_backward(d.x, d.wide),
    "grad and x do not fit, turned": lambda d: F.relu_backward(d.x, d.y.T, out=d.out),
    "slopes do not fit": lambda d: F.leaky_relu(d.x, d.wide),
    "slopes would enlarge x": lambda d: F.leaky_relu_(d.x, np.ones((4, 2, 3))),
    "ragged slopes": lambda d: F.leaky_relu(d.x, [[1.0], [2.0, 3.0]]),
    "where does not fit": lambda d: F.relu(d.x, out=d.out, where=np.ones(4, bool)),
    "where would enlarge x": lambda d: F.relu_(d.x, where=np.ones((2, 2, 3), bool)),
    # outputs
    "out is read-only": lambda d: F.relu(d.x, out=d.frozen),
    "out is a read-only view": lambda d: F.relu(d.x, out=np.broadcast_to(np.float32(0), (2, 3))),
    "read-only in place": lambda d: F.leaky_relu_(d.frozen, 0.5),
    "bytes in place": lambda d: F.relu_(np.frombuffer(b"12345678", np.float32)),
    "out is of integers": lambda d: F.relu(d.x, out=d.ints),
    "out is of bool": lambda d: F.relu(d.x, out=d.mask),
    "integers in place": lambda d: F.leaky_relu_(d.ints, 0.5),
    "bool in place": lambda d: F.relu_grad_(d.mask),
    "strong slope in place": lambda d: F.relu_backward_(d.ints, d.x),
    "out is of complex": lambda d: F.relu(d.x, out=np.zeros((2, 3), complex), casting="no"),
    "out is a pair": lambda d: F.relu(d.x, out=(d.out, d.out)),
    "out is an empty tuple": lambda d: F.relu(d.x, out=()),
    "out is a tuple of a list": lambda d: F.relu(d.x, out=([1.0],)),
    "out is a list of an array": lambda d: F.relu(d.x, out=[d.out]),
    "out of a twin": lambda d: F.relu_(d.x, out=d.out),
    "out of a twin is None": lambda d: F.relu_(d.x, out=None),
    "out given twice to a ufunc": lambda d: ufuncs.relu(d.x, d.out, out=d.out),
    # keywords
    "unknown keyword": lambda d: F.relu(d.x, nonsense=1),
    "inplace as in PyTorch": lambda d: F.leaky_relu(d.x, inplace=True),
    "x by name": lambda d: F.relu(x=d.x),
    "axis": lambda d: F.relu(d.x, axis=0),
    "keepdims": lambda d: F.relu(d.x, keepdims=True),
    "negative_slope twice": lambda d: F.leaky_relu(d.x, 0.5, negative_slope=0.5),
    "slope of relu": lambda d: F.relu(d.x, negative_slope=0.5),
    "out by place": lambda d: F.relu(d.x, d.out),
    "no argument": lambda d: F.relu(),
    "no x": lambda d: F.relu_backward(d.x),
    "keywords that are no names": lambda d: F.relu(d.x, **{"": 1}),
    "where is of integers": lambda d: F.relu(d.x, out=d.out, where=d.ints),
    "where is of floats": lambda d: F.relu(d.x, out=d.out, where=d.y),
    "where is an object": lambda d: F.relu(d.x, out=d.out, where=np.array([object()] * 3)),
    "where is ragged": lambda d: F.relu(d.x, out=d.out, where=[[True], [False, True]]),
    "casting is unknown": lambda d: F.relu(d.x, casting="careless"),
    "casting is a number": lambda d: F.relu(d.x, casting=4),
    "casting is None": lambda d: F.relu(d.x, casting=None),
    "order is unknown": lambda d: F.relu(d.x, order="Z"),
    "order is long": lambda d: F.relu(d.x, order="CF"),
    "order is a number": lambda d: F.relu(d.x, order=0),
    "subok is an array": lambda d: F.relu(d.x, subok=d.x),
    "dtype is unknown": lambda d: F.relu(d.x, dtype="float99"),
    "dtype is an object": lambda d: F.relu(d.x, dtype=object()),
    "dtype has no loop": lambda d: F.relu(d.x, dtype=complex),
    "dtype is object": lambda d: F.relu(d.x, dtype=object),
    "dtype is longdouble": lambda d: F.leaky_relu(d.x, dtype=np.longdouble),
    "dtype is structured": lambda d: F.relu(d.x, dtype=[("a", "f4")]),
    "dtype is of integers": lambda d: F.relu(d.x, dtype=np.int32),
    "dtype is too narrow": lambda d: F.relu(d.x, dtype=np.float16, casting="safe"),
    "dtype and signature": lambda d: F.relu(d.x, dtype="f4", signature="f->f"),
    "signature is unknown": lambda d: F.relu(d.x, signature="q->e"),
    "signature of two": lambda d: F.relu(d.x, signature="ff->f"),
    "signature is torn": lambda d: F.relu(d.x, signature="f->"),
    "signature is a number": lambda d: F.relu(d.x, signature=7),
    "signature is a short tuple": lambda d: F.leaky_relu(d.x, signature=("f", "f")),
    "casting is no, types differ": lambda d: F.leaky_relu(d.x, np.float64(0.5), casting="no"),
    "casting is no, bytes are swapped": lambda d: F.relu(d.x.astype(">f4"), casting="no"),
    # targets
    "target is unknown": lambda d: F.relu(d.x, target="tpu"),
    "target is an array": lambda d: F.relu(d.x, target=d.x),
    "target is a list": lambda d: F.relu_(d.x, target=["serial"]),
    "target is of bytes": lambda d: F.relu(d.x, target=b"serial"),
    "target is an object": lambda d: F.relu(d.x, target=object()),
    "target has blanks": lambda d: F.relu(d.x, target=" serial"),
    # parameters
    "slope cannot be told": lambda d: F.leaky_relu(d.x, np.array(["0.5"])),
    "slope is longdouble": lambda d: F.leaky_relu(d.x, np.longdouble(0.5)),
    "slope of a raw ufunc is None": lambda d: ufuncs.leaky_relu(d.x, None),
    "raw ufunc without slope": lambda d: ufuncs.leaky_relu(d.x),
    "raw ufunc with too much": lambda d: ufuncs.relu(d.x, d.out, d.out, d.out),
    "reduce of one operand": lambda d: ufuncs.relu.reduce(d.x),
    "accumulate of three": lambda d: ufuncs.leaky_relu_grad.accumulate(d.x),
    "outer of four": lambda d: ufuncs.leaky_relu_backward.outer(d.x, d.y),
    "reduce over no axis": lambda d: ufuncs.leaky_relu.reduce(d.x, axis=7),
    # subclasses
    "subclass that fails to finalize": lambda d: F.relu(d.x.view(FailsToFinalize)[:]),
    "subclass that fails as ufunc": lambda d: F.relu(d.x.view(FailsAsUfunc)),
    "subclass that fails as ufunc, in place": lambda d: F.relu_(d.x.view(FailsAsUfunc)),
    "subclass that fails as out": lambda d: F.relu(d.x, out=d.out.view(FailsAsUfunc)),
    "subclass that fails as slope": lambda d: F.leaky_relu(d.x, d.y.view(FailsAsUfunc), out=d.out),
    "subclass that fails to wrap": lambda d: F.relu(d.x.view(FailsToWrap)),
    "subclass that declines": lambda d: F.relu(d.x.view(Declines)),
    # around the functions
    "explain of another function": lambda d: F.explain(np.sin, d.x),
    "explain of text": lambda d: F.explain("relu", d.x),
    "explain without x": lambda d: F.explain(F.relu),
    "explain of a wrong shape": lambda d: F.explain(F.relu, "text"),
    "configure by place": lambda d: F.configure("serial"),
    "configure of text": lambda d: F.configure(parallel_min_bytes="1"),
    "configure of a float": lambda d: F.configure(streaming_min_bytes=1e6),
    "configure of a negative": lambda d: F.configure(streaming_min_bytes=-1),
    "configure of bool": lambda d: F.configure(parallel_min_bytes=True),
    "configure of another target": lambda d: F.configure(target="gpu"),
    "warmup of a number": lambda d: F.warmup([5]),
    "warmup of another function": lambda d: F.warmup([np.sin]),
    "warmup of another type": lambda d: F.warmup([F.relu], ["complex64"]),
}


@pytest.mark.parametrize("label", REFUSED)
def test_refused(label):
    d = Data()
    refused(d, lambda: REFUSED[label](d))


def wanted(name, *operands, dtype=np.float32):
    return expected(name, operands, dtype)


def window(d):
    """Return a writable array whose elements all are one in memory."""
    return as_strided(d.raw[:4].view(np.float32), (2, 3), (0, 0))


def through_window(call):
    """Return the one element that a function leaves behind in such an array."""

    def run(d):
        call(window(d))
        return d.raw[:4].view(np.float32).copy()

    return run


#: Strange calls that NumPy computes: what fastrelu gives, and what it must be.
COMPUTED = {
    "int": (lambda d: F.relu(-3), lambda d: np.int64(0)),
    "bool": (lambda d: F.leaky_relu(True), lambda d: np.float64(1.0)),
    "range": (lambda d: F.relu(range(-2, 3)), lambda d: np.array([0, 0, 0, 1, 2])),
    "bytearray": (lambda d: F.relu(bytearray(b"ab")), lambda d: np.array([97, 98], np.uint8)),
    "memoryview": (lambda d: F.relu(memoryview(d.x)), lambda d: wanted("relu", d.x)),
    "array.array": (lambda d: F.relu(array.array("d", [-1, 2])), lambda d: np.array([0.0, 2.0])),
    "deque": (lambda d: F.relu(collections.deque([-1.0, 2.0])), lambda d: np.array([0.0, 2.0])),
    "empty list": (lambda d: F.relu([]), lambda d: np.array([])),
    "empty tuple of tuples": (lambda d: F.leaky_relu(((), ())), lambda d: np.zeros((2, 0))),
    "__array__": (lambda d: F.relu(having(__array__=constant(d.x))), lambda d: wanted("relu", d.x)),
    "__array_interface__": (lambda d: F.relu(interface()), lambda d: np.zeros(2)),
    "__len__ and __getitem__": (
        lambda d: F.relu(having(__len__=constant(2), __getitem__=lambda self, k: [-1.0, 2.0][k])),
        lambda d: np.array([0.0, 2.0]),
    ),
    "tuple of None as out": (lambda d: F.relu(d.x, out=(None,)), lambda d: wanted("relu", d.x)),
    "tuple as out": (lambda d: F.relu(d.x, out=(d.out,)), lambda d: wanted("relu", d.x)),
    "larger out": (
        lambda d: F.relu(d.x, out=np.zeros((4, 2, 3), np.float32)),
        lambda d: np.broadcast_to(wanted("relu", d.x), (4, 2, 3)),
    ),
    "narrower out": (
        lambda d: F.relu(d.x, out=np.zeros((2, 3), np.float16)),
        lambda d: wanted("relu", d.x).astype(np.float16),
    ),
    "narrower and larger out": (
        lambda d: F.leaky_relu(d.ints, 0.5, out=np.zeros((4, 2, 3), np.float16)),
        lambda d: np.broadcast_to(wanted("leaky_relu", d.ints, 0.5), (4, 2, 3)).astype(np.float16),
    ),
    "swapped out": (
        lambda d: F.relu(d.x, out=np.zeros((2, 3), ">f4")).astype("f4"),
        lambda d: wanted("relu", d.x),
    ),
    "swapped in place": (lambda d: F.relu_(d.x.astype(">f4")).astype("f4"), lambda d: wanted("relu", d.x)),
    "complex out": (
        lambda d: F.relu(d.y, out=np.zeros((2, 3), np.complex64)).real,
        lambda d: wanted("relu", d.y),
    ),
    "where is None": (lambda d: F.relu(d.x, out=d.out, where=None), lambda d: np.full((2, 3), 42, np.float32)),
    "where is a number": (lambda d: F.relu(d.x, out=d.out, where=1), lambda d: wanted("relu", d.x)),
    "where is a list": (
        lambda d: F.relu(d.x, out=d.out, where=[True, False, True]),
        lambda d: np.where([True, False, True], wanted("relu", d.x), np.float32(42)),
    ),
    "huge int as slope": (lambda d: F.leaky_relu(d.x, 10**30), lambda d: wanted("leaky_relu", d.x, 1e30)),
    "huge float as slope": (lambda d: F.leaky_relu(d.x, 1e300), lambda d: wanted("leaky_relu", d.x, np.inf)),
    "tiny float as slope": (lambda d: F.leaky_relu(d.x, 5e-324), lambda d: wanted("leaky_relu", d.x, 0.0)),
    "infinite slope": (lambda d: F.leaky_relu(d.x, -np.inf), lambda d: wanted("leaky_relu", d.x, -np.inf)),
    "NaN as slope": (lambda d: F.leaky_relu(d.x, float("nan")), lambda d: wanted("leaky_relu", d.x, np.nan)),
    "NaN in place": (lambda d: F.leaky_relu_(d.x, np.nan), lambda d: wanted("leaky_relu", Data().x, np.nan)),
    "empty slopes": (lambda d: F.leaky_relu(d.x[:, :0], np.zeros(0, "f4")), lambda d: np.zeros((2, 0), "f4")),
    # NumPy promotes subclasses of numbers as it does NumPy scalars: to float64
    "IntEnum as slope": (
        lambda d: F.leaky_relu(d.x, Number.TWO),
        lambda d: wanted("leaky_relu", d.x.astype("f8"), 2.0, dtype=np.float64),
    ),
    "float that lies": (
        lambda d: F.leaky_relu(d.x, StrangeFloat(0.5)),
        lambda d: wanted("leaky_relu", d.x.astype("f8"), 99.0, dtype=np.float64),
    ),
    "int that is bool": (lambda d: F.leaky_relu(d.x, True), lambda d: wanted("leaky_relu", d.x, 1.0)),
    "array that lies": (lambda d: np.asarray(F.relu(liar(d))), lambda d: wanted("relu", d.x)),
    "array that lies, in place": (lambda d: np.asarray(F.relu_(liar(d))), lambda d: wanted("relu", d.x)),
    "array that lies, as slope": (
        lambda d: np.asarray(F.leaky_relu(d.x, liar(d))),
        lambda d: wanted("leaky_relu", d.x, d.x),
    ),
    "array that lies, as out": (
        lambda d: np.asarray(F.relu(d.x, out=liar(d))),
        lambda d: wanted("relu", d.x),
    ),
    "dtype with metadata": (
        lambda d: F.leaky_relu(d.x.astype(np.dtype("f4", metadata={"a": 1})), 0.5).astype("f4"),
        lambda d: wanted("leaky_relu", d.x, 0.5),
    ),
    "masked array": (lambda d: F.relu(np.ma.masked_array(d.x)).data, lambda d: wanted("relu", d.x)),
    "where is text": (lambda d: F.relu(d.x, out=d.out, where="yes"), lambda d: wanted("relu", d.x)),
    "64 axes and a keyword": (
        lambda d: F.relu(d.x.reshape((1,) * 62 + (2, 3)), casting="no").reshape(2, 3),
        lambda d: wanted("relu", d.x),
    ),
    "empty out for a column": (
        lambda d: F.relu(np.resize(d.x, (9, 2))[:, :1], out=np.zeros((9, 0), np.float32)),
        lambda d: np.zeros((9, 0), np.float32),
    ),
    "64 axes": (
        lambda d: F.leaky_relu(d.x.reshape((1,) * 62 + (2, 3)).T, 0.5).T.reshape(2, 3),
        lambda d: wanted("leaky_relu", d.x, 0.5),
    ),
    "40 axes that do not join": (
        lambda d: F.leaky_relu(np.resize(d.x, (2,) * 12 + (1,) * 28)[..., ::-1].T, 0.5).T.ravel(),
        lambda d: wanted("leaky_relu", np.resize(d.x, 2**12), 0.5),
    ),
    "strides between elements": (
        lambda d: F.relu(as_strided(d.raw, (2, 3), (7, 2)).view(np.int8)),
        lambda d: np.zeros((2, 3), np.int8),
    ),
    "windows as input": (
        lambda d: F.leaky_relu(np.lib.stride_tricks.sliding_window_view(d.x, 2, axis=1), 0.5),
        lambda d: wanted("leaky_relu", np.lib.stride_tricks.sliding_window_view(d.x, 2, axis=1), 0.5),
    ),
    "zero strides in place": (
        through_window(lambda out: F.leaky_relu_(out, 2.0)),
        through_window(lambda out: np.multiply(out, 2.0, out=out)),
    ),
    "out of zero strides": (
        lambda d: through_window(lambda out: F.relu(d.ints.astype("f4"), out=out))(d),
        lambda d: through_window(lambda out: np.maximum(d.ints.astype("f4"), np.float32(0), out=out))(d),
    ),
    "reduce": (
        lambda d: ufuncs.leaky_relu.reduce(d.y[:, :2], axis=1),
        lambda d: wanted("leaky_relu", d.y[:, 0], d.y[:, 1]),
    ),
    "huge thresholds": (
        lambda d: (F.configure(parallel_min_bytes=1 << 200).__exit__(None, None, None), F.relu(d.x))[1],
        lambda d: wanted("relu", d.x),
    ),
}


@pytest.mark.parametrize("label", COMPUTED)
def test_computed(label):
    call, right = COMPUTED[label]
    d = Data()
    with np.errstate(all="raise"):
        result = call(d)
    reference = right(Data())
    assert type(result) is type(reference)
    assert_same(result, reference, label)
    before = Data().bytes()
    changed = {name for name, value in d.bytes().items() if value != before[name]}
    allowed = {
        "raw": label.endswith("zero strides") or label.startswith("zero"),
        "out": d.out is result,
        "x": d.x is result,
    }
    assert changed <= {name for name, may in allowed.items() if may}


#: What may end a process, or fill its memory, is tried in another one.
FATAL = {
    "a Python number under casting='equiv'": """
        x = np.array([-1.0, 2.0], np.float32)
        for call in (lambda: np.heaviside(x, 0.5, casting="equiv"), lambda: F.leaky_relu(x, 0.5, casting="equiv"),
                     lambda: F.relu_grad_(x, 0, casting="equiv"), lambda: F.explain(F.leaky_relu, x, casting="equiv")):
            try:
                call()
            except TypeError as error:
                assert "equiv" in str(error), error
        assert x.tolist() == [-1, 2]
        """,
    "more elements than memory": """
        one = np.array([-1.0], np.float32)
        row, column = np.broadcast_to(one, (1, 1 << 40)), np.broadcast_to(one, (1 << 40, 1))
        huge = np.broadcast_to(one, 1 << 50)
        for target in (None, "serial", "parallel"):
            for call in (lambda: F.relu(huge, target=target), lambda: F.leaky_relu(huge, 0.5, target=target),
                         lambda: F.relu(np.broadcast_to(one, (1 << 20, 1 << 20, 1 << 10)), target=target),
                         lambda: F.relu_backward(row, column, target=target),
                         lambda: F.leaky_relu(row, column, target=target),
                         lambda: F.relu_grad(np.broadcast_to(np.int8(1), 1 << 50), target=target),
                         lambda: F.relu(np.broadcast_to(one.astype(">f4"), 1 << 50), target=target),
                         lambda: F.relu(huge, out=None, where=np.True_, target=target)):
                try:
                    call()
                except (MemoryError, ValueError) as error:
                    assert str(error)
                else:
                    raise AssertionError("computed")
            for call in (lambda: F.relu(huge, out=np.zeros(3, "f4"), target=target),
                         lambda: F.relu_(huge, target=target)):
                try:
                    call()
                except ValueError as error:
                    assert "shape" in str(error) or "read-only" in str(error) or "broadcast" in str(error), error
                else:
                    raise AssertionError("computed")
        for array in (huge, row):
            str(F.explain(F.relu, array))
        """,
    "no memory for the result": """
        import resource
        x = np.full((1000, 30_000), -1.0)
        with F.configure(parallel_min_bytes=1):
            F.relu(x[:10]), F.relu(x[:10].T), F.leaky_relu(x[:10].astype("f4").T, 0.5), F.relu(x[:, ::9])
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20), hard))
            for call in (lambda: F.relu(x), lambda: F.leaky_relu(x.T, 0.5), lambda: F.relu(x[:, ::-1]),
                         lambda: F.relu(x[::-1], out=x), lambda: F.relu_backward(x, x[::-1]),
                         lambda: F.relu(x.astype("f4"))):
                try:
                    call()
                except MemoryError as error:
                    pass
                else:
                    raise AssertionError("computed")
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            assert (x == -1).all() and (F.relu_(x[::-1]) == 0).all() and (x == 0).all()
        """,
    "as deep as the stack": """
        import sys
        x = np.array([-1.0, 2.0])
        def down(depth):
            assert F.relu(x).tolist() == [0, 2] and F.leaky_relu(x, -1).tolist() == [1, 2]
            down(depth + 1)
        for _ in range(3):
            try:
                down(0)
            except RecursionError:
                pass
        assert F.relu(x).tolist() == [0, 2]
        """,
    "deeply nested and recursive lists": """
        deep = [1.0]
        for _ in range(100_000):
            deep = [deep]
        loop = []
        loop.append(loop)
        for bad in (deep, loop, [loop, loop]):
            for call in (lambda: F.relu(bad), lambda: F.leaky_relu(np.zeros(2), bad)):
                try:
                    call()
                except (ValueError, TypeError, RecursionError) as error:
                    pass
                else:
                    raise AssertionError("computed")
        while type(deep) is list:  # freeing it at once would recurse in some versions of Python
            deep = deep[0]
        """,
    "an array that another one resizes": """
        class Resizes(np.ndarray):
            def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
                base.resize(1, refcheck=False)
                return ufunc(*(np.zeros(1) for _ in inputs))
        base = np.zeros(100_000)
        F.leaky_relu(base, np.zeros(1).view(Resizes))
        """,
    "arguments that change under us": """
        import threading
        x, out = np.full((500, 500), -1.0), np.zeros((500, 500))
        stop = []
        def meddle():
            while not stop:
                x.flags.writeable = not x.flags.writeable
                F.configure(parallel_min_bytes=len(stop), streaming_min_bytes=0)
                F.configure(parallel_min_bytes=1 << 30, streaming_min_bytes=1 << 30)
        thread = threading.Thread(target=meddle)
        thread.start()
        for _ in range(20):
            assert (F.relu(x.T, out=out) == 0).all() and (F.leaky_relu(x, -1.0) == 1).all()
        stop.append(1)
        thread.join()
        """,
    "a garbage collector that runs at every step": """
        import gc
        gc.set_threshold(1, 1, 1)
        x = np.array([[-1.0, 2.0]] * 100)
        for _ in range(20):
            assert (F.relu(x) == [0, 2]).all() and (F.relu(x.T) == [[0], [2]]).all()
            assert (F.leaky_relu_(x.astype("f2"), 0.5, where=x < 0) == [-0.5, 2]).all()
        """,
}


@pytest.mark.slow
@pytest.mark.parametrize("label", FATAL)
def test_fatal(label, request):
    if "as it is" not in request.node.name:
        pytest.skip("once is enough for a process of its own")
    run_python("import numpy as np\nimport fastrelu as F\n" + textwrap.dedent(FATAL[label]), timeout=300)


def test_enough_kinds():
    assert len(set(itertools.chain(X_VALUES, REFUSED, COMPUTED, FATAL))) > 200
