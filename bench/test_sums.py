"""Sums per unit: counts beside the plain forward pass, the gradient of the slope beside the plain backward pass."""

from collections.abc import Callable

from fastrelu._bench.cases import SUM_MODES, Case

SHAPES = ((1_024_000, "512 columns"), (64_000_000, "512 columns"), (51_380_224, "channels first"))
CASES = [
    Case(name, mode, dtype, size, layout)
    for mode, name in SUM_MODES.items()
    for dtype in ("float32", "float16")
    for size, layout in SHAPES
]


def test_sums(contest: Callable[[], object]) -> None:
    contest()
