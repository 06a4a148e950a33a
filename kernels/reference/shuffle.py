"""Shuffling in NumPy: the order of an epoch, computed from (seed, position) alone."""

import numpy as np

from .dropout import splitmix64

ROUNDS = 24


def shuffle(seed, order):
    """order = the numbers 0..n-1 in the order that a seed >= 0 names. order: (n,) int64, n < 2**32.

    The swap-or-not shuffle (Hoang, Morris & Rogaway 2012): in each round i and its partner
    key - i (mod n) swap or not, as a random bit of the pair says.
    """
    n = len(order)
    order[:] = np.arange(n)
    for turn in range(ROUNDS):
        high = int(splitmix64(seed, np.uint64(turn << 33))) >> 32
        partner = (high * n >> 32) - order
        partner[partner < 0] += n
        pair = np.maximum(order, partner) | (2 * turn + 1) << 32
        swap = splitmix64(seed, pair.astype(np.uint64)) >> np.uint64(63) == 1
        order[swap] = partner[swap]
