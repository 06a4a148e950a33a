"""L2 penalty and gradient clipping."""

import math

import numpy as np
import pytest

from fastbp.kernels import cpu, reference

SIZES = [0, 1, 63, 64, 65, 1000]


def normal(size, dtype, seed=0):
    return np.random.default_rng([seed, size]).standard_normal(size).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_l2_equals_reference(candidate, size, launch, close, tolerance):
    kernels, dtype = candidate
    w, dw = normal(size, dtype), normal(size, dtype, seed=1)
    penalty, added = launch(kernels.l2_penalty, w, 0.3, out=[dw])
    expected, expected_dw = launch(
        reference.l2_penalty, w.astype(np.float64), 0.3, out=[dw.astype(np.float64)]
    )
    assert penalty == pytest.approx(expected, rel=tolerance[dtype])
    close(added, expected_dw)


def test_l2_adds_to_the_gradient(kernels, dtype, launch, close):
    w, dw = np.array([1, -2, 3], dtype), np.array([10, 20, 30], dtype)
    penalty, added = launch(kernels.l2_penalty, w, 0.5, out=[dw])
    assert isinstance(penalty, float)
    assert penalty == pytest.approx(7, rel=1e-6)
    close(added, [11, 18, 33])


def test_l2_gradient_equals_differences(kernels, launch, slopes):
    w = normal(9, np.float64)
    _, dw = launch(kernels.l2_penalty, w, 0.3, out=[np.zeros_like(w)])
    penalty = slopes(lambda: launch(kernels.l2_penalty, w, 0.3, out=[np.zeros_like(w)])[0], w)
    np.testing.assert_allclose(dw, penalty, rtol=1e-8, atol=1e-8)


def test_l2_of_zero_changes_nothing(kernels, dtype, launch):
    w, dw = normal(65, dtype), normal(65, dtype, seed=1)
    penalty, same = launch(kernels.l2_penalty, w, 0.0, out=[dw])
    assert penalty == 0
    np.testing.assert_array_equal(same, dw)


def test_nan_in_l2_is_visible(kernels, dtype, launch):
    w, dw = normal(65, dtype), normal(65, dtype, seed=1)
    w[7] = np.nan
    penalty, added = launch(kernels.l2_penalty, w, 0.3, out=[dw])
    assert math.isnan(penalty)
    assert np.isnan(added[7])
    assert np.isfinite(np.delete(added, 7)).all()


@pytest.mark.parametrize("name", ["l2_penalty", "clip_by_global_norm"])
def test_sums_are_in_double(kernels, name, launch):
    # A float32 sum of a million equal numbers errs in the third digit.
    a = np.full(10**6, 0.1, np.float32)
    square = float(np.float32(0.1)) ** 2
    if name == "l2_penalty":
        value, _ = launch(kernels.l2_penalty, a, 1.0, out=[np.zeros_like(a)])
        assert value == pytest.approx(1e6 * square, rel=1e-6)
    else:
        value, _ = launch(kernels.clip_by_global_norm, 1e9, out=[a])
        assert value == pytest.approx(1e3 * math.sqrt(square), rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("max_norm", [0.25, 1e6])
def test_clip_by_global_norm_equals_reference(candidate, size, max_norm, launch, close, tolerance):
    kernels, dtype = candidate
    g = normal(size, dtype)
    norm, clipped = launch(kernels.clip_by_global_norm, max_norm, out=[g])
    expected, expected_g = launch(
        reference.clip_by_global_norm, max_norm, out=[g.astype(np.float64)]
    )
    assert norm == pytest.approx(expected, rel=tolerance[dtype])
    close(clipped, expected_g)


@pytest.mark.parametrize(
    ("max_norm", "expected"),
    [(10.0, [3, -4]), (5.0, [3, -4]), (2.5, [1.5, -2]), (0.0, [0, 0])],
    ids=["below", "equal", "above", "zero"],
)
def test_clip_by_global_norm_by_hand(kernels, dtype, max_norm, expected, launch, close):
    norm, clipped = launch(kernels.clip_by_global_norm, max_norm, out=[np.array([3, -4], dtype)])
    assert isinstance(norm, float)
    assert norm == pytest.approx(5, rel=1e-6)
    close(clipped, expected)
    if max_norm >= 5:
        np.testing.assert_array_equal(clipped, expected)


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_zero_gradients_stay_zero(kernels, dtype, max_norm, launch):
    norm, clipped = launch(kernels.clip_by_global_norm, max_norm, out=[np.zeros(65, dtype)])
    assert norm == 0
    np.testing.assert_array_equal(clipped, np.zeros(65))


def test_norm_of_large_gradients_does_not_overflow(kernels, launch, close):
    g = np.array([3e30, 4e30], np.float32)  # their squares are beyond float32
    norm, clipped = launch(kernels.clip_by_global_norm, 1.0, out=[g])
    assert norm == pytest.approx(5e30, rel=1e-6)
    close(clipped, [0.6, 0.8])


@pytest.mark.parametrize("kernels", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("unit", [1e160, 2e307])
def test_norm_of_the_largest_gradients_does_not_overflow(kernels, unit, launch, close):
    g = np.array([3 * unit, -4 * unit, 0, 1])
    norm, clipped = launch(kernels.clip_by_global_norm, 1.0, out=[g])
    assert norm == pytest.approx(5 * unit, rel=1e-14)
    close(clipped, [0.6, -0.8, 0, 0])
    _, same = launch(kernels.clip_by_global_norm, 1e308, out=[g])
    np.testing.assert_array_equal(same, g)
    most = np.full(9, 1.7e308)  # the norm itself is beyond float64
    _, clipped = launch(kernels.clip_by_global_norm, 3.0, out=[most])
    close(clipped, np.ones(9))


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_nan_stays_visible_in_clipped_gradients(kernels, dtype, max_norm, launch):
    g = normal(65, dtype)
    g[7] = np.nan
    norm, clipped = launch(kernels.clip_by_global_norm, max_norm, out=[g])
    assert math.isnan(norm)
    assert np.isnan(clipped[7])


def test_infinity_stays_visible_in_clipped_gradients(kernels, dtype, launch):
    g = normal(65, dtype)
    g[7] = np.inf
    with np.errstate(invalid="ignore"):  # inf * 0
        norm, clipped = launch(kernels.clip_by_global_norm, 1.0, out=[g])
    assert norm == math.inf
    assert not np.isfinite(clipped[7])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limit", [0.0, 0.5, 10.0])
def test_clip_by_value(kernels, dtype, size, limit, launch):
    g = normal(size, dtype)
    value, clipped = launch(kernels.clip_by_value, limit, out=[g])
    assert value is None
    np.testing.assert_array_equal(clipped, [max(-limit, min(limit, v)) for v in g.tolist()])


def test_clip_by_value_at_extremes(kernels, dtype, launch):
    g = np.array([np.inf, -np.inf, np.nan, 2, -2, 1.5, -1.5, 0], dtype)
    _, clipped = launch(kernels.clip_by_value, 1.5, out=[g])
    np.testing.assert_array_equal(clipped, [1.5, -1.5, np.nan, 1.5, -1.5, 1.5, -1.5, 0])
