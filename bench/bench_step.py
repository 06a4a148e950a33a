"""A full training step through the Layer API: forward, loss, backward, gradient descent.

Besides pytest-benchmark's own figures, which time one contender after the other, every result
carries the medians of short blocks of steps in turn: a disturbance of the machine then hits both.
bench/table.py writes those into README.md.
"""

import time

import numpy as np
import pytest

import fastbp

pytestmark = pytest.mark.benchmark(warmup=True, warmup_iterations=3, min_rounds=5, max_time=0.4)

BLOCKS = 21
BLOCK_SECONDS = 0.015
LOSS = "softmax_cross_entropy"
in_turn = {}  # case: what `take_turns` measured, once for both contenders


class Step:
    """A network, a batch, and the call that is timed."""

    def __init__(self, device, sizes, n):
        rng = np.random.default_rng(0)
        layers = [
            fastbp.Dense(k, m, activation="identity" if last else "relu", rng=rng)
            for k, m, last in zip(
                sizes, sizes[1:], [False] * (len(sizes) - 2) + [True], strict=False
            )
        ]
        self.net = fastbp.Sequential(*layers, device=device)
        self.optimizer = fastbp.SGD(0.01)
        self.x = rng.standard_normal((n, sizes[0]), np.float32)
        self.t = rng.integers(0, sizes[-1], n)

    def __call__(self):
        return self.net.train_step(self.x, self.t, LOSS, self.optimizer)


def take_turns(steps):
    """Microseconds per step, by contender: medians of blocks taken in turn; and their ratio."""
    counts = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        counts[name] = max(1, round(BLOCK_SECONDS / (time.perf_counter() - start)))
    times = {name: [] for name in steps}
    for block in range(BLOCKS):
        names = list(steps) if block % 2 else list(steps)[::-1]
        for name in names:
            steps[name]()  # untimed: the other contender has the caches
            start = time.perf_counter()
            for _ in range(counts[name]):
                steps[name]()
            times[name].append((time.perf_counter() - start) / counts[name] * 1e6)
    return {name: float(np.median(column)) for name, column in times.items()} | {
        "ratio": float(np.median(np.divide(times["NumPy"], times["fastbp"])))
    }


def bench_step(measured, case, case_name, contender, agree):
    measured.group = f"training step, {case_name}"
    steps = {"NumPy": Step("reference", *case), "fastbp": Step("cpu", *case)}
    losses = {name: [step() for _ in range(3)] for name, step in steps.items()}
    agree([np.array(losses["fastbp"])], [np.array(losses["NumPy"])])
    parameters = [steps[name].net.parameters for name in ("fastbp", "NumPy")]
    agree(parameters[:1], parameters[1:])
    if case not in in_turn:
        in_turn[case] = take_turns(steps)
    measured.extra_info["in_turn"] = in_turn[case]
    measured(steps[contender])
