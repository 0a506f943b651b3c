"""Which NumPy and Numba this version leans on, said where one of them no longer has what we use, and ours."""

import contextlib
import os
import time
from collections.abc import Iterator

__version__ = "0.1.0"

SUPPORTED = "numpy >= 2.0 and numba >= 0.60; tested with numpy 2.0 to 2.5 and numba 0.60 to 0.68"


@contextlib.contextmanager
def needed(package: str) -> Iterator[None]:
    """Turn an import that fails inside into one error that names the supported versions."""
    try:
        yield
    except (ImportError, AttributeError) as error:
        from importlib.metadata import PackageNotFoundError, version  # takes 10 ms, a sixth of our import

        try:
            found = f"{package} {version(package)} is installed"
        except PackageNotFoundError:
            found = f"{package} is not installed"
        raise ImportError(f"fastrelu supports {SUPPORTED}; {found}: {error}") from error


if "__compiled__" in globals():  # by Nuitka. Else the first call fails at best, and returns memory as it was at worst
    raise ImportError(
        "Numba compiles the bytecode of fastrelu, and Nuitka has left none: pass it "
        "--noinclude-custom-mode=fastrelu:bytecode, and the same for numba"
    )


_imported_at = time.time_ns()


def package_changed() -> bool:
    """Return whether our files are others than when we were imported: those of a version that was installed since.

    By the time that the system notes for a file itself: what an archive says of its files may be any time. The folder's
    own time would do, were it not for the `__pycache__` that comes into it.
    """
    try:
        times = [
            os.stat(os.path.join(folder, name)).st_ctime_ns
            for folder, _, names in os.walk(os.path.dirname(__file__))
            if os.path.basename(folder) != "__pycache__"
            for name in names
            if name.endswith((".py", ".pyc"))
        ]
    except OSError:  # no folder: an archive, or a frozen application
        return False
    return any(_imported_at < changed <= time.time_ns() for changed in times)  # later ones are of a clock gone wrong
