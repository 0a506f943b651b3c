"""Calls of the functions that do more in a pass over memory than a ufunc can, wherever their arguments are."""

from typing import Any

from .._arrays import classify, host_libraries
from .._operations import ROWS
from .._runtime import layers, targets
from .._runtime.ufunc_objects import hidden
from . import job_cache
from .bitmask import BitmaskPass
from .dispatch import Explanation, any_on_gpu, as_floats
from .executors import executor
from .single_pass import Arguments, Pass
from .sums import SumPass


def _pass_of(name: str) -> type[Pass]:
    """Return the kind of a call on arrays in host memory."""
    return BitmaskPass if ROWS[name].has_bitmask else SumPass


@hidden
def call(name: str, inputs: Arguments, outputs: Arguments, target: str | None, **options: Any) -> Any:
    """Run a function wherever its arguments are."""
    inputs = dict(zip(inputs, as_floats(name, inputs.values()), strict=True))
    target = targets.chosen(target, name)
    key = None if options else job_cache.key(name, inputs.values(), outputs.values(), target)
    if key is not None and (results := job_cache.run(key, inputs.values(), outputs.values())) is not None:
        return tuple(reversed(results)) if len(results) > 1 else results[0]
    elsewhere = _elsewhere(name, {**inputs, **outputs}, target)
    if elsewhere == "dask":
        return executor("dask").call(name, inputs, outputs, target, **options)
    if elsewhere == "cuda":
        return executor("cuda").fused(name, inputs, outputs, target, **options)
    if target == "parallel":
        layers.require_team()
    return _pass_of(name)(name, inputs, outputs, target, **options).run(key)


@hidden
def explain(name: str, inputs: Arguments, outputs: Arguments, target: str | None, **options: Any) -> Explanation:
    """Say where `call` would run, or raise what it would."""
    inputs = dict(zip(inputs, as_floats(name, inputs.values()), strict=True))
    target = targets.chosen(target, name)
    elsewhere = _elsewhere(name, {**inputs, **outputs}, target)
    if elsewhere == "dask":
        return Explanation(
            "serial", "plain", {"parallel": "Dask runs each block as a call of its own, when it computes"}
        )
    if elsewhere == "cuda":
        _, refused = executor("cuda").describe_fused(name, inputs, outputs, target, **options)
        return Explanation("cuda", "plain", refused)
    return _pass_of(name)(name, inputs, outputs, target, **options).explain()


def _elsewhere(name: str, given: Arguments, target: str | None) -> str | None:
    """Return "dask" or "cuda" for a call that does not run on arrays in host memory, else None."""
    values = list(given.values())
    host_libraries.libraries_of(name, given)  # a tracer of JAX would not even say where it is
    if any(type(value).__module__.startswith("dask.array") for value in values):
        return "dask"
    return "cuda" if target == "cuda" or any_on_gpu(values, {classify.kind(value) for value in values}) else None
