"""The one place that imports Numba's CUDA target: moving to its successor, numba-cuda-mlir, is one line here.

Code that Numba compiles says ``cuda.threadIdx`` and means this name, which the simulator replaces while a kernel runs.
"""

from typing import Any

from numba import cuda
from numba.core import config
from numba.core import types as numba_types

#: True where ``NUMBA_ENABLE_CUDASIM=1`` was set before Numba was imported: kernels run as Python, on host memory.
SIMULATED = bool(config.ENABLE_CUDASIM)

#: Numba's types, as one name that static checkers let pass.
types: Any = numba_types

__all__ = ["SIMULATED", "cuda", "types"]
