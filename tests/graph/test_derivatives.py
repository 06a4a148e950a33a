"""Gradients, Jacobians, Hessians and Taylor derivatives: against what is known by hand."""

import numpy as np
import pytest

from fastbp import graph
from fastbp.graph import functions as f
from fastbp.graph.table import OPERATIONS
from fastbp.graph.walk import topological

rng = np.random.default_rng(0)
x, z = graph.variable("x"), graph.variable("z")
v = graph.variable("v", (3,))
rows = graph.variable("rows", (None, 3))
single = graph.variable("single", (), "float32")
V, ROWS = rng.normal(size=3), rng.normal(size=(4, 3))
A = rng.normal(size=(3, 3))


def test_any_order():
    y = graph.exp(2 * x)
    for order in range(6):
        assert graph.evaluate(y, {x: 0.3}) == pytest.approx(2**order * np.exp(0.6), rel=1e-13)
        y = graph.gradient(y, x)


def test_paths_are_summed_and_each_edge_is_followed_once(monkeypatch):
    y = x
    for _ in range(50):  # 2**50 paths
        y = 0.8 * graph.sin(y) + 0.3 * graph.sin(y) * y
    seen = []
    row = OPERATIONS["sin"]

    def counted(g, y, x):
        seen.append(1)
        return row.slopes[0](g, y, x)

    monkeypatch.setitem(OPERATIONS, "sin", row._replace(slopes=(counted,)))
    _, slope = graph.value_and_gradient(y, x, {x: 0.5})
    assert len(seen) == 50
    symbolic = graph.gradient(y, x)
    assert len(seen) == 100
    assert len(topological([symbolic])) < 1000
    assert graph.evaluate(symbolic, {x: 0.5}) == pytest.approx(slope, rel=1e-12)
    step = 1e-7
    ahead, back = graph.evaluate(y, {x: 0.5 + step}), graph.evaluate(y, {x: 0.5 - step})
    assert (ahead - back) / (2 * step) == pytest.approx(slope, rel=1e-5)


def test_one_input_or_several():
    y = x * z**2
    assert graph.evaluate(graph.gradient(y, x), {x: 2.0, z: 3.0}) == 9
    assert graph.evaluate(graph.gradient(y, [x, z]), {x: 2.0, z: 3.0}) == [9, 12]
    assert graph.gradient(y, []) == []


def test_derivative_by_a_node_that_is_no_variable():
    h = graph.exp(x) * 1  # `* 1` is simplified away, but not where somebody differentiates by it
    y = h * h + x
    by_h, by_x = graph.gradient(y, [h, x])
    e = np.exp(0.5)
    np.testing.assert_allclose(graph.evaluate([by_h, by_x], {x: 0.5}), [2 * e, 2 * e * e + 1])
    assert graph.evaluate(graph.gradient(by_h, h), {x: 0.5}) == 2
    value, (number,) = graph.value_and_gradient(y, [h], {x: 0.5})
    np.testing.assert_allclose([value, number], [e * e + 0.5, 2 * e])


def test_gradient_by_itself():
    assert graph.evaluate(graph.gradient(x, x)) == 1


def test_broadcast_operands_get_sums():
    y = graph.sum(rows * v + x)
    slopes = graph.gradient(y, [rows, v, x])
    assert [slope.shape for slope in slopes] == [(None, 3), (3,), ()]
    got = graph.evaluate(slopes, {rows: ROWS, v: V, x: 1.0})
    np.testing.assert_allclose(got[0], np.tile(V, (4, 1)))
    np.testing.assert_allclose(got[1], ROWS.sum(0))
    assert got[2] == 12
    _, numbers = graph.value_and_gradient(y, [rows, v, x], {rows: ROWS, v: V, x: 1.0})
    for number, value in zip(numbers, got, strict=True):
        np.testing.assert_allclose(number, value)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_every_batch_size(n):
    y = graph.mean(graph.sum(rows**2, axis=1, keepdims=True) * rows[:, :1])
    data = rng.normal(size=(n, 3))
    slope = graph.evaluate(graph.gradient(y, rows), {rows: data})
    _, number = graph.value_and_gradient(y, rows, {rows: data})
    first = np.eye(1, 3) * (data**2).sum(1, keepdims=True)
    expected = (2 * data * data[:, :1] + first) / max(n, 1)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)
    np.testing.assert_allclose(number, expected, rtol=1e-12)


# Directions, Jacobians, Hessians


def test_jacobian_by_rows_and_by_columns():
    tall, wide = graph.concatenate([v, graph.sin(v)]), v[:2] * v[1:]
    s, c = np.diag(np.ones(3)), np.diag(np.cos(V))
    np.testing.assert_allclose(graph.evaluate(graph.jacobian(tall, v), {v: V}), np.vstack([s, c]))
    expected = [[V[1], V[0], 0], [0, V[2], V[1]]]
    np.testing.assert_allclose(graph.evaluate(graph.jacobian(wide, v), {v: V}), expected)


