"""How CPU kernels compile: the options, the disk cache, threads, and a user's own @njit code."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import caching

import fastbp.kernels
from fastbp.kernels import codes, cpu
from fastbp.kernels.cpu import jit

KERNELS = Path(fastbp.kernels.__file__).parent

# Runs in a process of its own: sys.path comes from PYTHONPATH.
COUNT_CACHE = """
import json, sys
import numpy as np
from fastbp.kernels import codes, cpu

x, none = -np.ones((3, 3)), np.empty(0)
counts = {}
for name in sys.argv[1:]:
    y = -np.ones((3, 3))
    if name == "dense_forward":
        work = np.empty(cpu.dense_forward_work(3, 3, 3))
        cpu.dense_forward(x, -x, none, codes.LEAKY_RELU, work, y[:0], y)
    else:
        cpu.activate(codes.LEAKY_RELU, y.reshape(-1))
    stats = getattr(cpu, name).stats
    hits, misses = (sum(n.values()) for n in (stats.cache_hits, stats.cache_misses))
    counts[name] = hits, misses, y[0, 0]
print(json.dumps(counts))
"""


@jit.kernel
def is_nan(a):
    return a != a


@jit.kernel
def sum_less_itself(a):
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i]
    return total - total


def square(a):
    return a * a


def test_two_processes_fill_a_cache_at_once(tmp_path):
    one, two = (jit._Files(str(tmp_path), "name", "stamp") for _ in range(2))
    save_data = one._save_data

    def save_after_the_other(name, data):
        two._load_index = dict  # read before this process wrote its own
        two.save("float64", "data of two")
        save_data(name, data)

    one._save_data = save_after_the_other
    one.save("float32", "data of one")
    assert one.load("float64") in (None, "data of two")
    assert one.load("float32") in (None, "data of one")


@numba.njit
def train_step(x, labels, w1, b1, w2, b2, learning_rate):
    """What a user writes: two layers, softmax, one step of gradient descent. Returns the loss."""
    n, (k, h), m = x.shape[0], w1.shape, w2.shape[1]
    y1, z2 = np.empty((n, h), x.dtype), np.empty((n, m), x.dtype)
    dy1, dz2 = np.empty_like(y1), np.empty_like(z2)
    dw1, db1, dw2, db2 = np.empty_like(w1), np.empty_like(b1), np.empty_like(w2), np.empty_like(b2)
    size = max(
        cpu.dense_forward_work(n, k, h),
        cpu.dense_forward_work(n, h, m),
        cpu.dense_backward_work(n, k, h),
        cpu.dense_backward_work(n, h, m),
    )
    work, absent, none = np.empty(size, x.dtype), np.empty((0, 0), x.dtype), np.empty(0, x.dtype)

    cpu.dense_forward(x, w1, b1, codes.TANH, work, absent, y1)
    cpu.dense_forward(y1, w2, b2, codes.IDENTITY, work, absent, z2)
    loss = cpu.sparse_softmax_cross_entropy(z2, labels, none, dz2)
    cpu.dense_backward(dz2, y1, w2, z2, codes.IDENTITY, work, dw2, db2, dy1)
    cpu.dense_backward(dy1, x, w1, y1, codes.TANH, work, dw1, db1, absent)
    cpu.sgd(dw1.ravel(), learning_rate, 0.0, False, w1.ravel(), none)
    cpu.sgd(db1, learning_rate, 0.0, False, b1, none)
    cpu.sgd(dw2.ravel(), learning_rate, 0.0, False, w2.ravel(), none)
    cpu.sgd(db2, learning_rate, 0.0, False, b2, none)
    return loss


def numpy_step(x, labels, w1, b1, w2, b2, learning_rate):
    """The same step in NumPy, with no kernel at all."""
    y1 = np.tanh(x @ w1 + b1)
    e = np.exp(y1 @ w2 + b2)
    p = e / e.sum(axis=1, keepdims=True)
    dz2 = (p - np.eye(len(b2))[labels]) / len(x)
    dz1 = (dz2 @ w2.T) * (1 - y1**2)
    gradients = x.T @ dz1, dz1.sum(axis=0), y1.T @ dz2, dz2.sum(axis=0)
    for parameter, gradient in zip((w1, b1, w2, b2), gradients, strict=True):
        parameter -= learning_rate * gradient
    return -np.log(p[np.arange(len(x)), labels]).mean()


def test_options_keep_nan_and_inf():
    assert jit.OPTIONS["fastmath"] <= {"nsz", "arcp", "contract", "afn"}
    assert jit.OPTIONS["error_model"] == "numpy"
    assert jit.OPTIONS["nogil"] is True


@pytest.mark.parametrize("name", cpu.__all__)
def test_every_kernel_has_the_options_and_the_cache(name):
    dispatcher = getattr(cpu, name)
    options = {key: dispatcher.targetoptions[key] for key in jit.OPTIONS}
    assert options == jit.OPTIONS
    assert isinstance(dispatcher._cache, jit._KernelCache)
    assert dispatcher._cache._impl.locator.get_source_stamp() == jit.source_stamp()


def test_nan_and_inf_survive_the_options(dtype):
    values = np.array([1, np.nan, np.inf], dtype)
    assert [is_nan(v) for v in values] == [False, True, False]
    assert np.isnan(sum_less_itself(values))
    assert np.isnan(sum_less_itself(values[[0, 2]]))  # inf - inf: never folded to 0
    assert sum_less_itself(values[:1]) == 0


def test_user_code_trains_a_network(dtype, close):
    rng = np.random.default_rng(0)
    n, k, h, m = 257, 5, 7, 3
    shapes = [(k, h), (h,), (h, m), (m,)]
    x, labels = rng.standard_normal((n, k)), rng.integers(0, m, n)
    parameters = [rng.standard_normal(shape) / 2 for shape in shapes]
    mine = [a.astype(dtype) for a in parameters]
    for _ in range(3):
        loss = train_step(x.astype(dtype), labels, *mine, 0.5)
        expected = numpy_step(x, labels, *parameters, 0.5)
        close(dtype.type(loss), expected)
    for actual, wanted in zip(mine, parameters, strict=True):
        close(actual, wanted)


def test_threads_at_once_give_the_same_bits(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 64)).astype(dtype)
    w, b = rng.standard_normal((64, 64)).astype(dtype), rng.standard_normal(64).astype(dtype)

    def run(_):
        y, dw, db, dx = np.empty_like(x), np.empty_like(w), np.empty_like(b), np.empty_like(x)
        sizes = cpu.dense_forward_work(300, 64, 64), cpu.dense_backward_work(300, 64, 64)
        work = np.empty(max(sizes), dtype)
        cpu.dense_forward(x, w, b, codes.TANH, work, y[:0], y)
        cpu.dense_backward(x, x, w, y, codes.TANH, work, dw, db, dx)
        return b"".join(a.tobytes() for a in (y, dw, db, dx))

    alone = run(0)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(run, range(30))) == {alone}


def test_source_stamp_covers_every_source(tmp_path, monkeypatch):
    copy = tmp_path / "kernels"
    shutil.copytree(KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    stamp = jit.source_stamp.__wrapped__  # below the cache of one process
    stamps = [stamp()]
    monkeypatch.setattr(jit, "__file__", str(copy / "cpu" / "jit.py"))
    assert stamp() == stamps[0]
    sources = sorted([copy / "codes.py", *(copy / "cpu").glob("*.py")])
    for path in sources:
        path.write_bytes(path.read_bytes() + b"\n")
        stamps.append(stamp())
    assert len(sources) > 5
    assert len(set(stamps)) == len(stamps)


def count_cache(root, cache, *kernels):
    """{kernel: [hits, misses, y[0, 0]]} of one call of each kernel in a new process."""
    env = {**os.environ, "PYTHONPATH": str(root), "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COUNT_CACHE, *kernels],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_second_process_finds_the_cache_until_a_source_changes(tmp_path):
    root, cache = tmp_path / "root", tmp_path / "cache"
    shutil.copytree(KERNELS, root / "fastbp" / "kernels")
    (root / "fastbp" / "__init__.py").touch()
    first = count_cache(root, cache, "dense_forward", "activate")
    assert first == {"dense_forward": [0, 1, -0.03], "activate": [0, 1, -0.01]}
    second = count_cache(root, cache, "dense_forward", "activate")
    assert second == {"dense_forward": [1, 0, -0.03], "activate": [1, 0, -0.01]}

    # A constant in another file than the kernel's.
    with (root / "fastbp" / "kernels" / "codes.py").open("a") as codes_file:
        codes_file.write("LEAKY_SLOPE = 0.5\n")
    assert count_cache(root, cache, "activate") == {"activate": [0, 1, -0.5]}


def test_without_a_writable_folder_kernels_work_and_say_so_once(monkeypatch, recwarn):
    def refuse(self):
        raise OSError("read-only file system")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    jit._warn_uncached.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as warned:
            uncached = jit.kernel(square)
        assert len(warned) == 1
        assert "\n" not in str(warned[0].message)
        again = jit.kernel(square)  # a second warning would be an error
    finally:
        jit._warn_uncached.cache_clear()
    assert not recwarn
    assert uncached(3.0) == again(3.0) == 9.0
