"""The page of GPU benchmarks, from what ``bench/cuda_bench.py --output bench/results/cuda/<gpu>.json`` has recorded.

`report.py` calls it; nothing on the page is typed by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastrelu._bench import plot, view

NOT_RECORDED = (
    "Not recorded yet: no run on a GPU has been made, and nothing is claimed. On a machine with one:"
    " `python bench/cuda_bench.py --output bench/results/cuda/<gpu>.json`, then `python bench/report.py`."
)

Result = Mapping[str, Any]
Row = Mapping[str, Any]


def line(machine: Mapping[str, Any]) -> str:
    """Return what the figures belong to."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['gpu']}; {machine['status']}; {versions}; {machine['date'][:10]}"


def page(found: Mapping[str, Result], table: Any) -> str:
    """Return docs/benchmarks_gpu.md; `table` is that of `report`."""
    lines = ["# Benchmarks on a GPU", "", "Made by `python bench/report.py` from `bench/results/cuda/`.", ""]
    if not found:
        return "\n".join([*lines, NOT_RECORDED, ""])
    for name, result in found.items():
        lines += [f"## {result['machine']['gpu']}", "", f"{line(result['machine'])}.", ""]
        if result.get("bandwidth"):
            lines += [f"![Share of a copy's speed over size](_static/bench/gpu-{name}.svg)", ""]
            lines += ["### GB/s, and share of a copy within the device in the same run", ""]
            for (operation, dtype), rows in _groups(result["bandwidth"], "operation", "dtype").items():
                lines += [f"#### {operation}, {dtype}", "", *_by_size(rows, table), ""]
        if result.get("calls"):
            lines += ["### Time on the host for a call on 1,024 elements", ""]
            rows = [
                (row["case"], f"`{row['provider']}`", view.duration(row["seconds"]["p50"])) for row in result["calls"]
            ]
            lines += [*table(["", "", "median"], rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def _groups(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def _by_size(rows: Sequence[Row], table: Any) -> list[str]:
    sizes = sorted({row["bytes"] for row in rows})
    by = {(row["provider"], row["bytes"]): row for row in rows}
    body = [
        [f"`{provider}`", *(_cell(by.get((provider, size))) for size in sizes)]
        for provider in dict.fromkeys(row["provider"] for row in rows)
    ]
    result: list[str] = table(["bytes", *(f"{size:,}" for size in sizes)], body)
    return result


def _cell(row: Row | None) -> str:
    return f"{row['gb_per_s']:,.0f} ({row['share_of_copy']:.2f})" if row else ""


def draw(name: str, result: Result, folder: Path) -> None:
    """Draw the share of a copy's speed over size, float32, one panel per operation."""
    rows = [row for row in result.get("bandwidth", ()) if row["dtype"] == "float32" and row["provider"] != "copy"]
    operations = _groups(rows, "operation")
    if not operations:
        return
    folder.mkdir(parents=True, exist_ok=True)
    shape, axes = plot.figure(len(operations))
    for axis, ((operation,), chosen) in zip(axes, operations.items(), strict=True):
        for (provider,), points in _groups(chosen, "provider").items():
            points = sorted(points, key=lambda row: row["bytes"])
            axis.plot([row["bytes"] for row in points], [row["share_of_copy"] for row in points], "o-", label=provider)
        axis.axhline(1.0, color="grey", linestyle="--", linewidth=1)
        axis.set(xscale="log", title=f"{operation}, float32", xlabel="bytes", ylabel="share of a copy's GB/s")
    plot.legend(shape, axes)
    plot.finish(shape, line(result["machine"]), str(folder / f"gpu-{name}.svg"))
