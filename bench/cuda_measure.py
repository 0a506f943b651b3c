"""What the benchmarks of GPUs share: arrays in GPU memory, their contents, and how calls are timed.

Arrays are Numba's; torch and CuPy, where they are installed, see the same memory. An operand of a case is one large
array, of which each call of a batch takes the next part, so that what one call leaves in the second-level cache is of
no use to those that follow. It holds the same million numbers over and over, which makes a comparison with NumPy cheap.
"""

import ctypes
import datetime
import functools
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cuda_start  # before whoever looks for the driver
import numpy as np

import fastrelu
from fastrelu._bench.oracle import same_bits
from fastrelu._cuda import executor

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

#: Makes one call, on part `k` of its arrays.
Run = Callable[[int], object]

PACKAGES = (
    "numpy", "numba", "numba-cuda", "llvmlite", "cuda-core", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink",
    "nvidia-cuda-nvrtc", "ml_dtypes", "torch", "cupy-cuda13x", "cupy-cuda12x", "jax",
)  # fmt: skip
#: The driver's number for the bytes of a GPU's second-level cache.
L2_BYTES = 38
#: Numbers after which the contents of an operand repeat themselves, and how many of them stand for special values.
PERIOD, SPECIAL = 1 << 20, 97
#: Parts of an operand at most, which are the calls of a graph.
MOST_PARTS = 512
#: What is in an output before a kernel writes to it.
POISON = 0xA5
#: How long a batch of calls should take at least, and how long a GPU is kept busy before the first figure, in seconds.
BATCH_SECONDS, SPIN_SECONDS = 0.003, 1.5
#: Up to this size, calls are timed by graphs: a call from Python may take as long as the kernel; and how many calls
#: a graph has at least, of up to 16 MiB and of more.
GRAPH_BYTES, GRAPH_CALLS = 256 << 20, (100, 20)
#: Below this size, calls that no graph holds are timed by how fast they are launched.
LAUNCH_BYTES = 1 << 20


# ---- The machine ----------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {"python": platform.python_version(), "fastrelu": fastrelu.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def peers() -> tuple[Any, Any]:
    """Return torch and CuPy, None where there is none that sees the GPU."""
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None and not torch.cuda.is_available():
        torch = None
    try:
        import cupy

        cupy.zeros(1)
    except Exception:  # there, but for another driver: it says so in many ways
        cupy = None
    return torch, cupy


def context() -> Any:
    """Return Numba's context."""
    from fastrelu._cuda.numba_cuda import cuda

    return cuda.current_context()


@functools.cache
def l2_bytes() -> int:
    """Return the size of the second-level cache."""
    from fastrelu._cuda import cuda_driver

    return cuda_driver.get().attribute(L2_BYTES, 0)


def machine() -> dict[str, Any]:
    """Return what the figures belong to."""
    from fastrelu._cuda import cuda_driver

    driver = cuda_driver.get()
    return {
        "gpu": driver.name(0).split(" (")[0],
        "status": executor.status_line(),
        "multiprocessors": driver.multiprocessors(0),
        "memory_bytes": context().get_memory_info().total,
        "l2_bytes": l2_bytes(),
        "host": platform.processor() or platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(),
    }


def save(path: Path, results: Any) -> None:
    """Write a file of results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(results, indent=1))
    draft.replace(path)


# ---- Arrays ---------------------------------------------------------------------------------------------------------


def dtype_of(name: str) -> np.dtype:
    """Return a type by name; bfloat16 is that of ml_dtypes."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


@functools.lru_cache(maxsize=32)
def numbers(dtype: str, seed: int, count: int = PERIOD) -> np.ndarray:
    """Return normal numbers, and among them NaN, infinities and zeros of both signs."""
    values = np.random.default_rng(seed).standard_normal(count).astype("f")
    special = np.array([np.nan, -0.0, 0.0, np.inf, -np.inf, -0.0, 1e-7, -1e-7], "f")
    values[seed::SPECIAL] = np.resize(special, values[seed::SPECIAL].size)
    with np.errstate(all="ignore"):
        return values.astype(dtype_of(dtype))


def address(array: Any) -> int:
    """Return where an array of any library is."""
    found: int = array.__cuda_array_interface__["data"][0]
    return found


