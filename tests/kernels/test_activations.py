"""activate and activation_gradient: formulas, slopes, kinks, and what happens to inf and NaN."""

import math

import mpmath
import numpy as np
import pytest

from fastbp.kernels import codes, reference

SIZES = [0, 1, 63, 64, 65, 513]
CODES = codes.ACTIVATIONS
INF, NAN = math.inf, math.nan

POINTS = [-30, -9.5, -4, -2.25, -1, -0.5, -0.125, -1e-3, 1e-3, 0.125, 0.5, 1, 2.25, 4, 9.5, 30]

# The formulas once more, in 40 digits and from nothing but mpmath.
ORACLE = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, 0),
    "leaky_relu": lambda z: z if z > 0 else mpmath.mpf("0.01") * z,
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z: (
        z / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3)))
    ),
    "sin": mpmath.sin,
}

# f(1), f'(1) as published or as a pocket calculator knows them.
KNOWN = {
    "identity": (1.0, 1.0),
    "relu": (1.0, 1.0),
    "leaky_relu": (1.0, 1.0),
    "elu": (1.0, 1.0),
    "sigmoid": (0.7310585786300049, 0.19661193324148185),
    "tanh": (0.7615941559557649, 0.41997434161402614),
    "softplus": (1.3132616875182228, 0.7310585786300049),
    "silu": (0.7310585786300049, 0.9276705118714867),
    "gelu": (0.8413447460685429, 1.0833154705876862),
    "gelu_tanh": (0.8411919906082768, 1.0829640838457826),
    "sin": (0.8414709848078965, 0.5403023058681398),
}

# f(-inf), f(inf); inf * 0 is NaN, and so is the sine of infinity.
AT_INFINITY = {
    "identity": (-INF, INF),
    "relu": (0, INF),
    "leaky_relu": (-INF, INF),
    "elu": (-1, INF),
    "sigmoid": (0, 1),
    "tanh": (-1, 1),
    "softplus": (0, INF),
    "silu": (NAN, INF),
    "gelu": (NAN, INF),
    "gelu_tanh": (NAN, INF),
    "sin": (NAN, NAN),
}


@pytest.fixture
def apply(launch):
    """apply(kernels, name, z): y = f(z)."""

    def activate(kernels, name, z):
        _, y = launch(kernels.activate, CODES[name], out=[z])
        return y

    return activate


@pytest.fixture
def slope(launch):
    """slope(kernels, name, saved, dy): dz = dy * f'(z)."""

    def activation_gradient(kernels, name, saved, dy):
        _, dz = launch(
            kernels.activation_gradient, CODES[name], saved, dy, out=[np.full_like(dy, np.nan)]
        )
        return dz

    return activation_gradient


def saved_by(name, z, y):
    """What the forward pass keeps for the gradient."""
    return z if CODES[name] in codes.KEEPS_Z else y


@pytest.mark.parametrize("size", SIZES)
def test_activate_equals_reference(candidate, activation, size, apply, close):
    kernels, dtype = candidate
    z = (3 * np.random.default_rng(size).standard_normal(size)).astype(dtype)
    close(apply(kernels, activation, z), apply(reference, activation, z.astype(np.float64)))


@pytest.mark.parametrize("size", SIZES)
def test_gradient_equals_reference(candidate, activation, size, apply, slope, close):
    kernels, dtype = candidate
    z, dy = np.random.default_rng(size).standard_normal((2, size)).astype(dtype)
    z *= 3
    saved = saved_by(activation, z, apply(kernels, activation, z))
    expected = slope(reference, activation, saved.astype(np.float64), dy.astype(np.float64))
    close(slope(kernels, activation, saved, dy), expected)


