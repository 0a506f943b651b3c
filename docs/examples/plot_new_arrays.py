"""
What a new array costs
======================

``y = relu(x)`` needs memory for its result. For a large array most of the time goes into that: the system supplies
memory a page at a time, cleared, when it is first written to. Here are the times with and without.
"""

from statistics import median
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

import fastrelu

# %%
# fastrelu keeps the memory of a large result that was dropped, and gives it to the next call of that size. In a loop
# the result of the last turn is dropped when that of the next one is there, so that two blocks of memory take turns.
x = np.ones(12_000_000, np.float32)
addresses = set()
for _ in range(10):
    y = fastrelu.relu(x)
    addresses.add(y.ctypes.data)
print(f"10 results in {len(addresses)} places")

# %%
# Somebody who still sees a result keeps its memory, through whatever view:
some = y[::1000]
seen = y.ctypes.data
del y
print("the memory of a result with a view is given away:", fastrelu.relu(x).ctypes.data == seen)
del some
print("once the view is gone:", fastrelu.relu(x).ctypes.data == seen)

# %%
# Now that loop for arrays of many sizes.
megabytes = np.array([4, 8, 16, 24, 32, 40, 48, 64])
ways = {
    "numpy.maximum(x, 0)": (0, lambda x, out: np.maximum(x, 0)),
    "fastrelu, nothing kept": (0, lambda x, out: fastrelu.relu(x)),
    "fastrelu": (1 << 26, lambda x, out: fastrelu.relu(x)),
    "fastrelu, out=": (0, lambda x, out: fastrelu.relu(x, out=out)),
}
times = {name: [] for name in ways}
for size in megabytes:
    x = np.ones(size * 250_000, np.float32)
    out = np.ones_like(x)
    for name, (kept, call) in ways.items():
        with fastrelu.configure(recycle_bytes=kept):
            samples = []
            for _ in range(9):
                start = perf_counter()
                y = call(x, out)
                samples.append(perf_counter() - start)
            del y
        times[name].append(1e3 * median(samples))

# %%
# Below 32 MiB, which is 34 MB, the C library's allocator keeps dropped memory by itself.
colors = ["#888888", "#56B4E9", "#0072B2", "#D55E00"]
figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
for (name, values), color in zip(times.items(), colors, strict=True):
    axis.plot(megabytes, values, "o-", color=color, label=name)
axis.axvline(2**25 / 1e6, color="#444444", linewidth=0.8, linestyle=(0, (1, 3)))
axis.set(xlabel="size of the result, MB", ylabel="time of a call, ms", title="y = relu(x) in a loop, float32", ylim=0)
axis.legend()
axis.grid(alpha=0.3)
plt.show()

# %%
# What is kept goes back to the system at any time:
fastrelu.release_memory()
