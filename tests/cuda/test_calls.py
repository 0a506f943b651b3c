"""Whose arrays are taken, in which stream's order, what is refused, and what a launch hands to the driver."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import (
    cuda_driver,
    dlpack,
    elementwise,
    executor,
    grids,
    launch_cache,
    launcher,
    libraries,
    recognise,
    settings,
)
from fastrelu._cuda.bitmask_kernels import BitmaskSpec
from fastrelu._cuda.elementwise_kernels import ElementwiseSpec
from fastrelu._cuda.grids import Grid
from fastrelu._cuda.numba_cuda import SIMULATED, cuda

from . import fakes
from .data import FLOATS, specials

pytestmark = [
    pytest.mark.usefixtures("tiny_blocks"),
    pytest.mark.skipif(not SIMULATED, reason="these arrays are in host memory"),
]
X = specials("f", 23)


def call(name, *operands, out=None, target=None, **kwargs):
    """Call as the package's dispatcher does: the quick way first, where there is one."""
    quick = executor.quick_for(operands[0])
    if quick is not None and not kwargs and target is None:
        result = quick(name, operands, out)
        if result is not None:
            return result
    return executor.call(name, operands, out, target, kwargs)


def test_cuda_array_interface():
    result = call("relu", fakes.Interface(X))
    assert_same(result.copy_to_host(), expected("relu", (X,), "f"))
    out = fakes.Interface(np.zeros_like(X))
    assert call("relu", fakes.Interface(X, strides=None), out=out) is out
    assert_same(out.array, expected("relu", (X,), "f"))


def test_work_is_ordered_after_producers_and_before_consumers(recorder, monkeypatch):
    seen = []
    launch = elementwise.launch

    def spy(*arguments):
        seen.append(arguments[-1])
        recorder.log.append("launch")
        launch(*arguments)

    monkeypatch.setattr(elementwise, "launch", spy)
    out = fakes.Interface(np.zeros_like(X), stream=11)
    call("relu_backward", fakes.Interface(X, stream=22), fakes.Interface(X, stream=33), 0.0, out=out)
    assert seen == [11]
    assert recorder.log == [
        ("wait", 11, 22), ("wait", 11, 33), "launch", ("wait", 22, 11), ("wait", 33, 11),
    ]  # fmt: skip


def test_one_stream_needs_no_wait(recorder):
    call("relu", fakes.Interface(X, stream=22), out=fakes.Interface(np.zeros_like(X), stream=22))
    assert recorder.log == []


def test_torch(torch, recorder):
    x = fakes.Tensor(X.copy())
    result = call("leaky_relu", x, 0.3)
    assert type(result) is fakes.Tensor
    assert_same(result.array, expected("leaky_relu", (X, 0.3), "f"))
    assert call("relu", x, out=x) is x
    assert_same(x.array, expected("relu", (X,), "f"))
    assert x.version == 1
    strided = fakes.Tensor(np.repeat(X, 2)[::2])
    assert_same(call("relu", strided).array, expected("relu", (X,), "f"))
    out = fakes.Tensor(np.zeros(23, "f"))
    assert call("relu_backward", fakes.Tensor(X), fakes.Tensor(X[::-1].copy()), 0.5, out=out) is out
    assert_same(out.array, expected("relu_backward", (X, X[::-1], 0.5), "f"))


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("slope", [0.3, 0.0, -0.0, 3, -1e39, 1e300, np.inf, np.nan])
def test_the_quick_way_takes_numbers_as_the_general_one(torch, recorder, monkeypatch, code, slope):
    x = specials(code, 29)
    call("relu", fakes.Tensor(x))  # the general way, which learns of bfloat16
    monkeypatch.setattr(elementwise, "call", None)  # only the quick way is left
    result = call("leaky_relu", fakes.Tensor(x), slope)
    assert_same(result.array, expected("leaky_relu", (x, slope), code))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (fakes.Tensor(X, grad=True), r"x requires grad.*detach\(\).*autograd\.Function"),
        (fakes.Tensor(X, dtype="torch.float8_e5m2"), "x is of dtype torch.float8_e5m2"),
        (fakes.Tensor(X, neg=True), "x is a torch.Tensor with its negation bit set; call .resolve_neg"),
        (fakes.Tensor(X, layout="torch.sparse_csr"), "x is a torch.Tensor of layout torch.sparse_csr"),
        (fakes.Tensor(X, nested=True), "x is a torch.Tensor of layout nested"),
        (fakes.Tensor(X, tangent=1.0), "x carries a forward-mode tangent"),
        (fakes.Tensor(X, resized=0), "x is a Tensor whose elements have no memory"),
        (fakes.Tensor(X, resized=X.nbytes - 1), "x is a Tensor whose elements have no memory"),
        (fakes.Tensor(np.repeat(X, 2)[::2], resized=X.nbytes), "x is a Tensor whose elements have no memory"),
        (fakes.Tensor(X, storage_device="meta"), "x is a Tensor whose elements have no memory"),
        (fakes.Tensor(X, storage_device="no"), "x is a Tensor without memory of its own"),
    ],
)
@pytest.mark.parametrize("turn", ["first call", "later"])
def test_torch_refusals(torch, recorder, monkeypatch, tensor, message, turn):
    torch.autograd.forward_ad._current_level = 0 if tensor.tangent else -1
    if turn == "later":
        call("relu", fakes.Tensor(X))
    before = tensor.array.copy()
    for out in (None, tensor):
        with pytest.raises(TypeError, match=f"relu: {message}"):
            call("relu", tensor, out=out)
    good = fakes.Tensor(X)
    with pytest.raises(TypeError, match=f"relu: {message.replace('x ', 'out ', 1)}"):
        call("relu", good, out=tensor)
    with pytest.raises(TypeError, match=f"relu_backward: {message}"):
        call("relu_backward", good, tensor, 0.0)
    assert_same(tensor.array, before)


