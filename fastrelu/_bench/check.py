"""Every provider is compared with the plain-Python oracle before it is timed."""

from __future__ import annotations

import ast
import builtins
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .._operations import UFUNCS
from . import oracle
from .cases import Case, Operands, is_float, is_slope
from .providers import Names, Provider

#: Up to here every element is checked; the oracle computes some 2 million per second
WHOLE = 1_000_000
#: Loops are cut into pieces of this many bytes of output, so that is where a border would show
PIECE_BYTES = 65536
_RANDOM = 10_000


class WrongResult(AssertionError):
    """A provider that must be right is not."""


def sample(size: int, itemsize: int) -> np.ndarray:
    """Return which elements to check: all, or both ends, all piece borders and some at random."""
    if size <= WHOLE:
        return np.arange(size)
    borders = np.arange(0, size, PIECE_BYTES // itemsize)[:, None] + np.arange(-2, 2)
    ends = np.concatenate([np.arange(512), np.arange(size - 512, size)])
    chosen = np.concatenate([borders.ravel(), ends, np.random.default_rng(2).integers(0, size, _RANDOM)])
    return np.unique(chosen[(chosen >= 0) & (chosen < size)])


def _pick(array: Any, shape: tuple[int, ...], where: tuple[np.ndarray, ...]) -> Any:
    return np.broadcast_to(array, shape)[where] if isinstance(array, np.ndarray) else array


class Reference:
    """What a case must give, computed once for all providers."""

    def __init__(self, operands: Operands) -> None:
        case, x = operands.case, operands["x"]
        self.dtype = case.result_dtype
        self.shape = x.shape
        indices = sample(x.size, self.dtype.itemsize)
        if x.flags.f_contiguous and not x.flags.c_contiguous:  # pieces follow memory, not the index
            self.where = tuple(np.unravel_index(indices, x.shape[::-1]))[::-1]
        else:
            self.where = tuple(np.unravel_index(indices, x.shape)) if x.ndim else ()
        self.operands = tuple(np.array(_pick(o, x.shape, self.where), dtype=self.dtype) for o in operands.reference())
        with np.errstate(all="ignore"):
            self.expected = oracle.expected(case.operation, self.operands, self.dtype)

    def differences(self, actual: Any) -> tuple[str, ...]:
        """Name the kinds of input for which a result is not the oracle's."""
        actual = np.array(actual, self.dtype) if isinstance(actual, list) else np.asarray(actual)
        if actual.shape != self.shape and actual.size == int(np.prod(self.shape)):
            actual = actual.reshape(self.shape)
        if actual.shape != self.shape:
            return (f"shape {actual.shape}",)
        found: list[str] = []
        if actual.dtype.newbyteorder("=") != self.dtype:
            found.append(f"type {actual.dtype}")
        with np.errstate(all="ignore"):
            picked = np.atleast_1d(actual[self.where].astype(self.dtype))
        wrong = ~oracle.same_bits(picked, np.atleast_1d(self.expected))
        if not wrong.any():
            return tuple(found)
        data = [np.broadcast_to(np.atleast_1d(o), wrong.shape)[wrong] for o in self.operands]
        nan = np.logical_or.reduce([np.isnan(values) for values in data])
        infinite = ~nan & np.logical_or.reduce([np.isinf(values) for values in data])
        # The sign of a zero is lost; anything else with a finite input is a wrong value
        right = picked[wrong] == np.atleast_1d(self.expected)[wrong]
        zero = ~nan & ~infinite & right
        kinds = {"NaN": nan, "Inf": infinite, "-0.0": zero, "values": ~(nan | infinite | zero)}
        return (*found, *(name for name, where in kinds.items() if where.any()))

    def sum_differences(self, operands: Operands) -> tuple[str, ...]:
        """Name what is wrong with the sums per unit."""
        rows = np.moveaxis(operands["x"], operands["axis"], 0)
        if operands.case.backward:
            grads = np.moveaxis(operands["grad"], operands["axis"], 0)
            terms = [np.where(x < 0, g.astype(np.float64) * x, 0.0) for g, x in zip(grads, rows, strict=True)]
            wanted = [each.sum() for each in terms]
            # Peers sum in the type of the data, some of them one after the other
            close = np.finfo(self.dtype).eps * np.array([np.abs(each).sum() for each in terms])
        else:
            wanted, close = [int(np.count_nonzero(row > 0)) for row in rows], 0
        return () if (np.abs(operands["sums"] - np.array(wanted)) <= close).all() else ("sums",)

    def bit_differences(self, mask: np.ndarray) -> tuple[str, ...]:
        """Name what is wrong with the mask that a forward pass has written."""
        (indices,) = self.where
        found = mask[indices >> 3] >> (indices & 7) & 1
        return () if (found == [not value <= 0 for value in self.operands[0].tolist()]).all() else ("mask",)


def free_names(code: str) -> list[str]:
    """Return the names that a piece of code reads and does not bind itself."""
    tree = ast.parse(code)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    # An augmented assignment, as in x *= ..., reads what it writes
    augmented = {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    }
    used = {node.id for node in nodes if isinstance(node.ctx, ast.Load)}
    return sorted((used - bound | augmented) - set(dir(builtins)))


def compiled(code: str, names: Names, before: str, after: str = "", parameters: str = "") -> Callable[..., Any]:
    """Return a function of `code` between two pieces of source.

    What the code names are the function's local variables: the cheapest thing to look up, the same for
    everyone, and made only if named.
    """
    wanted = free_names(code)
    given = ", ".join([*([parameters] if parameters else []), *(f"{name}={name}" for name in wanted)])
    body = "\n".join(f"    {line}" for line in (f"def run({given}):", *f"{before}{code}{after}".splitlines()))
    scope: dict[str, Any] = {}
    exec(f"def make({', '.join(wanted)}):\n{body}\n    return run\n", {"clock": time.perf_counter}, scope)
    run: Callable[..., Any] = scope["make"](*(names[name] for name in wanted))
    return run


def run_once(provider: Provider, names: Names) -> Any:
    """Run a provider's code once and return its result."""
    case = names.case
    run = compiled(provider.code[case.operation, case.mode], names, "    return " if case.mode == "new" else "    ")
    with np.errstate(all="ignore"):
        value = run()
    if case.mode == "new":
        return value
    if provider.result is not None:
        return provider.result(names)
    return names[case.target] if case.in_place else names["out"]


def check(provider: Provider, names: Names, reference: Reference) -> tuple[str, ...]:
    """Return how a provider differs on the array that is about to be timed; None of fastrelu's may."""
    case = names.case
    if case.summed:
        names["sums"][...] = 0
    result = run_once(provider, names) if provider.computes else None
    found = reference.differences(result) if provider.computes and case.writes else ()
    if case.summed and provider.computes:
        found += reference.sum_differences(names.operands)
    if case.masked and not case.backward and "bits" in free_names(provider.code[case.operation, case.mode]):
        found += reference.bit_differences(names["bits"])
    names.operands.restore()
    if found and provider.role != "peer":
        raise WrongResult(f"{provider.name} differs from the oracle in {names.case}: {', '.join(found)}")
    return found


_SPECIAL = (float("nan"), -0.0, 0.0, float("inf"), float("-inf"), -1.5, 1.5)
_known: dict[tuple[str, str, str, str], tuple[str, ...]] = {}


def special(provider: Provider, case: Case) -> tuple[str, ...]:
    """Return the special values, and slopes above 1, for which a provider differs from the oracle."""
    dtype = np.dtype(case.dtype)
    if not is_float(dtype) or not provider.computes or case.summed:
        return ()
    key = (provider.name, case.operation, case.mode, case.dtype)
    if key not in _known:
        _known[key] = _special(provider, case, dtype)
    return _known[key]


def _special(provider: Provider, case: Case, dtype: np.dtype) -> tuple[str, ...]:
    # Every special value of x meets every special value of grad
    pairs = np.array([(x, g) for x in _SPECIAL for g in _SPECIAL], dtype=dtype)
    small = Case(case.operation, case.mode, case.dtype, len(pairs))
    fixed: list[Callable[[Operands], None]] = [lambda operands: None]
    if "slope" in provider.code[case.operation, case.mode] or any(
        is_slope(each) for each in UFUNCS[case.operation].operands
    ):
        fixed.append(lambda operands: operands.__setitem__("slope", 2.0))
    found: list[str] = []
    for number, prepare in enumerate(fixed):
        operands = Operands(small, pairs[:, 0].copy())
        if small.backward:
            operands["grad"] = pairs[:, 1].copy()
        if number and provider.name.endswith("default slope"):
            continue
        prepare(operands)
        reference = Reference(operands)
        differences = reference.differences(run_once(provider, Names(operands, provider.names)))
        new = [name for name in differences if name not in found]
        found += ["slope > 1"] if number and "values" in new else [] if number else new
    if found and provider.role != "peer":
        raise WrongResult(f"{provider.name} differs from the oracle for {', '.join(found)} in {small}")
    return tuple(found)
