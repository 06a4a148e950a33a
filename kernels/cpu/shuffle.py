"""Shuffling in Numba: the order of an epoch, computed from (seed, position) alone."""

import numpy as np

from .dropout import splitmix64
from .jit import inline, kernel

ROUNDS = 24  # with 12 the orders of 5 rows are not yet equally likely
BLOCK = 1024  # positions that go through all rounds in L1
HALF, TOP = np.uint64(32), np.uint64(63)


@inline
def swap_or_not(seed, turn, n, places):
    """One round: i and its partner key - i (mod n) swap or not, as a bit of the pair says."""
    key = np.int64((splitmix64(seed, turn << 33) >> HALF) * np.uint64(n) >> HALF)
    for j in range(places.size):
        partner = key - places[j]
        partner += n if partner < 0 else 0
        of_pair = splitmix64(seed, (2 * turn + 1) << 32 | max(places[j], partner))
        places[j] = partner if of_pair >> TOP == 1 else places[j]


@kernel
def shuffle(seed, order):
    """order = the numbers 0..n-1 in the order that a seed >= 0 names. order: (n,) int64, n < 2**32.

    The swap-or-not shuffle (Hoang, Morris & Rogaway 2012): no number depends on another one.
    """
    for begin in range(0, order.size, BLOCK):
        places = order[begin : begin + BLOCK]
        for j in range(places.size):
            places[j] = begin + j
        for turn in range(ROUNDS):
            swap_or_not(seed, turn, order.size, places)