@pytest.mark.parametrize(
    "change",
    [
        {"nested": True}, {"neg": True}, {"grad": True}, {"resized": 0}, {"resized": 91}, {"storage_device": "no"},
        {"layout": "torch.sparse_csr"},
    ],
)  # fmt: skip
def test_the_quick_way_leaves_unusual_tensors_alone(torch, recorder, change):
    good, odd = fakes.Tensor(X), fakes.Tensor(X, **change)
    quick = executor.quick_for(good)
    assert quick("relu", [good], None) is not None
    assert quick("relu", [odd], None) is quick("relu", [odd], odd) is quick("relu", [good], odd) is None
    assert quick("relu_backward", [good, odd, 0.0], None) is None
    torch.autograd.forward_ad._current_level = 0
    assert quick("relu", [good], None) is None


@pytest.mark.parametrize("turn", ["first call", "later"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("trace", r"torch\.jit\.trace"),
        ("transform", r"torch\.func transformation \(grad\)"),
        ("proxies", "make_fx or .*"),
    ],
)
def test_torch_recorders(torch, recorder, monkeypatch, kind, message, turn):
    x, out = fakes.Tensor(X.copy()), fakes.Tensor(np.full_like(X, 7))
    if turn == "later":
        call("relu", x)
    torch.recorder = kind
    proxies = fakes.types.SimpleNamespace(get_proxy_mode=lambda: 1 if kind == "proxies" else None)
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.proxy_tensor", proxies)
    for given in (None, out, x):
        with pytest.raises(TypeError, match=f"relu: x is .*{message} records"):
            call("relu", x, out=given)
    with pytest.raises(TypeError, match=f"relu_with_mask: x is .*{message} records"):
        fastrelu.relu_with_mask(x)
    assert_same(x.array, X)
    assert set(out.array) == {7}
    assert x.version == out.version == 0


@pytest.mark.parametrize("turn", ["first call", "later"])
def test_torch_outputs_that_are_not_ours_to_write(torch, recorder, turn):
    x, frozen = fakes.Tensor(X), fakes.Tensor(X.copy(), inference=True)
    if turn == "later":
        call("relu", x)
    with pytest.raises(TypeError, match="relu: out is an inference tensor"):
        call("relu", x, out=frozen)
    assert_same(frozen.array, X)
    torch.recorder = "copies"
    with pytest.raises(TypeError, match=r"out .*allow_mutation_on_saved_tensors"):
        call("relu", x, out=fakes.Tensor(X.copy()))
    assert_same(call("relu", x).array, expected("relu", (X,), "f"))
    torch.recorder, torch.is_inference_mode_enabled = None, lambda: True
    torch.autograd.graph.increment_version = None
    from fastrelu._cuda import quick

    quick._quick.clear()
    assert call("relu", x, out=frozen) is frozen
    assert_same(frozen.array, expected("relu", (X,), "f"))


