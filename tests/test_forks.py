"""Forked processes, as servers and data loaders make them. Each test runs in a process of its own."""

import os

import pytest

from .children import CHECK, FORKING, LAYERS, python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

FORK = CHECK + FORKING


@LAYERS
def test_forks_before_during_and_after_parallel_use(layer):
    """Children and their children call everything; the parent stays parallel."""
    python(
        FORK
        + """
import fastrelu
from fastrelu._runtime import tuning
LAYER = "the layer"
parallel = "serial" if LAYER == "workqueue" else "parallel"
survives = "parallel" if LAYER == "tbb" else "serial"

def child(wanted, generations=2):
    assert not any(table.busy for table in tuning.settings.tables.values())
    for n in (10, 40_000, 300_000):
        check(n, names=["relu", "leaky_relu_backward"])
    check(1000)
    here = explained()
    assert here.target == wanted, here
    x = np.full(300_000, -1.0)
    if wanted == "parallel":
        check(300_000, names=["relu"], target="parallel")
    else:
        assert here.refused["parallel"]
        try:
            fastrelu.relu(x, target="parallel")
        except RuntimeError:
            pass
        else:
            raise AssertionError("forced parallel where that kills")
    if generations > 1:
        wait(fork(child, survives, generations - 1))

wait(fork(child, parallel))  # nothing has run here yet: the child is as any first process
check(10)
wait(fork(child, parallel))
check(300_000)
wait(fork(child, survives))

stop = False
def busy():
    while not stop:
        check(300_000, names=["relu"])
        if parallel == "parallel":
            check(300_000, names=["relu"], target="parallel")
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(3):
    time.sleep(0.01)
    wait(fork(child, survives, 1))
stop = True
for thread in threads: thread.join()

# TBB stops its threads only before a fork by the main thread
forker = threading.Thread(target=lambda: pids.append(fork(child, "serial", 1)))
pids = []
forker.start()
forker.join()
wait(*pids)

check(300_000)
assert explained().target == parallel
""".replace("the layer", layer),
        layer=layer,
    )


@LAYERS
def test_forks_from_threads_while_others_call(layer):
    """No child hangs, though it holds copies of what threads that it does not have had taken."""
    python(
        FORK
        + """
import fastrelu
check(300_000, names=["relu"])
stop, failures = False, []
def busy():
    while not stop:
        check(300_000, names=["relu"])
def forking():
    try:
        for _ in range(3):
            wait(fork(child))
    except BaseException as failure:
        failures.append(failure)
def child():
    signal.alarm(10)
    for n in (10, 300_000): check(n, names=["relu", "leaky_relu"])
threads = [threading.Thread(target=busy) for _ in range(2)]
forkers = [threading.Thread(target=forking) for _ in range(3)]
for thread in threads + forkers: thread.start()
for thread in forkers: thread.join()
stop = True
for thread in threads: thread.join()
assert not failures, failures
check(300_000)
assert explained().target == "parallel" or "workqueue" in explained().refused["parallel"]
""",
        layer=layer,
    )


@LAYERS
def test_forks_say_nothing(layer):
    """Neither does Numba, which complains of forks by any thread but the one that started TBB."""
    result = python(
        FORK
        + """
check(300_000, names=["relu"])
wait(fork(check, 300_000))
""",
        layer=layer,
    )
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("layer", ["omp"])
def test_a_server_that_forks_its_workers(layer):
    """As gunicorn does with a preloaded application: warm parent, four workers, and one that dies is replaced."""
    python(
        FORK
        + """
import socket
import fastrelu
check(300_000)

def serve(connection):
    signal.alarm(0)
    with connection, connection.makefile("rwb") as stream:
        while size := int.from_bytes(stream.read(8), "little"):
            x = np.frombuffer(stream.read(size), np.float32)
            stream.write(fastrelu.leaky_relu(x, 0.5).tobytes())
            stream.flush()

class Worker:
    def __init__(self):
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        def work():
            ours.close()
            serve(theirs)
        self.pid = fork(work)
        theirs.close()
        self.socket, self.stream = ours, ours.makefile("rwb")
    def ask(self, n):
        x = (np.arange(n) % 7 - 3).astype(np.float32)
        self.stream.write(x.nbytes.to_bytes(8, "little") + x.tobytes())
        self.stream.flush()
        y = np.frombuffer(self.stream.read(x.nbytes), np.float32)
        assert np.array_equal(y, np.where(x < 0, x * np.float32(0.5), x)), n
    def end(self):
        self.stream.write(bytes(8))
        self.stream.close()
        self.socket.close()
        wait(self.pid)

workers = [Worker() for _ in range(4)]
def traffic():
    for n in (3, 1000, 300_000, 7):
        for worker in workers: worker.ask(n)
        check(n, names=["leaky_relu"])
for _ in range(3):
    traffic()
    victim = workers.pop(0)
    os.kill(victim.pid, signal.SIGKILL)
    assert os.waitpid(victim.pid, 0)[1] == signal.SIGKILL
    workers.append(Worker())
traffic()
for worker in workers: worker.end()
check(300_000)
assert explained().target == "parallel"
""",
        layer=layer,
    )


def test_forkserver_that_has_imported_us():
    """Its children were forked before anything ran in parallel, and their own children after."""
    python(
        """
        import concurrent.futures, multiprocessing, numpy as np, fastrelu
        if __name__ == "__main__":
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["fastrelu"])
            fastrelu.relu(np.zeros(1_000_000))
            x = np.arange(500_000) % 7 - 3.0
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                assert str(pool.submit(fastrelu.explain, fastrelu.relu, x).result()) == str(
                    fastrelu.explain(fastrelu.relu, x)
                )
                for result in pool.map(fastrelu.relu, [x] * 8):
                    assert np.array_equal(result, np.maximum(x, 0))
        """
    )


def test_torch_data_loader():
    """Worker processes forked by PyTorch, which has an OpenMP runtime of its own; then the parent goes on."""
    pytest.importorskip("torch")
    python(
        FORK
        + """
import torch, fastrelu
from torch.utils.data import DataLoader, Dataset
check(300_000)
class Rectified(Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, k):
        x = (np.arange(300_000, dtype=np.float32) % 7 - 3) * (k + 1)
        return k, torch.from_numpy(fastrelu.relu(x)), fastrelu.leaky_relu(torch.from_numpy(x), 0.5)
for epoch in range(2):
    seen = 0
    for numbers, rectified, leaky in DataLoader(Rectified(), batch_size=3, num_workers=2, timeout=60):
        for k, y, z in zip(numbers, rectified, leaky):
            x = (torch.arange(300_000) % 7 - 3).float() * (k + 1)
            assert torch.equal(y, torch.relu(x)) and torch.equal(z, torch.where(x < 0, x * 0.5, x))
            seen += 1
        assert torch.equal(fastrelu.relu(rectified - 1), torch.relu(rectified - 1))
    assert seen == 12
check(300_000)
assert explained().target == "parallel"
""",
        layer="omp",
    )
