"""The GPU benchmark: ``python bench/cuda_bench.py [all | bandwidth | calls | tune] [--output FILE]``.

`bandwidth` times forward, in place and backward, forward and backward with a mask of one bit per element, and passes
with counts and with the gradient of a slope, for rows of 256 units, from
1 KiB to 4 GiB with CUDA events, as GB/s and as a share of a device-to-device copy of the same size measured in the same
rounds, beside torch and CuPy. `calls` times the host's side of a call on a small array. `tune` compares block sizes,
loads in flight and grids. fastrelu is checked against its oracle before anything is timed. Writes one JSON file with
the GPU's name, the driver and all versions.

Needs a GPU and torch, whose allocator and events it uses; CuPy where it is there. Arrays up to the size of the
second-level cache stay in it between repetitions, for every provider alike: read those rows as such.
"""

import argparse
import datetime
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

SIZES = tuple(1 << power for power in range(10, 33, 2))
DTYPES = ("float32", "float16")
ROUNDS, BATCH_SECONDS = 15, 0.004
PACKAGES = ("numpy", "numba", "numba-cuda", "cuda-bindings", "torch", "cupy-cuda13x", "cupy-cuda12x")
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


def machine() -> dict[str, Any]:
    """Return what the figures belong to."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "status": _cuda.status_line(),
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "host": platform.processor() or platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "versions": versions(),
    }


def providers(operation: str, dtype: str, n: int) -> tuple[dict[str, Run], dict[str, int]]:
    """Return, by name, functions that run an operation on n elements, and the bytes that a call of each moves."""
    import torch

    kind = getattr(torch, dtype)
    x = torch.randn(n, device="cuda", dtype=kind)
    y = torch.empty_like(x)
    size = x.element_size()
    functional = torch.nn.functional
    runs: dict[str, Run] = {"copy": lambda: y.copy_(x)}
    try:
        import cupy
    except ImportError:
        cupy = None
    if operation == "forward":
        runs["fastrelu"] = lambda: fastrelu.relu(x, out=y)
        runs["torch"] = lambda: torch.clamp_min(x, 0, out=y)
        runs["torch relu"] = lambda: torch.relu(x)
        if cupy is not None:
            cx, cy = cupy.from_dlpack(x), cupy.from_dlpack(y)
            zero = cupy.zeros((), dtype)
            runs["cupy"] = lambda: cupy.maximum(cx, zero, out=cy)
    elif operation == "leaky":
        runs["fastrelu"] = lambda: fastrelu.leaky_relu(x, 0.01, out=y)
        runs["torch"] = lambda: functional.leaky_relu(x, 0.01)
    elif operation == "in place":
        runs["fastrelu"] = lambda: fastrelu.relu_(x)
        runs["torch"] = lambda: torch.relu_(x)
        if cupy is not None:
            cx = cupy.from_dlpack(x)
            zero = cupy.zeros((), dtype)
            runs["cupy"] = lambda: cupy.maximum(cx, zero, out=cx)
    elif operation == "backward":
        grad = torch.randn(n, device="cuda", dtype=kind)
        runs["fastrelu"] = lambda: fastrelu.relu_backward(grad, x, out=y)
        runs["torch"] = lambda: torch.ops.aten.threshold_backward.grad_input(grad, x, 0, grad_input=y)
        if cupy is not None:
            cg, cx, cy = (cupy.from_dlpack(each) for each in (grad, x, y))
            kernel = cupy.ElementwiseKernel("T g, T x", "T r", "r = x > T(0) ? g : T(0)", "relu_backward")
            runs["cupy kernel"] = lambda: kernel(cg, cx, cy)
    elif operation == "masked":
        mask = torch.empty(-(-n // 8), device="cuda", dtype=torch.uint8)
        runs["fastrelu"] = lambda: fastrelu.relu_with_mask(x, out=y, mask_out=mask)
        runs["fastrelu relu"] = lambda: fastrelu.relu(x, out=y)  # what the mask costs
        runs["torch"] = lambda: torch.clamp_min(x, 0, out=y)
    elif operation == "from mask":
        grad = torch.randn(n, device="cuda", dtype=kind)
        mask = fastrelu.relu_with_mask(x)[1]
        runs["fastrelu"] = lambda: fastrelu.relu_backward_from_mask(grad, mask, out=y)
        runs["fastrelu from x"] = lambda: fastrelu.relu_backward(grad, x, out=y)
        runs["torch"] = lambda: torch.ops.aten.threshold_backward.grad_input(grad, x, 0, grad_input=y)
    elif operation == "counted":
        rows, into = x.reshape(-1, 256), y.reshape(-1, 256)
        counts = torch.zeros(256, device="cuda", dtype=torch.int64)
        runs["fastrelu"] = lambda: fastrelu.relu_with_counts(rows, counts, out=into)
        runs["torch"] = lambda: (torch.clamp_min(rows, 0, out=into), counts.add_((rows > 0).sum(0)))
    elif operation == "slope":
        grad = torch.randn(n, device="cuda", dtype=kind)
        slope = torch.tensor([0.25], device="cuda", dtype=kind)
        runs["fastrelu"] = lambda: fastrelu.leaky_relu_backward_with_slope_grad(grad, x, 0.25, out=y)
        runs["torch"] = lambda: torch.ops.aten._prelu_kernel_backward(x, slope, grad)
    if cupy is not None:
        # CuPy runs on its own current stream: make it torch's, so that one pair of events times everybody
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
        for name in [name for name in runs if name.startswith("cupy")]:
            runs[name] = _within(stream, runs[name])
    moved = dict.fromkeys(runs, n * size * (3 if operation in ("backward", "from mask", "slope") else 2))
    moved["copy"] = 2 * n * size
    if "mask" in operation:
        moved["fastrelu"] = 2 * n * size + n // 8
    return runs, moved


def _within(stream: Any, run: Run) -> Run:
    stream.use()
    return run


def check() -> None:
    """Compare fastrelu with the oracle on this GPU, at sizes around its vectors, before anything is timed."""
    import torch

    rng = np.random.default_rng(0)
    for dtype, n in itertools.product(DTYPES, (1, 7, 1023, 100_001)):
        x, grad = (rng.standard_normal(n).astype(dtype) for _ in range(2))
        dx, dg = torch.from_numpy(x).cuda(), torch.from_numpy(grad).cuda()
        assert_same(fastrelu.relu(dx).cpu().numpy(), expected("relu", (x,), dtype))
        assert_same(fastrelu.leaky_relu(dx, 0.01).cpu().numpy(), expected("leaky_relu", (x, 0.01), dtype))
        found = fastrelu.relu_backward(dg, dx).cpu().numpy()
        assert_same(found, expected("relu_backward", (grad, x, 0.0), dtype))
        y, mask = fastrelu.relu_with_mask(dx)
        assert_same(y.cpu().numpy(), expected("relu", (x,), dtype))
        assert_same(mask.cpu().numpy(), np.packbits(~(x <= 0), bitorder="little"))
        assert_same(fastrelu.relu_backward_from_mask(dg, mask).cpu().numpy(), found)
        assert int(fastrelu.count_active(dx, axis=None)) == np.count_nonzero(x > 0)
        products = np.where(x < 0, grad.astype("d") * x.astype("d"), 0)
        total = torch.zeros((), device="cuda", dtype=torch.float64)
        fastrelu.leaky_relu_slope_grad(dg, dx, out=total)
        np.testing.assert_allclose(total.cpu().numpy(), products.sum(), rtol=1e-12, atol=1e-9)


def race(runs: dict[str, Run]) -> dict[str, list[float]]:
    """Return seconds per call of each provider: batches timed by events, the providers taking turns."""
    import torch

    batches, seconds = {}, {}
    for name, run in runs.items():
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            run()
        torch.cuda.synchronize()
        batches[name] = max(3, min(2000, int(BATCH_SECONDS / ((time.perf_counter() - start) / 5))))
        seconds[name] = []
    for _ in range(ROUNDS):
        for name, run in runs.items():
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            for _ in range(batches[name]):
                run()
            last.record()
            last.synchronize()
            seconds[name].append(first.elapsed_time(last) / 1000 / batches[name])
    return seconds


def summary(samples: list[float]) -> dict[str, float]:
    """Return the median and the 20th and 80th percentile."""
    ordered = sorted(samples)
    return {
        "p20": ordered[len(ordered) // 5], "p50": statistics.median(ordered), "p80": ordered[len(ordered) * 4 // 5],
    }  # fmt: skip


def bandwidth() -> list[dict[str, Any]]:
    """Time all operations at all sizes."""
    import torch

    rows = []
    operations = ("forward", "leaky", "masked", "in place", "backward", "from mask", "counted", "slope")
    for operation, dtype, nbytes in itertools.product(operations, DTYPES, SIZES):
        torch.cuda.empty_cache()
        if 4 * nbytes > torch.cuda.mem_get_info()[0]:
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
        del runs
    return rows


def calls() -> list[dict[str, Any]]:
    """Time the host's side of calls on 1,024 elements: how long until Python goes on."""
    import torch

    x = torch.randn(1024, device="cuda")
    y, grad = torch.empty_like(x), torch.randn(1024, device="cuda")
    mask = fastrelu.relu_with_mask(x)[1]
    functional = torch.nn.functional
    cases: dict[str, dict[str, Run]] = {
        "new": {"fastrelu": lambda: fastrelu.relu(x), "torch": lambda: torch.relu(x)},
        "in place": {"fastrelu": lambda: fastrelu.relu_(x), "torch": lambda: torch.relu_(x)},
        "out": {"fastrelu": lambda: fastrelu.relu(x, out=y), "torch": lambda: torch.clamp_min(x, 0, out=y)},
        "leaky": {
            "fastrelu": lambda: fastrelu.leaky_relu(x, 0.1), "torch": lambda: functional.leaky_relu(x, 0.1),
        },
        "backward": {
            "fastrelu": lambda: fastrelu.relu_backward(grad, x),
            "torch": lambda: torch.ops.aten.threshold_backward(grad, x, 0),
        },
        "masked": {"fastrelu": lambda: fastrelu.relu_with_mask(x), "torch": lambda: torch.relu(x)},
        "from mask": {
            "fastrelu": lambda: fastrelu.relu_backward_from_mask(grad, mask),
            "torch": lambda: torch.ops.aten.threshold_backward(grad, x, 0),
        },
    }  # fmt: skip
    try:
        import cupy

        cx, cy, zero = cupy.ones(1024, "f"), cupy.ones(1024, "f"), cupy.zeros((), "f")
        cases["new"] |= {"cupy": lambda: cupy.maximum(cx, zero), "fastrelu on cupy": lambda: fastrelu.relu(cx)}
        cases["out"] |= {"cupy": lambda: cupy.maximum(cx, zero, out=cy)}
    except ImportError:
        pass
    cases["out"]["Numba's own launch"] = _ordinary_launch(x, y)
    rows = []
    for case, runs in cases.items():
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(40):
            for name, run in runs.items():
                run()
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(200):  # fewer than fill the queue of launches, which would make the host wait
                    run()
                times[name].append((time.perf_counter() - start) / 200)
                torch.cuda.synchronize()
        for name, samples in times.items():
            rows.append({"case": case, "provider": name, "seconds": summary(samples)})
            print(f"{case:9} {name:20} {statistics.median(samples) * 1e6:7.2f} us per call")
    return rows


