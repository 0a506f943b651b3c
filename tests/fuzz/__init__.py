"""Random calls of every kind, compared bit for bit with plain Python and with NumPy.

``python -m tests.fuzz --cases 1000000 --seed 1`` runs for minutes; ``--seed S --only N`` runs one case again. Each case
draws a function, its arguments, where they lie in memory, and the thresholds between the package's paths. What it must
give is worked out on copies. `elementwise` and `fused` are the two kinds of cases.
"""

from .cases import Wrong
from .runs import WAYS, counted, draw, run

__all__ = ["WAYS", "Wrong", "counted", "draw", "run"]
