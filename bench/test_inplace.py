"""In place: the input is put back before each batch of calls, outside the timing."""

from collections.abc import Callable

from fastrelu._bench.cases import Case

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 64_000_000, 100_000_000)
CASES = [Case("relu", "inplace", "float32", size) for size in SIZES]
CASES += [Case("relu", "inplace", dtype, 4_000_000) for dtype in ("float16", "float64")]
CASES += [Case(name, "inplace", "bfloat16", size) for name in ("relu", "leaky_relu") for size in (100_000, 10_000_000)]
CASES += [Case(name, "inplace", "float32", 1_000_000) for name in ("leaky_relu", "relu_grad", "leaky_relu_grad")]
CASES += [Case("relu", "inplace", "float32", 1_000_000, data=data) for data in ("positive", "negative", "digits")]


def test_inplace(contest: Callable[[], object]) -> None:
    contest()
