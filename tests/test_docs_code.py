"""The code in the documentation runs, prints what the page shows, and its links lead somewhere.

Each page is run as one program, in a process and a folder of its own. A comment line of MyST before a block,
``% needs: torch``, names what the block needs besides fastrelu's own requirements; a page is run once without such
blocks, and once more with them, which is skipped where what they need is missing. A ``text`` block right after a
``python`` block is what that block must print, with ``...`` for what differs from machine to machine.
"""

import doctest
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from fastrelu._cuda import executor
from fastrelu._operations import UFUNCS

from .helpers import run_python

ROOT = Path(__file__).parents[1]
if not (ROOT / "docs").exists():
    pytest.skip("the tests run outside of the repository", allow_module_level=True)
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
#: Pages that Sphinx makes
MADE = ("generated/", "auto_examples/", "api.md", "docs/auto_examples/", "docs/api.md")
NAMES = {"sklearn": "scikit-learn"}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    line: int
    code: str
    needs: tuple[str, ...]
    output: str | None


def blocks(path: Path) -> list[Block]:
    """Return the Python blocks of a page; `line` is that of the opening fence."""
    text = path.read_text()
    found = []
    fences = list(BLOCK.finditer(text))
    for k, fence in enumerate(fences):
        if fence[1] != "python":
            continue
        before = text[: fence.start()]
        needs = re.search(r"^% needs: (.+)\n\n?\Z", before, re.M)
        following = fences[k + 1] if k + 1 < len(fences) else None
        adjacent = following and following[1] == "text" and not text[fence.end() : following.start()].strip()
        found.append(
            Block(
                before.count("\n") + 1,
                fence[2],
                tuple(needs[1].split(", ")) if needs else (),
                following[2] if adjacent else None,
            )
        )
    return found


def cases() -> list:
    """Return each page, once without and once with each set of further needs that its blocks name."""
    return [
        pytest.param(path, needs, id="-".join((path.relative_to(ROOT).as_posix(), *needs)))
        for path in PAGES
        for needs in dict.fromkeys(block.needs for block in blocks(path))
    ]


def missing(need: str) -> str | None:
    if need == "cuda":
        return executor.unavailable()
    if importlib.util.find_spec(need) is None:
        return f"{NAMES.get(need, need)} is not installed"
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("path", "needs"), cases())
def test_page(path, needs, tmp_path):
    for need in needs:
        if reason := missing(need):
            pytest.skip(reason)
    wanted = [block for block in blocks(path) if set(block.needs) <= set(needs)]
    # Every block at its own lines, so that a traceback names them; where the fence was, the program prints a mark
    lines = [""] * (path.read_text().count("\n") + 1)
    for block in wanted:
        code = block.code.splitlines()
        lines[block.line - 1 : block.line + len(code)] = ["print('\\0')", *code]
    program = tmp_path / f"{path.stem}.py"
    program.write_text("\n".join(lines))
    # As the installed package's entry point does, so that this also runs from a source tree
    register = "import fastrelu._njit; fastrelu._njit.init()" if "numba" in program.read_text() else ""
    run = f"import os, runpy; os.chdir({str(tmp_path)!r}); runpy.run_path({program.name!r}, run_name='__main__')"
    printed = run_python(f"{register}\n{run}", timeout=300).stdout.split("\0\n")[1:]
    assert len(printed) == len(wanted)
    for block, output in zip(wanted, printed, strict=True):
        if block.output is not None:
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            fits = doctest.OutputChecker().check_output(block.output, output, options)
            assert fits, f"{path.name}, line {block.line}, printed\n{output}"


def headings(path: Path) -> set[str]:
    """Return the anchors that Sphinx and GitHub make of a page's headings."""
    text = BLOCK.sub("", path.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(path):
    text = BLOCK.sub("", path.read_text())
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
        # Where pages are read that lie beside no others, links are addresses: of our documentation and our repository
        target = target.removeprefix(f"{URLS['Source']}/blob/main/")
        if target.startswith(URLS["Documentation"]):
            target = "docs/" + re.sub(r"\.html$", ".md", target.removeprefix(URLS["Documentation"]) or "index.html")
            assert path.parent == ROOT, f"{path.name} names an address of its own neighbour"
        if target.startswith(("http://", "https://")) or target.startswith(MADE):
            continue
        page = path if not target else path.parent / target
        assert page.exists(), f"{path.name} links to {target}"
        if anchor and page.suffix == ".md":
            assert anchor[1:] in headings(page), f"{path.name} links to {target}{anchor}"


def test_every_page_is_in_a_toctree():
    """In exactly one, so that each page lies in one section of the navigation."""
    pages = {path.stem: path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".rst")}
    toctree = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.M | re.S)
    entries = [
        line for path in pages.values() for found in toctree.findall(path.read_text()) for line in found.split("\n")
    ]
    listed = [re.sub(r".*<(.*)>", r"\1", line) for line in entries if line and not line.startswith(":")]
    listed = sorted(name for name in listed if not name.startswith((*MADE, "self")))
    assert listed == sorted(pages.keys() - {"index", "sg_execution_times", "_functions"})  # the last two are made


@pytest.mark.parametrize("name", UFUNCS)
def test_operations_are_documented(name):
    assert f"\n| `{name}(" in (ROOT / "docs" / "semantics.md").read_text()


def test_the_design_names_every_module():
    """In its table of floors: a file that nobody can place has no place."""
    page = (ROOT / "docs" / "design.md").read_text()
    package = ROOT / "fastrelu"
    for path in package.rglob("*.py"):
        floor = path.relative_to(package).parts[0]
        if path.name != "__init__.py" and floor not in ("_bench", "_njit", "__main__.py"):
            assert f"`{path.name}`" in page, path
