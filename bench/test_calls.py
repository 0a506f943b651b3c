"""The overhead of a call: so few elements that the arithmetic does not count."""

from collections.abc import Callable

from fastrelu._bench.cases import Case

CASES = [
    Case(operation, mode, "float32", size)
    for operation in ("relu", "leaky_relu", "relu_backward")
    for mode in ("out", "new")
    for size in (1, 3, 100)
]


def test_calls(contest: Callable[[], object]) -> None:
    contest()
