"""The GPU benchmark: ``python bench/cuda_bench.py [all | bandwidth | calls | tune] [--output FILE]``.

`bandwidth` times forward, in place and backward, forward and backward with a mask of one bit per element, and passes
with counts and with the gradient of a slope, for rows of 256 units, from
1 KiB to 4 GiB with CUDA events, as GB/s and as a share of a device-to-device copy of the same size measured in the same
rounds, beside torch and CuPy. `calls` times the host's side of a call on a small array. `tune` compares block sizes,
loads in flight and grids. fastrelu is checked against its oracle before anything is timed. Writes one JSON file with
the GPU's name, the driver and all versions.

Needs a GPU; torch and CuPy take part where they are installed, on the same memory. Everything is on CUDA's default
stream. Small sizes show how fast the host launches, and arrays up to the size of the second-level cache stay in it
between repetitions, for every provider alike: read those rows as such.
"""

import argparse
import ctypes
import datetime
import gc
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import fastrelu
from fastrelu import _cuda
from fastrelu._bench.oracle import assert_same, expected

SMALLEST, LARGEST = 1 << 10, 1 << 32
DTYPES = ("float32", "float16")
ROUNDS, BATCH_SECONDS = 15, 0.004
CALL_ROUNDS, CALLS = 40, 200
PACKAGES = ("numpy", "numba", "numba-cuda", "cuda-bindings", "torch", "cupy-cuda13x", "cupy-cuda12x")
#: The driver's numbers for what it says of a GPU: the bytes of its second-level cache.
L2_BYTES = 38
Run = Callable[[], object]


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {"python": platform.python_version(), "fastrelu": fastrelu.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def peers() -> tuple[Any, Any]:
    """Return torch and CuPy, None where there is none that sees the GPU."""
    try:
        import torch
    except ImportError:
        torch = None
    try:
        import cupy
    except ImportError:
        cupy = None
    return torch if torch is not None and torch.cuda.is_available() else None, cupy


def context() -> Any:
    """Return Numba's context."""
    from fastrelu._cuda._numba import cuda

    return cuda.current_context()


def machine() -> dict[str, Any]:
    """Return what the figures belong to."""
    from fastrelu._cuda import _driver

    driver = _driver.get()
    return {
        "gpu": driver.name(0).split(" (")[0],
        "status": _cuda.status_line(),
        "multiprocessors": driver.multiprocessors(0),
        "memory_bytes": context().get_memory_info().total,
        "l2_bytes": driver.attribute(L2_BYTES, 0),
        "host": platform.processor() or platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "versions": versions(),
    }


def normal(n: int, dtype: str, seed: int = 0) -> Any:
    """Return n normal numbers on the GPU, the same million over and over."""
    from fastrelu._cuda._numba import cuda

    some = cuda.to_device(np.random.default_rng(seed).standard_normal(min(n, 1 << 20)).astype(dtype))
    array = cuda.device_array(n, dtype)
    for start in range(0, n, some.size):
        part = array[start : start + some.size]
        part.copy_to_device(some[: part.size])
    return array


def copier(x: Any, y: Any) -> Run:
    """Return a copy within the GPU, with as little Python as the driver allows."""
    from fastrelu._cuda import _driver

    copy = _driver.get().library.cuMemcpyDtoDAsync_v2
    places = [ctypes.c_uint64(each.__cuda_array_interface__["data"][0]) for each in (y, x)]
    size, stream = ctypes.c_size_t(x.nbytes), ctypes.c_void_p(0)
    if code := copy(*places, size, stream):
        raise _driver.get().error(code, "a copy")
    return lambda: copy(*places, size, stream)


def providers(operation: str, dtype: str, n: int) -> tuple[dict[str, Run], dict[str, int]]:
    """Return, by name, functions that run an operation on n elements, and the bytes that a call of each moves."""
    torch, cupy = peers()
    x, y = normal(n, dtype), normal(n, dtype, 1)
    size = np.dtype(dtype).itemsize
    runs: dict[str, Run] = {"copy": copier(x, y)}

    def shared(*arrays: Any) -> tuple[list[Any], list[Any]]:
        """Return the same memory as torch's tensors and as CuPy's arrays, Nones where they are missing."""
        tensors = [None if torch is None else torch.as_tensor(each, device="cuda") for each in arrays]
        return tensors, [None if cupy is None else cupy.asarray(each) for each in arrays]

    (tx, ty), (cx, cy) = shared(x, y)
    if operation == "forward":
        runs["fastrelu"] = lambda: fastrelu.relu(x, out=y)
        runs["torch"] = lambda: torch.clamp_min(tx, 0, out=ty)
        runs["torch relu"] = lambda: torch.relu(tx)
        zero = None if cupy is None else cupy.zeros((), dtype)
        runs["cupy"] = lambda: cupy.maximum(cx, zero, out=cy)
    elif operation == "leaky":
        runs["fastrelu"] = lambda: fastrelu.leaky_relu(x, 0.01, out=y)
        runs["torch"] = lambda: torch.nn.functional.leaky_relu(tx, 0.01)
    elif operation == "in place":
        runs["fastrelu"] = lambda: fastrelu.relu_(x)
        runs["torch"] = lambda: torch.relu_(tx)
        zero = None if cupy is None else cupy.zeros((), dtype)
        runs["cupy"] = lambda: cupy.maximum(cx, zero, out=cx)
    elif operation == "masked":
        mask = normal(-(-n // 8), "uint8")
        runs["fastrelu"] = lambda: fastrelu.relu_with_mask(x, out=y, mask_out=mask)
        runs["fastrelu relu"] = lambda: fastrelu.relu(x, out=y)  # what the mask costs
        runs["torch"] = lambda: torch.clamp_min(tx, 0, out=ty)
    elif operation == "counted":
        rows, into = x.reshape(-1, 256), y.reshape(-1, 256)
        counts = normal(256, "int64")
        (trows, tinto, tcounts), _ = shared(rows, into, counts)
        runs["fastrelu"] = lambda: fastrelu.relu_with_counts(rows, counts, out=into)
        runs["torch"] = lambda: (torch.clamp_min(trows, 0, out=tinto), tcounts.add_((trows > 0).sum(0)))
    else:
        grad = normal(n, dtype, 2)
        (tgrad,), (cgrad,) = shared(grad)
        if operation == "slope":
            slope = None if torch is None else torch.tensor([0.25], device="cuda", dtype=tx.dtype)
            runs["fastrelu"] = lambda: fastrelu.leaky_relu_backward_with_slope_grad(grad, x, 0.25, out=y)
            # which leaves a gradient of the slope for every element
            runs["torch"] = lambda: torch.ops.aten._prelu_kernel_backward(tx, slope, tgrad)[1].sum()
        else:
            runs["fastrelu"] = lambda: fastrelu.relu_backward(grad, x, out=y)
            runs["torch"] = lambda: torch.ops.aten.threshold_backward.grad_input(tgrad, tx, 0, grad_input=ty)
        if operation == "backward" and cupy is not None:
            kernel = cupy.ElementwiseKernel("T g, T x", "T r", "r = x > T(0) ? g : T(0)", "relu_backward")
            runs["cupy kernel"] = lambda: kernel(cgrad, cx, cy)
        if operation == "from mask":
            mask = fastrelu.relu_with_mask(x)[1]
            runs["fastrelu from x"] = runs["fastrelu"]
            runs["fastrelu"] = lambda: fastrelu.relu_backward_from_mask(grad, mask, out=y)
    missing = [name for name, peer in (("torch", torch), ("cupy", cupy)) if peer is None]
    runs = {name: run for name, run in runs.items() if name.split()[0] not in missing}
    moved = dict.fromkeys(runs, n * size * (3 if operation in ("backward", "from mask", "slope") else 2))
    moved["copy"] = 2 * n * size
    if "mask" in operation:
        moved["fastrelu"] = 2 * n * size + n // 8
    return runs, moved


def check() -> None:
    """Compare fastrelu with the oracle on this GPU, at sizes around its vectors, before anything is timed."""
    from fastrelu._cuda._numba import cuda

    rng = np.random.default_rng(0)
    for dtype, n in itertools.product(DTYPES, (1, 7, 1023, 100_001)):
        x, grad = (rng.standard_normal(n).astype(dtype) for _ in range(2))
        check_large(x, grad)
        dx, dg = cuda.to_device(x), cuda.to_device(grad)
        assert_same(fastrelu.relu(dx).copy_to_host(), expected("relu", (x,), dtype))
        assert_same(fastrelu.leaky_relu(dx, 0.01).copy_to_host(), expected("leaky_relu", (x, 0.01), dtype))
        found = fastrelu.relu_backward(dg, dx).copy_to_host()
        assert_same(found, expected("relu_backward", (grad, x, 0.0), dtype))
        y, mask = fastrelu.relu_with_mask(dx)
        assert_same(y.copy_to_host(), expected("relu", (x,), dtype))
        assert_same(mask.copy_to_host(), np.packbits(~(x <= 0), bitorder="little"))
        assert_same(fastrelu.relu_backward_from_mask(dg, mask).copy_to_host(), found)
        assert int(fastrelu.count_active(dx, axis=None).copy_to_host()) == np.count_nonzero(x > 0)
        products = np.where(x < 0, grad.astype("d") * x.astype("d"), 0)
        total = cuda.to_device(np.zeros(()))
        fastrelu.leaky_relu_slope_grad(dg, dx, out=total)
        np.testing.assert_allclose(total.copy_to_host(), products.sum(), rtol=1e-12, atol=1e-9)


def check_large(x: np.ndarray, grad: np.ndarray) -> None:
    """Compare the kernels with several loads in flight, on the same numbers over and over."""
    from fastrelu._cuda import _driver, _settings
    from fastrelu._cuda._numba import cuda

    vectors = _driver.get().multiprocessors(0) * _settings.FILL * _settings.BLOCK * _settings.VECTORS
    n, dtype = vectors * 16 // x.itemsize + 4099, x.dtype
    dx, dg = (cuda.to_device(np.resize(each, n)) for each in (x, grad))
    for found, wanted in (
        (fastrelu.relu(dx), expected("relu", (x,), dtype)),
        (fastrelu.leaky_relu(dx, 0.01), expected("leaky_relu", (x, 0.01), dtype)),
        (fastrelu.relu_backward(dg, dx), expected("relu_backward", (grad, x, 0.0), dtype)),
    ):
        np.testing.assert_array_equal(found.copy_to_host(), np.resize(wanted, n))
    fastrelu.relu_(dx)
    np.testing.assert_array_equal(dx.copy_to_host(), np.resize(expected("relu", (x,), dtype), n))


def race(runs: dict[str, Run]) -> dict[str, list[float]]:
    """Return seconds per call of each provider: batches timed by events, the providers taking turns."""
    from fastrelu._cuda._numba import cuda

    batches, seconds = {}, {}
    first, last = cuda.event(), cuda.event()
    for name, run in runs.items():
        for _ in range(3):
            run()
        cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            run()
        cuda.synchronize()
        batches[name] = max(3, min(2000, int(BATCH_SECONDS / ((time.perf_counter() - start) / 5))))
        seconds[name] = []
    for _ in range(ROUNDS):
        for name, run in runs.items():
            first.record()
            for _ in range(batches[name]):
                run()
            last.record()
            last.synchronize()
            seconds[name].append(cuda.event_elapsed_time(first, last) / 1000 / batches[name])
    return seconds


def summary(samples: list[float]) -> dict[str, float]:
    """Return the median and the 20th and 80th percentile."""
    ordered = sorted(samples)
    return {
        "p20": ordered[len(ordered) // 5], "p50": statistics.median(ordered), "p80": ordered[len(ordered) * 4 // 5],
    }  # fmt: skip


def sizes() -> list[int]:
    """Return the bytes of an operand that are timed."""
    return [1 << power for power in range(SMALLEST.bit_length() - 1, LARGEST.bit_length(), 2)]


def release() -> None:
    """Give all memory back that nothing holds."""
    torch, cupy = peers()
    gc.collect()
    context().deallocations.clear()
    if torch is not None:
        torch.cuda.empty_cache()
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()


def bandwidth() -> list[dict[str, Any]]:
    """Time all operations at all sizes."""
    rows = []
    operations = ("forward", "leaky", "masked", "in place", "backward", "from mask", "counted", "slope")
    for operation, dtype, nbytes in itertools.product(operations, DTYPES, sizes()):
        release()
        if 6 * nbytes > context().get_memory_info().free:
            print(f"{operation} {dtype} {nbytes}: the GPU has not enough free memory, left out")
            continue
        runs, moved = providers(operation, dtype, nbytes // np.dtype(dtype).itemsize)
        times = race(runs)
        limit = 2 * nbytes / statistics.median(times["copy"])
        for name, samples in times.items():
            rate = moved[name] / statistics.median(samples)
            rows.append({
                "operation": operation, "dtype": dtype, "bytes": nbytes, "provider": name, "seconds": summary(samples),
                "gb_per_s": rate / 1e9, "share_of_copy": rate / limit,
            })  # fmt: skip
            print(f"{operation:9} {dtype} {nbytes:>13,} {name:15} {rate / 1e9:8.1f} GB/s {rate / limit:6.3f} of copy")
        runs.clear()
    return rows


def calls() -> list[dict[str, Any]]:
    """Time the host's side of calls on 1,024 elements: how long until Python goes on."""
    from fastrelu._cuda._numba import cuda

    torch, cupy = peers()
    x, y, grad = (normal(1024, "float32", seed) for seed in range(3))
    mask = fastrelu.relu_with_mask(x)[1]
    cases: dict[str, dict[str, Run]] = {
        "new": {"fastrelu on Numba": lambda: fastrelu.relu(x)},
        "in place": {"fastrelu on Numba": lambda: fastrelu.relu_(x)},
        "out": {
            "fastrelu on Numba": lambda: fastrelu.relu(x, out=y),
            "Numba's own launch": _ordinary_launch(x, y),
        },
        "leaky": {"fastrelu on Numba": lambda: fastrelu.leaky_relu(x, 0.1)},
        "backward": {"fastrelu on Numba": lambda: fastrelu.relu_backward(grad, x)},
        "masked": {"fastrelu on Numba": lambda: fastrelu.relu_with_mask(x)},
        "from mask": {"fastrelu on Numba": lambda: fastrelu.relu_backward_from_mask(grad, mask)},
    }
    if torch is not None:
        tx, ty, tgrad, tmask = (torch.as_tensor(each, device="cuda").clone() for each in (x, y, grad, mask))
        aten, functional = torch.ops.aten, torch.nn.functional
        pairs: dict[str, tuple[Run, Run]] = {
            "new": (lambda: fastrelu.relu(tx), lambda: torch.relu(tx)),
            "in place": (lambda: fastrelu.relu_(tx), lambda: torch.relu_(tx)),
            "out": (lambda: fastrelu.relu(tx, out=ty), lambda: torch.clamp_min(tx, 0, out=ty)),
            "leaky": (lambda: fastrelu.leaky_relu(tx, 0.1), lambda: functional.leaky_relu(tx, 0.1)),
            "backward": (
                lambda: fastrelu.relu_backward(tgrad, tx), lambda: aten.threshold_backward(tgrad, tx, 0),
            ),
            "masked": (lambda: fastrelu.relu_with_mask(tx), lambda: torch.relu(tx)),
            "from mask": (
                lambda: fastrelu.relu_backward_from_mask(tgrad, tmask), lambda: aten.threshold_backward(tgrad, tx, 0),
            ),
        }  # fmt: skip
        for case, (ours, theirs) in pairs.items():
            cases[case] |= {"fastrelu on torch": ours, "torch": theirs}
    if cupy is not None:
        cx, cy, zero = cupy.ones(1024, "f"), cupy.ones(1024, "f"), cupy.zeros((), "f")
        cases["new"] |= {"cupy": lambda: cupy.maximum(cx, zero), "fastrelu on cupy": lambda: fastrelu.relu(cx)}
        cases["out"] |= {
            "cupy": lambda: cupy.maximum(cx, zero, out=cy), "fastrelu on cupy": lambda: fastrelu.relu(cx, out=cy),
        }  # fmt: skip
    rows = []
    for case, runs in cases.items():
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(CALL_ROUNDS):
            for name, run in runs.items():
                run()
                cuda.synchronize()
                start = time.perf_counter()
                for _ in range(CALLS):  # fewer than fill the queue of launches, which would make the host wait
                    run()
                times[name].append((time.perf_counter() - start) / CALLS)
                cuda.synchronize()
        for name, samples in times.items():
            rows.append({"case": case, "provider": name, "seconds": summary(samples)})
            print(f"{case:9} {name:20} {statistics.median(samples) * 1e6:7.2f} us per call")
    return rows


def _ordinary_launch(x: Any, y: Any) -> Run:
    from fastrelu._cuda._kernels import Spec, kernel

    # the same kernel, launched as Numba's users do, except that arrays would cost more still than these numbers
    places = [each.__cuda_array_interface__["data"][0] for each in (x, y)]
    compiled = kernel(Spec("relu", "f", ("array",), ("f",), "f", 1))
    return lambda: compiled[1, 256]((places[0],), places[1], 1024, 0, (), ())


def tune() -> list[dict[str, Any]]:
    """Time the shapes of a launch against each other."""
    from fastrelu._cuda import _driver, _settings

    before = _settings.BLOCK, _settings.VECTORS, _settings.MAX_BLOCKS
    processors = _driver.get().multiprocessors(0)
    rows = []
    try:
        for operation, power in itertools.product(("forward", "in place", "backward"), (20, 24, 28, 30)):
            nbytes = min(1 << power, LARGEST)
            release()
            runs, moved = providers(operation, "float32", nbytes // 4)
            contest = {name: runs[name] for name in ("copy", "torch") if name in runs}
            shapes = itertools.product((128, 256, 512, 1024), (1, 2, 4, 8), (0, 4, 8, 16))
            for block, vectors, blocks in shapes:
                shaped = _shaped(runs["fastrelu"], block, vectors, blocks * processors)
                try:
                    shaped()
                except RuntimeError:  # more registers than a multiprocessor has
                    continue
                contest[f"block {block}, vectors {vectors}, blocks per multiprocessor {blocks or 'all'}"] = shaped
            medians = {name: statistics.median(samples) for name, samples in race(contest).items()}
            best = sorted((name for name in medians if name.startswith("block")), key=medians.__getitem__)
            for name in dict.fromkeys(("copy", *(["torch"] if "torch" in runs else []), *best[:5], best[-1])):
                share = moved["fastrelu"] / medians[name] * medians["copy"] / (2 * nbytes)
                print(f"{operation:9} {nbytes:>13,} {name:55} {medians[name] * 1e6:9.2f} us {share:6.3f} of copy")
            rows.append({"operation": operation, "bytes": nbytes, "seconds": medians})
    finally:
        _settings.BLOCK, _settings.VECTORS, _settings.MAX_BLOCKS = before
    return rows


def _shaped(run: Run, block: int, vectors: int, blocks: int) -> Run:
    from fastrelu._cuda import _settings

    def shaped() -> object:
        _settings.BLOCK, _settings.VECTORS, _settings.MAX_BLOCKS = block, vectors, blocks
        return run()

    return shaped


PARTS: dict[str, Callable[[], list[dict[str, Any]]]] = {"bandwidth": bandwidth, "calls": calls, "tune": tune}


def main() -> int:
    """Run the parts that were asked for and write the file."""
    global CALL_ROUNDS, LARGEST, ROUNDS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=("all", *PARTS))
    parser.add_argument("--output", type=Path, default=Path("cuda_bench.json"))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each race")
    parser.add_argument("--largest", type=int, default=LARGEST, help="bytes of the largest operand")
    options = parser.parse_args()
    ROUNDS, LARGEST, CALL_ROUNDS = options.rounds, options.largest, min(CALL_ROUNDS, 3 * options.rounds)
    if reason := _cuda.unavailable():
        print(f"cuda_bench: {reason}", file=sys.stderr)
        return 1
    check()
    results: dict[str, Any] = {"machine": machine()}
    for name, part in PARTS.items():
        if options.part in ("all", name):
            results[name] = part()
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1))  # after each part: a lease may end any time
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
