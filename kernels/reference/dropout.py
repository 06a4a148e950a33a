"""Dropout in NumPy, with a mask that is computed from (seed, position) and never stored."""

import numpy as np


def keep_mask(seed, size, rate):
    """Element i is kept where u >= rate; u: the top 24 bits of splitmix64 (Steele 2014)."""
    with np.errstate(over="ignore"):
        counter = np.arange(1, size + 1, dtype=np.uint64)
        h = np.uint64(seed) + counter * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h = h ^ (h >> np.uint64(31))
    return (h >> np.uint64(40)) >= np.uint64(round(rate * 2**24))


def dropout(x, rate, seed, y):
    """y = x / (1 - rate) where the mask keeps, else 0; its own backward pass. x, y: (size,)."""
    np.multiply(x, x.dtype.type(1 / (1 - rate)), out=y)
    y[~keep_mask(seed, x.size, rate)] = 0
