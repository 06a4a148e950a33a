"""Memory between the steps of compiled code."""

import re

import numpy as np

from fastbp import graph
from fastbp.graph.compiler.arena import APART, Arena
from fastbp.graph.compiler.compilation import written

x, y = graph.variable("x", (None, 3)), graph.variable("y", (None, 3))
row, single = graph.variable("row", (4,)), graph.variable("single", (None,), "float32")


def test_places_are_apart_and_used_again():
    arena = Arena()
    assert arena.take(x) == "memory_float64[0 : n * 3]"
    assert arena.take(row) == f"memory_float64[n * 3 + {APART} : n * 3 + {APART + 4}]"
    assert arena.take(single) == "memory_float32[0 : n * 1]"
    arena.give(x)
    assert arena.take(y) == "memory_float64[0 : n * 3]"
    assert arena.lines() == [
        f"memory_float64 = np.empty(n * 3 + {2 * APART + 4}, np.float64)",
        f"memory_float32 = np.empty(n * 1 + {APART}, np.float32)",
    ]


def test_a_chain_of_products_needs_two_places(agree):
    w = graph.variable("w", (3, 3))
    z = x
    for _ in range(10):
        z = z @ w
    text, _ = written([graph.sum(z)], [x, w], "store", 1)
    (size,) = re.findall(r"memory_float64 = np.empty\((.*), np", text)
    assert size == f"n * 6 + {2 * APART}"
    rng = np.random.default_rng(0)
    agree([graph.sum(z), z], {x: rng.normal(size=(5, 3)), w: rng.normal(size=(3, 3))})
