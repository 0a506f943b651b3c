"""The GPU benchmark: ``python bench/cuda_bench.py [all | bandwidth | calls | tune] [--output FILE] [--seconds N]``.

`bandwidth` times operations (`cuda_cases.py`) as GB/s, and as a share of a device-to-device copy of the same size
measured in the same rounds, beside torch and CuPy on the same memory. `calls` times the host's side of a call on a
small array. `tune` compares block sizes, loads in flight and grids. Writes one JSON file with the GPU's name, the
driver and all versions, anew after every configuration; the configurations that matter most come first.

Every output is poisoned, and what fastrelu writes is compared with its oracle, before anything is timed. The arrays of
up to 64 MiB are several in turn, more than twice the second-level cache together. Where torch is installed, fastrelu
runs on its tensors, and calls on up to 256 MiB are timed in CUDA graphs: a call from Python may take as long as such a
kernel. Without torch, rows below 1 MiB say that they are bound by launches.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cuda_start  # noqa: F401 before whoever looks for the driver
import numpy as np
from cuda_cases import OPERATIONS, case_of
from cuda_measure import (
    LAUNCH_BYTES,
    Operand,
    Run,
    context,
    machine,
    ml_dtypes,
    numbers,
    peers,
    race,
    release,
    save,
    spin,
    summary,
)

import fastrelu
from fastrelu._cuda import executor

DTYPES = ("float32", "float16", *(["bfloat16"] if ml_dtypes else []))
#: What matters most comes first.
FIRST_OPERATIONS = ("forward", "in place", "backward")
FIRST_SIZES = tuple(size << 20 for size in (64, 256, 1, 16, 1024))
SIZES = (*FIRST_SIZES, *(1 << power for power in (22, 18, 12, 14, 10, 16, 32)))
ROUNDS, CALL_ROUNDS, CALLS = 11, 40, 200


@dataclass
class Options:
    """What was asked for, and what has been found so far."""

    output: Path
    rounds: int
    sizes: Sequence[int]
    operations: Sequence[str]
    dtypes: Sequence[str]
    #: When to stop, in the seconds of `time.monotonic`.
    end: float
    results: dict[str, Any] = field(default_factory=dict)

    def late(self) -> bool:
        """Say whether the time is up."""
        return time.monotonic() > self.end

    def save(self) -> None:
        """Write what there is."""
        save(self.output, self.results)


def configurations(options: Options) -> Iterator[tuple[str, str, int]]:
    """Yield operation, type and size of what is timed, the important ones first."""
    whole = itertools.product(options.sizes, options.operations, options.dtypes)
    ranked = sorted(  # which keeps the order of what is alike
        whole, key=lambda each: 0 if each[0] in FIRST_SIZES and each[1] in FIRST_OPERATIONS else
        1 if each[0] in FIRST_SIZES else 2,
    )  # fmt: skip
    for nbytes, operation, dtype in ranked:
        yield operation, dtype, nbytes


def bandwidth(options: Options) -> None:
    """Time all operations at all sizes."""
    rows = options.results["bandwidth"] = []
    spin()
    for operation, dtype, nbytes in configurations(options):
        if options.late():
            print("the time is up: smaller or larger sizes are left out")
            return
        release()
        label = f"{operation:10} {dtype:8} {nbytes:>13,}"
        if (OPERATIONS[operation][1] + 1) * nbytes > context().get_memory_info().free:
            print(f"{label}: the GPU has not enough free memory, left out")
            continue
        try:
            case = case_of(operation, dtype, nbytes)
            case.check()
            times = race(case.runs, case.parts, nbytes, options.rounds)
            if not {"copy", "fastrelu"} <= set(times):
                times = race(case.runs, case.parts, nbytes, options.rounds, graphs=False)
        except (AssertionError, MemoryError) as error:
            options.results.setdefault("wrong", []).append(f"{operation} {dtype} {nbytes}: {error}")
            print(f"{label}: WRONG: {error}")
            continue
        limit = 2 * nbytes / statistics.median(times["copy"][1])
        for name, (method, samples) in times.items():
            rate = case.moved[name] / statistics.median(samples)
            row = {
                "operation": operation, "dtype": dtype, "bytes": nbytes, "provider": name, "method": method,
                "parts": case.parts, "seconds": summary(samples), "gb_per_s": rate / 1e9,
                "share_of_copy": rate / limit,
            }  # fmt: skip
            if method == "events" and nbytes < LAUNCH_BYTES:
                row["note"] = "bound by launches"
            rows.append(row)
            note = f" ({row['note']})" if "note" in row else ""
            print(f"{label} {name:21} {rate / 1e9:8.1f} GB/s {rate / limit:6.3f} of copy, {method}{note}", flush=True)
        options.save()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return fastrelu's shares of a copy by operation, type and size, and the best of the others' behind a stroke."""
    timed = sorted({row["bytes"] for row in rows})
    sizes = [size for size in timed if size >= LAUNCH_BYTES] or timed
    names = [f"{size >> 20} Mi" if size >> 20 else f"{size >> 10} Ki" for size in sizes]
    lines = [f"{'share of copy':20}" + "".join(f"{name:>12}" for name in names)]
    for operation, dtype in dict.fromkeys((row["operation"], row["dtype"]) for row in rows):
        cells = []
        for size in sizes:
            here = {
                row["provider"]: row["share_of_copy"] for row in rows
                if (row["operation"], row["dtype"], row["bytes"]) == (operation, dtype, size)
            }  # fmt: skip
            others = [share for name, share in here.items() if name.split()[0] in ("torch", "cupy")]
            best = f"/{max(others):.2f}" if others else ""
            cells.append(f"{here['fastrelu']:.2f}{best}" if "fastrelu" in here else "")
        lines.append(f"{operation:11}{dtype:9}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


# ---- The host's side ------------------------------------------------------------------------------------------------


def calls(options: Options) -> None:
    """Time the host's side of calls on 1,024 elements: how long until Python goes on."""
    from fastrelu._cuda.numba_cuda import cuda

    rows = options.results["calls"] = []
    cases = call_cases()
    rounds = min(CALL_ROUNDS, 3 * options.rounds)
    for case, runs in cases.items():
        if options.late():
            print("the time is up: not all calls were timed")
            return
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
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
            print(f"{case:10} {name:20} {statistics.median(samples) * 1e6:7.2f} us per call", flush=True)
        options.save()


def call_cases() -> dict[str, dict[str, Callable[[], object]]]:
    """Return, by case and provider, calls on 1,024 elements."""
    from fastrelu._cuda.numba_cuda import cuda

    torch, cupy = peers()
    x, grad = (Operand(1024, 1, "float32", numbers("float32", seed)) for seed in range(2))
    y, wide = Operand(1024, 1, "float32"), Operand(2048, 1, "float32", numbers("float32", 2))
    mask, counts, total = (cuda.to_device(np.zeros(n, dtype)) for n, dtype in ((128, "B"), (256, "q"), ((), "d")))
    step = type(x.numba[0])((1024,), (8,), wide.numba[0].dtype, gpu_data=wide.numba[0].gpu_data)
    rows = x.numba[0].reshape(4, 256)
    ours = calls_of_ours(x.numba[0], y.numba[0], grad.numba[0], mask, rows, counts, total, step)
    cases = {name: {"fastrelu on Numba": run} for name, run in ours.items()}
    cases["out"]["Numba's own launch"] = ordinary_launch(x, y)
    if torch is not None:
        tx, ty, tgrad, twide = (each.torch[0] for each in (x, y, grad, wide))
        tmask, tcounts, ttotal = (torch.as_tensor(each, device="cuda") for each in (mask, counts, total))
        trows, tstep = tx.reshape(4, 256), twide[::2]
        aten = torch.ops.aten
        number = torch.tensor([0.1], device="cuda")
        theirs = {
            "new": lambda: torch.relu(tx),
            "in place": lambda: torch.relu_(tx),
            "out": lambda: torch.clamp_min(tx, 0, out=ty),
            "leaky": lambda: torch.nn.functional.leaky_relu(tx, 0.1),
            "backward": lambda: aten.threshold_backward(tgrad, tx, 0),
            "masked": lambda: torch.relu(tx),
            "from mask": lambda: aten.threshold_backward(tgrad, tx, 0),
            "counted": lambda: (torch.relu(trows), tcounts.add_((trows > 0).sum(0))),
            "slope": lambda: aten._prelu_kernel_backward(tgrad, tx, number)[1].sum(),
            "strided": lambda: torch.clamp_min(tstep, 0, out=ty),
        }
        for name, run in calls_of_ours(tx, ty, tgrad, tmask, trows, tcounts, ttotal, tstep).items():
            cases[name] |= {"fastrelu on torch": run, "torch": theirs[name]}
    if cupy is not None:
        cx, cy, zero = x.cupy[0], y.cupy[0], cupy.zeros((), "f")
        cases["new"] |= {"cupy": lambda: cupy.maximum(cx, zero), "fastrelu on cupy": lambda: fastrelu.relu(cx)}
        cases["out"] |= {
            "cupy": lambda: cupy.maximum(cx, zero, out=cy), "fastrelu on cupy": lambda: fastrelu.relu(cx, out=cy),
        }  # fmt: skip
    return cases


def calls_of_ours(
    x: Any, y: Any, grad: Any, mask: Any, rows: Any, counts: Any, total: Any, step: Any
) -> dict[str, Callable[[], object]]:  # fmt: skip
    """Return calls of fastrelu on arrays of one library; `rows` is `x` in rows, `step` every other element of more."""
    return {
        "new": lambda: fastrelu.relu(x),
        "in place": lambda: fastrelu.relu_(x),
        "out": lambda: fastrelu.relu(x, out=y),
        "leaky": lambda: fastrelu.leaky_relu(x, 0.1),
        "backward": lambda: fastrelu.relu_backward(grad, x),
        "masked": lambda: fastrelu.relu_with_mask(x),
        "from mask": lambda: fastrelu.relu_backward_from_mask(grad, mask),
        "counted": lambda: fastrelu.relu_with_counts(rows, counts),
        "slope": lambda: fastrelu.leaky_relu_backward_with_slope_grad(grad, x, 0.1, slope_out=total),
        "strided": lambda: fastrelu.relu(step, out=y),
    }


def ordinary_launch(x: Operand, y: Operand) -> Callable[[], object]:
    """Return the launch of the same kernel as Numba's users do it, but that arrays would cost more than addresses."""
    from fastrelu._cuda.elementwise_kernels import ElementwiseSpec
    from fastrelu._cuda.specs import kernel

    compiled = kernel(ElementwiseSpec("relu", "f", ("array",), ("f",), "f", 1))
    return lambda: compiled[1, 256]((x.start,), y.start, 1024, 0, (), ())


# ---- Shapes of launches ---------------------------------------------------------------------------------------------


def tune(options: Options) -> None:
    """Time the shapes of a launch against each other."""
    from fastrelu._cuda import cuda_driver, settings

    rows = options.results["tune"] = []
    before = settings.BLOCK, settings.VECTORS, settings.MAX_BLOCKS
    processors = cuda_driver.get().multiprocessors(0)
    operations = [each for each in FIRST_OPERATIONS if each in options.operations]
    sizes = [size for size in options.sizes if size in FIRST_SIZES] or options.sizes
    try:
        for operation, nbytes in itertools.product(operations, sizes):
            if options.late():
                print("the time is up: not all shapes were timed")
                return
            release()
            case = case_of(operation, "float32", nbytes)
            contest = {name: case.runs[name] for name in ("copy", "torch") if name in case.runs}
            shapes = itertools.product((128, 256, 512, 1024), (1, 2, 4, 8), (0, 4, 8, 16))
            for block, vectors, blocks in shapes:
                shaped = _shaped(case.runs["fastrelu"], block, vectors, blocks * processors)
                try:
                    shaped(0)
                except RuntimeError:  # more registers than a multiprocessor has
                    continue
                contest[f"block {block}, vectors {vectors}, blocks per multiprocessor {blocks or 'all'}"] = shaped
            case.check()
            times = race(contest, case.parts, nbytes, options.rounds)
            medians = {name: statistics.median(samples) for name, (_, samples) in times.items()}
            best = sorted((name for name in medians if name.startswith("block")), key=medians.__getitem__)
            for name in dict.fromkeys(("copy", *(["torch"] if "torch" in medians else []), *best[:5], best[-1])):
                share = case.moved["fastrelu"] / medians[name] * medians["copy"] / (2 * nbytes)
                print(f"{operation:9} {nbytes:>13,} {name:55} {medians[name] * 1e6:9.2f} us {share:6.3f} of copy")
            rows.append({"operation": operation, "bytes": nbytes, "seconds": medians})
            options.save()
    finally:
        settings.BLOCK, settings.VECTORS, settings.MAX_BLOCKS = before


def _shaped(run: Run, block: int, vectors: int, blocks: int) -> Run:
    from fastrelu._cuda import settings

    def shaped(k: int) -> object:
        settings.BLOCK, settings.VECTORS, settings.MAX_BLOCKS = block, vectors, blocks
        return run(k)

    return shaped


PARTS: dict[str, Callable[[Options], None]] = {"bandwidth": bandwidth, "calls": calls, "tune": tune}


def main() -> int:
    """Run the parts that were asked for and write the file."""

    def listed(text: str) -> list[str]:
        return [each.strip() for each in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=("all", *PARTS))
    parser.add_argument("--output", type=Path, default=Path("cuda_bench.json"))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each race")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--sizes", type=lambda text: [int(each) for each in listed(text)], default=list(SIZES),
                        help="bytes of an operand, with commas between them")  # fmt: skip
    parser.add_argument("--operations", type=listed, default=list(OPERATIONS), help=", ".join(OPERATIONS))
    parser.add_argument("--dtypes", type=listed, default=list(DTYPES), help=", ".join(DTYPES))
    given = parser.parse_args()
    if unknown := [each for each in given.operations if each not in OPERATIONS]:
        parser.error(f"no such operation: {', '.join(unknown)}")
    if reason := executor.unavailable():
        print(f"cuda_bench: {reason}", file=sys.stderr)
        return 1
    options = Options(
        given.output, given.rounds, given.sizes, given.operations, given.dtypes, time.monotonic() + given.seconds,
        {"machine": machine()},
    )  # fmt: skip
    for name, part in PARTS.items():
        if given.part in ("all", name):
            part(options)
            options.save()
    if rows := options.results.get("bandwidth"):
        print(f"\n{table(rows)}")
    for wrong in options.results.get("wrong", ()):
        print(f"WRONG: {wrong}")
    print(f"written to {options.output}")
    return 1 if "wrong" in options.results else 0


if __name__ == "__main__":
    sys.exit(main())
