"""Inside a user's own `@njit` loop: fastrelu's function next to the formula written by hand."""

from collections.abc import Callable

from fastrelu._bench.cases import BACKWARD, FORWARD, Case

CASES = [Case(name, "loop", "float32", 10_000) for name in (*FORWARD, *BACKWARD)]
CASES += [Case(name, "loop", "float64", 10_000) for name in ("relu", "leaky_relu", "relu_backward")]


def test_compiled(contest: Callable[[], object]) -> None:
    contest()
