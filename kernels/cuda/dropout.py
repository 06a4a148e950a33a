"""Dropout in CUDA: the mask is computed from (seed, position), bit for bit that of the CPU.

The seed of a step follows from that of step 0 and from the count of steps on the GPU, so that a
recorded step draws a new mask whenever it is repeated.
"""

import numpy as np
from numba.types import float64, uint64

from ..codes import NEXT_SEED
from .blocks import FLAT, flat_grid
from .launch import for_reals, kernel
from .sums import STEP, gate, ungated
from .target import cuda, device

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@device
def splitmix64(seed, i):
    """The i-th 64 random bits of a seed (Steele, Lea & Flood 2014)."""
    h = seed + uint64(i + 1) * GOLDEN
    h = (h ^ (h >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> uint64(27))) * uint64(0x94D049BB133111EB)
    return h ^ (h >> uint64(31))


@device
def seed_of_step(seed, last, gate):
    """The seed that follows that of step 0, modulo last + 1, a power of two."""
    return (seed + uint64(gate[STEP]) * uint64(NEXT_SEED)) & last


@device
def masked(x, seed, i, scale, threshold):
    """x times 1 / (1 - rate) where the mask keeps number i, else 0."""
    return x * scale if splitmix64(seed, i) >> uint64(40) >= threshold else type(x)(0)


@for_reals
def dropout_kernel(real):
    """last: the largest seed there is."""

    @kernel(real[::1], real, uint64, uint64, uint64, float64[::1], real[::1], threads=FLAT)
    def dropout(x, scale, threshold, seed, last, gate, y):
        seed = seed_of_step(seed, last, gate)
        for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
            y[i] = masked(x[i], seed, i, scale, threshold)

    return dropout


def scale_and_threshold(rate):
    """1 / (1 - rate), and the 24 random bits from which on a number is kept."""
    return 1 / (1 - rate), round(rate * 2**24)


def dropout(x, rate, seed, y):
    """y = x / (1 - rate) where the mask keeps, else 0; its own backward pass. x, y: (size,).

    Behind a gate `seed` is that of step 0, below 2**63, and stays below.
    """
    if x.size:
        last = 2**64 - 1 if ungated() else 2**63 - 1
        dropout_kernel[x.dtype](
            flat_grid(x.size), x, *scale_and_threshold(rate), int(seed) % 2**64, last, gate(), y
        )
