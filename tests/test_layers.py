"""Dense and Dropout alone: against `fastbp.functional`, their texts, and wrong arguments."""

import re

import numpy as np
import pytest

import fastbp
from fastbp import functional as F
from fastbp.kernels import codes, cpu
from fastbp.kernels.reference.dropout import keep_mask


def dense(*sizes, **options):
    return fastbp.Dense(*sizes, **({"dtype": "float64", "rng": 0} | options))


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((5, 3))


# Dense


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
def test_dense_is_the_functional_layer(x, activation, bias):
    layer = dense(3, 2, activation=activation, bias=bias)
    layer.b[...] = 0.5
    b = layer.b if bias else None
    expected, saved = F.dense_forward(x, layer.w, b, activation)
    y = layer.forward(x)
    np.testing.assert_array_equal(y, expected)

    dx = layer.backward(y)
    expected_dx, dw, db = F.dense_backward(y, x, layer.w, saved, activation, bias=bias)
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_array_equal(layer.dw, dw)
    np.testing.assert_array_equal(layer.db, db if bias else np.empty(0))


def test_backward_overwrites_gradients(x):
    layer = dense(3, 2)
    y = layer.forward(x)
    layer.backward(y)
    dw, db = layer.dw.copy(), layer.db.copy()
    layer.dw[...] = layer.db[...] = np.nan
    layer.backward(y)
    np.testing.assert_array_equal(layer.dw, dw)
    np.testing.assert_array_equal(layer.db, db)


def test_backward_without_dx(x):
    layer = dense(3, 2, activation="tanh")
    y = layer.forward(x)
    layer.backward(y)
    dw = layer.dw.copy()
    layer.dw[...] = 0
    assert layer.backward(y, need_dx=False) is None
    np.testing.assert_array_equal(layer.dw, dw)


def test_biases_and_gradients_start_at_zero():
    layer = dense(3, 2)
    assert not layer.b.any()
    assert not layer.dw.any()
    assert not layer.db.any()


def test_dense_of_an_empty_batch():
    layer = dense(3, 2)
    layer.dw[...] = layer.db[...] = 7
    y = layer.forward(np.empty((0, 3)))
    assert y.shape == (0, 2)
    assert layer.backward(y).shape == (0, 3)
    assert not layer.dw.any()
    assert not layer.db.any()


def test_dense_passes_nan_through():
    # relu(nan) is nan, not zero: a layer hides nothing.
    y = dense(1, 1, activation="relu").forward(np.array([[np.nan]]))
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (dense(3, 2, activation="relu"), "Dense(3 -> 2, relu, w (3, 2), b (2,), float64)"),
        (fastbp.Dense(1, 4, bias=False), "Dense(1 -> 4, identity, w (1, 4), no bias, float32)"),
        (fastbp.Dropout(0.25), "Dropout(0.25)"),
        (fastbp.Dropout(0), "Dropout(0)"),
    ],
)
def test_repr(layer, text):
    assert repr(layer) == text


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"in_features": 0}, ValueError, "in_features: expected an integer >= 1, got 0"),
        ({"in_features": -3}, ValueError, "in_features: expected an integer >= 1, got -3"),
        ({"in_features": 2.0}, TypeError, "in_features: expected an integer, got float"),
        ({"in_features": True}, TypeError, "in_features: expected an integer, got bool"),
        ({"out_features": 0}, ValueError, "out_features: expected an integer >= 1, got 0"),
        ({"out_features": "2"}, TypeError, "out_features: expected an integer, got str"),
        ({"activation": "rely"}, ValueError, "activation: expected one of identity, relu, leaky"),
        ({"dtype": "float16"}, TypeError, "dtype: expected float32 or float64, got 'float16'"),
        ({"dtype": None}, TypeError, "dtype: expected float32 or float64, got None"),
        ({"dtype": "nonsense"}, TypeError, "dtype: expected float32 or float64, got 'nonsense'"),
        ({"bias": "no"}, TypeError, "bias: expected True or False, got 'no'"),
        ({"bias": np.ones(2)}, TypeError, "bias: expected True or False, got array([1., 1.])"),
        ({"rng": 0.5}, TypeError, "rng: expected a numpy.random.Generator or an integer seed, got"),
        ({"rng": -1}, ValueError, "rng: expected an integer >= 0, got -1"),
    ],
)
def test_dense_refuses(changed, error, text):
    with pytest.raises(error, match=re.escape(text)):
        fastbp.Dense(**({"in_features": 3, "out_features": 2} | changed))


def test_sizes_may_be_numpy_integers():
    layer = fastbp.Dense(np.int64(3), np.uint8(2))
    assert (layer.in_features, layer.out_features) == (3, 2)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (np.ones((5, 4)), ValueError, "x: expected shape (n, 3), got (5, 4)"),
        (np.ones(3), ValueError, "x: expected shape (n, 3), got (3,)"),
        (np.ones((5, 3), np.float32), TypeError, "x: expected float64 like the other arrays, got"),
        (np.ones((3, 5)).T, ValueError, "x: expected a C-contiguous array, got an F-ordered one"),
        ([[1.0, 2.0, 3.0]], TypeError, "x: expected a NumPy array, got list; pass np.asarray(x, d"),
    ],
)
def test_a_refused_batch_keeps_the_last_one(x, bad, error, text):
    layer = dense(3, 2, activation="gelu")
    y = layer.forward(x)
    expected = layer.backward(y)
    dw = layer.dw.copy()
    with pytest.raises(error, match=re.escape(text)):
        layer.forward(bad)
    np.testing.assert_array_equal(layer.backward(y), expected)
    np.testing.assert_array_equal(layer.dw, dw)


