"""Cache folders as production has them: read-only, full, damaged, shared, of others; and programs without our files."""

import compileall
import functools
import hashlib
import os
import pickle
import platform
import runpy
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastrelu
from fastrelu import _versions
from fastrelu._runtime import code_cache

from .children import CHECK, python

pytestmark = pytest.mark.slow
CALLS = CHECK + "check(10, names=['relu', 'leaky_relu'])\n"
#: Counts what is compiled rather than loaded.
COUNTED = """
import fastrelu
from fastrelu._runtime import code_cache
compiled = []
class CFunc(code_cache.CFunc):
    def compile(self):
        compiled.append(1)
        super().compile()
code_cache.CFunc = CFunc
"""
#: Gives up root's right to write everywhere, so that permissions hold as for anybody.
UNPRIVILEGED = """
import ctypes
if hasattr(ctypes.CDLL(None), "capset"):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
"""
#: Makes a change of the formula of Leaky ReLU visible: -1.0 with a slope of 0.5 gives -1.5, no longer -0.5.
FORMULA = "= x * negative_slope", "= x - negative_slope"
SLOPED = "import numpy as np, fastrelu; print(fastrelu.leaky_relu(np.array([-1.0]), 0.5)[0])"
needs_permissions = pytest.mark.skipif(sys.platform != "linux", reason="permissions hold for root elsewhere")


needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away")
posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are not looked at")


