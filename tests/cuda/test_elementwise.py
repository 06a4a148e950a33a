"""Kernels over flat arrays beside the reference: activations, optimisers, dropout, clipping."""

import numpy as np
import pytest

from fastbp.kernels import codes, cuda, reference
from fastbp.kernels.cuda import blocks, target

# 0, 1, and around what a block and a whole grid of the simulator has: 4 and 12 elements.
SIZES = [0, 1, 4, 5, 13, 30] if target.SIMULATED else [0, 1, 255, 257, 10**6 + 3]
LONG = SIZES[-1]


def numbers(size, dtype, seed=0):
    return (3 * np.random.default_rng([seed, size]).standard_normal(size)).astype(dtype)


def double(*arrays):
    return [a.astype(np.float64) for a in arrays]


@pytest.mark.parametrize("size", SIZES)
def test_activations_equal_the_reference(activation, size, dtype, launch, close):
    code, z, dy = codes.ACTIVATIONS[activation], numbers(size, dtype), numbers(size, dtype, 1)
    (expected,), saved = double(z), z
    reference.activate(code, expected)
    close(launch(cuda.activate, code, out=[z])[1], expected)
    if code not in codes.KEEPS_Z:
        saved = expected.astype(dtype)
    slope = np.empty(size)
    reference.activation_gradient(code, *double(saved, dy), slope)
    out = np.full(size, np.nan, dtype)
    close(launch(cuda.activation_gradient, code, saved, dy, out=[out])[1], slope)


EXTREMES = [-np.inf, -1e30, -100.0, -20.0, -1e-30, -0.0, 0.0, 1e-30, 20.0, 100.0, 1e30, np.inf]


def test_activations_at_the_extremes(activation, dtype, launch, close):
    code = codes.ACTIVATIONS[activation]
    z = np.array([*EXTREMES, np.nan], dtype)
    if activation in ("sin", "gelu_tanh"):
        z = z[np.isnan(z) | (np.abs(z) <= 20)]
    expected = z.astype(float)
    with np.errstate(all="ignore"):
        reference.activate(code, expected)
        slope = np.empty(z.size)
        reference.activation_gradient(
            code, expected if code not in codes.KEEPS_Z else z.astype(float), slope * 0 + 1, slope
        )
    finite = np.isfinite(z) | np.isnan(z)
    y = launch(cuda.activate, code, out=[z])[1]
    with np.errstate(over="ignore"):
        close(y[finite], expected[finite].astype(dtype))
    assert np.isnan(y[-1])


def update(name):
    """(arguments before the parameters, slots of state) of an optimiser."""
    return {
        "sgd": ((0.1, 0.0, False), 0),
        "momentum": ((0.1, 0.9, False), 1),
        "nesterov": ((0.1, 0.9, True), 1),
        "adam": ((0.01, 0.9, 0.999, 1e-8, 3), 2),
        "adamw": ((0.01, 0.9, 0.999, 1e-8, 0.1, 3), 2),
        "rmsprop": ((0.01, 0.99, 1e-8), 1),
    }[name]


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("size", SIZES)
def test_optimizers_equal_the_reference(name, size, dtype, launch, close):
    settings, slots = update(name)
    kernel = "sgd" if name in ("momentum", "nesterov") else name
    gradients, parameters = numbers(size, dtype), numbers(size, dtype, 1)
    state = [np.abs(numbers(size, dtype, 2 + slot)) for slot in range(slots)]
    none = [parameters[:0]] if name == "sgd" else []
    expected = double(parameters, *state, *none)
    getattr(reference, kernel)(gradients.astype(float), *settings, *expected)
    _, *actual = launch(
        getattr(cuda, kernel), gradients, *settings, out=[parameters, *state, *none]
    )
    for array, wanted in zip(actual, expected, strict=True):
        close(array, wanted)


@pytest.mark.parametrize("seed", [0, 1, 2**62 + 12345, -1])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.999])
def test_dropout_keeps_what_the_cpu_keeps(rate, seed, dtype, launch):
    x = numbers(LONG, dtype) + dtype.type(10)
    expected = np.empty_like(x)
    reference.dropout(x, rate, seed % 2**64, expected)
    actual = launch(cuda.dropout, x, rate, seed, out=[x * np.nan])[1]
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("size", SIZES)
def test_orders_are_those_of_the_cpu(size, seed, launch):
    out = np.full(size, -1)
    expected = out.copy()
    reference.shuffle(seed, expected)
    np.testing.assert_array_equal(launch(cuda.shuffle, seed, out=[out])[1], expected)


@pytest.mark.parametrize("size", SIZES)
def test_penalty_and_clipping_equal_the_reference(size, dtype, launch, close, tolerance):
    w, dw = numbers(size, dtype), numbers(size, dtype, 1)
    (expected,) = double(dw)
    penalty = reference.l2_penalty(w.astype(float), 0.3, expected)
    value, actual = launch(cuda.l2_penalty, w, 0.3, out=[dw])
    assert value == pytest.approx(penalty, rel=tolerance[dtype])
    close(actual, expected)
    for limit in (0.5, 1e6):
        (expected,) = double(dw)
        norm = reference.clip_by_global_norm(limit, expected)
        value, actual = launch(cuda.clip_by_global_norm, limit, out=[dw])
        assert value == pytest.approx(norm, rel=tolerance[dtype])
        close(actual, expected)
        (expected,) = double(dw)
        reference.clip_by_value(limit, expected)
        close(launch(cuda.clip_by_value, limit, out=[dw])[1], expected)


def test_sums_of_squares_are_in_double(launch):
    a = np.full(LONG, 1e-3, np.float32)
    exact = np.sqrt(LONG * np.float64(a[0]) ** 2)
    assert launch(cuda.clip_by_global_norm, 1e6, out=[a])[0] == pytest.approx(exact, rel=1e-12)


def test_a_nan_gradient_stays(dtype, launch):
    gradients = numbers(13, dtype)
    gradients[7] = np.nan
    _, clipped = launch(cuda.clip_by_value, 1.0, out=[gradients])
    assert np.isnan(clipped[7])
    assert np.isnan(launch(cuda.clip_by_global_norm, 1.0, out=[gradients])[0])


def test_the_longest_size_takes_a_grid_more_than_once():
    assert blocks.FLAT * blocks.FLAT_BLOCKS < LONG
