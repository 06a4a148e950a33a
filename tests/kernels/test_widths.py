"""Every vector width, whatever the machine's own: the tables below the widest are tested too."""

import os
import subprocess
import sys

import pytest

CODE = """
import itertools

import numpy as np
from fastbp.kernels import codes, cpu, reference
from fastbp.kernels.cpu import simd

rng = np.random.default_rng(0)
shapes = [
    (1, 1, 1), (1, 33, 70), (3, 5, 7), (4, 33, 70), (5, 33, 70), (9, 17, 10), (40, 70, 3),
    (65, 63, 33), (130, 520, 97), (600, 33, 70),
]  # fmt: skip
for (n, k, m), real in itertools.product(shapes, (np.float32, np.float64)):
    for code in (codes.RELU, codes.SIN):
        x, w, b, dy = (
            rng.standard_normal(s).astype(real) for s in ((n, k), (k, m), (m,), (n, m))
        )
        results = {}
        for twin in (reference, cpu):
            y, z, dw, db, dx = (np.full_like(a, np.nan) for a in (dy, dy, w, b, x))
            work = np.full(twin.dense_forward_work(n, k, m), np.nan, real)
            twin.dense_forward(x, w, b, code, work, z, y)
            work = np.full(twin.dense_backward_work(n, k, m), np.nan, real)
            saved = z if code in codes.KEEPS_Z else y
            twin.dense_backward(dy, x, w, saved, code, work, dw, db, dx)
            results[twin] = y, dw, db, dx
        for got, want in zip(results[cpu], results[reference]):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.sqrt(k + m + n))
print(8 * simd.VECTOR_BYTES)
"""


@pytest.mark.parametrize("bits", ["128", "256"])
def test_forced_width_agrees_with_the_reference(bits):
    ended = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"FASTBP_SIMD": bits},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.stdout == f"{bits}\n", ended.stderr[-2000:]


def test_unknown_width_is_refused():
    ended = subprocess.run(
        [sys.executable, "-c", "import fastbp"],
        env=os.environ | {"FASTBP_SIMD": "1024"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "FASTBP_SIMD: expected 128, 256 or 512 bits, got '1024'" in ended.stderr
