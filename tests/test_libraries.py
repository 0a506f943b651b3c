"""Real use inside other libraries."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scikit_learn_trains_the_same_network(monkeypatch, solver, dtype):
    """MLPClassifier on its digits, with relu and its derivative replaced, ends in the same weights, bit for bit."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier, _multilayer_perceptron

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(dtype)

    def train():
        network = MLPClassifier((40, 30), solver=solver, random_state=3, max_iter=8)
        return network.fit(x, y)

    theirs = train()
    calls = []

    def relu(z):
        calls.append("relu")
        fastrelu.relu_(z)

    def derivative(z, delta):
        calls.append("backward")
        fastrelu.relu_backward_(delta, z)

    monkeypatch.setitem(_multilayer_perceptron.ACTIVATIONS, "relu", relu)
    monkeypatch.setitem(_multilayer_perceptron.DERIVATIVES, "relu", derivative)
    ours = train()
    assert {"relu", "backward"} <= set(calls)
    for a, b in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        assert_same(a, b)


def test_dask_stays_lazy():
    da = pytest.importorskip("dask.array")
    x = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(10, 100)
    lazy = da.from_array(x, chunks=(3, 40))
    for function, wanted in [
        (lambda a: fastrelu.relu(a), fastrelu.relu(x)),
        (lambda a: fastrelu.leaky_relu(a, 0.2), fastrelu.leaky_relu(x, 0.2)),
        (lambda a: fastrelu.relu_backward(a, a), fastrelu.relu_backward(x, x)),
        (lambda a: fastrelu.relu(a, target="serial"), fastrelu.relu(x)),
    ]:
        result = function(lazy)
        assert isinstance(result, da.Array)
        assert result.chunks == lazy.chunks
        assert result.dtype == x.dtype
        assert_same(result.compute(scheduler="threads"), wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pandas_keeps_its_labels():
    pd = pytest.importorskip("pandas")
    series = pd.Series([-1.0, 2.0], index=["a", "b"], name="z")
    result = fastrelu.relu(series)
    assert type(result) is pd.Series
    pd.testing.assert_series_equal(result, pd.Series([0.0, 2.0], index=["a", "b"], name="z"))
    frame = pd.DataFrame({"u": [-1.0, 2.0], "v": [3.0, -4.0]})
    pd.testing.assert_frame_equal(fastrelu.leaky_relu(frame, 0.5), pd.DataFrame({"u": [-0.5, 2.0], "v": [3.0, -2.0]}))


def test_no_library_is_imported():
    """Not in functions either: who freezes a program gets with it all that is imported anywhere."""
    known = {*sys.stdlib_module_names, "numpy", "numba", "llvmlite", "ml_dtypes"}
    package = Path(fastrelu.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name == "_bench" or path.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.partition(".")[0] for name in names} <= known, path.name
