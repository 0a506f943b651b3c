"""What programs do around calls: they patch threads, drop modules, fork, end, and run out of threads."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import fastrelu
from fastrelu import ufuncs
from fastrelu._runtime import targets, tuning

from .children import FORKING, python
from .helpers import OPERATIONS, in_threads, public

linux = pytest.mark.skipif(sys.platform != "linux", reason="what is asked there is Linux's")


# --- A forced target ------------------------------------------------------------------------------------------------


class Box:
    """An eager container. It tells which ufunc it saw, and calls that on what it holds."""

    def __init__(self, value, around=lambda call: call()):
        self.value, self.around, self.seen = value, around, []

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        self.seen.append((ufunc, targets.of_loops()))
        inputs, out = ([getattr(each, "value", each) for each in some] for some in (inputs, kwargs.pop("out", ())))
        kwargs.update(out=tuple(out)) if out else None
        return self.around(lambda: getattr(ufunc, method)(*inputs, **kwargs))


@pytest.mark.parametrize("target", ["serial", "parallel"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_container_sees_the_public_ufunc(name, target):
    """Forced by the call or configured; `seen` tells where its loops then run, too."""
    x = np.array([-1.0, 2.0])
    data = [x] * len(fastrelu._operations.ROWS[name].data)
    for twin in (False, True):
        box = Box(x.copy())
        assert public(name, twin)(box, *data[1:], target=target) is not None
        with fastrelu.configure(target=target):
            public(name, twin)(box, *data[1:])
        public(name, twin)(box, *data[1:])
        assert box.seen == [(getattr(ufuncs, name), each) for each in (target, target, "auto")]


def test_the_target_is_that_of_the_innermost_call():
    """Nested calls, and exceptions, leave it as they found it."""
    x = np.array([-1.0, 2.0])

    def fail():
        raise KeyError("a container's own")

    def inside(call):
        found = [targets.of_loops()]
        fastrelu.relu(Box(x, lambda call: found.append(targets.of_loops())), target="parallel")
        found.append(targets.of_loops())
        with pytest.raises(KeyError):
            fastrelu.relu(Box(x, lambda call: fail()), target="parallel")
        # A call without a target is made for this one too, one that names its own is not
        found += [targets.of_loops(), fastrelu.explain(fastrelu.relu, x).target]
        found.append(fastrelu.explain(fastrelu.relu, x, target="parallel").target)
        assert found == ["serial", "parallel", "serial", "serial", "serial", "parallel"]
        return call()

    with fastrelu.configure(parallel_min_bytes=0):
        assert fastrelu.relu(Box(x, inside), target="serial").tolist() == [0.0, 2.0]
    assert targets.of_loops() == "auto"
    assert not tuning.settings.tables["auto"].forced


def test_the_target_is_that_of_the_thread():
    x = np.linspace(-1, 1, 100_000)

    def work(k):
        target = ("serial", "parallel", "auto")[k % 3]
        for _ in range(50):
            box = Box(x)
            result = fastrelu.relu(box, target=None if target == "auto" else target)
            assert box.seen == [(ufuncs.relu, target)]
            assert (result == np.maximum(x, 0)).all()

    in_threads(9, work)
    assert not tuning.settings.tables["auto"].forced


def test_the_loops_of_other_threads_run_where_they_would():
    """While one is inside a forced call, however small what it holds."""
    python(
        """
        import ctypes, threading, numpy as np, fastrelu
        from fastrelu._runtime import tuning
        x, y = np.full(400_000, -1.0), np.ones(400_000)
        fastrelu.relu(x, out=y, target="parallel")
        launches, table = [], tuning.settings.tables["parallel"]
        real = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(table.launcher)
        spy = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda job: launches.append(1) or real(job))
        table.launcher = ctypes.cast(spy, ctypes.c_void_p).value
        class Box:
            def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
                inside.set(), leave.wait(60)
                return ufunc(x, y)
        inside, leave = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: fastrelu.relu(Box(), target="parallel"))
        thread.start(), inside.wait(60)
        with fastrelu.configure(parallel_min_bytes=1 << 40):
            fastrelu.ufuncs.relu(x, y), fastrelu.relu(x, out=y)
        assert not launches
        leave.set(), thread.join()
        assert launches == [1]
        """,
        layer="omp",
    )


def test_units_of_astropy():
    """Astropy keeps a table of ufuncs, in which each has a row that says what becomes of units."""
    units = pytest.importorskip("astropy.units")
    from astropy.units.quantity_helper import UFUNC_HELPERS

    x = np.array([-1.0, 2.0]) * units.m
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(UFUNC_HELPERS, ufuncs.relu, lambda function, unit: ([None], unit))
        for target in (None, "serial", "parallel"):
            result = fastrelu.relu(x, target=target)
            assert result.unit == units.m
            assert result.value.tolist() == [0.0, 2.0]


def test_a_configured_target_is_that_of_raw_ufuncs():
    """It does not fall back either: the word that says that another call is parallel is not asked."""
    python(
        """
        import ctypes, numpy as np, fastrelu
        from fastrelu._runtime import tuning
        x, y = np.full(1_000_000, -1.0), np.ones(1_000_000)
        tables = tuning.settings.tables
        fastrelu.ufuncs.relu(x, y)
        tables["auto"].busy = 1
        with fastrelu.configure(target="parallel"):
            fastrelu.ufuncs.relu(x, y)
            launches, table = [], tables["parallel"]
            real = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(table.launcher)
            spy = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda job: launches.append(1) or real(job))
            table.launcher = ctypes.cast(spy, ctypes.c_void_p).value
            fastrelu.ufuncs.relu(x, y)
        assert len(launches) == 1
        with fastrelu.configure(target="serial", parallel_min_bytes=0):
            fastrelu.ufuncs.relu(x, y)
        assert len(launches) == 1
        """,
        layer="omp",
    )


@linux
def test_a_forced_target_does_not_fall_back_in_a_child():
    """Where a forked child cannot run in parallel, everything that is forced to raises, planned and raw calls too."""
    python(
        FORKING
        + """
