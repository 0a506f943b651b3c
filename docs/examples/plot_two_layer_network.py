"""
A two-layer network by hand
===========================

A network for scikit-learn's handwritten digits, written in NumPy. It is trained twice, once with fastrelu and once
with :func:`numpy.maximum`; the weights end up the same.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import fastrelu

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)

# Matrices this small gain little from several threads, and threads of BLAS that wait would disturb the clocks.
limits = threadpool_limits(1, user_api="blas")

# %%
# Both activations work in place. The forward pass overwrites the pre-activations: the backward pass needs only the
# saved output, because it is positive exactly where the input was. So neither allocates an array of its own, but for
# the mask that NumPy needs.


def numpy_relu_(x):
    np.maximum(x, 0, out=x)


def numpy_relu_backward_(grad, y):
    np.multiply(grad, y > 0, out=grad)


# %%
# Plain stochastic gradient descent with softmax and cross-entropy. ``busy`` is the time that the two activation
# functions take; all the rest is matrix products, softmax and updates.


def train(relu_, relu_backward_, epochs=20, hidden=1024, batch=256, rate=0.5):
    rng = np.random.default_rng(0)  # the same start and the same order for everyone
    w1 = rng.normal(0, np.sqrt(2 / 64), (64, hidden)).astype(np.float32)
    w2 = rng.normal(0, np.sqrt(1 / hidden), (hidden, 10)).astype(np.float32)
    b1, b2 = np.zeros(hidden, np.float32), np.zeros(10, np.float32)
    accuracies, busy, start = [], 0.0, perf_counter()
    for _ in range(epochs):
        order = rng.permutation(len(x_train))
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            x = x_train[rows]

            h = x @ w1 + b1
            tick = perf_counter()
            relu_(h)
            busy += perf_counter() - tick

            p = h @ w2 + b2
            p = np.exp(p - p.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), y_train[rows]] -= 1  # now the gradient of the loss
            p /= len(rows)

            grad = p @ w2.T
            tick = perf_counter()
            relu_backward_(grad, h)
            busy += perf_counter() - tick

            w2 -= rate * (h.T @ p)
            b2 -= rate * p.sum(axis=0)
            w1 -= rate * (x.T @ grad)
            b1 -= rate * grad.sum(axis=0)
        h = x_test @ w1 + b1
        relu_(h)
        accuracies.append(np.mean((h @ w2 + b2).argmax(axis=1) == y_test))
    return (w1, b1, w2, b2), accuracies, busy, perf_counter() - start


# %%
# The first call of each function compiles or loads it. That is done here, before any clock runs. Each network is
# trained three times, in turns; the fastest of the three is what counts, since everything else a computer does only
# adds time.
fastrelu.warmup([fastrelu.relu, fastrelu.relu_backward], [np.float32])

functions = {
    "numpy.maximum": (numpy_relu_, numpy_relu_backward_),
    "fastrelu": (fastrelu.relu_, fastrelu.relu_backward_),
}
runs = {name: [] for name in functions}
for _ in range(3):
    for name, pair in functions.items():
        runs[name].append(train(*pair))

busy = {name: min(run[2] for run in many) for name, many in runs.items()}
total = {name: min(run[3] for run in many) for name, many in runs.items()}
weights = {name: many[0][0] for name, many in runs.items()}
accuracies = {name: many[0][1] for name, many in runs.items()}
for name in functions:
    print(
        f"{name:13}: {accuracies[name][-1]:.1%} of the test digits right; "
        f"{total[name]:.2f} s, {busy[name]:.3f} s of them in the activation"
    )

# %%
# The activation is a small part of this training, matrix products are the rest. So the whole cannot gain more than
# that part, however fast the activation is. The numbers differ from run to run and from machine to machine.
colors = {"numpy.maximum": "#0072B2", "fastrelu": "#D55E00"}
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
epochs = np.arange(1, len(accuracies["fastrelu"]) + 1)
left.plot(epochs, accuracies["numpy.maximum"], color=colors["numpy.maximum"], linewidth=6, alpha=0.4)
left.plot(epochs, accuracies["fastrelu"], "--", color=colors["fastrelu"], linewidth=2)
left.legend(["numpy.maximum", "fastrelu"], loc="lower right")
left.set(title="Same accuracy in every epoch", xlabel="epoch", ylabel="accuracy on the test digits")
for axis, title, seconds in ((middle, "Whole training", total), (right, "In the activation", busy)):
    bars = axis.bar(list(seconds), list(seconds.values()), color=[colors[name] for name in seconds], width=0.6)
    axis.bar_label(bars, fmt="%.3g s", padding=2)
    axis.set(title=title, ylabel="seconds")
    axis.margins(y=0.15)
for axis in (left, middle, right):
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
plt.show()

# %%
# Not one weight differs, and the network has learned.
for ours, theirs in zip(weights["fastrelu"], weights["numpy.maximum"], strict=True):
    assert np.array_equal(ours, theirs)
assert accuracies["fastrelu"] == accuracies["numpy.maximum"]
assert accuracies["fastrelu"][-1] > 0.95
print("the weights are equal")
