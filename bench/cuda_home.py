"""Imported before Numba's CUDA target: names the toolkit beside ``nvcc``, where nothing else says where NVVM is.

numba-cuda compiles by libnvvm, which it finds in the wheel ``nvidia-nvvm`` or under ``CUDA_HOME``.
"""

import importlib.util
import os
import shutil
from pathlib import Path


def _has_wheel() -> bool:
    try:
        spec = importlib.util.find_spec("nvidia")
    except ImportError:
        spec = None
    folders = list(spec.submodule_search_locations or []) if spec else []
    return any(any(Path(folder).rglob("libnvvm.so*")) for folder in folders)


if "CUDA_HOME" not in os.environ and not _has_wheel():
    home = Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").resolve().parents[1]
    if (home / "nvvm").is_dir():
        os.environ["CUDA_HOME"] = str(home)
