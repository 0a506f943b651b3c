"""explain, configure, the environment variables, warmup and show_config."""

import dataclasses
import inspect
import sys

import numpy as np
import pytest

import fastrelu

from .helpers import OPERATIONS, run_python

BIG = np.zeros(1_000_000, np.float32)
SMALL = np.zeros(10, np.float32)


def test_explain_small_and_large():
    small, large = (fastrelu.explain(fastrelu.relu, x) for x in (SMALL, BIG))
    assert (small.target, small.store) == ("serial", "plain")
    assert "parallel_min_bytes" in small.refused["parallel"]
    assert "target='cuda'" in small.refused["cuda"]
    assert large.target == "parallel"
    assert "parallel_min_bytes" in large.refused["serial"]
    assert "streaming_min_bytes" in large.refused["streaming"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.target = "cuda"
    assert "serial" in str(small)
    assert "not cuda" in str(small)


def test_explain_every_function():
    for name in OPERATIONS:
        data = [SMALL.copy() for _ in range(2 if "backward" in name else 1)]
        for twin in ("", "_"):
            assert fastrelu.explain(getattr(fastrelu, name + twin), *data).target == "serial"
            assert fastrelu.explain(getattr(fastrelu, name + twin), *data, target="parallel").target == "parallel"
        assert (
            fastrelu.explain(
                getattr(fastrelu.ufuncs, name), *data, *[0.5] * (getattr(fastrelu.ufuncs, name).nin - len(data))
            ).target
            == "serial"
        )


def test_explain_takes_a_whole_number_for_a_slope_as_the_call_does():
    for x in (np.zeros(9, np.int8), np.zeros(1_000_000, np.int8), np.zeros(9, np.float16)):
        assert fastrelu.explain(fastrelu.leaky_relu, x, 1) == fastrelu.explain(fastrelu.leaky_relu, x, 1.0)
        assert fastrelu.leaky_relu(x, 1).dtype == fastrelu.leaky_relu(x, 1.0).dtype


def test_explain_agrees_with_the_store():
    with fastrelu.configure(streaming_min_bytes=1000, parallel_min_bytes=1 << 60):
        assert fastrelu.explain(fastrelu.relu, BIG).store == "streaming"
        in_place = fastrelu.explain(fastrelu.relu_, BIG)
        assert in_place.store == "plain"
        assert "input" in in_place.refused["streaming"]
        assert fastrelu.explain(fastrelu.relu, SMALL).store == "plain"


def test_explain_forced_where_and_pieces():
    assert fastrelu.explain(fastrelu.relu, BIG, target="serial").refused["parallel"] == "the target is forced"
    assert "where=" in fastrelu.explain(fastrelu.relu, BIG, where=BIG == 0).refused["parallel"]
    square = BIG.reshape(1000, 1000)
    assert fastrelu.explain(fastrelu.relu, square.T, out=np.empty_like(square)).target == "parallel"
    assert fastrelu.explain(fastrelu.relu, square[::2]).target == "parallel"
    assert fastrelu.explain(fastrelu.leaky_relu, square, square[0]).target == "parallel"
    pieces = fastrelu.explain(fastrelu.leaky_relu, np.zeros(100_000, np.int8))
    assert "8,192" in pieces.refused["parallel"]
    assert fastrelu.explain(fastrelu.leaky_relu, np.zeros(3_000_000, np.int8)).target == "parallel"


def test_explain_refuses():
    with pytest.raises(TypeError, match="not a function of fastrelu"):
        fastrelu.explain(np.maximum, SMALL, 0)
    with pytest.raises(TypeError, match="not a function of fastrelu"):
        fastrelu.explain(len, SMALL)
    with pytest.raises(TypeError):
        fastrelu.explain(fastrelu.relu)
    with pytest.raises(ValueError, match="target"):
        fastrelu.explain(fastrelu.relu, SMALL, target="gpu")


def test_explain_compiles_and_writes_nothing():
    run_python(
        "import numpy as np, fastrelu\n"
        "from fastrelu._runtime import compiler\n"
        "x = np.full(1_000_000, -1.0)\n"
        "fastrelu.explain(fastrelu.relu_, x); fastrelu.explain(fastrelu.leaky_relu, x[::2], out=x[1::2])\n"
        "assert (x == -1).all()\n"
        "assert compiler.kernel_address.cache_info().currsize == 0 and compiler._routine.cache_info().currsize == 0\n"
    )


def test_configure_restores():
    before = fastrelu.explain(fastrelu.relu, BIG).target
    with fastrelu.configure(target="serial"):
        assert fastrelu.explain(fastrelu.relu, BIG).target == "serial"
        with fastrelu.configure(parallel_min_bytes=1, target=None):
            assert fastrelu.explain(fastrelu.relu, SMALL).target == "parallel"
        assert fastrelu.explain(fastrelu.relu, SMALL).target == "serial"
        np.testing.assert_array_equal(fastrelu.relu(SMALL), SMALL)
    assert fastrelu.explain(fastrelu.relu, BIG).target == before
    with pytest.raises(ZeroDivisionError), fastrelu.configure(target="serial"):
        raise ZeroDivisionError
    assert fastrelu.explain(fastrelu.relu, BIG).target == before


def test_configured_cuda_refuses_host_arrays_without_a_gpu():
    with fastrelu.configure(target="cuda"):
        for function in (fastrelu.relu, fastrelu.relu_, fastrelu.leaky_relu):
            with pytest.raises(RuntimeError, match="cuda"):
                function(SMALL.copy())
    fastrelu.relu(SMALL)


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"target": "gpu"}, ValueError),
        ({"parallel_min_bytes": -1}, ValueError),
        ({"parallel_min_bytes": 1.5}, TypeError),
        ({"streaming_min_bytes": "1"}, TypeError),
        ({"streaming_min_bytes": True}, TypeError),
        ({"recycle_bytes": -1}, ValueError),
        ({"recycle_bytes": 1e9}, TypeError),
        ({"nonsense": 1}, TypeError),
    ],
)
def test_configure_refuses(keywords, error):
    with pytest.raises(error, match=next(iter(keywords))):
        fastrelu.configure(**keywords)


