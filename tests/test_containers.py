"""Containers that go part by part: pandas, xarray, Dask. And others, with units or masks.

An error leaves all parts alone, a number of Python leaves their types alone, and a part is computed as it is alone.
"""

import pickle
import warnings

import numpy as np
import pytest

import fastrelu
from fastrelu import ufuncs
from fastrelu._bench.oracle import assert_same
from fastrelu._operations import UFUNCS

from .helpers import BINARY, OPERATIONS, public, run_python

#: Parameters as numbers of Python, and as they are left out, by how many there are.
_NUMBERS = [[()], [(), (0.3,)], [(), (0.1,), (0.1, 0.7)]]
NUMBERS = {name: _NUMBERS[len(row.parameters)] for name, row in UFUNCS.items()}
NUMBERS["leaky_relu"] += [(2,), (1e300,)]


def load(name):
    """Import a library; tests run with warnings as errors, and libraries have some of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.fixture
def pd():
    return load("pandas")


@pytest.fixture
def da():
    return load("dask.array")


@pytest.fixture
def xr():
    return load("xarray")


def column(dtype, seed=0):
    return (np.random.default_rng(seed).standard_normal(7) * 4).astype(dtype)


def frames(pd):
    """Frames by label: of one type and of many, odd labels, empty ones."""
    return {
        "float32": pd.DataFrame({"a": column("f4"), "b": column("f4", 1)}),
        "mixed": pd.DataFrame({"a": column("f4"), "b": column("f8"), "c": column("f2"), "d": column("i4")}),
        "integers": pd.DataFrame({"a": column("i8"), "b": column("u1"), "c": column("i8") > 0}),
        "nullable": pd.DataFrame(
            {"a": pd.array([1.5, None, -2], "Float32"), "b": pd.array([1, None, -2], "Int32"), "c": [1.0, -2.0, 3.0]}
        ),
        "duplicates": pd.DataFrame(
            np.column_stack([column("f4"), column("f4", 1)]), index=[1, 1, 2, 2, 3, 3, 3], columns=["a", "a"]
        ).astype({}),
        "levels": pd.DataFrame({("u", 1): column("f4"), ("v", 2): column("f8")}),
        "sparse": pd.DataFrame({"a": pd.arrays.SparseArray(column("f4")), "b": column("f8")}),
        "strange labels": pd.DataFrame({"dtype": column("f4"), "columns": column("f8"), None: column("f4")}),
        "no columns": pd.DataFrame(index=[1, 2]),
        "no rows": pd.DataFrame({"a": np.zeros(0, "f4"), "b": np.zeros(0)}),
    }


FRAMES = (
    "float32", "mixed", "integers", "nullable", "duplicates", "levels", "sparse", "strange labels", "no columns",
    "no rows",
)  # fmt: skip


@pytest.mark.parametrize("label", FRAMES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_column_as_it_is_alone(pd, name, label):
    frame = frames(pd)[label]
    data = [frame] * (1 + (name in BINARY))
    for parameters in NUMBERS[name]:
        before = frame.copy(deep=True)
        result = public(name)(*data, *parameters)
        assert type(result) is pd.DataFrame
        assert result.columns.equals(frame.columns)
        assert result.index.equals(frame.index)
        for k in range(frame.shape[1]):
            alone = public(name)(*[each.iloc[:, k] for each in data], *parameters)
            pd.testing.assert_series_equal(result.iloc[:, k], alone, check_exact=True)
            if isinstance(alone.dtype, np.dtype):  # and as an array
                array = public(name)(*[each.iloc[:, k].to_numpy() for each in data], *parameters)
                assert_same(result.iloc[:, k].to_numpy(), array)
        pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("label", FRAMES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_frames_in_place(pd, name, label):
    """What fits is written, in the columns' own types; what does not fit changes nothing."""
    frame = frames(pd)[label]
    rest = [frame.copy()] if name in BINARY else []
    wanted = public(name)(frame, *rest)
    before = frame.copy(deep=True)
    sparse = label == "sparse"
    if not sparse and list(wanted.dtypes) == list(frame.dtypes):
        assert public(name, twin=True)(frame, *rest) is frame
        pd.testing.assert_frame_equal(frame, wanted)
        return
    first = "grad" if rest else "x"
    match = "sparse in column 'a'" if sparse else "has a column .* does not cast"
    with pytest.raises(TypeError, match=rf"^{name}_: {first} .*{match}|^{name}_: {first} is sparse"):
        public(name, twin=True)(frame, *rest)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("make", ["Series", "Index", "array", "Float32", "Sparse[float32]", "Int64"])
