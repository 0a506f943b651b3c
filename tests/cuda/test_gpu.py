"""What only a GPU shows: other libraries, streams that race, arrays above 2**31 elements, memory that runs out."""

import threading

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import executor
from fastrelu._operations import ROWS, UFUNCS

from .data import MASKED, SUMMED, Relabelled, bits_of, listed, masked_case, operands_for, specials

pytestmark = [
    pytest.mark.cuda,
    # what other libraries warn of is not ours
    pytest.mark.filterwarnings("default"),
]


def public(name):
    return getattr(fastrelu, name)


def import_torch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    return torch


def to_torch(value):
    return import_torch().from_numpy(value.copy()).cuda()


def to_cupy(value):
    return pytest.importorskip("cupy").asarray(value)


def to_jax(value):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    gpus = [device for device in jax.devices() if device.platform == "gpu"]
    if not gpus:
        pytest.skip("this JAX sees no GPU")
    return jax.device_put(value, gpus[0])


def to_numba(value):
    from fastrelu._cuda.numba_cuda import cuda

    return cuda.to_device(value)


def to_host(array):
    if hasattr(array, "copy_to_host"):
        return array.copy_to_host()
    if hasattr(array, "get"):
        return array.get()
    return array.cpu().numpy() if hasattr(array, "cpu") else np.asarray(array)


LIBRARIES = {"torch": to_torch, "cupy": to_cupy, "jax": to_jax, "numba": to_numba}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", UFUNCS)
@pytest.mark.parametrize("code", "efd")
@pytest.mark.parametrize("n", [1, 1023, 100_003])
def test_every_library(library, name, code, n):
    values = operands_for(name, code, n)
    put = LIBRARIES[library]
    arrays = [put(value) if isinstance(value, np.ndarray) else value for value in values]
    result = public(name)(*arrays)
    assert type(result) is type(arrays[0])
    wanted = expected(name, values, code)
    assert_same(to_host(result), wanted)
    if library == "jax":
        with pytest.raises(TypeError, match="JAX"):
            public(name + "_")(*arrays)
        return
    assert public(name + "_")(*arrays) is arrays[0]
    assert_same(to_host(arrays[0]), wanted)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("code", "efd")
@pytest.mark.parametrize("n", [1, 1023, 100_003])
def test_masks_of_every_library(library, name, code, n):
    values, wanted = masked_case(name, specials(code, n))
    arrays = [LIBRARIES[library](value) if isinstance(value, np.ndarray) else value for value in values]
    results = listed(public(name)(*arrays))
    for result, value in zip(results, wanted, strict=True):
        assert type(result) is type(arrays[0])
        assert_same(to_host(result), value)
    if library == "jax":
        with pytest.raises(TypeError, match="JAX"):
            public(name + "_")(*arrays)
        return
    twin = public(name + "_")(*arrays)
    assert_same(to_host(arrays[0]), wanted[0])
    assert_same(to_host(twin), wanted[-1])


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_masks_of_strided_arrays(library):
    x = specials("f", 4 * 8 * 9 * 9).reshape(4, 8, 9, 9)
    slope = np.linspace(-1, 1, 8, dtype="f").reshape(8, 1, 1)
    device, slopes = LIBRARIES[library](x), LIBRARIES[library](slope)
    views = [device, device[1:, ::2, :, ::3], device[..., 1:]]
    hosts = [x, x[1:, ::2, :, ::3], x[..., 1:]]
    if library == "torch":
        import torch

        views.append(device.to(memory_format=torch.channels_last))
        hosts.append(x)
    for view, host in zip(views, hosts, strict=True):
        part = slice(None, None, 2) if host.shape[1] == 4 else slice(None)
        y, mask = fastrelu.leaky_relu_with_mask(view, slopes[part])
        wanted = masked_case("leaky_relu_with_mask", host, slope[part])[1]
        assert_same(to_host(y), wanted[0])
        assert_same(to_host(mask), wanted[1])
        grad = fastrelu.leaky_relu_backward_from_mask(view, mask, slopes[part])
        parameters = host, host, slope[part], slope[part]
        assert_same(to_host(grad), expected("leaky_relu_backward", parameters, "f"))


