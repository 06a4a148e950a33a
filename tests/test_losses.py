"""Losses as objects: names, parameters, checks of targets, and accuracy."""

import re

import numpy as np
import pytest

import fastbp
from fastbp import losses
from fastbp.kernels import cpu, reference

NAMES = (
    "squared_error",
    "half_squared_error",
    "huber",
    "binary_cross_entropy",
    "softmax_cross_entropy",
)
DOUBLE = np.dtype(np.float64)


@pytest.mark.parametrize("name", NAMES)
def test_resolve_finds_a_name(name):
    loss = losses.resolve(name)
    assert loss.name == name
    assert losses.resolve(loss) is loss


def test_every_name_is_tested():
    assert set(losses.LOSSES) == set(NAMES)


@pytest.mark.parametrize("name", ["mse", None, 3, ["huber"], fastbp.Huber])
def test_unknown_name_lists_the_known_ones(name):
    text = f"loss: expected one of {', '.join(NAMES)}; got {name!r}"
    with pytest.raises(ValueError, match=re.escape(text)):
        losses.resolve(name)


def test_huber_has_a_parameter():
    assert fastbp.Huber().parameters == (1.0,)
    assert fastbp.Huber(np.float32(0.5)).parameters == (0.5,)
    assert losses.resolve("huber") == fastbp.Huber(1.0)
    assert fastbp.Huber(2.0) != fastbp.Huber(1.0)
    assert losses.resolve("squared_error").parameters == ()


@pytest.mark.parametrize("delta", [0, -1, np.inf])
def test_huber_refuses_delta(delta):
    text = f"delta: expected a finite number > 0, got {delta}"
    with pytest.raises(ValueError, match=re.escape(text)):
        fastbp.Huber(delta)


def test_losses_are_frozen():
    with pytest.raises(AttributeError, match="cannot assign to field 'delta'"):
        fastbp.Huber().delta = 2.0


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("squared_error", None),
        ("huber", None),
        ("binary_cross_entropy", "sigmoid"),
        ("softmax_cross_entropy", "softmax"),
    ],
)
def test_link_is_a_kernel(name, link):
    assert losses.resolve(name).link == link
    if link:
        assert hasattr(cpu, link)
        assert hasattr(reference, link)


def test_check_picks_the_kernel_by_the_targets():
    loss = losses.resolve("softmax_cross_entropy")
    kernel, t, s = loss.check((2, 3), DOUBLE, np.array([0, 2]), None)
    assert kernel == "sparse_softmax_cross_entropy"
    assert t.shape == (2,)
    assert s.shape == (0,)
    kernel, t, _ = loss.check((2, 3), DOUBLE, np.eye(3)[:2], None)
    assert kernel == "softmax_cross_entropy"
    assert t.shape == (2, 3)


def test_check_makes_a_column_of_flat_targets():
    _, t, s = losses.resolve("huber").check((4, 1), DOUBLE, np.arange(4.0), np.ones(4))
    assert t.shape == (4, 1)
    assert s.shape == (4,)
    with pytest.raises(ValueError, match=re.escape("t: expected shape (4, 2), got (4,)")):
        losses.resolve("huber").check((4, 2), DOUBLE, np.arange(4.0), None)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1.0, -1e-9], "sample_weight: expected weights >= 0 with a sum > 0"),
        ([0.0, 0.0], "sample_weight: expected weights >= 0 with a sum > 0"),
        ([1.0, np.nan], "sample_weight: expected finite numbers, got NaN or infinity, first in ro"),
    ],
)
def test_check_refuses_weights(weights, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        losses.resolve("huber").check((2, 1), DOUBLE, np.ones((2, 1)), np.array(weights))


@pytest.mark.parametrize("loss", [losses.resolve("huber"), fastbp.Huber(0.5)])
@pytest.mark.parametrize(
    ("dtype", "weights"),
    [
        ("float64", [1.7e308, 1.7e308]),
        ("float64", [5e-324, 0]),
        ("float64", [1, 5e-324]),  # they may come in two batches
        ("float32", [3e38, 3e38]),
        ("float32", [1e-45, 0]),
    ],
)
def test_weights_that_their_sum_cannot_divide(loss, dtype, weights):
    text = f"in {dtype}, got the sum "
    with pytest.raises(ValueError, match=f"sample_weight: .*{text}.*; divide them by their larg"):
        loss.check((2, 1), np.dtype(dtype), np.ones((2, 1), dtype), np.array(weights, dtype))


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0, 1, 3], "t: expected labels in 0..2, got 3 in row 2"),
        ([0, -1, 3], "t: expected labels in 0..2, got -1 in row 1"),
    ],
)
def test_labels_range(labels, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        losses.check_labels_range(np.array(labels), 3)
    losses.check_labels_range(np.array([0, 1, 2], np.uint8), 3)


def test_probabilities():
    losses.check_probabilities(np.array([[0.0, 1.0], [0.5, 1.0]]))
    text = "t: expected targets in [0, 1], got others, first in row 1"
    for bad in (np.nan, -1e-9, 1.001):
        with pytest.raises(ValueError, match=re.escape(text)):
            losses.check_probabilities(np.array([[0.0, 1.0], [0.5, bad], [bad, bad]]))


def test_hits_of_classes():
    loss = losses.resolve("softmax_cross_entropy")
    y = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 1.0, 0.5]])
    labels = np.array([0, 1, 1])
    np.testing.assert_array_equal(loss.hits(y, labels), [True, False, True])
    np.testing.assert_array_equal(loss.hits(y, np.eye(3)[labels]), [True, False, True])


def test_hits_of_binary_labels_are_shares():
    loss = losses.resolve("binary_cross_entropy")
    y = np.array([[2.0, -1.0, 0.5, -0.1], [-2.0, 1.0, 1.0, 1.0]])
    t = np.array([[1.0, 0.0, 0.0, 0.4], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(loss.hits(y, t), [0.75, 0.0])


def test_explain_is_silent_about_good_data():
    y, t = np.ones((2, 3)), np.ones((2, 3))
    for name in NAMES:
        losses.resolve(name).explain({"y": y}, t, np.ones(2), 3)
    losses.resolve("softmax_cross_entropy").explain({"z": y}, np.array([0, 2]), np.empty(0), 3)