def test_backward_needs_a_forward_pass():
    text = "backward: expected a forward pass before it; call forward(x) first"
    for layer in (dense(3, 2), fastbp.Dropout(0.5)):
        with pytest.raises(RuntimeError, match=re.escape(text)):
            layer.backward(np.ones((5, 2)))


def test_prediction_is_no_forward_pass_of_dropout(x):
    layer = fastbp.Dropout(0.5, rng=0)
    layer.forward(x, training=False)
    with pytest.raises(RuntimeError, match="backward: expected a forward pass before it"):
        layer.backward(x)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (np.ones((4, 2)), ValueError, "dy: expected shape (5, 2), got (4, 2)"),
        (np.ones((5, 2), np.float32), TypeError, "dy: expected float64 like the other arrays"),
        (np.ones((5, 2), int), TypeError, "dy: expected float64 like the other arrays, got int64"),
    ],
)
def test_a_refused_gradient_changes_nothing(x, bad, error, text):
    layer = dense(3, 2)
    layer.forward(x)
    layer.dw[...] = layer.db[...] = 7
    with pytest.raises(error, match=re.escape(text)):
        layer.backward(bad)
    assert (layer.dw == 7).all()
    assert (layer.db == 7).all()


# Dropout


def test_dropout_zeroes_and_scales():
    layer = fastbp.Dropout(0.25, rng=0)
    x = np.full((400, 50), 3.0)
    y = layer.forward(x)
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], 4.0, rtol=1e-15)
    # The share of 20000 numbers has a standard error of 0.3 %.
    np.testing.assert_allclose(dropped.mean(), 0.25, atol=0.015)
    assert (x == 3).all()


def test_dropout_has_the_mask_of_the_specification():
    layer = fastbp.Dropout(0.25, rng=0)
    kept = layer.forward(np.ones((20, 5))) > 0
    expected = keep_mask(layer.mask_seed(layer.passes), 100, 0.25).reshape(20, 5)
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backward_has_the_mask_of_forward(dtype):
    layer = fastbp.Dropout(0.5, rng=0)
    y = layer.forward(np.ones((20, 5), dtype))
    np.testing.assert_array_equal(layer.backward(np.ones((20, 5), dtype)), y)
    assert y.dtype == dtype


def test_every_pass_has_a_new_mask():
    layer = fastbp.Dropout(0.5, rng=0)
    x = np.ones((20, 5))
    masks = [layer.forward(x).tobytes() for _ in range(10)]
    assert len(set(masks)) == 10


def test_masks_follow_the_seed():
    x = np.ones((20, 5))
    first = fastbp.Dropout(0.5, rng=3)
    again = fastbp.Dropout(0.5, rng=np.random.default_rng(3))
    for _ in range(3):
        np.testing.assert_array_equal(first.forward(x), again.forward(x))
    assert (fastbp.Dropout(0.5, rng=4).forward(x) != fastbp.Dropout(0.5, rng=3).forward(x)).any()


def test_dropout_lets_predictions_through(x):
    layer = fastbp.Dropout(0.5, rng=0)
    np.testing.assert_array_equal(layer.forward(x, training=False), x)
    y = layer.forward(x)
    layer.forward(x, training=False)  # leaves the mask of the last training pass
    np.testing.assert_array_equal(layer.backward(x), y)


def test_dropout_of_rate_zero_and_of_nothing(x):
    layer = fastbp.Dropout(0, rng=0)
    np.testing.assert_array_equal(layer.forward(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)
    assert fastbp.Dropout(0.5, rng=0).forward(np.empty((0, 3))).shape == (0, 3)


def test_dropout_takes_read_only_arrays(x):
    expected = fastbp.Dropout(0.5, rng=0).forward(x)
    compiled = len(cpu.dropout.signatures)
    x.flags.writeable = False
    np.testing.assert_array_equal(fastbp.Dropout(0.5, rng=0).forward(x), expected)
    assert len(cpu.dropout.signatures) == compiled


@pytest.mark.parametrize(
    ("rate", "error", "text"),
    [
        (1, ValueError, "rate: expected a finite number >= 0 and < 1, got 1"),
        (-0.1, ValueError, "rate: expected a finite number >= 0 and < 1, got -0.1"),
        (np.nan, ValueError, "rate: expected a finite number >= 0 and < 1, got nan"),
        ("0.5", TypeError, "rate: expected a number, got str"),
        (True, TypeError, "rate: expected a number, got bool"),
    ],
)
def test_dropout_refuses_the_rate(rate, error, text):
    with pytest.raises(error, match=re.escape(text)):
        fastbp.Dropout(rate)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (np.ones(3), ValueError, "x: expected shape (n, k), got (3,)"),
        (np.ones((5, 3), int), TypeError, "x: expected float32 or float64, got int64"),
        (np.ones((3, 5)).T, ValueError, "x: expected a C-contiguous array, got an F-ordered one"),
    ],
)
def test_dropout_keeps_its_mask_when_it_refuses(x, bad, error, text):
    layer = fastbp.Dropout(0.5, rng=0)
    y = layer.forward(x)
    with pytest.raises(error, match=re.escape(text)):
        layer.forward(bad)
    np.testing.assert_array_equal(layer.backward(x), y)


def test_dropout_refuses_a_seed():
    text = "rng: expected a numpy.random.Generator or an integer seed, got str"
    with pytest.raises(TypeError, match=text):
        fastbp.Dropout(0.5, rng="0")
