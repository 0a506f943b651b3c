"""ReLU, Leaky ReLU, their derivatives and their backward passes for NumPy arrays, at the speed of memory."""

from . import ufuncs
from ._api import (
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
from ._config import configure, explain, release_memory, show_config, warmup

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "configure",
    "explain",
    "leaky_relu",
    "leaky_relu_",
    "leaky_relu_backward",
    "leaky_relu_backward_",
    "leaky_relu_grad",
    "leaky_relu_grad_",
    "release_memory",
    "relu",
    "relu_",
    "relu_backward",
    "relu_backward_",
    "relu_grad",
    "relu_grad_",
    "show_config",
    "ufuncs",
    "warmup",
]
