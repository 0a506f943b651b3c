"""The physical limit: C written by hand, compiled for this processor while the benchmark starts."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).parents[2] / "bench" / "limit.c"
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-trapping-math", "-fno-math-errno", "-shared", "-fPIC")


def missing() -> str | None:
    """Return why the hand-written loops cannot be had here, or None."""
    if not SOURCE.is_file():
        return "bench/limit.c is in the source tree, not in the wheel"
    if compiler() is None:
        return "no C compiler (cc, gcc or clang) is on the PATH"
    try:
        library()
    except (OSError, subprocess.CalledProcessError) as error:
        lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        return f"bench/limit.c does not compile here: {lines[0] if lines else error}"
    return None


def compiler() -> str | None:
    """Return the C compiler's path."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


@functools.cache
def library() -> ctypes.CDLL:
    """Compile and load the C file."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "limit.so"
        command = [str(compiler()), *FLAGS, str(SOURCE), "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return ctypes.CDLL(str(path))


def function(name: str, dtype: str) -> Any:
    """Return ``name(x, grad, out, n)`` for a type."""
    pointer = ctypes.c_void_p
    address = getattr(library(), f"{name}_{dtype}")
    address.argtypes = (pointer, pointer, pointer, ctypes.c_ssize_t)
    address.restype = None
    return address


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Return where an array's data are; C loops know contiguous native arrays alone."""
    if not (array.flags.c_contiguous or array.flags.f_contiguous) or not array.dtype.isnative:
        raise ValueError("the C loops take contiguous native arrays only")
    return ctypes.c_void_p(array.ctypes.data)


def set_threads(count: int) -> None:
    """Use this many threads."""
    library().limit_set_threads(count)
