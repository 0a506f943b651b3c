"""Many threads, each test in a process of its own: whatever a failure does, abort or hang, it does there."""

import os
import subprocess
import sys
import tempfile
import textwrap

import pytest

import fastrelu
from fastrelu._kernels.records import TEAMS

from .children import CHECK, LAYERS, python

THREADS = 64
#: `together(work)` runs work(k) in that many threads at once, and raises the first failure.
TOGETHER = f"""
import threading
THREADS = {THREADS}
def together(work, count=THREADS):
    barrier, failures = threading.Barrier(count), []
    def run(k):
        try:
            barrier.wait()
            work(k)
        except BaseException as failure:
            failures.append(failure)
    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if failures: raise failures[0]
"""
needs_task_folder = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")


@pytest.mark.slow
@LAYERS
def test_everything_from_many_threads_at_once(layer, tmp_path):
    """From the import and the compiling first calls on, each function; some threads change their thread count."""
    python(
        CHECK
        + TOGETHER
        + """
import random
def work(k):
    rng = random.Random(k)
    import fastrelu
    names = list(cases(3, "float32"))
    rng.shuffle(names)
    for name in names:
        check(rng.choice([1, 3, 1000]), names=[name])
    for _ in range(3):
        if k % 4 == 0:
            import numba
            numba.set_num_threads(rng.randint(1, 4))
        check(rng.choice([30_000, 120_000, 200_000]), names=[rng.choice(names)])
        check(120_000, rng.choice(["float16", "float32", "float64"]), names=["leaky_relu"])
    x = (np.arange(1_100_000) % 7 - 3).astype(np.int8)
    if k % 16 == 0:
        assert np.array_equal(fastrelu.leaky_relu(x, 0.5), np.where(x < 0, x * 0.5, x))
together(work)
from fastrelu._runtime import tuning
tables = tuning.settings.tables
assert all(table.busy == 0 for table in tables.values())
here = explained()
if LAYER == "workqueue":
    assert here.target == "serial" and "workqueue" in here.refused["parallel"], here
    assert all(table.launcher == 0 for table in tables.values())
else:
    assert here.target == "parallel" and tables["auto"].launcher, here
    together(lambda k: check(50_000 + k, names=["relu_backward", "relu_grad"], target="parallel"))
""".replace("LAYER", repr(layer)),
        layer=layer,
        NUMBA_CACHE_DIR=str(tmp_path),
        NUMBA_NUM_THREADS="4",
    )


@needs_task_folder
@pytest.mark.parametrize("target", [None, "parallel"])
@LAYERS
def test_many_callers_do_not_start_many_teams(layer, target):
    """Each caller of omp's parallel code gets threads of its own: few do, but those whose calls are forced."""
    if layer == "workqueue" and target == "parallel":
        pytest.skip("refused there")
    result = python(
        CHECK
        + TOGETHER
        + f"""
import os, time
import fastrelu
from fastrelu._kernels.records import TEAMS
turn, done, counts = threading.Lock(), threading.Barrier(THREADS), []
def work(k):
    for _ in range(3):
        with turn:  # one at a time: each finds the way to a parallel region free
            check(200_000, names=["relu"], target={target!r})
    done.wait()
    if k == 0:
        counts.append(len(os.listdir("/proc/self/task")))
    done.wait()
together(work)
end = time.monotonic() + 20
while len(os.listdir("/proc/self/task")) > TEAMS * 4 + 4:  # teams end a moment after their callers
    assert time.monotonic() < end, os.listdir("/proc/self/task")
    time.sleep(0.1)
assert explained().target == "{"serial" if layer == "workqueue" else "parallel"}"
print(counts[0])
""",
        layer=layer,
        NUMBA_NUM_THREADS="4",
    )
    count = int(result.stdout)
    print(f"{layer}, target={target}: {count} threads")
    teams = THREADS if target == "parallel" and layer == "omp" else TEAMS
    assert count <= THREADS + teams * 4 + 4


@LAYERS
def test_inside_the_parallel_regions_of_others(layer):
    """Called by threads of Numba's own pool: in compiled code, and by way of Python."""
    python(
        CHECK
        + TOGETHER
        + """
import ctypes, threading
import numba, fastrelu
from fastrelu import _njit
_njit.init()  # as the entry point does, so that this also runs from a source tree
x = (np.arange(8 * 150_000) % 13 - 6).astype(np.float32).reshape(8, -1)
wanted = np.where(x < 0, x * np.float32(0.5), x)
y = np.empty_like(x)
failures = []
@ctypes.CFUNCTYPE(None, ctypes.c_int64)
def row(i):
    try:
        fastrelu.leaky_relu(x[i], 0.5, out=y[i])
        fastrelu.leaky_relu(x[i].reshape(300, 500).T, 0.5)
    except BaseException as failure:
        failures.append(failure)
@numba.njit(parallel=True)
def region(x, out):
    for i in numba.prange(len(x)):
        fastrelu.leaky_relu(x[i], 0.5, out=out[i])
        row(i)
def region_once(k=0):
    z = np.empty_like(x)
    region(x, z)
    assert np.array_equal(z, wanted) and np.array_equal(y, wanted) and not failures, failures
region_once()
check(200_000, names=["relu"])
y[:] = 0
if LAYER == "workqueue":  # a second thread in a region of Numba's own would abort the process, ours or not
    other = threading.Thread(target=lambda: [check(200_000, names=["relu"]) for _ in range(20)])
    other.start()
    for _ in range(5): region_once()
    other.join()
else:
    together(lambda k: region_once() if k % 2 else check(200_000, names=["relu"]), 16)
""".replace("LAYER", repr(layer)),
        layer=layer,
    )


