"""What a wrong call is told: every public function, every argument, and all that people pass by mistake.

A new function is met here without being named: its arguments are those of its signature, and an argument that no table
below knows fails the test.
"""

import contextlib
import datetime
import decimal
import fractions
import inspect
import types

import numpy as np
import pytest

import fastrelu
from fastrelu._operations import FLOATS, ROWS

FUNCTIONS = [
    name
    for name in fastrelu.__all__
    if isinstance(getattr(fastrelu, name), (types.FunctionType, types.BuiltinFunctionType))
    and "target" in inspect.signature(getattr(fastrelu, name)).parameters
    and name != "configure"
]
SHAPE = (4, 3)


def good(argument):
    """Return a right value of an argument, new each time."""
    values = {
        "x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(SHAPE),
        "grad": np.ones(SHAPE, np.float32),
        "mask": np.zeros(2, np.uint8),
        "counts": np.zeros(3, np.int64),
    }
    return values[argument]


def read_only(value):
    value = value.copy()
    value.flags.writeable = False
    return value


def result(name, dtype=None):
    """Return an array of the shape and type of what a function returns first."""
    if name == "count_active":
        return np.zeros(3, dtype or np.int64)
    return np.zeros(() if name == "leaky_relu_slope_grad" else SHAPE, dtype or np.float32)


