"""Shuffling in CUDA: the order of an epoch, bit for bit that of the CPU, and it never leaves."""

from numba.types import int64, uint64

from .blocks import FLAT, flat_grid
from .dropout import splitmix64
from .launch import kernel
from .target import cuda, device

ROUNDS = 24


@device
def swap_or_not(seed, turn, n, place):
    """One round: i and its partner key - i (mod n) swap or not, as a bit of the pair says."""
    key = int64((splitmix64(seed, turn << 33) >> uint64(32)) * uint64(n) >> uint64(32))
    partner = key - place
    partner += n if partner < 0 else 0
    of_pair = splitmix64(seed, (2 * turn + 1) << 32 | max(place, partner))
    return partner if of_pair >> uint64(63) == 1 else place


@kernel(uint64, int64, int64[::1], threads=FLAT)
def shuffle_rows(seed, n, order):
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        place = int64(i)
        for turn in range(ROUNDS):
            place = swap_or_not(seed, turn, n, place)
        order[i] = place


def shuffle(seed, order):
    """order = the numbers 0..n-1 in the order that a seed >= 0 names. order: (n,) int64, n < 2**32.

    The swap-or-not shuffle (Hoang, Morris & Rogaway 2012): no number depends on another one.
    """
    if order.size:
        shuffle_rows(flat_grid(order.size), seed, order.size, order)
