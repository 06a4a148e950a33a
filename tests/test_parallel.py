"""Choosing the number of threads."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastbp
from fastbp import info, parallel
from fastbp.kernels.cpu import threads


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    before = fastbp.get_num_threads()
    yield
    fastbp.set_num_threads(before)


def test_set_and_get():
    fastbp.set_num_threads(3)
    assert fastbp.get_num_threads() == threads.count() == 3
    fastbp.set_num_threads(1)
    assert fastbp.get_num_threads() == threads.count() == 1


@pytest.mark.parametrize(
    ("count", "error", "text"),
    [
        (0, ValueError, "count: expected an integer >= 1, got 0"),
        (-2, ValueError, "count: expected an integer >= 1, got -2"),
        (1.5, TypeError, "count: expected an integer, got float"),
        (True, TypeError, "count: expected an integer, got bool"),
    ],
)
def test_bad_counts(count, error, text):
    with pytest.raises(error, match=text):
        fastbp.set_num_threads(count)


def test_training_is_the_same_bits_for_every_number_of_threads():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((500, 200)), rng.standard_normal((500, 3))
    losses = []
    for count in (1, 2, 4):
        fastbp.set_num_threads(count)
        net = fastbp.Sequential(
            fastbp.Dense(200, 300, activation="tanh", dtype="float64", rng=0),
            fastbp.Dense(300, 3, dtype="float64", rng=1),
        )
        losses.append(net.fit(x, t, loss="squared_error", epochs=2, batch_size=250, seed=0).loss)
    assert losses[0] == losses[1] == losses[2]


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_info_tells_the_threads_that_run(monkeypatch):
    monkeypatch.setattr(threads, "MOST_WORKERS", 1)
    fastbp.set_num_threads(9)
    assert info.collect()["threads"] == 2


def test_environment_variable():
    code = "import fastbp; fastbp.Sequential(fastbp.Dense(1, 1)); print(fastbp.get_num_threads())"
    assert run(code, FASTBP_NUM_THREADS="3").stdout == "3\n"


@pytest.mark.parametrize("asked", ["0", "-1", "many", "", "٣"])
def test_bad_environment_variable(asked):
    ended = run("import fastbp; fastbp.Sequential(fastbp.Dense(1, 1))", FASTBP_NUM_THREADS=asked)
    assert f"FASTBP_NUM_THREADS: expected an integer >= 1, got {asked!r}" in ended.stderr


def test_first_calls_of_many_threads_start_the_pool_once(monkeypatch):
    started = []

    def start(count):
        time.sleep(0.05)  # in which the others come
        started.append(count)

    monkeypatch.setenv("FASTBP_NUM_THREADS", "3")
    monkeypatch.setattr(parallel, "_wanted", None)
    monkeypatch.setattr(parallel.engines, "load", lambda count: None)
    monkeypatch.setattr(parallel.threads, "start", start)
    monkeypatch.setattr(parallel.threads, "count", lambda: started[-1] if started else 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: parallel.start_threads(), range(8)))
    assert started == [3]
