"""Running cases: each under thresholds of its own, so that small arrays take the ways of large ones too."""

import collections
import contextlib
import random
import warnings
from collections.abc import Iterator
from typing import Any

import fastrelu
from fastrelu._call import bitmask, dispatch, job_cache, large, sums

from . import elementwise, fused
from .cases import Case, Skipped, Wrong, check
from .memory import Draw

#: How large what is summed together is: as it is, and so that small arrays are cut into as many pieces as large ones.
SUMS = {
    "as they are": {},
    "small": {"CYCLE_BYTES": 4096, "PANEL_BYTES": 512, "FEWEST_ROWS": 4, "PIECE_BYTES": 2048, "SHORT": 16},
    "tiny": {"CYCLE_BYTES": 256, "PANEL_BYTES": 64, "FEWEST_ROWS": 2, "PIECE_BYTES": 128, "SHORT": 4},
}


def draw(seed: int, number: int) -> Case:
    """Return a case; the same for the same numbers."""
    drawn = Draw(random.Random(seed << 40 | number))
    return fused.draw(drawn) if drawn.chance(0.35) else elementwise.draw(drawn)


@contextlib.contextmanager
def tuned(tuning: dict[str, Any]) -> Iterator[None]:
    """Move the thresholds."""
    wanted = [
        (dispatch, "LARGE_BYTES", tuning["large"]),
        (dispatch, "CONVERT_BYTES", tuning["convert"]),
        (large, "TILE_SIDE", tuning["side"]),
        (large, "TILE_BYTES", tuning["tile"]),
        (bitmask, "TILE_BYTES", tuning["tile"]),
        (bitmask, "WHOLE", tuning["whole"]),
        *((sums, name, value) for name, value in SUMS[tuning["sums"]].items()),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in wanted]
    try:
        for module, name, value in wanted:
            setattr(module, name, value)
        with fastrelu.configure(**{key: tuning[key] for key in ("parallel_min_bytes", "streaming_min_bytes")}):
            yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


#: The package's ways, by what they are called here: what is called, of what, when one is taken.
WAYS: dict[str, tuple[Any, str]] = {
    "job": (large, "run"),
    "converted on threads": (large, "run_converting"),
    "known job": (job_cache, "run"),
    "mask": (bitmask.BitmaskPass, "_job"),
    "sums by cycles": (sums.SumPass, "_by_cycles"),
    "sums by columns": (sums.SumPass, "_by_columns"),
    "sums by runs": (sums.SumPass, "_by_runs"),
}


@contextlib.contextmanager
def counted(paths: collections.Counter[str]) -> Iterator[None]:
    """Count how often each way is taken."""
    before = {label: getattr(*way) for label, way in WAYS.items()}

    def counting(label: str) -> Any:
        def count(*args: Any) -> Any:
            result = before[label](*args)
            paths[label] += result is not None
            return result

        return count

    try:
        for label, way in WAYS.items():
            setattr(*way, counting(label))
        yield
    finally:
        for label, way in WAYS.items():
            setattr(*way, before[label])


def run(seed: int, number: int) -> bool:
    """Run one case; return whether it was computed or refused, and raise Wrong with the way to run it again."""
    case = draw(seed, number)
    try:
        with tuned(case.tuning), warnings.catch_warnings():
            warnings.simplefilter("error")
            if isinstance(case, elementwise.Elementwise) and case.leaves_gaps:
                warnings.filterwarnings("ignore", message=".*uninitialized memory|.*unitialized memory")
            return check(case)
    except Skipped:
        return False
    except Exception as error:
        detail = "\n".join(f"  {key}: {value}" for key, value in vars(case).items() if key != "blocks")
        again = f"python -m tests.fuzz --seed {seed} --only {number}"
        raise Wrong(f"seed {seed}, case {number}: {error}\n{detail}\nrun it again: {again}") from error