def test_pandas_of_one_part(pd, make):
    values = column("f4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if make in ("Series", "Index", "array"):
            data = getattr(pd, make)(values)
        else:
            data = pd.array(values.round() if make == "Int64" else values, dtype=make)
    for name in OPERATIONS:
        for parameters in NUMBERS[name]:
            operands = [data] * (1 + (name in BINARY))
            result = public(name)(*operands, *parameters)
            alone = public(name)(*[np.asarray(each) for each in operands], *parameters)
            kind = getattr(result.dtype, "numpy_dtype", getattr(result.dtype, "subtype", result.dtype))
            assert kind == alone.dtype, (name, parameters)
            assert_same(np.asarray(result).astype(alone.dtype), alone)


def test_strong_numbers_and_arrays_of_slopes(pd):
    frame = frames(pd)["mixed"][["a", "b"]]
    assert set(fastrelu.leaky_relu(frame, np.float64(0.5)).dtypes) == {np.dtype("f8")}
    slopes = np.array([0.5, 2.0], np.float32)
    result = fastrelu.leaky_relu(frame, slopes)
    assert list(result.dtypes) == ["f4", "f8"]
    for k in range(2):
        assert_same(result.iloc[:, k].to_numpy(), fastrelu.leaky_relu(frame.iloc[:, k].to_numpy(), slopes[k : k + 1]))
    assert fastrelu.leaky_relu_(frame, np.float64(0.5)) is frame  # rounded into float32, as in an array
    assert list(frame.dtypes) == ["f4", "f8"]
    for wrong in (np.ones(3), np.ones((3, 2)), [[1.0], [2.0, 3.0]]):
        with pytest.raises(ValueError, match="leaky_relu: negative_slope"):
            fastrelu.leaky_relu(frame, wrong)
    for beside in (frame["a"], pd.Index([0.5, 2.0]), frame["a"].array):
        with pytest.raises(TypeError, match=r"negative_slope is a pandas\..*to_numpy"):
            fastrelu.leaky_relu(frame, beside)


def test_frames_are_aligned_by_label(pd):
    grad = pd.DataFrame({"a": column("f4"), "b": column("f8")}, index=list("abcdefg"))
    x = grad.iloc[::-1, ::-1].copy()
    result = fastrelu.relu_backward(grad, x)
    assert list(result.reindex_like(grad).dtypes) == ["f4", "f8"]
    pd.testing.assert_frame_equal(result.reindex_like(grad), fastrelu.relu_backward(grad, x.reindex_like(grad)))
    wanted = fastrelu.relu_backward(grad, x.reindex_like(grad))
    same = grad.copy()
    assert fastrelu.relu_backward_(same, x) is same
    pd.testing.assert_frame_equal(same, wanted)
    before = grad.copy()
    for other in (x.rename(index={"a": "z"}), x.assign(c=1.0)):
        with pytest.raises(ValueError, match="relu_backward_: grad lacks labels"):
            fastrelu.relu_backward_(grad, other)
    pd.testing.assert_frame_equal(grad, before)


def refused(error, match, call, *containers):
    """Assert that a call is refused, and that containers of pandas are as they were."""
    before = [each.copy(deep=True) for each in containers]
    with pytest.raises(error, match=match):
        call()
    for one, other in zip(containers, before, strict=True):
        assert one.equals(other)
        assert list(getattr(one, "dtypes", [])) == list(getattr(other, "dtypes", [])) if one.ndim == 2 else True


@pytest.mark.parametrize("where", [True, np.array([[True, False]] * 2)])
def test_nothing_is_half_written(pd, where):
    """The last column is what does not fit; pandas would have written the first."""
    first = [3.0, -4.0]
    options = {} if where is True else {"where": where}
    last = {
        "integers": [-1, 2],
        "objects": np.array([1.0, None], object),
        "category": pd.Categorical([1, 2]),
        "text": ["a", "b"],
        "times": np.zeros(2, "M8[ns]"),
        "zone": pd.date_range("2000", periods=2, tz="UTC"),
        "period": pd.period_range("2000", periods=2),
        "interval": pd.interval_range(0, 2),
        "complex": [1j, 2],
        "nullable": pd.array([1, None], "Int64"),
        "sparse": pd.arrays.SparseArray([1.0, -2.0]),
    }
    for label, values in last.items():
        frame = pd.DataFrame({"first": first, "last": values})
        refused(TypeError, "leaky_relu_: x .*'last'", lambda f=frame: fastrelu.leaky_relu_(f, 0.1, **options), frame)
        if label not in ("sparse", "nullable"):
            frame = frame.rename(columns={"last": "first"})  # no label to tell them by
            refused(TypeError, "x has a column 'first'", lambda f=frame: fastrelu.leaky_relu_(f, 0.1, **options), frame)
    frame = pd.DataFrame({"first": first, "last": [-1, 2]})
    source = pd.DataFrame({"first": first, "last": first})
    refused(TypeError, "relu: out has a column 'last'", lambda: fastrelu.relu(source, out=frame, **options), frame)
    refused(TypeError, "relu: out has a column 'last'", lambda: fastrelu.relu(source.to_numpy(), out=frame), frame)
    fastrelu.relu_(frame)
    assert frame.values.tolist() == [[3, 0], [0, 2]]
    array = np.array([[5, 5], [5, 5]])
    with pytest.raises(TypeError, match="relu: out is of dtype int64"):
        fastrelu.relu(source, out=array)
    assert (array == 5).all()


def test_read_only_columns(pd):
    frozen, free = np.array([1.0, -2.0]), np.array([1.0, -2.0], np.float32)
    frozen.flags.writeable = False
    frame = pd.DataFrame({"a": free, "b": frozen}, copy=False)
    refused(ValueError, "relu_: x is read-only in column 'b'", lambda: fastrelu.relu_(frame), frame)
    assert free.tolist() == [1, -2]
    series = pd.Series(frozen, copy=False)
    refused(ValueError, "relu_: x is read-only", lambda: fastrelu.relu_(series), series)
    refused(ValueError, "relu: out is read-only", lambda: fastrelu.relu(frame, out=np.broadcast_to(0.0, (2, 2))), frame)


def test_copy_on_write(pd):
    frame = pd.DataFrame({"a": [-1.0, 2.0], "b": [3, -4]})
    view = frame[:]
    fastrelu.relu_(view)
    assert view.values.tolist() == [[0, 3], [2, 0]]
    if pd.__version__ >= "3":
        assert frame.values.tolist() == [[-1, 3], [2, -4]]


def test_out_and_where(pd):
    frame = frames(pd)["mixed"]
    mask = np.random.default_rng(3).random(frame.shape) < 0.5
    result = fastrelu.leaky_relu(frame, 0.5)
    out = result * 0 + 7
    assert fastrelu.leaky_relu(frame, 0.5, out=out, where=mask) is out
    wanted = result.where(mask, 7)
    assert list(out.dtypes) == list(result.dtypes)
    np.testing.assert_array_equal(out.to_numpy(), wanted.to_numpy())
    array = np.full(frame.shape, 7.0)
    assert fastrelu.leaky_relu(frame, 0.5, out=array, where=mask) is array
    np.testing.assert_array_equal(array, wanted.to_numpy())
    narrow = pd.DataFrame({"a": column("f4"), "b": column("f2")})
    source = narrow.astype("f8") * 1.1
    assert fastrelu.relu(source, out=narrow) is narrow  # same_kind, as into an array
    assert list(narrow.dtypes) == ["f4", "f2"]
    np.testing.assert_array_equal(narrow["b"].to_numpy(), np.maximum(source["b"].to_numpy(), 0).astype("f2"))
    series = pd.Series([-1.0, -2.0, 3.0])
    assert fastrelu.relu_(series, where=[True, False, True]) is series
    assert series.tolist() == [0, -2, 3]
    nullable = pd.array([-1, None, -3], "Int64")
    assert fastrelu.relu_(nullable, where=[True, True, False]) is nullable
    assert list(nullable.fillna(9)) == [0, 9, -3]
    for wrong in (np.ones(3, bool), np.ones(4)):
        refused((ValueError, TypeError), "relu_: where", lambda w=wrong: fastrelu.relu_(frame, where=w), frame)
    refused(ValueError, r"relu: out has shape \(2, 2\)", lambda: fastrelu.relu(frame, out=np.ones((2, 2))), frame)
    index = pd.Index([-1.0, 2.0])
    with pytest.raises(TypeError, match=r"relu_: x is a pandas\.Index, which is immutable"):
        fastrelu.relu_(index)
    with pytest.raises(TypeError, match="relu: out must be an array"):
        fastrelu.relu(frame, out=[1.0])


def warned(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in found if "'where' used without" in str(each.message)]


def test_where_without_out_warns_as_numpy_does(pd, xr):
    """As `numpy.negative` does, which does so since NumPy 2.4; and where ``out=None`` is said, not."""
    x, mask = np.array([-1.0, 2.0]), np.array([True, False])
    inputs = [x, x[::-1], x.astype("i1"), x[0], [-1.0, 2.0], np.ma.masked_array(x), x.view(np.recarray)]
    inputs += [np.zeros((300, 300)).T, pd.Series(x), pd.DataFrame({"a": x, "b": x}), xr.DataArray(x)]
    for value in inputs:
        where = np.ones(np.shape(value), bool) if np.ndim(value) != 1 else mask
        wanted = bool(warned(lambda v=value, w=where: np.negative(v, where=w)))
        # (pandas and xarray do not learn from NumPy that it was said)
        silenced = bool(warned(lambda v=value, w=where: np.negative(v, where=w, out=None)))
        for name in OPERATIONS:
            data = [value] * (1 + (name in BINARY))
            for target in (None, "serial"):
                found = warned(lambda n=name, d=data, w=where, t=target: public(n)(*d, where=w, target=t))
                assert bool(found) == wanted, (name, type(value))
                for out in (None, (None,)):
                    found = warned(lambda n=name, d=data, w=where, o=out: public(n)(*d, where=w, out=o))
                    assert bool(found) == silenced, (name, type(value))
    for name in OPERATIONS:
        data = [x.copy() for _ in range(1 + (name in BINARY))]
        assert not warned(lambda n=name, d=data: public(n, twin=True)(*d, where=mask))
        assert not warned(lambda n=name, d=data: public(n)(*d, where=mask, out=x.copy()))
        assert not warned(lambda n=name, d=data: public(n)(*d, where=True))


def test_keywords_mean_what_they_mean_to_numpy():
    x = np.array([-1.0, 2.0], np.float32)
    right = fastrelu.relu(x)
    for options in ({"where": True}, {"dtype": None}, {"casting": "same_kind"}, {"order": "K"}, {"subok": True},
                    {"out": (None,)}, {"out": None}, {"sig": "f->f"}, {"signature": "f->f"}):  # fmt: skip
        assert_same(fastrelu.relu(x, **options), right)
    assert fastrelu.relu(x, dtype="f8", where=True).dtype == np.float64


@pytest.mark.parametrize("name", OPERATIONS)
def test_xarray(xr, name):
    data = xr.Dataset(
        {
            "u": ("a", column("f4"), {"unit": "m"}),
            "v": ("b", column("f8")),
            "w": ("a", column("i4")),
            "s": column("f2")[0],
        }
    )
    for parameters in NUMBERS[name]:
        operands = [data] * (1 + (name in BINARY))
        result = public(name)(*operands, *parameters)
        for key in data:
            alone = public(name)(*[each[key].values for each in operands], *parameters)
            assert result[key].dtype == alone.dtype, key
            assert_same(result[key].values, np.asarray(alone))
            assert public(name)(*[each[key] for each in operands], *parameters).identical(result[key])


def test_xarray_refusals(xr):
    data = xr.Dataset({"u": ("a", column("f4")), "s": ("a", np.array(["a"] * 7))})
    before = data.copy(deep=True)
    with pytest.raises(TypeError, match="relu: x has a variable 's' of dtype <U1"):
        fastrelu.relu(data)
    for bad in (data["u"], data, data["u"].variable):
        with pytest.raises(TypeError, match=r"relu_: x is a xarray\..*\.values"):
            fastrelu.relu_(bad)
        with pytest.raises(TypeError, match=r"relu: out is a xarray"):
            fastrelu.relu(column("f4"), out=bad)
    with pytest.raises(TypeError, match="relu: out is one array"):
        fastrelu.relu(data[["u"]], out=np.ones(7, "f4"))
    assert data.identical(before)
    out = np.ones(7)
    assert fastrelu.relu(data["u"], out=out).dtype == np.float64
    np.testing.assert_array_equal(out, np.maximum(column("f4"), 0))


def graph(array):
    return pickle.dumps(dict(array.__dask_graph__()))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("target", [None, "serial", "parallel"])
def test_dask(da, name, target):
    """Lazy; the graph holds the public ufunc, or a target to be applied by whoever runs the block."""
    x = np.concatenate([column("f4"), column("f4", 1)])
    lazy = da.from_array(x, chunks=5)
    data = [lazy] * (1 + (name in BINARY))
    for parameters in [*NUMBERS[name], (np.float32(0.5),) * (len(NUMBERS[name]) > 1)]:
        wanted = public(name)(*[x] * len(data), *parameters)
        results = [public(name)(*data, *parameters, target=target)]
        with fastrelu.configure(target=target):
            results.append(public(name)(*data, *parameters))
        assert results[0].name == results[1].name
        for result in results:
            assert isinstance(result, da.Array)
            assert (result.chunks, result.dtype) == (lazy.chunks, wanted.dtype)
            assert (b"_serial" in graph(result), b"_parallel" in graph(result)) == (False, False)
            assert target is None or target.encode() in graph(result)
            assert_same(result.compute(scheduler="threads"), wanted)
            assert_same(pickle.loads(pickle.dumps(result)).compute(scheduler="synchronous"), wanted)


def test_dask_runs_blocks_on_the_target(da, monkeypatch):
    from fastrelu._call import dispatch

    seen = []
    plan = dispatch._settled
    monkeypatch.setattr(dispatch, "_settled", lambda *args: seen.append(args[2]) or plan(*args))
    result = fastrelu.leaky_relu(da.ones(6, chunks=3), 0.5, target="serial")
    assert "parallel" not in seen
    seen.clear()
    with fastrelu.configure(target="parallel"):  # the choice of the time at which the graph was made
        result.compute(scheduler="synchronous")
    assert seen == ["serial", "serial"]


def test_dask_in_place(da):
    lazy, x = da.from_array(column("f4"), chunks=3), column("f4")
    assert fastrelu.leaky_relu_(lazy, np.float64(0.5), target="serial") is lazy
    assert lazy.dtype == np.float32  # rounded, as in an array
    assert_same(lazy.compute(), fastrelu.leaky_relu(x, np.float64(0.5)).astype("f4"))
    whole = da.from_array(column("i4"), chunks=3)
    name = whole.name
    for wrong, error, match in [
        (lambda: fastrelu.leaky_relu_(whole), TypeError, "leaky_relu_: x is of dtype int32, to which"),
        (lambda: fastrelu.relu(lazy, out=whole), TypeError, "relu: out is of dtype int32"),
        (lambda: fastrelu.relu(lazy, out=np.ones(7)), TypeError, r"relu: out is a numpy.*lazy"),
        (lambda: fastrelu.relu(lazy, out=da.ones(3)), ValueError, r"relu: out has shape \(3,\)"),
        (lambda: fastrelu.relu_(lazy, target="cuda"), TypeError, r"relu_: x is a dask\.Array.*GPU"),
        (lambda: fastrelu.relu(lazy.astype("c8")), TypeError, "relu: x is a .*complex64"),
        (lambda: fastrelu.leaky_relu(lazy, np.ones(3)), ValueError, "leaky_relu: negative_slope of shape"),
        (lambda: fastrelu.relu(lazy, inplace=True), TypeError, "relu_"),
    ]:
        with pytest.raises(error, match=match):
            wrong()
    with fastrelu.configure(target="cuda"), pytest.raises(TypeError, match=r"relu: x is a .*GPU"):
        fastrelu.relu(lazy)
    assert (whole.name, whole.dtype) == (name, np.int32)


def test_dask_of_unknown_sizes_and_with_where(da):
    x = column("f4")
    lazy = da.from_array(x, chunks=3)
    some = lazy[lazy > -1]
    assert_same(fastrelu.leaky_relu(some, 0.5, target="serial").compute(), fastrelu.leaky_relu(x[x > -1], 0.5))
    out = fastrelu.relu(lazy, where=lazy > -1, out=da.full(7, 9, dtype="f4", chunks=3), target="serial")
    assert_same(out.compute(), np.where(x > -1, fastrelu.relu(x), np.float32(9)))


@pytest.mark.parametrize("target", [None, "serial"])
def test_xarray_around_dask(da, xr, target):
    x = column("f4")
    array = xr.DataArray(da.from_array(x, chunks=3), dims="a", attrs={"unit": "m"}, coords={"a": range(7)})
    result = fastrelu.leaky_relu(array, 0.5, target=target)
    assert isinstance(result.data, da.Array)
    assert (result.attrs, result.dtype) == (fastrelu.leaky_relu(array.compute(), 0.5).attrs, x.dtype)
    assert (b"serial" in graph(result.data)) == (target == "serial")
    assert_same(result.compute().values, fastrelu.leaky_relu(x, 0.5))
    mixed = xr.Dataset({"lazy": array, "eager": ("a", x)})
    result = fastrelu.relu_backward(mixed, array, target=target)
    assert isinstance(result["lazy"].data, da.Array)
    for key in mixed:
        assert_same(result[key].compute().values, fastrelu.relu_backward(x, x))
    with pytest.raises(TypeError, match=r"relu: x is a xarray\.DataArray.*GPU"):
        fastrelu.relu(array, target="cuda")


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["processes", "distributed"])
def test_dask_in_other_processes(scheduler):
    load("dask.array")
    load("distributed")
    run_python(
        "import warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import dask.array as da, distributed, numpy as np, fastrelu\n"
        "x = np.array([-1, 2, -3, 4], 'f4')\n"
        "lazy = fastrelu.leaky_relu(da.from_array(x, chunks=2), 0.5, target='serial')\n"
        "if __name__ == '__main__':\n"
        f"    if {scheduler!r} == 'processes':\n"
        "        result = lazy.compute(scheduler='processes', num_workers=1)\n"
        "    else:\n"
        "        with distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=None):\n"
        "            result = lazy.compute()\n"
        "    assert result.tolist() == [-0.5, 2, -1.5, 4] and result.dtype == x.dtype\n"
    )