@pytest.mark.exclusive
def test_masks_of_more_than_2_to_the_31_elements():
    torch = import_torch()
    n = (1 << 31) + 12_345
    if torch.cuda.mem_get_info()[0] < 7 * n:
        pytest.skip("the GPU has not enough memory")
    x = torch.full((n,), -1, dtype=torch.float16, device="cuda")
    places = [0, 1 << 31, n - 1]
    x[places] = 2
    mask = fastrelu.relu_with_mask_(x)
    assert int(x.count_nonzero()) == int(mask.count_nonzero()) == 3
    assert [int(mask[place // 8]) for place in places] == [1 << place % 8 for place in places]
    grad = fastrelu.relu_backward_from_mask_(torch.ones_like(x), mask)
    assert [int(grad[place]) for place in places] == [1, 1, 1]
    assert int(grad.count_nonzero()) == 3


def test_jax_results_with_masks_are_ordered():
    x = to_jax(np.full(1 << 25, 3, "f"))
    for _ in range(10):
        y, mask = fastrelu.relu_with_mask(x * 1.0)
        assert float(abs(y - 3.0).max()) == 0.0
        assert int(mask.min()) == 255


def test_large_host_arrays_with_masks():
    x = specials("f", 40_000_003)
    for found, wanted in zip(fastrelu.relu_with_mask(x, target="cuda"), fastrelu.relu_with_mask(x), strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", SUMMED)
@pytest.mark.parametrize("code", "efd")
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_sums_of_every_library(library, name, code, axis):
    rng, put = np.random.default_rng(0), LIBRARIES[library]
    # multiples of 1/4, whose sums are exact, whatever their order
    data = [
        (rng.integers(-9, 10, (1003, 65)) / 4).astype(code) for each in ROWS[name].names if each != "negative_slope"
    ]
    slopes = [0.25] if "negative_slope" in ROWS[name].names else []
    counts = np.full(() if axis is None else data[0].shape[axis], 3)
    given = [*data, *([counts] if name.endswith("counts") else [])]
    arrays = [put(each) for each in given]
    if library == "jax" and name.endswith("counts"):
        with pytest.raises(TypeError, match="JAX"):
            public(name)(*arrays, *slopes, axis=axis)
        return
    results = listed(public(name)(*arrays, *slopes, axis=axis))
    for result, wanted in zip(results, listed(public(name)(*given, *slopes, axis=axis)), strict=True):
        assert type(result) is type(arrays[0])
        assert_same(to_host(result), np.asarray(wanted))
    if name.endswith("counts"):
        assert_same(to_host(arrays[-1]), counts)
    if ROWS[name].writes_result and library != "jax":
        twin = public(name + "_")(*arrays, *slopes, axis=axis)
        wanted = public(name + "_")(*given, *slopes, axis=axis)
        assert_same(to_host(twin), np.asarray(wanted))
        assert_same(to_host(arrays[0]), given[0])


def test_sums_in_one_order_on_any_run():
    torch = import_torch()
    grad, x = (torch.randn(1 << 22, 3, device="cuda", dtype=torch.float64) for _ in range(2))
    found = [to_host(fastrelu.leaky_relu_slope_grad(grad, x, axis=axis)) for axis in (1, None) for _ in range(5)]
    for each in found[:5]:
        assert_same(each, found[0])
    for each in found[5:]:
        assert_same(each, found[5])
    exact = fastrelu.leaky_relu_slope_grad(to_host(grad), to_host(x))
    assert found[5] == pytest.approx(exact, rel=1e-14, abs=1e-10)


@pytest.mark.exclusive
def test_counts_of_more_than_2_to_the_31_elements():
    torch = import_torch()
    n = (1 << 31) + 12_345
    if torch.cuda.mem_get_info()[0] < 3 * n:
        pytest.skip("the GPU has not enough memory")
    x = torch.ones(n, dtype=torch.int8, device="cuda")
    x[[0, 1 << 31, n - 1]] = -1
    assert int(fastrelu.count_active(x, axis=None)) == n - 3
    assert fastrelu.count_active(x.reshape(-1, 1), axis=1).tolist() == [n - 3]
    counts = torch.zeros((), dtype=torch.int64, device="cuda")
    assert fastrelu.relu_with_counts_(x, counts, axis=None) is x
    assert int(counts) == int(x.sum(dtype=torch.int64)) == n - 3


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_strided_channels_last_and_prelu(library):
    x = specials("f", 4 * 8 * 9 * 9).reshape(4, 8, 9, 9)
    slope = np.linspace(-1, 1, 8, dtype="f").reshape(8, 1, 1)
    device, slopes = LIBRARIES[library](x), LIBRARIES[library](slope)
    assert_same(to_host(fastrelu.leaky_relu(device, slopes)), expected("leaky_relu", (x, slope), "f"))
    part = device[1:, ::2, :, ::3]
    assert_same(to_host(fastrelu.relu(part)), expected("relu", (x[1:, ::2, :, ::3],), "f"))
    if library == "torch":
        import torch

        last = device.to(memory_format=torch.channels_last)
        result = fastrelu.relu(last)
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert_same(to_host(result), expected("relu", (x,), "f"))


def test_torch_says_what_to_do_about_gradients():
    torch = import_torch()
    x = torch.ones(3, device="cuda", requires_grad=True)
    with pytest.raises(TypeError, match=r"detach\(\)"):
        fastrelu.relu(x)
    with torch.no_grad():
        fastrelu.relu(x)
    saved = torch.ones(3, device="cuda", requires_grad=True)
    y = saved * 2
    z = (y * y).sum()  # saves y
    with torch.no_grad():
        fastrelu.relu_(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_mixed_libraries_and_places():
    torch, cupy = import_torch(), pytest.importorskip("cupy")
    x = torch.ones(3, device="cuda")
    for other in (cupy.ones(3, "f"), np.ones(3, "f"), torch.ones(3)):
        with pytest.raises(TypeError):
            fastrelu.relu_backward(x, other)
    with pytest.raises(TypeError):
        fastrelu.relu(torch.ones(3))  # in host memory


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_streams_do_not_race(library):
    """A slow producer on one stream, our call on a second, a consumer on a third, all without synchronisation."""
    n = 1 << 25
    for _ in range(5):
        if library == "torch":
            torch = import_torch()
            first, second, third = (torch.cuda.Stream() for _ in range(3))
            x = torch.full((n,), -1.0, device="cuda")
            torch.cuda.synchronize()
            with torch.cuda.stream(first):
                torch.cuda._sleep(50_000_000)
                x.fill_(2.0)
            second.wait_stream(first)
            with torch.cuda.stream(second):
                y = fastrelu.relu(x)
            third.wait_stream(second)
            with torch.cuda.stream(third):
                total = (y == 2.0).sum()
            third.synchronize()
            assert int(total) == n
            for stream in (second, third):
                x.record_stream(stream)
                y.record_stream(stream)
        else:
            cupy = pytest.importorskip("cupy")
            first, third = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
            x = cupy.full(n, -1, "f")
            cupy.cuda.Device().synchronize()
            with first:
                for value in range(40):
                    x.fill(value)
                x.fill(2)
                y = fastrelu.relu(x)
                event = first.record()
            third.wait_event(event)
            with third:
                total = (y == 2).sum()
            third.synchronize()
            assert int(total) == n


def test_the_interface_names_the_stream():
    """The array's own stream decides, not the current one."""
    cupy = pytest.importorskip("cupy")

    n = 1 << 25
    for _ in range(5):
        one, two = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        x, y = cupy.full(n, -1, "f"), cupy.zeros(n, "f")
        cupy.cuda.Device().synchronize()
        with one:
            for value in range(40):
                x.fill(value)
        fastrelu.relu(Relabelled(x, stream=one.ptr), out=Relabelled(y, stream=two.ptr))
        with two:
            total = (y == 39).sum()
        with one:
            x.fill(-5)  # must wait until we have read
        two.synchronize()
        assert int(total) == n


def test_jax_results_are_ordered():
    x = to_jax(np.full(1 << 25, 3, "f"))
    for _ in range(10):
        y = fastrelu.relu(x * 1.0) - 3.0
        assert float(abs(y).max()) == 0.0


def test_a_thread_without_a_context():
    torch = import_torch()
    x = torch.full((1000,), -1.0, device="cuda")
    found = []
    thread = threading.Thread(target=lambda: found.append(fastrelu.relu(x)))
    thread.start()
    thread.join()
    assert float(found[0].abs().max()) == 0


@pytest.mark.exclusive
@pytest.mark.parametrize("contiguous", [True, False])
def test_more_than_2_to_the_31_elements(contiguous):
    torch = import_torch()
    n = (1 << 31) + 12_345
    if torch.cuda.mem_get_info()[0] < 3 * n:
        pytest.skip("the GPU has not enough memory")
    x = torch.full((n,), -1, dtype=torch.int8, device="cuda")
    x[-1], x[1 << 31], x[0] = 5, 7, 3
    y = fastrelu.relu(x) if contiguous else fastrelu.relu(x[:-1].reshape(-1, 2)[:, 0])
    if contiguous:
        assert [int(y[0]), int(y[1 << 31]), int(y[-1]), int(y.count_nonzero())] == [3, 7, 5, 3]
    else:
        assert [int(y[0]), int(y[1 << 30]), int(y.count_nonzero())] == [3, 7, 2]


@pytest.mark.exclusive
def test_running_out_of_memory():
    torch = import_torch()
    free = torch.cuda.mem_get_info()[0]
    x = torch.zeros(int(free * 0.7), dtype=torch.int8, device="cuda")
    with pytest.raises(MemoryError, match="memory"):
        fastrelu.relu(x)
    assert fastrelu.relu_(x) is x
    del x
    torch.cuda.empty_cache()


@pytest.mark.parametrize("warm", [False, True])
def test_captured_in_a_graph_of_torch(warm):
    """A type of its own for each call that is cold: its kernel is compiled and loaded while the graph is captured."""
    torch = import_torch()
    x = torch.randn(512, 256, device="cuda", dtype=torch.float32 if warm else torch.float64)
    y, counts = torch.empty_like(x), torch.zeros(256, dtype=torch.int64, device="cuda")

    def calls():
        fastrelu.relu(x, out=y)
        fastrelu.relu_with_counts(x, counts)
        return *fastrelu.relu_with_mask(x), fastrelu.count_active(x)

    if warm:
        calls()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        masked, mask, alone = calls()
    for _ in range(3):
        x.normal_()
        counts.zero_()
        graph.replay()
        host = x.cpu().numpy()
        for found in (y, masked):
            assert_same(found.cpu().numpy(), expected("relu", (host,), host.dtype))
        assert_same(mask.cpu().numpy(), bits_of(host))
        for found in (counts, alone):
            assert_same(found.cpu().numpy(), np.count_nonzero(host > 0, axis=0))


def test_large_host_arrays():
    x = specials("f", 40_000_000)
    assert_same(fastrelu.relu(x, target="cuda"), fastrelu.relu(x))
    assert_same(fastrelu.leaky_relu(x[::-1], 0.3, target="cuda"), fastrelu.leaky_relu(x[::-1], 0.3))


def test_launches_are_prepared():
    """The quick launch is the one in use: Numba's own is the fallback, and would hide that a name has moved."""
    from fastrelu._cuda.bitmask_kernels import BitmaskSpec
    from fastrelu._cuda.elementwise_kernels import ElementwiseSpec
    from fastrelu._cuda.launcher import prepared
    from fastrelu._cuda.sum_kernels import SumSpec

    assert prepared(ElementwiseSpec("relu", "f", ("array",), ("f",), "f", 1)).load(0)
    assert prepared(SumSpec("count_active", "f", ("array",), ("f",), "", 1, "q", True, (4,), 4)).load(0)
    assert prepared(BitmaskSpec("relu_with_mask", "f", ("array",), ("f",), "f", 4, 1)).load(0)


def test_status_names_the_gpu():
    assert "compute capability" in executor.status_line()
