"""The same numbers as the library's kernels: networks from primitive nodes, activations, losses."""

from itertools import pairwise

import numpy as np
import pytest

import fastbp
from fastbp import functional as F
from fastbp import graph
from fastbp.graph import functions as f

# Both sides round each of some hundred operations to 1e-16, at values of about one.
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def network(activation, sizes, loss):
    """(loss as a node, x, t, parameters), of primitive nodes: products, sums, functions."""
    x, t = graph.variable("x", (None, sizes[0])), graph.variable("t", (None, sizes[-1]))
    ws = [graph.variable(f"w{i}", shape) for i, shape in enumerate(pairwise(sizes))]
    bs = [graph.variable(f"b{i}", (m,)) for i, m in enumerate(sizes[1:])]
    y = x
    for i, (w, b) in enumerate(zip(ws, bs, strict=True)):
        z = y @ w + b
        y = activation(z) if i < len(ws) - 1 else z
    return loss(y, t), x, t, [*ws, *bs]


def squares(y, t):
    return f.mean(f.sum((y - t) ** 2, axis=1))


def logistic(z, t):
    """Cross-entropy as it stands in the book, without a thought of overflow."""
    p = 1 / (1 + f.exp(-z))
    return f.mean(f.sum(-t * f.log(p) - (1 - t) * f.log(1 - p), axis=1))


NETWORKS = [
    ("relu", f.relu, (5, 7, 3), "squared_error", squares),
    ("sigmoid", f.sigmoid, (4, 6, 5, 6, 2), "binary_cross_entropy", logistic),
]


@pytest.mark.parametrize(
    ("name", "activation", "sizes", "loss", "expression"), NETWORKS, ids=["two layers", "four"]
)
def test_gradients_of_a_network(name, activation, sizes, loss, expression, agree):
    rng = np.random.default_rng(3)
    n = 11
    data, target = rng.normal(size=(n, sizes[0])), rng.random((n, sizes[-1]))
    ws = [rng.normal(size=shape) for shape in pairwise(sizes)]
    bs = [rng.normal(size=m) for m in sizes[1:]]

    layers = [name] * (len(ws) - 1) + ["identity"]
    inputs, kept = [data], []
    for w, b, layer in zip(ws, bs, layers, strict=True):
        y, saved = F.dense_forward(inputs[-1], w, b, layer)
        inputs.append(y)
        kept.append(saved)
    value, dy = getattr(F, loss)(inputs.pop(), target)
    dws, dbs = [], []
    for x, w, saved, layer in reversed(list(zip(inputs, ws, kept, layers, strict=True))):
        dy, dw, db = F.dense_backward(dy, x, w, saved, layer)
        dws.insert(0, dw)
        dbs.insert(0, db)

    node, x, t, parameters = network(activation, sizes, expression)
    fed = dict(zip([x, t, *parameters], [data, target, *ws, *bs], strict=True))
    got = graph.evaluate([node, *graph.gradient(node, parameters)], fed)
    for a, b in zip(got, [value, *dws, *dbs], strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    agree([node, *graph.gradient(node, parameters)], fed)
    number, numbers = graph.value_and_gradient(node, parameters, fed)
    for a, b in zip([number, *numbers], got, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


# Losses: the formulas of docs/losses.md, for one row


def huber(y, t, delta=1.5):
    d = y - t
    size = f.abs(d)
    return f.where(size <= delta, 0.5 * d * d, delta * (size - 0.5 * delta))


def softmax_cross_entropy(z, t):
    return -f.sum(t * f.log(f.exp(z) / f.sum(f.exp(z), axis=1, keepdims=True)), axis=1)


ROWS = {
    "squared_error": lambda y, t: f.sum((y - t) ** 2, axis=1),
    "half_squared_error": lambda y, t: 0.5 * f.sum((y - t) ** 2, axis=1),
    "huber": lambda y, t: f.sum(huber(y, t), axis=1),
    "binary_cross_entropy": lambda z, t: f.sum(
        -t * f.log(f.sigmoid(z)) - (1 - t) * f.log(1 - f.sigmoid(z)), axis=1
    ),
    "softmax_cross_entropy": softmax_cross_entropy,
    "sparse": lambda z, t: f.logsumexp(z, axis=1) - f.pick(z, t),
}


def test_every_loss_is_here():
    assert ROWS.keys() - {"sparse"} == set(fastbp.losses.LOSSES) | {"huber"}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 300.0])  # exp(300 z) overflows
def test_losses(name, weighted, scale, agree):
    rng = np.random.default_rng(4)
    n, m = 6, 4
    z, t = scale * rng.normal(size=(n, m)), rng.random((n, m))
    if name == "softmax_cross_entropy":
        t /= t.sum(1, keepdims=True)
    if name == "sparse":
        t = rng.integers(m, size=n)
    s = rng.random(n) if weighted else None
    kernel = F.softmax_cross_entropy if name == "sparse" else getattr(F, name)
    value, dz = kernel(z, t, s, **({"delta": 1.5} if name == "huber" else {}))

    y = graph.variable("y", (None, m))
    target = graph.variable("t", (None, *t.shape[1:]), t.dtype)
    row = ROWS[name](y, target)
    weight = graph.variable("s", (None,))
    loss = f.sum(weight * row) / f.sum(weight) if weighted else f.mean(row)
    (stable,) = graph.simplify([loss])
    fed = {y: z, target: t} | ({weight: s} if weighted else {})
    agree([stable, graph.gradient(loss, y)], fed)
    got = graph.evaluate([stable, graph.gradient(loss, y)], fed)
    np.testing.assert_allclose(got[0], value, rtol=1e-12)
    np.testing.assert_allclose(got[1], dz, rtol=1e-12, atol=1e-15)
