"""Pictures of results: time and GB/s over size, and bars. Input are the records of a results file.

The colours are Okabe and Ito's, which colour-blind readers tell apart; markers differ too. One provider has one
colour whether it wins or loses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .runner import Race
from .view import MODES, duration

Record = Mapping[str, Any]

#: provider: (colour, marker, line style); others are drawn in the last style
STYLES: dict[str, tuple[str, str, str]] = {
    "fastrelu": ("#0072B2", "o", "-"),
    "fastrelu serial": ("#0072B2", "v", ":"),
    "fastrelu parallel": ("#0072B2", "^", "--"),
    "numpy.maximum(x, 0)": ("#E69F00", "s", "-"),
    "numpy.maximum(x, zeros)": ("#E69F00", "D", "--"),
    "numpy.greater + numpy.multiply": ("#E69F00", "s", "-"),
    "numpy.multiply + numpy.maximum": ("#E69F00", "s", "-"),
    "torch": ("#D55E00", "P", "-"),
    "jax.jit": ("#CC79A7", "X", "-"),
    "numexpr": ("#56B4E9", "h", "-"),
    "numba @vectorize cpu": ("#009E73", "<", "-"),
    "numba @vectorize parallel": ("#009E73", ">", "--"),
    "C, plain stores": ("#000000", "x", ":"),
    "C, streaming stores": ("#000000", "+", "-"),
    "C copy, streaming stores": ("#777777", "1", "-"),
    "numpy.copyto": ("#777777", "2", "--"),
    "Python max() loop": ("#B8A000", "*", "-"),
}
OTHER = ("#999999", ".", "-")
#: What a line plot shows; all the rest is in the tables
LINES = tuple(name for name in STYLES if name not in ("fastrelu serial", "fastrelu parallel"))


def style(provider: str) -> tuple[str, str, str]:
    """Return colour, marker and line style of a provider."""
    # Bars of first calls have longer names: the library decides
    libraries = {
        "fastrelu": "fastrelu",
        "torch": "torch",
        "numba": "numba @vectorize cpu",
        "numpy": "numpy.maximum(x, 0)",
    }
    known = next((entry for library, entry in libraries.items() if library in provider), provider)
    return STYLES.get(provider, STYLES.get(known, OTHER))


def figure(columns: int, width: float = 6.4, height: float = 5.2, letters: float = 10) -> tuple[Any, list[Any]]:
    """Return a figure without a window, and its panels."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": letters, "svg.hashsalt": "fastrelu", "svg.fonttype": "none"})
    from matplotlib import pyplot

    shape, axes = pyplot.subplots(1, columns, figsize=(width * columns, height), squeeze=False, layout="constrained")
    return shape, list(axes[0])


def finish(shape: Any, caption: str, path: str, description: str | None = None) -> None:
    """Write the machine below the picture, and the picture to a file, which may hold a description that is not seen."""
    import textwrap

    from matplotlib import pyplot

    columns = int(shape.get_figwidth() * 15)
    shape.supxlabel("\n".join(textwrap.wrap(caption, columns)), fontsize=7, color="#444444", x=0.01, ha="left")
    # Without a date in it, an unchanged picture is an unchanged file
    shape.savefig(path, dpi=130, metadata={"Date": None, "Description": description} if path.endswith(".svg") else None)
    pyplot.close(shape)