def test_environment():
    show = "import fastrelu, numpy as np; x = np.zeros(100); print(fastrelu.explain(fastrelu.relu, x))"
    assert "parallel" in run_python(show, FASTRELU_PARALLEL_MIN_BYTES="1").stdout.splitlines()[0]
    assert "streaming" in run_python(show, FASTRELU_STREAMING_MIN_BYTES="1").stdout.splitlines()[0]
    assert "parallel" in run_python(show, FASTRELU_TARGET="parallel").stdout.splitlines()[0]
    for name, value in [
        ("TARGET", "gpu"),
        ("PARALLEL_MIN_BYTES", "-1"),
        ("STREAMING_MIN_BYTES", "much"),
        ("RECYCLE_BYTES", "1GiB"),
    ]:
        result = run_python("import fastrelu", expect=1, **{f"FASTRELU_{name}": value})
        assert f"ValueError: FASTRELU_{name}='{value}'" in result.stderr


def test_environment_target_reaches_the_loops():
    run_python(
        "import numpy as np, fastrelu\n"
        "try: fastrelu.relu(np.zeros(3))\n"
        "except RuntimeError as error: assert 'cuda' in str(error)\n"
        "else: raise AssertionError\n",
        FASTRELU_TARGET="cuda",
    )


def test_signatures():
    expected = {
        "relu": "(x, /, *, out=None, target=None, **ufunc_kwargs)",
        "leaky_relu": "(x, /, negative_slope=0.01, *, out=None, target=None, **ufunc_kwargs)",
        "relu_grad": "(x, /, at_zero=0.0, *, out=None, target=None, **ufunc_kwargs)",
        "leaky_relu_grad": "(x, /, negative_slope=0.01, at_zero=None, *, out=None, target=None, **ufunc_kwargs)",
        "relu_backward": "(grad, x, /, at_zero=0.0, *, out=None, target=None, **ufunc_kwargs)",
        "leaky_relu_backward": "(grad, x, /, negative_slope=0.01, at_zero=None, *, "
        "out=None, target=None, **ufunc_kwargs)",
    }
    for name, signature in expected.items():
        assert str(inspect.signature(getattr(fastrelu, name))) == signature
        assert str(inspect.signature(getattr(fastrelu, name + "_"))) == signature.replace("out=None, ", "")
        for function in (getattr(fastrelu, name), getattr(fastrelu, name + "_")):
            assert function.__module__ == "fastrelu"
            assert "Examples" in function.__doc__


