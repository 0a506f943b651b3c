"""
ReLU, Leaky ReLU and their derivatives
======================================

What the functions look like, and what their derivatives are at zero, where they have none.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastrelu

# %%
# The usual slope of Leaky ReLU is 0.01. A plot needs a larger one to show anything.
slope = 0.1
x = np.linspace(-2, 2, 401)
x[200] = 0  # exactly, not a rounding error away

relu = fastrelu.relu(x)
leaky = fastrelu.leaky_relu(x, slope)
relu_grad = fastrelu.relu_grad(x)
leaky_grad = fastrelu.leaky_relu_grad(x, slope)

# %%
# At zero the two lines meet in a kink, and any number between the slopes of both sides is a subgradient. The default
# is that of PyTorch and scikit-learn: 0 for ReLU, the slope for Leaky ReLU. ``at_zero`` is another choice.
zero = np.zeros(1)
relu_default = fastrelu.relu_grad(zero)[0]
relu_half = fastrelu.relu_grad(zero, at_zero=0.5)[0]
leaky_default = fastrelu.leaky_relu_grad(zero, slope)[0]
leaky_half = fastrelu.leaky_relu_grad(zero, slope, at_zero=0.5)[0]
print(f"derivative of ReLU at zero:       {relu_default}; with at_zero=0.5: {relu_half}")
print(f"derivative of Leaky ReLU at zero: {leaky_default}; with at_zero=0.5: {leaky_half}")

# %%
# The derivative jumps, so each side is drawn by itself. A dot marks the value at zero.
blue, orange = "#0072B2", "#D55E00"
figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), sharex=True, sharey="row", layout="constrained")
columns = [
    ("ReLU", blue, relu, relu_grad, relu_default, relu_half),
    (f"Leaky ReLU, slope {slope}", orange, leaky, leaky_grad, leaky_default, leaky_half),
]
for (top, bottom), (title, color, values, grads, default, half) in zip(axes.T, columns, strict=True):
    top.plot(x, values, color=color, linewidth=2.5)
    top.set_title(title)
    for side in (x < 0, x > 0):
        bottom.plot(x[side], grads[side], color=color, linewidth=2.5)
    bottom.plot(0, default, "o", color=color, markersize=9, label=f"at zero: {default:g} by default")
    bottom.plot(0, half, "s", color=color, markersize=8, fillstyle="none", label="with at_zero=0.5")
    bottom.legend(loc="upper left")
    bottom.set_xlabel("x")
axes[0, 0].set_ylabel("value")
axes[1, 0].set_ylabel("derivative")
axes[1, 0].set_ylim(-0.1, 1.5)
for axis in axes.flat:
    axis.grid(alpha=0.3)
plt.show()

# %%
# What the pictures show, as statements:
assert np.array_equal(relu, np.where(x < 0, 0, x))
assert np.array_equal(leaky, np.where(x < 0, slope * x, x))
assert np.array_equal(relu_grad, np.where(x > 0, 1.0, 0.0))
assert np.array_equal(leaky_grad, np.where(x > 0, 1.0, slope))
assert (relu_default, relu_half, leaky_default, leaky_half) == (0, 0.5, slope, 0.5)
