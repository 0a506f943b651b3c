"""The backward passes, into a given array and in place (where the gradient is overwritten)."""

from collections.abc import Callable

from fastrelu._bench.cases import Case

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 48_000_000, 100_000_000)
CASES = [Case("relu_backward", "out", "float32", size) for size in SIZES]
CASES += [Case("relu_backward", "out", dtype, 4_000_000) for dtype in ("float16", "float64")]
CASES += [Case("relu_backward", "inplace", "float32", size) for size in (1_000_000, 48_000_000)]
CASES += [Case("leaky_relu_backward", "out", "float32", size) for size in (10_000, 1_000_000, 10_000_000)]
CASES += [Case("leaky_relu_backward", "out", "float16", 4_000_000)]
CASES += [
    Case("relu_backward", mode, "bfloat16", size) for mode in ("out", "inplace") for size in (100_000, 10_000_000)
]
CASES += [Case("leaky_relu_backward", "inplace", "float32", 1_000_000)]


def test_backward(contest: Callable[[], object]) -> None:
    contest()
