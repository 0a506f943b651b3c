"""The benchmark's own tests: the table of providers, the check against the oracle, the reports. Nothing is timed."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastrelu._bench import check, machine, oracle, providers, runner, view
from fastrelu._bench.cases import BACKWARD, FORWARD, MASK_MODES, MASKED, MODES, SUM_MODES, Case, Operands, make_data

ROOT = Path(__file__).parents[1]
PLAIN = [each for each in providers.PROVIDERS if not each.module and not each.name.startswith("numba")]


@pytest.fixture(scope="module")
def report():
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import report

        yield report
    finally:
        sys.path.remove(str(ROOT / "bench"))


def test_every_operation_has_its_entries():
    assert set((*FORWARD, *BACKWARD)) == set(oracle.ORACLES)
    ours = [each for each in providers.PROVIDERS if each.name == providers.AUTOMATIC]
    entries = {(name, mode) for name in oracle.ORACLES for mode in MODES if mode != "loop"}
    entries |= {(name, mode) for name in MASKED for mode in MASK_MODES}
    assert set(ours[0].code) == entries | {(name, mode) for mode, name in SUM_MODES.items()}
    for name in oracle.ORACLES:
        assert any(each.role == "peer" and (name, "new") in each.code for each in providers.PROVIDERS)


def test_names_are_unique():
    names = [each.name for each in providers.PROVIDERS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("provider", PLAIN, ids=lambda each: each.name)
def test_providers_compute_what_they_say(provider, dtype):
    if (reason := provider.left_out()) is not None:
        pytest.skip(reason)
    for operation, mode in provider.code:
        case = Case(operation, mode, dtype, 1000)
        if not provider.supports(case):
            continue
        operands = Operands(case)
        names = providers.Names(operands, provider.names)
        found = check.check(provider, names, check.Reference(operands))
        # A product with a mask gives -0.0 where a dead unit's gradient is negative
        assert set(found) <= ({"-0.0"} if provider.role == "peer" else set()), (operation, mode)


@pytest.mark.parametrize(
    ("name", "operation", "mode", "differs"),
    [
        ("x * (x > 0)", "relu", "new", {"Inf"}),
        ("numpy.where", "relu", "new", {"NaN", "-0.0"}),
        ("numpy.multiply + numpy.maximum", "leaky_relu", "out", {"slope > 1"}),
        ("numpy.greater + numpy.multiply", "relu_backward", "out", {"NaN", "Inf"}),
        ("numpy.where", "leaky_relu", "new", set()),
        ("fastrelu", "leaky_relu", "out", set()),
    ],
)
def test_special_values_are_marked(name, operation, mode, differs):
    provider = next(each for each in providers.PROVIDERS if each.name == name)
    found = set(check.special(provider, Case(operation, mode)))
    assert found >= differs
    assert bool(found) == bool(differs)


def wrong(role):
    return providers.Provider("wrong", role, {("relu", "out"): "np.abs(x, out=out)"})


def test_a_wrong_peer_is_marked_and_timed():
    one = runner.race(Case("relu", "out", size=100), [wrong("peer")], seconds=0, rounds=(1, 1))
    assert "values" in one.measurements["wrong"].differs


@pytest.mark.parametrize("role", ["fastrelu", "limit"])
def test_ours_must_be_right(role):
    with pytest.raises(check.WrongResult, match="wrong differs"):
        runner.race(Case("relu", "out", size=100), [wrong(role)], seconds=0, rounds=(1, 1))


def test_a_provider_that_fails_is_named():
    broken = providers.Provider("broken", "peer", {("relu", "new"): "np.no_such_function(x)"})
    one = runner.race(Case("relu", "new", size=10), [broken], seconds=0, rounds=(1, 1))
    assert "no_such_function" in one.left_out["broken"]


def test_a_provider_that_is_not_installed_is_named():
    absent = dataclasses.replace(wrong("peer"), module="no_such_module", install="pip install it")
    assert providers.available([absent]) == ([], {"wrong": "not installed; pip install it"})


def test_sample_of_a_large_array_has_ends_and_borders():
    size, itemsize = 3_000_001, 4
    chosen = set(check.sample(size, itemsize).tolist())
    border = check.PIECE_BYTES // itemsize
    assert {0, 1, size - 1, border - 1, border, border + 1, 100 * border - 1, 100 * border} <= chosen
    assert len(chosen) < 50_000
    assert np.array_equal(check.sample(1_000_000, 4), np.arange(1_000_000))


def test_an_error_at_a_border_is_found():
    operands = Operands(Case("relu", "out", size=2_000_000))
    reference = check.Reference(operands)
    right = np.maximum(operands["x"], np.float32(0))
    assert reference.differences(right) == ()
    right[5 * check.PIECE_BYTES // 4] += 1
    assert reference.differences(right) == ("values",)


@pytest.mark.parametrize("mode", MASK_MODES)
def test_a_wrong_mask_is_found(mode):
    code = {"mask": "np.maximum(x, 0, out=out)", "mask inplace": "np.maximum(x, 0, out=x)"}[mode]
    bad = providers.Provider("wrong", "fastrelu", {("relu", mode): f"bits[:] = 255; {code}"})
    with pytest.raises(check.WrongResult, match="mask"):
        runner.race(Case("relu", mode, size=100), [bad], seconds=0, rounds=(1, 1))


@pytest.mark.parametrize("mode", SUM_MODES)
def test_wrong_sums_are_found(mode):
    code = {
        "counts": "np.maximum(x, 0, out=out); ",
        "slope grad": "np.multiply(grad, np.where(x > 0, one, s), out=out); ",
    }
    bad = providers.Provider("wrong", "fastrelu", {(SUM_MODES[mode], mode): f"{code.get(mode, '')}sums[:] = 3"})
    for layout in ("contiguous", "512 columns", "channels first"):
        with pytest.raises(check.WrongResult, match="sums"):
            runner.race(Case(SUM_MODES[mode], mode, size=1000, layout=layout), [bad], seconds=0, rounds=(1, 1))


def test_in_place_input_is_put_back():
    operands = Operands(Case("relu", "inplace", size=100))
    before = operands["x"].copy()
    operands["x"][:] = 7
    operands.restore()
    assert np.array_equal(operands["x"], before)


def test_only_what_the_code_names_is_made():
    operands = Operands(Case("relu", "out", size=10))
    check.compiled("np.maximum(x, 0, out=out)", providers.Names(operands, {}), "    ")()
    assert set(operands) == {"np", "x", "out"}


def test_free_names():
    assert check.free_names("out_items[:] = [max(v, 0.0) for v in items]") == ["items", "out_items"]
    assert check.free_names("x *= x > 0") == ["x"]


@pytest.mark.parametrize(
    ("case", "moved"),
    [
        (Case("relu", "out", "float32", 10), 80), (Case("relu", "inplace", "float16", 10), 40),
        (Case("relu_backward", "out", "float64", 10), 240), (Case("leaky_relu", "new", "int8", 10), 90),
        (Case("relu", "mask", "float32", 10), 82), (Case("relu_backward", "mask inplace", "float16", 16), 66),
        (Case("relu", "counts", "float32", 10), 80), (Case("relu", "counts only", "float32", 10), 40),
        (Case("leaky_relu_backward", "slope grad only", "float32", 10), 80),
    ],
)  # fmt: skip
def test_bytes(case, moved):
    assert case.bytes == moved


def test_data_kinds():
    assert (make_data("positive", 1000, "float32") > 0).all()
    assert (make_data("negative", 1000, "float32") < 0).all()
    assert 300 < np.count_nonzero(make_data("normal", 1000, "int8") < 0) < 700


def test_machine():
    described = machine.describe(2)
    assert described["threads"] == 2
    assert described["versions"]["numpy"] == np.__version__
    assert machine.caches("L1 48 KiB, L2 1,024 KiB") == {"L1": 49152, "L2": 1 << 20}
    assert machine.slug({"cpu": "A(R) B 1.0", "cores": 2}) == "a-r-b-1-0-2-cores"
    json.dumps(described)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5e-7, "150 ns"), (9.996e-7, "1.00 us"), (1.234e-3, "1.23 ms"), (12, "12.0 s")]
)
def test_duration(seconds, text):
    assert view.duration(seconds) == text


def a_race(data, *measured):
    case = Case("relu", "out", "float32", 1000, data=data)
    rows = {name: runner.Measurement(case, name, "peer", median, median, median, 1, 1) for name, median in measured}
    return runner.Race(case, rows)


def test_a_race_in_a_sentence():
    """Only beside what one would write otherwise, and only where fastrelu took part."""
    one = a_race("file", ("fastrelu", 2e-6), ("numpy.maximum(x, 0)", 5e-6), ("numexpr", 9e-6), ("torch", 1e-6))
    text = "2.50 times as fast as numpy.maximum(x, 0), 0.50 times as fast as torch"
    assert view.summary([one]) == [f"relu, out=, float32, your data, 1,000: {text}"]
    assert view.summary([a_race("normal", ("fastrelu", 2e-6)), a_race("normal", ("torch", 2e-6))]) == []


def test_the_columns_of_a_table_have_names():
    pytest.importorskip("rich")
    race = a_race("normal", ("fastrelu", 2e-6), ("torch", 5e-6))
    (table,) = view.tables([race], 120)
    assert [column.header for column in table.columns][1:4] == ["1,000\ntime", "\nx fastrelu", "\nGB/s"]
    assert [list(column.cells)[1] for column in table.columns[:4]] == ["torch", "5.00 us", "2.50", "1.6"]


def row(provider, median, **changes):
    return {
        "operation": "relu", "mode": "out", "dtype": "float32", "size": 10_000, "layout": "contiguous",
        "data": "normal", "provider": provider, "role": "fastrelu" if provider == "fastrelu" else "peer",
        "median": median, "low": median, "high": median, "bytes": 80_000, "gbps": 1.0, "differs": [], **changes,
    }  # fmt: skip


def made(*cases):
    described = {
        "cpu": "CPU",
        "cores": 2,
        "threads": 2,
        "versions": {"numpy": "2"},
        "date": "2020-01-01",
        "commit": "abc",
    }
    described |= {"caches": {"L1": 1 << 15}, "processor": "avx2"}
    return {"some": {"machine": described, "left_out": {}, "cases": list(cases), "startup": {}, "memory": []}}


def test_readme_table_shows_ratios(report):
    million = [row("fastrelu", 1e-6), row("torch", 5e-7), row("numpy.maximum(x, 0)", 4e-6)]
    backward = [row("fastrelu", 2e-6), row("Python max() loop", 1e-3), row("numpy.greater + numpy.multiply", 5e-6)]
    cases = [each | {"size": 1_000_000} for each in million]
    cases += [each | {"size": 1_000_000, "operation": "relu_backward"} for each in backward]
    section = report.readme_section(made(*cases))
    assert "|  | 1 million | backward, 1 million |" in section
    for line in ("| NumPy | 4.00 x | 2.50 x |", "| PyTorch | 0.50 x |  |", "| Python loop |  | 500 x |"):
        assert line in section
    for text in ("takes 1.00 us, 2.00 us", "CPU, 2 cores", "numpy 2", "2020-01-01"):
        assert text in section


def test_benchmarks_page_begins_with_a_summary(report):
    page = report.benchmarks_page(made(row("fastrelu", 1e-6), row("torch", 5e-7), row("numpy.maximum(x, 0)", 4e-6)))
    assert "| `relu`, 10,000 | 1.00 us | 4.00 x |  |  | 0.50 x |  |" in page
    assert "commit abc" in page


def test_speedups(report):
    """NumPy's time over fastrelu's and over torch's, by size; calls on a few elements are left out."""
    rows = [row("fastrelu", 1e-6), row("torch", 5e-7), row("numpy.maximum(x, 0)", 4e-6)]
    cases = [each | {"size": size} for size in (10_000, 3, 100) for each in rows]
    cases += [each | {"size": 1_000} for each in rows[1:]]
    assert report.speedups(cases) == {"forward": ({100: 4.0, 10_000: 4.0}, {100: 8.0, 1_000: 8.0, 10_000: 8.0})}