def lines(axis: Any, records: Iterable[Record], value: str, providers: Sequence[str] = LINES) -> None:
    """Draw a line for each provider over the size, with the quartiles as a band."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["provider"], []).append(record)
    for provider in providers:
        rows = sorted(found.get(provider, []), key=lambda row: row["size"])
        if not rows:
            continue
        colour, marker, dashes = style(provider)
        sizes = [row["size"] for row in rows]
        wide = 2.2 if provider == "fastrelu" else 1.2
        axis.plot(
            sizes, [row[value] for row in rows], color=colour, marker=marker, linestyle=dashes, linewidth=wide,
            markersize=5, label=provider, zorder=3 if provider == "fastrelu" else 2,
        )  # fmt: skip
        if value == "median":
            low, high = [row["low"] for row in rows], [row["high"] for row in rows]
            axis.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xscale("log")
    axis.set_xlabel("elements")
    axis.grid(alpha=0.3, which="major")


def time_over_size(axis: Any, records: Iterable[Record], title: str) -> None:
    """Draw time per call on log axes."""
    from matplotlib.ticker import FuncFormatter

    lines(axis, records, "median")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, position: duration(value)))
    axis.set_ylabel("time per call")
    axis.set_title(title)


def speed_over_size(axis: Any, records: Sequence[Record], title: str, caches: Mapping[str, int], limit: float) -> None:
    """Draw GB/s, with the sizes at which the arrays leave each cache and the measured limit of memory."""
    records = list(records)
    lines(axis, [row for row in records if row["provider"] != "Python max() loop"], "gbps")
    each = records[0]["bytes"] / records[0]["size"] if records else 8
    top = axis.get_ylim()[1] * 1.08
    for name, size in caches.items():
        axis.axvline(size / each, color="#444444", linewidth=0.8, linestyle=(0, (1, 3)))
        axis.text(size / each, top, f" {name}", fontsize=8, color="#444444", va="top")
    if limit:
        axis.axhline(limit, color="#444444", linewidth=0.9, linestyle=(0, (5, 3)))
        axis.text(
            axis.get_xlim()[0], limit, f"  copy of memory: {limit:.0f} GB/s", fontsize=8, color="#444444", va="bottom"
        )
    axis.set_ylim(0, top)
    axis.set_ylabel("GB/s, bytes that must be moved")
    axis.set_title(title)


def bars(axis: Any, values: Mapping[str, float], title: str, show: Any = duration, log: bool = False) -> None:
    """Draw one horizontal bar for each provider, shortest first."""
    rows = sorted(values.items(), key=lambda row: -row[1])
    patches = axis.barh(
        [name for name, _ in rows], [value for _, value in rows], color=[style(name)[0] for name, _ in rows]
    )
    axis.bar_label(patches, labels=[f" {show(value)}" for _, value in rows], fontsize=8)
    if log:
        axis.set_xscale("log")
    axis.margins(x=0.25)
    axis.set_title(title)
    axis.grid(alpha=0.3, axis="x")
    axis.set_xticklabels([])


#: Background, text, the line of NumPy, and the lines in their order; the lighter ones of Okabe and Ito's on a dark page
THEMES: dict[str, tuple[str, str, str, Sequence[str]]] = {
    "light": ("#ffffff", "#1f2328", "#6e7781", ("#0072B2", "#009E73", "#C44E00", "#A4458A")),
    "dark": ("#0d1117", "#e6edf3", "#9198a1", ("#56B4E9", "#2FC59A", "#F28E3C", "#E39CC6")),
}
Speedups = Mapping[int, float]


def speedups(lines: Mapping[str, tuple[Speedups, Speedups]], theme: str, described: str, path: str) -> None:
    """Draw how many times as fast as NumPy a call is over its elements: for each line fastrelu, and torch beside it.

    The one picture of README and landing page: it is read on telephones too, and the background is its own, since a
    page may be dark where the system is light.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    back, ink, grey, colours = THEMES[theme]
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    with rc_context(dict.fromkeys(names, ink) | {"axes.spines.top": False, "axes.spines.right": False}):
        shape, (axis,) = figure(1, width=6, height=4.4, letters=13)
        shape.set_facecolor(back)
        axis.set_facecolor(back)
        for (ours, torchs), colour in zip(lines.values(), colours):
            axis.plot(list(torchs), list(torchs.values()), color=colour, linewidth=1.3, linestyle=(0, (4, 2)))
            axis.plot(list(ours), list(ours.values()), color=colour, linewidth=2.6, marker="o", markersize=5)
        axis.set(xscale="log", yscale="log", xlabel="number of elements")
        axis.set_title("times as fast as NumPy", loc="left", fontsize="medium")
        axis.axhline(1, color=grey, linewidth=1.2)
        low, high = axis.get_ylim()
        axis.set_ylim(low / 1.1, high * 1.1)
        left, right = axis.get_xlim()
        axis.set_xlim(left, right)
        axis.yaxis.set_major_locator(FixedLocator([0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]))
        axis.xaxis.set_major_locator(FixedLocator([100, 10_000, 1_000_000, 100_000_000]))
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter(FuncFormatter(lambda value, position: f"{value:,.10g}"))
            each.set_minor_locator(NullLocator())
        axis.grid(alpha=0.25, color=grey)
        ends = {"NumPy": 1.0} | {name: list(ours.values())[-1] for name, (ours, _) in lines.items()}
        for (name, height), colour in zip(apart(ends, 1.45).items(), (grey, *colours)):
            axis.annotate(name, (right, height), color=colour, fontweight="bold", va="center", annotation_clip=False)
        for label, width, dashes in (("fastrelu", 2.6, "-"), ("PyTorch", 1.3, (0, (4, 2)))):
            axis.plot([], [], color=ink, linewidth=width, linestyle=dashes, label=label)
        axis.legend(frameon=False, loc="upper left")
        finish(shape, "", path, described)


def apart(heights: Mapping[str, float], factor: float) -> dict[str, float]:
    """Return heights on a log axis, moved apart to at least a factor, in the order in which they came."""
    placed: dict[str, float] = {}
    for name in sorted(heights, key=heights.__getitem__):
        placed[name] = max([heights[name], *(height * factor for height in placed.values())])
    return {name: placed[name] for name in heights}


def legend(shape: Any, axes: Sequence[Any]) -> None:
    """Put one legend for all lines of all panels beside them, where it covers none."""
    handles: dict[str, Any] = {}
    for axis in axes:
        drawn, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    order = [name for name in LINES if name in handles]
    if order:
        shape.legend([handles[name] for name in order], order, loc="outside right upper", fontsize=8)


def quick(races: Sequence[Race], machine: Mapping[str, Any], path: str) -> None:
    """Draw what ``python -m fastrelu bench`` has measured: lines over the sizes, or bars for one size."""
    from .machine import line

    groups: dict[str, list[Record]] = {}
    for one in races:
        for each in one.measurements.values():
            row = each.record()
            groups.setdefault(f"{row['operation']}, {MODES[row['mode']]}, {row['dtype']}", []).append(row)
    shape, axes = figure(max(1, len(groups)))
    for axis, (title, rows) in zip(axes, groups.items(), strict=False):
        if len({row["size"] for row in rows}) > 1:
            time_over_size(axis, rows, title)
        else:
            bars(
                axis,
                {row["provider"]: row["median"] for row in rows},
                f"{title}, {rows[0]['size']:,} elements",
                log=True,
            )
    legend(shape, axes)
    finish(shape, line(dict(machine)), path)
