"""Expressions stated again: the rules that condense derivatives, and what they leave alone."""

import numpy as np
import pytest

from fastbp import graph
from fastbp.graph.restating import condensed

x, y = graph.variable("x", (None, 3)), graph.variable("y", (None, 3))
column = graph.variable("c", (None, 1))
inside = x <= 1

RULES = {
    "a product within its branch": (
        lambda: graph.where(inside, y, 0.0) * x,
        lambda: graph.where(inside, y * x, 0.0),
    ),
    "the other branch": (
        lambda: x * graph.where(inside, 0.0, y),
        lambda: graph.where(inside, 0.0, x * y),
    ),
    "beside 1": (
        lambda: graph.where(inside, y, 1.0) * x,
        lambda: graph.where(inside, y * x, x),
    ),
    "a quotient": (
        lambda: graph.where(inside, y, 0.0) / x,
        lambda: graph.where(inside, y / x, 0.0),
    ),
    "a sign": (
        lambda: -graph.where(inside, y, 0.0),
        lambda: graph.where(inside, -y, 0.0),
    ),
    "a sum of branches": (
        lambda: graph.where(inside, 0.0, x) + graph.where(inside, y, 0.0),
        lambda: graph.where(inside, y, x),
    ),
    "twice the same": (lambda: 0.5 * x + x * 0.5, lambda: x),
    "a negative number": (lambda: -1 * x, lambda: -x),
    "an even function": (lambda: graph.abs(x) * graph.sign(x), lambda: x),
}
KEPT = {
    "a divisor": lambda: x / graph.where(inside, y, 1.0),
    "a quotient beside 1": lambda: graph.where(inside, y, 1.0) / x,
    "a smaller choice": lambda: graph.where(column <= 1, column, 0.0) * x,
    "two conditions": lambda: graph.where(inside, x, 0.0) + graph.where(y <= 1, y, 0.0),
    "two full choices": lambda: graph.where(inside, x, y) + graph.where(inside, y, x),
    "two arguments": lambda: graph.abs(x) * graph.sign(y),
    "a wider sum": lambda: 0.5 * column + x * 0.5,
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule(name):
    given, wanted = (build() for build in RULES[name])
    assert condensed(given) is wanted
    rng = np.random.default_rng(0)
    values = {x: rng.normal(1, 2, (50, 3)), y: rng.normal(0, 1, (50, 3))}
    np.testing.assert_array_equal(graph.evaluate(given, values), graph.evaluate(wanted, values))


@pytest.mark.parametrize("name", KEPT)
def test_what_stays(name):
    given = KEPT[name]()
    assert condensed(given) is given


def test_the_slope_of_huber_is_what_one_would_write():
    d = graph.abs(x - y)
    value = graph.where(d <= 1, 0.5 * d * d, d - 0.5)
    slope = condensed(graph.gradient(graph.sum(value), x))
    jump = graph.stop_gradient(graph.sign(x - y))
    assert slope is graph.where(d <= 1, x - y, jump)


def test_an_infinite_slope_beside_the_branch_that_was_taken():
    root = graph.where(x > 0, graph.sqrt(x), 0.0)
    slope = graph.gradient(graph.sum(root), x)
    zeros = {x: np.zeros((1, 3))}
    assert np.isnan(graph.evaluate(slope, zeros)).all()
    assert not graph.evaluate(condensed(slope), zeros).any()
