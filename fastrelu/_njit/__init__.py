"""The public functions inside users' compiled code: what Numba types and compiles for ``fastrelu.relu(x)``.

Numba calls `init` through the ``numba_extensions`` entry point before it compiles anything, so that importing
fastrelu need not import Numba. The mathematics is that of `_formulas`, compiled for the types of each call; the
types are those that NumPy finds for the ufunc. What is here is binding, checking, and the loops over arrays.

`numba.extending.overload` would not do: it can neither refuse a positional ``out``, as Python does, nor say in an
error that ``where`` is unsupported. A template of its own binds each call to the public signature itself.
"""

import functools
import sys

from numba.core import errors, types
from numba.core.typing import Context, signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin

from .._operations import FUNCTIONS
from . import calls, signatures


def _register(name, function):
    class PublicFunction(AbstractTemplate):
        key = function

        def generic(self, args, kws):
            bound = signatures.bind(name, args, kws)
            result = signatures.plan(name, bound).result
            if not isinstance(self.context, Context) and any(isinstance(kind, types.Array) for kind in bound.values()):
                if FUNCTIONS[name].has_bitmask:
                    raise errors.TypingError(f"{name} is for arrays, which a CUDA kernel cannot give it")
                raise errors.TypingError(f"{name}: in a CUDA kernel each thread gives it numbers, as x[i], not arrays")
            return signature(result, *bound.values()).replace(pysig=signatures.flat(name))

    PublicFunction.__name__ = PublicFunction.__qualname__ = name
    infer_global(function, types.Function(PublicFunction))
    lower_builtin(function, types.VarArg(types.Any))(functools.partial(calls.emit, name))


@functools.cache
def init() -> None:
    """Tell Numba about the public functions; called by Numba itself, and harmless when called again."""
    for name, function in signatures.PUBLIC.items():
        _register(name, function)
    if "numba.cuda" in sys.modules:
        # imports what numba-cuda itself would beside NumPy 2.5 fail to, before a kernel of the user needs it
        from .._cuda import numba_cuda  # noqa: F401
