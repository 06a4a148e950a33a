"""Losses: values, gradients, weights, targets of every kind, and the edges of the contract."""

import math
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastbp.kernels import codes, reference

LABELS = [np.int8, np.uint8, np.int32, np.int64, np.uint64]
SHAPES = [(0, 3), (1, 1), (1, 65), (63, 2), (64, 64), (65, 63), (257, 10), (1025, 3)]


def real(rng, n, m):
    return rng.standard_normal((n, m))


def shares(rng, n, m):
    return rng.random((n, m))


def one_hot(rng, n, m):
    return np.eye(m)[labels(rng, n, m)]


def probabilities(rng, n, m):
    return rng.dirichlet(np.ones(m), n).reshape(n, m)


def zeros_and_ones(rng, n, m):
    return rng.integers(0, 2, (n, m)).astype(float)


def labels(rng, n, m):
    return rng.integers(0, m, n)


@dataclass(frozen=True)
class Case:
    """A loss and a kind of targets."""

    name: str
    targets: object
    parameters: tuple = ()

    def __str__(self):
        return f"{self.name}-{self.targets.__name__}"


CASES = [
    Case("squared_error", real),
    Case("half_squared_error", real),
    Case("huber", real, (1.25,)),
    Case("binary_cross_entropy", shares),
    Case("binary_cross_entropy", zeros_and_ones),
    Case("softmax_cross_entropy", one_hot),
    Case("softmax_cross_entropy", probabilities),
    Case("softmax_cross_entropy", shares),  # rows that do not sum to one
    Case("sparse_softmax_cross_entropy", labels),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
one_case_per_loss = pytest.mark.parametrize(
    "case", list({case.name: case for case in CASES}.values()), ids=lambda case: case.name
)


def problem(case, n, m, dtype=np.float64, weighted=False, seed=0):
    """y (or z), t, sample_weight."""
    rng = np.random.default_rng([seed, n, m])
    y = 2 * rng.standard_normal((n, m))
    t = case.targets(rng, n, m)
    s = rng.random(n) + 0.1 if weighted else np.empty(0)
    t = t if t.dtype.kind == "i" else t.astype(dtype)
    return y.astype(dtype), t, s.astype(dtype)


def double(*arrays):
    return tuple(a if a.dtype.kind in "iu" else a.astype(np.float64) for a in arrays)


@pytest.fixture(scope="session")
def evaluate(launch):
    """evaluate(kernels, case, y, t, sample_weight): the loss and its gradient."""

    def loss_and_gradient(kernels, case, y, t, sample_weight):
        kernel = getattr(kernels, case.name)
        loss, dy = launch(
            kernel, y, t, *case.parameters, sample_weight, out=[np.full_like(y, np.nan)]
        )
        assert isinstance(loss, float)
        return loss, dy

    return loss_and_gradient


# Values


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_case
def test_equals_reference(candidate, case, shape, weighted, evaluate, close, tolerance):
    kernels, dtype = candidate
    operands = problem(case, *shape, dtype, weighted)
    loss, dy = evaluate(kernels, case, *operands)
    expected, expected_dy = evaluate(reference, case, *double(*operands))
    assert loss == pytest.approx(expected, rel=tolerance[dtype])
    close(dy * max(len(dy), 1), expected_dy * max(len(dy), 1))  # of size one, not of 1/n


def oracle(case, y, t):
    """A row's loss in 40 digits."""
    y = [mpmath.mpf(float(v)) for v in y]
    t = [mpmath.mpf(float(v)) for v in t] if np.ndim(t) else int(t)

    def huber(d, delta):
        return d**2 / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)

    def log_sigmoid(v):
        return -mpmath.log(1 + mpmath.exp(-v))

    def log_softmax(j):
        return y[j] - mpmath.log(sum(mpmath.exp(v) for v in y))

    each = range(len(y))
    return {
        "squared_error": lambda: sum((y[j] - t[j]) ** 2 for j in each),
        "half_squared_error": lambda: sum((y[j] - t[j]) ** 2 for j in each) / 2,
        "huber": lambda: sum(huber(y[j] - t[j], *map(mpmath.mpf, case.parameters)) for j in each),
        "binary_cross_entropy": lambda: (
            -sum(t[j] * log_sigmoid(y[j]) + (1 - t[j]) * log_sigmoid(-y[j]) for j in each)
        ),
        "softmax_cross_entropy": lambda: -sum(t[j] * log_softmax(j) for j in each),
        "sparse_softmax_cross_entropy": lambda: -log_softmax(t),
    }[case.name]()


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@every_case
def test_value_in_40_digits(kernels, dtype, case, weighted, evaluate):
    y, t, s = problem(case, 5, 4, dtype, weighted)
    loss, _ = evaluate(kernels, case, y, t, s)
    weights = [mpmath.mpf(float(v)) for v in s] or [mpmath.mpf(1)] * len(y)
    with mpmath.workdps(40):
        rows = [oracle(case, *row) for row in zip(y, t, strict=True)]
        expected = sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights)
    assert loss == pytest.approx(float(expected), rel=8 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("name", "y", "t", "parameters", "expected", "gradient"),
    [
        ("squared_error", [1, 2], [0, 0], (), 5, [2, 4]),
        ("half_squared_error", [1, 2], [0, 0], (), 2.5, [1, 2]),
        ("huber", [0.5, -3], [0, 0], (1.0,), 2.625, [0.5, -1]),
        ("huber", [2, -2], [0, 0], (2.0,), 4, [2, -2]),
        ("binary_cross_entropy", [0, 0], [1, 0], (), 2 * math.log(2), [-0.5, 0.5]),
        ("binary_cross_entropy", [0, 0], [0.5, 1], (), 2 * math.log(2), [0, -0.5]),
        ("softmax_cross_entropy", [3, 3], [0, 1], (), math.log(2), [0.5, -0.5]),
        ("softmax_cross_entropy", [0, math.log(3)], [1, 0], (), math.log(4), [-0.75, 0.75]),
        ("softmax_cross_entropy", [7, 7], [2, 4], (), 6 * math.log(2), [1, -1]),
        ("sparse_softmax_cross_entropy", [0, math.log(3)], 0, (), math.log(4), [-0.75, 0.75]),
    ],
)
def test_numbers_by_hand(
    kernels, dtype, name, y, t, parameters, expected, gradient, evaluate, close
):
    # Four equal rows: the mean is the row's loss, and each row has a quarter of its gradient.
    targets = np.array([t] * 4) if np.ndim(t) == 0 else np.array([t] * 4, dtype)
    loss, dy = evaluate(
        kernels, Case(name, None, parameters), np.array([y] * 4, dtype), targets, np.empty(0, dtype)
    )
    assert loss == pytest.approx(expected, rel=float(4 * np.finfo(dtype).eps))
    close(dy, np.array([gradient] * 4) / 4)