def test_what_an_array_ufunc_is_handed():
    """The public ufunc and the operands as they are: numbers weak, no keyword that was not given."""

    class Sees:
        def __array_ufunc__(self, *args, **kwargs):
            return args, kwargs

    for name in OPERATIONS:
        for parameters in NUMBERS[name]:
            (ufunc, method, *operands), kwargs = public(name)(*[Sees()] * (1 + (name in BINARY)), *parameters)
            assert (ufunc, method, kwargs) == (getattr(ufuncs, name), "__call__", {})
            assert all(type(each) in (Sees, float) for each in operands)


def test_others_keep_their_errors():
    class Own(TypeError):
        pass

    class Fails:
        def __array_ufunc__(self, *args, **kwargs):
            raise Own("of its own")

    with pytest.raises(Own, match=r"^of its own$"):
        fastrelu.leaky_relu(Fails(), 0.1)
    with pytest.raises(Own, match=r"^of its own$"):
        fastrelu.leaky_relu_(Fails(), 0.1)


def test_weak_numbers_beside_subclasses():
    class Mine(np.ndarray):
        pass

    for value in (np.ma.masked_array(column("f4")), column("f4").view(Mine), column("f2").view(np.matrix)):
        for name in OPERATIONS:
            for parameters in NUMBERS[name]:
                data = [value] * (1 + (name in BINARY))
                result = public(name)(*data, *parameters)
                assert (type(result), result.dtype) == (type(value), value.dtype)
                assert_same(np.asarray(result), public(name)(*[np.asarray(each) for each in data], *parameters))