def test_jacobian_of_matrices():
    m = graph.variable("m", (2, 3))
    for y in (m.T @ m, m @ A @ m.T):  # columns, rows
        j = graph.jacobian(y, m)
        assert j.shape == (*y.shape, 2, 3)
        M = rng.normal(size=(2, 3))
        value, u = graph.evaluate(j, {m: M}), rng.normal(size=(2, 3))
        along = graph.evaluate(graph.jvp(y, m, u), {m: M})
        np.testing.assert_allclose(np.tensordot(value, u, 2), along, rtol=1e-12)


def test_jacobian_of_a_batch():
    y = graph.tanh(rows @ A) * rows[:, :1]
    each = graph.evaluate(graph.jacobian(y, rows, batch=True), {rows: ROWS})
    narrow = graph.evaluate(graph.jacobian(y[:, :2], rows, batch=True), {rows: ROWS})
    one = graph.tanh(v @ A) * v[0]
    for i, row in enumerate(ROWS):
        expected = graph.evaluate(graph.jacobian(one, v), {v: row})
        np.testing.assert_allclose(each[i], expected, rtol=1e-12)
        np.testing.assert_allclose(narrow[i], expected[:2], rtol=1e-12)


def test_jacobian_by_a_batch():
    total = graph.sum(rows**2, axis=0)  # (3,) by (None, 3): back-propagation alone can
    j = graph.evaluate(graph.jacobian(total, rows), {rows: ROWS})
    assert j.shape == (3, 4, 3)
    np.testing.assert_allclose(j, 2 * np.einsum("ij,nj->inj", np.eye(3), ROWS))


def test_hessian():
    y = graph.sum((v @ A) ** 2) + graph.sum(graph.exp(v))
    expected = 2 * A @ A.T + np.diag(np.exp(V))
    np.testing.assert_allclose(graph.evaluate(graph.hessian(y, v), {v: V}), expected, rtol=1e-12)
    u = rng.normal(size=3)
    product = graph.hessian_vector_product(y, v, u)
    np.testing.assert_allclose(graph.evaluate(product, {v: V}), expected @ u, rtol=1e-12)
    linear = graph.hessian(graph.sum(2 * v), v)
    np.testing.assert_array_equal(graph.evaluate(linear), np.zeros((3, 3)))


def test_hessian_of_a_batch():
    y = graph.sum(rows**3, axis=1)
    each = graph.evaluate(graph.hessian(y, rows, batch=True), {rows: ROWS})
    np.testing.assert_allclose(each, [np.diag(6 * row) for row in ROWS], rtol=1e-12)


def test_jvp_of_several_outputs_along_nodes():
    u = graph.variable("u", (3,))
    along = graph.jvp([graph.sum(v), v * v], [v], [u])
    got = graph.evaluate(along, {v: V, u: np.ones(3)})
    assert got[0] == 3
    np.testing.assert_allclose(got[1], 2 * V)


def test_taylor():
    y = graph.log(1 + x * x) * graph.sin(x)
    t = graph.variable("t")
    (moved,) = graph.substitute([y], {x: z + t * 0.5})
    expected = [moved]
    for _ in range(5):
        expected.append(graph.gradient(expected[-1], t))
    got = graph.taylor(y, x, 0.5, 5)
    at = graph.evaluate(expected, {z: 0.7, t: 0.0})
    np.testing.assert_allclose(graph.evaluate(got, {x: 0.7}), at, rtol=1e-10)


def test_taylor_holds_a_direction_that_depends_on_x():
    first, second = graph.taylor(x * x, x, x, 2)[1:]
    assert graph.evaluate([first, second], {x: 3.0}) == [18, 18]


# Errors


def test_an_input_without_influence():
    with pytest.raises(
        ValueError, match=r"z does not influence <multiply: .*; unused='zeros' gives"
    ):
        graph.gradient(x * x, [x, z])
    with pytest.raises(ValueError, match="rows does not influence"):
        graph.value_and_gradient(x * x, [x, rows], {x: 2.0, rows: ROWS})
    with pytest.raises(ValueError, match="v does not influence"):
        graph.jvp(x * x, [x, v], [1.0, V])
    with pytest.raises(ValueError, match="does not influence"):
        graph.jacobian(v * v, x)
    slopes = graph.gradient(x * x, [x, rows], unused="zeros")
    got = graph.evaluate(slopes, {x: 2.0, rows: ROWS})
    assert got[0] == 4
    np.testing.assert_array_equal(got[1], np.zeros((4, 3)))
    _, numbers = graph.value_and_gradient(x * x, [x, rows], {x: 2.0, rows: ROWS}, unused="zeros")
    np.testing.assert_array_equal(numbers[1], np.zeros((4, 3)))
    nothing = graph.jvp([x * x, z], [x], [1.0], unused="zeros")
    assert graph.evaluate(nothing, {x: 2.0}) == [4, 0]
    assert graph.evaluate(graph.jacobian(v, x, unused="zeros")).shape == (3,)


