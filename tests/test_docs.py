"""The examples in the docstrings run, every public name has what its docstring promises, and nothing is said twice."""

import ast
import doctest
import inspect
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fastrelu
from fastrelu._api import docs
from fastrelu._operations import FUNCTIONS

from .helpers import run_python

PUBLIC = [name for name in fastrelu.__all__ if callable(getattr(fastrelu, name))]
SECTIONS = ("Parameters", "Returns", "Raises", "Notes", "Examples")
TITLE = re.compile(r"^([A-Z][\w ]+)\n---+\n", re.M)


def sections(document: str) -> dict[str, str]:
    _, *parts = TITLE.split(inspect.cleandoc(document))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def entries(section: str) -> list[str]:
    """Return the entries of a section, as there is one for each parameter."""
    return [each.strip() for each in re.split(r"\n(?=\S)", section)]


def in_the_source() -> dict[str, str]:
    """Return the docstrings of the public functions as they stand in the source."""
    found = {}
    for path in Path(docs.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS:
                found[node.name] = ast.get_docstring(node) or ""
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name, capsys):
    function = getattr(fastrelu, name)
    found = sections(function.__doc__)
    assert {*SECTIONS} <= {*found} if name in FUNCTIONS else "Examples" in found
    tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={"np": np, "fastrelu": fastrelu})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert sum(len(test.examples) for test in tests) > 0
    for test in tests:
        runner.run(test)
    assert runner.failures == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_is_whole(name):
    """It says something of each parameter and error, of NaN and of zeros; no words are left to be filled in."""
    function = getattr(fastrelu, name)
    found = sections(function.__doc__)
    said = [entry.partition("\n")[0].partition(" : ")[0] for entry in entries(found["Parameters"])]
    assert said == [str(p).partition("=")[0] for p in parameters(function)]
    assert [entry.split()[0] for entry in entries(found["Raises"])] == ["TypeError", "ValueError", "RuntimeError"]
    assert re.search("NaN", found["Notes"])
    assert re.search(r"zero|0\b", found["Notes"])
    assert not re.search(r"\{[a-z_]+\}", function.__doc__)
    assert max(len(line) for line in function.__doc__.splitlines()) <= 118


def parameters(function):
    bare = inspect.signature(function).parameters.values()
    return [each.replace(annotation=each.empty) for each in bare]


def test_nothing_is_written_twice():
    """What two docstrings say of a parameter, a result or an error is in `_api/docs.py`; twins take over the notes."""
    said: Counter[str] = Counter()
    for document in in_the_source().values():
        found = sections(document)
        said.update(entry for title in SECTIONS[:3] if title in found for entry in entries(found[title]))
        said.update(found.get("Notes", "").split("\n\n"))
    del said[""]
    assert [text for text, count in said.items() if count > 1] == []


def test_every_function_is_public():
    """With a def that grep finds, and in all lists of names that a new function could be left out of."""
    assert set(in_the_source()) == set(FUNCTIONS)
    assert set(FUNCTIONS) <= set(fastrelu.__all__)
    page = Path(__file__).parents[1] / "docs" / "api.rst"
    if page.exists():  # else the tests run outside of the repository
        listed = page.read_text().split()
        assert "_functions.rst" in listed  # which has the functions of all rows
        assert set(PUBLIC) - set(FUNCTIONS) <= set(listed)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults_are_those_of_the_row(name):
    known = inspect.signature(getattr(fastrelu, name)).parameters
    for operand in FUNCTIONS[name].operands:
        default = known[operand.name].default
        if operand.kind != "parameter":
            assert default is inspect.Parameter.empty
        elif operand.follows:
            assert default is None
        else:
            assert default == operand.default


def test_without_docstrings():
    """``python -OO`` drops them all."""
    code = [
        "import fastrelu, inspect, numpy as np",
        "x = np.array([-1.0, 2.0])",
        "print([f.__doc__ for f in (fastrelu.relu, fastrelu.relu_, fastrelu.relu_with_mask)])",
        "print(inspect.signature(fastrelu.relu_grad_))",
        "print(fastrelu.relu(x), fastrelu.relu(x, target='serial'), fastrelu.relu_with_mask(x)[1])",
    ]
    assert run_python("\n".join(code), PYTHONOPTIMIZE="2").stdout.splitlines() == [
        "[None, None, None]",
        "(x, /, at_zero=0.0, *, target=None, **ufunc_kwargs)",
        "[0. 2.] [0. 2.] [2]",
    ]


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
