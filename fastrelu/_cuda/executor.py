"""What the floor of calls asks of the CUDA target. Numba's part of it is imported by the first call that needs it."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._operations import ROWS
from .._runtime.numba_import import import_numba
from . import cuda_driver
from .cuda_driver import simulated
from .recognise import is_device_array

#: Numba's CUDA target as its own package; the copy inside Numba itself is no longer developed.
PACKAGE = "numba_cuda"
INSTALL = 'pip install "fastrelu[cuda13]" (for CUDA 12 drivers: "fastrelu[cuda12]")'


def unavailable() -> str | None:
    """Return the reason why the CUDA target cannot run here, in one line, or None."""
    if simulated():
        return None
    driver = cuda_driver.find()
    missing = driver if isinstance(driver, str) else None
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


def quick_for(value: Any) -> Callable[[str, Sequence[Any], Any], Any] | None:
    """Return a function ``(name, operands, out)`` that serves plain calls on arrays of this type with little Python.

    None for libraries without such a way. The CUDA target must be available. The function returns None for
    calls that it leaves to `call`; an array of the same type in host memory, as a torch tensor may be, is one.
    """
    import_numba()
    from . import quick

    return quick.quick_for(value)


def call(name: str, operands: Sequence[Any], out: Any, target: str | None, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on all of its operands on the GPU: on device arrays where they are, on host arrays by copies."""
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    on_device = _on_device(name, (*operands, out, kwargs.get("where")), target)
    if not on_device and target != "cuda":
        raise TypeError(f"{name}: none of the arrays is in GPU memory")
    import_numba()
    from . import elementwise, staging

    return (elementwise if on_device else staging).call(name, operands, out, kwargs)


def fused(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any
) -> Any:  # fmt: skip
    """Run a function that does more than an operation, as `call` runs operations, on its arguments by name.

    The data comes first; an output is None where a new array is wanted. Options are what the function takes besides.
    """
    return _fused_pass(name, inputs, outputs, target, **options).run()


def _fused_pass(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any
) -> Any:  # fmt: skip
    """Return a checked call of a function that does more than an operation."""
    on_device = _on_device(name, (*inputs.values(), *outputs.values()), target)
    import_numba()
    from . import bitmask, sums

    family: Any = bitmask if ROWS[name].has_bitmask else sums
    if on_device:
        return family.OnDevice(name, inputs, outputs, **options)
    return family.Staged(name, inputs, outputs, "cuda", **options)


def describe(name: str, operands: Sequence[Any], out: Any, target: str | None) -> tuple[str, dict[str, str]]:
    """Return what `explain` says of a call on the GPU: its path, and why no other target; raise what `call` would.

    Runs, allocates and compiles nothing.
    """
    if _on_device(name, (*operands, out), target):
        far = "the data is in GPU memory"
        return "device", {"serial": far, "parallel": far, "streaming": "stores that bypass the cache are the CPU's"}
    forced = "target='cuda' is forced: the data is copied to the GPU, and the result back"
    return "host to device", {"serial": forced, "parallel": forced, "streaming": "the GPU writes the result"}


def describe_fused(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any
) -> tuple[str, dict[str, str]]:
    """Return what `describe` does, of a call of `fused`."""
    described = describe(name, [*inputs.values(), *outputs.values()], None, target)
    _fused_pass(name, inputs, outputs, target, **options)
    return described


def _on_device(name: str, values: Sequence[Any], target: str | None) -> bool:
    """Say whether data is in GPU memory; raise for a target that does not run there, and where no GPU does."""
    require()
    if not any(is_device_array(value) for value in values):
        return False
    if target not in (None, "cuda"):
        raise TypeError(f"{name}: the data is in GPU memory, where target={target!r} does not run; copy it to the host")
    return True
