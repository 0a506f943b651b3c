"""Make README table, ``docs/benchmarks.md`` and plots of ``bench/results/*.json``: ``python bench/report.py``.

Nothing in them is typed by hand; ``tests/test_bench.py`` fails where the README and the results disagree.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import cuda_report  # noqa: E402
import results  # noqa: E402

from fastrelu._bench import machine, plot, view  # noqa: E402
from fastrelu._bench.cases import MASK_MODES, SUM_MODES  # noqa: E402

Record = Mapping[str, Any]
Result = Mapping[str, Any]

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NOT_RECORDED = "Not recorded yet: run `python bench/record.py`, then `python bench/report.py`."
OURS = "fastrelu"
#: Whom the peers are compared with: the first of these that took part in a case
REFERENCES = (OURS, "fastrelu in @njit")
LIMIT = ("C, plain stores", "C, streaming stores")
#: Several NumPy spellings for one thing: the README shows the one that needs no temporary array
TWO_CALLS = ("numpy.greater + numpy.multiply", "numpy.multiply + numpy.maximum")

#: (what, operation, mode, type, size, layout, whose time is "fastrelu")
ROWS = (
    ("`relu`, 3 elements", "relu", "out", "float32", 3, "contiguous", OURS),
    ("`ufuncs.relu`, 3 elements", "relu", "out", "float32", 3, "contiguous", "fastrelu.ufuncs"),
    ("`leaky_relu`, 3 elements", "leaky_relu", "out", "float32", 3, "contiguous", "fastrelu, default slope"),
    ("`relu`, 10,000", "relu", "out", "float32", 10_000, "contiguous", OURS),
    ("`relu`, 100,000", "relu", "out", "float32", 100_000, "contiguous", OURS),
    ("`relu`, 1,000,000", "relu", "out", "float32", 1_000_000, "contiguous", OURS),
    ("`relu`, 64,000,000", "relu", "out", "float32", 64_000_000, "contiguous", OURS),
    ("`relu_` in place, 64,000,000", "relu", "inplace", "float32", 64_000_000, "contiguous", OURS),
    ("`relu` into a new array, 1,000,000", "relu", "new", "float32", 1_000_000, "contiguous", OURS),
    ("`relu` into a new array, 64,000,000", "relu", "new", "float32", 64_000_000, "contiguous", OURS),
    ("`relu_backward`, 1,000,000", "relu_backward", "out", "float32", 1_000_000, "contiguous", OURS),
    ("`relu_backward`, 48,000,000", "relu_backward", "out", "float32", 48_000_000, "contiguous", OURS),
    ("`leaky_relu`, float16, 4,000,000", "leaky_relu", "out", "float16", 4_000_000, "contiguous", OURS),
    ("`leaky_relu`, float64, 4,000,000", "leaky_relu", "out", "float64", 4_000_000, "contiguous", OURS),
    ("`relu`, every other row, 4,000,000", "relu", "out", "float32", 4_000_000, "every other row", OURS),
    ("`relu`, every other column, 4,000,000", "relu", "out", "float32", 4_000_000, "every other column", OURS),
    ("`relu`, transposed, 4,000,000", "relu", "out", "float32", 4_000_000, "transposed", OURS),
)
COLUMNS = (
    ("`maximum(x, 0)`", ("numpy.maximum(x, 0)",)),
    ("`maximum(x, zeros)`", ("numpy.maximum(x, zeros)",)),
    ("two NumPy calls", TWO_CALLS),
    ("torch", ("torch",)),
    ("C by hand", LIMIT),
)


def find(cases: Iterable[Record], operation: str, mode: str, dtype: str, size: int, layout: str) -> dict[str, Record]:
    """Return the records of one case by provider."""
    wanted = (operation, mode, dtype, size, layout, "normal")
    keys = ("operation", "mode", "dtype", "size", "layout", "data")
    return {row["provider"]: row for row in cases if tuple(row[key] for key in keys) == wanted}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table, numbers to the right."""
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


#: The README's columns, three of those `ROWS`, and its rows
IN_README = {
    "3 elements": "`relu`, 3 elements",
    "1 million": "`relu`, 1,000,000",
    "backward, 1 million": "`relu_backward`, 1,000,000",
}
README_ROWS = (
    ("NumPy", ("numpy.maximum(x, 0)", "numpy.greater + numpy.multiply")),
    ("PyTorch", ("torch",)),
    ("Python loop", ("Python max() loop",)),
)
ZEROS, ONE_CORE = ("numpy.maximum(x, zeros)",), ("fastrelu serial",)


