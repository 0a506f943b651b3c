"""
A layer of your own in a compiled training loop
===============================================

fastrelu's functions work under their own names in code that Numba compiles. Here they make a PReLU layer, a Leaky
ReLU that learns one slope per unit, inside of a training loop that takes one sample at a time: thousands of tiny
steps, for which Python is too slow.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numba
import numpy as np

import fastrelu

rng = np.random.default_rng(0)
x_train = rng.uniform(-2, 2, 30_000)
y_train = np.sin(2 * x_train) + rng.normal(0, 0.1, x_train.size)

# %%
# The layer: an array of slopes broadcasts, as everywhere in fastrelu. The derivative with respect to a slope is z
# where z is negative, else 0; that is ``-relu(-z)``.


@numba.njit
def forward(z, slopes):
    return fastrelu.leaky_relu(z, slopes)


@numba.njit
def backward(grad, z, slopes):
    return fastrelu.leaky_relu_backward(grad, z, slopes), -grad * fastrelu.relu(-z)


# %%
# The loop around it. Parameters are the rows of one array: weights, biases, output weights and slopes of 32 units.


@numba.njit
def train(x, y, parameters, rate):
    w, b, v, slopes = parameters
    losses = np.empty(len(x))
    for i in range(len(x)):
        z = w * x[i] + b
        h = forward(z, slopes)
        error = np.sum(h * v) - y[i]
        losses[i] = error * error
        grad, slope_grad = backward(error * v, z, slopes)
        v -= rate * error * h
        w -= rate * grad * x[i]
        b -= rate * grad
        slopes -= rate * slope_grad
    return losses


# %%
# ``train.py_func`` is the same function as plain Python, in which fastrelu's functions are the usual ones, called on
# small arrays. Here it calls ``forward`` and ``backward`` compiled, one call per step each. The first compiled call
# is for compiling only.
start = np.array([rng.normal(0, 1, 32), rng.normal(0, 1, 32), rng.normal(0, 0.2, 32), np.full(32, 0.25)])
train(x_train[:1], y_train[:1], start.copy(), 0.01)

compiled, interpreted = start.copy(), start.copy()
tick = perf_counter()
losses = train(x_train, y_train, compiled, 0.01)
tock = perf_counter()
interpreted_losses = train.py_func(x_train, y_train, interpreted, 0.01)
print(f"compiled {tock - tick:.3f} s, interpreted {perf_counter() - tock:.3f} s for {x_train.size:,} steps")

# %%
# What it learned. Squared errors are averaged over 500 steps; the noise in the data leaves 0.01 of them.
x = np.linspace(-2, 2, 400)
w, b, v, slopes = compiled
fit = fastrelu.leaky_relu(np.outer(x, w) + b, slopes) @ v
error = np.sqrt(np.mean((fit - np.sin(2 * x)) ** 2))
print(f"root mean square error of the fit: {error:.3f}; slopes from {slopes.min():.2f} to {slopes.max():.2f}")

blue, orange, grey = "#0072B2", "#D55E00", "#888888"
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
left.plot(x_train[:400], y_train[:400], ".", color=grey, markersize=3, label="data")
left.plot(x, np.sin(2 * x), color=blue, linewidth=4, alpha=0.5, label="sin 2x")
left.plot(x, fit, "--", color=orange, linewidth=2, label="network")
left.set(title="The function learned", xlabel="x", ylabel="y", ylim=(-1.4, 2.4))
left.legend(loc="upper center", ncols=3, columnspacing=1)
middle.semilogy(np.arange(500, 30_001, 500), losses.reshape(-1, 500).mean(axis=1), color=blue)
middle.axhline(0.01, color=orange, linestyle="--", label="noise in the data")
middle.set(title="Squared error", xlabel="step", ylabel="mean over 500 steps")
middle.legend()
right.hist(slopes, bins=16, color=blue)
right.axvline(0.25, color=orange, linestyle="--", label="start")
right.set(title="Slopes learned", xlabel="slope of the negative part", ylabel="units")
right.legend()
plt.show()

# %%
# Compiled and interpreted training agree, up to the order in which NumPy and Numba add numbers.
np.testing.assert_allclose(compiled, interpreted, rtol=1e-6, atol=1e-9)
np.testing.assert_allclose(losses, interpreted_losses, rtol=1e-6, atol=1e-9)
assert error < 0.1
assert np.ptp(slopes) > 0.1
