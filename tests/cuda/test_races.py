"""No two threads touch a number without a barrier between them, if one of them writes it.

The simulator hardly ever interleaves threads, so a missing barrier would not show in results. Here
it records who reads and writes what: in shared memory and in every array, by thread and by the
number of barriers that the thread has passed. Between blocks of a launch there is no barrier.
"""

import threading

import numpy as np
import pytest

from fastbp.kernels import codes, cuda
from fastbp.kernels.cuda import dense, target
from fastbp.kernels.cuda.launch import using

pytestmark = [
    pytest.mark.skipif(not target.SIMULATED, reason="compute-sanitizer does this on a GPU"),
]


class Recorder:
    """Accesses of one launch after the other, and the races among them."""

    def __init__(self):
        self.races, self.barriers, self.accesses, self.lock = [], {}, {}, threading.Lock()

    def forget(self):
        self.barriers, self.accesses = {}, {}

    def barrier(self):
        thread = threading.current_thread()
        self.barriers[thread] = self.barriers.get(thread, 0) + 1

    def access(self, memory, index, writes):
        thread = threading.current_thread()
        if not hasattr(thread, "blockIdx"):
            return  # the host
        me = block, _ = tuple(thread.blockIdx), tuple(thread.threadIdx)
        now = self.barriers.get(thread, 0)
        with self.lock:
            known = self.accesses.setdefault((memory, index), {})
            for other, (then, wrote, wrote_then) in known.items():
                apart = other[0] != block
                theirs = wrote if apart else wrote_then and then == now
                together = apart or then == now
                if other != me and (theirs or (writes and together)):
                    self.races.append((memory, index, other, me))
            then, wrote, wrote_then = known.get(me, (now, False, False))
            known[me] = now, wrote or writes, writes or (wrote_then and then == now)


class Recorded(np.ndarray):
    """Shared memory that tells the recorder of its block what happens to each of its numbers."""

    def _index(self, index):
        index = index if isinstance(index, tuple) else (index,)
        return tuple(int(i) for i in index)

    def __getitem__(self, index):
        self.recorder.access(self.name, self._index(index), False)
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        self.recorder.access(self.name, self._index(index), True)
        super().__setitem__(index, value)


@pytest.fixture
def recorder(monkeypatch):
    """Records every launch of a test, and finds no race in it."""
    from numba.cuda.simulator import kernel as simulated
    from numba.cuda.simulator.cudadrv.devicearray import FakeWithinKernelCUDAArray as Array

    recorder, make, run = Recorder(), target._Shared.at, simulated.BlockManager.run
    wait, read, write = simulated.BlockThread.syncthreads, Array.__getitem__, Array.__setitem__

    def shared_array(memory, caller, shape, dtype):
        plain = make(memory, caller, shape, dtype)
        array = plain.view(Recorded)
        block = tuple(threading.current_thread().blockIdx)
        array.recorder, array.name = recorder, (block, plain.__array_interface__["data"][0])
        return array

    def place(array, index):
        base = array._item._ary
        index = tuple(map(int, index)) if isinstance(index, tuple) else (int(index),)
        return base.__array_interface__["data"][0] + int(np.dot(index, base.strides))

    def syncthreads(thread):
        recorder.barrier()
        wait(thread)

    def getitem(array, index):
        if np.ndim(index) == 0 or isinstance(index, tuple):
            recorder.access("global", place(array, index), False)
        return read(array, index)

    def setitem(array, index, value):
        recorder.access("global", place(array, index), True)
        write(array, index, value)

    def run_block(manager, point, *arguments):
        if not any(point):
            recorder.forget()  # a new launch
        run(manager, point, *arguments)

    monkeypatch.setattr(target._Shared, "at", shared_array)
    monkeypatch.setattr(simulated.BlockThread, "syncthreads", syncthreads)
    monkeypatch.setattr(simulated.BlockManager, "run", run_block)
    monkeypatch.setattr(Array, "__getitem__", getitem)
    monkeypatch.setattr(Array, "__setitem__", setitem)
    yield recorder
    assert recorder.races == []


def operands(*shapes):
    rng = np.random.default_rng(0)
    return [target.host.to_device(rng.standard_normal(s).astype(np.float32)) for s in shapes]


@pytest.mark.parametrize(
    ("shape", "precision"),
    [((9, 9, 8), "float32"), ((5, 4, 3), "float32"), ((9, 17, 12), "float32"),
     ((17, 18, 19), "bf16")],
    ids=str,
)  # fmt: skip
def test_a_layer(shape, precision, recorder):
    n, k, m = shape
    x, w, b, dy, y, dx = operands((n, k), (k, m), m, (n, m), (n, m), (n, k))
    work, dw, db, z = operands(max(dense.dense_backward_work(*shape), 1), (k, m), m, (n, m))
    with using(precision=precision):
        cuda.dense_forward(x, w, b, codes.GELU, work[:0], z, y)
        cuda.dense_backward_add(dy, x, w, z, codes.GELU, work, dw, db, dx)
        cuda.dense_backward(dy, x, w, z, codes.IDENTITY, work, dw, db, dx)


@pytest.mark.parametrize("name", ["squared_error", "softmax_cross_entropy"])
def test_losses_and_sums(name, recorder):
    y, t, s, dy, w, dw = operands((13, 3), (13, 3), 13, (13, 3), 30, 30)
    getattr(cuda, name)(y, t, s, dy)
    labels = target.host.to_device(np.arange(13) % 3)
    cuda.sparse_softmax_cross_entropy(y, labels, s[:0], dy)
    cuda.softmax(y, dy)
    cuda.l2_penalty(w, 0.1, dw)
    cuda.clip_by_global_norm(0.1, dw)
    cuda.adam(dw, 0.1, 0.9, 0.999, 1e-8, 1, w, *operands(30, 30))


@pytest.mark.parametrize("labels", [True, False])
def test_a_narrow_network(labels, recorder):
    table = np.array([
        [codes.DENSE, 3, 5, codes.TANH, 0, 25, 0, -1, -1, -1],
        [codes.DROPOUT, 5, 5, -1, -1, -1, 5, -1, 7, -1],
        [codes.DENSE, 5, 2, codes.IDENTITY, 15, 30, 10, -1, -1, -1],
    ])  # fmt: skip
    x, numbers, s, parameters, gradients = operands((14, 3), (14, 2), 14, 32, 32)
    t = target.host.to_device(np.arange(14) % 2) if labels else numbers
    loss = codes.SPARSE_SOFTMAX_CROSS_ENTROPY if labels else codes.HUBER
    recipe = np.array([loss, codes.NO_CLIP, codes.SGD, 0, 25])
    (work,) = operands(cuda.network_work(14, table))
    settings, none = np.array([1.0, 0.1, 0, 0.1, 0, 0, 0, 0, 0, 0.4, 0]), gradients[:0]
    cuda.network_step(x, t, s, table, recipe, settings, work, gradients, parameters, none, none)


def test_the_recorder_sees_a_missing_barrier(monkeypatch, recorder):
    def without_barrier(out):
        shared = target.cuda.shared.array(4, np.float32)
        t = target.cuda.threadIdx.x
        shared[t] = t
        out[t] = shared[3 - t]

    def between_blocks(out):
        out[0] += 1

    (out,) = operands(4)
    for kernel, grid, threads in ((without_barrier, 1, 4), (between_blocks, 2, 1)):
        target.host.jit(kernel)[grid, threads](out)
        assert recorder.races
        recorder.races = []