def test_outputs_that_overlap_themselves(recorder):
    x, memory = fakes.Interface(X[:9].reshape(3, 3).copy()), X[:9].copy()
    before = memory.copy()
    for bad in ((8, 4), (4, 4), (0, 4)):
        with pytest.raises(ValueError, match="one in memory"):
            call("relu", x, out=fakes.Interface(np.lib.stride_tricks.as_strided(memory, (3, 3), bad)))
    assert_same(memory, before)


def test_no_elements_need_no_memory(torch, recorder):
    empty = fakes.Tensor(np.zeros((0, 3), "f"), resized=0)
    assert call("relu", empty).shape == (0, 3)
    assert call("relu", fakes.Interface(X[:0], data=(0, False))).shape == (0,)


@pytest.mark.parametrize("pointer", [0, None])
def test_elements_at_no_address(pointer, monkeypatch):
    nowhere = fakes.Interface(X, data=(pointer, False))
    for operands, out, argument in [
        ((nowhere,), None, "x"),
        ((fakes.Interface(X),), nowhere, "out"),
        ((nowhere,), nowhere, "out|x"),
    ]:
        with pytest.raises(ValueError, match=rf"relu: ({argument}) is of shape \(23,\), but has no memory"):
            call("relu", *operands, out=out)
    monkeypatch.setitem(sys.modules, "cupy", fakes.cupy())
    monkeypatch.setattr(recognise, "_always", {})
    array = fakes.CupyArray(X)
    array.data.ptr = 0
    with pytest.raises(ValueError, match=r"x is of shape .*has no memory"):
        call("relu", array)
    monkeypatch.setattr(dlpack, "read", lambda capsule: (0, (23,), (4,), np.dtype("f"), 0))
    with pytest.raises(ValueError, match=r"x is of shape .*has no memory"):
        call("relu", fakes.OnlyDLPack(X))


def test_memory_that_runs_out_in_the_quick_way(torch, recorder):
    full, like = [], torch.empty_like

    def new(value, **options):
        if full:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return like(value, **options)

    torch.empty_like = new
    call("relu", fakes.Tensor(X))
    full.append(True)
    with pytest.raises(MemoryError, match="the GPU has not enough free memory for the result: CUDA out of memory"):
        call("relu", fakes.Tensor(X))


def test_the_quick_way_leaves_overlap_alone(torch, recorder):
    memory = np.concatenate([X, X])
    source, out = fakes.Tensor(memory[:23]), fakes.Tensor(memory[4:27])
    wanted = expected("relu", (memory[:23].copy(),), "f")
    call("relu", source, out=out)
    assert_same(out.array, wanted)


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ((fakes.Interface(X), cuda.to_device(X)), "x is a CUDA array and negative_slope is a Numba device array"),
        ((cuda.to_device(X), X), "negative_slope is a numpy.ndarray .*in host memory"),
        ((cuda.to_device(X), [0.1]), "negative_slope is a list in host memory"),
        ((X, cuda.to_device(X)), "x is a numpy.ndarray .*in host memory"),
        ((cuda.to_device(X), 1j), "negative_slope is of type complex"),
        ((cuda.to_device(X), np.complex64(1)), "negative_slope is of dtype complex64"),
        ((fakes.Interface(X.astype("F")), 1.0), "x is of dtype complex64"),
        ((fakes.Interface(X.astype(">f4")), 1.0), "x is of dtype >f4"),
        ((fakes.Interface(X, typestr="?!"), 1.0), "x is of type"),
        ((fakes.Interface(X, mask=X), 1.0), "masked"),
    ],
)
def test_types_are_refused_by_name(operands, message):
    with pytest.raises(TypeError, match=f"leaky_relu: .*{message}"):
        call("leaky_relu", *operands)


