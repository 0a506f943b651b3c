"""The CUDA target. Imported on first use: nothing on the way of a CPU call touches it.

`numba_cuda` holds the import of Numba's CUDA target, `access` what a kernel does to memory, `kernels` the kernels,
`launcher` how they are launched, `libraries` whose arrays we take, `arguments` what we ask of those, `elementwise` one
call on them, `launch_cache` what was planned before, `quick` a short way for the commonest, `staging` host arrays,
`cuda_driver` and `status` what is there to run on. `passes` is a call of a function that does more in a pass than an
operation does; `bitmask` and `bitmask_kernels` are one kind of these, `sums` and `sum_kernels` another.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._operations import SUMMED
from .._runtime.numba_import import import_numba
from .status import require, status_line, unavailable

__all__ = [
    "NOT_QUICK", "call", "describe", "describe_fused", "fused", "is_device_array", "quick_for", "require",
    "status_line", "unavailable",
]  # fmt: skip

#: What a function from `quick_for` returns for a call that must go through `call`; it has then done nothing.
NOT_QUICK = object()
_CUDA_DEVICES = (2, 13)  # DLPack's numbers for memory of NVIDIA GPUs: plain, and managed


def is_device_array(value: Any) -> bool:
    """Say whether a value is an array in GPU memory, without importing anything."""
    array: Any
    if hasattr(value, "__cuda_ndarray__"):
        return True
    for module, name in (("torch", "Tensor"), ("jax", "Array")):
        kind, array = getattr(sys.modules.get(module), name, None), value
        if isinstance(kind, type) and isinstance(value, kind):
            if module == "torch":
                return bool(array.is_cuda)
            return all(device.platform in ("gpu", "cuda") for device in array.devices())
    # CuPy's arrays have both; an array that names its DLPack device may well be in host memory
    if hasattr(value, "__cuda_array_interface__"):
        return True
    if not hasattr(value, "__dlpack_device__"):
        return False
    try:
        kind, _ = value.__dlpack_device__()
        return int(kind) in _CUDA_DEVICES
    except (TypeError, ValueError):  # not what DLPack says: no array of ours, and refused as such by name
        return False


def quick_for(value: Any) -> Callable[[str, Sequence[Any], Any], Any] | None:
    """Return a function ``(name, operands, out)`` that serves plain calls on arrays of this type with little Python.

    None for libraries without such a way. The CUDA target must be available. The function returns `NOT_QUICK` for
    calls that it leaves to `call`; an array of the same type in host memory, as a torch tensor may be, is one.
    """
    import_numba()
    from . import quick

    ways = quick.ways_for(value)
    return None if ways is None else ways.attempt


def call(name: str, operands: Sequence[Any], out: Any, target: str | None, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the GPU: on device arrays where they are, on host arrays by way of copies.

    Parameters
    ----------
    name : str
        The operation.
    operands : sequence
        All of its operands, parameters included.
    out : array or None
        Where to put the result; for an in-place twin, the first operand.
    target : {None, "serial", "parallel", "cuda"}
        What the caller asked for. Host arrays alone need "cuda" here.
    kwargs : mapping
        Keyword arguments of NumPy's ufuncs.
    """
    require()
    import_numba()
    from . import elementwise, staging

    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    if any(is_device_array(value) for value in (*operands, out, kwargs.get("where"))):
        _check_target(name, target)
        return elementwise.call(name, operands, out, kwargs)
    if target != "cuda":
        raise TypeError(f"{name}: none of the arrays is in GPU memory")
    return staging.call(name, operands, out, kwargs)


def fused(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any
) -> Any:  # fmt: skip
    """Run a function that does more than an operation on the GPU, as `call` runs operations.

    Parameters
    ----------
    name : str
        The function.
    inputs, outputs : mapping
        Its arguments by name, the data first; an output is None where a new array is wanted.
    target : {None, "serial", "parallel", "cuda"}
        What the caller asked for.
    options
        What the function takes besides.
    """
    require()
    return _fused_pass(name, inputs, outputs, target, **options).run()


def _fused_pass(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], target: str | None, **options: Any
) -> Any:  # fmt: skip
    """Return a checked call of a function that does more than an operation."""
    import_numba()
    on_device = any(is_device_array(value) for value in (*inputs.values(), *outputs.values()))
    if on_device:
        _check_target(name, target)
    if name in SUMMED:
        from . import sums

        if not on_device:
            return sums.StagedSumPass(name, inputs, outputs, "cuda", **options)
        return sums.SumPass(name, inputs, outputs, **options)
    from . import bitmask

    if on_device:
        return bitmask.MaskPass(name, inputs, outputs)
    return bitmask.StagedMaskPass(name, inputs, outputs, "cuda")


def _check_target(name: str, target: str | None) -> None:
    if target not in (None, "cuda"):
        raise TypeError(f"{name}: the data is in GPU memory, where target={target!r} does not run; copy it to the host")


def describe(name: str, operands: Sequence[Any], out: Any, target: str | None) -> tuple[str, dict[str, str]]:
    """Return what `explain` says of a call on the GPU: its path, and why no other target; raise what `call` would.

    Runs, allocates and compiles nothing.
    """
    require()
    if any(is_device_array(value) for value in (*operands, out)):
        _check_target(name, target)
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
