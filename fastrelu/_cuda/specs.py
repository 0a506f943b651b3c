"""What a kernel is compiled for: the part that all kernels have, and the kernels that are there."""

import functools
from dataclasses import dataclass
from typing import Any

from .dtypes import numbers
from .numba_cuda import cuda


@dataclass(frozen=True)
class Spec:
    """What a kernel is compiled for."""

    #: The function.
    name: str
    #: Type character of the operation's loop, in which it computes.
    loop: str
    #: Per operand: "array", "scalar" (by value), or what else the kind of kernel knows.
    roles: tuple[str, ...]
    #: Per operand: type character in memory; "" for scalars.
    stored: tuple[str, ...]
    #: Type character of the element-wise result; "" if there is none.
    out: str

    def of_role(self, role: str) -> tuple[str, ...]:
        """Return the types of the operands that have a role."""
        return tuple(code for code, each in zip(self.stored, self.roles, strict=True) if each == role)

    def order(self) -> tuple[tuple[str, int], ...]:
        """Return where the formula finds each operand: its role, and its place among those of that role."""
        return tuple((role, self.roles[:k].count(role)) for k, role in enumerate(self.roles))

    def scalars(self) -> Any:
        """Return the Numba type of the operands by value."""
        return numbers(self.loop, len(self.of_role("scalar")))

    def argument_types(self) -> tuple[Any, ...]:
        """Return the Numba types of the kernel's arguments."""
        raise NotImplementedError

    def python_kernel(self) -> Any:
        """Return the kernel as a Python function, for `cuda.jit` or for `cuda.compile`."""
        raise NotImplementedError


@functools.cache
def kernel(spec: Spec) -> Any:
    """Return a kernel as Numba's dispatcher, or the simulator's."""
    return cuda.jit(spec.python_kernel())
