"""Cache folders as production has them: read-only, full, damaged, shared. Each trial runs in a process of its own."""

import os
import platform
import shutil
import sys
from pathlib import Path

import pytest

import fastrelu

from .children import CHECK, python

pytestmark = pytest.mark.slow
CALLS = CHECK + "check(10, names=['relu', 'leaky_relu'])\n"
#: Counts what is compiled rather than loaded.
COUNTED = """
import fastrelu
from fastrelu import _cache
compiled = []
class CFunc(_cache.CFunc):
    def compile(self):
        compiled.append(1)
        super().compile()
_cache.CFunc = CFunc
"""
#: Gives up root's right to write everywhere, so that permissions hold as for anybody.
UNPRIVILEGED = """
import ctypes
if hasattr(ctypes.CDLL(None), "capset"):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
"""
needs_permissions = pytest.mark.skipif(sys.platform != "linux", reason="permissions hold for root elsewhere")


def kept(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def copied(folder: Path) -> Path:
    """Return a copy of the package, as an installation of its own."""
    source = os.path.dirname(fastrelu.__file__)
    shutil.copytree(source, folder / "fastrelu", ignore=shutil.ignore_patterns("__pycache__", "_bench", "_cuda"))
    return folder


def test_a_file_damaged_anywhere(tmp_path):
    """Wrong bytes, and too few or too many, are never run; and a call replaces them."""
    python(CALLS, NUMBA_CACHE_DIR=str(tmp_path))
    good = kept(tmp_path)
    python(
        CALLS
        + """
import os
from fastrelu import _cache, _kernels
from numba.core import types
sig = types.intp(*[types.intp] * 4)
name = "relu-float32"
path = _cache.folder() / _cache._file(name, sig)
good = path.read_bytes()
assert _cache.load(name, sig) is not None
def damaged(content):
    path.write_bytes(content)
    assert _cache.load(name, sig) is None
for place in [*range(100), *range(100, len(good), 97), len(good) - 1]:
    for flip in (0x01, 0x80, 0xFF):
        damaged(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])
    damaged(good[:place])
damaged(good + b"\\0")
damaged(good + good)
damaged(bytes(len(good)))
damaged(good[:32])
path.write_bytes(good)
assert _cache.load(name, sig) is not None
for other in _cache.folder().glob("fastrelu-leaky*"):  # of another function, under this one's name
    damaged(other.read_bytes()[:32] + good[32:])
path.unlink()
path.mkdir()
assert _cache.load(name, sig) is None
_kernels.build("relu", np.dtype("float32"))
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    folder = next(tmp_path.rglob("fastrelu-relu-float32-*"))
    assert folder.is_dir()
    python(CALLS, NUMBA_CACHE_DIR=str(tmp_path))
    folder.rmdir()
    python(CALLS, NUMBA_CACHE_DIR=str(tmp_path))
    assert kept(tmp_path).keys() == good.keys()


@needs_permissions
def test_a_file_system_that_fills_up(tmp_path):
    """Writing fails in the middle: nothing half-written stays, and nothing is said about it."""
    result = python(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))" + CALLS,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert (result.stdout, result.stderr) == ("", "")
    assert not kept(tmp_path)


def test_a_folder_that_disappears(tmp_path):
    """Before the first call, between calls, and while a function is being written."""
    python(
        CHECK
        + """
import os, shutil, fastrelu
from fastrelu import _cache
folder = os.environ["NUMBA_CACHE_DIR"]
check(10, names=["relu"])
shutil.rmtree(folder)
check(10, names=["leaky_relu"])
assert os.path.isdir(folder)
replace = os.replace
def vanish(*args):
    shutil.rmtree(folder)
    replace(*args)
os.replace = vanish
check(10, names=["relu_grad"])
""",
        NUMBA_CACHE_DIR=str(tmp_path / "not yet" / "there"),
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_sixteen_processes_compile_at_once(tmp_path):
    """Into one empty folder: each is right, and together they leave what one would have left."""
    code = (
        CHECK
        + """
import os, signal
check(10, names=["relu_grad"])  # what the first compilation of a process prepares, once for all
ready, go = os.pipe()
children = []
for _ in range(COUNT):
    pid = os.fork()
    if pid == 0:
        os.close(go)
        signal.alarm(100)
        os.read(ready, 1)  # ends for all at once, when the parent closes the other end
        check(10, names=["relu"])
        os._exit(0)
    children.append(pid)
os.close(go)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(children)
"""
    )
    for count in (16, 1):
        python(code.replace("COUNT", str(count)), NUMBA_CACHE_DIR=str(tmp_path / str(count)))
    assert kept(tmp_path / "16").keys() == kept(tmp_path / "1").keys()
    assert kept(tmp_path / "1")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of x86-64")
def test_one_folder_for_several_processors(tmp_path):
    """A home that machines share: each finds its own code there, and never another's."""
    processors = [{}, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+f16c,+fma"}]
    code = COUNTED + CHECK + "check(1000, 'float16', names=['leaky_relu'])\nprint(len(compiled))"
    counts = [
        int(python(code, NUMBA_CACHE_DIR=str(tmp_path), **processor).stdout) for processor in processors + processors
    ]
    assert counts[0] == counts[1] > 0
    assert counts[2:] == [0, 0]
    assert len(kept(tmp_path)) == counts[0] + counts[1]


@pytest.mark.parametrize("package", ["numba", "llvmlite"])
def test_another_version_compiles_anew(package, tmp_path):
    """After an upgrade the old code stays unused, and after a downgrade it serves again."""
    trial = f"import {package}\nVERSION\n" + COUNTED + CHECK + "check(10, names=['relu'])\nprint(len(compiled))"
    counts = [
        int(python(trial.replace("VERSION", version), NUMBA_CACHE_DIR=str(tmp_path)).stdout)
        for version in ("", f"{package}.__version__ = '99.9.0'", "")
    ]
    assert counts[0] == counts[1] > 0
    assert counts[2] == 0


@needs_permissions
def test_a_read_only_installation(tmp_path):
    """It keeps its code in a folder of the user's, or, where nothing may be written, compiles in each process."""
    root, home, closed = copied(tmp_path / "site"), tmp_path / "home", tmp_path / "closed"
    home.mkdir()
    closed.mkdir()
    for path in root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def compiled(home, cache="", mode=0o755):
        environment = {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "NUMBA_CACHE_DIR": str(cache)}
        environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        closed.chmod(mode)
        result = python(
            UNPRIVILEGED + COUNTED + CHECK + "check(10, names=['relu'])\nprint(len(compiled), fastrelu.__file__)",
            **environment,
        )
        closed.chmod(0o755)
        count, file = result.stdout.split()
        assert file.startswith(str(root))
        return int(count)

    everything = compiled(Path("/proc/none"))
    assert everything > 0
    for mode in (0o555, 0o000):  # may not be written, or not even read
        assert compiled(closed, closed, mode) == everything
        assert not kept(closed)
    assert compiled(home, closed, 0o555) == everything
    assert len(kept(home)) == everything
    assert compiled(home) == 0


def test_an_editable_installation(tmp_path):
    """A path file leads to the source; code is kept beside it, and a change there is seen."""
    root, site = copied(tmp_path / "checkout"), tmp_path / "site"
    site.mkdir()
    (site / "fastrelu.pth").write_text(str(root))
    code = f"""
        import sys, site
        site.addsitedir({str(site)!r})
        sys.path.insert(0, sys.path.pop())
        import numpy as np, fastrelu
        assert fastrelu.__file__.startswith({str(root)!r})
        print(fastrelu.leaky_relu(np.array([-1.0]), 0.5)[0])
        """
    ours = {"NUMBA_CACHE_DIR": "", "PYTHONSAFEPATH": "1"}
    assert float(python(code, **ours).stdout) == -0.5
    old = set(kept(root / "fastrelu" / "__pycache__"))
    assert any(name.startswith("fastrelu-leaky_relu-float64-") for name in old)
    formulas = root / "fastrelu" / "_formulas.py"
    formulas.write_text(formulas.read_text().replace("= x * negative_slope", "= x - negative_slope"))
    assert float(python(code, **ours).stdout) == -1.5
    assert float(python(code, **ours).stdout) == -1.5


def test_inside_an_archive(tmp_path):
    """As zipped applications carry it: its new version never runs the old one's code."""
    root = copied(tmp_path / "source")
    archive = tmp_path / "application.zip"
    code = "import numpy as np, fastrelu; print(fastrelu.leaky_relu(np.array([-1.0]), 0.5)[0])"

    def run():
        archive.unlink(missing_ok=True)
        shutil.make_archive(str(archive.with_suffix("")), "zip", root)
        home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": ""}
        return float(python(code, PYTHONPATH=str(archive), PYTHONSAFEPATH="1", **home).stdout)

    if (first := run()) != -0.5:
        pytest.fail(f"{first}, before any change")
    formulas = root / "fastrelu" / "_formulas.py"
    formulas.write_text(formulas.read_text().replace("= x * negative_slope", "= x - negative_slope"))
    assert run() == -1.5
