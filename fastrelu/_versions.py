"""Which NumPy and Numba this version leans on, said where one of them no longer has what we use, and ours."""

import contextlib
import os
from collections.abc import Iterator

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


def _state_of_package() -> tuple[int, int, int] | None:
    """Return what tells whether the package's folder has got or lost a file. In an archive there is no folder."""
    try:
        status = os.stat(os.path.dirname(__file__))
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


_imported = _state_of_package()


def package_changed() -> bool:
    """Return whether somebody has installed another version since we were imported: files are not what runs here."""
    return _state_of_package() != _imported
