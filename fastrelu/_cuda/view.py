"""What a kernel needs to know of an array, whichever library it comes from."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(slots=True)
class View:
    """An array in the memory of a GPU."""

    #: The array itself, or a capsule, that keeps the memory alive.
    owner: Any
    pointer: int
    shape: tuple[int, ...]
    #: In bytes.
    strides: tuple[int, ...]
    dtype: np.dtype
    device: int
    #: The stream on which the array is produced and will be used; 0 is CUDA's default stream.
    stream: int
    readonly: bool = False
