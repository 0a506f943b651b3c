"""Record real input: the pre-activations of a hidden layer trained on scikit-learn's handwritten digits.

``python bench/record_digits.py FILE.npy``
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np


def record(path: Path) -> Path:
    """Train a small network and save what its first hidden layer gives to its relu: float32, images by units."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = images / 16
    network = MLPClassifier(hidden_layer_sizes=(256,), activation="relu", max_iter=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thirty passes suffice for realistic numbers, not for convergence
        network.fit(images, labels)
    values = (images @ network.coefs_[0] + network.intercepts_[0]).astype(np.float32)
    np.save(path, values)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".npy"):
        sys.exit("usage: python bench/record_digits.py FILE.npy")
    array = np.load(record(Path(sys.argv[1])))
    print(f"{sys.argv[1]}: {array.dtype} of shape {array.shape}, {np.mean(array < 0):.0%} negative")
