"""Races launch shapes, cache hints and settings on a GPU: ``python bench/cuda_variants.py OUT.json SECONDS``.

Two kinds of contests. `Shapes` races launches of one contiguous kernel: threads of a block, loads of a thread, blocks
of a launch, and cache hints of loads and stores. `Sweep` races whole public calls under values of `_cuda.settings`.
In both, every contestant is compared with NumPy before it is timed, all take turns in rounds together with a
device-to-device copy, parts of the arrays take turns too, and the file is written after every race.

Another contest is a class with `name`, `sizes` and ``prepare(nbytes)``, and an entry in `CONTESTS`.
"""

import argparse
import contextlib
import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cuda_start  # noqa: F401 before whoever looks for the driver
from cuda_cases import Case, case_of, must_be, operand
from cuda_measure import (
    Run,
    context,
    copier,
    current_stream,
    dtype_of,
    machine,
    ml_dtypes,
    parts_for,
    race,
    release,
    save,
    spin,
)
from llvmlite import ir

from fastrelu._cuda import executor

ROUNDS = 11
MIB = 1 << 20


class Contestant(NamedTuple):
    """What is raced: a call on a part of the arrays, and how many bytes it moves."""

    run: Run
    moved: int


@dataclass
class Prepared:
    """A contest on arrays of one size."""

    case: Case
    contestants: dict[str, Contestant] = field(default_factory=dict)

    def wrong(self, name: str) -> str:
        """Run a contestant on poisoned outputs and return what is wrong with what it writes; "" if nothing is."""
        self.case.runs["fastrelu"] = self.contestants[name].run
        try:
            self.case.check()
        except (AssertionError, RuntimeError) as error:
            return str(error).splitlines()[0] or type(error).__name__
        return ""


class Contest(Protocol):
    """A kind of race."""

    name: str
    #: Bytes of an operand.
    sizes: Sequence[int]

    def prepare(self, nbytes: int) -> Prepared:
        """Return contestants, and the arrays that they run on."""
        ...


# ---- Launches of one kernel -----------------------------------------------------------------------------------------


class Hints:
    """Cache hints of the kernels' 16-byte accesses, put in behind the package's back, which has none."""

    def __init__(self) -> None:
        """Take over llvmlite's loads and stores; without hints, they are as before."""
        self.load = self.store = ""
        self._load, self._store = ir.IRBuilder.load, ir.IRBuilder.store
        self.words, self.word = ir.VectorType(ir.IntType(32), 4), ir.IntType(32)
        ir.IRBuilder.load = lambda builder, *arguments, **options: self.loaded(builder, *arguments, **options)
        ir.IRBuilder.store = lambda builder, *arguments, **options: self.stored(builder, *arguments, **options)

    @contextlib.contextmanager
    def __call__(self, load: str, store: str) -> Iterator[None]:
        """Compile with some hints."""
        self.load, self.store = load, store
        try:
            yield
        finally:
            self.load = self.store = ""

    def loaded(self, builder: Any, place: Any, name: str = "", align: int | None = None, **options: Any) -> Any:
        """Emit a load."""
        if not self.load or align != 16 or getattr(place.type, "addrspace", 0) != 1:
            return self._load(builder, place, name, align, **options)
        row = ir.LiteralStructType([self.word] * 4)
        assembler = ir.InlineAsm(
            ir.FunctionType(row, [ir.IntType(64)]),
            f"ld.global{self.load}.v4.u32 {{$0,$1,$2,$3}}, [$4];", "=r,=r,=r,=r,l", side_effect=True,
        )  # fmt: skip
        found, vector = builder.call(assembler, [builder.ptrtoint(place, ir.IntType(64))]), None
        vector = ir.Constant(self.words, ir.Undefined)
        for k in range(4):
            vector = builder.insert_element(vector, builder.extract_value(found, k), self.word(k))
        return builder.bitcast(vector, place.type.pointee)

    def stored(self, builder: Any, value: Any, place: Any, align: int | None = None, **options: Any) -> Any:
        """Emit a store."""
        if not self.store or align != 16 or getattr(place.type, "addrspace", 0) != 1:
            return self._store(builder, value, place, align, **options)
        vector = builder.bitcast(value, self.words)
        assembler = ir.InlineAsm(
            ir.FunctionType(ir.VoidType(), [ir.IntType(64)] + [self.word] * 4),
            f"st.global{self.store}.v4.u32 [$0], {{$1,$2,$3,$4}};", "l,r,r,r,r", side_effect=True,
        )  # fmt: skip
        words = [builder.extract_element(vector, self.word(k)) for k in range(4)]
        return builder.call(assembler, [builder.ptrtoint(place, ir.IntType(64)), *words])


@functools.cache
def hints() -> Hints:
    """Return the hints of this process."""
    return Hints()