def test_refusals_write_nothing():
    before = np.full(23, 5, "f")
    array = before.copy()
    out = fakes.Interface(array)
    readonly = fakes.Interface(array, readonly=True)
    x = fakes.Interface(X)
    for error, match, kwargs in [
        (ValueError, "read-only", {"out": readonly}),
        (ValueError, "broadcast", {"out": fakes.Interface(array[:7])}),
        (ValueError, "one in memory", {"out": fakes.Interface(np.broadcast_to(array[:1], 23))}),
        (ValueError, "aligned", {"out": fakes.Interface(array, data=(array.ctypes.data + 2, False))}),
        (TypeError, "cast", {"out": fakes.Interface(np.zeros(23, "i"))}),
        (TypeError, "host memory", {"out": np.zeros(23, "f")}),
        (TypeError, "where", {"out": out, "where": np.zeros(23, bool)}),
        (TypeError, "where is of dtype float32", {"out": out, "where": fakes.Interface(X)}),
        (TypeError, "casting='unsafe'", {"out": fakes.Interface(np.zeros(23, "i")), "casting": "unsafe"}),
        (TypeError, "target='serial'", {"out": out, "target": "serial"}),
        (ValueError, "order", {"order": "X"}),
    ]:
        with pytest.raises(error, match=match):
            call("relu", x, **kwargs)
    with pytest.raises(TypeError, match="keyword argument 'axis'"):
        fastrelu.relu(x, out=out, axis=0)
    with pytest.raises(ValueError, match="broadcast"):
        call("leaky_relu", x, fakes.Interface(X[:7]), out=out)
    assert_same(array, before)


def test_dtype_and_signature():
    x = cuda.to_device(X)
    assert call("relu", x, dtype="d").dtype == np.float64
    assert_same(call("relu", x, dtype="e", casting="same_kind").copy_to_host(), expected("relu", (X,), "e"))
    with pytest.raises(TypeError):
        call("relu", x, dtype="e", casting="safe")
    with pytest.raises(TypeError, match="both"):
        call("relu", x, dtype="f", signature="f->f")


def test_strong_and_weak_numbers():
    x = cuda.to_device(X)
    assert call("leaky_relu", x, 0.5).dtype == np.float32
    assert call("leaky_relu", x, np.float64(0.5)).dtype == np.float64
    assert call("leaky_relu", cuda.to_device(specials("e", 23)), np.float32(0.5)).dtype == np.float32


def test_dlpack_there_and_back():
    asked = []
    export = dlpack.Export(X, X.ctypes.data, X.shape, X.dtype, (dlpack.CPU, 0), asked.append)
    assert_same(np.from_dlpack(export), X)
    assert not dlpack._exported or all(entry[2] is not None for entry in dlpack._exported.values())
    capsule = X.reshape(1, 23).__dlpack__()
    assert dlpack.read(capsule) == (X.ctypes.data, (1, 23), (92, 4), np.dtype("f"), 0)
    unread = export.__dlpack__(stream=9)
    managed = list(dlpack._exported.values())[-1][0]
    managed.tensor.byte_offset = 8
    assert dlpack.read(unread)[0] == X.ctypes.data + 8
    assert asked[-1] == 9
    before = len(dlpack._exported)
    del unread
    assert len(dlpack._exported) == before - 1


AT_EXIT = """
import atexit, ctypes, sys

def last():  # runs after the module's own, which was registered later
    for entry in dlpack._exported.values():
        # C runs it when there is no interpreter any more, as it does the destructors of a library
        ctypes.CDLL(None).on_exit(ctypes.cast(entry[0].deleter, ctypes.c_void_p), None)

atexit.register(last)
import numpy as np
from fastrelu._cuda import dlpack

class Owner:
    pass

x = np.arange(5.0)
exports = [dlpack.Export(Owner(), x.ctypes.data, x.shape, x.dtype, (dlpack.CPU, 0), print) for _ in range(3)]
kept, unread = np.from_dlpack(exports[0]), exports[1].__dlpack__(stream=-1)
sys.kept_longer = np.from_dlpack(exports[2]), exports[1].__dlpack__(stream=-1)
assert len(dlpack._exported) == 4
"""


