"""
Small gradients in 16 bits
==========================

A network's gradients span many powers of ten, and numbers of 16 bits must choose. float16 is precise to one part in
2,000, but ends at 65,504 and at 6e-8. bfloat16, the upper half of a float32, is precise to one part in 250, over all of
float32's range. So training in float16 needs its loss scaled up and down again, and training in bfloat16 does not.

Here a gradient goes back through one Leaky ReLU in each type, and float64 tells what is right. ``bfloat16`` is a type
of the package ml_dtypes; fastrelu takes its arrays as any others.
"""

import matplotlib.pyplot as plt
import ml_dtypes
import numpy as np

import fastrelu

magnitudes = np.logspace(-16, 10, 2000)
before = np.full_like(magnitudes, -1.0)  # what the layer was given: units that do not fire
exact = fastrelu.leaky_relu_backward(magnitudes, before, 0.125)

errors = {}
for dtype in (np.float16, ml_dtypes.bfloat16):
    with np.errstate(over="ignore"):  # of NumPy's conversion to float16
        grad, x = magnitudes.astype(dtype), before.astype(dtype)
    result = fastrelu.leaky_relu_backward(grad, x, 0.125)
    assert result.dtype == dtype  # a Python number as slope leaves the type alone
    errors[np.dtype(dtype).name] = np.abs(result.astype(np.float64) - exact) / exact

# %%
# What is infinite or zero has an error of 100 % or more.

lost = {name: np.mean(error > 0.5) for name, error in errors.items()}
print(f"gradients lost in float16: {lost['float16']:.0%}, in bfloat16: {lost['bfloat16']:.0%}")
assert lost["float16"] > 0.4
assert lost["bfloat16"] == 0
assert errors["bfloat16"].max() <= 2.0**-8  # one rounding, of the gradient; the slope is a power of two

figure, axes = plt.subplots(figsize=(8, 4))
for name, error in errors.items():
    axes.loglog(magnitudes, np.clip(error, 1e-5, 2), ".", markersize=2, label=name)
axes.axhline(1, color="grey", linewidth=0.8)
axes.text(1e-15, 1.1, "lost", color="grey", va="bottom")
axes.set(xlabel="gradient", ylabel="relative error after the layer", ylim=(1e-5, 4))
axes.legend(loc="lower right", markerscale=6)
figure.tight_layout()
plt.show()
