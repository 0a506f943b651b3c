"""A call on arrays in GPU memory: what they must be to be arguments of one call, its new arrays, and whom it waits for.

All checks come before anything is allocated or run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import classify
from .._operations import ROWS
from .._runtime.dtypes import supported
from . import cuda_driver, dtypes, libraries
from .view import View, order_of


class DeviceCall:
    """One call: `inputs` are views, or numbers, and `outputs` views of what was given or is new."""

    def __init__(self, name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self.name, self.row, self.given = name, ROWS[name], {**inputs, **outputs}
        self.library = _the_library(name, inputs, outputs)
        self.inputs = {argument: _operand(name, argument, value, self.library) for argument, value in inputs.items()}
        self.outputs: dict[str, View] = {
            argument: self.library.view(name, argument, value, write=True)
            for argument, value in outputs.items()
            if value is not None
        }
        self._new: dict[str, Any] = {}
        self.views = [value for value in self.inputs.values() if isinstance(value, View)]
        self.device, self.stream, self._others = self._place()
        #: The shape of the element-wise result, or of the data.
        self.shape: tuple[int, ...] = self.views[0].shape if self.views else ()

    def _place(self) -> tuple[int, int, list[int]]:
        """Return device and stream of the call, and the other streams that its arrays are used on."""
        views = [*self.outputs.values(), *self.views]
        if "out" in self.outputs:  # its stream comes first
            views.insert(0, self.outputs["out"])
        first = views[0]
        for view in views:
            if view.device != first.device and view.pointer:
                raise TypeError(
                    f"{self.name}: the arrays are on GPU {first.device} and GPU {view.device}; copy one of them"
                )
        streams = dict.fromkeys(view.stream for view in views)
        stream = next((each for each in streams if each), 0)
        return first.device, stream, [each for each in streams if each != stream]

    def loop_dtype(self, operands: Sequence[Any], out: View | None, kwargs: Mapping[str, Any]) -> np.dtype:
        """Return the type in which NumPy would compute an operation; raise TypeError where it would."""
        kinds = [value.dtype if isinstance(value, (View, np.generic)) else type(value) for value in operands]
        return dtypes.loop_dtype(self.row.like, kinds, None if out is None else out.dtype, kwargs)

    def check_aligned(self) -> None:
        """Raise for arrays that kernels cannot read or write."""
        for argument, view in {**self.inputs, **self.outputs}.items():
            if not isinstance(view, View):
                continue
            size = view.dtype.itemsize
            if dtypes.code_of(view.dtype) is None:
                libraries.refuse_dtype(self.name, argument, f"dtype {view.dtype}")
            if view.pointer % size or any(step % size for step in view.strides):
                raise ValueError(
                    f"{self.name}: {argument} is not aligned to its {size} bytes per element, as GPUs require; copy it"
                )

    def check_writable(self) -> None:
        """Raise ValueError for outputs that cannot be written to, or only in an order."""
        for view in self.outputs.values():
            if view.readonly:
                raise ValueError(f"{self.name}: the output array is read-only")
            if not classify.disjoint(view):
                raise ValueError(
                    f"{self.name}: several elements of the output array are one in memory; write to a copy"
                )

    def idle(self) -> bool:
        """Say whether there is nothing to write."""
        return 0 in self.shape

    def memory(
        self, argument: str, shape: tuple[int, ...], dtype: np.dtype, like: Sequence[View] = (), order: str = "K"
    ) -> View:
        """Return where an output is: what was given, or else new, laid out like some data where `order` leaves that."""
        if argument not in self.outputs:
            if order in ("K", "A"):
                order = order_of(like) if like else "C"
            owner = like[0] if like else self.views[0]
            self._new[argument], self.outputs[argument] = self.new(shape, dtype, order, owner)
        return self.outputs[argument]

    def new(self, shape: tuple[int, ...], dtype: np.dtype, order: str, like: View) -> tuple[Any, View]:
        """Return a new array on the GPU of `like`, and its view."""
        array = self.library.empty(shape, dtype, order, like)
        # Numba allocates where an array's own library is unknown
        return array, (libraries.library_of(array) or self.library).view_of_new(array, self.name)

    def launch(self, work: Callable[[], None]) -> None:
        """Launch, if there is something to write.

        That is after what other streams have still to do to our arrays, and before what they will.
        """
        if self.idle():
            return
        for other in self._others:
            cuda_driver.get().wait(self.stream, other, self.device)
        work()
        for other in self._others:  # whatever comes next on the other streams may overwrite what we read
            cuda_driver.get().wait(other, self.stream, self.device)

    def leave(self, argument: str) -> Any:
        """Return what the caller gets for an output: what was given, or the new array."""
        result = self._new.get(argument, self.given[argument])
        if not self.idle() and 0 not in self.outputs[argument].shape:
            result = self.library.finish(result, self.outputs[argument], self.views)
        if argument not in self._new:
            self.library.written(result)
        return result


def _the_library(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> libraries.Library:
    """Return the one library of all arrays; raise TypeError for a mix."""
    given = {**inputs, **outputs}
    found = {argument: libraries.library_of(value) for argument, value in given.items()}
    (first, library), *rest = ((argument, each) for argument, each in found.items() if each is not None)
    for argument, other in rest:
        if other is not library:
            raise TypeError(
                f"{name}: {first} is a {library.label} and {argument} is a {other.label}; "
                "convert one of them first, for instance with from_dlpack, which copies nothing"
            )
    for argument, value in given.items():
        number = argument in inputs and isinstance(value, (*classify.NUMBERS, np.generic))
        if value is not None and not number and found[argument] is None:
            raise TypeError(
                f"{name}: {first} is a {library.label} in GPU memory, but {argument} is a "
                f"{classify.type_name(value)} in host memory; copy one of them"
            )
    return library


def _operand(name: str, argument: str, value: Any, library: libraries.Library) -> Any:
    """Return an operand's view, or the number itself."""
    if isinstance(value, np.generic):
        if not supported(value.dtype):
            libraries.refuse_dtype(name, argument, f"dtype {value.dtype}")
        return value
    if isinstance(value, complex):
        libraries.refuse_dtype(name, argument, "type complex")
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, (int, float)):
        # a subclass of float or int counts as one, as in NumPy
        return value if type(value) in (int, float) else (float if isinstance(value, float) else int)(value)
    view = library.view(name, argument, value, write=False)
    if dtypes.code_of(view.dtype) is None:
        libraries.refuse_dtype(name, argument, f"dtype {view.dtype}")
    return view
