"""ReLU, Leaky ReLU, their derivatives and their backward passes for NumPy arrays, at the speed of memory."""

from . import ufuncs
from ._api import bitmask as _bitmask
from ._api import elementwise as _elementwise
from ._api import sums as _sums
from ._api.bitmask import *
from ._api.configure import configure, release_memory
from ._api.elementwise import *
from ._api.explain import explain
from ._api.show_config import show_config
from ._api.sums import *
from ._api.warmup import warmup
from ._call.executors import provide as _provide
from ._dead_units import DeadUnits
from ._versions import __version__

__all__ = [
    "DeadUnits",
    "__version__",
    "configure",
    "explain",
    "release_memory",
    "show_config",
    "ufuncs",
    "warmup",
]
__all__ += _elementwise.__all__
__all__ += _bitmask.__all__
__all__ += _sums.__all__


def _load_cuda() -> object:
    from ._cuda import executor

    return executor


def _load_dask() -> object:
    from . import _dask

    return _dask


_provide("cuda", _load_cuda)
_provide("dask", _load_dask)
