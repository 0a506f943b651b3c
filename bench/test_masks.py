"""One bit per element: forward with a mask beside the plain one, backward from the mask beside the one from x."""

from collections.abc import Callable

from fastrelu._bench.cases import MASK_MODES, MASKED, Case

SIZES = (100_000, 1_000_000, 16_000_000, 64_000_000)
CASES = [
    Case(name, mode, dtype, size)
    for name in MASKED
    for mode in MASK_MODES
    for dtype in ("float32", "float16")
    for size in SIZES
]


def test_masks(contest: Callable[[], object]) -> None:
    contest()
