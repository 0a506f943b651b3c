"""The command line: ``python -m fastrelu info | warmup | bench``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import fastrelu

from ._bench import quick
from ._bench.cases import Case
from ._bench.quick import UsageError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line instead of argparse's two."""
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = _Parser(prog="python -m fastrelu", description=fastrelu.__doc__)
    commands = main.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="info | warmup | bench")
    commands.add_parser("info", help="versions, processor features, caches, threads, thresholds")
    commands.add_parser("warmup", help="compile every function and type into the cache")
    bench = commands.add_parser("bench", help="measure fastrelu beside its peers, in about a minute")
    add = bench.add_argument
    add("--input", metavar="FILE.npy", help="measure on this array, of any shape and supported type")
    add("--op", nargs="+", metavar="NAME", help=f"operations; default: {' '.join(quick.OPERATIONS)}")
    add("--dtype", nargs="+", metavar="TYPE", help="types; default: float32")
    add("--sizes", nargs="+", metavar="N", help=f"elements; default: {' '.join(map(str, quick.SIZES))}")
    add("--quick", action="store_true", help="two sizes and few rounds: a first impression in seconds")
    add("--threads", type=int, metavar="N", help="threads for everyone; default: Numba's")
    add("--json", metavar="FILE", help="write medians and quartiles")
    add("--plot", metavar="FILE", help="write a picture, .png, .svg or .pdf")
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    given = parser().parse_args(arguments)
    try:
        if given.command == "info":
            fastrelu.show_config()
        elif given.command == "warmup":
            warmup()
        else:
            bench(given)
    except UsageError as error:
        print(f"python -m fastrelu {given.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def warmup() -> None:
    """Compile everything, with a progress bar where rich is installed."""
    from ._api.warmup import warmup_steps

    steps = warmup_steps()
    try:
        from rich.progress import Progress
    except ImportError:
        for number, (label, step) in enumerate(steps, 1):
            print(f"{number}/{len(steps)} {label}", flush=True)
            step()
        return
    with Progress() as progress:
        task = progress.add_task("compiling", total=len(steps))
        for label, step in steps:
            progress.update(task, description=label)
            step()
            progress.advance(task)
        progress.update(task, description="compiled")


def bench(given: argparse.Namespace) -> None:
    """Measure, and show tables."""
    quick.need("rich", "bench")
    quick.seconds(given.quick)  # complains before any work
    if given.plot:
        quick.need("matplotlib", "--plot")
    quick.check_writable(given.json)
    quick.check_writable(given.plot)
    if given.plot and not given.plot.lower().endswith((".png", ".svg", ".pdf")):
        raise UsageError(f"{given.plot}: a picture's name ends in .png, .svg or .pdf")
    operations = [quick.check_operation(name) for name in given.op or quick.OPERATIONS]
    values = None
    if given.input is not None:
        if given.sizes or given.dtype:
            raise UsageError("--input brings its own size and type: leave out --sizes and --dtype")
        values = quick.load(given.input)
        dtypes, sizes, data = [values.dtype.newbyteorder("=").name], [values.size], "file"
    else:
        dtypes = [quick.check_dtype(name) for name in given.dtype or ("float32",)]
        standard = quick.QUICK_SIZES if given.quick else quick.SIZES
        sizes, data = [quick.check_size(text) for text in given.sizes or map(str, standard)], "normal"
    for dtype in dtypes:
        for size in sizes:
            quick.check_memory(size, dtype)
    wanted = quick.cases(operations, dtypes, sizes, data)
    import numba

    threads = numba.get_num_threads() if given.threads is None else given.threads
    if not 1 <= threads <= numba.config.NUMBA_NUM_THREADS:
        raise UsageError(f"--threads {threads}: Numba has 1 to {numba.config.NUMBA_NUM_THREADS} here")
    _show(given, wanted, values, threads)


def _show(given: argparse.Namespace, wanted: list[Case], values: object, threads: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ._bench import machine, view

    console = Console()
    # A pipe has no width: leave room for every default size
    width = console.width if console.is_terminal else 160
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(wanted))
        races, left_out, described = quick.measure(
            wanted, values, threads, quick.seconds(given.quick),  # type: ignore[arg-type]
            lambda case, text: progress.update(task, description=f"{view.title(case)}, {case.size:,}: {text}"),
            lambda: progress.advance(task),
        )  # fmt: skip
    out = Console(width=width)
    out.print(machine.line(described), highlight=False)
    if values is not None:
        out.print(f"{given.input}: {values.dtype} of shape {values.shape}", highlight=False)  # type: ignore[attr-defined]
    for table in view.tables(races, width):
        out.print(table)
    for line in view.summary(races):
        out.print(line, highlight=False, markup=False)
    for name, reason in left_out.items():
        out.print(f"left out: {name}: {reason}", highlight=False, markup=False)
    for name, reason in {n: why for one in races for n, why in one.left_out.items()}.items():
        out.print(f"left out of some cases: {name}: {reason}", highlight=False, markup=False)
    if given.json:
        quick.save(given.json, races, left_out, described)
    if given.plot:
        from ._bench import plot

        plot.quick(races, described, given.plot)


if __name__ == "__main__":
    sys.exit(main())
