"""What needs a driver, but no other library: order on streams, threads, several GPUs, large arrays, full memory.

An emulated GPU works as late as it may, so that there a missing dependency shows on every run.
"""

import contextlib
import ctypes
import gc
import os
import threading
import weakref

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import cuda_driver, dlpack, executor, launch_cache, launcher, quick, settings, specs, staging
from fastrelu._cuda.numba_cuda import SIMULATED, cuda

from ..helpers import in_threads
from .conftest import EMULATED
from .data import Relabelled, bits_of, specials

pytestmark = pytest.mark.cuda
X = specials("f", 10_007)
RELU = expected("relu", (X,), "f")
several = pytest.mark.skipif(
    bool(SIMULATED or executor.unavailable() or cuda_driver.get().count() < 2), reason="there are no two GPUs"
)


def number(stream):
    """Return what the driver calls a stream."""
    return int(getattr(stream.handle, "value", stream.handle))


def on_stream(array, stream):
    """Return an array that names a stream."""
    return Relabelled(array, stream=number(stream))


class OnlyDLPack:
    """An array of a library with streams of its own, and nothing but DLPack."""

    def __init__(self, array, stream):
        self.array, self.stream = array, stream

    def __dlpack_device__(self):
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream):
        pointer = self.array.__cuda_array_interface__["data"][0]

        def ready(consumer):
            cuda_driver.get().wait(int(consumer), number(self.stream), 0)

        export = dlpack.Export(self.array, pointer, self.array.shape, self.array.dtype, (dlpack.CUDA, 0), ready)
        return export.__dlpack__(stream=stream)


def stream():
    """Return a stream that waits for no other by itself."""
    return cuda.external_stream(cuda_driver.get().new_stream(0))


def pinned(values):
    """Return host memory from which the GPU copies when it gets there."""
    array = cuda.pinned_array(values.shape, values.dtype)
    array[...] = values
    return array


def later(values, on):
    """Return a device array that gets its values later, on a stream, and what must live until then."""
    source = pinned(values)
    array = cuda.device_array(values.shape, values.dtype)
    cuda.synchronize()
    array.copy_to_device(source, stream=on)
    return array, source


def test_the_result_is_on_the_stream_of_the_array():
    one = stream()
    x, _source = later(X, one)
    y = fastrelu.relu(on_stream(x, one))
    host = pinned(np.zeros_like(X))
    y.copy_to_host(host, stream=one)
    one.synchronize()
    assert_same(host, RELU)


@pytest.mark.parametrize("first", [0, 1])
def test_work_on_two_streams_is_in_order(first):
    one, two = stream(), stream()
    x, _source = later(X, one)
    y = cuda.to_device(np.zeros_like(X))
    fastrelu.relu(on_stream(x, one), out=on_stream(y, two))
    after, host = pinned(np.full_like(X, 5)), pinned(np.zeros_like(X))
    x.copy_to_device(after, stream=one)  # must not come before we have read
    y.copy_to_host(host, stream=two)
    for each in (one, two) if first == 0 else (two, one):
        each.synchronize()
    assert_same(host, RELU)
    assert_same(x.copy_to_host(), after)