def test_weak_numbers_beside_units():
    units = load("astropy.units")
    from astropy.units.quantity_helper import UFUNC_HELPERS

    UFUNC_HELPERS[ufuncs.leaky_relu] = lambda function, unit, slope: ([None, None], unit)
    try:
        length = column("f4") * units.m
        for slope in (0.5, units.Quantity(0.5, dtype="f4")):
            result = fastrelu.leaky_relu(length, slope)
            assert (result.unit, result.dtype) == (units.m, np.float32)
            assert_same(result.value, fastrelu.leaky_relu(column("f4"), 0.5))
    finally:
        del UFUNC_HELPERS[ufuncs.leaky_relu]


def test_arrow_columns(pd):
    load("pyarrow")
    frame = pd.DataFrame({"a": pd.array([1.5, None, -2.0], "float32[pyarrow]"), "b": [1.0, -2.0, 3.0]})
    result = fastrelu.leaky_relu(frame, 0.25)
    assert list(result.dtypes) == list(frame.dtypes)
    assert fastrelu.leaky_relu_(frame, 0.25) is frame
    pd.testing.assert_frame_equal(frame, result)
    whole = pd.Series([1, -2], dtype="int32[pyarrow]")
    refused(TypeError, r"leaky_relu_: x is of dtype int32\[pyarrow\]", lambda: fastrelu.leaky_relu_(whole), whole)


@pytest.mark.parametrize("target", [None, "serial"])
def test_frames_of_dask(pd, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dd = pytest.importorskip("dask.dataframe", exc_type=ImportError)
        frame = pd.DataFrame({"a": column("f4"), "b": column("f8")})
        lazy = dd.from_pandas(frame, npartitions=2)
        results = [
            (fastrelu.leaky_relu(lazy, 0.5, target=target), fastrelu.leaky_relu(frame, 0.5)),
            (fastrelu.relu_backward(lazy, lazy, target=target), fastrelu.relu_backward(frame, frame)),
        ]
        for result, wanted in results:
            assert type(result) is type(lazy)
            assert list(result.dtypes) == list(wanted.dtypes)
            pd.testing.assert_frame_equal(result.compute(scheduler="synchronous"), wanted)
        with pytest.raises(TypeError, match=r"relu: x is a dask\.DataFrame.*GPU"):
            fastrelu.relu(lazy, target="cuda")
