"""Results files: medians and quartiles of one run on one machine, as the reports read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def compact(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return what is worth keeping of pytest-benchmark's JSON."""
    info = recorded["machine_info"]
    result: dict[str, Any] = {
        "machine": info["fastrelu"], "left_out": info["left_out"], "cases": [], "startup": {}, "memory": [],
        "loops": [],
    }  # fmt: skip
    for row in recorded["benchmarks"]:
        extra, stats = row["extra_info"], row["stats"]
        if "startup" in extra:
            names = (("median", "median"), ("low", "q1"), ("high", "q3"))
            result["startup"][extra["startup"]] = {ours: round(stats[theirs], 4) for ours, theirs in names}
        elif "kept" in extra:
            result["loops"].append(extra)
        elif "memory" in extra:
            result["memory"].append(extra)
        else:
            result["cases"].append(extra)
    return result


def save(result: dict[str, Any], path: Path) -> None:
    """Write a results file: one case a line, so that a new run reads well as a difference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, value in result.items():
        if isinstance(value, list):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            parts.append(f" {json.dumps(name)}: [\n  {rows}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def load_all(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Return all results by file name, the latest first."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda row: row[1]["machine"]["date"], reverse=True))
