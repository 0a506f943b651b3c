"""
scikit-learn's MLPClassifier on fastrelu
========================================

:class:`sklearn.neural_network.MLPClassifier` looks its activations up in two dictionaries. With other entries there,
its own training runs on fastrelu, and ends in the same weights.

The dictionaries are private to scikit-learn: this is for curiosity and for measuring, a later release may move them.
"""

from time import perf_counter
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.neural_network._base import ACTIVATIONS, DERIVATIVES
from threadpoolctl import threadpool_limits

import fastrelu

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)

# Matrices this small gain little from several threads, and threads of BLAS that wait would disturb the clocks.
limits = threadpool_limits(1, user_api="blas")

# %%
# scikit-learn's functions are in place too: ``relu(z)`` overwrites z, and ``derivative(z, delta)`` overwrites delta,
# given the saved output z. The order of the arguments differs from fastrelu's.
theirs = ACTIVATIONS["relu"], DERIVATIVES["relu"]
ours = fastrelu.relu_, lambda z, delta: fastrelu.relu_backward_(delta, z)


def fit(relu, derivative):
    """Train with these two functions; return the network, the seconds in all and the seconds inside of them."""
    busy = 0.0

    def timed(function):
        def call(*arrays):
            nonlocal busy
            start = perf_counter()
            function(*arrays)
            busy += perf_counter() - start

        return call

    network = MLPClassifier((256, 128), random_state=0)
    # patch.dict puts the original entries back at the end
    with patch.dict(ACTIVATIONS, relu=timed(relu)), patch.dict(DERIVATIVES, relu=timed(derivative)):
        start = perf_counter()
        network.fit(x_train, y_train)
        return network, perf_counter() - start, busy


fastrelu.warmup([fastrelu.relu, fastrelu.relu_backward], [np.float32])  # compile before any clock runs
results = {"scikit-learn": fit(*theirs), "fastrelu": fit(*ours)}
for name, (network, total, busy) in results.items():
    score = network.score(x_test, y_test)
    print(f"{name:12}: {score:.1%} of the test digits right; {total:.2f} s, {busy:.3f} s of them in the activation")

# %%
# The losses are the same in every epoch. The time is mostly that of the matrix products and of the Adam solver, which
# are scikit-learn's in both; the numbers differ from run to run.
colors = {"scikit-learn": "#0072B2", "fastrelu": "#D55E00"}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.semilogy(results["scikit-learn"][0].loss_curve_, color=colors["scikit-learn"], linewidth=6, alpha=0.4)
left.semilogy(results["fastrelu"][0].loss_curve_, "--", color=colors["fastrelu"], linewidth=2)
left.legend(["scikit-learn", "fastrelu"])
left.set(title="Loss on the training digits", xlabel="epoch", ylabel="cross-entropy")
left.grid(alpha=0.3)
seconds = {name: busy for name, (_, _, busy) in results.items()}
bars = right.bar(list(seconds), list(seconds.values()), color=[colors[name] for name in seconds], width=0.6)
right.bar_label(bars, fmt="%.3g s", padding=2)
right.set(title="Time in the activation and its derivative", ylabel="seconds")
right.margins(y=0.15)
plt.show()

# %%
# Not one weight differs.
network, reference = results["fastrelu"][0], results["scikit-learn"][0]
for a, b in zip(network.coefs_ + network.intercepts_, reference.coefs_ + reference.intercepts_, strict=True):
    assert np.array_equal(a, b)
assert network.score(x_test, y_test) == reference.score(x_test, y_test) > 0.95
assert (ACTIVATIONS["relu"], DERIVATIVES["relu"]) == theirs
print("the weights are equal")
