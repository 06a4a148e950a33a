"""Dropout in Numba, with a mask that is computed from (seed, position) and never stored."""

import numpy as np

from .jit import inline, kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inline
def splitmix64(seed, i):
    """The i-th 64 random bits of a seed (Steele, Lea & Flood 2014)."""
    h = np.uint64(seed) + np.uint64(i + 1) * GOLDEN
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@inline
def seed_from(seed, position):
    """The seed whose mask begins where that of `seed` is at `position`."""
    return np.int64(np.uint64(seed) + np.uint64(position) * GOLDEN)


@kernel
def dropout(x, rate, seed, y):
    """y = x / (1 - rate) where the mask keeps, else 0; its own backward pass. x, y: (size,)."""
    scale, zero = x.dtype.type(1 / (1 - rate)), x.dtype.type(0)
    threshold = np.uint64(round(rate * 2**24))
    for i in range(x.size):
        keep = splitmix64(seed, i) >> np.uint64(40) >= threshold
        y[i] = x[i] * scale if keep else zero