def readme_section(found: Mapping[str, Result]) -> str:
    """Return what belongs between the README's markers: of the machine that was measured last."""
    if not found:
        return f"{BEGIN}\n{NOT_RECORDED}\n{END}"
    result = next(iter(found.values()))
    measured = {label: (own, records) for label, own, records in _summary(result)}
    shown = {column: measured[label] for column, label in IN_README.items() if label in measured}
    columns = [list(_ratios(records, own, README_ROWS)) for own, records in shown.values()]
    rows = [[name, *values] for (name, _), *values in zip(README_ROWS, *columns, strict=True)]
    own_times = ", ".join(view.duration(own["median"]) for own, _ in shown.values())
    zeros = ", ".join(filter(None, (_ratio(records, own, ZEROS) for own, records in shown.values())))
    own, records = shown.get("1 million", ({}, {}))
    held = _ratio(records, own, ONE_CORE)
    described = dict(result["machine"])
    versions = ", ".join(f"{name} {described['versions'].get(name, '-')}" for name in ("numpy", "numba", "torch"))
    lines = [
        *table(["", *shown], rows),
        "",
        f"fastrelu itself takes {own_times}, for float32 and `out=`. Like PyTorch it uses all cores (held to one,"
        f" {held or '-'} at 1 million); NumPy and the loop use one. NumPy is `np.maximum(x, 0)` (with an array of zeros"
        f", {zeros or '-'}) and `np.multiply(grad, x > 0)`. The loop is a list comprehension, forward with `max()`.",
        f"{described['cpu']}, {described['cores']} cores; {versions}; {described['date']}.",
    ]
    return "\n".join([BEGIN, *lines, END])


def _summary(result: Result) -> Iterable[tuple[str, Record, Mapping[str, Record]]]:
    """Return the label, our own record and all records of those `ROWS` that were measured."""
    for label, *case, ours in ROWS:
        records = find(result["cases"], *case)
        if ours in records:
            yield label, records[ours], records


def summary_section(result: Result) -> list[str]:
    """Return the table that begins a machine's part of the page."""
    rows = [
        [label, view.duration(own["median"]), *_ratios(records, own, COLUMNS)]
        for label, own, records in _summary(result)
    ]
    return [
        "The time of a call of fastrelu, and how many times as long the others take for the same: above 1, fastrelu is"
        " faster. float32 and `out=` unless said; medians of interleaved rounds.",
        "",
        *table(["", "fastrelu", *(name for name, _ in COLUMNS)], rows),
        "",
    ]


def _ratios(records: Mapping[str, Record], own: Record, columns: Iterable[tuple[str, Sequence[str]]]) -> Iterable[str]:
    """Return for each column how many times as long as `own` the fastest of its providers takes."""
    return (_ratio(records, own, names) for _, names in columns)


def _ratio(records: Mapping[str, Record], own: Record, names: Iterable[str]) -> str:
    """Return how many times as long as `own` the fastest of some providers takes, or "" where none was measured."""
    times = [records[name]["median"] for name in names if name in records]
    return f"{view.times(min(times) / own['median'])} x" if times else ""


def write_readme(path: Path, found: Mapping[str, Result]) -> None:
    """Put the table between the markers."""
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{path} needs the lines {BEGIN} and {END}, between which the table goes")
    before, rest = text.split(BEGIN, 1)
    path.write_text(before + readme_section(found) + rest.split(END, 1)[1])


def behind(cases: Sequence[Record]) -> list[Sequence[str]]:
    """Return every case in which a peer's median is below fastrelu's: losses are not left to the reader to find."""
    groups: dict[tuple[Any, ...], dict[str, Record]] = {}
    for row in cases:
        groups.setdefault(_key(row), {})[row["provider"]] = row
    lost = []
    for records in groups.values():
        own = [records[name] for name in (*REFERENCES, "fastrelu, default slope") if name in records]
        for row in records.values():
            best = min((each["median"] for each in own), default=0.0)
            if row["role"] == "peer" and row["median"] < best:
                # Quartiles that overlap: another run may turn this around
                close = "yes" if row["high"] >= min(each["low"] for each in own) else ""
                case = f"{_case_title(row)}, {row['size']:,}"
                lost.append([case, f"`{row['provider']}`", f"{view.times(row['median'] / best)} x", close])
    return sorted(lost, key=lambda row: float(row[2].removesuffix(" x").replace(",", "")))


def _key(row: Record) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("operation", "mode", "dtype", "layout", "data", "size"))


