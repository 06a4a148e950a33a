"""Dropout: one stream of bits for all twins, its statistics, and its own backward pass."""

import math

import numpy as np
import pytest

from fastbp.kernels import cpu, reference

SIZES = [0, 1, 63, 64, 65, 1000]
SEEDS = [0, 1, 2**31, 2**62 + 12345, 2**63 - 1]
BITS = 2**64 - 1


def splitmix64(seed, count):
    """The published generator (Steele, Lea & Flood 2014), in whole numbers."""
    for i in range(1, count + 1):
        h = (seed + i * 0x9E3779B97F4A7C15) & BITS
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & BITS
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & BITS
        yield h ^ (h >> 31)


@pytest.fixture
def drop(launch):
    """drop(kernels, x, rate, seed): y."""

    def dropout(kernels, x, rate, seed):
        value, y = launch(kernels.dropout, x, rate, seed, out=[np.full_like(x, np.nan)])
        assert value is None
        return y

    return dropout


@pytest.fixture
def kept(drop):
    """kept(kernels, size, rate, seed): the mask, true where an element stays."""

    def mask(kernels, size, rate, seed, dtype=np.float32):
        return drop(kernels, np.ones(size, dtype), rate, seed) > 0

    return mask


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_twins_are_equal_to_the_bit(dtype, size, rate, seed, drop):
    x = np.random.default_rng(size).standard_normal(size).astype(dtype)
    expected = drop(reference, x, rate, seed)
    np.testing.assert_array_equal(drop(cpu, x, rate, seed), expected, strict=True)


def test_splitmix64_as_published():
    # The first outputs for the seed 1234567 in the generator's public test vectors.
    assert list(splitmix64(1234567, 3)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_mask_is_the_top_of_splitmix64(kernels, dtype, rate, seed, kept):
    expected = [(h >> 40) / 2**24 >= round(rate * 2**24) / 2**24 for h in splitmix64(seed, 200)]
    np.testing.assert_array_equal(kept(kernels, 200, rate, seed, dtype), expected)


def test_an_element_at_the_rate_is_kept(kernels, dtype, kept):
    for i, h in enumerate(splitmix64(1, 16)):
        rate = (h >> 40) / 2**24  # the element's own number
        assert kept(kernels, 16, rate, 1, dtype)[i]
        assert not kept(kernels, 16, rate + 2**-24, 1, dtype)[i]


def test_the_stream_never_changes(kernels, dtype, kept):
    # A saved network with the same seed must drop the same elements in every version.
    mask = "".join("01"[k] for k in kept(kernels, 16, 0.5, 1, dtype).tolist())
    assert mask == "1110011101010100"


def test_kept_elements_grow_and_dropped_are_zero(kernels, dtype, drop, kept, close):
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    mask = kept(kernels, 1000, 0.2, 7)
    close(drop(kernels, x, 0.2, 7), np.where(mask, x.astype(np.float64) / 0.8, 0))


def test_rate_zero_keeps_every_bit(kernels, dtype, drop):
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    x[:3] = np.inf, -np.inf, np.nan
    np.testing.assert_array_equal(drop(kernels, x, 0.0, 3), x)


def test_highest_rate_is_finite(kernels, dtype, drop):
    rate = 1 - 2**-24
    y = drop(kernels, np.ones(1000, dtype), rate, 3)
    assert np.isin(y, [0, 2**24]).all()


def test_nan_passes_where_kept_and_goes_where_dropped(kernels, dtype, drop, kept):
    y = drop(kernels, np.full(64, np.nan, dtype), 0.5, 5)
    np.testing.assert_array_equal(np.isnan(y), kept(kernels, 64, 0.5, 5))
    assert not y[~np.isnan(y)].any()


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("seed", SEEDS)
def test_share_of_kept_elements(kernels, rate, seed, kept):
    n = 100_000
    deviation = math.sqrt(n * rate * (1 - rate))
    assert abs(kept(kernels, n, rate, seed).sum() - n * (1 - rate)) < 4 * deviation


@pytest.mark.parametrize("lag", [1, 2, 64])
def test_neighbours_are_independent(kernels, lag, kept):
    signs = np.where(kept(kernels, 100_000, 0.5, 11), 1, -1)
    assert abs(np.mean(signs[:-lag] * signs[lag:])) < 4 / math.sqrt(100_000 - lag)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_consecutive_seeds_are_independent(kernels, seed, kept):
    # Counters of two seeds must not be one stream, shifted: no correlation at any lag.
    n = 4096
    first, second = (np.where(kept(kernels, n, 0.5, s), 1.0, -1.0) for s in (seed, seed + 1))
    correlation = np.correlate(first, second, mode="full") / math.sqrt(n)
    assert np.abs(correlation).max() < 6


def test_gradient_is_the_same_call(kernels, drop, slopes):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 20))
    dx = drop(kernels, dy, 0.4, 9)
    differences = slopes(lambda: np.sum(dy * drop(kernels, x, 0.4, 9)), x)
    np.testing.assert_allclose(dx, differences, rtol=1e-8, atol=1e-8)
    assert 0 < np.count_nonzero(dx) < 20
