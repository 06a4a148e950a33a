"""Graphs in panels of rows: which split, and that they compute what the whole batch would."""

import numpy as np
import pytest

from fastbp import graph
from fastbp.graph.compiler.compilation import written
from fastbp.graph.compiler.lowering import NARROW, lowered, narrowed
from fastbp.graph.compiler.splitting import split
from fastbp.graph.rewriting import rebuilt

rng = np.random.default_rng(0)
K, M = 5, 6
x, y = graph.variable("x", (None, K)), graph.variable("y", (None, M))
w, v = graph.variable("w", (K, M)), graph.variable("v", (M, K))
b, s = graph.variable("b", (M,)), graph.variable("s")
t = graph.variable("t", (None,), "int64")
INPUTS = [x, y, w, v, b, s, t]


def feed(n):
    arrays = {
        node: rng.normal(size=[n if size is None else size for size in node.shape])
        for node in INPUTS[:-1]
    }
    return arrays | {t: rng.integers(0, K, n)}


def in_panels(outputs):
    return "def panel(" in written(outputs, INPUTS, "store", 1024)[0]


z = graph.dense(x, w, b, "tanh")
u = z @ v
LOSS = graph.mean(graph.sum((u - x) ** 2, axis=1)) * s
SPLIT = {
    "rows": [u],
    "a total": [graph.sum(u)],
    "totals and what depends on them": [LOSS, *graph.gradient(LOSS, [w, v, b, s, x])],
    "labels": [graph.mean(graph.logsumexp(u, axis=1) - graph.pick(u, t)), graph.argmax(u, axis=1)],
    "slices": [graph.concatenate([u[:, 1:3], u[:, :2] * s], axis=1), u[:, 0]],
    "shapes of rows": [graph.sum(graph.reshape(u[:, :4], (None, 2, 2)) @ np.eye(2), axis=0)],
    "weights that are computed": [graph.tanh(w * s)[:, :5] @ w, x @ graph.tanh(w * s)],
    "transposed weights": [y @ graph.transpose(w), graph.exp(y @ w.T * 0.1)],
    "sums with axes kept": [graph.sum(u, axis=0, keepdims=True) + 1, graph.sum(u, 1, True)],
    "the same total twice": [graph.sum(u, 0) + graph.sum(u, 0), graph.sum(u, 0)],
    "a total of totals": [graph.sum(u, 0) + graph.sum(x, 0) + graph.sum(u * u, 0)],
    "a second order": graph.hessian_vector_product(LOSS, [w, v], [w * w, v]),
    "inputs as they are": [x, u, w],
}
SPLIT["the laplacian in a loss"] = [
    loss := graph.mean(graph.laplacian(u, x) ** 2),
    *graph.gradient(loss, [w, v, b]),
]


@pytest.mark.parametrize("outputs", SPLIT.values(), ids=SPLIT)
def test_panels_compute_what_the_batch_does(outputs, agree):
    assert in_panels(outputs)
    for n in (1, 300, 2000):  # one group; several; several panels in each
        agree(outputs, feed(n), {"rtol": 1e-9, "atol": 1e-9})


def test_no_rows(agree):
    agree([u, graph.sum(u, axis=0)], feed(0))


CENTRED = u - graph.mean(u, axis=0)
WHOLE = {
    "rows that wait for a total": [CENTRED],
    "their gradient": graph.gradient(graph.sum(CENTRED**2), [w]),
    "a maximum over rows": [graph.max(u, axis=0)],
    "one row": [u[0]],
    "all pairs of rows": [graph.sum(u @ u.T)],
    "no product": [graph.sum(graph.exp(x))],
    "narrow products alone": [x @ w[:, :NARROW]],
    "conditions that are arrays": [u < 0],
}


@pytest.mark.parametrize("outputs", WHOLE.values(), ids=WHOLE)
def test_what_does_not_split_is_done_as_a_whole(outputs, agree):
    assert not in_panels(outputs)
    agree(outputs, feed(30), {"rtol": 1e-9, "atol": 1e-9})


def test_large_matrices_are_shared_by_all_threads():
    large, wide = graph.variable("large", (512, 512)), graph.variable("wide", (None, 512))
    assert split(lowered([wide @ large])) is None


@pytest.mark.parametrize("k", range(1, NARROW + 2))
@pytest.mark.parametrize("m", range(1, NARROW + 2))
def test_narrow_products_are_sums(k, m, agree):
    a, c = graph.variable("a", (None, k)), graph.variable("c", (k, m))
    layer = graph.dense(a, c, activation="sin")
    outputs = [layer, *graph.vjp(layer, [a, c], graph.cos(layer))]
    ops = {node.op for node in graph_nodes(rebuilt(lowered(outputs), {}, narrowed))}
    assert ("dense" in ops) == (min(k, m) > NARROW)
    arrays = {a: rng.normal(size=(4, k)), c: rng.normal(size=(k, m))}
    for got, wanted in zip(
        graph.evaluate(rebuilt(lowered(outputs), {}, narrowed), arrays),
        graph.evaluate(outputs, arrays),
        strict=True,
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)


def graph_nodes(outputs):
    from fastbp.graph.walk import topological

    return topological(outputs)


def test_sums_of_one_variable_are_one_total():
    loss = graph.sum((z @ v) ** 2) + graph.sum((graph.sin(x) @ w) ** 2)
    (dw,) = graph.gradient(loss, [w])
    cut = split(rebuilt(lowered([dw]), {}, narrowed))
    assert [len(terms) for terms in cut.totals.values()] == [2]
    text, _ = written([dw], INPUTS, "store", 1024)
    assert text.count("dense_backward_add(") == 2
