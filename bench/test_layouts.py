"""Arrays that NumPy cuts into buffers: strided, transposed, a slope per column, converted."""

from collections.abc import Callable

from fastrelu._bench.cases import LAYOUTS, Case

SIZE = 4_000_000
CASES = [
    Case("leaky_relu" if layout == "slope per channel" else "relu", "out", "float32", SIZE, layout)
    for layout in LAYOUTS
    if layout != "contiguous"
]
CASES += [Case("leaky_relu", "out", "int8", SIZE), Case("relu", "out", "int8", SIZE)]


def test_layouts(contest: Callable[[], object]) -> None:
    contest()
