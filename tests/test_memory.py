"""How much memory a training takes: what is said of it, and that it holds."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastbp
from fastbp import scratch
from fastbp.kernels import cpu

BUDGET = """
import resource, sys
import numpy as np
import fastbp

ROWS, FEATURES, BATCH = 1_000_000, 784, 1024
x = np.lib.format.open_memmap(sys.argv[1], "w+", np.float32, (ROWS, FEATURES))  # a file of holes
x[-1] = 1
x.flush()
x = np.load(sys.argv[1], mmap_mode="r")
t = np.zeros(ROWS, np.uint8)
layers = fastbp.Dense(FEATURES, 8, activation="relu", rng=0), fastbp.Dense(8, 2, rng=0)
net = fastbp.Sequential(*layers)
net.fit(x[:BATCH], t[:BATCH], loss="softmax_cross_entropy", epochs=1, batch_size=BATCH)  # compiled

def data():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024

budget = net.memory(BATCH, ROWS).fit + 2**22
assert budget < 2**25 < x.nbytes / 90
resource.setrlimit(resource.RLIMIT_DATA, (data() + budget, resource.RLIM_INFINITY))
try:
    np.ones(2 * budget, np.uint8)
    raise SystemExit("no limit")
except MemoryError:
    pass
history = net.fit(x, t, loss="softmax_cross_entropy", epochs=1, batch_size=BATCH, seed=0)
assert history.loss[0] < 0.5, history
"""


def test_a_million_rows_from_a_file_within_a_budget(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux limits what a process takes beside mapped files")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", BUDGET, str(tmp_path / "x.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.stderr == "no limit\n":
        pytest.skip("this system does not limit what a process takes")
    assert done.returncode == 0, done.stderr


def net(device="cpu"):
    layers = fastbp.Dense(10, 600, activation="silu"), fastbp.Dropout(0.1), fastbp.Dense(600, 3)
    return fastbp.Sequential(*layers, device=device)


def test_bytes_of_each_part():
    size = 10 * 600 + 600 + 600 * 3 + 3
    told = net().memory(100, rows=1000, optimizer="adam")
    assert told.network == 2 * 4 * size
    assert told.state == 2 * 4 * size
    assert told.kept == 100 * 4 * (2 * 600 + 600 + 3)  # z and y of silu, the mask's product, y
    assert told.batch == 100 * 4 * (10 + 3 + 1)
    assert told.copies == 2 * 4 * 3 * size + 8 * 1000
    assert told.step == told.network + told.state + told.work
    assert told.fit == told.step + told.batch + told.copies
    assert net().memory(100, optimizer=fastbp.SGD(0.1)).state == 0


def test_work_is_that_of_the_kernel_and_of_one_panel():
    mine = net()
    assert mine.memory(64).work == 4 * cpu.network_work(64, mine.plans[False].table)
    assert mine.memory(512).work == mine.memory(10**6).work
    assert mine.memory(10**6).kept > 50 * mine.memory(10**6).work


def deep():
    layers = (fastbp.Dense(64, 64, activation="relu", rng=i) for i in range(32))
    return fastbp.Sequential(*layers)


def test_recomputing_takes_less():
    told, other = deep().memory(512), deep().memory(512, recompute=True)
    assert (told.work, other.work) == (told.keeping, told.recomputing)
    assert (other.keeping, other.recomputing) == (told.keeping, told.recomputing)
    assert told.fit - other.fit == told.work - other.work
    activations = 4 * 512 * 64
    assert told.keeping - told.recomputing == (32 - 10) * activations
    assert told.recomputing < told.keeping / 2


@pytest.mark.parametrize("recompute", [False, True])
def test_a_training_takes_the_scratch_that_was_told(recompute, monkeypatch):
    monkeypatch.setattr(scratch, "_buffers", threading.local())
    mine, x = deep(), np.ones((512, 64), np.float32)
    mine.fit(x, x, loss="huber", epochs=1, batch_size=512, seed=0, recompute=recompute)
    assert scratch._buffers.f.nbytes == mine.memory(512, recompute=recompute).work
    mine.predict(x)
    mine.evaluate(x, x)
    assert scratch._buffers.f.nbytes == mine.memory(512, recompute=recompute).work


@pytest.mark.parametrize(("batch_size", "rows"), [(0, 0), (1, -1)])
def test_wrong_counts(batch_size, rows):
    with pytest.raises(ValueError, match="expected an integer >="):
        net().memory(batch_size, rows)
