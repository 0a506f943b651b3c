"""The examples in the docstrings run, and every public name has what its docstring promises."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import fastrelu

PUBLIC = [name for name in fastrelu.__all__ if callable(getattr(fastrelu, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name, capsys):
    function = getattr(fastrelu, name)
    for section in (
        ("Parameters", "Returns", "Examples", "Notes") if name.startswith(("relu", "leaky")) else ("Examples",)
    ):
        assert f"\n{section}\n---" in doctest.inspect.cleandoc(function.__doc__), section
    tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={"np": np, "fastrelu": fastrelu})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert sum(len(test.examples) for test in tests) > 0
    for test in tests:
        runner.run(test)
    assert runner.failures == 0, capsys.readouterr().out


def test_readme(capsys):
    """It is short, and its example runs as it stands and prints what it says."""
    readme = Path(__file__).parents[1] / "README.md"
    if not readme.exists():
        pytest.skip("the tests run outside of the repository")
    text = readme.read_text()
    assert len(text.splitlines()) <= 90
    ((block, output),) = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", text, re.M | re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out == output