@pytest.mark.skipif(sys.platform != "linux", reason="on_exit is the C library's of Linux")
def test_arrays_may_outlive_the_interpreter():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class OnlyDLPack:
    """An array in GPU memory with nothing but DLPack."""

    def __init__(self, array):
        self._array, self.streams = array, []

    def __dlpack_device__(self):
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        return self._array.__dlpack__()


def test_arrays_with_dlpack_only():
    x, out = OnlyDLPack(X), OnlyDLPack(np.zeros_like(X))
    assert_same(call("relu", x).copy_to_host(), expected("relu", (X,), "f"))
    assert x.streams == [libraries.LEGACY_STREAM]
    assert call("relu", x, out=out) is out
    assert_same(out._array, expected("relu", (X,), "f"))


def test_consumers_of_dlpack_wait_for_what_was_written_into_their_arrays(recorder, monkeypatch):
    recorder.own_stream = lambda device: 55
    x = OnlyDLPack(X.copy())
    assert call("relu", x, out=x) is x
    assert x.streams == [55, 55]
    # as both are used on our stream, nothing waits before; afterwards the stream that consumers wait for does
    assert [entry[:3] for entry in recorder.log] == [("keep", 55, 0), ("wait", libraries.LEGACY_STREAM, 55)]


def test_jax_gets_memory_that_is_held_before_it_runs_out(jax, recorder, monkeypatch):
    like = libraries.View(fakes.JaxArray(X), 1, (1,), (4,), X.dtype, 0, 0)
    recorder.kept, empty = [1], jax.numpy.empty
    recorder.let_go = lambda most: recorder.kept.clear()

    def full(*arguments, **options):
        if recorder.kept or options.get("device") is None:
            raise ValueError("RESOURCE_EXHAUSTED: out of memory")
        return empty(*arguments, **options)

    jax.numpy.empty = full
    assert libraries.JAX.empty((3,), X.dtype, "C", like).array.shape == (3,)
    assert recorder.kept == []
    monkeypatch.setattr(fakes.JaxArray, "devices", lambda self: {None})
    for kept in ([], [1]):
        recorder.kept = kept
        with pytest.raises(MemoryError, match="RESOURCE_EXHAUSTED"):
            libraries.JAX.empty((3,), X.dtype, "C", like)


def test_a_jax_array_is_not_written_to(monkeypatch):
    class Array:
        def devices(self):
            return {fakes.Gpu()}

    module = fakes.types.ModuleType("jax")
    module.Array = Array
    monkeypatch.setitem(sys.modules, "jax", module)
    with pytest.raises(TypeError, match="x is a JAX array"):
        libraries.JAX.view("relu_", "x", Array(), write=True)
    assert libraries.library_of(Array()) is libraries.JAX


@pytest.mark.parametrize(
    ("spec", "values", "kinds"),
    [
        (ElementwiseSpec("relu", "f", ("array",), ("f",), "f", 4), (101, 102, 5, 1), "qqqq"),
        (
            ElementwiseSpec("leaky_relu_grad", "f", ("array", "scalar", "scalar"), ("f", "", ""), "f", 1),
            (101, 102, 1 << 40, 3, 0.25, -0.5), "qqqqff",
        ),
        (ElementwiseSpec("leaky_relu", "d", ("array", "uniform"), ("d", "d"), "d", 1), (101, 102, 5, 1, 103), "qqqqq"),
        (
            ElementwiseSpec("leaky_relu", "d", ("array", "scalar"), ("f", ""), "d", 2, axes=2),
            (1, 2, 3, 4, 5, 6, 7, 8, -9, 10, 0.1), "qqqqqqqqqqd",
        ),
        (
            BitmaskSpec("leaky_relu_backward_from_mask", "e", ("array", "bits", "scalar"), ("e", "", ""), "e", 8, 1),
            (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0.25), "qqqqqqqqqqf",
        ),
    ],
)  # fmt: skip
def test_what_a_launch_hands_to_the_driver(monkeypatch, spec, values, kinds):
    monkeypatch.setattr(launcher, "SIMULATED", False)
    driver, launch = fakes.Driver(), launcher.Prepared(spec)
    launch._handles[0], launch._driver = 4242, driver
    read = {"q": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double}
    for stream in (0, 99):
        launch(Grid(7, 128, 2), stream, 0, *values)
        configuration, handle, table, extra = driver.launches[-1]
        assert (handle, extra) == (4242, None)
        assert [*configuration.grid, *configuration.block] == [7, 1, 1, 128, 2, 1]
        assert (configuration.shared, configuration.stream or 0, configuration.count) == (0, stream, 0)
        places = (ctypes.c_void_p * len(values)).from_address(table)
        assert tuple(read[k].from_address(place).value for k, place in zip(kinds, places, strict=True)) == values
    assert len(launch._free) == 1
    assert [*launcher._flatten(launcher._nest(spec, values))] == [*values]


