"""Nodes as text."""

import numpy as np
import pytest

from fastbp import graph

x, y = graph.variable("x"), graph.variable("y")
m = graph.variable("m", (None, 3), "float32")

TEXTS = [
    (x, "x"),
    (graph.constant(-2.5), "-2.5"),
    (graph.constant(np.array([1.0, 2.0])), "[1., 2.]"),
    (graph.constant(np.zeros((4, 5))), "constant[4, 5]"),
    (x + y - (x - y), "x + y - (x - y)"),
    ((x + y) * y / (x * y), "(x + y) * y / (x * y)"),
    (-x * y, "-x * y"),
    (-(x * y), "-(x * y)"),
    (x ** (y**2), "x ** y ** 2.0"),
    ((x**y) ** 2, "(x ** y) ** 2.0"),
    ((-x) ** 2, "(-x) ** 2.0"),
    (-(x**2), "-x ** 2.0"),
    (x * -2.0, "x * -2.0"),
    (graph.where(x < y, graph.exp(x), 0.0), "where(x < y, exp(x), 0.0)"),
    (x >= y, "y <= x"),
    (m.T @ m, "m.T @ m"),
    ((m @ m.T)[0], "(m @ m.T)[0, :]"),
    (m[:, ::-1, None], "m[:, ::-1, None]"),
    (m[:, [0, 2]], "m[:, [0, 2]]"),
    (m[..., 1:], "m[:, 1:]"),
    (graph.sum(m, axis=0), "sum(m, axes=(0,))"),
    (graph.max(m, axis=0, keepdims=True), "max(m, axes=(0,), keepdims=True)"),
    (graph.mean(m), "sum(m, axes=(0, 1)) / (rows * 3.0)"),
    (graph.dense(m, m.T, activation="tanh"), "dense(m, m.T, activation=tanh)"),
]


@pytest.mark.parametrize(("node", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_expressions(node, text):
    assert str(node) == text


def test_what_is_shared_gets_a_line():
    e = graph.exp(x)
    assert str(e * e + e) == "a1 = exp(x)\na1 * a1 + a1"


def test_long_lines_are_cut():
    total = x
    for i in range(40):
        total = total + y * float(i)
    lines = str(total).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) < 110


def test_repr():
    assert repr(m) == "<m: (None, 3) float32>"
    assert repr(m + 1) == "<add: (None, 3) float32>"