def _case_title(row: Record) -> str:
    special = [row[key] for key, usual in (("layout", "contiguous"), ("data", "normal")) if row[key] != usual]
    return ", ".join([row["operation"], view.MODES[row["mode"]], row["dtype"], *special])


#: Beside a call with a mask: the same without, by fastrelu, by NumPy, by torch
MASK_COLUMNS = (
    ("without a mask", ("fastrelu without a mask",)),
    ("NumPy", ("numpy.packbits + numpy.maximum", "numpy.unpackbits + numpy.multiply")),
    ("torch, from x", ("torch",)),
)


def _beside(
    cases: Sequence[Record], modes: Sequence[str], columns: Iterable[tuple[str, Sequence[str]]]
) -> list[Sequence[str]]:
    """Return a row for each of fastrelu's cases in some modes: the time, and how many times as long others take."""
    chosen = [row for row in cases if row["mode"] in modes]
    rows = []
    for own in (row for row in chosen if row["provider"] == OURS):
        others = {row["provider"]: row for row in chosen if _key(row) == _key(own)}
        title = f"{_case_title(own)}, {own['size']:,}"
        rows.append([title, view.duration(own["median"]), *_ratios(others, own, columns)])
    return rows


def mask_section(cases: Sequence[Record]) -> list[str]:
    """Return the section about masks, or nothing where none were measured."""
    rows = _beside(cases, MASK_MODES, MASK_COLUMNS)
    if not rows:
        return []
    return [
        "### One bit per element",
        "",
        "Forward passes that also write a mask, and backward passes from it: see [masks](masks.md). Beside the time,"
        " how many times as long the same takes without a mask (forward: it does less then; backward: from x).",
        "",
        *table(["", "fastrelu", *(name for name, _ in MASK_COLUMNS)], rows),
        "",
    ]


#: Beside a call with sums: the same without them, by fastrelu; what it takes by NumPy and by torch
SUM_COLUMNS = (
    ("without sums", ("fastrelu without sums",)),
    ("NumPy", ("numpy.count_nonzero", "numpy.where + numpy.sum")),
    ("torch prelu", ("torch prelu",)),
)


def sum_section(cases: Sequence[Record]) -> list[str]:
    """Return the section about counts and gradients of slopes, or nothing where none were measured."""
    rows = _beside(cases, tuple(SUM_MODES), SUM_COLUMNS)
    if not rows:
        return []
    return [
        "### Sums per unit",
        "",
        "Passes that also count active elements, see [dead units](dead_units.md), or sum the gradient of the slope, see"
        " [PReLU](prelu.md). Beside the time, how many times as long the others take; the second column does less: it"
        " is the plain forward or backward pass.",
        "",
        *table(["", "fastrelu", *(name for name, _ in SUM_COLUMNS)], rows),
        "",
    ]


def full_tables(cases: Sequence[Record]) -> list[str]:
    """Return a table for each operation, mode, type, layout and kind of data: providers by size."""
    groups: dict[str, list[Record]] = {}
    for row in cases:
        groups.setdefault(_case_title(row), []).append(row)
    lines: list[str] = []
    for title, rows in sorted(groups.items(), key=lambda group: group[0]):
        sizes = sorted({row["size"] for row in rows})
        by = {(row["provider"], row["size"]): row for row in rows}
        body = []
        for provider in dict.fromkeys(row["provider"] for row in rows):
            notes = dict.fromkeys(note for row in rows if row["provider"] == provider for note in row["differs"])
            cells = [_cell(by.get((provider, size)), _own(by, size)) for size in sizes]
            body.append([f"`{provider}`", *cells, ", ".join(notes)])
        lines += [f"### {title}", "", *table(["", *(f"{size:,}" for size in sizes), "differs for"], body), ""]
    return lines


def _own(by: Mapping[tuple[str, int], Record], size: int) -> Record | None:
    return next((by[name, size] for name in REFERENCES if (name, size) in by), None)


def _cell(row: Record | None, own: Record | None) -> str:
    if row is None:
        return ""
    times = f"{view.times(row['median'] / own['median'])} x, " if own else ""
    return f"{view.duration(row['median'])} ({times}{row['gbps']:.1f} GB/s)"


