"""Where a plan puts activations: what the backward pass reads is what the forward pass wrote."""

import math
from itertools import pairwise

import numpy as np
import pytest

import fastbp
from fastbp.kernels import codes
from fastbp.plan import Plan, places, shared

RNG = np.random.default_rng(0)
SIZES = [
    *([7] * count for count in (1, 2, 3, 4, 5, 9, 10, 32, 100)),
    *(RNG.integers(1, 100, count).tolist() for count in (2, 3, 5, 8, 13, 40)),
    [1024, 1024, 512, 256, 1],
    [512, 16] * 6,
    [2048, 2048, *[64] * 30],
    [1, 1, 1, 500],
]


def check_passes(sizes, found):
    """Go forward and backward; every element holds which layer wrote it."""
    size, begins, again = found
    memory = np.full(size, -1)

    def write(layer):
        memory[begins[layer] : begins[layer] + sizes[layer]] = layer

    def check(layer):
        piece = memory[begins[layer] : begins[layer] + sizes[layer]]
        assert len(piece) == sizes[layer]
        assert (piece == layer).all()

    for layer in range(len(sizes)):
        write(layer)
        for read in (layer - 1, layer):
            if read >= 0:
                check(read)
    computed = 0
    for layer in reversed(range(len(sizes))):
        if again[layer] >= 0:
            if again[layer] > 0:
                check(again[layer] - 1)
            for below in range(again[layer], layer):
                write(below)
                computed += 1
        for read in (layer - 1, layer):
            if read >= 0:
                check(read)
    return computed


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)} from {sizes[0]}")
def test_every_pass_reads_what_was_written(sizes):
    assert check_passes(sizes, places(sizes, ())) == 0
    found = shared(sizes)
    assert check_passes(sizes, found) < len(sizes)
    assert max(sizes) <= found[0] <= sum(sizes)


def test_any_choice_of_kept_layers_is_sound():
    sizes = [3, 5, 2, 7]
    for chosen in range(2**4):
        kept = {i for i in range(4) if chosen >> i & 1}
        check_passes(sizes, places(sizes, kept))


@pytest.mark.parametrize("count", [1, 2, 3, 9, 16, 25, 100, 400])
def test_equal_layers_take_twice_their_root(count):
    assert shared([64] * count)[0] <= 64 * 2 * math.sqrt(count)


def test_a_narrow_layer_is_what_is_kept():
    size, _, _ = shared([512, 16] * 6)
    assert size <= 3 * (512 + 16)


def test_z_has_a_place_where_it_is_needed():
    widths = (4, *[8] * 6, 2)
    activations = ["gelu", "relu", "silu", "sin", "tanh", "gelu", "identity"]
    layers = [
        fastbp.Dense(k, m, activation=f)
        for (k, m), f in zip(pairwise(widths), activations, strict=True)
    ]
    for recompute in (False, True):
        table = Plan(layers, 4, recompute).table
        keeps = [codes.keeps_array(code) for code in table[:, codes.ACTIVATION]]
        np.testing.assert_array_equal(table[:, codes.Z] >= 0, keeps)
        gap = (table[:, codes.Z] - table[:, codes.Y])[keeps]
        np.testing.assert_array_equal(gap, table[keeps, codes.M])
