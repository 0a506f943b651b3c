"""
Dying ReLU units
================

A ReLU unit that is negative for every image gets no gradient and never comes back. This example counts such units,
in the forward pass itself, while a network trains with a learning rate that is too high, then tries two remedies:
Leaky ReLU, which helps, and another derivative at zero, which does not, except where values are exactly zero.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastrelu

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
targets = np.eye(10, dtype=np.float32)[labels]

# %%
# A two-layer network. It keeps ``z``, the input of the activation: with an ``at_zero`` other than 0 the backward pass
# may not use the output, which is zero for dead units too. Once an epoch all images pass through it, with an activation
# that also counts how often each unit is positive; ``DeadUnits`` holds the counts and says which ones never are.


def train(count, forward, backward, rate, scale=1.0, hidden=128, epochs=30, batch=64):
    rng = np.random.default_rng(0)
    w1 = (scale * rng.normal(0, np.sqrt(2 / 64), (64, hidden))).astype(np.float32)
    w2 = rng.normal(0, np.sqrt(1 / hidden), (hidden, 10)).astype(np.float32)
    b1, b2 = np.zeros(hidden, np.float32), np.zeros(10, np.float32)
    dead = fastrelu.DeadUnits(hidden)
    silent, accuracy = [], []
    for epoch in range(epochs + 1):
        dead.reset()
        h = count(images @ w1 + b1, dead.counts)
        silent.append(dead.indices.size)  # units that fire for no image at all
        accuracy.append(float(np.mean((h @ w2 + b2).argmax(axis=1) == labels)))
        if epoch == epochs:
            break
        order = rng.permutation(len(images))
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            z = images[rows] @ w1 + b1
            h = forward(z)
            p = h @ w2 + b2
            p = np.exp(p - p.max(axis=1, keepdims=True))
            p = (p / p.sum(axis=1, keepdims=True) - targets[rows]) / np.float32(len(rows))
            grad = backward(p @ w2.T, z)
            w2 -= np.float32(rate) * (h.T @ p)
            b2 -= np.float32(rate) * p.sum(axis=0)
            w1 -= np.float32(rate) * (images[rows].T @ grad)
            b1 -= np.float32(rate) * grad.sum(axis=0)
    return np.array(silent), np.array(accuracy), w1


activations = {
    "ReLU": (fastrelu.relu_with_counts_, fastrelu.relu, fastrelu.relu_backward),
    "ReLU, at_zero=0.5": (
        fastrelu.relu_with_counts_,
        fastrelu.relu,
        lambda grad, z: fastrelu.relu_backward(grad, z, at_zero=0.5),
    ),
    "Leaky ReLU": (
        lambda z, counts: fastrelu.leaky_relu_with_counts_(z, counts, 0.1),
        lambda z: fastrelu.leaky_relu(z, 0.1),
        lambda grad, z: fastrelu.leaky_relu_backward(grad, z, 0.1),
    ),
}

# %%
# A learning rate that is too high
# --------------------------------
# One large step can push a unit's weights so far that it is negative everywhere. With ReLU it stays there. Leaky ReLU
# has silent units too, but they still learn, and may come back.
high = {name: train(*functions, rate=1.5) for name, functions in activations.items()}
low = train(*activations["ReLU"], rate=0.1)
print(f"ReLU, rate 0.1: {low[0][-1]} of 128 units never fire, accuracy {low[1][-1]:.1%}")
for name, (silent, accuracy, _) in high.items():
    print(f"{name}, rate 1.5: {silent[-1]} of 128 units never fire, accuracy {accuracy[-1]:.1%}")

# %%
# A start at zero
# ---------------
# Here all weights of the first layer start as zeros, so every ``z`` is exactly 0. The ReLU of the default,
# ``at_zero=0``, gives them no gradient, ever. With ``at_zero=0.5``, or with Leaky ReLU, the first step moves them.
zero = {name: train(*functions, rate=0.1, scale=0.0) for name, functions in activations.items()}
for name, (silent, accuracy, _) in zero.items():
    print(f"{name}, start at zero: {silent[-1]} of 128 units never fire, accuracy {accuracy[-1]:.1%}")

# %%
# Left the units that fire for no image, right the accuracy, both on the images that the network trains on.
styles = {
    "ReLU": {"color": "#0072B2", "linewidth": 2},
    "ReLU, at_zero=0.5": {"color": "#009E73", "linestyle": "--", "linewidth": 3},
    "Leaky ReLU": {"color": "#D55E00", "linestyle": "-.", "linewidth": 2},
}
figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex=True, layout="constrained")
for row, (title, results) in zip(axes, [("Learning rate 1.5", high), ("Start at zero", zero)], strict=True):
    for name, (silent, accuracy, _) in results.items():
        row[0].plot(silent, label=name, **styles[name])
        row[1].plot(accuracy, label=name, **styles[name])
    row[0].set(title=f"{title}: silent units", ylabel="units of 128", ylim=(-5, 135))
    row[1].set(title=f"{title}: accuracy", ylabel="accuracy", ylim=(0, 1.05))
for axis in axes.flat:
    axis.grid(alpha=0.3)
for axis in axes[1]:
    axis.set_xlabel("epoch")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
# What was seen:
assert low[0][-1] < 10 < high["ReLU"][0][-1]
assert high["Leaky ReLU"][0][-1] < high["ReLU"][0][-1]
assert high["Leaky ReLU"][1][-1] > 0.9
assert np.array_equal(high["ReLU"][2], high["ReLU, at_zero=0.5"][2])  # no value was ever exactly zero
assert zero["ReLU"][0][-1] == 128
assert not zero["ReLU"][2].any()
for name in ("ReLU, at_zero=0.5", "Leaky ReLU"):
    assert zero[name][1][-1] > 0.9 > 0.2 > zero["ReLU"][1][-1]
