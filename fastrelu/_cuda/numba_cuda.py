"""The one place that imports Numba's CUDA target: moving to its successor, numba-cuda-mlir, is one line here.

Code that Numba compiles says ``cuda.threadIdx`` and means this name, which the simulator replaces while a kernel runs.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba.core import config
from numba.core import types as numba_types


@contextlib.contextmanager
def _row_stack() -> Iterator[None]:
    """Have ``numpy.row_stack``, gone from NumPy 2.5, while numba-cuda up to 0.30 is imported, which asks for it."""
    namespace: dict[str, Any] = vars(np)
    with warnings.catch_warnings():
        # of what the import meets in NumPy and cuda-core; none of it is the caller's to mend
        warnings.simplefilter("ignore", DeprecationWarning)
        gone = not hasattr(np, "row_stack")
        if gone:
            namespace["row_stack"] = np.vstack
        try:
            yield
        finally:
            if gone:
                del namespace["row_stack"]


with _row_stack():
    from numba import cuda

    if not config.ENABLE_CUDASIM:
        # The module that asks is otherwise imported when the first kernel is compiled. The target
        # inside Numba itself, which is used where numba-cuda is not installed, has no module of this name.
        with contextlib.suppress(ModuleNotFoundError):
            import numba.cuda.np.arrayobj  # noqa: F401

#: True where ``NUMBA_ENABLE_CUDASIM=1`` was set before Numba was imported: kernels run as Python, on host memory.
SIMULATED = bool(config.ENABLE_CUDASIM)

#: Numba's types, as one name that static checkers let pass.
types: Any = numba_types

__all__ = ["SIMULATED", "cuda", "stream_at", "types"]


def stream_at(address: int) -> Any:
    """Return Numba's object for a stream, of which the simulator has none."""
    return 0 if SIMULATED or not address else cuda.external_stream(address)
