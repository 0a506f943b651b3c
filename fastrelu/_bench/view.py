"""Races as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .cases import Case
from .quick import ratio
from .runner import Race

MODES = {"new": "new array", "out": "out=", "inplace": "in place", "loop": "in an @njit loop"}
MODES |= {"mask": "out=, with a mask", "mask inplace": "in place, with a mask"}
MODES |= {"counts": "out=, with counts", "counts only": "counts alone"}
MODES |= {"slope grad": "out=, with the slope's gradient", "slope grad only": "the slope's gradient alone"}
#: Columns of a terminal that the names and notes take, and that each size takes
NAMES_WIDTH, SIZE_WIDTH = 56, 34


def duration(seconds: float) -> str:
    """Return a time with three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale * 0.9995:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def times(value: float) -> str:
    """Return a ratio with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def title(case: Case) -> str:
    """Return what a table is about."""
    data = {"normal": "", "file": ", your data"}.get(case.data, f", {case.data}")
    return f"{case.operation}, {MODES[case.mode]}, {case.dtype}{data}"


#: Whom the last lines compare with: what one would write otherwise
USUAL = (
    "Python max() loop", "numpy.maximum(x, 0)", "numpy.greater + numpy.multiply",
    "numpy.multiply + numpy.maximum", "torch",
)  # fmt: skip


def summary(races: Iterable[Race]) -> list[str]:
    """Return for each race, in a sentence, how fast fastrelu is beside what one would write otherwise."""
    lines = []
    for one in races:
        if (own := one.measurements.get("fastrelu")) is None:
            continue
        found = {name: one.measurements[name].median / own.median for name in USUAL if name in one.measurements}
        if found:
            as_fast = ", ".join(f"{times(ratio)} times as fast as {name}" for name, ratio in found.items())
            lines.append(f"{title(one.case)}, {one.case.size:,}: {as_fast}")
    return lines


def groups(races: Iterable[Race]) -> dict[str, list[Race]]:
    """Return races that differ in size alone, together."""
    found: dict[str, list[Race]] = {}
    for one in races:
        if one.measurements:
            found.setdefault(title(one.case), []).append(one)
    return found


def tables(races: Iterable[Race], width: int) -> list[Any]:
    """Return a rich table for each operation and way of returning the result, as wide as the terminal allows."""
    found = []
    at_once = max(1, (width - NAMES_WIDTH) // SIZE_WIDTH)
    for name, group in groups(races).items():
        for start in range(0, len(group), at_once):
            found.append(_table(name, group[start : start + at_once]))
    return found


def _table(name: str, group: Sequence[Race]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    caption = "x fastrelu: times as long as fastrelu takes; differs for: values with another result"
    table = Table(title=name, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("provider")
    for one in group:
        for heading in (f"{one.case.size:,}\ntime", "\nx fastrelu", "\nGB/s"):
            table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("differs for", vertical="bottom")
    names = list(dict.fromkeys(provider for one in group for provider in one.measurements))
    for provider in names:
        row, notes = [], ""
        for one in group:
            each = one.measurements.get(provider)
            if each is None:
                row += ["", "", ""]
                continue
            notes = ", ".join(each.differs) or notes
            row += [duration(each.median), times(ratio(each, one)), f"{each.gbps:.1f}"]
        table.add_row(escape(provider), *row, notes)
    return table