class Operand:
    """An array in GPU memory in equal parts, which repeats `values`, or which is poisoned where there are none."""

    def __init__(self, n: int, parts: int, dtype: str, values: np.ndarray | None = None) -> None:
        from fastrelu._cuda.numba_cuda import cuda

        self.n, self.parts, self.dtype = n, parts, dtype_of(dtype)
        self.values = np.empty(0, self.dtype)
        self.nbytes = n * self.dtype.itemsize
        # as unsigned integers, which every library can take and copy; of bfloat16, Numba copies none
        self.bits = cuda.device_array(n * parts, f"u{self.dtype.itemsize}")
        self.start = address(self.bits)
        if values is None:
            self.poison()
        else:
            self.fill(values)

    def fill(self, values: np.ndarray) -> None:
        """Put values into every part, from the first one on and over and over."""
        from fastrelu._cuda.numba_cuda import cuda

        self.values = values
        some, first = cuda.to_device(values.view(self.bits.dtype)), self.bits[: self.n]
        for start in range(0, self.n, some.size):
            piece = first[start : start + some.size]
            piece.copy_to_device(some[: piece.size])
        for k in range(1, self.parts):
            self.bits[k * self.n : (k + 1) * self.n].copy_to_device(first)

    def poison(self) -> None:
        """Overwrite all of it with what no kernel writes."""
        from fastrelu._cuda.numba_cuda import cuda

        cuda.cudadrv.driver.device_memset(self.bits, POISON, self.bits.nbytes)

    @functools.cached_property
    def views(self) -> list[Any]:
        """Return the parts as what fastrelu is timed with: torch's tensors, or else Numba's arrays."""
        torch, _ = peers()
        return self.numba if torch is None else self.torch

    @functools.cached_property
    def numba(self) -> list[Any]:
        """Return the parts as Numba's arrays."""
        whole = self.bits.view(self.dtype)
        return [whole[k * self.n : (k + 1) * self.n] for k in range(self.parts)]

    @functools.cached_property
    def torch(self) -> list[Any]:
        """Return the parts as torch's tensors."""
        torch, _ = peers()
        if self.dtype.name != "bfloat16":
            whole = torch.as_tensor(self.bits.view(self.dtype), device="cuda")
        else:
            whole = torch.as_tensor(self.bits.view("i2"), device="cuda").view(torch.bfloat16)
        return [whole[k * self.n : (k + 1) * self.n] for k in range(self.parts)]

    @functools.cached_property
    def cupy(self) -> list[Any]:
        """Return the parts as CuPy's arrays."""
        _, cupy = peers()
        whole = cupy.asarray(self.bits.view(self.dtype))
        return [whole[k * self.n : (k + 1) * self.n] for k in range(self.parts)]

    def sample(self, start: int, count: int, part: int = 0) -> np.ndarray:
        """Return some numbers of a part."""
        first = part * self.n + start
        return self.bits[first : first + count].copy_to_host().view(self.dtype)