def test_warmup_compiles_into_the_cache(tmp_path):
    code = (
        "import fastrelu, numpy as np\n"
        "fastrelu.warmup([fastrelu.relu, 'leaky_relu_'], [np.float32])\n"
        "from fastrelu._runtime import code_cache\n"
        "names = sorted(path.name.rsplit('-', 1)[0] for path in code_cache.folder().glob('*.nbc'))\n"
        "assert names == ['fastrelu-inner_loop', 'fastrelu-large', 'fastrelu-launcher',\n"
        "    'fastrelu-leaky_relu-float32',\n"
        "    'fastrelu-recycler_allocate', 'fastrelu-recycler_free', 'fastrelu-recycler_trim',\n"
        "    'fastrelu-relu-float32', 'fastrelu-run_job', 'fastrelu-run_tile'], names\n"
    )
    run_python(code, NUMBA_CACHE_DIR=str(tmp_path))
    # what was compiled is only loaded now
    run_python(
        "from numba.core.compiler import CompilerBase\n"
        "def refuse(*args): raise AssertionError('compiled again')\n"
        "CompilerBase._compile_core = refuse\n" + code,
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_warmup_refuses():
    with pytest.raises(ValueError, match="not a function of fastrelu"):
        fastrelu.warmup(["gelu"])
    with pytest.raises(ValueError, match="no loop for int8"):
        fastrelu.warmup([fastrelu.leaky_relu], ["int8"])
    with pytest.raises(ValueError, match="complex64"):
        fastrelu.warmup(None, ["complex64"])


def test_show_config(capsys):
    fastrelu.show_config()
    text = capsys.readouterr().out
    for word in (
        "fastrelu",
        "numpy",
        "numba",
        "processor",
        "caches",
        "threads",
        "threading layer",
        "parallel_min_bytes",
        "streaming_min_bytes",
        "recycle_bytes",
        "gpu",
    ):
        assert word in text
    assert fastrelu.__version__ in text
    assert sys.platform in text


@pytest.mark.parametrize("target", [None, "serial", "parallel"])
def test_a_slope_per_column_becomes_a_job(target, monkeypatch):
    """The slopes are few, so that a look at sizes alone would leave the call to NumPy, which passes row by row."""
    x, slopes = np.ones((300, 300), np.float32), np.linspace(0, 1, 300, dtype=np.float32)
    driven = []
    monkeypatch.setattr(fastrelu._call.job_cache, "start", lambda *given: driven.append(given))
    for _ in range(2):
        fastrelu.leaky_relu(x, slopes, target=target)
    assert len(driven) == 2


def test_explain_takes_arguments_as_the_call_does():
    """Of a raw ufunc, a whole number stays one; beside bfloat16, a number is of its type."""
    x = np.ones(4_000_000, np.int8)
    said = fastrelu.explain(fastrelu.ufuncs.leaky_relu, x, 2)
    assert said.target == "serial"
    assert "8,000,000 bytes" in said.refused["streaming"]
    ml_dtypes = pytest.importorskip("ml_dtypes")
    half = np.ones(3, ml_dtypes.bfloat16)
    assert fastrelu.leaky_relu(half, casting="no").dtype == half.dtype
    assert fastrelu.explain(fastrelu.leaky_relu, half, casting="no").target == "serial"
