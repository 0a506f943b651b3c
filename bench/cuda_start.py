"""Imported first by the scripts for GPUs: finds the project where it is not installed, and the emulated GPU if asked.

``FASTRELU_EMULATED_GPUS=1`` makes a script run on the tests' emulated GPU, to see that it works; its times say nothing.
"""

import os
import sys
from pathlib import Path

import cuda_home  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

EMULATED = int(os.environ.get("FASTRELU_EMULATED_GPUS", "0")) if (ROOT / "tests" / "cuda" / "emulator").is_dir() else 0
if EMULATED:
    from tests.cuda import emulator

    emulator.install(EMULATED)