def samples(n: int, step: int = 1) -> list[tuple[int, int]]:
    """Return (start, count) of the beginning, the middle and the end of n elements; starts are multiples of a step."""
    count = min(n, 4096 // step * step or step)
    starts = {0, (n - count) // 2 // step * step, max(0, n - count) // step * step}
    return sorted((start, min(count, n - start)) for start in starts)


def repeated(values: np.ndarray, start: int, count: int, n: int) -> np.ndarray:
    """Return what an operand of n elements holds there."""
    return values[(start + np.arange(count)) % min(n, values.size)]


def matches(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Say whether two arrays are the same bits, where any NaN is as good as another."""
    return bool(same_bits(found, wanted).all())


def parts_for(nbytes: int, operands: int) -> int:
    """Return into how many parts operands of a size are cut, to be more than twice the second-level cache together.

    Above 64 MiB one call takes more than the cache; there is one part.
    """
    if nbytes > 64 << 20:
        return 1
    return max(2, min(MOST_PARTS, 2 * l2_bytes() // (nbytes * operands) + 1))


def release() -> None:
    """Give all memory back that nothing holds."""
    torch, cupy = peers()
    gc.collect()
    context().deallocations.clear()
    if torch is not None:
        torch.cuda.empty_cache()
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()


# ---- Timing ---------------------------------------------------------------------------------------------------------


def current_stream() -> int:
    """Return the stream on which calls are made: torch's current one, where there is torch."""
    torch, _ = peers()
    return 0 if torch is None else torch.cuda.current_stream().cuda_stream


def copier(x: Operand, y: Operand) -> Run:
    """Return a copy within the GPU, with as little Python as the driver allows."""
    from fastrelu._cuda import cuda_driver

    driver = cuda_driver.get()
    copy, size = driver.library.cuMemcpyDtoDAsync_v2, ctypes.c_size_t(x.nbytes)
    places = [
        (ctypes.c_uint64(y.start + k * y.nbytes), ctypes.c_uint64(x.start + k * x.nbytes)) for k in range(x.parts)
    ]

    def run(k: int) -> None:
        code = copy(*places[k], size, ctypes.c_void_p(current_stream()))
        if code:
            raise driver.error(code, "a copy")

    run.operands = x, y  # which must not go while it is there
    return run


def spin(seconds: float = SPIN_SECONDS) -> None:
    """Keep the GPU busy, so that its clocks are up before the first figure."""
    from fastrelu._cuda.numba_cuda import cuda

    if cuda_start.EMULATED:
        return
    x, y = (Operand(1 << 24, 1, "uint8") for _ in range(2))
    run, end = copier(x, y), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(100):
            run(0)
        cuda.synchronize()


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Return the median and the 20th and 80th percentile."""
    ordered = sorted(samples)
    return {
        "p20": ordered[len(ordered) // 5], "p50": statistics.median(ordered), "p80": ordered[len(ordered) * 4 // 5],
    }  # fmt: skip


def graph_of(run: Run, parts: int, calls: int) -> Callable[[], object] | None:
    """Return the replay of a graph of so many calls; None where there is no torch, or the calls cannot be captured."""
    torch, cupy = peers()
    if torch is None:
        return None
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            if cupy is None:
                _calls(run, parts, calls)
            else:
                with cupy.cuda.ExternalStream(stream.cuda_stream):
                    _calls(run, parts, calls)
        graph.replay()
        torch.cuda.synchronize()
    except Exception as error:
        print(f"not captured: {str(error).splitlines()[:1]}")
        torch.cuda.synchronize()
        return None
    return graph.replay


def _calls(run: Run, parts: int, calls: int) -> None:
    for k in range(calls):
        run(k % parts)


def race(
    runs: Mapping[str, Run], parts: int, nbytes: int, rounds: int, graphs: bool = True
) -> dict[str, tuple[str, list[float]]]:  # fmt: skip
    """Return how each was timed, and seconds per call: batches between two events, one of each in every round.

    Up to `GRAPH_BYTES` a batch is a graph; where one of these cannot be captured, it is left out. Without torch, or
    with `graphs=False`, no batch is a graph.
    """
    from fastrelu._cuda.numba_cuda import cuda

    batches: dict[str, tuple[str, Callable[[], object], int]] = {}
    for name, run in runs.items():
        _calls(run, parts, 3)  # compiles, and loads
        cuda.synchronize()
        if graphs and peers()[0] is not None and nbytes <= GRAPH_BYTES:
            calls = max(parts, GRAPH_CALLS[nbytes > 16 << 20])
            if replay := graph_of(run, parts, calls):
                batches[name] = "graph", replay, calls
            continue
        start = time.perf_counter()
        _calls(run, parts, 3)
        cuda.synchronize()
        calls = max(3, min(400, int(BATCH_SECONDS / ((time.perf_counter() - start) / 3))))
        calls = -(-calls // parts) * parts if parts <= 100 else calls
        batches[name] = "events", functools.partial(_calls, run, parts, calls), calls
    seconds: dict[str, tuple[str, list[float]]] = {name: (method, []) for name, (method, _, _) in batches.items()}
    first, last = cuda.event(), cuda.event()
    # where all parts together fit into the cache, something else goes there between two batches
    flushed = parts == MOST_PARTS
    flush = Operand(2 * l2_bytes(), 1, "uint8") if flushed else None
    for number in range(rounds + 1):
        for name, (_, batch, calls) in batches.items():
            if flush is not None:
                flush.poison()
            first.record()
            batch()
            last.record()
            last.synchronize()
            if number:  # the first round only warms up
                seconds[name][1].append(cuda.event_elapsed_time(first, last) / 1000 / calls)
    return seconds
