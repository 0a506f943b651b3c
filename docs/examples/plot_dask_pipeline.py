"""
A layer on data larger than memory, with Dask
=============================================

fastrelu's functions stay lazy on :mod:`dask.array`. Here the forward and backward pass of one layer run in two worker
processes, and stream through them from disk and back: the workers together may use 1 GB of memory, and the input and
the results are larger than that.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastrelu

try:
    import dask.array as da
    import zarr
    from distributed import Client, LocalCluster, futures_of, progress
    from distributed.diagnostics import MemorySampler
except ImportError as error:
    raise SystemExit(f"{error.name} is missing: python -m pip install 'dask[array]' distributed zarr") from None

rows, block, inputs, units = 1 << 19, 1 << 13, 256, 64  # 64 blocks of 8 MB: 537 MB of input
workers, limit = 2, 500_000_000

# %%
# The layer is ordinary NumPy code, and works on Dask's arrays as it stands. Its loss pulls every output towards 1, so
# the gradient that arrives is ``y - 1``. The backward pass takes the saved output: that the block of ``z`` is gone by
# then does not matter.


def layer(x, w, b):
    y = fastrelu.relu(x @ w + b)
    grad = fastrelu.relu_backward(y - 1, y)
    return {"y": y, "grad_x": grad @ w.T, "grad_w": x.T @ grad, "grad_b": grad.sum(axis=0)}


# %%
# ``run`` opens one Zarr array on disk for each result, and stores all of them in one go, so that each block of x is
# read once. Nothing is computed before ``client.persist``. Blocks and chunks on disk are the same, so writing needs
# no lock.


def run(client, arrays, folder):
    targets = [
        zarr.create_array(folder / name, shape=a.shape, chunks=a.chunksize, dtype=a.dtype, compressors=None)
        for name, a in arrays.items()
    ]
    lazy = da.store(list(arrays.values()), targets, lock=False, compute=False)
    futures = futures_of(client.persist(lazy))
    progress(futures, interval="500ms")
    client.gather(futures)  # raises what a task has raised
    return dict(zip(arrays, targets, strict=True))


# %%
# The results are checked by sample: some rows, across the border of two blocks, against the same function on NumPy's
# arrays, and the gradient of the bias, a sum over all rows, in float64 from the stored output.


def check(files, w, b):
    some = slice(block - 500, block + 500)
    wanted = layer(files["x"][some], w, b)
    for name in ("y", "grad_x"):
        np.testing.assert_allclose(files[name][some], wanted[name], rtol=1e-4, atol=1e-5)
    grad_b = np.zeros(units)
    for first in range(0, rows, block):
        y = files["y"][first : first + block]
        grad_b += np.where(y > 0, y - 1, 0).sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(files["grad_b"][:], grad_b, rtol=1e-3)
    print("\nthe results agree with NumPy's")


# %%
# Workers are new processes. ``client.run`` calls :func:`fastrelu.warmup` in each of them, so that no task waits for a
# compilation. Dask runs one task per core already: with one Numba thread per worker, fastrelu does not start more.


def main(folder):
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.2, (inputs, units)).astype(np.float32)
    b = np.zeros(units, np.float32)
    options = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": limit, "dashboard_address": None}
    with LocalCluster(**options, env={"NUMBA_NUM_THREADS": "1"}) as cluster, Client(cluster) as client:
        client.run(fastrelu.warmup, [fastrelu.relu, fastrelu.relu_backward], ["float32"])

        print("writing the input")
        x = da.random.default_rng(0).random((rows, inputs), chunks=(block, inputs), dtype=np.float32) - 0.5
        files = run(client, {"x": x}, folder)

        print("\nforward and backward")
        x = da.from_zarr(files["x"])
        sampler = MemorySampler()
        with sampler.sample("workers", client=client, measure="process", interval=0.1):
            files |= run(client, layer(x, w, b), folder)
        check(files, w, b)
    return sum(file.nbytes for file in files.values()), sampler.samples["workers"]


# %%
# Each worker process imports the main program again, hence the condition.
if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        total, samples = main(Path(folder))
    times, used = np.array(samples).T
    print(f"{total / 1e6:.0f} MB on disk, at most {used.max() / 1e6:.0f} MB in the workers")
    assert used.max() < workers * limit < total

    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    axis.plot(times - times[0], used / 1e6, color="#0072B2", linewidth=2, label="used by both workers")
    axis.axhline(workers * limit / 1e6, color="#D55E00", linestyle="--", label="limit of both workers")
    axis.axhline(total / 1e6, color="#009E73", linestyle="-.", label="input and results on disk")
    axis.set(title="Forward and backward pass", xlabel="seconds", ylabel="MB", ylim=(0, total / 1e6 * 1.1))
    axis.legend(loc="lower right")
    axis.grid(alpha=0.3)
    plt.show()
