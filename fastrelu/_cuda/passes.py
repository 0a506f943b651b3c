"""Calls on device arrays of functions that do more in a pass over memory than an operation: what they have in common.

A `Pass` is one such call, as `fastrelu._fused.Pass` is one on host arrays: making it checks all arguments, and `run`
allocates and launches. Each family of functions is a kind of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays import classify
from .._call.errors import misfit
from .._call.single_pass import Arguments, check_out, shared
from .._operations import ROWS
from . import dtypes, libraries
from .arguments import check_aligned, check_writable, in_order, new, operand, place, the_library, touches
from .view import View


class Pass:
    """One call: `inputs` and `outputs` are views, or numbers; `operands` are the inputs that the operation takes."""

    def __init__(self, name: str, inputs: Arguments, outputs: Arguments, **options: Any) -> None:
        self.name, self.given, self.options = name, {**inputs, **outputs}, options
        self.library = the_library(name, tuple(self.given), tuple(self.given.values()))
        row = ROWS[name]
        first = row.names[0]
        if libraries.library_of(inputs[first]) is None:
            kind = classify.type_name(inputs[first])
            raise TypeError(f"{name}: {first} is a {kind}; beside arrays in GPU memory it must be one too")
        self.inputs = {argument: operand(name, argument, value, self.library) for argument, value in inputs.items()}
        self.outputs: dict[str, View] = {
            argument: self.library.view(name, argument, value, write=True)
            for argument, value in outputs.items()
            if value is not None
        }
        self._new: dict[str, Any] = {}
        self.data: View = self.inputs[first]
        self.shape = self.data.shape
        self.views = [value for value in self.inputs.values() if isinstance(value, View)]
        # the stream of `out` comes first, as for operations
        written = sorted(self.outputs, key=lambda argument: argument != "out")
        streams = place(name, [*(self.outputs[argument] for argument in written), *self.views])
        self.device, self.stream, self.others = streams
        values = row.operands_of_ufunc(self.inputs)
        kinds = [value.dtype if isinstance(value, (View, np.generic)) else type(value) for value in values]
        self.loop = dtypes.loop_dtype(row.like, kinds, None, {})
        self.operands = [self._checked(each.name) for each in row.operands if each.kind != "bitmask"]
        self.check()

    def _checked(self, argument: str) -> Any:
        value = self.inputs[argument]
        if isinstance(value, View):
            check_aligned(self.name, argument, value)
            try:
                fits = np.broadcast_shapes(value.shape, self.shape) == self.shape
            except ValueError:
                fits = False
            if not fits:
                raise misfit(self.name, argument, value.shape, self.shape)
        return value

    def writes(self) -> bool:
        """Say whether `out` is the function's element-wise result."""
        return True

    def idle(self) -> bool:
        """Say whether there is nothing to write."""
        return 0 in self.shape

    def check(self) -> None:
        """Raise what the arguments deserve."""
        if "out" in self.outputs and self.writes():
            check_out(self.name, self.outputs["out"], self.shape, self.loop)
        for argument, view in self.outputs.items():
            check_aligned(self.name, argument, view)
            check_writable(self.name, view)

    def check_apart(self, argument: str) -> None:
        """Raise ValueError if an output shares memory with an input or with `out`."""
        others = [*self.views, *(view for key, view in self.outputs.items() if key == "out" != argument)]
        if any(touches(self.outputs[argument], other) for other in others):
            raise shared(self.name, argument)

    def run(self) -> Any:
        """Do it, and return what the caller gets."""
        raise NotImplementedError

    def memory(self, argument: str, shape: tuple[int, ...], dtype: np.dtype) -> View:
        """Return where an output is: what was given, or else new, laid out like the data where it has its shape."""
        if argument not in self.outputs:
            order = libraries.order_of([self.data]) if shape == self.shape else "C"
            found = new(self.name, self.library, shape, dtype, order, self.data)
            self._new[argument], self.outputs[argument] = found
        return self.outputs[argument]

    def launch(self, work: Callable[[], None]) -> None:
        """Launch, in order with the other streams that the arrays are used on, if there is something to write."""
        if not self.idle():
            in_order(self.stream, self.others, self.device, work)

    def leave(self, argument: str) -> Any:
        """Return what the caller gets for an output: what was given, or the new array."""
        result = self._new.get(argument, self.given[argument])
        if not self.idle() and 0 not in self.outputs[argument].shape:
            result = self.library.finish(result, self.outputs[argument], self.views)
        if argument not in self._new:
            self.library.written(result)
        return result
