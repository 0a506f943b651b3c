"""The raw ufuncs are NumPy ufuncs in every respect that NumPy has."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastrelu
from fastrelu import _formulas, ufuncs
from fastrelu._bench.oracle import ORACLES, assert_same, expected
from fastrelu._operations import FUNCTIONS, ROWS, UFUNCS
from fastrelu._runtime.targets import forced

from .helpers import ALL_FLOATS, FLOATS, INTEGERS, OPERATIONS, PARAMETERS, pairs, run_python, specials, spread


def test_tables_agree():
    """One formula, one ufunc, two public functions and one oracle for each row of the table."""
    for name, row in UFUNCS.items():
        assert tuple(inspect.signature(getattr(_formulas, name).__wrapped__).parameters) == row.names
        assert getattr(ufuncs, name).nin == len(row.operands)
    assert set(ORACLES) == set(UFUNCS) == set(ufuncs.__all__)
    formulas = {key for key, value in vars(_formulas).items() if hasattr(value, "__wrapped__") and key != "vectorize"}
    assert formulas == {*(row.formula for row in ROWS.values()), "active", "positive", "slope_term"}
    for name in FUNCTIONS:
        assert getattr(fastrelu, name).__name__ == name


@pytest.mark.parametrize("name", OPERATIONS)
def test_is_a_ufunc(name):
    ufunc = getattr(ufuncs, name)
    assert type(ufunc) is np.ufunc
    assert ufunc.__name__ == name
    assert ufunc.nout == 1
    assert {"ee->e"[1 - ufunc.nin :], "f" * ufunc.nin + "->f", "d" * ufunc.nin + "->d"} <= {
        *ufunc.types,
        "ee->e"[1 - ufunc.nin :],
    }
    assert pickle.loads(pickle.dumps(ufunc)) is ufunc
    assert copy.deepcopy(ufunc) is ufunc
    assert b"fastrelu.ufuncs" in pickle.dumps(ufunc)


def test_loops_of_relu():
    kinds = {np.dtype(signature[0]) for signature in ufuncs.relu.types}
    assert kinds >= {np.dtype(dtype) for dtype in (*FLOATS, *INTEGERS, "longlong", "ulonglong")}


def test_pickles_by_name_from_any_importer(tmp_path):
    """A user's module that holds the ufunc and was imported first must not give it its name."""
    (tmp_path / "a_user.py").write_text("from fastrelu.ufuncs import relu\n")
    run_python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import a_user, pickle\n"
        "data = pickle.dumps(a_user.relu)\n"
        "assert b'fastrelu.ufuncs' in data and b'a_user' not in data, data\n"
        "assert pickle.loads(data) is a_user.relu\n"
    )


@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_stride(name, dtype):
    """Each operand scalar, contiguous or strided, in all combinations, at lengths around the vector width."""
    ufunc = getattr(ufuncs, name)
    data = pairs(name, dtype)
    for parameters in PARAMETERS[name][:2]:
        with np.errstate(all="ignore"):
            every = [*data, *(np.array(p).astype(dtype) for p in parameters)]
        for n in (1, 3, 17, 130):
            for choice in np.ndindex(*[3] * ufunc.nin):
                operands = []
                for kind, values in zip(choice, every, strict=True):
                    column = spread(np.atleast_1d(values), 3 * n)
                    operands.append([column[0], column[:n].copy(), column[::3]][kind])
                out = np.full(2 * n, 42, dtype)[::2] if sum(choice) % 2 else np.full(n, 42, dtype)
                ufunc(*operands, out)
                wanted = np.broadcast_to(expected(name, operands, dtype), n)
                assert_same(np.ascontiguousarray(out), np.ascontiguousarray(wanted), f"{choice} {n}")


def test_methods_of_binary_ufuncs():
    """`reduce`, `accumulate`, `reduceat`, `at` and `outer` feed results back into the loop, in order."""
    values = spread(specials("float32"), 50_000)  # more than two of the units that threads take
    values = values[np.isfinite(values)]

    def oracle(a, b):
        return ORACLES["leaky_relu"](float(a), float(b), dtype=np.dtype("float32"))

    wanted = [values[0]]
    for value in values[1:]:
        wanted.append(oracle(wanted[-1], value))
    with fastrelu.configure(parallel_min_bytes=0, streaming_min_bytes=0), np.errstate(all="raise"):
        assert_same(ufuncs.leaky_relu.accumulate(values), np.array(wanted, np.float32))
        with forced("parallel"):
            assert_same(ufuncs.leaky_relu.accumulate(values), np.array(wanted, np.float32))
        assert_same(ufuncs.leaky_relu.reduce(values), np.float32(wanted[-1]))
        table = ufuncs.leaky_relu.outer(values[:40], values[:30])
        assert_same(table, expected("leaky_relu", [values[:40, None], values[None, :30]], "float32"))
        target = values[:10].copy()
        ufuncs.leaky_relu.at(target, [1, 1, 3], np.float32(0.5))
        again = values[:10].copy()
        for k in (1, 1, 3):
            again[k] = oracle(again[k], np.float32(0.5))
        assert_same(target, again)


def test_keywords():
    x = np.array([-1.5, 2.5])
    assert ufuncs.relu(x, dtype=np.float32).dtype == np.float32
    assert ufuncs.relu(x, signature="f->f", casting="same_kind").dtype == np.float32
    with pytest.raises(TypeError):
        ufuncs.relu(x, dtype=np.float32, casting="safe")
    assert fastrelu.relu(np.ones((3, 4)), order="F").flags.f_contiguous
    out = np.array([7.0, 7.0])
    ufuncs.relu(x, out, where=[True, False])
    assert_same(out, np.array([0.0, 7.0]))
    assert ufuncs.relu.resolve_dtypes((np.dtype(np.int8), None)) == (np.dtype(np.int8), np.dtype(np.int8))


@pytest.mark.parametrize("code", ["F", "D", "g", "G", "O", "U3", "S3", "m8[s]", "M8[s]", "V4"])
def test_refused_types(code):
    if code in "gG" and np.dtype("g").itemsize == 8:
        pytest.skip("longdouble is float64 on this platform")
    with pytest.raises(TypeError):
        ufuncs.relu(np.zeros(3, code))


def test_where_with_random_runs_matches():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(100_000).astype(np.float32)
    mask = rng.random(x.size) < 0.5
    out = np.full_like(x, 9)
    ufuncs.relu(x, out, where=mask)
    assert_same(out, np.where(mask, np.where(x < 0, np.float32(0), x), np.float32(9)))
