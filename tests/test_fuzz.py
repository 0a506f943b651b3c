"""A short run of `tests.fuzz`, which runs a million such cases by hand."""

import collections
import subprocess
import sys
from pathlib import Path

import pytest

import fastrelu

from . import fuzz
from .fuzz import elementwise, fused

CASES = 3_000


def test_random_calls():
    """Every path is reached, and every case is what NumPy and plain Python say."""
    paths, done = collections.Counter(), collections.Counter()
    with fuzz.counted(paths):
        for number in range(CASES):
            done[fuzz.run(0, number)] += 1
    assert done[True] > CASES // 2
    assert done[False] > CASES // 100
    rare = {"converted on threads", "sums by cycles"}
    for way in fuzz.WAYS:
        assert paths[way] > CASES // (500 if way in rare else 100), paths


def test_every_function_is_drawn():
    cases = [fuzz.draw(0, number) for number in range(CASES)]
    drawn = {(case.name, case.twin if isinstance(case, fused.Fused) else case.form == "twin") for case in cases}
    names = [*elementwise.PARAMETERS, *fused.FUNCTIONS]
    public = {name for name in dir(fastrelu) if callable(getattr(fastrelu, name))}
    assert drawn == {(name, twin) for name in names for twin in (False, True) if name + "_" * twin in public}


def test_cases_are_the_same_again():
    for number in range(50):
        assert repr(fuzz.draw(7, number)) == repr(fuzz.draw(7, number))
    assert repr(fuzz.draw(7, 1)) != repr(fuzz.draw(8, 1))


def test_a_failure_says_how_to_see_it_again(monkeypatch):
    for module in (elementwise, fused):
        monkeypatch.setattr(module, "public", lambda name, twin: lambda *args, **kwargs: 7)
    number = next(k for k in range(100) if getattr(fuzz.draw(3, k), "form", "public") == "public")
    with pytest.raises(fuzz.Wrong, match=f"run it again: python -m tests.fuzz --seed 3 --only {number}$"):
        fuzz.run(3, number)


def test_command_line():
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "5", "--first", "100", "--cases", "30"]
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "seed 5: 30 cases" in result.stdout
