"""Versions, processor, caches, threads and thresholds, for reports."""

import platform
import sys

import numpy as np

from .._runtime import allocation, layers, tuning
from .._runtime.numba_import import import_numba
from .._versions import __version__


def config_lines() -> list[tuple[str, str]]:
    """Return what `show_config` prints, as pairs."""
    import llvmlite

    numba = import_numba()
    from numba.core.registry import cpu_target

    from .._cuda.executor import status_line
    from .._runtime import code_cache

    features = cpu_target.target_context.codegen().magic_tuple()
    have = [
        name for name in ("sse2", "avx2", "f16c", "avx512f", "neon", "fp16") if f"+{name}" in features[2].split(",")
    ]
    reason = layers.unavailable()
    settings = tuning.settings
    return [
        ("fastrelu", __version__),
        ("python", f"{platform.python_version()} ({sys.platform} {platform.machine()})"),
        ("numpy", np.__version__),
        ("numba", f"{numba.__version__} (llvmlite {llvmlite.__version__})"),
        ("processor", f"{features[1]}: {', '.join(have) or 'no known vector features'}"),
        ("caches", ", ".join(f"{name} {size >> 10:,} KiB" for name, size in tuning.caches()) or "unknown"),
        ("threads", str(layers.thread_count())),
        ("threading layer", f"{layers.layer()}" + (f"; not used: {reason}" if reason else "")),
        ("target", str(settings.target or "automatic")),
        ("parallel_min_bytes", f"{settings.parallel_min_bytes:,}"),
        ("streaming_min_bytes", f"{settings.streaming_min_bytes:,}"),
        ("recycle_bytes", f"{settings.recycle_bytes:,}; {allocation.describe()}"),
        ("compiled code", code_cache.describe()),
        ("gpu", status_line()),
    ]


def show_config() -> None:
    """Print versions, processor features, cache sizes, threads, threading layer, thresholds and GPUs.

    Examples
    --------
    >>> import fastrelu
    >>> fastrelu.show_config()  # doctest: +ELLIPSIS
    fastrelu ...
    """
    for label, value in config_lines():
        print(f"{label:20} {value}")
