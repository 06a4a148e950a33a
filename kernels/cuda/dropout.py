"""Dropout in CUDA: the mask is computed from (seed, position), bit for bit that of the CPU."""

import numpy as np
from numba.types import uint64

from .blocks import FLAT, flat_grid
from .launch import for_reals, kernel
from .target import cuda, device

STEP = np.uint64(0x9E3779B97F4A7C15)


@device
def splitmix64(seed, i):
    """The i-th 64 random bits of a seed (Steele, Lea & Flood 2014)."""
    h = seed + uint64(i + 1) * STEP
    h = (h ^ (h >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> uint64(27))) * uint64(0x94D049BB133111EB)
    return h ^ (h >> uint64(31))


@for_reals
def dropout_kernel(real):
    @kernel(real[::1], real, uint64, uint64, real[::1], threads=FLAT)
    def dropout(x, scale, threshold, seed, y):
        for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
            keep = splitmix64(seed, i) >> uint64(40) >= threshold
            y[i] = x[i] * scale if keep else real(0)

    return dropout


def dropout(x, rate, seed, y):
    """y = x / (1 - rate) where the mask keeps, else 0; its own backward pass. x, y: (size,)."""
    if x.size:
        scale, threshold = 1 / (1 - rate), round(rate * 2**24)
        dropout_kernel[x.dtype](flat_grid(x.size), x, scale, threshold, int(seed) % 2**64, y)
