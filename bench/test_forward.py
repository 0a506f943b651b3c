"""The forward functions and derivatives, into a given array, over sizes from one cache line to main memory."""

from collections.abc import Callable

from fastrelu._bench.cases import Case

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 64_000_000, 100_000_000)
CASES = [Case("relu", "out", "float32", size) for size in SIZES]
CASES += [Case("relu", "out", "float16", size) for size in (100, *SIZES, 4_000_000) if size < 100_000_000]
CASES += [Case("relu", "out", "float64", size) for size in (10_000, 1_000_000, 4_000_000)]
CASES += [Case("leaky_relu", "out", "float32", size) for size in (10_000, 1_000_000, 10_000_000)]
CASES += [Case("leaky_relu", "out", dtype, size) for dtype in ("float16", "float64") for size in (10_000, 4_000_000)]
CASES += [
    Case(name, "out", "bfloat16", size)
    for name in ("relu", "leaky_relu")
    for size in (1_000, 100_000, 1_000_000, 10_000_000)
]
CASES += [
    Case(name, "out", "float32", size) for name in ("relu_grad", "leaky_relu_grad") for size in (10_000, 1_000_000)
]
#: Branches and store elision would show where all values have one sign, and in real pre-activations
CASES += [Case("relu", "out", "float32", 1_000_000, data=data) for data in ("positive", "negative", "digits")]


def test_forward(contest: Callable[[], object]) -> None:
    contest()
