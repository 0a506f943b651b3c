"""Checks of fastrelu on a GPU, each a process of its own: ``python bench/cuda_checks.py NAME [FOLDER]``.

`versions` prints what is installed; `smoke` compiles, launches and compares; `sass` writes registers and instructions
of some kernels to ``FOLDER/sass.txt``. The others are for libraries beside fastrelu: torch, cupy, jax, CUDA graphs and
tensors of torch that are not ordinary ones. A library that is not installed ends its check with `NOT_INSTALLED`.
"""

import functools
import gc
import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import cuda_start  # noqa: F401 before whoever looks for the driver
import numpy as np
from cuda_measure import dtype_of, ml_dtypes, numbers, versions

import fastrelu
from fastrelu._bench.oracle import assert_same, same_bits
from fastrelu._cuda import executor

#: What a check exits with whose library is not installed.
NOT_INSTALLED = 77
#: A slope that every type holds exactly, so that all libraries multiply by the same number.
SLOPE = 0.3125
#: Elements: few, some, and so many that threads have several loads in flight, and a rest.
COUNTS = (7, 1000, (1 << 22) + 3)
START = time.perf_counter()


def say(*what: object) -> None:
    """Print, with the seconds since the start: a check that runs out of time has said how far it came."""
    print(f"{time.perf_counter() - START:6.1f} s", *what, flush=True)


# ---- fastrelu alone -------------------------------------------------------------------------------------------------


def show_versions() -> None:
    """Print what is installed, and what the GPU's own tool says."""
    for name, version in versions().items():
        print(f"{name} {version}")
    print(f"unavailable: {executor.unavailable()}; CUDA_HOME={os.environ.get('CUDA_HOME')}")
    if home := os.environ.get("CUDA_HOME"):
        print("libnvvm:", *(str(path) for path in sorted(Path(home).glob("nvvm/lib64/libnvvm*"))))
    if tool := shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.mem,power.limit"
        subprocess.run([tool, query, "--format=csv,noheader"], check=False)


def smoke() -> None:
    """Compile, launch and compare, on the general way and on the quick one."""
    from fastrelu._cuda.elementwise_kernels import ElementwiseSpec
    from fastrelu._cuda.launcher import prepared
    from fastrelu._cuda.numba_cuda import cuda

    executor.require()
    say(executor.status_line())
    for code, n in itertools.product("fed", COUNTS):
        x, grad = (numbers(np.dtype(code).name, seed, n) for seed in range(2))
        dx, dg = cuda.to_device(x), cuda.to_device(grad)
        for _ in range(2):  # compiles, and then does not
            assert_same(fastrelu.relu(dx).copy_to_host(), relu_of(x), f"relu {code} {n}")
        found = fastrelu.relu_backward(dg, dx).copy_to_host()
        assert_same(found, np.where(x <= 0, grad.dtype.type(0), grad), f"relu_backward {code} {n}")
        say(code, n, "is right")
    assert prepared(ElementwiseSpec("relu", "f", ("array",), ("f",), "f", 1)).load(0), (
        "launches are Numba's own, the slow ones"
    )


def relu_of(x: np.ndarray) -> np.ndarray:
    """Return ReLU in NumPy, with zeros of both signs as they are."""
    with np.errstate(invalid="ignore"):
        return np.where(x < 0, x.dtype.type(0), x)


