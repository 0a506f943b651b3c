"""What a call on a GPU costs the host before the driver has it: ``python bench/cuda_host.py``. No GPU is needed.

The driver is the tests' emulated one (``tests/cuda/emulator``: Linux, a C compiler, numba-cuda), whose launches do
nothing here. Tensors of torch, where it is installed, are in host memory and pass for a GPU's, so that they are asked
what a GPU's would be. Medians of interleaved rounds, in microseconds. A real driver's own time comes on top, for
everyone.
"""

import functools
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.cuda import emulator

driver = emulator.install()

import fastrelu
from fastrelu._call import dispatch
from fastrelu._cuda import elementwise, libraries, quick
from fastrelu._cuda.elementwise_kernels import ElementwiseSpec
from fastrelu._cuda.grids import Grid
from fastrelu._cuda.launcher import prepared
from fastrelu._cuda.numba_cuda import cuda

N, ROUNDS, CALLS = 1000, 15, 500


def numba_cases():
    """Return what is timed on Numba's arrays, by name."""

    @cuda.jit
    def plain(x, out):
        k = cuda.grid(1)
        if k < x.size:
            out[k] = max(x[k], 0)

    x, out, grid = cuda.to_device(np.ones(N, "f")), cuda.device_array(N, "f"), Grid(8, 128)
    launch = prepared(ElementwiseSpec("relu", "f", ("array",), ("f",), "f", 1))
    pointer, target = (each.__cuda_array_interface__["data"][0] for each in (x, out))
    return {
        "a prepared launch": lambda: launch(grid, 0, 0, pointer, target, N, 0),
        "Numba's launch, plain[8, 128](x, out)": lambda: plain[8, 128](x, out),
        "Numba's device_array": lambda: cuda.device_array(N, "f"),
        "relu(x, out=y), Numba": lambda: fastrelu.relu(x, out=out),
        "relu(x), Numba": lambda: fastrelu.relu(x),
        "relu(x, out=y), the general way": lambda: elementwise.call("relu", [x], out, {}),
    }


def torch_cases():
    """Return what is timed on torch's tensors, by name."""
    try:
        import torch
    except ImportError:
        return {}
    dtypes = fastrelu._arrays.tensors.dtypes()

    forward = torch.autograd.forward_ad

    def facts(value):  # those of `quick`, but that the tensor need not be on a GPU
        try:
            if (
                value.requires_grad or value.is_cuda or not value.is_contiguous() or value.is_neg() or value.is_nested
                or forward._current_level >= 0
            ):  # fmt: skip
                return None
            dtype = dtypes.get(value.dtype)
            return None if dtype is None else (value.data_ptr(), value.numel(), dtype, value.get_device() + 1)
        except RuntimeError:
            return None

    ways = quick.Ways(libraries.TORCH, facts, lambda device: 0, torch.empty_like)
    dispatch._quick[torch.Tensor] = functools.partial(quick.attempt, ways)
    x, grad, out = torch.ones(N), torch.ones(N), torch.empty(N)
    return {
        "relu(x, out=y), torch": lambda: fastrelu.relu(x, out=out),
        "relu_(x), torch": lambda: fastrelu.relu_(x),
        "relu(x), torch": lambda: fastrelu.relu(x),
        "leaky_relu_backward(g, x, 0.1, out=y), torch": lambda: fastrelu.leaky_relu_backward(grad, x, 0.1, out=out),
    }


def main():
    """Time and print."""
    warnings.simplefilter("ignore")  # Numba's, of small grids
    cases = numba_cases()
    for case in cases.values():  # compiles
        case()
    cuda.synchronize()
    driver.emulator_idle(1)
    for name, case in torch_cases().items():
        case()
        cases[name] = case
    times = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                case()
            times[name].append((time.perf_counter() - start) / CALLS)
    for name, each in times.items():
        print(f"{name:48} {1e6 * statistics.median(each):6.1f} us")


if __name__ == "__main__":
    main()