def test_masks_and_sums_are_in_order_too():
    one, two, three = stream(), stream(), stream()
    x, _source = later(X, one)
    y, counts = cuda.to_device(np.zeros_like(X)), cuda.to_device(np.zeros((), np.int64))
    mask = cuda.to_device(np.zeros(-(-X.size // 8), np.uint8))
    fastrelu.relu_with_mask(on_stream(x, one), out=on_stream(y, two), mask_out=on_stream(mask, three))
    after, found = pinned(np.full_like(X, -5)), pinned(np.zeros(mask.size, np.uint8))
    mask.copy_to_host(found, stream=three)
    fastrelu.relu_with_counts_(on_stream(x, one), on_stream(counts, two), axis=None)
    x.copy_to_device(after, stream=one)
    for each in (one, two, three):
        each.synchronize()
    with np.errstate(invalid="ignore"):
        assert_same(found, np.packbits(~(X <= 0), bitorder="little"))
        assert int(counts.copy_to_host()) == np.count_nonzero(X > 0)
    assert_same(y.copy_to_host(), RELU)
    assert_same(x.copy_to_host(), after)


def test_dlpack_is_ordered_by_its_producer_and_before_the_default_stream():
    side = stream()
    x, _source = later(X, side)
    y = fastrelu.relu(OnlyDLPack(x, side))
    assert_same(y.copy_to_host(), RELU)
    fastrelu.relu_(OnlyDLPack(x, side))
    assert_same(x.copy_to_host(), RELU)


# ---- What is held until work is done ---------------------------------------------------------------------------------


class Thing:
    """An object that says when nobody holds it."""


def test_an_object_is_held_until_the_work_is_done_and_no_longer():
    driver, side = cuda_driver.get(), stream()
    driver.let_go(0)
    x, _source = later(X, side)
    thing = Thing()
    gone = weakref.ref(thing)
    driver.keep(number(side), 0, thing)
    del thing
    if EMULATED:  # a GPU may be done already
        assert gone() is not None
    side.synchronize()
    fastrelu.relu(x)  # any launch looks
    assert gone() is None
    assert not driver.kept


def test_a_new_thread_does_not_take_its_own_trouble_for_the_end_of_the_work():
    driver, side = cuda_driver.get(), stream()
    driver.let_go(0)
    sources = [later(X, side) for _ in range(5)]
    driver.keep(number(side), 0, thing := Thing())
    thread = threading.Thread(target=driver.let_go)
    thread.start()
    thread.join()
    assert len(driver.kept) == 1 or not EMULATED
    driver.let_go(0)
    assert not driver.kept
    assert_same(sources[-1][0].copy_to_host(), X)
    del thing


def test_few_objects_are_held():
    driver, side = cuda_driver.get(), stream()
    sources = []
    for _ in range(3 * cuda_driver.MOST_KEPT):
        sources.append(later(X, side))
        driver.keep(number(side), 0, Thing())
        assert len(driver.kept) <= cuda_driver.MOST_KEPT
    driver.let_go(0)
    assert not driver.kept


def test_threads_hold_and_let_go():
    x = [cuda.to_device(np.full(1000, k, "f")) for k in range(4)]
    cuda.synchronize()

    def work(k):
        side = stream()
        for _ in range(50):
            assert fastrelu.leaky_relu(OnlyDLPack(x[k], side), -1.0).copy_to_host()[-1] == k
            assert len(cuda_driver.get().kept) <= cuda_driver.MOST_KEPT + 4

    in_threads(4, work)
    cuda_driver.get().let_go(0)
    assert not cuda_driver.get().kept


# ---- Graphs ----------------------------------------------------------------------------------------------------------


class Graph:
    """Work that was given to a stream, to be done by `replay`."""

    def __init__(self, on):
        self.stream, self.code, self._graph, self._ready = on, None, ctypes.c_void_p(), ctypes.c_void_p()

    def __enter__(self):
        cuda.synchronize()
        # Numba would free dropped arrays in between
        self._cleanup = contextlib.ExitStack()
        self._cleanup.enter_context(cuda.defer_cleanup())
        cuda_driver.get().call(
            "cuStreamBeginCapture_v2", ctypes.c_void_p(number(self.stream)), 0
        )  # 0: the strictest mode
        return self

    def __exit__(self, *_):
        driver = cuda_driver.get()
        handle = ctypes.c_void_p(number(self.stream))
        self.code = driver.library.cuStreamEndCapture(handle, ctypes.byref(self._graph))
        self._cleanup.close()
        if not self.code:
            driver.call(
                "cuGraphInstantiateWithFlags", ctypes.byref(self._ready), self._graph, ctypes.c_ulonglong(0)
            )  # fmt: skip

    def replay(self):
        assert not self.code, self.code
        cuda_driver.get().call("cuGraphLaunch", self._ready, ctypes.c_void_p(number(self.stream)))
        self.stream.synchronize()


@pytest.fixture(params=["cold", "warm"])
def start(request):
    """Call for the first time within the capture, or before."""
    launcher.prepared.cache_clear()
    specs.kernel.cache_clear()
    quick._planned.cache_clear()
    launch_cache._plans.clear()
    return request.param


@pytest.mark.parametrize("name", ["relu", "relu_with_mask", "relu_with_counts"])
def test_a_graph_computes_again(start, name):
    side = stream()
    x, y = cuda.to_device(X), cuda.to_device(np.zeros_like(X))
    mask, counts = cuda.to_device(np.zeros(-(-X.size // 8), np.uint8)), cuda.to_device(np.zeros(X.size, np.int64))

    def call():
        if name == "relu":
            fastrelu.relu(on_stream(x, side), out=on_stream(y, side))
        elif name == "relu_with_mask":
            fastrelu.relu_with_mask(on_stream(x, side), out=on_stream(y, side), mask_out=on_stream(mask, side))
        else:
            fastrelu.relu_with_counts(on_stream(x, side), on_stream(counts, side), out=on_stream(y, side))

    if start == "warm":
        call()
        side.synchronize()
        counts.copy_to_device(np.zeros(X.size, np.int64))
        y.copy_to_device(np.zeros_like(X))
    with Graph(side) as graph:
        call()
    assert not y.copy_to_host().any()  # nothing has run
    active = np.zeros(X.size, np.int64)
    for shift in (0, 5):
        values = np.roll(X, shift)
        x.copy_to_device(values)
        cuda.synchronize()
        graph.replay()
        active += values > 0
        assert_same(y.copy_to_host(), np.roll(RELU, shift))
        if name == "relu_with_mask":
            assert_same(mask.copy_to_host(), bits_of(values))
        if name == "relu_with_counts":
            assert_same(counts.copy_to_host(), active)


def test_what_may_be_unsafe_is_let_through_where_we_ask_for_it():
    driver, side = cuda_driver.get(), stream()
    size, memory = ctypes.c_size_t(1 << 10), ctypes.c_uint64()
    for relaxed in (True, False):
        with Graph(side) as graph:
            with driver.relaxed() if relaxed else contextlib.nullcontext():
                code = driver.library.cuMemAlloc_v2(ctypes.byref(memory), size)
            assert driver.is_capturing(number(side))
        assert (code, graph.code) == ((0, 0) if relaxed else (900, 901))
        assert not driver.is_capturing(number(side))
        if relaxed:
            driver.call("cuMemFree_v2", memory)


def test_an_own_stream_and_what_is_held_do_not_spoil_a_capture():
    driver, side, other = cuda_driver.get(), stream(), stream()
    x, y = cuda.to_device(X), cuda.to_device(np.zeros_like(X))
    fastrelu.relu(x)
    waiting, _source = later(X, other)
    driver.keep(number(other), 0, waiting)
    with Graph(side) as graph:
        driver.new_stream(0)
        fastrelu.relu(on_stream(x, side), out=on_stream(y, side))
    graph.replay()
    assert_same(y.copy_to_host(), RELU)
    driver.let_go(0)


def test_no_memory_of_numba_gets_into_a_graph():
    side = stream()
    x, y = cuda.to_device(X), cuda.to_device(np.zeros_like(X))
    with Graph(side) as graph:
        with pytest.raises(RuntimeError, match="a graph is being captured, for which Numba allocates no arrays"):
            fastrelu.relu(on_stream(x, side))
        fastrelu.relu(on_stream(x, side), out=on_stream(y, side))
    graph.replay()
    assert_same(y.copy_to_host(), RELU)


# ---- Threads and GPUs ------------------------------------------------------------------------------------------------


def test_the_default_stream():
    x, _source = later(X, cuda.default_stream())
    y = fastrelu.leaky_relu(x, 0.3)
    assert_same(fastrelu.relu(y).copy_to_host(), expected("relu", (expected("leaky_relu", (X, 0.3), "f"),), "f"))


def test_a_thread_without_a_context():
    x, out, found = cuda.to_device(X), cuda.to_device(np.zeros_like(X)), []
    calls = [lambda: fastrelu.relu(x, out=out), lambda: fastrelu.relu(x), lambda: fastrelu.relu(X, target="cuda")]
    for call in calls:
        thread = threading.Thread(target=lambda call=call: found.append(call()))
        thread.start()
        thread.join()
    assert found[0] is out
    for each in found:
        assert_same(each if isinstance(each, np.ndarray) else each.copy_to_host(), RELU)


def test_many_threads():
    x = [cuda.to_device(np.full(1000, k, "f")) for k in range(4)]

    def work(k):
        for _ in range(50):
            assert fastrelu.leaky_relu(x[k], -1.0).copy_to_host()[-1] == k
            assert fastrelu.relu(np.full(1000, k, "f"), target="cuda")[-1] == k

    in_threads(4, work)


@several
def test_the_gpu_is_the_one_of_the_array():
    with cuda.gpus[1]:
        x, slope = cuda.to_device(X), cuda.to_device(np.float32([0.3]))
    with cuda.gpus[0]:
        y = fastrelu.leaky_relu(x, slope)
        assert cuda_driver.get().device_of(y.__cuda_array_interface__["data"][0]) == 1
        fastrelu.relu_(x)
        _y, mask = fastrelu.relu_with_mask(x)
        assert cuda_driver.get().device_of(mask.__cuda_array_interface__["data"][0]) == 1
        assert cuda.current_context().device.id == 0
    with cuda.gpus[1]:
        assert_same(y.copy_to_host(), expected("leaky_relu", (X, 0.3), "f"))
        assert_same(x.copy_to_host(), RELU)
        assert_same(fastrelu.relu(X, target="cuda"), RELU)


@several
def test_arrays_on_two_gpus():
    arrays = []
    for device in (0, 1):
        with cuda.gpus[device]:
            arrays.append(cuda.to_device(X))
    with pytest.raises(TypeError, match="GPU"):
        fastrelu.relu_backward(*arrays)
    with pytest.raises(TypeError, match="GPU"):
        fastrelu.relu(arrays[0], out=arrays[1])
    with pytest.raises(TypeError, match="GPU"):
        fastrelu.leaky_relu_slope_grad(*arrays)


def fill():
    """Return arrays that leave no piece of 2 MiB, the unit in which a driver hands out memory, of the GPU."""
    arrays, size = [], 1 << 36
    while size >= 1 << 21:
        try:
            arrays.append(cuda.device_array(size, np.int8))
        except Exception as error:  # whose class depends on Numba's version
            if "OUT_OF_MEMORY" not in str(error):
                raise
            size //= 2
    return arrays


@pytest.mark.exclusive
def test_memory_that_runs_out():
    gc.collect()
    cuda.current_context().deallocations.clear()
    free = cuda.current_context().get_memory_info().free
    x, out = cuda.device_array(int(free * 0.6), np.int8), np.full(1 << 22, 5, "f")
    with pytest.raises(MemoryError, match="GPU"):
        fastrelu.relu(x)
    for each in staging._sets.pop(0, ()):  # buffers of earlier calls would do
        for buffer in each.buffers:
            buffer.free()
    rest = fill()
    with pytest.raises(MemoryError, match="GPU"):
        fastrelu.relu(np.full(1 << 22, -1, "f"), out=out, target="cuda")
    assert (out == 5).all()
    del x, rest
    gc.collect()
    cuda.current_context().deallocations.clear()
    assert_same(fastrelu.relu(X, target="cuda"), RELU)


def test_a_launch_that_the_driver_refuses(monkeypatch):
    x = cuda.to_device(X)
    monkeypatch.setattr(settings, "BLOCK", 2048)
    with pytest.raises(RuntimeError, match="the CUDA driver failed: launch of relu: CUDA_ERROR_INVALID_VALUE"):
        fastrelu.relu(x)


@pytest.mark.exclusive
@pytest.mark.skipif(
    os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 4 << 30 if hasattr(os, "sysconf") else True,
    reason="there is not enough memory",
)
def test_more_than_2_to_the_31_elements():
    n = (1 << 31) + 12_345
    if cuda.current_context().get_memory_info().free < n:
        pytest.skip("the GPU has not enough memory")
    x = cuda.device_array(n, np.int8)
    cuda.driver.device_memset(x, 0xFF, n)
    places = [0, 1, (1 << 31) - 1, 1 << 31, n - 1]
    for place in places:
        x[place : place + 1].copy_to_device(np.int8([7]))
    fastrelu.relu_(x)
    for place in places:
        start = max(place - 2, 0)
        around = x[start : place + 3].copy_to_host()
        assert around[place - start] == 7
        assert set(around.tolist()) <= {0, 7}
    # and strides that reach beyond, from either end
    far = type(x)((2, 5), ((1 << 31) + 64, 1), x.dtype, gpu_data=x.gpu_data)
    back = type(x)((2, 5), (-(1 << 31) - 64, 1), x.dtype, gpu_data=x.gpu_data.view((1 << 31) + 64))
    x[(1 << 31) + 64 : (1 << 31) + 69].copy_to_device(np.int8([-3, 4, -5, 6, 7]))
    assert fastrelu.relu(far).copy_to_host().tolist() == [[7, 7, 0, 0, 0], [0, 4, 0, 6, 7]]
    assert fastrelu.relu(back).copy_to_host().tolist() == [[0, 4, 0, 6, 7], [7, 7, 0, 0, 0]]