def test_a_launch_on_a_new_thread_gets_a_context(monkeypatch):
    monkeypatch.setattr(launcher, "SIMULATED", False)
    launch = launcher.Prepared(ElementwiseSpec("relu", "f", ("array",), ("f",), "f", 1))
    launch._handles[0], launch._driver = 1, fakes.Driver([201])
    launch(Grid(1, 1), 0, 0, 1, 2, 3, 0)
    assert launch._driver.log == [("current", 0)]
    assert len(launch._driver.launches) == 2
    launch._driver = fakes.Driver([2])
    with pytest.raises(MemoryError):
        launch(Grid(1, 1), 0, 0, 1, 2, 3, 0)


def test_2_to_the_31_elements_need_no_32_bit_number(monkeypatch):
    monkeypatch.setattr(settings, "BLOCK", 256)
    assert grids.flat_grid(1 << 33).blocks == 1 << 25
    head, loads, grid = grids.contiguous_grid(40, 1 << 33, 4, 0)
    assert (head, grid.blocks) == (2, -(-((1 << 33) - 2) // (4 * grid.threads * loads)))


def test_a_plan_is_made_once_for_arrays_that_lie_alike(monkeypatch):
    planned, plan = [], elementwise.plan
    monkeypatch.setattr(elementwise, "plan", lambda *given: planned.append(given[0]) or plan(*given))
    slope = np.linspace(-1, 1, 5, dtype="f")
    for k in range(3):
        x = np.roll(X[:20], k).reshape(4, 5)
        for value in (0.5 + k, cuda.to_device(slope * k)):
            result = executor.call("leaky_relu", [cuda.to_device(x), value], None, None, {})
            host = value if isinstance(value, float) else slope * k
            assert_same(result.copy_to_host(), expected("leaky_relu", (x, host), "f"))
    assert 2 <= len(planned) <= 8  # the simulator's memory may be aligned otherwise each time
    for again in range(2):
        planned.clear()
        before = cuda.to_device(np.zeros((6, 2, 2, 2, 2, 2, 2), "f"))[:, ::2, :, :1, :, :1, :]
        executor.call("relu", [before], before, None, {})
        assert len(planned) == 1 - again


def test_plans_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(launch_cache, "_plans", {})
    monkeypatch.setattr(launch_cache, "MOST", 3)
    for n in range(1, 9):
        executor.call("relu", [cuda.to_device(X[:n])], None, None, {})
        assert 1 <= len(launch_cache._plans) <= 3


def test_describe_runs_nothing(monkeypatch):
    monkeypatch.setattr(elementwise, "launch", None)
    assert executor.describe("relu", (cuda.to_device(X),), None, None)[0] == "device"
    assert executor.describe("relu", (X,), None, "cuda")[0] == "host to device"
    with pytest.raises(TypeError, match="serial"):
        executor.describe("relu", (cuda.to_device(X),), None, "serial")


def test_status(monkeypatch):
    from fastrelu._cuda import executor

    assert "simulated" in executor.status_line()
    monkeypatch.setattr(executor, "simulated", lambda: False)
    monkeypatch.setattr(cuda_driver, "find", lambda: "no NVIDIA driver was found")
    monkeypatch.setattr(executor, "PACKAGE", "no_such_package")
    reason = executor.unavailable()
    assert "numba-cuda is not installed" in reason
    assert "fastrelu[cuda13]" in reason
    assert "no NVIDIA driver" in reason
    assert "\n" not in executor.status_line()
    monkeypatch.setattr(executor, "PACKAGE", "numba")
    assert executor.unavailable() == "no NVIDIA driver was found"
    with pytest.raises(RuntimeError, match="target='cuda' is not available"):
        executor.require()
