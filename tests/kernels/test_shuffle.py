"""Shuffling: a permutation for every size, the same for all twins, and evenly spread."""

from collections import Counter
from math import factorial

import numpy as np
import pytest

from fastbp.kernels import cpu, reference

SIZES = [0, 1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097]


def order(kernels, seed, n):
    out = np.full(n, -1)
    kernels.shuffle(seed, out)
    return out


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
def test_every_number_comes_once(kernels, seed, n):
    np.testing.assert_array_equal(np.sort(order(kernels, seed, n)), np.arange(n))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
def test_twins_are_equal_to_the_bit(seed, n):
    np.testing.assert_array_equal(order(cpu, seed, n), order(reference, seed, n))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_of_a_few_come_alike(n):
    count = 500 * factorial(n)
    seen = Counter(tuple(order(cpu, seed, n).tolist()) for seed in range(count))
    kinds = factorial(n)
    assert len(seen) == kinds
    # Chi-square over kinds - 1 degrees of freedom: mean kinds - 1, variance twice that.
    square = sum((times - 500) ** 2 / 500 for times in seen.values())
    assert square < (kinds - 1) + 5 * np.sqrt(2 * (kinds - 1)) + 5


def test_places_do_not_depend_on_one_another():
    n, seeds = 97, range(300)
    orders = np.array([order(cpu, seed, n) for seed in seeds])
    means = orders.mean(axis=0)
    spread = (n**2 - 1) / 12
    assert np.abs(means - (n - 1) / 2).max() < 5 * np.sqrt(spread / len(seeds))
    neighbours = (np.diff(orders, axis=1) == 1).mean()
    assert abs(neighbours - 1 / n) < 5 * np.sqrt(1 / n / orders.size)