def benchmarks_page(found: Mapping[str, Result]) -> str:
    """Return docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "How long fastrelu takes, and how long NumPy, PyTorch and others take for the same, on each machine that was"
        " recorded. [Method](method.md) says how. No figure on this page is typed: `python bench/report.py` makes it.",
        "",
    ]
    if not found:
        return "\n".join([*lines, NOT_RECORDED, "", NAVIGATION, ""])
    for theme in plot.THEMES:
        lines += [
            f"```{{image}} _static/speedup-{theme}.svg",
            f":class: only-{theme}",
            ":width: 600",
            ALTERNATIVE,
            "```",
            "",
        ]
    for name, result in found.items():
        described = dict(result["machine"])
        lines += [f"## {described['cpu']}, {described['cores']} cores", "", f"{machine.line(described)}.", ""]
        caches = ", ".join(f"{cache} {size >> 10:,} KiB" for cache, size in described["caches"].items())
        lines += [f"Caches: {caches or 'unknown'}. Vector code: {described['processor']}.", ""]
        lines += [f"Left out: {peer}: {reason}." for peer, reason in result["left_out"].items()]
        lines += summary_section(result)
        for picture, text in PICTURES.items():
            lines += [f"![{text}](_static/bench/{picture}-{name}.svg)", ""]
        lines += ["### Where fastrelu is behind", ""]
        lost = behind(result["cases"])
        lines += (
            table(["case", "peer", "its time to ours", "quartiles overlap"], lost) if lost else ["Nowhere in this run."]
        )
        lines += ["", "### Starting", ""]
        lines += table(["", "median", "quartiles"], [_startup(*row) for row in result["startup"].items()])
        lines += ["", "### Peak memory of a call, beyond the caller's arrays", ""]
        lines += table(["", "", "MiB"], [_memory(row) for row in result["memory"]])
        if loops := result.get("loops"):
            lines += ["", "### A loop of `y = relu(x)`: time of a call, times `numpy.maximum`, MiB held afterwards", ""]
            lines += loop_table(loops)
        lines += ["", *mask_section(result["cases"]), *sum_section(result["cases"])]
        lines += ['Below: time of a call (times fastrelu\'s, bytes that must be moved per time). "differs for":']
        lines += [
            "where a provider's result is not that of the plain-Python oracle.",
            "",
            *full_tables(result["cases"]),
        ]
    return "\n".join(lines).rstrip() + f"\n\n{NAVIGATION}\n"


#: The pages that belong to this one
NAVIGATION = "```{toctree}\n:hidden:\n\nOverview <self>\nmethod\nbenchmarks_gpu\n```"


def _startup(what: str, row: Record) -> Sequence[str]:
    return [what, view.duration(row["median"]), f"{view.duration(row['low'])} to {view.duration(row['high'])}"]


def _memory(row: Record) -> Sequence[str]:
    case = f"{row['operation']}, {view.MODES[row['mode']]}, {row['size'] * 4 >> 20:,} MiB of float32"
    return [case, f"`{row['provider']}`", f"{row['memory'] / (1 << 20):,.1f}"]


def loop_table(rows: Sequence[Record]) -> list[str]:
    """Return a table of loops with fresh outputs: providers by size."""
    by = {(row["provider"], row["size"]): row for row in rows}
    sizes = sorted({row["size"] for row in rows})

    def cell(row: Record | None, size: int) -> str:
        if row is None:
            return ""
        times = view.times(row["call"] / by["numpy.maximum(x, 0)", size]["call"])
        return f"{view.duration(row['call'])}, {times} x, {row['kept'] / (1 << 20):,.0f} MiB"

    names = dict.fromkeys(row["provider"] for row in rows)
    body = [[f"`{name}`", *(cell(by.get((name, size)), size) for size in sizes)] for name in names]
    return table(["", *(f"{size:,}" for size in sizes)], body)


#: The README's picture: label, operation, mode, type, and the spelling in NumPy that it is compared with
SPEEDUPS = (
    ("forward", "relu", "out", "float32", "numpy.maximum(x, 0)"),
    ("in place", "relu", "inplace", "float32", "numpy.maximum(x, 0)"),
    ("backward", "relu_backward", "out", "float32", "numpy.greater + numpy.multiply"),
    ("float16", "relu", "out", "float16", "numpy.maximum(x, 0)"),
)
#: Fewer take as long: 166 ns for 1, 171 for these (relu, two-core AMD EPYC, `bench/record.py`, 2026-11-28)
FEWEST = 100


def speedups(cases: Sequence[Record]) -> dict[str, tuple[plot.Speedups, plot.Speedups]]:
    """Return the lines of the README's picture: for each size NumPy's time over fastrelu's, and over torch's."""
    lines = {}
    for label, operation, mode, dtype, reference in SPEEDUPS:
        sizes = {row["size"] for row in cases if row["operation"] == operation and row["size"] >= FEWEST}
        found = {size: find(cases, operation, mode, dtype, size, "contiguous") for size in sorted(sizes)}
        pairs = [(size, records, records.get(reference)) for size, records in found.items()]
        ours, torchs = (
            {
                size: numpys["median"] / records[name]["median"]
                for size, records, numpys in pairs
                if numpys and name in records
            }
            for name in (OURS, "torch")
        )
        if ours:
            lines[label] = ours, torchs
    return lines


#: What the picture shows, for those who do not see it
ALTERNATIVE = ":alt: Times as fast as NumPy over the number of elements: four kinds of call, with PyTorch beside each"


PICTURES = {
    "time": "Time per call over size",
    "speed": "GB/s over size, with caches and the limit of memory",
    "calls": "Time of a call on three elements",
    "first": "Import and first call",
}


def draw(name: str, result: Result, folder: Path) -> None:
    """Draw the pictures of one machine."""
    folder.mkdir(parents=True, exist_ok=True)
    caption = machine.line(dict(result["machine"]))
    cases = [row for row in result["cases"] if row["layout"] == "contiguous" and row["data"] == "normal"]
    panels = (("relu", "out"), ("relu", "inplace"), ("relu_backward", "out"))
    chosen = [
        [row for row in cases if (row["operation"], row["mode"], row["dtype"]) == (*panel, "float32")]
        for panel in panels
    ]
    titles = [f"{operation}, {view.MODES[mode]}, float32" for operation, mode in panels]
    shape, axes = plot.figure(3)
    for axis, rows, title in zip(axes, chosen, titles, strict=True):
        plot.time_over_size(axis, rows, title)
    plot.legend(shape, axes)
    plot.finish(shape, caption, str(folder / f"time-{name}.svg"))

    shape, axes = plot.figure(3)
    copies = [row["gbps"] for row in chosen[0] if row["provider"] == "C copy, streaming stores" and row["size"] >= 1e7]
    for axis, rows, title in zip(axes, chosen, titles, strict=True):
        # Calls on a few elements are all overhead: in GB/s they would only stretch the axis
        large = [row for row in rows if row["size"] >= 1_000]
        plot.speed_over_size(axis, large, title, result["machine"]["caches"], max(copies, default=0.0))
    plot.legend(shape, axes)
    plot.finish(shape, caption, str(folder / f"speed-{name}.svg"))

    shape, axes = plot.figure(3)
    for axis, operation in zip(axes, ("relu", "leaky_relu", "relu_backward"), strict=True):
        found = find(cases, operation, "out", "float32", 3, "contiguous")
        # A forced target, a thread pool or an interpreter of expressions says nothing about calls this small
        slow = ("fastrelu serial", "fastrelu parallel", "numexpr", "numba @vectorize parallel")
        values = {row["provider"]: row["median"] for row in found.values() if row["provider"] not in slow}
        plot.bars(axis, {n: v for n, v in values.items() if not n.startswith("C")}, f"{operation}, out=, 3 elements")
    plot.finish(shape, caption, str(folder / f"calls-{name}.svg"))

    shape, axes = plot.figure(1, width=9, height=3.6)
    plot.bars(axes[0], {what: row["median"] for what, row in result["startup"].items()}, "Import and first call")
    plot.finish(shape, caption, str(folder / f"first-{name}.svg"))


def main() -> int:
    """Make all reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    parser.add_argument("--root", type=Path, default=ROOT, help="where README.md and docs/ are")
    parser.add_argument("--no-plots", action="store_true")
    given = parser.parse_args()
    found = results.load_all(given.results)
    (given.root / "docs").mkdir(exist_ok=True)
    (given.root / "docs" / "benchmarks.md").write_text(benchmarks_page(found))
    on_gpus = results.load_all(given.results / "cuda")
    (given.root / "docs" / "benchmarks_gpu.md").write_text(cuda_report.page(on_gpus, table))
    if not given.no_plots:
        latest = next(iter(found.values()), None)
        if latest and (lines := speedups(latest["cases"])):
            for theme in plot.THEMES:
                path = given.root / "docs" / "_static" / f"speedup-{theme}.svg"
                plot.speedups(lines, theme, machine.line(dict(latest["machine"])), str(path))
        for name, result in on_gpus.items():
            cuda_report.draw(name, result, given.root / "docs" / "_static" / "bench")
        for name, result in found.items():
            if re.fullmatch(r"[a-z0-9-]+", name):
                draw(name, result, given.root / "docs" / "_static" / "bench")
    write_readme(given.root / "README.md", found)
    print(f"README.md, docs/benchmarks.md and plots from {len(found)} results files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
