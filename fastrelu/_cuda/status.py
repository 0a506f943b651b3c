"""Whether the CUDA target can run here, and if not, which part is missing and how to get it."""

import importlib.util
import os

from . import cuda_driver

#: Numba's CUDA target as its own package; the copy inside Numba itself is no longer developed.
PACKAGE = "numba_cuda"
INSTALL = 'pip install "fastrelu[cuda13]" (for CUDA 12 drivers: "fastrelu[cuda12]")'


def simulated() -> bool:
    """Say whether Numba simulates a GPU in Python, as ``NUMBA_ENABLE_CUDASIM=1`` asks."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def unavailable() -> str | None:
    """Return the reason why the CUDA target cannot run here, in one line, or None."""
    if simulated():
        return None
    driver = cuda_driver.find()
    missing = None if isinstance(driver, cuda_driver.Driver) else driver
    if importlib.util.find_spec(PACKAGE) is None:
        package = f"the package numba-cuda is not installed; {INSTALL}"
        return package if missing is None else f"{package}; and {missing}"
    return missing


def require() -> None:
    """Raise RuntimeError where the CUDA target cannot run."""
    if reason := unavailable():
        raise RuntimeError(f"target='cuda' is not available: {reason}")


def status_line() -> str:
    """Return what ``python -m fastrelu info`` says about GPUs."""
    if simulated():
        return "simulated by Numba (NUMBA_ENABLE_CUDASIM=1)"
    if reason := unavailable():
        return f"none: {reason}"
    driver = cuda_driver.get()
    names = ", ".join(driver.name(device) for device in range(driver.count()))
    return f"{names}; driver for CUDA {driver.version()}"
