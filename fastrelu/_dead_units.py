"""Which units never fired, over many batches."""

from typing import Any

import numpy as np

from ._api.sums import count_active


class DeadUnits:
    """Count how often each unit of a layer is active, batch by batch, and tell which ones never are.

    Parameters
    ----------
    units : int
        How many units the layer has.
    axis : int, optional
        The axis along which they lie in the arrays of a batch.

    Attributes
    ----------
    counts : ndarray
        int64, how many positive elements each unit has had. `relu_with_counts` may add to it in the forward pass.

    Raises
    ------
    TypeError, ValueError
        `units` is not an integer, or not positive.

    Notes
    -----
    NaN and zeros are not active. A unit is dead if none of its elements has been positive since the last `reset`.

    Examples
    --------
    >>> import numpy as np, fastrelu
    >>> dead = fastrelu.DeadUnits(3)
    >>> y = fastrelu.relu_with_counts(np.array([[1.0, -1.0, -2.0], [-3.0, 2.0, 0.0]]), dead.counts)
    >>> dead.indices
    array([2])
    >>> round(dead.share, 3)
    0.333
    """

    def __init__(self, units: int, *, axis: int = -1) -> None:
        if isinstance(units, bool) or not isinstance(units, (int, np.integer)):
            raise TypeError(f"units must be an integer, not {type(units).__name__}")
        if units < 1:
            raise ValueError(f"units must be positive: {units}")
        self.axis = axis
        self.counts = np.zeros(int(units), np.int64)

    def add(self, x: Any, /) -> None:
        """Count the positive elements of a batch: of a layer's input or output, which has the same ones."""
        counts = np.asarray(count_active(x, axis=self.axis))
        if counts.shape != self.counts.shape:
            raise ValueError(f"the batch has {counts.size} units along axis {self.axis}; expected {self.counts.size}")
        self.counts += counts

    def reset(self) -> None:
        """Begin anew, as at the start of an epoch."""
        self.counts[...] = 0

    @property
    def indices(self) -> np.ndarray:
        """The dead units, in order."""
        return np.flatnonzero(self.counts == 0)

    @property
    def share(self) -> float:
        """The dead units' share of all."""
        return float(np.mean(self.counts == 0))

    def __repr__(self) -> str:
        return f"<DeadUnits: {self.indices.size} of {self.counts.size} dead>"
