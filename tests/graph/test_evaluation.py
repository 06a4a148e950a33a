"""Values: each node once, only what is needed; and every wrong feed by its text."""

from collections import Counter

import numpy as np
import pytest

from fastbp import graph
from fastbp.graph.table import OPERATIONS

x = graph.variable("x", (None, 3))
w = graph.variable("w", (3,))
s = graph.variable("s")
X, W = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0])


@pytest.fixture
def calls(monkeypatch):
    """How often the value of each operation was computed."""
    counter = Counter()

    def counted(op, row):
        def value(*arrays, **parameters):
            counter[op] += 1
            return row.value(*arrays, **parameters)

        return row._replace(value=value)

    for op, row in list(OPERATIONS.items()):
        monkeypatch.setitem(OPERATIONS, op, counted(op, row))
    return counter


def test_each_node_once(calls):
    e = graph.exp(x)
    for _ in range(20):
        e = e + e
    graph.evaluate([e, e * e], {x: X})
    assert calls == {"exp": 1, "add": 20, "multiply": 1}


def test_only_what_the_outputs_need(calls):
    used = graph.sin(x)
    graph.cos(used)
    graph.evaluate(used, {x: X})
    assert calls == {"sin": 1}


def test_values_are_dropped_when_nobody_needs_them_any_more():
    y, alive = x, []
    for _ in range(5):
        y = graph.sin(y)
    row = OPERATIONS["sin"]

    def value(array):
        import weakref

        result = row.value(array)
        alive.append(weakref.ref(result))
        assert sum(ref() is not None for ref in alive) <= 2
        return result

    OPERATIONS["sin"] = row._replace(value=value)
    try:
        graph.evaluate(y, {x: X})
    finally:
        OPERATIONS["sin"] = row
    assert len(alive) == 5


def test_feed_by_node_and_by_name():
    y = x * w
    for feed in ({x: X, w: W}, {"x": X, "w": W}, {x: X, "w": W}):
        np.testing.assert_array_equal(graph.evaluate(y, feed), X * W)


def test_one_or_several_outputs():
    assert graph.evaluate(graph.sum(w), {w: W}) == 6
    several = graph.evaluate([graph.sum(w), w], {w: W})
    assert isinstance(several, list)
    assert graph.evaluate([], {}) == []


def test_results_share_no_memory():
    given = W.copy()
    result = graph.evaluate(w, {w: given})
    transposed = graph.evaluate(x.T, {x: X})
    assert not np.shares_memory(result, given)
    assert not np.shares_memory(transposed, X)


def test_a_number_feeds_a_variable_without_axes():
    single = graph.variable("single", (), "float32")
    assert graph.evaluate(s * 2, {s: 3}) == 6
    assert graph.evaluate(single, {single: 0.1}) == np.float32(0.1)


def test_any_layout_is_read():
    np.testing.assert_array_equal(graph.evaluate(x * 1.0, {x: X[::-1, ::-1]}), X[::-1, ::-1])
    locked = X.copy()
    locked.flags.writeable = False
    np.testing.assert_array_equal(graph.evaluate(x, {x: locked}), X)


def test_the_batch_size_is_that_of_any_fed_variable():
    ones = graph.gradient(graph.sum(x), x)
    assert graph.evaluate(ones, {x: X}).shape == (2, 3)
    assert graph.evaluate(graph.mean(x), {x: X}) == 2.5
    with pytest.raises(ValueError, match="feed: expected a variable that says how large the batch"):
        graph.evaluate(ones)


def test_nan_and_infinity_pass_without_warning():
    value = graph.evaluate(graph.log(w) / 0.0, {w: np.array([0.0, -1.0, np.inf])})
    np.testing.assert_array_equal(value, [-np.inf, np.nan, np.inf])


other = graph.variable("w", (4,))
t = graph.variable("t", (None,))
ERRORS = [
    (x, [X], TypeError, "feed: expected a dict of arrays, got list"),
    (x, {}, ValueError, "feed: expected values for x; x has none"),
    (x * w, {"x": X}, ValueError, "feed: expected values for x, w; w has none"),
    (x, {"z": X}, ValueError, "feed: expected one of x; got 'z'"),
    (graph.constant(1.0), {"z": X}, ValueError, "feed: expected one of no variable; got 'z'"),
    (x, {3: X}, ValueError, "feed: expected one of x; got 3"),
    (x, {x * 2: X}, ValueError, "feed: expected variables as keys, got <multiply: .None, 3. float"),
    (x, {x: X, "x": X}, ValueError, "feed: x was fed twice, by node and by name"),
    (
        x,
        {x: X.tolist()},
        TypeError,
        "x: expected a NumPy array, got list; pass np.asarray.x, dtype",
    ),
    (s, {s: "1"}, TypeError, "s: expected a NumPy array, got str"),
    (
        x,
        {x: X.astype(np.float32)},
        TypeError,
        r"x: expected .* float64, got float32; pass x.astype",
    ),
    (x, {x: X.astype(object)}, TypeError, "x: expected an array of float64, got object"),
    (x, {x: np.ma.masked_array(X)}, TypeError, "x: expected a plain NumPy array, got MaskedArray"),
    (x, {x: X.T}, ValueError, r"x: expected shape \(None, 3\), got \(3, 2\)"),
    (x, {x: X[0]}, ValueError, r"x: expected shape \(None, 3\), got \(3,\)"),
    (w, {w: 2.0}, TypeError, r"w: expected a NumPy array, got float"),
    (
        graph.sum(x, 1) + t,
        {x: X, t: np.ones(3)},
        ValueError,
        r"t: expected 2 for None in \(None,\) as in x, got 3",
    ),
    (
        graph.sum(w) + graph.sum(other),
        {w: W},
        ValueError,
        r"variables: 'w' is the name of two, \(3,\) float64 and \(4,\) float64; give one another",
    ),
    ("x", {}, TypeError, "outputs: expected a node or a sequence of nodes, got a sequence of str"),
    (3, {}, TypeError, "outputs: expected a node or a sequence of nodes, got int"),
    ([x, 3], {}, TypeError, "outputs: expected .* got a sequence of Node, int"),
]


@pytest.mark.parametrize(("outputs", "feed", "kind", "text"), ERRORS, ids=[r[3] for r in ERRORS])
def test_errors(outputs, feed, kind, text):
    with pytest.raises(kind, match=text):
        graph.evaluate(outputs, feed)


def test_the_batch_size_may_not_differ_within_a_variable():
    square = graph.variable("square", (None, None))
    with pytest.raises(ValueError, match=r"square: expected 3 for None in .* as in square, got 2"):
        graph.evaluate(square, {square: X})
