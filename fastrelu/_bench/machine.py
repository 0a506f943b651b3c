"""What every table and plot must say: the processor, the threads, the versions, the date, the commit."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import io
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import fastrelu

PACKAGES = ("numpy", "numba", "torch", "jax", "numexpr", "scikit-learn", "pytest-benchmark")


def describe(threads: int) -> dict[str, Any]:
    """Return the description of this machine and of what is installed, as JSON can hold it."""
    versions = {"python": platform.python_version(), "fastrelu": fastrelu.__version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    config = _config()
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": config.get("processor", ""),
        "caches": caches(config.get("caches", "")),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def cpu_name() -> str:
    """Return the processor's name, as the system or py-cpuinfo tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    with contextlib.suppress(ImportError):
        import cpuinfo

        return str(cpuinfo.get_cpu_info().get("brand_raw", "")) or platform.machine()
    return platform.processor() or platform.machine()


def _config() -> dict[str, str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        fastrelu.show_config()
    return {line[:20].strip(): line[20:].strip() for line in text.getvalue().splitlines()}


def caches(text: str) -> dict[str, int]:
    """Return the sizes in bytes from ``L1 48 KiB, L2 1,024 KiB``."""
    return {name: int(size.replace(",", "")) << 10 for name, size in re.findall(r"(L\d) ([\d,]+) KiB", text)}


def commit(folder: Path | None = None) -> str:
    """Return the git commit of the tree that the package lies in, with a mark if files have changed, or nothing."""
    folder = folder or Path(fastrelu.__file__).parents[1]
    if not (folder / ".git").exists():
        return ""
    try:
        head = _git(folder, "rev-parse", "--short", "HEAD")
        # Reports are written after the measurement and say nothing about the code that was measured
        changed = _git(
            folder, "status", "--porcelain", "--untracked-files=no", "--", "fastrelu", "bench/*.py", "bench/*.c"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + (" and changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def line(machine: dict[str, Any]) -> str:
    """Return the description as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        machine["cpu"], f"{machine['cores']} cores", f"{machine['threads']} threads", versions, machine["date"],
        f"commit {machine['commit']}" if machine["commit"] else "no commit",
    ]  # fmt: skip
    return "; ".join(parts)


def slug(machine: dict[str, Any]) -> str:
    """Return the description's file name."""
    text = f"{machine['cpu']} {machine['cores']} cores".lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")
