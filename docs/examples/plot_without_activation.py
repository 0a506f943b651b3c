"""
A network without an activation
===============================

Layers with nothing between them are one linear layer: the product of two matrices is a matrix. Two rings of points,
which no straight line separates, show the difference that an activation makes.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

import fastrelu

rng = np.random.default_rng(0)


def rings(count):
    label = rng.integers(0, 2, count)
    angle = rng.uniform(0, 2 * np.pi, count)
    radius = 1 + label + rng.normal(0, 0.15, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), label.astype(float)


x_train, y_train = rings(1000)
x_test, y_test = rings(1000)

# %%
# The same two layers, 32 units wide, with the same start and the same gradient descent on the log-likelihood. Only
# the activation and its backward pass differ; without an activation, both do nothing.


def logits(x, parameters, activate):
    w1, b1, w2, b2 = parameters
    return activate(x @ w1 + b1) @ w2 + b2


def train(activate, backward, steps=500, rate=0.5):
    rng = np.random.default_rng(1)
    w1, b1 = rng.normal(0, 1, (2, 32)), np.zeros(32)
    w2, b2 = rng.normal(0, np.sqrt(1 / 32), 32), 0.0
    for _ in range(steps):
        h = activate(x_train @ w1 + b1)
        error = (1 / (1 + np.exp(-(h @ w2 + b2))) - y_train) / len(y_train)
        grad = backward(np.outer(error, w2), h)  # from the saved output
        w2, b2 = w2 - rate * (h.T @ error), b2 - rate * error.sum()
        w1, b1 = w1 - rate * (x_train.T @ grad), b1 - rate * grad.sum(axis=0)
    return w1, b1, w2, b2


networks = {
    "without activation": (lambda z: z, lambda grad, h: grad),
    "with ReLU": (fastrelu.relu_, fastrelu.relu_backward_),
}
trained = {name: train(*pair) for name, pair in networks.items()}
accuracy = {
    name: np.mean((logits(x_test, trained[name], activate) > 0) == y_test) for name, (activate, _) in networks.items()
}
for name, value in accuracy.items():
    print(f"{name}: {value:.1%} of the test points right")

# %%
# What the network without activation has become: one matrix and one bias. It gives the same numbers, up to rounding.
w1, b1, w2, b2 = trained["without activation"]
matrix, bias = w1 @ w2, b1 @ w2 + b2
difference = np.abs((x_test @ matrix + bias) - logits(x_test, trained["without activation"], lambda z: z)).max()
print(f"two layers and the one layer that they are differ by {difference:.1e} at most")

# %%
# The regions that each network tells apart:
colors = ["#0072B2", "#D55E00"]
grid = np.stack(np.meshgrid(np.linspace(-3, 3, 300), np.linspace(-3, 3, 300)), axis=-1)
figure, axes = plt.subplots(1, 2, figsize=(10, 5.2), sharex=True, sharey=True, layout="constrained")
for axis, (name, (activate, _)) in zip(axes, networks.items(), strict=True):
    region = logits(grid, trained[name], activate) > 0
    axis.pcolormesh(grid[..., 0], grid[..., 1], region, cmap=ListedColormap(colors), vmin=0, vmax=1, alpha=0.2)
    for value, marker, ring in ((0, "o", "inner ring"), (1, "^", "outer ring")):
        points = x_test[y_test == value][:150]
        axis.plot(*points.T, marker, color=colors[value], markersize=4, label=ring)
    axis.set(title=f"{name}: {accuracy[name]:.1%} right", xlabel="first coordinate", aspect="equal")
axes[0].set_ylabel("second coordinate")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()

# %%
# Without an activation the network is linear, and here no better than guessing.
assert difference < 1e-12
assert accuracy["without activation"] < 0.7
assert accuracy["with ReLU"] > 0.95