class Shape(NamedTuple):
    """A launch: threads of a block, loads of a thread, blocks per multiprocessor (0: one per tile), and hints."""

    threads: int
    loads: int
    blocks: int = 0
    load: str = ""
    store: str = ""

    def __str__(self) -> str:
        """Return a name."""
        blocks = f" persistent {self.blocks}" if self.blocks else ""
        return f"{self.threads}x{self.loads}{blocks}{self.load and ' ' + self.load}{self.store and ' ' + self.store}"


#: Never ``.nc``: calls in place use the same kernels.
KEEP, PASS = ".L1::no_allocate", ".cs"
SHAPES = (
    Shape(256, 4), Shape(128, 1), Shape(256, 1), Shape(256, 2), Shape(512, 2), Shape(128, 4), Shape(256, 8),
    Shape(256, 4, 8), Shape(256, 4, 0, KEEP), Shape(256, 4, 0, KEEP, PASS), Shape(256, 2, 0, KEEP, PASS),
)  # fmt: skip


@functools.cache
def launch_of(name: str, code: str, arrays: int, scalars: int, loads: int, load: str, store: str) -> Any:
    """Return the prepared launch of a kernel, compiled with hints."""
    from fastrelu._cuda import elementwise_kernels, launcher, specs

    roles = ("array",) * arrays + ("scalar",) * scalars
    spec = elementwise_kernels.ElementwiseSpec(name, code, roles, (code,) * arrays + ("",) * scalars, code, loads)
    with hints()(load, store):
        specs.kernel.cache_clear()
        launch = launcher.Prepared(spec)
        launch.load(0)
        specs.kernel.cache_clear()
    return launch


