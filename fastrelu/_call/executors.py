"""Who runs the calls that are not for arrays in host memory: the GPU, and Dask.

They are built on this floor, so that nothing here can name them: they are provided from above, as functions that import
them when a call is first for them.
"""

import functools
from collections.abc import Callable
from typing import Any

_loaders: dict[str, Callable[[], Any]] = globals().get("_loaders", {})  # the same after a reload


def provide(name: str, load: Callable[[], Any]) -> None:
    """Let a function, called once, return the module that runs calls for "cuda" or "dask"."""
    _loaders[name] = functools.cache(load)


def executor(name: str) -> Any:
    """Return the module that runs such calls."""
    return _loaders[name]()
