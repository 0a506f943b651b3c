"""What kills or corrupts a process must be tried in a process of its own."""

import itertools
import os
import platform
import subprocess
import sys
import textwrap

import pytest

from .children import FORKING
from .helpers import run_python

pytestmark = pytest.mark.slow
HAS_FORK = hasattr(os, "fork")
CHECK = """
import numpy as np, fastrelu
def check(n=1000):
    for dtype in (np.float16, np.float32, np.float64):
        x = (np.arange(n) % 7 - 3).astype(dtype)
        assert (fastrelu.relu(x) == np.maximum(x, 0)).all()
        assert (fastrelu.ufuncs.leaky_relu(x, dtype(0.5)) == np.where(x < 0, x * dtype(0.5), x)).all()
        assert (fastrelu.relu_backward(x, x, 0.5) == np.where(x > 0, x, 0)).all()
"""


def python(code, **kwargs):
    return run_python(textwrap.dedent(code), **kwargs)


def test_import_is_light():
    python(
        """
        import sys, fastrelu
        heavy = {"numba", "torch", "jax", "pandas", "dask", "rich", "matplotlib", "scipy"} & set(sys.modules)
        assert not heavy, heavy
        """
    )


def test_only_what_is_needed_is_compiled(tmp_path):
    python(
        """
        import sys, numpy as np, fastrelu
        from fastrelu._runtime import compiler
        fastrelu.relu(np.ones(3, np.float32))
        assert compiler.kernel_address.cache_info().currsize == 1
        assert compiler._routine.cache_info().currsize == 1  # the inner loop
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )


ERRORS = ("KeyboardInterrupt", "ImportError('broken')", "MemoryError", "Warning('as error')")
CALLS = ("fastrelu.relu(x, out=y)", "fastrelu.ufuncs.relu(x, y)", "fastrelu.relu(x[::-1], out=y)")


@pytest.mark.parametrize(
    ("call", "n", "error"),  # each call at both sizes, and the errors in turn: all pairs would take a minute more
    [(*case, ERRORS[k % len(ERRORS)]) for k, case in enumerate(itertools.product(CALLS, (3, 1_000_000)))],
)
def test_an_error_while_compiling_reaches_the_caller(call, n, error, tmp_path):
    """Public name or raw ufunc, small or large: the very exception, and the next call works."""
    python(
        f"""
        import numpy as np, fastrelu
        from fastrelu._runtime import code_cache
        x, y = np.full({n}, -1.0), np.full({n}, 42.0)
        compile_cfunc = code_cache.compile_cfunc
        def fail(*args): raise {error}
        code_cache.compile_cfunc = fail
        try:
            {call}
        except BaseException as caught:
            assert repr(caught) == repr({error} if not isinstance({error}, type) else {error}()), caught
        else:
            raise AssertionError("no error")
        assert (y == 42).all()
        code_cache.compile_cfunc = compile_cfunc
        {call}
        assert (y == 0).all()
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals are delivered otherwise on Windows")
@pytest.mark.parametrize("call", ["fastrelu.relu(x)", "fastrelu.ufuncs.relu(x)"])
def test_ctrl_c_during_the_first_compile(call, tmp_path):
    for delay in (0.01, 0.05, 0.15, 0.3):
        python(
            f"""
            import os, signal, threading, numpy as np, fastrelu
            x = np.full(1000, -1.0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                while True:
                    assert ({call} == 0).all()
            except KeyboardInterrupt:
                pass
            assert ({call} == 0).all()
            """,
            NUMBA_CACHE_DIR=str(tmp_path / str(delay)),
        )


def test_numba_disable_jit(tmp_path):
    python(CHECK + "check(); check(1_000_000)", NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR=str(tmp_path))


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "a file").write_text("not a folder")
    python(CHECK + "check(); check(1_000_000)", NUMBA_CACHE_DIR=str(tmp_path / "a file"))


