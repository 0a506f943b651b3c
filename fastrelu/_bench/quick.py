"""The quick view: what ``python -m fastrelu bench`` measures, and the errors that its user may see."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import machine
from .cases import BACKWARD, FORWARD, TYPES, Case
from .providers import Provider, available
from .runner import Measurement, Race, race, set_threads

SIZES = (1_000, 100_000, 1_000_000, 16_000_000)
QUICK_SIZES = (1_000, 1_000_000)
OPERATIONS = ("relu", "relu_backward")
#: Seconds per case: with every peer installed, the default cases stay well under 90 seconds
SECONDS, QUICK_SECONDS = 1.2, 0.3
BENCH = 'pip install "fastrelu[bench]"'


class UsageError(Exception):
    """What is wrong with a command, in one line."""


def seconds(quick: bool) -> float:
    """Return how long to measure a case; ``FASTRELU_BENCH_SECONDS`` overrides it, for CI, which reads no times."""
    text = os.environ.get("FASTRELU_BENCH_SECONDS")
    if text is None:
        return QUICK_SECONDS if quick else SECONDS
    try:
        return max(0.0, float(text))
    except ValueError:
        raise UsageError(f"FASTRELU_BENCH_SECONDS={text!r} is not a number of seconds") from None


def need(module: str, purpose: str) -> None:
    """Raise UsageError where an extra is missing."""
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"{purpose} needs {module}, which is not installed: {BENCH}")


def load(path: str) -> np.ndarray:
    """Return the array of a ``.npy`` file that fastrelu supports."""
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        if not start.startswith((b"\x93NUMPY", b"PK")):  # numpy.load would speak of pickles
            raise ValueError("it does not begin as one")
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except Exception as error:  # numpy.load raises whatever a damaged header leads to
        reason = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"{path}: not a readable .npy file ({reason[0]})") from None
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path}: holds several arrays; save the one to measure with numpy.save")
    if array.dtype.newbyteorder("=").name not in TYPES:
        raise UsageError(f"{path}: type {array.dtype} is not supported; there are {', '.join(TYPES)}")
    if array.size == 0:
        raise UsageError(f"{path}: the array of shape {array.shape} is empty")
    return array


def check_size(text: str) -> int:
    """Return a number of elements from text such as 1000, 1_000, 1,000 or 1e6."""
    try:
        value = float(text.replace(",", "").replace("_", ""))
        size = int(value)
    except (ValueError, OverflowError):
        raise UsageError(f"size {text!r} is not a number of elements, such as 1000000 or 1e6") from None
    if size != value or size < 1:
        raise UsageError(f"size {text!r} is not a whole number of elements above 0")
    return size


def check_memory(size: int, dtype: str) -> None:
    """Raise UsageError where the arrays of a case would not fit."""
    needed = size * np.dtype(dtype).itemsize * 6
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows does not tell this way
        there = 1 << 62
    if needed > there:
        raise UsageError(f"size {size:,} needs about {needed >> 30:,} GiB of memory; there are {there >> 30:,} GiB")


def check_writable(path: str | None) -> None:
    """Raise UsageError before the measurement rather than after it."""
    if path is not None and not os.access(Path(path).resolve().parent, os.W_OK):
        raise UsageError(f"{path}: cannot be written there")
    if path is not None and Path(path).is_dir():
        raise UsageError(f"{path}: is a folder")


def cases(operations: Sequence[str], dtypes: Sequence[str], sizes: Sequence[int], data: str = "normal") -> list[Case]:
    """Return the cases of the quick view: with ``out=`` and in place forward, with ``out=`` backward."""
    found = []
    for dtype in dtypes:
        for operation in operations:
            for mode in ("out",) if operation in BACKWARD else ("out", "inplace"):
                found += [Case(operation, mode, dtype, size, data=data) for size in sizes]
    return [case for case in found if case.possible]


def check_operation(name: str) -> str:
    """Return the name if it is an operation's."""
    if name not in (*FORWARD, *BACKWARD):
        raise UsageError(f"operation {name!r} is unknown; there are {', '.join((*FORWARD, *BACKWARD))}")
    return name


def check_dtype(name: str) -> str:
    """Return the name of a supported type."""
    if name == "bfloat16":
        need("ml_dtypes", "--dtype bfloat16")
        importlib.import_module("ml_dtypes")
    try:
        dtype = np.dtype(name).name
    except TypeError:
        dtype = ""
    if dtype not in TYPES:
        raise UsageError(f"type {name!r} is not supported; there are {', '.join(TYPES)}")
    return dtype


def measure(
    wanted: Sequence[Case], values: np.ndarray | None, threads: int, seconds: float,
    progress: Callable[[Case, str], None], done: Callable[[], None],
) -> tuple[list[Race], dict[str, str], dict[str, Any]]:  # fmt: skip
    """Run the races and return them, who was left out and why, and the machine."""
    providers, left_out = available()
    providers = [provider for provider in providers if provider.name != "fastrelu, default slope"]
    set_threads([provider for provider in providers if _used(provider, wanted)], threads)
    races = []
    for case in wanted:
        races.append(
            race(case, providers, values=values, seconds=seconds, progress=lambda text, case=case: progress(case, text))  # type: ignore[misc]
        )
        done()
    return races, left_out, machine.describe(threads)


def _used(provider: Provider, wanted: Sequence[Case]) -> bool:
    return any(provider.supports(case) for case in wanted)


def save(path: str, races: Sequence[Race], left_out: dict[str, str], described: dict[str, Any]) -> None:
    """Write what was measured as JSON."""
    content = {
        "machine": described,
        "left_out": left_out,
        "cases": [each.record() for one in races for each in one.measurements.values()],
    }
    Path(path).write_text(json.dumps(content, indent=1) + "\n")


def ratio(each: Measurement, one: Race, ours: str = "fastrelu") -> float:
    """Return how many times as long as fastrelu's automatic choice a provider takes."""
    return each.median / one.measurements[ours].median