#: For each argument: a label, a function that makes a wrong value, the error, and words that the message must have
#: beside the function's name and the argument's.
NOT_DATA = [
    ("None", lambda: None, TypeError, "NoneType"),
    ("set", lambda: {1.0}, TypeError, "set"),
    ("dict", lambda: {"a": 1.0}, TypeError, "dict"),
    ("generator", lambda: (k for k in range(3)), TypeError, "generator"),
    ("iterator", lambda: iter([1.0]), TypeError, "list_iterator"),
    ("str", lambda: "1.0", TypeError, "str"),
    ("bytes", lambda: b"1", TypeError, "bytes"),
    ("complex", lambda: 1j, TypeError, "complex"),
    ("Decimal", lambda: decimal.Decimal(1), TypeError, "decimal.Decimal"),
    ("Fraction", lambda: fractions.Fraction(1, 3), TypeError, "fractions.Fraction"),
    ("date", lambda: datetime.date(2000, 1, 1), TypeError, "datetime.date"),
    ("dtype", lambda: np.float32, TypeError, "type"),
    ("list of None", lambda: [1.0, None], TypeError, "list"),
    ("list of str", lambda: ["a", "b"], TypeError, "list"),
    ("list of huge ints", lambda: [10**30, 1], TypeError, "list"),
    ("objects", lambda: np.array([1.0, None]), TypeError, "numpy.ndarray of dtype object"),
    ("text", lambda: np.array(["a", "b"]), TypeError, "numpy.ndarray of dtype <U1"),
    ("times", lambda: np.zeros(SHAPE, "M8[s]"), TypeError, "numpy.ndarray of dtype datetime64[s]"),
    ("complex array", lambda: np.zeros(SHAPE, "F"), TypeError, "numpy.ndarray of dtype complex64"),
    ("complex scalar", lambda: np.complex64(1), TypeError, "numpy.complex64"),
    ("structured", lambda: np.zeros(3, [("a", "f4")]), TypeError, "numpy.ndarray of dtype [('a', '<f4')]"),
]
RAGGED = [("ragged", lambda: [[1.0], [2.0, 3.0]], ValueError, "list inhomogeneous")]
MISFIT = [("wrong length", lambda: np.ones(5, np.float32), ValueError, "(5,)")]
PER_ROW = [("one per row", lambda: np.ones(4, np.float32), ValueError, "(4,) .reshape(-1, 1)")]
NO_ARRAY = [
    ("list", lambda: [0.0, 1.0], TypeError, "list"),
    ("tuple of two", lambda: (np.zeros(SHAPE), None), TypeError, "tuple"),
    ("str", lambda: "out", TypeError, "str"),
    ("number", lambda: 3.0, TypeError, "float"),
    ("numpy.float64", lambda: np.float64(1), TypeError, "numpy.float64"),
]
BAD = {
    "x": [*NOT_DATA, *RAGGED],
    "grad": [*NOT_DATA, *RAGGED],
    "negative_slope": [*NOT_DATA, *RAGGED, *MISFIT, *PER_ROW],
    "at_zero": [*NOT_DATA[1:], *RAGGED, *MISFIT, *PER_ROW],
    "mask": [
        ("None", lambda: None, TypeError, "NoneType"),
        ("list", lambda: [0, 1], TypeError, "list uint8"),
        ("int8", lambda: np.zeros(2, np.int8), TypeError, "int8 uint8"),
        ("bool", lambda: np.zeros(SHAPE, bool), TypeError, "bool uint8"),
        ("length", lambda: np.zeros(3, np.uint8), ValueError, "3 2"),
    ],
    "counts": [
        ("None", lambda: None, TypeError, "NoneType"),
        ("list", lambda: [0, 0, 0], TypeError, "list"),
        ("int32", lambda: np.zeros(3, np.int32), TypeError, "int64 int32"),
        ("floats", lambda: np.zeros(3), TypeError, "int64 float64"),
        ("shape", lambda: np.zeros(4, np.int64), ValueError, "(4,) (3,)"),
        ("read-only", lambda: read_only(np.zeros(3, np.int64)), ValueError, "read-only"),
    ],
    "out": [
        *NO_ARRAY,
        ("shape", lambda: np.zeros((5, 5)), ValueError, "(5, 5)"),
        ("read-only", lambda name: read_only(result(name)), ValueError, "read-only"),
        ("times", lambda name: result(name, "m8[s]"), TypeError, "timedelta64[s]"),
    ],
    "mask_out": [
        *NO_ARRAY[:3],
        ("int8", lambda: np.zeros(2, np.int8), TypeError, "int8 uint8"),
        ("length", lambda: np.zeros(3, np.uint8), ValueError, "3 2"),
        ("read-only", lambda: read_only(np.zeros(2, np.uint8)), ValueError, "read-only"),
    ],
    "slope_out": [
        *NO_ARRAY[:3],
        ("ints", lambda: np.zeros((), np.int64), TypeError, "int64 float32"),
        ("shape", lambda: np.zeros(3), ValueError, "(3,) ()"),
        ("read-only", lambda: read_only(np.zeros(())), ValueError, "read-only"),
    ],
    "axis": [
        ("str", lambda: "0", TypeError, "str"),
        ("float", lambda: 1.0, TypeError, "float"),
        ("too large", lambda: 2, ValueError, "2"),
    ],
    "target": [
        ("unknown", lambda: "gpu", ValueError, "gpu serial"),
        ("list", lambda: ["serial"], ValueError, "['serial'] serial"),
    ],
    "ufunc_kwargs": [],
}
KEYWORDS = {
    "where": [
        ("ints", lambda: np.ones(SHAPE, int), TypeError, "bool int64"),
        ("floats", lambda: np.ones(3), TypeError, "bool float64"),
        ("shape", lambda: np.ones(5, bool), ValueError, "(5,)"),
        ("ragged", lambda: [[True], [False, True]], ValueError, "list"),
    ],
    "dtype": [
        ("unknown", lambda: "float99", TypeError, "float99"),
        ("complex", lambda: complex, TypeError, "complex"),
        ("longdouble", lambda: "O", TypeError, "O"),
    ],
    "signature": [("unknown", lambda: "q->e", (TypeError, ValueError), "q->e"), ("number", lambda: 7, TypeError, "")],
    "casting": [("unknown", lambda: "careless", ValueError, ""), ("number", lambda: 4, TypeError, "")],
    "order": [("unknown", lambda: "Z", ValueError, ""), ("number", lambda: 0, TypeError, "")],
    "subok": [("number", lambda: 5, TypeError, "")],
}
#: Keywords that no function has, or not by name.
UNKNOWN = ("inplace", "alpha", "slope", "x", "input", "nonsense", "keepdims")