def test_cache_on_a_full_disk(tmp_path):
    python(
        CHECK
        + """
import os
create = os.open
def full(path, flags, *args, **kwargs):
    if flags & os.O_CREAT: raise OSError(28, "No space left on device")
    return create(path, flags, *args, **kwargs)
os.open = full
check(); check(1_000_000)
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert not list(tmp_path.rglob("*.nbc"))


def test_no_cache_folder_at_all():
    python(
        CHECK
        + """
from fastrelu._runtime import code_cache
code_cache._folders = lambda: iter(())
check(); check(1_000_000)
assert code_cache.describe() == "not kept"
""",
    )


def test_cache_that_can_only_be_read(tmp_path):
    """An image may bring a warm cache along, and run as a user who cannot write there."""
    use = (
        "import numpy as np, fastrelu; fastrelu.relu(np.ones(3, np.float32)); fastrelu.relu(np.ones(10**6, np.float32))"
    )
    python(use, NUMBA_CACHE_DIR=str(tmp_path))
    python(
        f"""
        import tempfile
        def fail(*args, **kwargs): raise PermissionError
        tempfile.TemporaryFile = fail
        from fastrelu._runtime import code_cache
        assert code_cache.folder() is None
        assert f"{{code_cache.os.environ['NUMBA_CACHE_DIR']}}/fastrelu cannot be written" in code_cache.describe()
        code_cache.CFunc = None
        {use}
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_a_changed_source_file_is_never_served_old_code(tmp_path):
    """Numba's own index would not notice that the formula has changed: it is in another file than the loop."""
    import shutil

    import fastrelu

    copy = tmp_path / "copy"
    source = os.path.dirname(fastrelu.__file__)
    shutil.copytree(source, copy / "fastrelu", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import fastrelu, numpy as np; print(fastrelu.leaky_relu(np.array([-1.0]), 0.5)[0])"
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(copy)}
    run = lambda: subprocess.run(  # noqa: E731
        [sys.executable, "-B", "-c", code],
        env={**os.environ, **environment},
        cwd=tmp_path,
        text=True,
        check=True,
        capture_output=True,
    ).stdout.strip()
    assert run() == "-0.5"
    formulas = copy / "fastrelu" / "_formulas.py"
    stamp = formulas.stat()
    text = formulas.read_text()
    formulas.write_text(text.replace("= x * negative_slope", "= x - negative_slope"))
    os.utime(formulas, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the same size and time, as Numba would check
    assert formulas.stat().st_size == stamp.st_size
    assert run() == "-1.5"


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this platform")
@pytest.mark.filterwarnings("default")
class TestFork:
    def test_child_of_a_parallel_parent(self):
        """Under omp, a child that entered a parallel region would be killed."""
        python(
            CHECK
            + FORKING
            + """
check(1_000_000)
assert fastrelu.explain(fastrelu.relu, np.zeros(1_000_000)).target == "parallel"
def child():
    check(1_000_000)
    assert fastrelu.explain(fastrelu.relu, np.zeros(1_000_000)).target == "serial"
    assert "fork" in fastrelu.explain(fastrelu.relu, np.zeros(1_000_000)).refused["parallel"]
    x = np.zeros((1000, 1000))
    assert (fastrelu.leaky_relu(x.T, 0.5) == 0).all()
    try:
        fastrelu.relu(x, target="parallel")
    except RuntimeError as error:
        assert "fork" in str(error)
    else:
        raise AssertionError("forced parallel in a forked child")
wait(fork(child))
wait(fork(lambda: (child(), wait(fork(child)))))
check(1_000_000)
assert fastrelu.explain(fastrelu.relu, np.zeros(1_000_000)).target == "parallel"
""",
        )

    def test_child_of_a_serial_parent_may_be_parallel(self):
        python(
            CHECK
            + FORKING
            + """
check(10)
def child():
    check(1_000_000)
    assert fastrelu.explain(fastrelu.relu, np.zeros(1_000_000)).target == "parallel"
wait(fork(child))
""",
        )

    def test_fork_while_another_thread_compiles(self, tmp_path):
        python(
            CHECK
            + FORKING
            + """
thread = threading.Thread(target=check)
thread.start()
for k in range(5):
    time.sleep(0.05)
    wait(fork(check))
thread.join()
""",
            NUMBA_CACHE_DIR=str(tmp_path),
        )

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_multiprocessing(self, method):
        python(
            f"""
            import multiprocessing, warnings
            import numpy as np, fastrelu
            warnings.simplefilter("ignore")
            if __name__ == "__main__":
                fastrelu.relu(np.zeros(1_000_000))
                with multiprocessing.get_context({method!r}).Pool(2) as pool:
                    for result in pool.map(fastrelu.relu, [np.full(500_000, -1.0)] * 4):
                        assert (result == 0).all()
            """
        )


THREADS = (
    CHECK
    + """
import threading
failures = []
def work(seed):
    rng = np.random.default_rng(seed)
    try:
        for _ in range(15):
            n = int(10 ** rng.uniform(0, 5.7))
            check(n)
            x = np.full((n // 10 + 1, 10), -1.0)
            assert (fastrelu.relu_(x[::2]) == 0).all() and (x[1::2] == -1).all()
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
"""
)


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_threads_from_the_first_call_on(layer, tmp_path):
    """On workqueue, two threads in parallel regions would abort the process."""
    python(THREADS, NUMBA_THREADING_LAYER=layer, NUMBA_CACHE_DIR=str(tmp_path), timeout=300)


def test_workqueue_is_never_used():
    python(
        CHECK
        + """
check(1_000_000)
explanation = fastrelu.explain(fastrelu.relu, np.zeros(1_000_000))
assert explanation.target == "serial" and "workqueue" in explanation.refused["parallel"], explanation
x = np.ones(10)
for call in (lambda: fastrelu.relu(x, target="parallel"), lambda: fastrelu.relu_(x, target="parallel")):
    try:
        call()
    except RuntimeError as error:
        assert "workqueue" in str(error)
    else:
        raise AssertionError
""",
        NUMBA_THREADING_LAYER="workqueue",
    )


def test_one_automatic_call_at_a_time_is_parallel():
    """Under omp each calling thread gets a team of its own: a second caller runs serially, a forced one does not."""
    python(
        """
        import ctypes, numpy as np, fastrelu
        from fastrelu._runtime import tuning
        x, y = np.full(1_000_000, -1.0), np.empty(1_000_000)
        fastrelu.relu(x, out=y), fastrelu.relu(x, out=y, target="parallel"), fastrelu.relu(x[::-1])
        launches = []
        tables = tuning.settings.tables
        for table in tables.values():
            real = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(table.launcher or 1)
            count = lambda job, real=real: launches.append(1) or real(job)
            spy = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(count)
            launches.append(spy)
            table.launcher = ctypes.cast(spy, ctypes.c_void_p).value
        kept, launches[:] = list(launches), []
        calls = [lambda: fastrelu.relu(x, out=y), lambda: fastrelu.relu(x.reshape(1000, 1000).T)]
        for call in calls:
            tables["auto"].resume = 0  # no call may have to wait for a core of a busy machine
            call()
        assert len(launches) == 2 and (y == 0).all()
        tables["auto"].busy = 1
        for call in calls:
            y[:] = 1
            call()
        assert len(launches) == 2 and tables["auto"].busy == 1
        fastrelu.relu(x, out=y, target="parallel")
        assert len(launches) == 3 and (y == 0).all()
        """
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads of a process in /proc")
def test_few_threads_of_a_program_have_teams():
    """Under omp every caller gets threads of its own, for as long as it lives: sixteen callers would start 112."""
    python(
        """
        import os, threading
        import numpy as np, fastrelu
        from fastrelu._kernels.records import TEAMS
        x, columns = np.ones((1000, 1000), np.float32), np.ones(1000, np.float32)
        calls = [lambda: fastrelu.relu(x), lambda: fastrelu.leaky_relu(x, columns), lambda: fastrelu.relu(x[::2])]
        before = len(os.listdir("/proc/self/task"))
        [call() for call in calls]
        if fastrelu._runtime.layers.layer() != "omp":
            raise SystemExit
        said = []
        def caller():
            for call in calls:
                call()
            said.append(fastrelu.explain(fastrelu.relu, x))
            done.release()
            end.wait()
        def run(count):
            threads = [threading.Thread(target=caller, daemon=True) for _ in range(count)]
            for thread in threads:
                thread.start()
                done.acquire()  # one after the other: nobody is refused for being second
            return threads
        done, end = threading.Semaphore(0), threading.Event()
        threads = run(16)
        assert [one.target for one in said] == ["parallel"] * (TEAMS - 1) + ["serial"] * (17 - TEAMS), said
        assert f"{TEAMS} other threads" in said[-1].refused["parallel"]
        assert len(os.listdir("/proc/self/task")) <= before + 16 + TEAMS * 7
        assert fastrelu.explain(fastrelu.relu, x).target == "parallel"  # the main thread always may
        end.set()
        [thread.join() for thread in threads]
        said.clear()
        run(1)  # threads that have ended leave their places to others
        assert said[0].target == "parallel"
        """,
        NUMBA_NUM_THREADS="8",
        NUMBA_THREADING_LAYER="omp",
    )


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs the processor's clock")
@pytest.mark.parametrize("x", ["np.full(1_000_000, -1.0)", "np.full((1000, 2000), -1.0)[:, ::2]"])
def test_calls_do_not_wait_twice_for_a_thread_without_a_core(x):
    python(
        f"""
        import ctypes, time
        import numpy as np, fastrelu
        from fastrelu._kernels.records import Job
        from fastrelu._runtime import tuning
        x = {x}
        fastrelu.relu(x)
        fastrelu.relu(x)
        table, word = tuning.settings.tables["auto"], ctypes.c_int64
        if not table.launcher:
            raise SystemExit
        run_tile = ctypes.CFUNCTYPE(word, word, word)(table.run_tile)
        launched = []
        @ctypes.CFUNCTYPE(word, word)
        def slow(job):
            launched.append(job)
            time.sleep(0.05)
            for tile in range(Job.from_address(job).tiles):
                run_tile(job, tile)
            return 0
        table.launcher = ctypes.cast(slow, ctypes.c_void_p).value
        start = time.monotonic()
        calls = 0
        while time.monotonic() < start + 0.4:
            assert not fastrelu.relu(x).any()
            calls += 1
        assert len(launched) * 3 < calls, (launched, calls)
        tried = len(launched)
        time.sleep(1)
        fastrelu.relu(x)
        assert len(launched) == tried + 1  # it is tried again
        """
    )


def test_without_f16c(tmp_path):
    """LLVM's own conversions would end in SIGSEGV; ours give the same bits as NumPy's, for every float16."""
    code = """
        import numpy as np, fastrelu
        from numba.core.registry import cpu_target
        assert "+f16c" not in cpu_target.target_context.codegen().magic_tuple()[2]
        x = np.arange(65536, dtype=np.uint16).view(np.float16)
        with np.errstate(all="ignore"):
            for slope in (0.01, 0.3, 1.0, 7.0, 2000.0, 1e-4, -0.0, np.inf):
                a = fastrelu.leaky_relu(x, slope)
                b = np.where(x < 0, x * np.float16(slope), x)
                assert ((a.view(np.uint16) == b.view(np.uint16)) | (np.isnan(a) & np.isnan(b))).all(), slope
        y = fastrelu.relu(x)
        assert (y[x >= 0] == x[x >= 0]).all() and (y[x < 0] == 0).all() and np.isnan(y[np.isnan(x)]).all()
        """
    python(code, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))


def test_flush_to_zero_mode_is_left_as_found():
    """A mode that the user set survives our calls, and so do flags that were raised before."""
    python(
        """
        import ctypes, platform, numpy as np, fastrelu
        if platform.machine() == "x86_64":
            import numba
            from fastrelu._kernels import intrinsics
            read = numba.njit(lambda: intrinsics.read_flags())
            write = numba.njit(lambda flags: intrinsics.write_flags(flags))
            x = np.full(1000, np.nan, np.float32)
            fastrelu.relu(x), read(), fastrelu.relu(x.reshape(10, 100).T)
            before = read()
            write(before | 0x8040 | 0x0004)
            flags = read()
            fastrelu.relu(x), fastrelu.ufuncs.leaky_relu(x, np.float32(0.5))
            after = read()
            write(before)
            assert after & 0x8040 == flags & 0x8040 == 0x8040, (hex(flags), hex(after))
        """
    )
