"""The thread pool of the CPU kernels: same bits for every number of threads, no way to hang."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fastbp.kernels import codes, cpu
from fastbp.kernels.cpu import engines, threads, tiled

# (n, k, m), all cut into tasks
SHAPES = [
    (300, 400, 500), (1000, 130, 67), (64, 1100, 310), (20, 784, 128), (1000, 300, 3),
    (999, 300, 99),
]  # fmt: skip


@pytest.fixture
def pool():
    """`threads.start`, with the pool as it was afterwards."""
    before = threads.count()
    yield threads.start
    threads.start(before)


@pytest.fixture(scope="module")
def layers():
    """Operands of one layer per shape and dtype."""
    rng = np.random.default_rng(0)
    result = []
    for n, k, m in SHAPES:
        for dtype in (np.float32, np.float64):
            shapes = (n, k), (k, m), (m,), (n, m)
            result.append([rng.standard_normal(shape).astype(dtype) for shape in shapes])
    return result


def forward_and_backward(x, w, b, dy):
    """[y, dw, db, dx] of a gelu layer, from outputs that hold NaN."""
    (n, k), m = x.shape, w.shape[1]
    y, z, dw, db, dx = (np.full_like(like, np.nan) for like in (dy, dy, w, b, x))
    work = np.full(cpu.dense_forward_work(n, k, m), np.nan, x.dtype)
    cpu.dense_forward(x, w, b, codes.GELU, work, z, y)
    work = np.full(cpu.dense_backward_work(n, k, m), np.nan, x.dtype)
    cpu.dense_backward(dy, x, w, z, codes.GELU, work, dw, db, dx)
    return [y, dw, db, dx]


@pytest.fixture(params=["tiles", "blas"])
def engine(request):
    """The tests run on each engine."""
    engines.choices[...] = -1 if request.param == "blas" else 0
    yield request.param
    engines.choices[...] = 0


@pytest.mark.usefixtures("engine")
def test_results_are_the_same_bits_for_every_number_of_threads(pool, layers):
    pool(1)
    alone = [forward_and_backward(*layer) for layer in layers]
    for count in (2, 3, 5):
        pool(count)
        assert threads.count() == count
        for layer, expected in zip(layers, alone, strict=True):
            for got, want in zip(forward_and_backward(*layer), expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_what_a_thread_packs_for_itself_fits_its_arena():
    assert 8 * (tiled.SCRATCH + tiled.OWN) <= threads.ARENA_BYTES


def test_start_and_stop_make_and_end_workers(pool):
    def workers():
        return [thread.name for thread in threading.enumerate() if "fastbp-" in thread.name]

    pool(3)
    assert workers() == ["fastbp-1", "fastbp-2"]
    pool(1)
    assert workers() == []


def test_eight_python_threads_at_once(pool, layers):
    pool(2)
    expected = [forward_and_backward(*layer) for layer in layers]
    wrong = []

    def many():
        for _ in range(3):
            for layer, want in zip(layers, expected, strict=True):
                got = forward_and_backward(*layer)
                wrong.extend(1 for a, b in zip(got, want, strict=True) if not np.array_equal(a, b))

    callers = [threading.Thread(target=many) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
        assert not caller.is_alive(), "a kernel hangs"
    assert not wrong


def test_the_pool_can_be_resized_while_kernels_run(pool, layers):
    pool(2)
    expected = forward_and_backward(*layers[0])
    results = []

    def many():
        results.extend(forward_and_backward(*layers[0]) for _ in range(20))

    caller = threading.Thread(target=many)
    caller.start()
    for count in (1, 3, 2, 1, 4) * 4:
        pool(count)
    caller.join(timeout=120)
    assert not caller.is_alive()
    for got in results:
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_change_of_the_pool_and_a_job_take_turns(pool, layers, monkeypatch):
    pool(2)
    expected = forward_and_backward(*layers[0])
    words = threads._pool
    words[threads.BUSY] = 1  # a job
    change = threading.Thread(target=threads.start, args=(3,))
    change.start()
    change.join(timeout=0.05)
    assert change.is_alive()
    assert threads.count() == 2
    words[threads.BUSY] = 0
    change.join(timeout=60)
    assert threads.count() == 3

    busy = []

    def begin(workers):  # while the pool is changed, a job runs on its caller alone
        busy.append(words[threads.BUSY])
        for got, wanted in zip(forward_and_backward(*layers[0]), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
        busy.append(words[threads.BUSY])

    with monkeypatch.context() as patched:
        patched.setattr(threads, "_begin_workers", begin)
        threads.start(2)
    assert busy == [1, 1]
    assert words[threads.BUSY] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_computes_alone():
    code = """
import os, sys
import numpy as np, fastbp
x = np.random.default_rng(0).standard_normal((512, 512))
fastbp.set_num_threads(2)
before = fastbp.functional.dense_forward(x, x)[0]
child = os.fork()
if child == 0:
    fastbp.functional.dense_forward(x, x)  # the pool's workers did not survive the fork
    same = np.array_equal(fastbp.functional.dense_forward(x, x)[0], before)
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    # Python 3.12 warns of any fork with threads; that it works here is what is tested.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


def test_a_process_with_workers_ends(tmp_path):
    code = "import fastbp; fastbp.set_num_threads(3); print('done')"
    ended = subprocess.run(
        [sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True
    )
    assert ended.stdout == "done\n"
    assert ended.stderr == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux places threads")
def test_a_woken_worker_keeps_away_from_the_processor_of_the_caller(pool, layers):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor")
    pool(2)
    (worker,) = threads._workers
    try:
        for here in sorted(allowed)[:2]:
            os.sched_setaffinity(0, {here})
            deadline = time.monotonic() + 60
            while threads._pool[threads.SLEEPERS] == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
            forward_and_backward(*layers[0])
            chosen = threads._pool[threads.CHOSEN : threads.CHOSEN + threads.MASK_WORDS]
            np.testing.assert_array_equal(chosen, threads._mask(allowed - {here}))
            while os.sched_getaffinity(worker.native_id) != allowed:  # awake it may go anywhere
                assert time.monotonic() < deadline
    finally:
        os.sched_setaffinity(0, allowed)