def test_formula_and_slope_in_40_digits(kernels, dtype, activation, apply, slope):
    # 8 ulp of the value, or of 1 where terms near 1 cancel.
    allowed = 8 * np.finfo(dtype).eps
    z = np.array(POINTS, dtype)
    y = apply(kernels, activation, z)
    dz = slope(kernels, activation, saved_by(activation, z, y), np.ones_like(z))
    with mpmath.workdps(40):
        f = ORACLE[activation]
        expected = [float(f(mpmath.mpf(float(p)))) for p in z]
        expected_slope = [float(mpmath.diff(f, mpmath.mpf(float(p)), h=1e-12)) for p in z]
    np.testing.assert_allclose(y, expected, rtol=allowed, atol=allowed)
    np.testing.assert_allclose(dz, expected_slope, rtol=allowed, atol=allowed)


def test_known_values_at_one(kernels, dtype, activation, apply, slope):
    allowed = 8 * np.finfo(dtype).eps
    one = np.ones(1, dtype)
    y = apply(kernels, activation, one)
    dz = slope(kernels, activation, saved_by(activation, one, y), one)
    np.testing.assert_allclose([*y, *dz], KNOWN[activation], rtol=allowed)


def test_slope_equals_differences(kernels, activation, apply, slope):
    step = 6e-6
    z = np.array(POINTS)  # far from the kink at 0, by steps
    rise = apply(kernels, activation, z + step) - apply(kernels, activation, z - step)
    dy = np.linspace(-2, 3, z.size)
    saved = saved_by(activation, z, apply(kernels, activation, z))
    np.testing.assert_allclose(
        slope(kernels, activation, saved, dy), dy * rise / (2 * step), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize(
    ("name", "expected"), [("relu", 0), ("leaky_relu", 0.01), ("elu", 1), ("softplus", 0.5)]
)
def test_slope_at_zero_is_the_one_from_the_left(
    kernels, dtype, name, expected, zero, apply, slope, close
):
    z = np.array([zero], dtype)
    y = apply(kernels, name, z)
    close(slope(kernels, name, y, np.ones_like(z)), [expected])


def test_nan_passes(kernels, dtype, activation, apply, slope):
    nan, one = np.full(5, np.nan, dtype), np.ones(5, dtype)
    assert np.isnan(apply(kernels, activation, nan)).all()
    assert np.isnan(slope(kernels, activation, one, nan)).all()


def test_infinities(kernels, dtype, activation, apply):
    with np.errstate(invalid="ignore"):  # NumPy warns of sin(inf) and inf * 0
        y = apply(kernels, activation, np.array([-INF, INF], dtype))
    np.testing.assert_array_equal(y, np.array(AT_INFINITY[activation], dtype))


def extremes(dtype):
    info = np.finfo(dtype)
    sizes = [0, info.smallest_subnormal, info.tiny, info.eps, 1e4, info.max / 4, info.max, np.inf]
    return np.array([*sizes, *np.negative(sizes), np.nan], dtype)


def test_twins_agree_at_extremes(candidate, activation, apply, close):
    kernels, dtype = candidate
    z = extremes(dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = apply(reference, activation, z)  # of the same type: it overflows where we do
        close(apply(kernels, activation, z), expected)


def test_gradients_of_twins_agree_at_extremes(candidate, activation, apply, slope, close):
    kernels, dtype = candidate
    z = extremes(dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        saved = saved_by(activation, z, apply(reference, activation, z))
        expected = slope(reference, activation, saved, np.ones_like(z))
        close(slope(kernels, activation, saved, np.ones_like(z)), expected)


@pytest.mark.parametrize("size", [1e4, 1e9, 1e15])
def test_finite_stays_finite(kernels, dtype, activation, size, apply, slope):
    z = np.array([-size, size], dtype)
    with np.errstate(over="ignore"):  # z**3 inside of gelu_tanh, whose tanh is 1 anyway
        y = apply(kernels, activation, z)
        dz = slope(kernels, activation, saved_by(activation, z, y), np.ones_like(z))
    assert np.isfinite(y).all()
    assert np.isfinite(dz).all()


def test_codes_are_one_activation_each():
    assert sorted(CODES.values()) == list(range(len(CODES)))
    assert set(CODES) == set(ORACLE) == set(KNOWN) == set(AT_INFINITY)