@one_case_per_loss
def test_sum_is_in_double(kernels, case, evaluate):
    # A float32 sum of a million equal numbers errs in the third digit.
    n = 10**6
    y, t, _ = problem(case, 1, 2, np.float32)
    row, _ = evaluate(kernels, case, *double(y, t), np.empty(0))
    t = np.repeat(t, n, axis=0)
    for s in (np.empty(0, np.float32), np.full(n, 0.1, np.float32)):
        loss, _ = evaluate(kernels, case, np.repeat(y, n, axis=0), t, s)
        assert loss == pytest.approx(row, rel=1e-6)


# Gradients


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@every_case
def test_gradient_equals_differences(kernels, case, weighted, evaluate, slopes):
    y, t, s = problem(case, 5, 4, weighted=weighted)
    _, dy = evaluate(kernels, case, y, t, s)
    differences = slopes(lambda: evaluate(kernels, case, y, t, s)[0], y)
    np.testing.assert_allclose(dy, differences, rtol=1e-8, atol=1e-8)


def two_layers(kernels, activation, case, dtype):
    """Loss and gradients of two dense layers: a function of no arguments, and its operands."""
    rng = np.random.default_rng(5)
    n, k, h, m = 5, 4, 3, 2
    f, none = codes.ACTIVATIONS[activation], np.empty((0, 0), dtype)
    shapes = {"x": (n, k), "w1": (k, h), "b1": (h,), "w2": (h, m), "b2": (m,)}
    a = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    _, t, s = problem(case, n, m, dtype, weighted=True)
    z1, y1, z2, dz2, dy1 = (np.empty((n, size), dtype) for size in (h, h, m, m, h))
    gradients = {name: np.full_like(array, np.nan) for name, array in a.items()}
    loss = getattr(kernels, case.name)

    k_most, m_most = max(k, h), max(h, m)
    work_sizes = kernels.dense_forward_work, kernels.dense_backward_work
    work = np.empty(max(size(n, k_most, m_most) for size in work_sizes), dtype)

    def forward():
        kernels.dense_forward(a["x"], a["w1"], a["b1"], f, work, z1, y1)
        kernels.dense_forward(y1, a["w2"], a["b2"], codes.IDENTITY, work, none, z2)
        return loss(z2, t, *case.parameters, s, dz2)

    def backward():
        saved, g = z1 if f in codes.KEEPS_Z else y1, gradients
        kernels.dense_backward(dz2, y1, a["w2"], z2, codes.IDENTITY, work, g["w2"], g["b2"], dy1)
        kernels.dense_backward(dy1, a["x"], a["w1"], saved, f, work, g["w1"], g["b1"], g["x"])
        return g

    return forward, backward, a, z1