def parameters(name):
    return inspect.signature(getattr(fastrelu, name)).parameters


def call(name, **changed):
    """Call a function with right arguments, but for those given."""
    args, kwargs = [], {}
    known = parameters(name)
    for argument, each in known.items():
        if each.kind is each.POSITIONAL_ONLY:
            args.append(changed.pop(argument) if argument in changed else good(argument))
        elif argument in changed:
            kwargs[argument] = changed.pop(argument)
    return getattr(fastrelu, name)(*args, **kwargs, **changed)


def refused(name, error, words, **changed):
    # Without out=, NumPy warns of where= before it looks at it
    silenced = {"out": None} if "where" in changed and "out" in parameters(name) else {}
    with pytest.raises(error) as caught:
        call(name, **changed, **silenced)
    message = str(caught.value)
    missing = [word for word in (name, *changed, *words) if word not in message]
    assert not missing, message


def in_place(name, argument):
    return name.endswith("_") and argument == next(iter(parameters(name)))


def bad_values():
    for name in FUNCTIONS:
        for argument in parameters(name):
            cases = BAD[argument]
            if argument == "ufunc_kwargs":
                cases = [(*case, keyword) for keyword in KEYWORDS for case in KEYWORDS[keyword]]
            for label, make, error, words, *keyword in cases:
                argument = keyword[0] if keyword else argument
                error = TypeError if in_place(name, argument) else error  # a twin says first that it needs an array
                words = "" if in_place(name, argument) and "list" in words else words
                yield pytest.param(name, argument, make, error, words, id=f"{name}-{argument}-{label}")


@pytest.mark.parametrize(("name", "argument", "make", "error", "words"), list(bad_values()))
def test_bad_argument(name, argument, make, error, words):
    value = make(name) if inspect.signature(make).parameters else make()
    refused(name, error, words.split(), **{argument: value})


@pytest.mark.parametrize("keyword", UNKNOWN)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_unknown_keyword(name, keyword):
    operation = name.removesuffix("_")
    twin = f"{operation}_(" if f"{operation}_" in FUNCTIONS else "no twin"
    known = parameters(name)
    slope = "negative_slope" if "negative_slope" in known or f"leaky_{operation}" in FUNCTIONS else "accepted"
    words = {"inplace": twin, "alpha": slope, "slope": slope, "x": "positional", "input": "positional"}
    word = words.get(keyword, "accepted")
    data = [good(argument) for argument in known if known[argument].kind is inspect.Parameter.POSITIONAL_ONLY]
    data = data[1:] if keyword in known else data
    with pytest.raises(TypeError) as caught:
        getattr(fastrelu, name)(*data, **{keyword: True})
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert repr(keyword) in message
    assert word in message
    if word == "accepted":
        named = message.partition("accepted are ")[2].split(", ")
        assert set(named) <= {*known, *KEYWORDS}, message


@pytest.mark.parametrize("name", FUNCTIONS)
def test_too_few_and_too_many(name):
    function = getattr(fastrelu, name)
    for arguments in ((), [np.ones(3)] * 9):
        with pytest.raises(TypeError, match=rf"^{name}: .*; write {name}\(") as caught:
            function(*arguments)
        assert "target" in str(caught.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_data_that_do_not_broadcast(name):
    known = [argument for argument in parameters(name) if argument in ("grad", "x")]
    if len(known) < 2:
        pytest.skip("one array of data")
    refused(name, ValueError, ["(5,)", "(4, 3)" if "slope_grad" in name else "grad"], x=np.ones(5, np.float32))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.endswith("_")])
