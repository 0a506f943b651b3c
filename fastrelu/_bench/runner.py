"""Time providers in turn, so that a machine that slows down slows all of them down.

`race` makes the arrays of a case, checks every provider against the oracle, and then runs rounds: in each, every
provider runs one batch of calls, in an order that is drawn anew: whoever always followed a provider that empties the
caches, as streaming stores do, looked 1.5 times slower. The median over the rounds is the result.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .cases import Case, Operands
from .check import Reference, WrongResult, check, compiled, special
from .providers import Names, Provider

#: A batch lasts at least this long, a hundred thousand times the clock's own step
BATCH_SECONDS = 1e-3
#: Thread pools spin for a while after a call and would take the cores from the next provider
SETTLE_SECONDS = 2e-3
#: A call longer than this is not run once more before each batch to wake threads and caches
WARM_SECONDS = 5e-3
#: After this many times the wanted seconds, three rounds must do
SLOW = 10


@dataclass(frozen=True)
class Measurement:
    """What one provider needed in one case, in seconds per call."""

    case: Case
    provider: str
    role: str
    median: float
    low: float
    high: float
    rounds: int
    loops: int
    differs: tuple[str, ...] = ()
    samples: tuple[float, ...] = field(default=(), repr=False)

    @property
    def gbps(self) -> float:
        """Bytes that must be moved per nanosecond."""
        return self.case.bytes / self.median / 1e9

    def record(self) -> dict[str, Any]:
        """Return what a results file keeps: medians and quartiles, no samples."""
        times = {name: float(f"{getattr(self, name):.4g}") for name in ("median", "low", "high")}
        return {
            **asdict(self.case), "provider": self.provider, "role": self.role, **times, "rounds": self.rounds,
            "loops": self.loops, "bytes": self.case.bytes, "gbps": round(self.gbps, 3), "differs": list(self.differs),
        }  # fmt: skip


@dataclass
class Race:
    """The measurements of one case, and who did not take part and why."""

    case: Case
    measurements: dict[str, Measurement] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def timed(code: str, names: Names) -> Callable[[int], float]:
    """Return a function that runs code a number of times and returns the seconds, as `timeit` would."""
    before = "    _turns = range(_loops)\n    _start = clock()\n    for _ in _turns:\n        "
    return compiled(code, names, before, "\n    return clock() - _start", "_loops")


@dataclass
class _Contender:
    provider: Provider
    run: Callable[[int], float]
    differs: tuple[str, ...]
    call: float = 0.0
    loops: int = 1
    spent: float = 0.0
    samples: list[float] = field(default_factory=list)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the garbage collector, and the warnings that naive code raises for NaN, out of the timing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        if enabled:
            gc.enable()


def race(
    case: Case,
    providers: Iterable[Provider],
    *,
    values: np.ndarray | None = None,
    seconds: float = 1.0,
    rounds: tuple[int, int] = (5, 25),
    batch: float = BATCH_SECONDS,
    progress: Callable[[str], None] = lambda text: None,
) -> Race:
    """Let providers compete in a case.

    Parameters
    ----------
    case : Case
        What to measure.
    providers : iterable of Provider
        Who takes part; those that do not support the case are passed over.
    values : ndarray, optional
        The input, instead of made data.
    seconds : float, optional
        About how long to measure, checks apart.
    rounds : (int, int), optional
        The least and the most rounds.
    batch : float, optional
        How long the calls between two readings of the clock last at least.
    progress : callable, optional
        Told what happens.

    Returns
    -------
    Race

    Raises
    ------
    WrongResult
        One of fastrelu's results, or of the hand-written limit, is not the oracle's.
    """
    result = Race(case)
    if not case.possible:
        return result
    operands = Operands(case, values)
    reference = Reference(operands)
    contenders = []
    for provider in providers:
        if not provider.supports(case):
            continue
        progress(f"checking {provider.name}")
        try:
            names = Names(operands, provider.names)
            differs = check(provider, names, reference)
            notes = special(provider, case)
            contenders.append(
                _Contender(
                    provider, timed(provider.code[case.operation, case.mode], names),
                    (*differs, *(note for note in notes if note not in differs)),
                )
            )  # fmt: skip
        except WrongResult:
            raise
        except Exception as error:  # a peer that cannot do this case is named, and the others run
            if provider.role == "fastrelu":
                raise
            text = str(error).splitlines() or [""]
            result.left_out[provider.name] = f"{type(error).__name__}: {text[0]}"
    with _quiet():
        _calibrate(contenders, operands, batch)
        _run(contenders, operands, seconds, rounds, progress)
    for each in contenders:
        low, median, high = (float(value) for value in np.percentile(each.samples, (25, 50, 75)))
        result.measurements[each.provider.name] = Measurement(
            case, each.provider.name, each.provider.role, median, low, high, len(each.samples), each.loops,
            each.differs, tuple(each.samples),
        )  # fmt: skip
    return result


def _calibrate(contenders: list[_Contender], operands: Operands, batch: float) -> None:
    for each in contenders:
        each.call = min(each.run(1) for _ in range(3))
        while each.call * each.loops < batch and each.loops < 1 << 20:
            each.loops *= 4
            each.call = each.run(each.loops) / each.loops
        each.loops = max(1, min(each.loops, round(batch / max(each.call, 1e-9))))
        operands.restore()


def _run(
    contenders: list[_Contender], operands: Operands, seconds: float, rounds: tuple[int, int],
    progress: Callable[[str], None],
) -> None:  # fmt: skip
    least, most = rounds
    share = seconds / max(1, len(contenders))
    draw = random.Random(0)
    begin = time.perf_counter()
    for number in range(most):
        progress(f"round {number + 1}")
        if number >= 3 and time.perf_counter() - begin > SLOW * seconds:
            return
        taking_part = [each for each in contenders if number < least or each.spent < share]
        if not taking_part:
            return
        for each in draw.sample(taking_part, len(taking_part)):
            start = time.perf_counter()
            if most > 1:
                time.sleep(SETTLE_SECONDS)
            if each.call < WARM_SECONDS:
                each.run(1)
            operands.restore()
            each.samples.append(each.run(each.loops) / each.loops)
            each.spent += time.perf_counter() - start


def set_threads(providers: Iterable[Provider], count: int) -> None:
    """Give everyone the same number of threads."""
    for provider in providers:
        provider.set_threads(count)