def _ordinary_launch(x: Any, y: Any) -> Run:
    from fastrelu._cuda._kernels import Spec, kernel
    from fastrelu._cuda._numba import cuda

    x, y = cuda.as_cuda_array(x), cuda.as_cuda_array(y)
    # the same kernel, launched as Numba's users do, except that arrays would cost more still than these numbers
    places = x.__cuda_array_interface__["data"][0], y.__cuda_array_interface__["data"][0]
    compiled = kernel(Spec("relu", "f", ("array",), ("f",), "f", 1))
    return lambda: compiled[1, 256]((places[0],), places[1], 1024, 0, (), ())


def tune() -> list[dict[str, Any]]:
    """Time the shapes of a launch against each other."""
    import torch

    from fastrelu._cuda import _settings

    before = _settings.BLOCK, _settings.VECTORS, _settings.MAX_BLOCKS
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    rows = []
    try:
        sizes = (1 << 20, 1 << 24, 1 << 28, 1 << 30)
        for operation, nbytes in itertools.product(("forward", "in place", "backward"), sizes):
            runs, moved = providers(operation, "float32", nbytes // 4)
            contest: dict[str, Run] = {"copy": runs["copy"], "torch": runs["torch"]}
            shapes = itertools.product((128, 256, 512, 1024), (1, 2, 4, 8), (0, 4, 8, 16))
            for block, vectors, blocks in shapes:
                contest[f"block {block}, vectors {vectors}, blocks per multiprocessor {blocks or 'all'}"] = _shaped(
                    runs["fastrelu"], block, vectors, blocks * processors
                )
            medians = {name: statistics.median(samples) for name, samples in race(contest).items()}
            best = sorted((name for name in medians if name.startswith("block")), key=medians.__getitem__)
            for name in ("copy", "torch", *best[:5], best[-1]):
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=("all", *PARTS))
    parser.add_argument("--output", type=Path, default=Path("cuda_bench.json"))
    options = parser.parse_args()
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