def test_a_twin_names_its_first_argument(name):
    """Where it cannot be written to: read-only, of integers, or smaller than the result."""
    first = next(iter(parameters(name)))
    refused(name, ValueError, [f"{name}: {first} is read-only"], **{first: read_only(good(first))})
    if len(ROWS[name.removesuffix("_")].typecodes) == len(FLOATS):
        ints = np.ones(SHAPE, int)
        refused(name, TypeError, [f"{name}: {first} is of dtype int64", "float64"], **{first: ints})
    if "ufunc_kwargs" in parameters(name) and "negative_slope" in parameters(name):
        with pytest.raises(ValueError, match=rf"^{name}: {first} has shape .*\(2, 4, 3\)"):
            call(name, negative_slope=np.ones((2, 1, 1), np.float32))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_target_that_is_not_here(name):
    try:
        call(name, target="cuda")
    except RuntimeError as error:
        assert str(error).startswith(f"{name}: target='cuda' is not available: ")  # noqa: PT017
    else:
        pytest.skip("there is a GPU")


def test_of_whole_numbers():
    """No integer type holds it: for relu, which keeps integers, that is an error."""
    for name in ("relu", "relu_with_mask", "count_active"):
        refused(name, TypeError, ["int", "float"], x=2**70)
    assert fastrelu.relu(2**63) == 2**63


def test_numpys_own_words_remain():
    """As the cause, and where nothing more is known."""
    with pytest.raises(ValueError, match=r"^relu: out is read-only$") as caught:
        fastrelu.relu(np.ones(3), out=read_only(np.ones(3)))
    assert "read-only" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match=r"^relu: casting must be one of"):
        fastrelu.relu(np.ones(3), casting="careless")


def test_hints():
    for call, words in [
        (lambda: fastrelu.leaky_relu(np.ones((8, 3, 4, 4)), np.ones(3)), "negative_slope.reshape(-1, 1, 1)"),
        (lambda: fastrelu.relu({1.0}), "pass a list"),
        (lambda: fastrelu.relu(decimal.Decimal(1)), "float(x)"),
        (lambda: fastrelu.relu(np.array([1.0, 2.0], object)), "x.astype(float)"),
        (lambda: fastrelu.relu_(np.ones(3), out=np.ones(3)), "relu takes out="),
    ]:
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert words in str(caught.value)


def test_sparse_matrix():
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_array([[-1.0, 2.0]])
    for name in FUNCTIONS:
        first = next(iter(parameters(name)))
        refused(name, TypeError, ["csr_array"], **{first: matrix})
    with pytest.raises(TypeError, match=r"x\.data"):
        fastrelu.relu(matrix)


def test_torch_dtype():
    torch = pytest.importorskip("torch")
    refused("relu", TypeError, ["torch.dtype"], x=torch.float32)


def test_objects_with_every_attribute():
    """They are not taken for arrays on a GPU; pandas' expressions are such, which have no hash either."""
    with contextlib.suppress(ImportError):
        import ml_dtypes  # noqa: F401  (then types are looked at)

    class Anything:
        def __getattr__(self, name):
            return self

    with pytest.raises((TypeError, ValueError), match=r"^relu: x is a .*Anything, of which NumPy makes no array"):
        fastrelu.relu(Anything())
    pandas = pytest.importorskip("pandas")
    if hasattr(pandas, "col"):
        frame = pandas.DataFrame({"a": [-1.0, 2.0]}).assign(b=fastrelu.leaky_relu(pandas.col("a"), 0.5))
        assert frame.b.tolist() == [-0.5, 2.0]


def test_explain_says_the_same():
    for arguments, options in [
        ((np.ones(3),), {"out": np.ones(4)}),
        ((np.ones(3),), {"out": read_only(np.ones(3))}),
        ((np.ones(3),), {"out": np.ones(3, int)}),
        ((np.ones(3),), {"where": np.ones(3), "out": None}),
        ((np.ones(3),), {"inplace": True}),
        (({1.0},), {}),
    ]:
        with pytest.raises((TypeError, ValueError)) as called:
            fastrelu.relu(*arguments, **options)
        with pytest.raises(type(called.value)) as explained:
            fastrelu.explain(fastrelu.relu, *arguments, **options)
        assert str(called.value) == str(explained.value)