@every_case
def test_two_layers_equal_differences(kernels, activation, case, slopes):
    forward, backward, operands, z1 = two_layers(kernels, activation, case, np.float64)
    forward()
    assert np.abs(z1).min() > 1e-3, "a step of the differences would cross the kink"
    for name, gradient in backward().items():
        differences = slopes(forward, operands[name])
        np.testing.assert_allclose(gradient, differences, rtol=1e-8, atol=1e-8, err_msg=name)


@every_case
def test_two_layers_in_float32_equal_float64(kernels, activation, case, close):
    forward, backward, *_ = two_layers(kernels, activation, case, np.float32)
    exact_forward, exact_backward, *_ = two_layers(kernels, activation, case, np.float64)
    assert forward() == pytest.approx(exact_forward(), rel=1e-5)
    exact = exact_backward()
    for name, gradient in backward().items():
        close(gradient, exact[name])


# Weights


@one_case_per_loss
def test_weights_count_rows(kernels, dtype, case, evaluate, close, tolerance):
    y, t, _ = problem(case, 4, 3, dtype)
    counts = np.array([2, 0, 1, 3])
    weighted, dy = evaluate(kernels, case, y, t, counts.astype(dtype))
    repeated, dy_repeated = evaluate(
        kernels, case, np.repeat(y, counts, axis=0), np.repeat(t, counts, axis=0), y[0, :0]
    )
    assert weighted == pytest.approx(repeated, rel=tolerance[dtype])
    close(dy[1], np.zeros(3))
    close(dy[0], dy_repeated[:2].sum(axis=0))
    close(dy[2], dy_repeated[2])
    close(dy[3], dy_repeated[3:].sum(axis=0))


@one_case_per_loss
def test_only_ratios_of_weights_count(kernels, dtype, case, evaluate, close, tolerance):
    y, t, s = problem(case, 7, 3, dtype, weighted=True)
    loss, dy = evaluate(kernels, case, y, t, s)
    for factor in (dtype.type(1e-3), dtype.type(1e3)):
        scaled, scaled_dy = evaluate(kernels, case, y, t, s * factor)
        assert scaled == pytest.approx(loss, rel=tolerance[dtype])
        close(scaled_dy, dy)


# Labels


@pytest.mark.parametrize("integer", LABELS, ids=lambda t: t.__name__)
def test_labels_equal_one_hot(kernels, dtype, integer, evaluate, close, tolerance):
    y, t, s = problem(Case("sparse_softmax_cross_entropy", labels), 65, 7, dtype, weighted=True)
    sparse, dense = Case("sparse_softmax_cross_entropy", None), Case("softmax_cross_entropy", None)
    loss, dy = evaluate(kernels, sparse, y, t.astype(integer), s)
    expected, expected_dy = evaluate(kernels, dense, y, np.eye(7, dtype=dtype)[t], s)
    assert loss == pytest.approx(expected, rel=tolerance[dtype])
    close(dy, expected_dy)


