"""Memory of dropped results for later ones: who gets it when, how much is kept, and what else may happen to it."""

import contextlib
import contextvars
import ctypes
import gc
import mmap
import pickle
import sys
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name

import fastrelu
from fastrelu._call import job_cache, large
from fastrelu._kernels.records import MOST_BLOCKS, Recycler
from fastrelu._runtime import allocation, compiler, tuning

from .children import CHECK, FORKING, python
from .helpers import in_threads, public

OURS, NUMPYS = "fastrelu_recycler", "default_allocator"
N = 9_000_000
X = np.resize(np.arange(-30, 31, dtype=np.float32), N)
RELU = np.maximum(X, 0)
BLOCK = X.nbytes + mmap.PAGESIZE  # what malloc takes for it, at most
pytestmark = pytest.mark.skipif(not allocation.recycler.usable, reason="nothing is recycled on this platform")


@pytest.fixture(scope="module", autouse=True)
def no_garbage():
    """Let no array of an earlier test, in a cycle of objects, be dropped while one of these counts what is kept."""
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401  (its import leaves cycles behind that hold its caller's array)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def recycling():
    """Begin with nothing kept, and leave nothing behind."""
    fastrelu.release_memory()
    with fastrelu.configure(recycle_bytes=1 << 28):
        yield
    fastrelu.release_memory()


def address(array):
    return array.__array_interface__["data"][0]


def kept():
    """Return the addresses and the sizes of the blocks that are kept, oldest first."""
    recycler = allocation.recycler
    blocks = recycler.block[: recycler.blocks]
    assert recycler.kept == sum(block.size for block in blocks)
    assert recycler.lock == 0
    return [block.address for block in blocks], [block.size for block in blocks]


def test_the_next_call_gets_the_memory():
    y = fastrelu.relu(X)
    np.testing.assert_array_equal(y, RELU)
    assert y.base is None
    assert y.flags.owndata
    assert y.flags.writeable
    assert get_handler_name(y) == OURS
    where = address(y)
    y.fill(np.nan)
    del y
    assert kept()[0] == [where]
    z = fastrelu.leaky_relu(X, 0.5)
    assert address(z) == where
    assert kept() == ([], [])
    np.testing.assert_array_equal(z, np.where(X < 0, X * np.float32(0.5), X))


def test_a_loop_needs_two_blocks():
    """The result of the last turn is dropped when the next one is there."""
    seen = set()
    for _ in range(10):
        y = fastrelu.relu(X)
        seen.add(address(y))
        assert len(kept()[0]) <= 1
    assert len(seen) == 2


def _torch(array, how):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(array) if how == "numpy" else torch.from_dlpack(array)


CONSUMERS = {
    "view": lambda y: y[:],
    "one element": lambda y: y[-1:],
    "reshaped and transposed": lambda y: y.reshape(3, -1).T,
    "another type": lambda y: y.view(np.int32)[::-7],
    "memoryview": lambda y: memoryview(y)[5:],
    "numpy.frombuffer": lambda y: np.frombuffer(y, np.uint8),
    "ctypes": lambda y: (ctypes.c_float * 3).from_buffer(y),
    "DLPack": np.from_dlpack,
    "DLPack capsule": lambda y: y.__dlpack__(),
    "broadcast": lambda y: np.broadcast_to(y, (2, N)),
    "iterator": lambda y: y.flat,
    "nditer": lambda y: np.nditer(y),
    "pickle out of band": lambda y: _out_of_band(y),
    "torch.from_numpy": lambda y: _torch(y, "numpy"),
    "torch.from_dlpack": lambda y: _torch(y, "dlpack"),
    "a slice of a torch tensor": lambda y: _torch(y, "numpy")[10:20],
    "a reference in a cycle": lambda y: [[y]],
}


def _out_of_band(array):
    buffers = []
    pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
    return buffers


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_memory_that_somebody_can_see_is_never_handed_out(consumer):
    y = fastrelu.relu(X)
    where = address(y)
    consumed = CONSUMERS[consumer](y)
    del y
    assert kept()[0] == []
    others = [fastrelu.relu_grad(X, 7.0) for _ in range(2)]
    assert where not in map(address, others)
    memory = np.ctypeslib.as_array((ctypes.c_float * N).from_address(where))
    np.testing.assert_array_equal(memory, RELU)
    del consumed, memory
    assert kept()[0] == [where]
    assert address(fastrelu.relu(X)) == where


LAYOUTS = {
    "contiguous": lambda x: x,
    "three axes": lambda x: x.reshape(3, 3, -1),
    "every other element": lambda x: np.repeat(x, 2)[::2],
    "reversed": lambda x: x[::-1],
    "Fortran order": lambda x: x.reshape(3000, 3000).T,
    "transposed": lambda x: x.reshape(30, 300, 1000).transpose(1, 0, 2),
    "byte-swapped": lambda x: x.astype(">f4"),
}


@pytest.mark.parametrize("target", ["serial", "parallel", None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, target):
    x = LAYOUTS[layout](X)
    like = np.negative(x)
    for k in range(3):
        y = fastrelu.relu(x, target=target)
        np.testing.assert_array_equal(y, np.maximum(x, 0))
        assert (y.strides, y.dtype) == (like.strides, like.dtype)
        owner = y if y.base is None else y.base
        assert get_handler_name(owner) == OURS, k
        del y, owner
        assert len(kept()[0]) == 1


def test_functions_and_types():
    """The result's type and shape are those that NumPy would choose, whatever the parameters are."""
    x, row = X.reshape(3000, 3000), np.linspace(0, 1, 3000, dtype=np.float32)
    half, slope = X.astype(np.float16), np.ones((1, 1, 1), np.float32)
    cases = [
        ("relu", (x,)),
        ("relu", (X.astype(np.int32),)),
        ("relu", (x > 0,)),  # below the bound
        ("leaky_relu", (x, row)),
        ("leaky_relu", (x, slope)),
        ("leaky_relu", (x, np.float32(0.5))),
        ("leaky_relu", (x, np.float64(0.5))),
        ("leaky_relu", (half, np.array(0.5))),
        ("leaky_relu", (np.resize(half, 2 * N), 0.5)),
        ("leaky_relu", (X.astype(np.int32), 0.5)),
        ("relu_grad", (x, 0.5)),
        ("leaky_relu_grad", (x, 0.5, row[:, None])),
        ("relu_backward", (x[:1], x, 0.0)),
        ("relu_backward", (x, x.T, 0.0)),
        ("leaky_relu_backward", (x, x, 0.5, 0.25)),
    ]
    for name, operands in cases:
        for _ in range(2):
            y = public(name)(*operands)
            wanted = getattr(fastrelu.ufuncs, name)(*operands)
            assert (y.dtype, y.shape, y.strides) == (wanted.dtype, wanted.shape, wanted.strides), name
            np.testing.assert_array_equal(y, wanted)
            assert get_handler_name(wanted) == NUMPYS


@pytest.mark.parametrize("target", ["serial", "parallel", None])
def test_blocks_are_filled_to_the_last_byte(target):
    """A block that was full of something else, for sizes around units and lines, and never a byte too far."""
    for n in (N, N - 1, N - 17, N - 1000, N - 65_537):
        y = fastrelu.relu(X)
        where = address(y)
        y.fill(np.nan)
        del y
        y = fastrelu.leaky_relu(X[:n], 0.5, target=target)
        assert address(y) == where
        np.testing.assert_array_equal(y, np.where(X[:n] < 0, X[:n] * np.float32(0.5), X[:n]))
        assert np.isnan(np.ctypeslib.as_array((ctypes.c_float * N).from_address(where))[n:]).all()


def test_only_new_large_outputs_are_recycled():
    small, out = X[: N // 2], np.empty_like(X)
    assert get_handler_name(fastrelu.relu(small)) == NUMPYS
    assert get_handler_name(fastrelu.ufuncs.relu(X)) == NUMPYS
    assert get_handler_name(fastrelu.relu(X, out=out)) == NUMPYS
    # Without a value where it is False: there it is memory as NumPy's, not an older result
    assert get_handler_name(fastrelu.relu(X, where=X > 0, out=None)) == NUMPYS
    y = fastrelu.relu(X)
    assert get_handler_name(y) == OURS
    assert {get_handler_name(a) for a in (y.copy(), y + 1, np.empty_like(y))} == {NUMPYS}
    assert get_handler_name() == NUMPYS


def test_off():
    with fastrelu.configure(recycle_bytes=0):
        y = fastrelu.relu(X)
        assert get_handler_name(y) == NUMPYS
        assert get_handler_name(fastrelu.relu(X[::-1])) == NUMPYS
        del y
        assert kept() == ([], [])
    assert get_handler_name(fastrelu.relu(X)) == OURS
    (block,) = kept()[1]
    with fastrelu.configure(recycle_bytes=block - 1):
        assert kept() == ([], [])
        fastrelu.relu(X)
        assert kept() == ([], [])  # larger than all that may be kept


def test_only_large_calls_without_an_output_leave_the_native_front(monkeypatch):
    called = []
    monkeypatch.setattr(fastrelu._api.elementwise, "call", lambda name, *given: called.append(name))
    out = np.empty_like(X)
    for shape in [(), (0,), (3,), (0, N), (1, N // 2), (2, 3, 5)]:
        fastrelu.relu(np.zeros(shape, np.float32))
    fastrelu.relu(X, out=out)
    fastrelu.relu_(out)
    limit = allocation.recycler.smallest // 4
    fastrelu.relu(X[: limit - 1])
    assert called == []
    for x in (X[:limit], X[None], X[:, None], X.reshape(3, 1, 3000, 1000), X[: limit // 2].astype(float)):
        fastrelu.relu(x)
    assert called == ["relu"] * 5
    with fastrelu.configure(recycle_bytes=0):
        fastrelu.relu(X)
    assert called == ["relu"] * 5


def test_the_bound_and_who_goes_first():
    results = [fastrelu.relu(X) for _ in range(6)]
    where = [address(y) for y in results]
    with fastrelu.configure(recycle_bytes=4 * BLOCK + BLOCK // 2):
        for k in range(6):
            results[k] = None
            assert kept()[0] == where[max(0, k - 3) : k + 1]
        assert allocation.recycler.kept <= 4 * BLOCK + BLOCK // 2
        with fastrelu.configure(recycle_bytes=2 * BLOCK + BLOCK // 2):
            assert kept()[0] == where[4:]
        assert address(fastrelu.relu(X)) == where[5]  # the last one is the likeliest to be in caches
        fastrelu.release_memory()
        assert kept() == ([], [])
        fastrelu.relu(X)
        assert len(kept()[0]) == 1


def test_memory_goes_back_to_the_system():
    """In a process of its own: malloc serves large blocks from the system, but for those that fit between others.

    Tests that have used and dropped some blocks of a few MB leave such room in the heap, which is not given back.
    """
    python(
        """
import mmap
import fastrelu
from tests.test_recycling import BLOCK, X

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE

fastrelu.configure(recycle_bytes=1 << 28)
fastrelu.relu(X)
fastrelu.release_memory()
before = resident()
results = [fastrelu.relu(X) for _ in range(3)]
assert resident() - before > 3 * X.nbytes - (8 << 20)
with fastrelu.configure(recycle_bytes=2 * BLOCK):
    del results
    assert resident() - before < 2 * BLOCK + (8 << 20)
    fastrelu.release_memory()
    assert resident() - before < 8 << 20
"""
    )


class Native:
    """The compiled functions on a table of a test's own, where small blocks are kept too."""

    def __init__(self, smallest=1 << 16, limit=1 << 24):
        allocation._recycling()
        self.recycler = Recycler.from_buffer_copy(allocation.recycler)
        self.recycler.smallest, self.recycler.limit = smallest, limit
        word, pointer = ctypes.c_int64, ctypes.c_void_p
        allocate, free, trim = compiler.recycler()
        # (CFUNCTYPE: they run without the GIL)
        self._allocate = ctypes.CFUNCTYPE(word, pointer, word)(allocate)
        self._free = ctypes.CFUNCTYPE(None, pointer, word, word)(free)
        self._trim = ctypes.CFUNCTYPE(word, pointer, word)(trim)

    def allocate(self, size):
        return self._allocate(ctypes.byref(self.recycler), size)

    def free(self, place, size):
        self._free(ctypes.byref(self.recycler), place, size)

    def trim(self, limit):
        return self._trim(ctypes.byref(self.recycler), limit)

    def sizes(self):
        return [block.size for block in self.recycler.block[: self.recycler.blocks]]

    def blocks_are_counted(self):
        return self.recycler.lock == 0 and self.recycler.kept == sum(self.sizes())


@pytest.mark.parametrize(
    ("size", "fits"),
    [(10**6, True), (999_000, True), (810_000, True), (790_000, False), (1_010_000, False), (0, False)],
)
def test_a_block_serves_its_own_size_and_little_less(size, fits):
    native = Native()
    place = native.allocate(10**6)
    native.free(place, 10**6)
    assert (native.allocate(size) == place) is fits
    assert native.trim(0) == 1


def test_no_more_blocks_than_there_is_room_for():
    native = Native()
    places = [native.allocate(100_000) for _ in range(3 * MOST_BLOCKS)]
    assert len(set(places)) == len(places)
    for place in places:
        native.free(place, 100_000)
        assert native.recycler.blocks <= MOST_BLOCKS
        assert native.blocks_are_counted()
    assert [native.allocate(100_000) for _ in range(MOST_BLOCKS)] == places[: -MOST_BLOCKS - 1 : -1]
    assert native.recycler.kept == native.recycler.blocks == 0
    for place in places[-MOST_BLOCKS:]:
        native.free(place, 100_000)
    assert native.trim(0) == 1
    assert native.recycler.kept == native.recycler.blocks == 0


def test_blocks_from_the_middle():
    """The one that fits is taken out, and the others stay in order."""
    native = Native()
    sizes = [100_000 * 2**k for k in range(5)]
    places = [native.allocate(size) for size in sizes]
    for place, size in zip(places, sizes):
        native.free(place, size)
    assert native.allocate(sizes[2]) == places[2]
    assert [block.address for block in native.recycler.block[:4]] == places[:2] + places[3:]
    assert native.allocate(sizes[0]) == places[0]
    assert native.allocate(sizes[4]) == places[4]
    assert native.trim(0) == 1


def test_who_finds_the_table_in_use_does_not_wait():
    native = Native()
    place = native.allocate(100_000)
    native.recycler.lock = 1
    other = native.allocate(100_000)
    native.free(other, 100_000)
    assert native.recycler.blocks == 0
    assert native.trim(0) == 0
    native.recycler.lock = 0
    native.free(place, 100_000)
    assert native.recycler.blocks == 1
    assert native.trim(0) == 1


def test_no_block_has_two_owners():
    """64 threads take and drop at once, in compiled code. In a process of its own, which a failure may kill."""
    python(
        """
import ctypes, threading
import numba
from fastrelu._runtime import compiler
from fastrelu._kernels.intrinsics import call, job_at, words_of
from tests.test_recycling import Native

@numba.njit(nogil=True)
def work(allocate, free, trim, table, me, turns):
    for turn in range(turns):
        size = 1 << 16 << (turn + me) % 2
        last = size // 8 - 1
        place = call(allocate, table, size)
        words = words_of(job_at(place), "run_tile")
        words[0] = words[last] = me
        call(trim, table, 1 << 19 if turn % 10 == 0 else 1 << 20)
        if words[0] != me or words[last] != me:
            return turn + 1
        call(free, table, place, size)
    return 0

native = Native(limit=1 << 20)
parts = compiler.recycler()
work(*parts, ctypes.addressof(native.recycler), 0, 10)
found, barrier = [], threading.Barrier(64)
def run(k):
    barrier.wait()
    found.append(work(*parts, ctypes.addressof(native.recycler), k + 1, 5_000))
threads = [threading.Thread(target=run, args=(k,)) for k in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert found == [0] * 64, found
assert native.blocks_are_counted() and sum(native.sizes()) <= 1 << 20
assert native.trim(0) == 1
assert native.blocks_are_counted() and not native.sizes()
"""
    )


def test_many_threads_call():
    """Results of other threads, dropped in any order, never show up in one's own."""

    def work(k):
        x = np.full(N, k + 1, np.float32)
        before = None
        for _ in range(3):
            y = fastrelu.relu(x)
            assert (y == k + 1).all()
            assert before is None or (before == k + 1).all()
            before = y

    in_threads(8, work)


def test_resize_and_other_ways_to_change_an_array_in_place():
    """The size of a kept block is what malloc says, not what the array was when it was dropped."""
    usable = ctypes.CDLL(None).malloc_usable_size
    usable.restype, usable.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    for change in (
        lambda y: y.resize(2 * N, refcheck=False),
        lambda y: y.resize(N - 1000, refcheck=False),
        lambda y: y.resize(10, refcheck=False),
        lambda y: y.resize(0, refcheck=False),
        lambda y: y.__setstate__((1, (10,), np.dtype("f4"), False, b"\0" * 40)),
        lambda y: y.__setstate__((1, (10,), np.dtype("f8"), False, b"\0" * 80)),
        lambda y: y.__setstate__((1, (10,), np.dtype("S1000"), False, b"\0" * 10_000)),
        lambda y: setattr(y, "shape", (3, -1)),
        lambda y: y.sort(),
    ):
        y = fastrelu.relu(X)
        last, size = y[-1], y.size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a new shape, from NumPy 2.5 on
            change(y)
        if y.size > size:
            assert y[size - 1] == last
            assert not y[size:].any()
        del y
        for place, known in zip(*kept()):
            assert usable(place) == known
        np.testing.assert_array_equal(fastrelu.relu(X), RELU)


def test_an_allocator_of_the_users_own_stays():
    handler = allocation._Handler.from_buffer_copy(
        ctypes.string_at(allocation.pointer(allocation._default, b"mem_handler"), ctypes.sizeof(allocation._Handler))
    )
    handler.name = b"mine"
    capsule = allocation._capsule(ctypes.addressof(handler), b"mem_handler", None)
    context = contextvars.copy_context()
    context.run(allocation._set_handler, capsule)
    assert get_handler_name(context.run(fastrelu.relu, X)) == "mine"
    assert get_handler_name(fastrelu.relu(X)) == OURS


def test_nothing_of_the_callers_context_changes():
    def both():
        before = dict(contextvars.copy_context())
        fastrelu.relu(X)
        assert dict(contextvars.copy_context()) == before

    contextvars.Context().run(both)
    both()
    assert get_handler_name() == NUMPYS


def test_the_context_of_the_recycler_is_nobodys_own():
    """A context can be entered by one thread at a time: each call takes a copy, as threads without a GIL need it."""
    entered, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: allocation._recycling().run(lambda: entered.set() or done.wait()))
    thread.start()
    try:
        entered.wait()
        assert get_handler_name(fastrelu.relu(X)) == OURS
    finally:
        done.set()
        thread.join()


def test_tracemalloc():
    """Kept memory is not the program's; what is in use is, once."""
    fastrelu.relu(X)
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            y = fastrelu.relu(X)
            assert X.nbytes <= tracemalloc.get_traced_memory()[0] - base < X.nbytes + 100_000
            del y
            assert tracemalloc.get_traced_memory()[0] - base < 100_000
        y = fastrelu.relu(X)
    finally:
        tracemalloc.stop()
    del y
    tracemalloc.start()
    y = fastrelu.relu(X)
    tracemalloc.clear_traces()
    del y
    tracemalloc.stop()


def test_no_leak_of_blocks():
    y = fastrelu.relu(X)
    del y
    (size,) = kept()[1]
    for _ in range(50):
        fastrelu.relu(X)
        assert kept()[1] == [size]


def test_ctrl_c():
    """Signals at any moment of a call: the handler is NumPy's afterwards, and everything works."""
    python(
        """
import os, random, signal, threading, time
import numpy as np
from numpy._core.multiarray import get_handler_name
import fastrelu
from fastrelu._runtime import allocation
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
x = np.arange(-4_500_000, 4_500_000, dtype=np.float32)
fastrelu.relu(x)
hits = 0
for k in range(150):
    timer = threading.Timer(random.Random(k).random() * 0.01, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        while True:
            y = fastrelu.relu(x)
    except KeyboardInterrupt:
        hits += 1
    assert get_handler_name() == "default_allocator"
    assert get_handler_name(np.empty(x.shape)) == "default_allocator"
    assert allocation.recycler.lock == 0
    timer.join()
assert hits == 150
assert np.array_equal(fastrelu.relu(x), np.maximum(x, 0))
"""
    )


def test_forks():
    """A fork first gives back what is kept. Memory in use is the child's own copy, and so is what it keeps later."""
    python(
        CHECK
        + FORKING
        + """
import ctypes
import fastrelu
from fastrelu._runtime import allocation
recycler = allocation.recycler
x = np.arange(-4_500_000, 4_500_000, dtype=np.float32)
wanted = np.maximum(x, 0)
y = fastrelu.relu(x)
fastrelu.relu(x)
assert recycler.blocks == 1

def child(generations):
    assert recycler.blocks == recycler.kept == 0
    assert np.array_equal(y, wanted + 1 - generations)
    y[:] += 1
    z = fastrelu.relu(x)
    assert np.array_equal(z, wanted)
    where = z.ctypes.data
    del z
    z = fastrelu.leaky_relu(x, 0.5)
    assert z.ctypes.data == where
    if generations:
        wait(fork(child, generations - 1))
    check(300_000, names=["relu"])
wait(*[fork(child, 1) for _ in range(3)])
assert np.array_equal(y, wanted)

# A fork that Python does not know of, as a C library's: the child has copies of the blocks
where = y.ctypes.data
del y
assert recycler.blocks == 1
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    try:
        signal.alarm(40)
        y = fastrelu.relu(-x, target="serial")
        os._exit(not (y.ctypes.data == where and np.array_equal(y, np.maximum(-x, 0))))
    finally:
        os._exit(1)
y = fastrelu.relu(x)
assert y.ctypes.data == where
wait(pid)
assert np.array_equal(y, wanted)
with open("/proc/self/maps") as lines:
    for line in lines:
        low, high = (int(word, 16) for word in line.split()[0].split("-"))
        if low <= where < high:
            assert line.split()[1] == "rw-p", line
""",
    )


@pytest.mark.parametrize(
    "holder",
    [
        "builtins.y = y",
        "c = [y]; c.append(c)",
        "atexit.register(lambda: fastrelu.relu(y).sum())",
        "threading.Thread(target=lambda: time.sleep(0.2) or fastrelu.relu(y).sum()).start()",
        "threading.Thread(target=hold, args=(y,), daemon=True).start()",
    ],
)
def test_exit(holder):
    """Arrays that outlive their modules are freed when the interpreter ends."""
    python(
        f"""
import atexit, builtins, sys, threading, time
import numpy as np, fastrelu
def hold(y):
    while True:
        y = fastrelu.relu(y)
x = np.ones(9_000_000, np.float32)
fastrelu.relu(x)
y = fastrelu.relu(x)
{holder}
"""
    )


def test_two_threads_begin_at_once(tmp_path):
    """The functions are compiled on the first large call, here of eight threads."""
    python(
        """
import threading
import numpy as np, fastrelu
from fastrelu._runtime import allocation
x = np.arange(-4_500_000, 4_500_000, dtype=np.float32)
wanted, right = np.maximum(x, 0), []
barrier = threading.Barrier(8)
def work():
    barrier.wait()
    for _ in range(3):
        right.append(np.array_equal(fastrelu.relu(x), wanted))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert right == [True] * 24
assert allocation.recycler.blocks == 1
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_nothing_is_compiled_for_small_results():
    python(
        """
import sys
import numpy as np, fastrelu
fastrelu.release_memory()
with fastrelu.configure(recycle_bytes=1): pass
fastrelu.relu(np.ones(1000))
assert "fastrelu._kernels.recycler" not in sys.modules
fastrelu.relu(np.ones(5_000_000))
assert "fastrelu._kernels.recycler" in sys.modules
"""
    )


def test_show_config(capsys):
    fastrelu.relu(X)
    fastrelu.show_config()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("recycle_bytes")]
    assert line.split() == ["recycle_bytes", "268,435,456;", f"{allocation.recycler.kept:,}", "are", "kept"]


def test_environment():
    code = """
import numpy as np, fastrelu
from fastrelu._runtime import allocation
fastrelu.relu(np.ones(9_000_000, np.float32))
print(allocation.recycler.blocks)
"""
    assert python(code, FASTRELU_RECYCLE_BYTES="0").stdout == "0\n"
    assert python(code, FASTRELU_RECYCLE_BYTES="100000000000").stdout == "1\n"


def test_where_the_c_library_does_not_tell_sizes(capsys):
    function = allocation.recycler.usable
    allocation.recycler.usable = 0
    try:
        with fastrelu.configure(recycle_bytes=1 << 28):
            assert get_handler_name(fastrelu.relu(X)) == NUMPYS
            fastrelu.show_config()
    finally:
        allocation.recycler.usable = function
    assert "268,435,456; not used: the C library" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked whether memory is new")
@pytest.mark.parametrize(
    "shape", [lambda a: a, lambda a: a.reshape(3000, 3000), lambda a: a.reshape(3000, 3000)[:, ::-1], lambda a: a[::-1]]
)
def test_new_memory_gets_plain_stores(shape):
    """A kernel of our own notes which stores it is told to use: never streaming ones before memory was touched."""
    told = []

    @ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    def kernel(pointers, n, strides, streaming):
        told.append(streaming)
        return 0

    table = tuning.settings.tables["serial"]
    compiler.for_job("relu", np.dtype("f4"), "serial", False)
    # From the system: malloc has memory of this size itself where a library has told it to keep some
    new = mmap.mmap(-1, 4 * N, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    x, out = shape(X), shape(np.frombuffer(new, np.float32))

    def run():
        told.clear()
        address = ctypes.cast(kernel, ctypes.c_void_p).value
        job_cache.start(large._describe([x, out], address, table.run_tile, True), table, False)
        return any(told)

    assert not run()
    out.flat[:10] = out.flat[-10:] = 0  # its ends are not what counts
    assert not run()
    out[:] = 0
    assert run()
