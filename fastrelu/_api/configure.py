"""Process-wide choices, and giving memory back."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from .._runtime import allocation, front, tuning

_UNSET: Any = type("Unset", (), {"__repr__": lambda self: "<unchanged>"})()


class _Configured:
    """What `configure` returns: in a ``with`` statement, it restores the former choices at the end."""

    def __init__(self, before: dict[str, Any]) -> None:
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _apply(self._before)


def _apply(choices: dict[str, Any]) -> None:
    for name, value in choices.items():
        setattr(tuning.settings, name, value)
    front.enabled[0] = tuning.settings.target is None
    tuning.settings.publish()
    allocation.trim(tuning.settings.recycle_bytes)


def configure(
    *,
    target: str | None = _UNSET,
    parallel_min_bytes: int = _UNSET,
    streaming_min_bytes: int = _UNSET,
    recycle_bytes: int = _UNSET,
) -> _Configured:
    """Set process-wide choices; in a ``with`` statement, until its end.

    Parameters
    ----------
    target : {None, "serial", "parallel", "cuda"}, optional
        What calls with ``target=None`` use. None is the automatic choice.
    parallel_min_bytes : int, optional
        Bytes read and written from which the automatic choice is parallel.
    streaming_min_bytes : int, optional
        Bytes of output from which stores bypass the caches.
    recycle_bytes : int, optional
        Bytes of dropped results that are kept for later calls; 0 keeps none. What is kept beyond is given back at once.

    Returns
    -------
    context manager
        Restores the former choices when a ``with`` statement ends.

    Raises
    ------
    ValueError
        A target is unknown, or a number of bytes is negative.
    TypeError
        A number of bytes is not an integer.

    Notes
    -----
    The choices are those of the process, not of a thread. The environment variables ``FASTRELU_TARGET``,
    ``FASTRELU_PARALLEL_MIN_BYTES``, ``FASTRELU_STREAMING_MIN_BYTES`` and ``FASTRELU_RECYCLE_BYTES`` set the start
    values.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> with fastrelu.configure(target="serial"):
    ...     print(fastrelu.explain(fastrelu.relu, np.zeros(10_000_000)).target)
    serial
    """
    new: dict[str, Any] = {}
    if target is not _UNSET:
        new["target"] = tuning.check_target(target, "target")
    for name, value in (
        ("parallel_min_bytes", parallel_min_bytes),
        ("streaming_min_bytes", streaming_min_bytes),
        ("recycle_bytes", recycle_bytes),
    ):
        if value is _UNSET:
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer number of bytes, not {type(value).__name__}")
        if value < 0:
            raise ValueError(f"{name} must not be negative: {value}")
        new[name] = int(value)
    before = {name: getattr(tuning.settings, name) for name in new}
    _apply(new)
    return _Configured(before)


def release_memory() -> None:
    """Give the memory of dropped results back, which is kept for later calls (`configure` says how much of it).

    Arrays that are in use keep theirs. On a GPU, arrays of JAX that were held for calls that are done are let go of.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> y = fastrelu.relu(np.ones(10_000_000))
    >>> del y  # its memory awaits the next call of that size
    >>> fastrelu.release_memory()
    """
    from .._cuda import cuda_driver

    allocation.trim()
    cuda_driver.let_go()
