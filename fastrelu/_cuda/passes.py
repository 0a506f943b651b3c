"""Calls on device arrays of functions that do more in a pass over memory than an operation: what they have in common.

A `Pass` is one such call, as `fastrelu._call.single_pass.Pass` is one on host arrays: making it checks all arguments,
and `run` allocates and launches. Each family of functions is a kind of it.
"""

from typing import Any

import numpy as np

from .._arrays import classify
from .._call.errors import misfit
from .._call.single_pass import Arguments, check_out, shared
from . import libraries
from .device_call import DeviceCall
from .view import View, touches


class Pass(DeviceCall):
    """One call; `operands` are the inputs that the kernel computes with."""

    def __init__(self, name: str, inputs: Arguments, outputs: Arguments, **options: Any) -> None:
        first = next(iter(inputs))
        super().__init__(name, inputs, outputs)
        self.options = options
        if libraries.library_of(inputs[first]) is None:
            kind = classify.type_name(inputs[first])
            raise TypeError(f"{name}: {first} is a {kind}; beside arrays in GPU memory it must be one too")
        self.loop = self.loop_dtype(self.row.operands_of_ufunc(self.inputs), None, {})
        self.operands = [self._checked(each.name) for each in self.row.operands if each.kind != "bitmask"]
        self.check()

    def _checked(self, argument: str) -> Any:
        value = self.inputs[argument]
        if not isinstance(value, View) or value.shape == self.shape:
            return value
        try:
            if np.broadcast_shapes(value.shape, self.shape) == self.shape:
                return value
        except ValueError:
            pass
        raise misfit(self.name, argument, value.shape, self.shape)

    def check(self) -> None:
        """Raise what the arguments deserve."""
        if "out" in self.outputs and self.row.writes_result:
            check_out(self.name, self.outputs["out"], self.shape, self.loop)
        self.check_aligned()
        self.check_writable()

    def check_apart(self, argument: str) -> None:
        """Raise ValueError if an output shares memory with an input or with `out`."""
        others = [*self.views, *(view for key, view in self.outputs.items() if key == "out" != argument)]
        if any(touches(self.outputs[argument], other) for other in others):
            raise shared(self.name, argument)

    def run(self) -> Any:
        """Do it, and return what the caller gets."""
        raise NotImplementedError

    def result(self) -> View:
        """Return where the element-wise result is, laid out like the data."""
        return self.memory("out", self.shape, self.loop, self.views[:1])
