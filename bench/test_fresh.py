"""The same without ``out=``: the system's page faults for the new array are part of the call."""

from collections.abc import Callable

from fastrelu._bench.cases import Case

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 16_000_000, 64_000_000)
CASES = [Case("relu", "new", "float32", size) for size in SIZES]
CASES += [Case(name, "new", "float32", 1_000_000) for name in ("leaky_relu", "relu_grad", "leaky_relu_grad")]
CASES += [Case(name, "new", "float32", 1_000_000) for name in ("relu_backward", "leaky_relu_backward")]


def test_fresh(contest: Callable[[], object]) -> None:
    contest()
