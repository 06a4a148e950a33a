"""Start values: their distribution by name, and where their randomness comes from."""

import re

import numpy as np
import pytest

import fastbp
from fastbp import initializers

K, M = 300, 200  # 60000 values

VARIANCE = {
    "glorot_uniform": 2 / (K + M),
    "glorot_normal": 2 / (K + M),
    "he_uniform": 2 / K,
    "he_normal": 2 / K,
    "lecun_uniform": 1 / K,
    "lecun_normal": 1 / K,
}


def draw(name, rng=0):
    return fastbp.Dense(K, M, init=name, dtype="float64", rng=rng).w


@pytest.mark.parametrize("name", VARIANCE)
def test_mean_and_variance(name):
    # Of 60000 values: the standard error of the mean is 0.4 % of their deviation, that of the
    # variance at most 0.6 % (normal). Five of them, and the seed is fixed.
    w = draw(name)
    assert abs(w.mean()) < 0.02 * np.sqrt(VARIANCE[name])
    np.testing.assert_allclose(w.var(), VARIANCE[name], rtol=0.03)


@pytest.mark.parametrize("name", [name for name in VARIANCE if name.endswith("uniform")])
def test_uniform_fills_its_interval(name):
    limit = np.sqrt(3 * VARIANCE[name])
    size = np.abs(draw(name))
    assert 0.999 * limit < size.max() <= limit
    np.testing.assert_allclose(np.median(size), limit / 2, rtol=0.03)


@pytest.mark.parametrize("name", [name for name in VARIANCE if name.endswith("normal")])
def test_normal_has_its_quantiles(name):
    standard = np.abs(draw(name)) / np.sqrt(VARIANCE[name])
    np.testing.assert_allclose(np.mean(standard < 1), 0.6827, atol=0.01)
    np.testing.assert_allclose(np.mean(standard < 2), 0.9545, atol=0.005)
    assert standard.max() > 3.5  # no truncation


def test_every_name_is_tested():
    assert set(initializers.INITIALIZERS) == {*VARIANCE, "zeros"}


def test_zeros():
    np.testing.assert_array_equal(draw("zeros"), np.zeros((K, M)))


def test_same_seed_same_values():
    first = draw("he_normal", rng=3)
    np.testing.assert_array_equal(first, draw("he_normal", rng=3))
    np.testing.assert_array_equal(first, draw("he_normal", rng=np.random.default_rng(3)))
    assert (first != draw("he_normal", rng=4)).all()


def test_no_seed_means_fresh_values():
    assert (draw("he_normal", rng=None) != draw("he_normal", rng=None)).all()


def test_a_generator_moves_on():
    rng = np.random.default_rng(3)
    assert (draw("he_normal", rng=rng) != draw("he_normal", rng=rng)).all()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "silu", "gelu", "softplus"])
def test_rectifiers_start_from_he(activation):
    w = fastbp.Dense(K, M, activation, dtype="float64", rng=0).w
    np.testing.assert_array_equal(w, draw("he_uniform"))


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "sin"])
def test_others_start_from_glorot(activation):
    w = fastbp.Dense(K, M, activation, dtype="float64", rng=0).w
    np.testing.assert_array_equal(w, draw("glorot_uniform"))


def test_callable_gets_generator_and_sizes():
    rng = np.random.default_rng(0)
    seen = []

    def ones(*arguments):
        seen.append(arguments)
        return np.ones((2, 3), int)

    layer = fastbp.Dense(2, 3, init=ones, rng=rng)
    assert seen == [(rng, 2, 3)]
    np.testing.assert_array_equal(layer.w, np.ones((2, 3), np.float32))
    assert layer.w.dtype == np.float32


def test_callable_with_the_wrong_shape():
    text = "init: expected an array of shape (2, 3), got (3, 2)"
    with pytest.raises(ValueError, match=re.escape(text)):
        fastbp.Dense(2, 3, init=lambda rng, k, m: np.ones((m, k)))


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        (np.nan, ValueError, "init: expected weights that are finite in float32, got NaN or inf"),
        (1e300, ValueError, "init: expected weights that are finite in float32, got NaN or inf"),
        (1 + 2j, TypeError, "init: expected real numbers, got complex128; return floats"),
        ("1", TypeError, "init: expected real numbers, got <U1; return floats"),
    ],
)
def test_callable_with_what_are_no_weights(weight, error, text):
    with pytest.raises(error, match=re.escape(text)):
        fastbp.Dense(2, 3, init=lambda rng, k, m: np.full((k, m), weight))


@pytest.mark.parametrize("init", ["he", 5])
def test_unknown_name_lists_the_known_ones(init):
    text = f"init: expected one of {', '.join(initializers.INITIALIZERS)}; got {init!r}"
    with pytest.raises(ValueError, match=re.escape(text)):
        fastbp.Dense(2, 3, init=init)


def test_wrong_rng():
    text = "rng: expected a numpy.random.Generator or an integer seed, got str"
    with pytest.raises(TypeError, match=text):
        fastbp.Dense(2, 3, rng="0")
