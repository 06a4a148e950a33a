"""The dense kernels alone, forward and backward: all layers of a network, no Python above them."""

import numpy as np
import pytest

from fastbp.kernels import codes, cpu, reference

DTYPE = np.float32
pytestmark = pytest.mark.benchmark(warmup=True, warmup_iterations=3, min_rounds=5, max_time=0.4)


class Layers:
    """Arrays of a network's layers, the same numbers for every twin, and calls of its kernels."""

    def __init__(self, kernels, sizes, n):
        self.kernels = kernels
        rng = np.random.default_rng(0)
        self.layers = []
        x = rng.standard_normal((n, sizes[0]), DTYPE)
        for i in range(len(sizes) - 1):
            k, m = sizes[i], sizes[i + 1]
            w = rng.standard_normal((k, m), DTYPE) * DTYPE(np.sqrt(2 / k))
            b = rng.standard_normal(m, DTYPE)
            code = codes.RELU if i < len(sizes) - 2 else codes.IDENTITY
            forward_work = np.empty(kernels.dense_forward_work(n, k, m), DTYPE)
            work = np.empty(kernels.dense_backward_work(n, k, m), DTYPE)
            y = np.empty((n, m), DTYPE)
            # The first layer needs no dx: nothing lies below it.
            dx = np.empty((n, k) if i else (0, 0), DTYPE)
            dw, db = np.empty_like(w), np.empty_like(b)
            self.layers.append((x, w, b, code, forward_work, work, y, dw, db, dx))
            x = y
        self.z = np.empty((0, 0), DTYPE)
        self.dy = rng.standard_normal(x.shape, DTYPE)

    def forward(self):
        for x, w, b, code, forward_work, _, y, *_ in self.layers:
            self.kernels.dense_forward(x, w, b, code, forward_work, self.z, y)

    def backward(self):
        dy = self.dy
        for x, w, _, code, _, work, y, dw, db, dx in reversed(self.layers):
            self.kernels.dense_backward(dy, x, w, y, code, work, dw, db, dx)
            dy = dx

    def outputs(self):
        return [layer[6] for layer in self.layers]

    def gradients(self):
        return [gradient for layer in self.layers for gradient in layer[7:]]


@pytest.fixture
def layers(kernels, case, agree):
    """The layers of one twin, after a forward and a backward pass that agree with the other."""
    both = [Layers(twin, *case) for twin in (cpu, reference)]
    for one in both:
        one.forward()
        one.backward()
    agree(both[0].outputs(), both[1].outputs())
    agree(both[0].gradients(), both[1].gradients())
    return next(one for one in both if one.kernels is kernels)


def bench_dense_forward(measured, layers, case_name):
    measured.group = f"dense forward, {case_name}"
    measured(layers.forward)


def bench_dense_backward(measured, layers, case_name):
    measured.group = f"dense backward, {case_name}"
    measured(layers.backward)