import numpy as np, fastrelu
x, mask = np.ones((1000, 2000), "f4"), np.zeros(250_000, np.uint8)
half, counts = x[:, ::2], np.zeros(2000, np.int64)
swapped = x.astype(">f4")
def raw(values):
    with fastrelu.configure(target="parallel"):
        fastrelu.ufuncs.relu(values)
calls = [
    lambda t: fastrelu.relu(x, target=t), lambda t: fastrelu.relu(half, target=t),
    lambda t: fastrelu.relu(half, out=half, target=t), lambda t: fastrelu.leaky_relu_(half, target=t),
    lambda t: fastrelu.relu(swapped, target=t), lambda t: fastrelu.relu_with_mask(x, target=t),
    lambda t: fastrelu.relu_backward_from_mask(x, mask, target=t),
    lambda t: fastrelu.relu_with_counts(x, counts, target=t), lambda t: fastrelu.leaky_relu_slope_grad(x, x, target=t),
    lambda t: raw(x) if t else None, lambda t: raw(x[0]) if t else None,
]
def child():
    for k, call in enumerate(calls):
        call(None)
        try:
            call("parallel")
        except RuntimeError as error:
            assert "forked" in str(error), error
        else:
            raise AssertionError(k)
for call in reversed(calls):  # those that configure first: the child is to find the jobs of the others
    call("parallel")
wait(fork(child))
for call in calls:
    call("parallel")
""",
        layer="omp",
    )


# --- Threads --------------------------------------------------------------------------------------------------------


def test_where_threads_are_greenlets():
    """Under gevent's patches, threads have other names than the system gives them, and run on its threads in turn."""
    pytest.importorskip("gevent")
    python(
        """
        from gevent import monkey
        monkey.patch_all()
        import faulthandler, gevent, threading
        faulthandler.dump_traceback_later(90, exit=True)
        import numpy as np, fastrelu
        x = np.linspace(-1, 1, 3_000_000, dtype="f4")
        want = np.maximum(x, 0)
        def work(target=None):
            assert (fastrelu.relu(x, target=target) == want).all()
            assert (fastrelu.relu(x[::-1], target=target) == want[::-1]).all()
            fastrelu.relu_with_mask(x, target=target), fastrelu.count_active(x, target=target)
        work()
        gevent.joinall([gevent.spawn(work, target) for target in (None, "parallel", "serial") * 2], raise_error=True)
        pool = gevent.get_hub().threadpool
        for task in [pool.spawn(work, target) for target in (None, "parallel") * 4]:
            task.get()
        threads = [threading.Thread(target=work) for _ in range(3)]
        [t.start() for t in threads], [t.join() for t in threads]
        """,
        layer="omp",
    )


