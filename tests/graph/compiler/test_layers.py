"""Dense layers are found, and their derivatives are calls of the backward kernel."""

import numpy as np
import pytest

from fastbp import graph
from fastbp.graph.compiler.compilation import written
from fastbp.graph.compiler.layers import matched
from fastbp.kernels import codes

rng = np.random.default_rng(5)
x, w, b = graph.variable("x", (None, 3)), graph.variable("w", (3, 4)), graph.variable("b", (4,))
g = graph.variable("g", (None, 4))
FEED = {v: rng.normal(size=[7 if s is None else s for s in v.shape]) for v in (x, w, b, g)}


def lines(outputs, inputs):
    text, _ = written(outputs, inputs, "store", 1024)
    return [line.strip() for line in text[text.index("def compiled") :].splitlines()]


def primitive(name):
    """The layer as a user writes it."""
    z = x @ w + b
    return z if name == "identity" else getattr(graph, name)(z)


@pytest.mark.parametrize("name", codes.ACTIVATIONS)
@pytest.mark.parametrize("whole", [True, False], ids=["dense", "primitive"])
def test_one_call_forth_and_one_back(name, whole, agree):
    y = graph.dense(x, w, b, name) if whole else primitive(name)
    outputs = [y, *graph.vjp(y, [x, w, b], g)]
    agree(outputs, FEED, {"rtol": 1e-10, "atol": 1e-12})
    text = lines(outputs, [x, w, b, g])
    (forth,) = (line for line in text if line.startswith("dense_forward("))
    (back,) = (line for line in text if line.startswith("dense_backward("))
    code = codes.ACTIVATIONS[name]
    assert forth.startswith(f"dense_forward(x, w, b, {code}, work, ")
    assert back.startswith("dense_backward(g, x, w, ")
    assert f", {code}, work, " in back
    assert not any(line.startswith("for ") for line in text)  # dz is never an array


@pytest.mark.parametrize("wanted", [[w], [x], [b], [w, b], [x, w], [x, b]], ids=str)
def test_parts_of_a_gradient(wanted, agree):
    y = graph.tanh(x @ w + b)
    agree(graph.vjp(y, wanted, g), FEED)


def test_second_derivatives(agree):
    y = graph.dense(x, w, b, "tanh")
    loss = graph.mean(graph.sum(y * y, axis=1))
    slopes = graph.gradient(loss, [w, b])
    seconds = graph.hessian_vector_product(loss, [w, b], [FEED[w], FEED[b]])
    agree([loss, *slopes, *seconds], {v: FEED[v] for v in (x, w, b)})


def test_a_layer_whose_weights_come_from_its_own_gradient(agree):
    y = graph.tanh(x @ w)
    dw = graph.vjp(y, w, g)
    again = graph.tanh(x @ (w - 0.1 * dw))  # x.T @ dz must come before
    agree([again, *graph.vjp(again, [x, w], g)], {v: FEED[v] for v in (x, w, g)})


def test_what_a_call_reads_comes_before_it(agree):
    dz = graph.sin(g)
    dw = x.T @ dz
    dx = dz @ (w - dw).T  # has the form of the dx of that dw, and needs it
    agree([dw, dx, graph.sum(dz, axis=0)], {v: FEED[v] for v in (x, w, g)})


def test_products_with_transposes(agree):
    outputs = [x @ w, w.T @ x.T, x @ x.T, x.T @ x, (x @ w).T @ (x @ w), w.T @ w]
    agree(outputs, {v: FEED[v] for v in (x, w)})


def test_matched():
    y, hole = graph.variable("y"), graph.variable("hole")
    pattern = hole * (1 - y * y)
    assert matched(pattern, graph.exp(y) * (1 - y * y), hole) is graph.exp(y)
    assert matched(pattern, graph.exp(y) * (2 - y * y), hole) is None
    assert matched(pattern, (1 - y * y) * graph.exp(y), hole) is None
    assert matched(hole * hole, y * graph.exp(y), hole) is None
    assert matched(pattern, y, hole) is None
