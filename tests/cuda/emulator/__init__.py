"""A CUDA driver for GPUs that are not there: all that is above it, Numba's CUDA target and ours, is as with a GPU.

``driver.c`` is the driver; ``ptx.py`` makes its kernels, from the PTX that would go to a GPU. Against the simulator of
Numba, which runs a kernel's Python, it shows that the compiled kernels are right, that the driver is called as it
wants to be, and that work on streams is in order. It says nothing about speed.
"""

import atexit
import ctypes
import shutil
import subprocess
import tempfile
import traceback
from pathlib import Path
from typing import Any

from . import ptx

FOLDER = Path(__file__).parent
#: The name under which everyone looks for the driver; the dynamic loader finds what is loaded by this name.
SONAME = "libcuda.so.1"
_kept: list[Any] = []


class _Kernel(ctypes.Structure):
    _fields_ = (("run", ctypes.c_void_p), ("count", ctypes.c_int), ("sizes", ctypes.c_int * 128))


_Compile = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Kernel))


def install(devices: int = 1, memory: int = 3 << 30) -> ctypes.CDLL:
    """Make this process believe in some GPUs, each with so many bytes; before anything looks for the driver."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / SONAME
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{SONAME}"]
    subprocess.run([*command, str(FOLDER / "driver.c"), "-o", str(path), "-ldl", "-lpthread"], check=True)
    driver = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    check = ctypes.cast(driver.emulator_check, ctypes.c_void_p).value or 0

    def compile_kernel(image: bytes, name: bytes, into: Any) -> int:
        try:
            made = ptx.compile_kernel(image.decode(), name.decode(), check)
            into[0].run, into[0].count = made.address, len(made.sizes)
            into[0].sizes[: len(made.sizes)] = made.sizes
        except Exception:
            traceback.print_exc()
            return 1
        _kept.append(made.engine)
        return 0

    callback = _Compile(compile_kernel)
    _kept.append(callback)
    driver.emulator_set(devices, ctypes.c_size_t(memory), callback)
    _link_to_ptx()
    return driver


def _link_to_ptx() -> None:
    """Have Numba link to PTX, which a driver takes as well, instead of to instructions of one GPU."""
    import fastrelu._cuda.numba_cuda  # noqa: F401 before Numba's own, which NumPy 2.5 would stop

    from cuda.core import ObjectCode  # isort: skip
    from numba.cuda.cudadrv import driver  # isort: skip

    def complete(linker: Any) -> Any:
        if linker.lto:
            return ObjectCode.from_ptx(linker.get_linked_ptx())
        (code,) = linker._object_codes
        linker._info_log = ""
        return code

    driver._Linker.complete = complete
    driver._Linker.info_log = property(lambda linker: linker._info_log)
