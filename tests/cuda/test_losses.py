"""Losses: values and gradients beside the reference, weights, targets out of range, NaN."""

import math

import numpy as np
import pytest

from fastbp.kernels import cuda, reference
from fastbp.kernels.cuda import target

# Simulated blocks have two rows of two lanes, and the grid ends at 3 of them; on a GPU 8 rows of
# 32 lanes and more, and 1024 blocks.
SHAPES = [(0, 3), (1, 1), (3, 2), (13, 3), (5, 7)]
if not target.SIMULATED:
    SHAPES += [(257, 10), (1025, 33), (8193, 10), (300001, 1), (1000, 1000)]
LABELS = [np.int8, np.uint8, np.int32, np.int64, np.uint64]


def real(rng, n, m):
    return rng.standard_normal((n, m))


def shares(rng, n, m):
    return rng.random((n, m))


def one_hot(rng, n, m):
    return np.eye(m)[labels(rng, n, m)]


def labels(rng, n, m):
    return rng.integers(0, m, n)


CASES = {
    "squared_error": (real, ()),
    "half_squared_error": (real, ()),
    "huber": (real, (1.25,)),
    "binary_cross_entropy": (shares, ()),
    "softmax_cross_entropy": (one_hot, ()),
    "sparse_softmax_cross_entropy": (labels, ()),
}


def problem(name, n, m, dtype, weighted=False):
    """y, t, sample_weight."""
    rng = np.random.default_rng([n, m])
    y, t = 2 * rng.standard_normal((n, m)), CASES[name][0](rng, n, m)
    s = rng.random(n) + 0.1 if weighted else np.empty(0)
    return y.astype(dtype), t if t.dtype.kind == "i" else t.astype(dtype), s.astype(dtype)


def expected(name, y, t, s):
    dy = np.empty(y.shape)
    t = t if t.dtype.kind in "iu" else t.astype(float)
    loss = getattr(reference, name)(y.astype(float), t, *CASES[name][1], s.astype(float), dy)
    return loss, dy


@pytest.fixture(scope="module")
def evaluate(launch):
    """evaluate(name, y, t, sample_weight): the loss and its gradient."""

    def loss_and_gradient(name, y, t, s):
        out = [np.full_like(y, np.nan)]
        loss, dy = launch(getattr(cuda, name), y, t, *CASES[name][1], s, out=out)
        assert isinstance(loss, float)
        return loss, dy

    return loss_and_gradient


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_reference(name, shape, weighted, dtype, evaluate, close, tolerance):
    operands = problem(name, *shape, dtype, weighted)
    wanted, wanted_dy = expected(name, *operands)
    loss, dy = evaluate(name, *operands)
    assert loss == pytest.approx(wanted, rel=tolerance[dtype])
    close(dy * max(len(dy), 1), wanted_dy * max(len(dy), 1))  # of size one, not of 1/n


@pytest.mark.parametrize("integer", LABELS, ids=lambda t: t.__name__)
def test_labels_of_every_integer_type(integer, dtype, evaluate, close):
    y, t, s = problem("sparse_softmax_cross_entropy", 5, 3, dtype)
    loss, dy = evaluate("sparse_softmax_cross_entropy", y, t.astype(integer), s)
    wanted, wanted_dy = expected("sparse_softmax_cross_entropy", y, t, s)
    assert loss == pytest.approx(wanted, rel=1e-5)
    close(dy, wanted_dy)


@pytest.mark.parametrize(
    ("integer", "label"), [(np.int8, -1), (np.int64, 3), (np.int64, -(2**63)), (np.uint64, 2**63)]
)
def test_a_label_outside_makes_the_loss_nan(integer, label, dtype, evaluate):
    y, t, s = problem("sparse_softmax_cross_entropy", 4, 3, dtype)
    t = t.astype(integer)
    t[1] = label
    loss, dy = evaluate("sparse_softmax_cross_entropy", y, t, s)
    assert math.isnan(loss)
    assert np.isnan(dy[1]).all()
    assert np.isfinite(np.delete(dy, 1, axis=0)).all()


@pytest.mark.parametrize("bad", [-1e-3, 1.001, math.nan, math.inf])
def test_a_binary_target_outside_makes_the_loss_nan(bad, dtype, evaluate):
    t = np.array([[0, 1], [bad, 0.5], [1, 0]], dtype)
    assert math.isnan(evaluate("binary_cross_entropy", t * 0 + 1, t, t[0, :0])[0])


@pytest.mark.parametrize("name", CASES)
def test_nan_is_visible(name, dtype, evaluate):
    y, t, s = problem(name, 5, 3, dtype)
    y[3, 1] = np.nan
    loss, dy = evaluate(name, y, t, s)
    assert math.isnan(loss)
    assert np.isnan(dy[3, 1])
    assert np.isfinite(np.delete(dy, 3, axis=0)).all()


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_softmax_cross_entropy_of_large_logits(shift, label, dtype, evaluate, close):
    z = np.array([[1e4, -1e4, 1e4]], dtype) + dtype.type(shift)
    p = np.array([0.5, 0, 0.5])
    wanted = -math.log(p[label]) if p[label] else 2e4 + math.log(2)
    t, hot = np.array([label]), np.eye(3, dtype=dtype)[[label]]
    for name, targets in (("sparse_softmax_cross_entropy", t), ("softmax_cross_entropy", hot)):
        loss, dz = evaluate(name, z, targets, z[0, :0])
        assert loss == pytest.approx(wanted, rel=1e-6)
        close(dz, [p - np.eye(3)[label]])


@pytest.mark.parametrize("z", [-1e4, -30.0, 30.0, 1e4])
@pytest.mark.parametrize("t", [0, 0.5, 1])
def test_binary_cross_entropy_of_large_logits(z, t, dtype, evaluate, tolerance):
    z, t = np.full((3, 1), z, dtype), np.full((3, 1), t, dtype)
    loss, _ = evaluate("binary_cross_entropy", z, t, z[0, :0])
    wanted = expected("binary_cross_entropy", z, t, z[0, :0])[0]
    assert loss == pytest.approx(wanted, rel=tolerance[dtype], abs=1e-12)


@pytest.mark.parametrize("shape", [(0, 3), (13, 3), (5, 7)], ids=str)
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_probabilities_equal_reference(name, shape, dtype, launch, close):
    z = (3 * np.random.default_rng(shape).standard_normal(shape)).astype(dtype)
    wanted = np.empty(shape)
    getattr(reference, name)(z.astype(float), wanted)
    close(launch(getattr(cuda, name), z, out=[z * np.nan])[1], wanted)