STOPPED = [
    (lambda: graph.gradient(graph.floor(x) * x, x), "floor has no derivative: it is constant but"),
    (lambda: graph.jvp(graph.sign(x), x, 1.0), "sign has no derivative: it is constant but for"),
    (lambda: graph.vjp(x > 0, x, True), "less has no derivative: a comparison is constant but"),
    (lambda: graph.vjp(graph.argmax(v), v, 1), "argmax has no derivative: a place is an integer"),
    (
        lambda: graph.gradient(f.sum(f.where(v > 0, 1.0, 2.0)), v),
        "v does not influence .* but through less, and a comparison is constant but for jumps",
    ),
    (
        lambda: graph.gradient(f.pick(np.ones(3), graph.argmax(v)), v),
        "v does not influence .* but through argmax, and a place is an integer; unused='zeros'",
    ),
    (
        lambda: graph.gradient(f.cast(x > 0, "float64"), x),
        "x does not influence .* but through less, and a comparison is constant but for jumps",
    ),
    (
        lambda: graph.gradient(graph.stop_gradient(x), x),
        "x does not influence .* through stop_gradient, and no derivative flows through that",
    ),
]


@pytest.mark.parametrize(("call", "text"), STOPPED, ids=[row[1] for row in STOPPED])
def test_operations_that_stop_a_derivative(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_a_condition_stops_nothing_beside_it():
    y = f.where(x > 0, x * x, -x)
    assert graph.evaluate(graph.gradient(y, x), {x: 3.0}) == 6
    largest = f.pick(v, graph.argmax(v))
    got = graph.evaluate(graph.gradient(largest, v), {v: np.array([1.0, 3.0, 2.0])})
    np.testing.assert_array_equal(got, [0, 1, 0])


t = graph.variable("t", (None,), "int64")
ERRORS = [
    (
        lambda: graph.gradient(v, v),
        ValueError,
        r"y: expected a number, got shape \(3,\); graph.sum",
    ),
    (lambda: graph.value_and_gradient(v, v), ValueError, r"y: expected a number, got shape \(3,\)"),
    (lambda: graph.gradient(3.0, x), TypeError, "y: expected a node, got float"),
    (lambda: graph.gradient(x, 3.0), TypeError, "xs: expected a node or a sequence of nodes, got"),
    (lambda: graph.gradient(x, "x"), TypeError, "xs: expected .* got a sequence of str"),
    (
        lambda: graph.gradient(x, t),
        TypeError,
        "xs: expected float32 or float64, got <t: .None,. int",
    ),
    (lambda: graph.gradient(x, x, unused="no"), ValueError, "unused: expected 'raise' or 'zeros'"),
    (lambda: graph.vjp(v, v, 1.0), ValueError, r"v: expected \(3,\) float64, got \(\) float64"),
    (lambda: graph.vjp(x, x, single), ValueError, r"v: expected \(\) float64, got \(\) float32"),
    (lambda: graph.vjp(t, x, 1.0), ValueError, "t is int64, no float type"),
    (
        lambda: graph.jvp(v, v, V[:2]),
        ValueError,
        r"vs: expected \(3,\) float64, got \(2,\) float64",
    ),
    (lambda: graph.jvp(v, [v], []), ValueError, "vs: expected 1 directions, got 0"),
    (lambda: graph.jacobian(rows, rows), ValueError, r"y: expected a known size, got \(None, 3\)"),
    (lambda: graph.jacobian(v, v, batch=True), ValueError, r"y: batch=True expects shape \(None, "),
    (lambda: graph.hessian(v, v), ValueError, r"y: expected a number, got shape \(3,\)"),
    (lambda: graph.hessian(x, x, batch=True), ValueError, r"y: batch=True expects shape \(None,\)"),
    (
        lambda: graph.jacobian(rows[:, :2] * x, v, batch=True, unused="zeros"),
        ValueError,
        r"x: batch=True expects shape \(None, ...\), got \(3,\)",
    ),
    (lambda: graph.hessian(3.0, x), TypeError, "y: expected a node, got float"),
    (lambda: graph.hessian(x * x, 3.0), TypeError, "x: expected a node, got float"),
    (lambda: graph.jacobian([x], x), TypeError, "y: expected a node, got list"),
    (lambda: graph.jacobian(x, [x]), TypeError, "x: expected a node, got list"),
    (lambda: graph.taylor(x, "x", 1.0, 1), TypeError, "x: expected a node, got str"),
    (lambda: graph.jvp(3.0, x, 1.0), TypeError, "ys: expected a node or a sequence of nodes, got"),
    (lambda: graph.taylor(x, x, 1.0, -1), ValueError, "order: expected an integer >= 0, got -1"),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[row[2] for row in ERRORS])
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text):
        call()
