"""The command line: what it prints, what it writes, and one line and status 2 for whatever is wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest

import fastrelu
from fastrelu import __main__ as command


@pytest.fixture
def run(capsys):
    def call(*arguments):
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse leaves this way
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_info_is_show_config(run):
    status, out, err = run("info")
    assert (status, err) == (0, "")
    assert out.startswith("fastrelu ")
    assert fastrelu.__version__ in out


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "fastrelu", "info"], capture_output=True, text=True, check=True)
    assert "threading layer" in done.stdout


@pytest.fixture
def steps(monkeypatch):
    done = []
    made = [("relu float32", lambda: done.append("relu")), ("threads", lambda: done.append("threads"))]
    monkeypatch.setattr("fastrelu._api.warmup.warmup_steps", lambda: made)
    return done


def test_warmup_does_every_step(run, steps):
    assert run("warmup")[0] == 0
    assert steps == ["relu", "threads"]


def test_warmup_without_rich(run, steps, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    status, out, _ = run("warmup")
    assert (status, steps) == (0, ["relu", "threads"])
    assert out.splitlines() == ["1/2 relu float32", "2/2 threads"]


@pytest.fixture
def few(monkeypatch):
    """Leave the peers that take seconds to import or compile to bench/."""
    from fastrelu._bench import providers, quick

    chosen = [each for each in providers.PROVIDERS if each.name.startswith(("fastrelu", "numpy", "Python"))]
    monkeypatch.setattr(quick, "available", lambda: (chosen, {"absent": "not installed; pip install absent"}))


@pytest.mark.usefixtures("few")
def test_bench_shows_a_table_and_writes_json(run, tmp_path):
    path = tmp_path / "bench.json"
    status, out, err = run("bench", "--quick", "--sizes", "100", "2e3", "--json", path)
    assert (status, err.strip()) == (0, "")
    for text in ("relu, out=, float32", "relu, in place", "relu_backward", "2,000", "numpy.maximum(x, 0)", "GB/s"):
        assert text in out
    assert "left out: absent: not installed" in out
    content = json.loads(path.read_text())
    assert {row["size"] for row in content["cases"]} == {100, 2000}
    assert {"cpu", "cores", "threads", "versions", "date", "commit"} <= set(content["machine"])


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-1, 1, 60, dtype=np.float16).reshape(3, 4, 5),
        np.asfortranarray(np.linspace(-1, 1, 60).reshape(6, 10)),
        np.linspace(-1, 1, 60, dtype=">f4"),
        np.array(3.0),
        np.arange(-20, 20, dtype=np.int8),
        np.array([True, False]),
        np.array([np.nan, -0.0, np.inf, -np.inf]),
    ],
    ids=["float16-3d", "fortran", "byte-swapped", "0-d", "int8", "bool", "special"],
)
def test_bench_measures_any_supported_array(run, tmp_path, array):
    path = tmp_path / "input.npy"
    np.save(path, array)
    status, out, err = run("bench", "--quick", "--input", path)
    assert (status, err.strip()) == (0, "")
    assert f"shape {array.shape}" in out
    assert "fastrelu.ufuncs" in out


@pytest.mark.usefixtures("few")
@pytest.mark.filterwarnings("ignore")  # matplotlib's own
@pytest.mark.parametrize("sizes", [["100"], ["100", "1000"]])
def test_bench_draws(run, tmp_path, sizes):
    pytest.importorskip("matplotlib")
    path = tmp_path / "bench.png"
    assert run("bench", "--quick", "--op", "relu", "--sizes", *sizes, "--plot", path)[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def write(path, kind):
    if kind == "text":
        path.write_text("hello")
    elif kind == "cut":
        np.save(path, np.ones(100))
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "objects":
        np.save(path, np.array([1, "a"], dtype=object), allow_pickle=True)
    elif kind == "several":
        with path.open("wb") as file:
            np.savez(file, a=np.ones(3))
    elif kind != "absent":
        np.save(path, {"complex": np.ones(3, complex), "empty": np.ones(0), "string": np.array(["a"])}[kind])


@pytest.mark.parametrize("kind", ["absent", "text", "cut", "objects", "several", "complex", "empty", "string"])
def test_bad_file(run, tmp_path, kind):
    path = tmp_path / "bad.npy"
    write(path, kind)
    status, out, err = run("bench", "--input", path)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert str(path) in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--sizes", "0"], "size '0'"),
        (["--sizes", "-5"], "-5"),
        (["--sizes", "many"], "size 'many'"),
        (["--sizes", "1.5"], "size '1.5'"),
        (["--sizes", "inf"], "size 'inf'"),
        (["--sizes", "1e15"], "memory"),
        (["--dtype", "complex64"], "type 'complex64'"),
        (["--dtype", "nothing"], "type 'nothing'"),
        (["--op", "gelu"], "operation 'gelu'"),
        (["--threads", "0"], "--threads 0"),
        (["--threads", "two"], "--threads"),
        (["--json", "/no/such/folder/a.json"], "cannot be written"),
        (["--plot", "a.xyz"], ".png"),
        (["--input", "a.npy", "--sizes", "3"], "--input"),
        (["--nonsense"], "--nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(run, arguments, word):
    status, out, err = run("bench", *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert word in err


@pytest.mark.parametrize(("module", "arguments"), [("rich", []), ("matplotlib", ["--plot", "a.png"])])
def test_a_missing_extra_is_named(run, monkeypatch, module, arguments):
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else find_spec(name))
    status, _, err = run("bench", *arguments)
    assert status == 2
    assert err.splitlines() == [err.strip()]
    assert module in err
    assert 'pip install "fastrelu[bench]"' in err


def test_seconds_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("FASTRELU_BENCH_SECONDS", "soon")
    status, out, err = run("bench")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    monkeypatch.setenv("FASTRELU_BENCH_SECONDS", "0.5")
    assert command.quick.seconds(True) == 0.5


def test_no_command(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