def test_names_of_threads_that_the_system_does_not_know():
    """What gevent and eventlet do to `threading.get_ident`, before and after the import."""
    for first in ("fastrelu", "threading"):
        python(
            f"""
            import faulthandler, {first}, threading
            faulthandler.dump_traceback_later(60, exit=True)
            threading.get_ident = lambda: 1234
            import numpy as np, fastrelu
            x = np.ones(3_000_000, np.float32)
            def work():
                assert fastrelu.relu(x).sum() == x.size and fastrelu.relu(x, target="parallel").sum() == x.size
            work()
            import _thread, queue
            for _ in range(6):
                done = queue.SimpleQueue()
                _thread.start_new_thread(lambda: (work(), done.put(1)), ())
                assert done.get(timeout=30)
            import os
            os._exit(0)  # Python itself waits for threads by that name
            """
        )


def test_a_wish_that_is_never_met_is_an_error():
    result = python(
        """
        import numpy as np, fastrelu
        from fastrelu._runtime import compiler
        fastrelu.relu(np.ones(3))
        compiler.provide = lambda *_: None
        try:
            fastrelu.relu(np.ones(3_000_000))
        except RuntimeError as error:
            print(error)
        """
    )
    assert "again and again" in result.stdout


@pytest.mark.parametrize("size", [1 << 15, 1 << 16])
def test_small_stacks(size, tmp_path):
    """`threading.stack_size` is for the program's threads: ours, which compile, have another one; theirs do for calls.

    (On the smallest that there is, Python 3.13 itself can import little.)
    """
    python(
        f"""
        import threading, numpy as np, fastrelu
        threading.stack_size({size})
        x = np.linspace(-1, 1, 3_000_000)
        def work():
            for call in (fastrelu.relu, fastrelu.relu_with_mask, fastrelu.count_active, fastrelu.leaky_relu_):
                call(x[:10]), call(x), call(x[::2]), call(x, target="parallel")
            fastrelu.relu(x.astype(">f8"))
        if {size > 1 << 15}:
            thread = threading.Thread(target=work)
            thread.start(), thread.join()
        work()
        assert threading.stack_size() == {size}
        """,
        NUMBA_NUM_THREADS="2",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


FIRST_USES = {
    "njit": "numba.njit(lambda a: a + 1)(1)",
    "cfunc": "numba.cfunc('f8(f8)')(lambda a: a + 1)",
    "vectorize": "numba.vectorize(['f8(f8)'])(lambda a: a + 1)",
    "guvectorize": "numba.guvectorize(['(f8[:], f8[:])'], '(n)->(n)')(lambda a, b: None)",
    "parallel": "numba.njit(parallel=True)(lambda a: a + 1)(np.ones(9))",
}


@pytest.mark.parametrize("use", FIRST_USES)
def test_beside_the_first_use_of_numba(use):
    """Numba takes two locks in one order here, and in the other there."""
    code = f"""
    import faulthandler, sys, threading, time
    import numpy as np, fastrelu
    faulthandler.dump_traceback_later(50, exit=True)
    failures = []
    def guarded(work):
        try:
            work()
        except BaseException as error:
            failures.append(repr(error))
    def user():
        time.sleep(DELAY)
        import numba
        {FIRST_USES[use]}
    def call():
        fastrelu.relu(np.ones(3, "f4"))
    threads = [threading.Thread(target=guarded, args=(work,)) for work in (call, user)]
    [t.start() for t in threads], [t.join() for t in threads]
    call()
    assert not failures, failures
    """
    for delay in ("0", "0.02", "0.1"):
        python(code.replace("DELAY", delay))


#: Without privileges but for reading what is here
AS_NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
]  # fmt: skip

