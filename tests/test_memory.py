"""What a call allocates: nothing that grows with the array, where the output is given; and no leak."""

import gc
import os
import sys
import tracemalloc

import numpy as np
import pytest

import fastrelu

N = 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "serial", "parallel"])
def test_calls_with_an_output_allocate_nothing_that_grows(target):
    x, grad, out = (np.zeros((1000, N // 1000), np.float32) for _ in range(3))
    slopes = np.zeros(1000, np.float32)
    calls = [
        lambda: fastrelu.relu(x, out=out, target=target),
        lambda: fastrelu.relu_(x, target=target),
        lambda: fastrelu.leaky_relu_(x, 0.5, target=target),
        lambda: fastrelu.leaky_relu(x, slopes, out=out, target=target),
        lambda: fastrelu.leaky_relu(x, slopes[:, None], out=out, target=target),
        lambda: fastrelu.relu(x.T, out=out, target=target),
        lambda: fastrelu.relu_(x[::2], target=target),
        lambda: fastrelu.relu_backward_(grad, x, target=target),
        lambda: fastrelu.leaky_relu_backward(grad.T, x, 0.5, out=out, target=target),
        lambda: fastrelu.relu(x.astype(">f4")[:1], out=out[:1], target=target),
        lambda: fastrelu.leaky_relu_(x.astype(np.float16)[:2], 0.5, target=target),
    ]
    for k, call in enumerate(calls):
        call()
        gc.collect()
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        allowed = 100_000 + (k >= 9) * 2 * x.nbytes  # the last two make their own input
        assert peak < allowed, (k, peak)


def test_converted_input_needs_only_buffers():
    x, out = np.zeros(4 * N, np.int8), np.zeros(4 * N)
    fastrelu.leaky_relu(x, 0.5, out=out)
    tracemalloc.start()
    fastrelu.leaky_relu(x, 0.5, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_no_leak():
    """References and blocks stay level over calls of every kind, errors included."""
    x, out = np.zeros(10), np.zeros(10)

    def rounds(count):
        for _ in range(count):
            fastrelu.relu(x)
            fastrelu.relu(x, out=out)
            fastrelu.leaky_relu(x, 0.3)
            fastrelu.leaky_relu(x, negative_slope=0.3)
            fastrelu.leaky_relu_backward_(out, x, 0.1)
            fastrelu.relu([1.0, -1.0])
            # (no `out` of a wrong shape here: NumPy 2.4 itself loses a reference to the dtype then, np.negative too)
            for bad in (lambda: fastrelu.relu("x"), lambda: fastrelu.relu_(1)):
                with pytest.raises((TypeError, ValueError)):
                    bad()

    rounds(20)
    gc.collect()
    references = sys.getrefcount(x), sys.getrefcount(x.dtype), sys.getrefcount(out)
    blocks = sys.getallocatedblocks()
    rounds(300)
    gc.collect()
    assert (sys.getrefcount(x), sys.getrefcount(out)) == (references[0], references[2])
    assert abs(sys.getrefcount(x.dtype) - references[1]) < 20
    assert sys.getallocatedblocks() - blocks < 300


def _available():
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), [("int8", 2**31 + 1001), ("float32", 2**29 + 1001)])
def test_more_than_two_to_the_31(dtype, size):
    """Elements, then bytes: an index of 32 bits would come back to the beginning."""
    if _available() < 3 * 2**31:
        pytest.skip("needs 6 GiB of memory")
    x = np.zeros(size, dtype)
    for target in ("serial", "parallel"):
        for part, step in ((x, 1), (x[::2], 2)):
            places = [0, 1, size // step // 2, size // step - 2]
            part[places] = [-1, 5, -1, 7]
            assert fastrelu.relu_(part, target=target) is part
            assert part[places].tolist() == [0, 5, 0, 7]
            assert np.count_nonzero(x) == 2
            part[places] = 0