@pytest.mark.parametrize("integer", LABELS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("place", ["below", "edge", "first above", "largest"])
@pytest.mark.parametrize("weight", [None, 0.0, 1.0])
def test_label_outside_makes_loss_nan(kernels, dtype, integer, place, weight, evaluate):
    m, row = 3, 1
    info = np.iinfo(integer)
    bad = {"below": -1 if info.min < 0 else m + 1, "edge": info.min, "largest": info.max}
    label = bad.get(place, m) or m  # 0 is a good label: an unsigned type has none below
    y, t, s = problem(Case("sparse_softmax_cross_entropy", labels), 4, m, dtype, weighted=True)
    t = t.astype(integer)
    t[row] = label
    if weight is None:
        s = s[:0]
    else:
        s[row] = weight
    loss, dy = evaluate(kernels, Case("sparse_softmax_cross_entropy", None), y, t, s)
    assert math.isnan(loss)
    assert np.isfinite(np.delete(dy, row, axis=0)).all()
    assert np.isnan(dy[row]).all()


@pytest.mark.parametrize("row", [0, 2])
def test_label_of_another_row_does_not_hide_a_bad_one(kernels, dtype, row, evaluate):
    t = np.zeros(3, np.int64)
    t[row] = 9
    y = np.zeros((3, 2), dtype)
    loss, _ = evaluate(kernels, Case("sparse_softmax_cross_entropy", None), y, t, y[0, :0])
    assert math.isnan(loss)


@pytest.mark.parametrize("bad", [-1e-3, 1.001, -math.inf, math.inf, math.nan])
@pytest.mark.parametrize("z", [-1e4, 0.0, 1.5])
def test_binary_target_outside_makes_loss_nan(kernels, dtype, bad, z, evaluate):
    t = np.array([[0, 1], [bad, 0.5], [1, 0]], dtype)
    y = np.full((3, 2), z, dtype)
    with np.errstate(invalid="ignore"):
        loss, _ = evaluate(kernels, Case("binary_cross_entropy", None), y, t, y[0, :0])
    assert math.isnan(loss)


def test_binary_targets_zero_and_one_are_inside(kernels, dtype, evaluate):
    t = np.array([[0.0, -0.0, 1.0]], dtype)
    loss, _ = evaluate(kernels, Case("binary_cross_entropy", None), 0 * t, t, t[0, :0])
    assert loss == pytest.approx(3 * math.log(2), rel=1e-6)


# Edges


@every_case
def test_empty_batch_gives_zero(kernels, dtype, case, evaluate):
    loss, dy = evaluate(kernels, case, *problem(case, 0, 3, dtype))
    assert loss == 0.0
    assert dy.shape == (0, 3)


@pytest.mark.parametrize("position", [(0, 0), (2, 1), (4, 3)])
@one_case_per_loss
def test_nan_is_visible(kernels, dtype, case, position, evaluate):
    y, t, s = problem(case, 5, 4, dtype)
    y[position] = np.nan
    loss, dy = evaluate(kernels, case, y, t, s)
    assert math.isnan(loss)
    assert np.isnan(dy[position])
    assert np.isfinite(np.delete(dy, position[0], axis=0)).all()


@pytest.mark.parametrize("name", ["squared_error", "half_squared_error", "huber"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_error_is_an_infinite_loss(kernels, dtype, name, bad, evaluate):
    y = np.array([[bad, 1.0]], dtype)
    case = Case(name, None, (1.0,) if name == "huber" else ())
    with np.errstate(invalid="ignore"):
        loss, _ = evaluate(kernels, case, y, np.zeros_like(y), y[0, :0])
    assert loss == math.inf


@pytest.mark.parametrize(
    ("z", "t", "expected", "gradient"),
    [(1e4, 0, 1e4, 1), (1e4, 1, 0, 0), (-1e4, 1, 1e4, -1), (-1e4, 0, 0, 0), (-1e4, 0.5, 5e3, -0.5)],
)
def test_binary_cross_entropy_of_large_logits(
    kernels, dtype, z, t, expected, gradient, evaluate, close
):
    z, t = np.full((3, 1), z, dtype), np.full((3, 1), t, dtype)
    loss, dz = evaluate(kernels, Case("binary_cross_entropy", None), z, t, z[0, :0])
    assert loss == pytest.approx(expected, rel=1e-6)
    close(dz, np.full((3, 1), gradient / 3))


@pytest.mark.parametrize("shift", [0, 1e4, -1e4, 1e38])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_softmax_cross_entropy_of_large_logits(kernels, dtype, shift, label, evaluate, close):
    z = np.array([[1e4, -1e4, 1e4]], dtype) if abs(shift) < 1e38 else np.zeros((1, 3), dtype)
    z += dtype.type(shift)
    p = np.array([0.5, 0, 0.5]) if abs(shift) < 1e38 else np.full(3, 1 / 3)
    expected = -math.log(p[label]) if p[label] else 2e4 + math.log(2)
    t, none = np.array([label]), z[0, :0]
    loss, dz = evaluate(kernels, Case("sparse_softmax_cross_entropy", None), z, t, none)
    assert loss == pytest.approx(expected, rel=1e-6)
    close(dz, [p - np.eye(3)[label]])
    hot = np.eye(3, dtype=dtype)[t]
    loss, dz = evaluate(kernels, Case("softmax_cross_entropy", None), z, hot, none)
    assert loss == pytest.approx(expected, rel=1e-6)
    close(dz, [p - np.eye(3)[label]])


# Probabilities


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_probabilities_equal_reference(candidate, name, shape, launch, close):
    kernels, dtype = candidate
    z = (3 * np.random.default_rng(shape).standard_normal(shape)).astype(dtype)
    none = np.full_like(z, np.nan)
    _, p = launch(getattr(kernels, name), z, out=[none])
    _, expected = launch(getattr(reference, name), *double(z), out=list(double(none)))
    close(p, expected)


def test_probabilities_by_hand(kernels, dtype, launch, close):
    z = np.array([[0, math.log(3), -1e4, 1e4], [5, 5, 5, 5]], dtype)
    none = np.full_like(z, np.nan)
    _, p = launch(kernels.sigmoid, z, out=[none])
    close(p, [[0.5, 0.75, 0, 1], [0.9933071490757153] * 4])
    _, p = launch(kernels.softmax, z, out=[none])
    close(p, [[0, 0, 0, 1], [0.25] * 4])
    _, p = launch(kernels.softmax, z[:1, :2].copy(), out=[none[:1, :2].copy()])
    close(p, [[0.25, 0.75]])


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_probabilities_of_nan(kernels, dtype, name, launch):
    z = np.zeros((3, 4), dtype)
    z[1, 2] = np.nan
    _, p = launch(getattr(kernels, name), z, out=[np.full_like(z, 7)])
    assert np.isnan(p[1, 2])
    assert np.isfinite(p[[0, 2]]).all()


# Properties


@given(
    case=st.sampled_from(CASES),
    shape=st.tuples(st.integers(0, 70), st.integers(1, 70)),
    weighted=st.booleans(),
    data=st.data(),
)
def test_any_logits_equal_reference(candidate, evaluate, tolerance, case, shape, weighted, data):
    kernels, dtype = candidate
    numbers = st.floats(-1e3, 1e3, width=32)
    y = data.draw(hnp.arrays(dtype, shape, elements=numbers))
    _, t, s = problem(case, *shape, dtype, weighted, seed=data.draw(st.integers(0, 99)))
    loss, dy = evaluate(kernels, case, y, t, s)
    expected, expected_dy = evaluate(reference, case, *double(y, t, s))
    # z - z t cancels in the binary cross-entropy: it errs by an ulp of z.
    size = 1 + float(np.abs(y).max(initial=0)) if case.name == "binary_cross_entropy" else 1
    allowed = tolerance[dtype]
    assert loss == pytest.approx(expected, rel=allowed, abs=allowed * size)
    np.testing.assert_allclose(dy, expected_dy, rtol=allowed, atol=allowed)