def test_labels_are_moved_apart():
    from fastrelu._bench import plot

    assert plot.apart({"a": 2.0, "b": 10.0, "c": 1.9}, 2) == {"a": 3.8, "b": 10.0, "c": 1.9}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_is_that_of_the_latest_results(report, tmp_path, theme):
    pytest.importorskip("matplotlib")
    import results

    from fastrelu._bench import plot

    latest = next(iter(results.load_all().values()))
    lines = report.speedups(latest["cases"])
    assert list(lines) == [label for label, *_ in report.SPEEDUPS]
    assert all(ours.keys() >= torchs.keys() and len(torchs) >= 6 for ours, torchs in lines.values())
    plot.speedups(lines, theme, machine.line(latest["machine"]), str(tmp_path / "made.svg"))
    for file in (tmp_path / "made.svg", ROOT / "docs" / "_static" / f"speedup-{theme}.svg"):
        drawn = file.read_text()
        assert all(label in drawn for label in (*lines, "NumPy", "PyTorch", "fastrelu"))
        assert machine.line(latest["machine"]) in drawn, "run: python bench/report.py"


def test_losses_are_listed(report):
    found = report.behind(
        [row("fastrelu", 1e-6), row("torch", 5e-7), row("numpy.clip", 2e-6), row("C", 1e-7, role="limit")]
    )
    assert [(case[1], case[2]) for case in found] == [("`torch`", "0.50 x")]
    assert "| `relu`" not in report.benchmarks_page({})