@dataclass
class Shapes:
    """Launches of a contiguous kernel."""

    name: str
    operation: str
    dtype: str
    arrays: int = 1
    scalars: tuple[float, ...] = ()
    sizes: Sequence[int] = tuple(size * MIB for size in (64, 256, 16, 1024, 4))

    def prepare(self, nbytes: int) -> Prepared:
        """Return a contestant for each shape."""
        from fastrelu._cuda import cuda_driver
        from fastrelu._cuda.grids import Grid

        code = {"float32": "f", "float16": "e", "bfloat16": "E"}[self.dtype]
        n, processors = nbytes // dtype_of(self.dtype).itemsize, cuda_driver.get().multiprocessors(0)
        case = Case(self.name, self.dtype, n, parts=parts_for(nbytes, self.arrays + 1))
        inputs, y = [operand(case, self.arrays - 1 - k) for k in range(self.arrays)], operand(case, None)
        must_be(case, y, self.operation, *inputs, *self.scalars)
        prepared, vectors = Prepared(case), nbytes // 16
        prepared.contestants["copy"] = Contestant(copier(inputs[0], y), 2 * nbytes)
        for shape in SHAPES:
            launch = launch_of(
                self.operation, code, self.arrays, len(self.scalars), shape.loads, shape.load, shape.store
            )  # fmt: skip
            tiles = -(-vectors // (shape.threads * shape.loads))
            grid = Grid(min(tiles, shape.blocks * processors) if shape.blocks else tiles, shape.threads)
            places = [[each.start + k * nbytes for each in (*inputs, y)] for k in range(case.parts)]
            run = functools.partial(self.run, launch, grid, places, n)
            prepared.contestants[str(shape)] = Contestant(run, (self.arrays + 1) * nbytes)
        return prepared

    def run(self, launch: Any, grid: Any, places: Sequence[Sequence[int]], n: int, k: int) -> None:
        """Launch on a part."""
        launch(grid, current_stream(), 0, *places[k], n, 0, *self.scalars)


# ---- Whole calls under settings -------------------------------------------------------------------------------------


@dataclass
class Sweep:
    """A public call, as `cuda_cases.py` has it, under all combinations of values of settings."""

    name: str
    operation: str
    dtype: str
    settings: dict[str, Sequence[int]]
    sizes: Sequence[int] = (64 * MIB, 1024 * MIB)

    def prepare(self, nbytes: int) -> Prepared:
        """Return a contestant for each combination, the settings as they are among them."""
        from fastrelu._cuda import settings

        case = case_of(self.operation, self.dtype, nbytes)
        prepared = Prepared(case)
        prepared.contestants["copy"] = Contestant(case.runs["copy"], case.moved["copy"])
        run, moved, names = case.runs["fastrelu"], case.moved["fastrelu"], tuple(self.settings)
        as_is = tuple(getattr(settings, name) for name in names)
        for values in dict.fromkeys((as_is, *itertools.product(*self.settings.values()))):
            label = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
            label += " (as is)" if values == as_is else ""
            prepared.contestants[label] = Contestant(_under(names, values, run), moved)
        return prepared


def _under(names: Sequence[str], values: Sequence[int], run: Run) -> Run:
    """Return a call under some settings."""
    from fastrelu._cuda import settings

    def under(k: int) -> object:
        before = [getattr(settings, name) for name in names]
        for name, value in zip(names, values, strict=True):
            setattr(settings, name, value)
        try:
            return run(k)
        finally:
            for name, value in zip(names, before, strict=True):
                setattr(settings, name, value)

    return under


SUMS = {"SUM_THREADS": tuple(1 << power for power in range(15, 19)), "SUM_FOLD": (16, 32, 64)}
LAUNCHES = {"BLOCK": (128, 256, 512), "VECTORS": (1, 2, 4)}


def contests() -> dict[str, Contest]:
    """Return all contests by name, those that matter most first."""
    found: list[Contest] = [
        Shapes("relu f", "relu", "float32"),
        Shapes("relu_backward f", "relu_backward", "float32", 2, (0.0,)),
        Shapes("leaky_relu e", "leaky_relu", "float16", 1, (0.25,)),
        Sweep("counted f", "counted", "float32", SUMS),
        Sweep("count_active f", "counts", "float32", SUMS),
        Sweep("slope f", "slope", "float32", SUMS),
        Sweep("masked f", "masked", "float32", LAUNCHES),
        Sweep("strided f", "strided", "float32", LAUNCHES),
        Sweep("transposed f", "transposed", "float32", LAUNCHES),
        Sweep("broadcast f", "broadcast", "float32", LAUNCHES),
        Sweep("counted e", "counted", "float16", SUMS),
        Sweep("slope e", "slope", "float16", SUMS),
        Sweep("from mask f", "from mask", "float32", LAUNCHES),
        Sweep("masked e", "masked", "float16", LAUNCHES),
    ]
    if ml_dtypes is not None:
        found.insert(3, Shapes("relu E", "relu", "bfloat16"))
        found.insert(4, Shapes("leaky_relu E", "leaky_relu", "bfloat16", 1, (0.25,)))
    return {contest.name: contest for contest in found}


def held(prepared: Prepared, rounds: int, nbytes: int) -> list[dict[str, Any]]:
    """Hold a race, and return a row for each contestant, the fastest first, those that are wrong last."""
    rows, runs = [], {}
    for name, contestant in prepared.contestants.items():
        wrong = "" if name == "copy" else prepared.wrong(name)
        if wrong:
            rows.append({"contestant": name, "wrong": wrong})
        else:
            runs[name] = contestant.run
    times = race(runs, prepared.case.parts, nbytes, rounds)
    if "copy" not in times:
        times = race(runs, prepared.case.parts, nbytes, rounds, graphs=False)
    copy = prepared.contestants["copy"].moved / statistics.median(times["copy"][1])
    for name, (method, samples) in times.items():
        rate = prepared.contestants[name].moved / statistics.median(samples)
        rows.append({
            "contestant": name, "method": method, "parts": prepared.case.parts, "seconds": statistics.median(samples),
            "fastest": min(samples), "gb_per_s": rate / 1e9, "share_of_copy": rate / copy,
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row.get("gb_per_s", 0))


def main() -> int:
    """Hold the races that were asked for, as long as there is time."""

    def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
        return lambda text: [kind(each.strip()) for each in text.split(",")]

    found = contests()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("seconds", type=float, help="stop after so long")
    parser.add_argument("--cases", type=listed(str), default=list(found), help=", ".join(found))
    parser.add_argument("--sizes", type=listed(int), help="bytes of an operand, instead of each contest's own")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    if unknown := [name for name in given.cases if name not in found]:
        parser.error(f"no such case: {', '.join(unknown)}")
    if reason := executor.unavailable():
        print(f"cuda_variants: {reason}", file=sys.stderr)
        return 1
    end = time.monotonic() + given.seconds
    results: dict[str, Any] = {"machine": machine(), "races": []}
    spin(min(1.0, given.seconds / 20))
    # the first size of every contest before the second of any
    chosen = [(name, given.sizes or found[name].sizes) for name in given.cases]
    turns = itertools.chain.from_iterable(
        itertools.zip_longest(*([(name, s) for s in sizes] for name, sizes in chosen))
    )
    for name, nbytes in filter(None, turns):
        if time.monotonic() > end:
            print("the time is up: not all races were held")
            break
        release()
        if 5 * nbytes > context().get_memory_info().free:
            print(f"{name} {nbytes:,}: the GPU has not enough free memory, left out")
            continue
        rows = held(found[name].prepare(nbytes), given.rounds, nbytes)
        results["races"] += [{"case": name, "bytes": nbytes, **row} for row in rows]
        save(given.output, results)
        line = "; ".join(
            f"{row['contestant']} {row['share_of_copy']:.3f}" for row in rows if "wrong" not in row and
            row["contestant"] != "copy"
        )  # fmt: skip
        rate = next(row["gb_per_s"] for row in rows if row["contestant"] == "copy")
        print(f"{name}, {nbytes / MIB:g} MiB, of a copy's {rate:.0f} GB/s: {line}", flush=True)
        for row in rows:
            if "wrong" in row:
                print(f"WRONG: {name} {nbytes:,} {row['contestant']}: {row['wrong']}")
    save(given.output, results)
    return 1 if any("wrong" in row for row in results["races"]) else 0


if __name__ == "__main__":
    sys.exit(main())