LIMITED = """
import os, resource, sys, threading
import numpy as np, fastrelu
x = np.random.default_rng(0).standard_normal(2_000_000).astype("f4")
fastrelu.relu(x[:10]), fastrelu.relu_with_mask(x[:10])
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
limited, said = threading.Event(), []
def forced():  # in threads without a team, of which more than a few have no place for one, either
    ready.wait()
    limited.wait()
    try:
        fastrelu.relu(x, target="parallel")
    except RuntimeError as error:
        said.append(str(error))
ready, threads = threading.Barrier(7), [threading.Thread(target=forced) for _ in range(6)]
[thread.start() for thread in threads]
ready.wait()
if "started" in sys.argv:
    fastrelu.relu(x, target="parallel")
def work():
    assert (fastrelu.relu(x) == np.maximum(x, 0)).all()
    assert (fastrelu.relu(x[::2]) == np.maximum(x[::2], 0)).all()
    assert (fastrelu.relu_with_mask(x)[0] == np.maximum(x, 0)).all()
    assert fastrelu.count_active(x, axis=None) == (x > 0).sum()
    assert (fastrelu.relu(x.astype(">f4")) == np.maximum(x, 0)).all()
    with fastrelu.configure(parallel_min_bytes=0):
        assert (fastrelu.ufuncs.relu(x) == np.maximum(x, 0)).all()
resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
work()
limited.set()
[thread.join() for thread in threads]
assert len(said) == 6 and all("no more threads" in each for each in said), said
if "new" in sys.argv:
    strided = lambda a, target: fastrelu.relu(a[::2], target=target)
    for call in (fastrelu.relu, fastrelu.relu_with_mask, fastrelu.count_active, strided):
        try:
            call(x, target="parallel")
        except RuntimeError as error:
            assert "no more threads" in str(error), error
        else:
            raise AssertionError(call)
    assert "no more threads" in str(fastrelu.explain(fastrelu.relu, x))
    # When there are threads again, a forced call finds out, and automatic ones follow
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    fastrelu.relu(x, target="parallel")
    assert fastrelu.explain(fastrelu.relu, x).target == "parallel", fastrelu.explain(fastrelu.relu, x)
"""


@linux
@pytest.mark.parametrize("started", ["new", "started"])
def test_the_system_gives_no_more_threads(started, tmp_path):
    """OpenMP and tbb would end the process."""
    import os

    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("the limit does not hold for root")
    tmp_path.chmod(0o777)
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    # Another user's cache may be closed to this one, as that of the tests is
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_NUM_THREADS": "2"}
    prefix = AS_NOBODY if os.getuid() == 0 else []
    command = [*prefix, sys.executable, "-W", "error", "-c", LIMITED, started]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


# --- What native code reads lives as long as the process -------------------------------------------------------------

CALLS = """
import gc, importlib, sys
from unittest import mock
import numpy as np
def calls(module, dtype="f4"):
    x = (np.arange(400_000) % 4 - 2).astype(dtype)
    want = np.maximum(x, 0)
    f = lambda name: getattr(module, name)
    return [
        lambda: f("relu")(x), lambda: f("relu")(x[::-1])[::-1], lambda: f("relu")(x, target="parallel"),
        lambda: f("relu_")(x.copy()), lambda: f("relu_with_mask")(x)[0],
        lambda: f("relu_with_counts")(x, np.zeros(x.size, int)), lambda: f("ufuncs").relu(x),
        lambda: f("relu_backward")(want, x), lambda: f("leaky_relu_backward_with_slope_grad")(want, x, axis=None)[0],
    ], want
def check(pair):
    for call in pair[0]:
        assert (call() == pair[1]).all()
def drop(*names):
    for name in [each for each in sys.modules if each.partition(".")[0] in names]:
        del sys.modules[name]
    gc.collect()
"""


@pytest.mark.parametrize(
    "code",
    [
        """
        with mock.patch.dict(sys.modules):
            import fastrelu
            functions = {name: getattr(fastrelu, name) for name in dir(fastrelu) if not name.startswith("_")}
        del fastrelu
        gc.collect()
        from types import SimpleNamespace
        check(calls(SimpleNamespace(**functions))), check(calls(SimpleNamespace(**functions), "f8"))
        """,
        """
        import fastrelu as first
        check(calls(first))
        drop("fastrelu")
        import fastrelu as second
        assert first is not second
        check(calls(first, "f8")), check(calls(second)), check(calls(second, "f2"))
        del first
        gc.collect()
        check(calls(second, "f8"))
        """,
        """
        import fastrelu
        with mock.patch.dict(sys.modules):
            check(calls(fastrelu))
        gc.collect()
        assert "numba" not in sys.modules
        check(calls(fastrelu, "f8"))
        drop("numba")
        check(calls(fastrelu, "f2"))
        """,
        """
        import fastrelu
        check(calls(fastrelu))
        old = calls(fastrelu, "f8")
        for name in [each for each in sys.modules if each.partition(".")[0] == "fastrelu"]:
            importlib.reload(sys.modules[name])
            gc.collect()
            check(calls(fastrelu)), check(old)
        importlib.reload(sys.modules["fastrelu._call.executors"])
        from fastrelu._call.executors import executor
        assert executor("cuda").unavailable and executor("dask").call
        check(calls(fastrelu, "f2"))
        """,
    ],
    ids=["patched", "dropped", "numba", "reloaded"],
)
def test_modules_come_and_go(code):
    python(CALLS + textwrap.dedent(code))


