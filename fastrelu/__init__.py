"""ReLU, Leaky ReLU, their derivatives and their backward passes for NumPy arrays, at the speed of memory."""

from . import ufuncs
from ._api.bitmask import (
    leaky_relu_backward_from_mask,
    leaky_relu_backward_from_mask_,
    leaky_relu_with_mask,
    leaky_relu_with_mask_,
    relu_backward_from_mask,
    relu_backward_from_mask_,
    relu_with_mask,
    relu_with_mask_,
)
from ._api.configure import configure, release_memory
from ._api.elementwise import (
    leaky_relu,
    leaky_relu_,
    leaky_relu_backward,
    leaky_relu_backward_,
    leaky_relu_grad,
    leaky_relu_grad_,
    relu,
    relu_,
    relu_backward,
    relu_backward_,
    relu_grad,
    relu_grad_,
)
from ._api.explain import explain
from ._api.show_config import show_config
from ._api.sums import (
    count_active,
    leaky_relu_backward_with_slope_grad,
    leaky_relu_backward_with_slope_grad_,
    leaky_relu_slope_grad,
    leaky_relu_with_counts,
    leaky_relu_with_counts_,
    relu_with_counts,
    relu_with_counts_,
)
from ._api.warmup import warmup
from ._call.executors import provide as _provide
from ._dead_units import DeadUnits
from ._versions import __version__

__all__ = [
    "DeadUnits",
    "__version__",
    "configure",
    "count_active",
    "explain",
    "leaky_relu",
    "leaky_relu_",
    "leaky_relu_backward",
    "leaky_relu_backward_",
    "leaky_relu_backward_from_mask",
    "leaky_relu_backward_from_mask_",
    "leaky_relu_backward_with_slope_grad",
    "leaky_relu_backward_with_slope_grad_",
    "leaky_relu_grad",
    "leaky_relu_grad_",
    "leaky_relu_slope_grad",
    "leaky_relu_with_counts",
    "leaky_relu_with_counts_",
    "leaky_relu_with_mask",
    "leaky_relu_with_mask_",
    "release_memory",
    "relu",
    "relu_",
    "relu_backward",
    "relu_backward_",
    "relu_backward_from_mask",
    "relu_backward_from_mask_",
    "relu_grad",
    "relu_grad_",
    "relu_with_counts",
    "relu_with_counts_",
    "relu_with_mask",
    "relu_with_mask_",
    "show_config",
    "ufuncs",
    "warmup",
]


def _load_cuda() -> object:
    from . import _cuda

    return _cuda


def _load_dask() -> object:
    from . import _dask

    return _dask


_provide("cuda", _load_cuda)
_provide("dask", _load_dask)