def test_first_forced_calls_at_once():
    """Nothing has imported Numba yet. While one thread does, others come at all times and must wait."""
    python(
        TOGETHER
        + """
import time
import numpy as np, fastrelu
x = np.full(100, -1.0)
together(lambda k: [time.sleep(0.02 * k), fastrelu.relu(x, target="parallel")], 40)
"""
    )


def test_first_calls_on_the_cpu_and_on_a_gpu_at_once():
    """They import other parts of the package, which need the same modules and locks."""
    python(
        TOGETHER
        + """
import time
import numpy as np, fastrelu
x = np.full(100, -1.0)
def first(k):
    time.sleep(0.02 * k)
    fastrelu.relu(x, target="parallel" if k % 2 else "cuda")
together(first, 12)
""",
        NUMBA_ENABLE_CUDASIM="1",
    )


def test_a_first_call_beside_the_first_njit_of_the_program():
    """Numba has two locks, which both of them need: it hung where one held the first and one the second."""
    python(
        """
import threading, time
import numba
import numpy as np, fastrelu
from fastrelu._runtime import compiler
begun, build = threading.Event(), compiler.kernel_address
def slowly(*given):  # under the lock of compilers, before the first function of ours is made
    begun.set()
    time.sleep(0.5)
    return build(*given)
compiler.kernel_address = slowly
calls = threading.Thread(target=lambda: fastrelu.relu(np.ones(3)))
calls.start()
begun.wait()
numba.njit(lambda x: x)
calls.join()
"""
    )


def test_thread_pools_of_other_libraries():
    pytest.importorskip("dask.array")
    pytest.importorskip("joblib")
    python(
        CHECK
        + """
import concurrent.futures
import dask, dask.array, joblib
import fastrelu
from fastrelu._kernels.records import TEAMS
arrays = [(np.arange(n) % 7 - 3).astype(np.float32) for n in (3, 1000, 200_000) * 20]
wanted = [np.maximum(x, 0) for x in arrays]
def same(results):
    assert all(map(np.array_equal, results, wanted))
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    same(list(pool.map(fastrelu.relu, arrays)))
    same(list(pool.map(lambda x: fastrelu.relu(x, target="serial"), arrays)))
same(dask.compute(*[dask.delayed(fastrelu.relu)(x) for x in arrays], scheduler="threads", num_workers=16))
big = np.concatenate(arrays)
lazy = dask.array.from_array(big, chunks=150_000)
assert np.array_equal(fastrelu.relu(lazy).compute(scheduler="threads", num_workers=16), np.maximum(big, 0))
same(joblib.Parallel(16, backend="threading")(joblib.delayed(fastrelu.relu)(x) for x in arrays))
same(joblib.Parallel(2, backend="loky")(joblib.delayed(fastrelu.relu)(x) for x in arrays))
assert explained().target == "parallel" or "workqueue" in explained().refused["parallel"]
"""
    )


EXITS = {
    "automatic": "fastrelu.leaky_relu(x, 0.5, out=y)",
    "forced": "fastrelu.relu(x, out=y, target='parallel')",
    "raw ufunc": "fastrelu.ufuncs.relu(x, y)",
    "transposed": "fastrelu.relu(x.reshape(-1, 1000).T)",
    "converted": "fastrelu.leaky_relu(whole, 0.5)",
    "small": "fastrelu.relu(x[:10])",
    "allocating": "fastrelu.relu_backward(x, x)",
}


