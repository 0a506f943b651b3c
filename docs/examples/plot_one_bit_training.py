"""
Training with one bit per activation
====================================

The backward pass of a ReLU needs to know where its input was positive, and nothing else. Here a residual network for
scikit-learn's handwritten digits is trained twice: once it keeps the inputs of its activations, once a mask of one
bit per element. The numbers are the same, bit for bit.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

import fastrelu

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
limits = threadpool_limits(1, user_api="blas")  # matrices this small gain nothing from more

# %%
# Two ways to run an activation. Both give its output, and what the backward pass will want. The slope is below 0,
# where the output alone would not do: it no longer tells the sign of the input.
SLOPE = -0.25


def with_input(z):
    return fastrelu.leaky_relu(z, SLOPE), z


def backward_from_input(grad, z):
    return fastrelu.leaky_relu_backward(grad, z, SLOPE)


def with_mask(z):
    mask = fastrelu.leaky_relu_with_mask_(z, SLOPE)  # z becomes the output
    return z, mask


def backward_from_mask(grad, mask):
    return fastrelu.leaky_relu_backward_from_mask(grad, mask, SLOPE)


# %%
# Each layer adds its activation to what it was given: ``h + f(h @ w + b)``. The next layer keeps that sum, so that
# nobody else keeps the activation's own input or output.


def train(forward, backward, width=256, layers=3, epochs=8, batch=128, rate=0.1):
    rng = np.random.default_rng(0)  # the same start and the same order for everyone
    first = rng.normal(0, np.sqrt(1 / 64), (64, width)).astype(np.float32)
    hidden = [rng.normal(0, np.sqrt(0.3 / width), (width, width)).astype(np.float32) for _ in range(layers)]
    biases = [np.zeros(width, np.float32) for _ in range(layers)]
    last = rng.normal(0, np.sqrt(1 / width), (width, 10)).astype(np.float32)
    losses = []
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            sums, kept = [images[rows] @ first], []
            for w, b in zip(hidden, biases, strict=True):
                y, saved = forward(sums[-1] @ w + b)
                sums.append(sums[-1] + y)
                kept.append(saved)

            scores = sums[-1] @ last
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            losses.append(float(-np.log(p[np.arange(batch), labels[rows]]).mean()))
            p[np.arange(batch), labels[rows]] -= 1
            p /= np.float32(batch)

            grad = p @ last.T
            last -= rate * (sums[-1].T @ p)
            for k in reversed(range(layers)):
                inner = backward(grad, kept[k])
                grad = grad + inner @ hidden[k].T
                hidden[k] -= rate * (sums[k].T @ inner)
                biases[k] -= rate * inner.sum(axis=0)
            first -= rate * (images[rows].T @ grad)
    return [first, *hidden, *biases, last], losses, [each.nbytes for each in kept]


weights, losses, kept = {}, {}, {}
for name, pair in {
    "input": (with_input, backward_from_input),
    "mask": (with_mask, backward_from_mask),
}.items():
    weights[name], losses[name], kept[name] = train(*pair)
    print(f"keeping the {name}: {sum(kept[name]):,} bytes for a batch, loss {losses[name][-1]:.3f}")

# %%
# Left what each layer keeps for its activation, per batch; right the losses, one on top of the other.
colors = {"input": "#0072B2", "mask": "#D55E00"}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
places = np.arange(len(kept["input"]))
for offset, name in ((-0.2, "input"), (0.2, "mask")):
    bars = left.bar(places + offset, kept[name], width=0.4, color=colors[name], label=f"the {name}")
    left.bar_label(bars, [f"{size:,}" for size in kept[name]], padding=2)
left.set(title="Kept for the backward pass", ylabel="bytes per batch of 128", yscale="log", ylim=(1e3, 1e6))
left.set_xticks(places, [f"layer {k + 1}" for k in places])
left.legend(ncols=2)
right.plot(losses["input"], color=colors["input"], linewidth=6, alpha=0.4, label="keeping the input")
right.plot(losses["mask"], "--", color=colors["mask"], linewidth=1.5, label="keeping the mask")
right.set(title="Same loss in every step", xlabel="step", ylabel="cross-entropy")
right.legend()
for axis in (left, right):
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
plt.show()

# %%
# Not one bit differs, the network has learned, and 1/32 of the bytes were kept.
assert losses["input"] == losses["mask"]
for one, other in zip(weights["input"], weights["mask"], strict=True):
    assert np.array_equal(one, other)
assert losses["mask"][-1] < 0.5
assert sum(kept["mask"]) * 32 == sum(kept["input"])
print("the weights are equal")