def sass(folder: Path) -> None:
    """Write registers of the kernels that some calls use, and where a tool is found the instructions of a few."""
    from fastrelu._cuda import cuda_driver, launcher, settings
    from fastrelu._cuda.specs import kernel

    specs: list[Any] = []
    load = launcher.Prepared.load

    def recorded(self: Any, device: int) -> Any:
        if device not in self._handles:
            specs.append(self.spec)
        return load(self, device)

    launcher.Prepared.load = recorded
    threads = cuda_driver.get().multiprocessors(0) * settings.FILL * settings.BLOCK
    n = threads * settings.VECTORS * 16 // 2  # of the smallest type below, enough for all loads of a thread
    shown, text = {"relu f", "leaky E", "counted e"}, []
    for label, call in sass_calls(n // 256 * 256).items():
        specs.clear()
        call()
        for spec in specs:
            compiled = kernel(spec).compile(spec.argument_types())
            line = f"{label:12} {compiled.regs_per_thread:3} registers, {compiled.local_mem_per_thread} bytes of stack"
            say(line)
            text.append(f"{line}\n    {spec}")
            if label in shown and spec.name != "fold":
                text.append(instructions(compiled))
        (folder / "sass.txt").write_text("\n".join(text) + "\n")


def sass_calls(n: int) -> dict[str, Callable[[], object]]:
    """Return calls on n elements, no two of which use the same kernel for them."""
    from fastrelu._cuda.numba_cuda import cuda

    def device(dtype: str, seed: int = 0) -> Any:
        values = numbers(dtype, seed, n)
        return cuda.to_device(values.view(f"u{values.itemsize}")).view(values.dtype)

    x, grad, half = device("float32"), device("float32", 1), device("float16")
    counts, total = cuda.to_device(np.zeros(256, np.int64)), cuda.to_device(np.zeros(()))
    wide = type(x)((n // 512, 256), (2048, 8), x.dtype, gpu_data=x.gpu_data)
    calls = {
        "relu f": lambda: fastrelu.relu(x),
        "relu e": lambda: fastrelu.relu(half),
        "backward f": lambda: fastrelu.relu_backward(grad, x),
        "leaky e": lambda: fastrelu.leaky_relu(half, SLOPE),
        "masked f": lambda: fastrelu.relu_with_mask(x),
        "counted f": lambda: fastrelu.relu_with_counts(x.reshape(-1, 256), counts),
        "counted e": lambda: fastrelu.relu_with_counts(half.reshape(-1, 256), counts),
        "slope f": lambda: fastrelu.leaky_relu_slope_grad(grad, x, out=total),
        "strided f": lambda: fastrelu.relu(wide),
    }
    if ml_dtypes is not None:
        brain = device("bfloat16")
        calls |= {"relu E": lambda: fastrelu.relu(brain), "leaky E": lambda: fastrelu.leaky_relu(brain, SLOPE)}
    return calls


def instructions(compiled: Any) -> str:
    """Return the instructions of a kernel; its PTX where the driver is to make them, or where there is no tool."""
    image = compiled._codelibrary.get_cubin()
    code = getattr(image, "code", image)
    if isinstance(code, str):
        code = code.encode()
    if not code.startswith(b"\x7fELF"):
        return code.decode(errors="replace").rstrip("\0")
    places = os.pathsep.join([os.environ.get("PATH", ""), f"{os.environ.get('CUDA_HOME', '')}/bin"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        for tool, *options in (("nvdisasm", "-c"), ("cuobjdump", "-sass")):
            if found := shutil.which(tool, path=places):
                done = subprocess.run([found, *options, str(path)], capture_output=True, text=True, check=False)
                if not done.returncode:
                    return done.stdout
    return f"(a cubin of {len(code)} bytes, and neither nvdisasm nor cuobjdump)"


# ---- Beside other libraries -----------------------------------------------------------------------------------------


def compare(label: str, found: np.ndarray, wanted: np.ndarray, theirs: Any = None, but: Any = False) -> None:
    """Raise where a result is not NumPy's, bit for bit, or not the other library's, except for the elements `but`."""
    assert_same(found, wanted, label)
    if theirs is not None:
        differ = ~(same_bits(found, theirs) | but)
        assert not differ.any(), f"{label}: {np.flatnonzero(differ)[:3]}: {found[differ][:3]} not {theirs[differ][:3]}"


def check_library(
    put: Callable[[np.ndarray], Any], get: Callable[[Any], np.ndarray], own: dict[str, Callable[..., Any]],
    dtypes: tuple[str, ...], *, writes: bool = True,
) -> None:  # fmt: skip
    """Compare fastrelu on a library's arrays with NumPy and with the library's `own` functions, bit for bit.

    `writes`: whether arrays can be written to. All libraries differ from us in one thing: their ReLU makes zero of
    negative zero.
    """
    for dtype, n in itertools.product(dtypes, COUNTS):
        x, grad = (numbers(dtype, seed, n) for seed in range(2))
        zero, slope = x.dtype.type(0), x.dtype.type(SLOPE)
        dx, dg, label = put(x), put(grad), f"{dtype} {n}"
        with np.errstate(all="ignore"):
            relu, leaky = relu_of(x), np.where(x < 0, x * slope, x)
            dead, active = np.where(x <= 0, zero, grad), ~(x <= 0)
            leaky_grad = np.where(x <= 0, grad * slope, grad)
        bits = np.packbits(active, bitorder="little")

        def result(name: str, *arrays: Any) -> np.ndarray | None:
            return get(own[name](*arrays)) if name in own else None

        compare(f"relu {label}", get(fastrelu.relu(dx)), relu, result("relu", dx), relu == 0)
        compare(f"leaky_relu {label}", get(fastrelu.leaky_relu(dx, SLOPE)), leaky, result("leaky_relu", dx))
        back = get(fastrelu.relu_backward(dg, dx))
        compare(f"relu_backward {label}", back, dead, result("relu_backward", dg, dx))
        if dtype != "float64":
            back = get(fastrelu.leaky_relu_backward(dg, dx, SLOPE))
            theirs = result("leaky_relu_backward", dg, dx)
            compare(f"leaky_relu_backward {label}", back, leaky_grad, theirs, np.isnan(x))
        y, mask = fastrelu.relu_with_mask(dx)
        compare(f"relu_with_mask {label}", get(y), relu)
        compare(f"the mask of {label}", get(mask), bits)
        compare(f"relu_backward_from_mask {label}", get(fastrelu.relu_backward_from_mask(dg, mask)), dead)
        if writes:
            target = put(np.full_like(x, 9))
            assert fastrelu.relu(dx, out=target) is target
            compare(f"relu into out {label}", get(target), relu)
            again = put(x.copy())
            assert fastrelu.relu_(again) is again
            compare(f"relu_ {label}", get(again), relu)
            part = put(x.copy())[1:]  # not aligned as vectors are
            compare(f"relu of a part {label}", get(fastrelu.relu(part)), relu[1:])
        check_sums(put, get, x, grad, label, writes)
        say(label, "is right")


def check_sums(
    put: Callable[[np.ndarray], Any], get: Callable[[Any], np.ndarray], x: np.ndarray, grad: np.ndarray, label: str,
    writes: bool,
) -> None:  # fmt: skip
    """Compare counts, and sums of finite numbers, with NumPy."""
    if x.dtype.name == "float64":
        return
    rows = x[: x.size // 250 * 250].reshape(-1, 250)
    if rows.size:
        wanted = (rows > 0).sum(0)
        if writes:  # the counts are added to what there is
            counts = put(np.full(250, 5, np.int64))
            y = fastrelu.relu_with_counts(put(rows), counts)
            compare(f"relu_with_counts {label}", get(y), relu_of(rows))
            assert np.array_equal(get(counts), wanted + 5), f"relu_with_counts {label}: counts"
            assert np.array_equal(get(fastrelu.count_active(put(rows))), wanted), f"count_active {label}"
    finite = [np.where(np.isfinite(each.astype("f")), each, each.dtype.type(-1)) for each in (grad, x)]
    products = np.where(finite[1] < 0, finite[0].astype("d") * finite[1].astype("d"), 0.0)
    if writes:
        total = put(np.zeros(()))
        fastrelu.leaky_relu_slope_grad(put(finite[0]), put(finite[1]), out=total)
        np.testing.assert_allclose(get(total), products.sum(), rtol=1e-11, err_msg=f"leaky_relu_slope_grad {label}")
    else:
        total = get(fastrelu.leaky_relu_slope_grad(put(finite[0]), put(finite[1])))
        np.testing.assert_allclose(total.astype("d"), products.sum(), rtol=1e-2)


def require(name: str) -> Any:
    """Import a library, or leave."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        leave(f"{name} is not installed: {error}")


def leave(why: str) -> NoReturn:
    """End a check of a library that is not there, or that sees no GPU."""
    print(why)
    sys.exit(NOT_INSTALLED)


def require_torch(device: str = "cuda") -> Any:
    """Import torch that sees the GPU, or leave."""
    torch = require("torch")
    if device == "cuda" and not torch.cuda.is_available():
        leave("this torch sees no GPU")
    return torch


def check_torch(device: str = "cuda") -> None:
    """Compare with torch on its tensors, on its streams, and in layouts that are not contiguous."""
    torch = require_torch(device)
    aten = torch.ops.aten

    def put(values: np.ndarray) -> Any:
        values = np.ascontiguousarray(values).reshape(values.shape)
        if values.dtype.name == "bfloat16":
            return torch.from_numpy(values.view(np.int16)).to(device, copy=True).view(torch.bfloat16)
        return torch.from_numpy(values).to(device, copy=True)

    def get(tensor: Any) -> np.ndarray:
        if tensor.dtype is torch.bfloat16:
            return tensor.contiguous().view(torch.int16).cpu().numpy().view(dtype_of("bfloat16"))
        return tensor.cpu().numpy()

    own = {
        "relu": torch.relu,
        "leaky_relu": lambda x: torch.nn.functional.leaky_relu(x, SLOPE),
        "relu_backward": lambda grad, x: aten.threshold_backward(grad, x, 0),
        "leaky_relu_backward": lambda grad, x: aten.leaky_relu_backward(grad, x, SLOPE, False),
    }
    x = put(numbers("float32", 0)).reshape(1024, 1024)
    slopes = put(np.linspace(0.1, 0.9, 1024, dtype="f"))
    for name, view in {"columns": x[:, ::2], "transposed": x.T, "corner": x[3:, 5:]}.items():
        compare(f"relu of {name}", get(fastrelu.relu(view)), relu_of(get(view)))
    with np.errstate(all="ignore"):
        wanted = np.where(get(x) < 0, get(x) * get(slopes), get(x))
    compare(
        "leaky_relu with slopes", get(fastrelu.leaky_relu(x, slopes)), wanted, get(torch.where(x < 0, x * slopes, x))
    )
    say("layouts are right")
    if device == "cuda":
        check_torch_streams(torch, x, put, get)
    brain = ("bfloat16",) if ml_dtypes else ()
    check_library(put, get, own, ("float32", "float16", *brain, "float64"))


def check_torch_streams(torch: Any, x: Any, put: Callable[..., Any], get: Callable[..., Any]) -> None:
    """Run on a stream of torch's that still has something to do, with another one that waits for it."""
    stream, other = torch.cuda.Stream(), torch.cuda.Stream()
    source, wanted = torch.full_like(x, -7), relu_of(get(x))
    fastrelu.relu(source)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # tens of milliseconds: whoever does not wait reads what was there before
        source.copy_(x)
        y = fastrelu.relu(source)
        doubled = y + y
        done = stream.record_event()
    with torch.cuda.stream(other):
        other.wait_event(done)
        z = fastrelu.leaky_relu(y, SLOPE)
    torch.cuda.synchronize()
    compare("relu on a stream", get(y), wanted)
    compare("what follows on the stream", get(doubled), wanted + wanted)
    compare("what follows on another stream", get(z), wanted)
    say("streams are right")


def check_cupy() -> None:
    """Compare with CuPy on its arrays, on the default stream and on others."""
    cupy = require("cupy")
    own = {
        "relu": lambda x: cupy.maximum(x, 0),
        "leaky_relu": lambda x: cupy.where(x < 0, x * x.dtype.type(SLOPE), x),
        "relu_backward": lambda grad, x: cupy.where(x <= 0, grad.dtype.type(0), grad),
    }
    x = numbers("float32", 0)
    source = cupy.full(x.size, -7, "f")
    fastrelu.relu(source)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for _ in range(200):  # something to wait for
            source += 1
        source.set(x, stream=stream)
        y = fastrelu.relu(source)
        doubled = y + y
        stream.synchronize()
    compare("relu on a stream", cupy.asnumpy(y), relu_of(x))
    compare("what follows on the stream", cupy.asnumpy(doubled), relu_of(x) * 2)
    wide = cupy.asarray(x.reshape(1024, 1024))
    compare("relu of columns", cupy.asnumpy(fastrelu.relu(wide[:, ::2])), relu_of(x.reshape(1024, 1024)[:, ::2]))
    check_library(cupy.asarray, cupy.asnumpy, own, ("float32", "float16", "float64"))


def check_jax() -> None:
    """Compare with JAX on its arrays, and look whether memory comes back; one result lives until the end."""
    jax = require("jax")
    gpu = next((device for device in jax.devices() if device.platform == "gpu"), None)
    if gpu is None:
        leave("this JAX sees no GPU")
    jax.config.update("jax_enable_x64", True)
    put = functools.partial(jax.device_put, device=gpu)
    own = {
        "relu": jax.nn.relu,
        "leaky_relu": lambda x: jax.numpy.where(x < 0, x * x.dtype.type(SLOPE), x),
        "relu_backward": lambda grad, x: jax.numpy.where(x <= 0, grad.dtype.type(0), grad),
    }

    def used() -> int:
        gc.collect()
        return gpu.memory_stats()["bytes_in_use"]

    x = put(np.ones(1 << 24, "f"))
    fastrelu.relu(x).block_until_ready()
    before = used()
    for _ in range(3):
        y = jax.numpy.tanh(fastrelu.relu(x))
        y.block_until_ready()
        del y
    fastrelu.release_memory()
    kept = used() - before
    say("bytes kept after del:", kept)
    brain = ("bfloat16",) if ml_dtypes else ()
    check_library(put, np.asarray, own, ("float32", *brain, "float16", "float64"), writes=False)
    chained = jax.jit(lambda z: z * 2)(fastrelu.relu(jax.jit(lambda z: z - 1)(x)))
    assert not np.asarray(chained).any()
    check_jax.kept = fastrelu.relu(put(np.ones(1000, "f")))  # alive when the interpreter ends
    assert kept < 1 << 20, f"{kept} bytes are kept by nobody"


def check_graph_warm() -> None:
    """Capture calls whose kernels are loaded: with `out`, with new memory, with a mask, with counts."""
    torch = require_torch()
    x = torch.randn(4096, 256, device="cuda")
    y, counts = torch.empty_like(x), torch.zeros(256, dtype=torch.int64, device="cuda")

    def calls() -> tuple[Any, ...]:
        fastrelu.relu(x, out=y)
        fastrelu.relu_with_counts(x, counts)
        return fastrelu.relu(x), *fastrelu.relu_with_mask(x)

    calls()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z, w, mask = calls()
    for k in range(3):
        x.normal_()
        y.fill_(9)
        counts.zero_()
        graph.replay()
        torch.cuda.synchronize()
        wanted = torch.relu(x)
        assert torch.equal(y, wanted), k
        assert torch.equal(z, wanted), k
        assert torch.equal(w, wanted), k
        assert torch.equal(counts, (x > 0).sum(0)), k
        bits = (mask[:, None] >> torch.arange(8, device="cuda", dtype=torch.uint8)) & 1
        assert torch.equal(bits.reshape(-1).bool(), (x > 0).reshape(-1)), k
    say("graphs are right")


def check_graph_cold() -> None:
    """Capture the first call of all, which compiles and loads within the capture."""
    torch = require_torch()
    x = torch.randn(1 << 20, device="cuda")
    y = torch.empty_like(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fastrelu.relu(x, out=y)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, torch.relu(x))
    say("a cold capture is right")


def check_odd_tensors() -> None:
    """Pass tensors of torch without ordinary memory: each must raise TypeError, and leave the GPU as it was."""
    torch = require_torch()
    x = torch.ones(3, 3, device="cuda")
    fastrelu.relu(x)
    odd = {
        "COO": x.to_sparse(), "CSR": x.to_sparse_csr(), "zero": torch._efficientzerotensor((4,), device="cuda"),
        "negated": torch.conj(torch.ones(3, dtype=torch.complex64, device="cuda")).imag,
        "complex": torch.ones(3, dtype=torch.complex64, device="cuda"), "empty": torch.ones(0, 3, device="cuda"),
    }  # fmt: skip
    taken = []
    for name, tensor in odd.items():
        try:
            result = fastrelu.relu(tensor)
        except TypeError as error:
            say(f"{name}: TypeError: {error}")
        else:
            say(f"{name}: {result}")
            taken.append(name)
        torch.cuda.synchronize()
        assert torch.equal(fastrelu.relu(x), x), f"the GPU is not as it was after {name}"
    assert set(taken) <= {"empty"}, f"taken, and not refused: {taken}"


CHECKS: dict[str, Callable[..., None]] = {
    "versions": show_versions, "smoke": smoke, "sass": sass, "torch": check_torch, "cupy": check_cupy,
    "jax": check_jax, "graph-warm": check_graph_warm, "graph-cold": check_graph_cold,
    "odd-tensors": check_odd_tensors,
}  # fmt: skip


if __name__ == "__main__":
    CHECKS[sys.argv[1]](*(Path(each) for each in sys.argv[2:]))
