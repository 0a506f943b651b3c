"""
Training the slopes: PReLU
==========================

A Leaky ReLU whose slope is a weight like any other is called PReLU. Here a network for scikit-learn's handwritten
digits learns a slope for each of its hidden units, next to the same network with one fixed slope. The backward pass
gives the gradient of the input and that of the slopes together, in one pass over its arrays.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastrelu

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
order = np.random.default_rng(1).permutation(len(images))
train_rows, test_rows = order[:1200], order[1200:]

# %%
# Two hidden layers. ``slopes`` holds one number for each unit, which broadcasts over the rows of a batch; with
# ``axis=-1``, the gradient of the slopes has the same shape. Where they are fixed, it is not asked for.


def train(learn, start, hidden=8, epochs=40, batch=64, rate=0.1):
    rng = np.random.default_rng(start)  # the same weights and the same order for both
    widths = [64, hidden, hidden, 10]
    weights = [
        rng.normal(0, np.sqrt(2 / before), (before, after)).astype(np.float32)
        for before, after in itertools.pairwise(widths)
    ]
    biases = [np.zeros(after, np.float32) for after in widths[1:]]
    slopes = [np.full(hidden, 0.25, np.float32) for _ in range(2)]
    rate, losses = np.float32(rate), []
    for _ in range(epochs):
        rows, total = rng.permutation(train_rows), 0.0
        for first in range(0, len(rows), batch):
            chosen = rows[first : first + batch]
            inputs, z = [images[chosen]], []
            for w, b, slope in zip(weights[:-1], biases[:-1], slopes, strict=True):
                z.append(inputs[-1] @ w + b)
                inputs.append(fastrelu.leaky_relu(z[-1], slope))
            p = softmax(inputs[-1] @ weights[-1] + biases[-1])
            total -= float(np.log(p[np.arange(len(chosen)), labels[chosen]]).sum())

            p[np.arange(len(chosen)), labels[chosen]] -= 1
            grad = p / np.float32(len(chosen))
            for k in (2, 1, 0):
                below = grad @ weights[k].T
                weights[k] -= rate * (inputs[k].T @ grad)
                biases[k] -= rate * grad.sum(axis=0)
                if k == 0:
                    break
                if learn:
                    grad, by_slope = fastrelu.leaky_relu_backward_with_slope_grad(
                        below, z[k - 1], slopes[k - 1], axis=-1
                    )
                    slopes[k - 1] -= rate * by_slope
                else:
                    grad = fastrelu.leaky_relu_backward(below, z[k - 1], slopes[k - 1])
        losses.append(total / len(rows))
    h = images[test_rows]
    for w, b, slope in zip(weights[:-1], biases[:-1], slopes, strict=True):
        h = fastrelu.leaky_relu(h @ w + b, slope)
    right = (h @ weights[-1] + biases[-1]).argmax(axis=1) == labels[test_rows]
    return losses, slopes, float(right.mean())


def softmax(scores):
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


# %%
# The gradient of a slope is the sum of ``grad * x`` over the places where ``x < 0``. A step of one slope changes the
# loss by as much as that says:
rng = np.random.default_rng(2)
x, weight, step = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), 1e-6
slope = np.array([0.1, 0.25, -0.5])
by_slope = fastrelu.leaky_relu_slope_grad(weight, x, axis=-1)
for k in range(3):
    higher, lower = (slope + sign * step * (np.arange(3) == k) for sign in (1, -1))
    change = (weight * (fastrelu.leaky_relu(x, higher) - fastrelu.leaky_relu(x, lower))).sum() / (2 * step)
    assert np.isclose(change, by_slope[k])

# %%
# Both networks start with slopes of 0.25. They are so narrow, eight units a layer, that what a unit can do counts; and
# since networks that small depend on the weights that they start with, each is trained five times.
STARTS = range(5)
results = {
    name: [train(learn, start) for start in STARTS]
    for name, learn in {"fixed slope": False, "a slope for each unit": True}.items()
}
losses = {name: np.array([run[0] for run in runs]) for name, runs in results.items()}
accuracies = {name: np.mean([run[2] for run in runs]) for name, runs in results.items()}
for name in results:
    print(f"{name}: loss {losses[name][:, -1].mean():.3f}, accuracy on images not trained on {accuracies[name]:.1%}")

# %%
# Left the loss in training, its mean over the starts and each of them; right the slopes that were learned, in order.
# Many have moved far from where they started. Some are below 0, where
# the output alone would not do for a backward pass.
colors = {"fixed slope": "#0072B2", "a slope for each unit": "#D55E00"}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, style in (("fixed slope", "--"), ("a slope for each unit", "-")):
    epochs = np.arange(1, losses[name].shape[1] + 1)
    left.plot(epochs, losses[name].T, style, color=colors[name], linewidth=0.7, alpha=0.4)
    left.plot(epochs, losses[name].mean(axis=0), style, color=colors[name], linewidth=2.5, label=name)
left.set(title="Loss in training", xlabel="epoch", ylabel="cross-entropy", yscale="log")
left.legend()
learned = [np.concatenate([run[1][layer] for run in results["a slope for each unit"]]) for layer in (0, 1)]
for slopes, layer, marker, color in zip(learned, (1, 2), "o^", ("#D55E00", "#009E73"), strict=True):
    right.plot(np.sort(slopes), marker, color=color, label=f"layer {layer}")
right.axhline(0.25, color=colors["fixed slope"], linestyle="--", label="fixed slope, and start")
right.set(title="Learned slopes, all five networks", xlabel="unit, in order of its slope", ylabel="slope")
right.legend()
for axis in (left, right):
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
plt.show()

# %%
# What was seen:
assert losses["a slope for each unit"][:, -1].mean() < losses["fixed slope"][:, -1].mean()
assert min(accuracies.values()) > 0.85
assert all((slope == 0.25).all() for run in results["fixed slope"] for slope in run[1])
assert np.ptp(np.concatenate(learned)) > 0.5
print(f"learned slopes: {np.min(learned):.2f} to {np.max(learned):.2f}")
