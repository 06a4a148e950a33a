"""Nodes: built once, immutable, checked; graphs of any depth; every error by its text."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest

from fastbp import graph
from fastbp.graph import node as nodes
from fastbp.graph.walk import records, restore, topological

x = graph.variable("x", (None, 3))
y = graph.variable("y", (4,))
single = graph.variable("single", (None, 3), "float32")
t = graph.variable("t", (None,), "int64")
DEEP = 10_000


def chain(depth):
    node = graph.variable("deep")
    for i in range(depth):
        node = graph.sin(node) if i % 2 else node * node
    return node


def test_equal_expressions_are_one_node():
    assert x * 2 is x * 2.0
    assert x * 2 is not 2 * x
    assert graph.sum(x, axis=-1) is graph.sum(x, axis=(1,))
    assert graph.variable("x", (None, 3)) is x
    assert graph.variable("x", (None, 4)) is not x
    assert graph.constant(np.arange(100.0)) is graph.constant(np.arange(100.0))
    assert graph.constant(0.0) is not graph.constant(-0.0)


def test_nodes_that_nobody_holds_are_forgotten():
    gc.collect()
    before = len(nodes._nodes)
    node = chain(DEEP)
    assert len(nodes._nodes) > before + DEEP
    del node
    gc.collect()
    assert len(nodes._nodes) <= before + 1


def test_threads_build_one_node():
    made = []

    def build():
        made.append([graph.tanh(x + float(i)) for i in range(200)])

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a is b for other in made[1:] for a, b in zip(made[0], other, strict=True))


def test_nodes_are_immutable():
    with pytest.raises(AttributeError):
        x.shape = (1,)
    array = np.ones(3)
    constant = graph.constant(array)
    array[0] = 7
    value = graph.evaluate(constant)
    np.testing.assert_array_equal(value, np.ones(3))
    value[0] = 7  # the caller's own
    np.testing.assert_array_equal(graph.evaluate(constant), np.ones(3))


def test_operands_have_smaller_numbers():
    order = topological([chain(50)])
    assert [node.number for node in order] == sorted(node.number for node in order)
    assert all(o.number < node.number for node in order for o in node.operands)


def test_deep_graphs_need_no_stack():
    node = chain(DEEP)
    deep = graph.variable("deep")
    assert len(topological([node])) == DEEP + 1
    assert hash(node) == hash(chain(DEEP))
    assert str(node).count("\n") > 100
    assert pickle.loads(pickle.dumps(node)) is node
    assert copy.deepcopy(node) is node
    assert np.isfinite(graph.evaluate(node, {deep: 0.5}))
    slope = graph.gradient(node, deep)
    forward = graph.jvp(node, deep, 1.0)
    _, number = graph.value_and_gradient(node, deep, {deep: 0.5})
    assert np.isfinite(graph.evaluate([slope, forward], {deep: 0.5})).all()
    assert np.isfinite(number)


@pytest.mark.parametrize(
    "node",
    [
        x,
        graph.constant(np.eye(3, dtype=np.float32)),
        graph.mean(graph.exp(x)[:, ::-1]),
        graph.cast(x > 0, "float32"),
    ],
    ids=str,
)
def test_nodes_survive_pickle(node):
    assert pickle.loads(pickle.dumps(node)) is node
    assert copy.copy(node) is node


def test_pickle_in_another_process_needs_no_shared_state():
    flat = records([graph.dense(x, np.ones((3, 2)), activation="tanh")])
    assert restore(flat) is graph.dense(x, np.ones((3, 2)), activation="tanh")


# Shapes and types


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (x + y[:3], (None, 3)),
        (x[0], (3,)),
        (x[:, 1], (None,)),
        (x[..., None], (None, 3, 1)),
        (x[:, ::-2], (None, 2)),
        (x[:, [0, 0, 2, 1]], (None, 4)),
        (y[1:], (3,)),
        (x.T, (3, None)),
        (x @ x.T, (None, None)),
        (x @ y[:3], (None,)),
        (y[:3] @ x.T, (None,)),
        (y @ y, ()),
        (graph.reshape(x, (None, 3, 1)), (None, 3, 1)),
        (graph.broadcast(y, (None, 4)), (None, 4)),
        (graph.broadcast(np.ones(3), (None, 3)), (None, 3)),
        (graph.sum(x), ()),
        (graph.sum(x, axis=0, keepdims=True), (1, 3)),
        (graph.mean(x, axis=-1), (None,)),
        (graph.argmax(x), (None,)),
        (graph.stack([y, y], axis=1), (4, 2)),
        (graph.concatenate([x, x], axis=1), (None, 6)),
        (graph.concatenate([x, x], axis=-1), (None, 6)),
    ],
    ids=str,
)
def test_shapes(node, shape):
    assert node.shape == shape


def test_python_numbers_take_the_type_of_the_other():
    assert (single * 2.5).dtype == np.float32
    assert (1 - single).dtype == np.float32
    assert (single**2).dtype == np.float32
    assert graph.where(single > 0, single, 0).dtype == np.float32
    assert (t > 0).dtype == np.bool_
    assert graph.constant(2).dtype == np.float64
    assert graph.constant(2, "float32").dtype == np.float32
    assert graph.cast(single, "float64").dtype == np.float64
    assert (np.ones(3) * x) is (graph.constant(np.ones(3)) * x)


ERRORS = [
    (lambda: x + y, ValueError, r"add: shapes \(None, 3\) and \(4,\) do not broadcast"),
    (lambda: x * np.ones((5, 3)), ValueError, r"multiply: shapes \(None, 3\) and \(5, 3\)"),
    (lambda: x @ y, ValueError, r"matmul: shapes \(None, 3\) and \(4, 1\): 3 columns meet 4 rows"),
    (lambda: x @ np.float64(2), ValueError, "matmul: expected vectors or matrices, got a number"),
    (
        lambda: np.ones((2, 4, 3)) @ graph.variable("s", (3, 3, 3)),
        ValueError,
        r"matmul: shapes \(2, 4, 3\) and \(3, 3, 3\): the axes before do not broadcast",
    ),
    (
        lambda: graph.dense(x, y),
        ValueError,
        r"dense: shapes \(None, 3\) and \(4,\); expected x \(n, k\), w \(k, m\) and b \(m,\)",
    ),
    (
        lambda: graph.dense(x, np.ones((3, 4)), np.ones(3)),
        ValueError,
        r"dense: shapes \(None, 3\) and \(3, 4\) and \(3,\)",
    ),
    (
        lambda: graph.dense(x, np.ones((3, 4)), activation="swish"),
        ValueError,
        "dense: activation: expected one of identity, relu, .*; got 'swish'",
    ),
    (lambda: graph.reshape(x, (None, 4)), ValueError, r"\(None, 3\) cannot become \(None, 4\)"),
    (lambda: graph.reshape(x, (6,)), ValueError, "the number of elements differs"),
    (lambda: graph.reshape(x, 3), TypeError, r"reshape: expected a tuple such as \(None, 3\), got"),
    (lambda: graph.broadcast(x, (None, 4)), ValueError, r"does not broadcast to \(None, 4\)"),
    (lambda: graph.transpose(x, (0, 0)), ValueError, r"has no order of axes \(0, 0\)"),
    (
        lambda: graph.sum(x, axis=2),
        ValueError,
        "sum: axis: expected different axes of 2 dim.*got 2",
    ),
    (lambda: graph.max(x, axis=(0, 0)), ValueError, r"max: axis: .*got \(0, 0\)"),
    (lambda: graph.mean(x, axis=-3), ValueError, "mean: axis: .*got -3"),
    (lambda: x[:, 3], ValueError, r"index: shape \(None, 3\) has no place 3 on axis 1"),
    (lambda: x[:, [0, 5]], ValueError, r"index: .*has no places \(0, 5\) on axis 1"),
    (lambda: x[1:], ValueError, "index: .*a slice of the batch has no known size; expected ':'"),
    (lambda: x[0, 0, 0], ValueError, "index: expected at most 2 indices and one '...', got 3"),
    (lambda: x[0, [0]], ValueError, "index: expected one list of places and slices beside it"),
    (lambda: x[t], TypeError, r"index: expected numbers.*got a node; graph.pick\(x, i\)"),
    (lambda: x[1.5], TypeError, "index: expected integers, slices, None or '...', got 1.5"),
    (lambda: graph.concatenate([x, x]), ValueError, "concatenate: .*axis 0 is the batch"),
    (lambda: graph.concatenate([x, x.T], 1), ValueError, "concatenate: .*differ beside axis 1"),
    (lambda: graph.concatenate([]), ValueError, "concatenate: expected at least one part"),
    (lambda: graph.stack([]), ValueError, "stack: expected at least one part, got none"),
    (lambda: graph.pick(x, x), TypeError, "pick: expected int64, got float64"),
    (lambda: graph.pick(y, t), ValueError, r"pick: shapes \(4,\) and \(None,\); expected"),
    (
        lambda: x + single,
        TypeError,
        "add: float64 and float32 do not mix; pass one of them through",
    ),
    (lambda: single * np.ones(3), TypeError, "multiply: float32 and float64 do not mix"),
    (lambda: single * np.float64(2), TypeError, "multiply: float32 and float64 do not mix"),
    (lambda: x + t, TypeError, "add: float64 and int64 do not mix"),
    (lambda: graph.exp(t), TypeError, "exp: expected float32 or float64, got int64"),
    (lambda: graph.where(x, x, x), TypeError, "where: expected bool, got float64"),
    (
        lambda: x + np.arange(3, dtype=np.int8),
        TypeError,
        "add: expected an array of float32 .*int8",
    ),
    (lambda: x + "1", TypeError, "add: expected a node, a NumPy array or a number, got str"),
    (
        lambda: graph.add(x, [1.0]),
        TypeError,
        "add: expected a node, a NumPy array or a number, got list",
    ),
    (lambda: x + None, TypeError, "add: .*got NoneType"),
    (lambda: x + 1j, TypeError, "add: .*got complex"),
    (
        lambda: graph.constant("1"),
        TypeError,
        "constant: expected a NumPy array or a number, got str",
    ),
    (lambda: graph.constant(x), TypeError, "constant: expected an array or a number, got a node"),
    (
        lambda: graph.constant(np.ones(2), "float32"),
        TypeError,
        r"constant: expected float32, got an array of float64; pass .astype\(np.float32\)",
    ),
    (lambda: graph.constant(1.5, "int64"), TypeError, "constant: expected a number of type int64"),
    (lambda: graph.constant(np.ma.masked_array([1.0])), TypeError, "constant: expected a plain"),
    (lambda: graph.constant(np.array(["a"])), TypeError, "dtype: expected float32 or float64"),
    (
        lambda: graph.variable("2x"),
        ValueError,
        "name: expected an identifier such as 'x', got '2x'",
    ),
    (lambda: graph.variable(3), ValueError, "name: expected an identifier such as 'x', got 3"),
    (lambda: graph.variable("x", 3), TypeError, r"shape: expected a tuple such as \(None, 3\)"),
    (lambda: graph.variable("x", (-1,)), ValueError, r"shape: expected sizes >= 0 or None, got -1"),
    (
        lambda: graph.variable("x", (2.0,)),
        ValueError,
        "shape: expected sizes >= 0 or None, got 2.0",
    ),
    (lambda: graph.variable("x", (), "float16"), TypeError, "dtype: expected float32 or float64"),
    (lambda: graph.variable("x", (), "banana"), TypeError, "dtype: expected float32 or float64"),
    (
        lambda: graph.variable("x", (), None),
        TypeError,
        "dtype: expected .* got None",
    ),
    (lambda: bool(x > 0), TypeError, r"less: a node has no truth value .*graph.where\(condition"),
    (lambda: list(x), TypeError, "not iterable"),
]


@pytest.mark.parametrize(("build", "kind", "text"), ERRORS, ids=[row[2] for row in ERRORS])
def test_errors(build, kind, text):
    with pytest.raises(kind, match=text):
        build()