def kept(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def copied(folder: Path) -> Path:
    """Return a copy of the package, as an installation of its own."""
    source = os.path.dirname(fastrelu.__file__)
    shutil.copytree(source, folder / "fastrelu", ignore=shutil.ignore_patterns("__pycache__", "_bench", "_cuda"))
    return folder


def change_formula(root: Path) -> None:
    formulas = root / "fastrelu" / "_formulas.py"
    formulas.write_text(formulas.read_text().replace(*FORMULA))


def test_a_file_damaged_anywhere(tmp_path):
    """Wrong bytes, and too few or too many, are never run; and a call replaces them."""
    python(CALLS, NUMBA_CACHE_DIR=str(tmp_path))
    good = kept(tmp_path)
    python(
        CALLS
        + """
import os
from fastrelu._runtime import code_cache
from fastrelu._runtime import compiler
from numba.core import types
sig = types.intp(*[types.intp] * 4)
name = "relu-float32"
path = code_cache.folder() / code_cache._file(name, sig)
good = path.read_bytes()
assert code_cache.load(name, sig) is not None
def damaged(content):
    path.write_bytes(content)
    assert code_cache.load(name, sig) is None
for place in [*range(100), *range(100, len(good), 97), len(good) - 1]:
    for flip in (0x01, 0x80, 0xFF):
        damaged(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])
    damaged(good[:place])
damaged(good + b"\\0")
damaged(good + good)
damaged(bytes(len(good)))
damaged(good[:32])
path.write_bytes(good)
assert code_cache.load(name, sig) is not None
for other in code_cache.folder().glob("fastrelu-leaky*"):  # of another function, under this one's name
    damaged(other.read_bytes()[:32] + good[32:])
path.unlink()
path.mkdir()
assert code_cache.load(name, sig) is None
compiler.kernel("relu", np.dtype("float32"))
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
from fastrelu._runtime import code_cache
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


def test_what_decides_the_key(tmp_path):
    """A change of a kernel, a formula, a row or an option is one of the key; one of a docstring elsewhere is not."""
    root = copied(tmp_path)
    code = """
        from fastrelu._runtime import code_cache
        keys = [code_cache._file("relu", "void()", parallel) for parallel in (False, True)]
        assert keys[0] != keys[1]
        code_cache.OPTIONS = {**code_cache.OPTIONS, "fastmath": True}
        assert code_cache._file("relu", "void()") not in keys
        print(keys[0])
        """
    key = lambda: python(code, PYTHONPATH=str(root), PYTHONSAFEPATH="1").stdout  # noqa: E731
    before = key()
    for name in ("__init__", "_api/elementwise", "_call/dispatch", "_runtime/compiler", "ufuncs"):
        path = root / "fastrelu" / f"{name}.py"
        path.write_text(path.read_text().replace('"""', '"""Once more: ', 1))
        assert key() == before, name
    kernels = sorted(f"_kernels/{path.stem}" for path in (root / "fastrelu" / "_kernels").glob("*.py"))
    keys = [before]
    for name in (*kernels, "_formulas", "_operations"):
        path = root / "fastrelu" / f"{name}.py"
        path.write_text(path.read_text() + "# another\n")
        keys.append(key())
    assert len(set(keys)) == len(keys) > 10


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
    change_formula(root)
    assert float(python(code, **ours).stdout) == -1.5
    assert float(python(code, **ours).stdout) == -1.5


def test_a_folder_is_filled_whatever_others_hold(tmp_path):
    """Who warms a folder of his own, to take it elsewhere, finds everything there."""
    root = copied(tmp_path / "site")
    ours = {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    python(CALLS, NUMBA_CACHE_DIR="", **ours)
    beside = {name for name in kept(root / "fastrelu" / "__pycache__") if name.endswith(".nbc")}
    assert beside
    python(CALLS, NUMBA_CACHE_DIR=str(tmp_path / "cache"), **ours)
    assert kept(tmp_path / "cache").keys() == beside


def test_inside_an_archive(tmp_path):
    """As zipped applications carry it: its new version never runs the old one's code."""
    root = copied(tmp_path / "source")
    archive = tmp_path / "application.zip"

    def run():
        archive.unlink(missing_ok=True)
        shutil.make_archive(str(archive.with_suffix("")), "zip", root)
        home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": ""}
        return float(python(SLOPED, PYTHONPATH=str(archive), PYTHONSAFEPATH="1", **home).stdout)

    if (first := run()) != -0.5:
        pytest.fail(f"{first}, before any change")
    change_formula(root)
    assert run() == -1.5


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Return what reads a file of a trusted folder, as `load` does, and the file."""
    if sys.platform != "win32":
        monkeypatch.setattr(code_cache, "_above_us", lambda: frozenset(map(str, tmp_path.parents)))
    folder = tmp_path / "fastrelu"
    folder.mkdir(mode=0o755)
    file = folder / "entry"
    file.write_bytes(hashlib.sha256(b"code").digest() + b"code")
    file.chmod(0o644)
    read = functools.partial(code_cache._read, str(folder), "entry")
    assert read() == b"code"
    return SimpleNamespace(read=read, file=file, folder=folder, parent=tmp_path)


@posix
@pytest.mark.parametrize("place", ["file", "folder", "parent"])
def test_nothing_is_read_that_others_can_write(entry, place, monkeypatch):
    where, others = getattr(entry, place), 0o777 if place != "file" else 0o666
    for mode, trusted in {0o700: True, 0o755: True, others: False, others | stat.S_ISVTX: place == "parent"}.items():
        where.chmod(mode)
        assert (entry.read() is not None) == trusted, oct(mode)
        assert (code_cache._distrusted(str(entry.folder)) is None) == (trusted or place == "file")
    monkeypatch.setattr(code_cache, "_is_private", lambda user, group: False)
    where.chmod(0o775)
    assert entry.read() is None
    assert place == "file" or "can be written by group" in code_cache._distrusted(str(entry.folder))


@needs_root
@pytest.mark.parametrize("place", ["file", "folder", "parent"])
def test_nothing_is_read_that_belongs_to_others(entry, place):
    """Nor what an unknown user has, as whom a container shows all who are not in it."""
    where = getattr(entry, place)
    for user in (1234, 65534):
        os.chown(where, user, user)
        for mode in (0o755, 0o700, 0o1777):
            where.chmod(mode)
            assert entry.read() is None
    assert place == "file" or "belongs to user 65534" in code_cache._distrusted(str(entry.folder))
    os.chown(where, 0, 1234)
    where.chmod(0o755)
    assert entry.read() == b"code"


@posix
def test_nothing_is_read_that_is_no_file(entry):
    """Nor does a call wait for one who writes to a pipe, or read on and on."""
    elsewhere = entry.file.rename(entry.parent / "elsewhere")
    os.mkfifo(entry.file)
    assert entry.read() is None
    entry.file.unlink()
    for target in (elsewhere, "/dev/zero", "/dev/full", entry.file):
        entry.file.symlink_to(target)
        assert entry.read() is None
        entry.file.unlink()
    entry.file.mkdir()
    assert entry.read() is None
    entry.file.rmdir()
    elsewhere.rename(entry.file)
    assert entry.read() == b"code"
    payload = b"x" * (code_cache.MAX_BYTES + 1)
    entry.file.write_bytes(hashlib.sha256(payload).digest() + payload)
    assert entry.read() is None
    os.truncate(entry.file, 1 << 40)  # of which the disk has nothing
    assert entry.read() is None


@posix
def test_links_on_the_way_to_a_folder(entry):
    """They count for where they lead: there, nobody but us can change anything."""
    link = entry.parent / "link"
    link.symlink_to(entry.folder, target_is_directory=True)
    assert code_cache._read(str(link), "entry") == b"code"
    assert code_cache._read("fastrelu", "nothing") is None
    loop = entry.parent / "loop"
    loop.symlink_to(loop)
    assert code_cache._read(str(loop / "fastrelu"), "entry") is None


@posix
def test_the_group_of_one_user(entry, monkeypatch):
    """Where systems give each user a group and the umask 0002, what that group can write is still the user's alone."""
    import grp
    import pwd

    alice = SimpleNamespace(pw_name="alice", pw_gid=1000)
    monkeypatch.setattr(os, "getresuid", lambda: (1000, 1000, 1000), raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda user: {1000: alice}[user])

    def trusted(mode, owner=1000, group=1000, name="alice", members=(), lists=()):
        code_cache._is_private.cache_clear()
        monkeypatch.setattr(grp, "getgrgid", lambda gid: {group: SimpleNamespace(gr_name=name, gr_mem=members)}[gid])
        monkeypatch.setattr(os, "listxattr", lambda place: list(lists), raising=False)
        status = os.stat_result((mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
        return code_cache._writers(status, str(entry.folder)) is None

    try:
        assert trusted(0o775)
        assert trusted(0o664)
        assert trusted(0o775, members=["alice"])
        assert trusted(0o775, owner=0)
        assert trusted(0o755, lists=["system.posix_acl_access"])
        assert not trusted(0o777)
        assert not trusted(0o775, members=["alice", "bob"])
        assert not trusted(0o775, members=["bob"])
        assert not trusted(0o775, name="users")
        assert not trusted(0o775, group=100)
        assert not trusted(0o775, owner=1001)
        assert not trusted(0o775, lists=["system.posix_acl_access"])
        alice.pw_gid = 100
        assert not trusted(0o775)
        monkeypatch.setattr(os, "getresuid", lambda: (1001, 1001, 1001), raising=False)  # whom no one knows
        assert not trusted(0o775, owner=1001)
        alice.pw_gid = 0
        monkeypatch.setattr(pwd, "getpwuid", lambda user: alice)
        monkeypatch.setattr(os, "getresuid", lambda: (0, 0, 0), raising=False)  # the group of systems' own accounts
        assert not trusted(0o775, owner=0, group=0)
    finally:
        code_cache._is_private.cache_clear()


@needs_root
@needs_permissions
def test_a_server_gives_up_its_rights(tmp_path):
    """Owners count for the user that a process has when it reads, and for one that it has only set aside."""
    tmp_path.chmod(0o755)
    for folder in (*tmp_path.parents,)[:2]:  # pytest's own, for root alone
        folder.chmod(0o755)
    python(CALLS, NUMBA_CACHE_DIR=str(tmp_path))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    python(
        COUNTED
        + CHECK
        + f"""
import os
check(10, names=["leaky_relu"])  # now all modules are there
root, theirs = (os.stat(place) for place in ({str(tmp_path)!r}, {str(theirs)!r}))
trusted = lambda status: code_cache._writers(status, "") is None
assert trusted(root) and not trusted(theirs)
os.seteuid(65534)
assert trusted(root) and not trusted(theirs)
os.seteuid(0)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
assert trusted(root) and trusted(theirs)
check(10, names=["relu"])
assert not compiled
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


class Foreign:
    """What leaves a mark when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@posix
@pytest.mark.parametrize("how", ["open", pytest.param("other", marks=needs_root)])
def test_foreign_code_is_never_run(tmp_path, how):
    """It is compiled anew, and kept in the next folder, and nothing is written where others can write."""
    cache, home, mark = tmp_path / "cache", tmp_path / "home", tmp_path / "mark"
    cache.mkdir()
    home.mkdir()
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "NUMBA_CACHE_DIR": str(cache)}
    root = copied(tmp_path / "site")
    (root / "fastrelu" / "__pycache__").mkdir(mode=0o555)
    environment |= {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    code = UNPRIVILEGED + COUNTED + CHECK + "check(10, names=['relu'])\nprint(len(compiled))"
    (root / "fastrelu" / "__pycache__").chmod(0o555)
    everything = int(python(code, **environment).stdout)
    names = kept(cache).keys()
    assert len(names) == everything > 0
    payload = pickle.dumps(Foreign(mark))
    folder = cache / "fastrelu"
    for name in names:
        (folder / name).write_bytes(hashlib.sha256(payload).digest() + payload)
    if how == "open":
        folder.chmod(0o777)
    else:
        os.chown(folder, 1234, 1234)
    before = kept(cache)
    assert int(python(code, **environment).stdout) == everything
    assert not mark.exists()
    assert kept(cache) == before
    assert kept(home).keys() == names
    assert int(python(code, **environment).stdout) == 0
    told = python(
        UNPRIVILEGED + "from fastrelu._runtime import code_cache; print(code_cache.describe())", **environment
    ).stdout
    reason = "can be written by everybody" if how == "open" else "belongs to user 1234"
    assert f"{home / 'numba' / 'fastrelu'}; {folder} {reason}" in told


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_others_may_read_what_the_umask_lets_them(tmp_path, umask):
    """And never write, so that what we have made passes our own check."""
    cache = tmp_path / "not" / "there"
    code = f"import os; os.umask({umask})\n" + COUNTED + CHECK + "check(10, names=['relu'])\nprint(len(compiled))"
    count = int(python(code, NUMBA_CACHE_DIR=str(cache)).stdout)
    made = [tmp_path / "not", *(tmp_path / "not").rglob("*")]
    files = [path for path in made if path.is_file()]
    assert len(files) == count > 0
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o644 if path in files else 0o755) & ~umask
    assert int(python(code, NUMBA_CACHE_DIR=str(cache)).stdout) == 0


#: Imports the package from memory: no file, no folder, and a list of modules only if LISTED.
FROM_MEMORY = """
import importlib.abc, importlib.util, pathlib, pkgutil, sys
source = pathlib.Path(SOURCE)
class Memory(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    codes, packages = {}, set()
    for path in source.rglob("*.py"):
        name = ".".join(path.relative_to(source.parent).with_suffix("").parts)
        if path.stem == "__init__":
            name = name.removesuffix(".__init__")
            packages.add(name)
        codes[name] = path.read_text()
    def find_spec(self, name, path=None, target=None):
        if name not in self.codes:
            return None
        package = name in self.packages
        spec = importlib.util.spec_from_loader(name, self, origin="/nowhere/" + name, is_package=package)
        if package:
            spec.submodule_search_locations = ["/nowhere/" + name]
        spec.has_location = True
        return spec
    def get_source(self, name):
        return self.codes[name]
    def get_code(self, name):
        return compile(self.codes[name], name, "exec") if LISTED != "compiled" else None
    def exec_module(self, module):
        exec(compile(self.codes[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Memory())
class Listing:
    def __init__(self, path):
        if not path.startswith("/nowhere/"):
            raise ImportError
        self.package = path.removeprefix("/nowhere/")
    def iter_modules(self, prefix=""):
        names = [name.rpartition(".") for name in Memory.codes]
        return [(prefix + name, False) for package, _, name in names if package == self.package]
if LISTED:
    sys.path_hooks.insert(0, Listing)
import fastrelu
"""


@pytest.mark.parametrize("listed", [True, False, "compiled"])
def test_modules_without_files(tmp_path, listed):
    """Frozen applications bring code alone. Where not even that can be read, as of modules in C, nothing is kept."""
    root = copied(tmp_path / "source")
    code = FROM_MEMORY.replace("SOURCE", repr(str(root / "fastrelu"))).replace("LISTED", repr(listed)) + COUNTED
    code += (
        "import numpy as np\nprint(fastrelu.leaky_relu(np.array([-1.0]), 0.5)[0], len(compiled), code_cache.describe())"
    )

    def run():
        value, count, said = python(code, NUMBA_CACHE_DIR=str(tmp_path / "cache")).stdout.split(maxsplit=2)
        return float(value), int(count), said.startswith("not kept")

    value, everything, lost = run()
    assert value == -0.5
    assert everything > 0
    assert lost == (listed is not True)
    assert len(kept(tmp_path / "cache") if not lost else {}) == (0 if lost else everything)
    assert run() == (-0.5, everything if lost else 0, lost)
    change_formula(root)
    assert run()[0] == -1.5


@pytest.mark.parametrize("error", ["OSError", "NotImplementedError", "ModuleNotFoundError", "KeyError"])
def test_no_key(tmp_path, error):
    """Whatever is raised where our modules are read costs a compile, never a call."""
    result = python(
        f"""
        from fastrelu._runtime import code_cache
        def fail(*args): raise {error}
        code_cache.files = code_cache.marshal.dumps = fail
        """
        + textwrap.indent(CALLS, " " * 8)
        + """
        import fastrelu
        fastrelu.show_config()
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert "not kept: the package cannot be read" in result.stdout
    assert not kept(tmp_path)


@posix
@pytest.mark.parametrize("where", ["a\nline", "\udcff", "x" * 5000, "file/cache", "~/cache"])
def test_odd_names_of_folders(tmp_path, where):
    """A user's cache folder that is no absolute path is none."""
    (tmp_path / "file").write_text("no folder")
    environment = {"HOME": "nowhere", "XDG_CACHE_HOME": "relative", "NUMBA_CACHE_DIR": where}
    python(f"import os; os.chdir({str(tmp_path)!r})\n" + CALLS, **environment)
    assert not (tmp_path / "relative").exists()


@posix
def test_a_working_directory_that_is_gone(tmp_path):
    """There, Numba's own compiler fails at its messages; what is loaded from the next folder works."""
    environment = {"PYTHONPATH": str(copied(tmp_path)), "PYTHONSAFEPATH": "1"}
    gone = "import os, tempfile, fastrelu; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())\n"
    python(CALLS, NUMBA_CACHE_DIR="", **environment)
    result = python(gone + COUNTED + CALLS + "print(len(compiled))", NUMBA_CACHE_DIR="relative", **environment)
    assert int(result.stdout) == 0


def test_compiled_modules_alone(tmp_path):
    """An installation of `.pyc` files, whose sources are gone."""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONSAFEPATH": "1"}

    def run(name, change):
        root = copied(tmp_path / name)
        if change:
            change_formula(root)
        assert compileall.compile_dir(root, quiet=2, legacy=True)
        for source in root.rglob("*.py"):
            source.unlink()
        code = COUNTED + SLOPED + "; print(len(compiled))"
        value, count = python(code, PYTHONPATH=str(root), **environment).stdout.split()
        return float(value), int(count)

    value, everything = run("old", False)
    assert (value, everything > 0) == (-0.5, True)
    assert run("new", True) == (-1.5, everything)
    value, count = (
        python(COUNTED + SLOPED + "; print(len(compiled))", PYTHONPATH=str(tmp_path / "old"), **environment)
    ).stdout.split()
    assert (float(value), int(count)) == (-0.5, 0)


@pytest.mark.parametrize("when", ["before the first call", "between calls"])
def test_installed_anew_under_a_running_process(tmp_path, when):
    """What the old version goes on to compile is never found by the new one, nor the other way round."""
    root = copied(tmp_path / "site")
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    first = "" if when == "before the first call" else "fastrelu.leaky_relu(np.ones(1, np.float32), 0.5)"
    running = f"""
        import os, numpy as np, fastrelu
        from fastrelu import _formulas
        {first}
        file = {str(root / "fastrelu" / "_formulas.py")!r}
        with open(file) as old, open(file + ".new", "w") as new:
            new.write(old.read().replace(*{FORMULA!r}))
        os.replace(file + ".new", file)
        print(fastrelu.leaky_relu(np.array([-1.0]), 0.5)[0])
        """
    assert float(python(running, **environment).stdout) == -0.5
    assert not list(tmp_path.rglob("fastrelu-leaky_relu-float64-*"))
    assert float(python(SLOPED, **environment).stdout) == -1.5
    assert float(python(SLOPED, **environment).stdout) == -1.5


def test_compiled_to_c():
    """Numba needs bytecode, so that Nuitka must leave it. That is said at once."""
    with pytest.raises(ImportError, match="--noinclude-custom-mode=fastrelu:bytecode"):
        runpy.run_path(_versions.__file__, {"__compiled__": object()})


def test_a_frozen_application(tmp_path):
    """Made by PyInstaller: masks, sums and a user's compiled code too, and a second start compiles nothing."""
    pytest.importorskip("PyInstaller")
    (tmp_path / "app.py").write_text(
        textwrap.dedent(
            """
            import numba, numpy as np, fastrelu, fastrelu._njit
            fastrelu._njit.init()
            x = np.linspace(-1, 1, 3_000_000, dtype="f4")
            result, mask = fastrelu.relu_with_mask(x)
            assert (result == np.maximum(x, 0)).all() and (fastrelu.relu(x) == result).all()
            assert (fastrelu.relu_backward_from_mask(x, mask) == result).all()
            assert fastrelu.count_active(x[:, None]).tolist() == [(x > 0).sum()]
            user = numba.njit(lambda a: fastrelu.relu(a) + 1)
            assert user(np.array([-1.0, 2.0])).tolist() == [1, 3]
            fastrelu.show_config()
            """
        )
    )
    root = os.path.dirname(os.path.dirname(fastrelu.__file__))
    command = [sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", "--paths", root, "app.py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": ""}
    start = functools.partial(
        subprocess.run, [tmp_path / "dist/app/app"], env=environment, cwd=tmp_path, check=True, text=True
    )
    wanted = tmp_path / "home" / "numba" / "fastrelu"
    assert f"compiled code        {wanted}" in start(capture_output=True).stdout
    state = lambda: {path.name: path.stat().st_mtime_ns for path in wanted.iterdir()}  # noqa: E731
    assert (before := state())
    start(capture_output=True)
    assert state() == before