def test_masks_have_a_section(report):
    assert "One bit per element" not in report.benchmarks_page(made(row("fastrelu", 1e-6)))
    rows = [row("fastrelu", 2e-6), row("fastrelu without a mask", 3e-6), row("torch", 4e-6)]
    rows = [each | {"operation": "relu_backward", "mode": "mask"} for each in rows]
    assert (
        "| relu_backward, out=, with a mask, float32, 10,000 | 2.00 us | 1.50 x |  | 2.00 x |"
        in report.benchmarks_page(made(*rows))
    )


def test_sums_have_a_section(report):
    assert "Sums per unit" not in report.benchmarks_page(made(row("fastrelu", 1e-6)))
    rows = [row("fastrelu", 2e-6), row("fastrelu without sums", 1e-6), row("numpy.count_nonzero", 9e-6)]
    rows = [each | {"mode": "counts", "layout": "512 columns"} for each in rows]
    wanted = "| relu, out=, with counts, float32, 512 columns, 10,000 | 2.00 us | 0.50 x | 4.50 x |  |"
    assert wanted in report.benchmarks_page(made(*rows))


def test_write_readme_keeps_the_rest(report, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_readme(path, {})
    assert path.read_text() == f"before\n{report.BEGIN}\n{report.NOT_RECORDED}\n{report.END}\nafter\n"
    path.write_text("no markers")
    with pytest.raises(SystemExit, match="bench:begin"):
        report.write_readme(path, {})


def test_readme_agrees_with_the_results(report):
    """Nobody typed the table: it is what `python bench/report.py` makes of the recorded results."""
    import results

    text = (ROOT / "README.md").read_text()
    assert report.readme_section(results.load_all()) in text, "run: python bench/report.py"


def test_benchmarks_page_agrees_with_the_results(report):
    import results

    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page == report.benchmarks_page(results.load_all()), "run: python bench/report.py"


def test_gpu_results_become_tables_and_plots(report, tmp_path):
    rows = [
        {
            "operation": operation, "dtype": "float32", "bytes": size, "provider": provider,
            "seconds": {"p20": 1e-5, "p50": 2e-5, "p80": 3e-5}, "gb_per_s": 1234.5 * share, "share_of_copy": share,
        }
        for operation in ("forward", "in place", "leaky", "backward")
        for provider, share in (("fastrelu", 0.97), ("torch", 0.88), ("copy", 1.0))
        for size in (1 << 20, 1 << 28)
    ]  # fmt: skip
    machine = {"gpu": "Some GPU", "status": "driver 1.2", "date": "2026-01-02T03:04:05", "versions": {"fastrelu": "0"}}
    calls = [{"case": "new", "provider": "fastrelu", "seconds": {"p20": 1e-6, "p50": 2.5e-6, "p80": 3e-6}}]
    folder = tmp_path / "results" / "cuda"
    folder.mkdir(parents=True)
    (folder / "some-gpu.json").write_text(json.dumps({"machine": machine, "bandwidth": rows, "calls": calls}))
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    monkey = pytest.MonkeyPatch()
    monkey.setattr(sys, "argv", ["report.py", "--results", str(folder.parent), "--root", str(tmp_path)])
    try:
        report.main()
    finally:
        monkey.undo()
    text = (tmp_path / "docs" / "benchmarks_gpu.md").read_text()
    assert "Some GPU; driver 1.2; fastrelu 0; 2026-01-02" in text
    assert "| `fastrelu` | 1,197 (0.97) | 1,197 (0.97) |" in text
    assert "| new | `fastrelu` | 2.50 us |" in text
    assert (tmp_path / "docs" / "_static" / "bench" / "gpu-some-gpu.svg").stat().st_size > 1000
