"""The suite: every test is one provider in one case, and the providers of a case run interleaved.

pytest-benchmark measures one test after the other, so that a machine that slows down would make the later
provider look slow. Here the first test of a case runs the whole race (`fastrelu._bench.runner`), and each
test hands its own samples to pytest-benchmark, which keeps, groups, compares and prints them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from fastrelu._bench import machine, providers, runner
from fastrelu._bench.cases import Case
from fastrelu._bench.view import MODES

FIELDS = ("operation", "mode", "dtype", "size", "layout", "data")
PRESENT, LEFT_OUT = providers.available()
BY_NAME = {provider.name: provider for provider in PRESENT}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastrelu")
    group.addoption("--huge", action="store_true", help="sizes up to 1e8 elements too")
    group.addoption("--seconds", type=float, default=1.0, help="seconds for each case; default: 1")
    group.addoption("--threads", type=int, default=None, help="threads for everyone; default: Numba's")


def enabled(config: pytest.Config) -> bool:
    """Whether times are wanted; without --benchmark-enable the suite runs once, small, so that it cannot rot."""
    return bool(config.getoption("benchmark_enable")) or not config.getoption("benchmark_disable")


def pytest_report_header(config: pytest.Config) -> list[str]:
    if importlib.util.find_spec("pytest_benchmark") is None:
        return []
    described = machine.describe(config.getoption("--threads") or numba.get_num_threads())
    return [machine.line(described), *(f"left out: {name}: {reason}" for name, reason in LEFT_OUT.items())]


def pytest_configure(config: pytest.Config) -> None:
    # The libraries that are measured may warn about their own future; that is theirs
    config.addinivalue_line("filterwarnings", "ignore")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every provider in every case that the module lists in CASES."""
    cases: Sequence[Case] | None = getattr(metafunc.module, "CASES", None)
    if cases is None or "provider" not in metafunc.fixturenames:
        return
    if not enabled(metafunc.config):
        small = {}
        for case in cases:
            smaller = Case(case.operation, case.mode, case.dtype, min(case.size, 1_000), case.layout, case.data)
            small[smaller] = None
        cases = list(small)
    elif not metafunc.config.getoption("--huge"):
        cases = [case for case in cases if case.size < 100_000_000]
    wanted = [(case, provider) for case in dict.fromkeys(cases) for provider in PRESENT if provider.supports(case)]
    metafunc.parametrize(
        [*FIELDS, "provider"],
        [(*(getattr(case, name) for name in FIELDS), provider.name) for case, provider in wanted],
        ids=[case_id(case, provider.name) for case, provider in wanted],
    )


def case_id(case: Case, provider: str) -> str:
    """Return a test's name: what is measured, then who."""
    parts = [case.operation, case.mode, case.dtype, str(case.size)]
    parts += [case.layout] * (case.layout != "contiguous") + [case.data] * (case.data != "normal")
    return "-".join([*parts, provider])


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], np.ndarray]:
    """Pre-activations of a network trained on handwritten digits, recorded when a case first wants them."""
    known: list[np.ndarray] = []

    def get() -> np.ndarray:
        if not known:
            from record_digits import record

            known.append(np.load(record(tmp_path_factory.mktemp("digits") / "digits.npy")))
        return known[0]

    return get


@pytest.fixture(scope="session")
def races(request: pytest.FixtureRequest, digits: Callable[[], np.ndarray]) -> Iterator[Callable[[Case], runner.Race]]:
    """Run the race of a case once, with the providers whose tests were selected."""
    last: dict[Case, runner.Race] = {}
    selected: dict[Case, list[str]] = {}
    for item in request.session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if "provider" in params:
            selected.setdefault(Case(*(params[name] for name in FIELDS)), []).append(params["provider"])
    config = request.config
    runner.set_threads(PRESENT, config.getoption("--threads") or numba.get_num_threads())
    options: dict[str, Any] = {"seconds": config.getoption("--seconds")}
    if not enabled(config):
        options = {"seconds": 0.0, "rounds": (1, 1), "batch": 0.0}

    def get(case: Case) -> runner.Race:
        if case not in last:
            last.clear()  # samples of cases that are done are pytest-benchmark's
            values = np.resize(digits().astype(case.dtype), case.size) if case.data == "digits" else None
            chosen = [BY_NAME[name] for name in selected[case]]
            last[case] = runner.race(case, chosen, values=values, **options)
        return last[case]

    yield get
    last.clear()


def replay(benchmark: Any, samples: Sequence[float], group: str, extra: dict[str, Any]) -> None:
    """Hand samples that were measured elsewhere to pytest-benchmark."""
    stamps = iter([stamp for sample in samples for stamp in (0.0, sample)])

    def recorded() -> float:
        return next(stamps)

    # pedantic reads its timer twice a round: there is no public way to give it a measured duration
    benchmark._timer = recorded
    benchmark.group = group
    benchmark.extra_info.update(extra)
    benchmark.pedantic(lambda: None, rounds=len(samples), iterations=1)


@pytest.fixture
def contest(
    benchmark: Any, races: Callable[[Case], runner.Race], operation: str, mode: str, dtype: str, size: int,
    layout: str, data: str, provider: str,
) -> Callable[[], runner.Measurement]:  # fmt: skip
    """Run one provider in one case."""

    def run() -> runner.Measurement:
        case = Case(operation, mode, dtype, size, layout, data)
        one = races(case)
        if provider in one.left_out:
            pytest.skip(one.left_out[provider])
        each = one.measurements[provider]
        special = [text for text, usual in ((layout, "contiguous"), (data, "normal")) if text != usual]
        group = ", ".join([operation, MODES[mode], dtype, f"{size:,}", *special])
        replay(benchmark, each.samples, group, each.record())
        return each

    return run


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["fastrelu"] = machine.describe(config.getoption("--threads") or numba.get_num_threads())
    machine_info["left_out"] = LEFT_OUT
    machine_info["node"] = ""  # the name of the computer is nobody's business


HERE = Path(__file__).parent