@pytest.mark.parametrize("compiled", [True, False])
def test_the_interpreter_exits_during_calls(compiled, tmp_path):
    """Daemon threads are in the middle of a call, or of compiling it, while the main thread ends."""
    root = os.path.dirname(os.path.dirname(fastrelu.__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path]), "NUMBA_THREADING_LAYER": "omp"}
    trials = [(call, delay) for call in EXITS.values() for delay in (0, 0.01)]
    if not compiled:
        trials = [(EXITS[kind], delay) for kind in ("automatic", "transposed") for delay in (0.05, 0.4)]
    ends = {}
    for at_once in (trials[::2], trials[1::2]):
        children = {}
        for call, delay in at_once:
            code = f"""
                import threading, time, numpy as np, fastrelu
                x = np.full(1_500_000, -1, np.float32)
                y, whole = np.empty_like(x), x.astype(np.int8)
                started = threading.Barrier(3)
                def work():
                    {call if compiled else "pass"}
                    started.wait()
                    while True:
                        {call}
                for _ in range(2): threading.Thread(target=work, daemon=True).start()
                started.wait()
                time.sleep({delay})
            """
            if not compiled:
                environment["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=tmp_path)
            command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
            children[call, delay] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        ends |= {key: (child.communicate(timeout=100)[1], child.returncode) for key, child in children.items()}
    assert set(ends.values()) == {(b"", 0)}, {key: end for key, end in ends.items() if end != (b"", 0)}


def test_calls_from_exit_handlers():
    python(
        CHECK
        + """
import atexit, os, traceback
def last():
    try:
        import fastrelu
        check(200_000, names=["relu"])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
atexit.register(last)
"""
    )


def test_a_wish_of_another_thread_for_the_same_loop():
    """Threads share the word in which a loop says what it wants, and one may write there while another reads."""
    python(
        """
        import numpy as np, fastrelu
        from fastrelu._runtime import compiler, layers
        from fastrelu._kernels.records import LAUNCHER, OWNER
        fastrelu.relu(np.zeros(10))
        index, slot = next(
            (k, slot) for k, (operation, kind, slot) in enumerate(compiler.slots)
            if (operation, kind) == ("relu", "d")
        )
        def other():
            slot.wants = OWNER
        layers.start_here = other
        slot.wants = LAUNCHER
        compiler.compile_slot(compiler.slots, index)
        """,
        layer="omp",
        NUMBA_NUM_THREADS="4",
    )


@pytest.mark.parametrize("refused", ["all", "second"])
def test_no_more_threads_can_be_started(refused):
    """As at the interpreter's end from Python 3.12 on, or at the limit of threads: a converting call needs none."""
    python(
        f"""
        import threading, numpy as np, fastrelu
        x = (np.arange(5_000_000) % 7 - 3).astype(np.int8)
        start, calls = threading.Thread.start, []
        def refuse(thread):
            calls.append(thread)
            if {refused == "all"} or len(calls) > 1:
                raise RuntimeError("can't start new thread")
            start(thread)
        fastrelu.leaky_relu(x[:10], 0.5)
        fastrelu.relu(np.zeros(1_000_000))
        assert fastrelu.explain(fastrelu.leaky_relu, x, 0.5).target == "parallel"
        threading.Thread.start = refuse
        result = fastrelu.leaky_relu(x, 0.5)
        assert calls and np.array_equal(result, np.where(x < 0, x * 0.5, x))
        """,
        layer="omp",
        NUMBA_NUM_THREADS="4",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals are delivered otherwise on Windows")
class TestCtrlC:
    def test_during_long_calls(self):
        """Whatever runs: KeyboardInterrupt when it ends, nothing is left taken, and the next call is right."""
        python(
            f"""
            import os, random, signal, threading, numpy as np, fastrelu
            from fastrelu._runtime import tuning
            signal.signal(signal.SIGINT, signal.default_int_handler)
            x = np.full(4_000_000, -1, np.float32)
            y, whole = np.empty_like(x), x.astype(np.int8)
            rng = random.Random(0)
            for call in {list(EXITS.values())}:
                run = eval("lambda: " + call)
                right = run().copy()
                for _ in range(4):
                    timer = threading.Timer(rng.uniform(0.001, 0.03), os.kill, (os.getpid(), signal.SIGINT))
                    try:
                        timer.start()
                        while True:
                            run()
                    except KeyboardInterrupt:
                        pass
                    timer.join()
                    assert not any(table.busy for table in tuning.settings.tables.values())
                    assert np.array_equal(run(), right), call
            assert fastrelu.explain(fastrelu.relu, x).target == "parallel"
            """,
            layer="omp",
        )

    def test_nothing_is_written_afterwards(self):
        """A converting call runs on threads of Python, and Ctrl-C may come while it waits for them."""
        python(
            """
            import os, signal, threading, numpy as np, fastrelu
            signal.signal(signal.SIGINT, signal.default_int_handler)
            x, y = np.full(3_000_000, -1, np.int8), np.empty(3_000_000)
            fastrelu.leaky_relu(x, 0.5, out=y)
            go, done, run = threading.Event(), threading.Event(), threading.Thread.run
            def wait_and_run(thread):
                go.wait(30)
                run(thread)
                done.set()
            threading.Thread.run = wait_and_run
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            threading.Timer(0.5, go.set).start()
            try:
                fastrelu.leaky_relu(x, 0.5, out=y)
            except KeyboardInterrupt:
                y[:] = 42
            assert done.wait(30)
            assert (y == 42).all(), (y != 42).sum()
            """,
            layer="omp",
            NUMBA_NUM_THREADS="2",
        )