@pytest.mark.parametrize("call", ["relu(x)", "leaky_relu(x, .5, target='serial')", "relu_with_mask(x)", "relu_(y)"])
def test_the_interpreter_ends_while_daemon_threads_call(call):
    """Their code stays until they are gone."""
    code = f"""
    import threading, time, numpy as np, fastrelu
    x, y = np.ones(2_000_000, np.int8), np.ones(400_000)
    fastrelu.{call}
    def work():
        while True:
            fastrelu.{call}
    for _ in range(8):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.3)
    """
    for _ in range(6):
        assert not python(code).stderr


LATE = """
import faulthandler, os
import numpy as np, fastrelu
FIRST
class Late:
    def __del__(self, calls=CALLS, guard=faulthandler.dump_traceback_later, write=os.write, Error=RuntimeError):
        guard(30, exit=True)
        for call in calls:
            try:
                write(1, (str(call().tolist()) + ";").encode())
            except Error as error:
                write(1, str(error).encode() + b";")
late = Late()
"""


def test_a_finaliser_makes_the_first_call():
    """While the interpreter ends it imports nothing, so that nothing can be compiled."""
    import ml_dtypes

    result = python(
        LATE.replace("FIRST", "import ml_dtypes").replace(
            "CALLS",
            """(
            lambda f=fastrelu.relu, x=np.array([-1.0, 2.0, np.nan, -0.0]): f(x),
            lambda f=fastrelu.relu, x=np.array([[-1, 2], [3, -4]], np.int8): f(x[:, ::-1]),
            lambda f=fastrelu.leaky_relu, x=np.array([-1.0, 2.0], np.float16): f(x, 0.1),
            lambda f=fastrelu.leaky_relu_, x=np.array([-1.0, 2.0], ml_dtypes.bfloat16): f(x, 0.1),
            lambda f=fastrelu.ufuncs.relu_backward, x=np.array([-1.0, 2.0], np.float32): f(x, x, np.float32(0)),
            lambda f=fastrelu.leaky_relu_grad, x=np.array([-1.0, 0.0, 2.0]): f(x, 0.5, at_zero=0.25),
            lambda f=fastrelu.relu, x=np.full(100_000, -1.0): f(x)[[7, -1]],
        )""",
        )
    )
    half, bfloat16 = (np.dtype(kind).type(-0.1) for kind in (np.float16, ml_dtypes.bfloat16))
    wanted = [[0.0, 2.0, np.nan, -0.0], [[2, 0], [0, 3]], [float(half), 2.0], [float(bfloat16), 2.0], [0.0, 2.0],
              [0.5, 0.25, 1.0], [0.0, 0.0]]  # fmt: skip
    assert result.stdout.split(";")[:-1] == [str(each) for each in wanted]
    assert not result.stderr


def test_a_finaliser_calls_what_is_compiled():
    result = python(
        LATE.replace("FIRST", "fastrelu.relu(np.ones(3_000_000))").replace(
            "CALLS",
            """(
            lambda f=fastrelu.relu, x=np.array([-1.0, 2.0]): f(x),
            lambda f=fastrelu.relu, x=np.full(3_000_000, -1.0): f(x)[[7, -1]],
        )""",
        )
    )
    assert result.stdout == "[0.0, 2.0];[0.0, 0.0];"
    assert not result.stderr


def test_another_package_brings_us_along(tmp_path):
    """By another name, beside which none is called fastrelu: our files are found by our own place."""
    source = Path(fastrelu.__file__).parent
    shutil.copytree(source, tmp_path / "app" / "relus", ignore=shutil.ignore_patterns("__pycache__", "_bench", "_cuda"))
    code = f"""
    import sys, warnings
    warnings.simplefilter("ignore")  # Numba looks for our entry point by its usual name
    sys.path.insert(0, {str(tmp_path)!r})
    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "fastrelu":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Hidden())
    from app import relus
    import numpy as np
    assert relus.relu(np.array([-1.0, 2.0])).tolist() == [0, 2]
    from app.relus._runtime import code_cache
    assert code_cache._fingerprint()
    """
    python(code)


def test_a_stack_size_that_cannot_be_set(monkeypatch):
    """As Python says where the system knows none: the work is done in the thread that wants it."""
    from fastrelu._runtime import threads

    def refused(size=0):
        raise RuntimeError("setting stack size not supported")

    monkeypatch.setattr(threads.threading, "stack_size", refused)
    assert not threads.started("fastrelu-test", print)
    assert threads.elsewhere("fastrelu-test", lambda: 3) == 3
