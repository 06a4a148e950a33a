"""Dropout in NumPy, with a mask that is computed from (seed, position) and never stored."""

import numpy as np


def splitmix64(seed, i):
    """The i-th 64 random bits of a seed, i: (n,) uint64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        h = np.uint64(seed) + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return h ^ (h >> np.uint64(31))


def keep_mask(seed, size, rate):
    """Element i is kept where u >= rate; u: the top 24 bits of splitmix64."""
    bits = splitmix64(seed, np.arange(size, dtype=np.uint64)) >> np.uint64(40)
    return bits >= np.uint64(round(rate * 2**24))


def dropout(x, rate, seed, y):
    """y = x / (1 - rate) where the mask keeps, else 0; its own backward pass. x, y: (size,)."""
    np.multiply(x, x.dtype.type(1 / (1 - rate)), out=y)
    y[~keep_mask(seed, x.size, rate)] = 0
