"""Activations and losses given as expressions: against the built-in ones, and in every place."""

import copy
import doctest
import importlib.util
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import functional as F
from fastbp import graph
from fastbp.graph.data import from_data, to_data
from fastbp.kernels import codes, cpu, reference

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "expressions.md"

# Each built-in activation, written down again. None of these is seen to be a built-in one.
CUBE = codes.GELU_CUBIC
ACTIVATIONS = {
    "identity": lambda z: z + 0 * z,
    "relu": lambda z: graph.where(z > 0, z, 0 * z),
    "leaky_relu": lambda z: graph.where(z > 0, z, codes.LEAKY_SLOPE * z),
    "elu": lambda z: graph.where(z > 0, z, graph.expm1(graph.minimum(z, 0))),
    "sigmoid": lambda z: 0.5 + 0.5 * graph.tanh(0.5 * z),
    "tanh": lambda z: 2 * graph.sigmoid(2 * z) - 1,
    "softplus": lambda z: z + graph.softplus(-z),
    "silu": lambda z: z * graph.sigmoid(z),
    "gelu": lambda z: 0.5 * z * (1 + graph.erf(codes.SQRT_HALF * z)),
    "gelu_tanh": lambda z: 0.5 * z * (1 + graph.tanh(codes.GELU_SCALE * (z + CUBE * z**3))),
    "sin": lambda z: 2 * graph.sin(0.5 * z) * graph.cos(0.5 * z),
}


def huber(y, t):
    d = graph.abs(y - t)
    return graph.where(d <= 1, 0.5 * d * d, d - 0.5)


def softmax_cross_entropy(y, t):
    return -graph.sum(t * graph.log(graph.softmax(y, axis=1)), axis=1)


LOSSES = {
    "squared_error": lambda y, t: y.shape[1] * graph.mean((y - t) ** 2, axis=1),
    "half_squared_error": lambda y, t: 0.5 * graph.sum((y - t) * (y - t), axis=1),
    "huber": huber,
    "binary_cross_entropy": lambda y, t: graph.softplus(y) - y * t,
    "softmax_cross_entropy": softmax_cross_entropy,
}
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}
SINGLE, DOUBLE = np.dtype("float32"), np.dtype("float64")
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def values(dtype):
    """Zeros of both signs, kinks, small and large values, and ordinary ones."""
    special = [0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 30.0, -30.0, 2e4, -2e4, 1e-3, -1e-3]
    ordinary = np.random.default_rng(0).uniform(-6, 6, 500)
    return np.concatenate([special, ordinary]).astype(dtype)


def batch(dtype, n=70, k=5, m=3):
    rng = np.random.default_rng(1)
    t = rng.random((n, m))
    return rng.standard_normal((n, k)).astype(dtype), (t / t.sum(1, keepdims=True)).astype(dtype)


def network(activation, dtype="float64", sizes=(5, 7, 3)):
    return fastbp.Sequential(
        fastbp.Dense(*sizes[:2], activation=activation, dtype=dtype, rng=0, init="glorot_uniform"),
        fastbp.Dense(*sizes[1:], dtype=dtype, rng=1),
    )


# The built-in ones, by the graph's derivative


@DTYPES
@pytest.mark.parametrize("twin", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", codes.ACTIVATIONS)
def test_activations_have_the_slope_of_the_graph(name, twin, dtype):
    code, z = codes.ACTIVATIONS[name], values(dtype)
    node = graph.variable("z", (None,))
    formula = ACTIVATIONS[name](node)
    both = [formula, graph.gradient(graph.sum(formula), node)]
    expected_y, expected = graph.evaluate(both, {"z": z.astype(np.float64)})
    y, dz = z.copy(), np.empty_like(z)
    twin.activate(code, y)
    saved = z if codes.keeps_array(code) else y
    twin.activation_gradient(code, saved, np.full_like(z, 2), dz)
    allowed = 2 * TOLERANCE[dtype]
    np.testing.assert_allclose(y, expected_y, rtol=allowed, atol=allowed)
    np.testing.assert_allclose(dz, 2 * expected, rtol=allowed, atol=allowed)


@DTYPES
@pytest.mark.parametrize("twin", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_the_gradient_of_the_graph(name, twin, dtype):
    y, t = batch(dtype, k=3)
    y[:3], t[0] = [[0, 0, 0], [40, -40, 0], [1.5, 1.5, -2]], y[0]  # ties, large, no error
    t[0] = 1 / 3
    s = np.random.default_rng(2).random(len(y)).astype(dtype)
    nodes = [graph.variable(one, (None, 3), dtype) for one in "yt"]
    row = LOSSES[name](*nodes)
    row = graph.sum(row, axis=1) if row.ndim == 2 else row
    weights = graph.variable("s", (None,), dtype)
    mean = graph.sum(weights * row) / graph.sum(weights)
    expected, gradient = graph.value_and_gradient(mean, nodes[0], {"y": y, "t": t, "s": s})
    dy = np.empty_like(y)
    more = (1.0,) if name == "huber" else ()
    value = getattr(twin, name)(y, t, *more, s, dy)
    allowed = 5 * TOLERANCE[dtype]
    assert value == pytest.approx(float(expected), rel=allowed)
    np.testing.assert_allclose(dy, gradient, rtol=allowed, atol=allowed * 0.01)


@DTYPES
@pytest.mark.parametrize("twin", [cpu, reference], ids=["cpu", "reference"])
def test_labels_have_the_gradient_of_the_graph(twin, dtype):
    y, _ = batch(dtype, k=3)
    labels, s = np.arange(len(y)) % 3, np.random.default_rng(2).random(len(y)).astype(dtype)
    node, weights = graph.variable("y", (None, 3), dtype), graph.variable("s", (None,), dtype)
    row = graph.logsumexp(node, axis=1) - graph.pick(node, graph.variable("t", (None,), "int64"))
    mean = graph.sum(weights * row) / graph.sum(weights)
    expected, gradient = graph.value_and_gradient(mean, node, {"y": y, "t": labels, "s": s})
    dy = np.empty_like(y)
    value, allowed = twin.sparse_softmax_cross_entropy(y, labels, s, dy), 5 * TOLERANCE[dtype]
    assert value == pytest.approx(float(expected), rel=allowed)
    np.testing.assert_allclose(dy, gradient, rtol=allowed, atol=allowed * 0.01)


# Expressions in place of the built-in ones


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in list(ACTIVATIONS)[2:]),
        ("elu", "float64"),
        ("sin", "float64"),
    ],
)
def test_an_activation_is_the_built_in_one(name, dtype):
    x, w = values(dtype).reshape(-1, 1), np.ones((1, 1), dtype)
    results = {}
    for activation in (name, ACTIVATIONS[name]):
        y, saved = F.dense_forward(x, w, activation=activation)
        dx, *_ = F.dense_backward(np.full_like(y, 2), x, w, saved, activation)
        results[activation] = y, dx
    assert codes.keeps_array(F.activation_code(ACTIVATIONS[name], np.dtype(dtype)))
    allowed = 4 * TOLERANCE[dtype]
    for got, expected in zip(results[ACTIVATIONS[name]], results[name], strict=True):
        np.testing.assert_allclose(got, expected, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("m", "dtype"), [(1, "float64"), (10, "float32"), (33, "float64"), (140, "float32")]
)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_built_in_one(name, m, weighted, dtype):
    y, t = batch(dtype, k=m, m=m)
    s = np.random.default_rng(3).random(len(y)).astype(dtype) if weighted else None
    expected, gradient = getattr(F, name)(y, t, s)
    value, dy = F.expression_loss(y, t, LOSSES[name], s)
    allowed = 5 * TOLERANCE[dtype]
    assert value == pytest.approx(expected, rel=allowed)
    np.testing.assert_allclose(dy, gradient, rtol=allowed, atol=allowed * 0.01)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_training_is_that_of_the_built_in_ones(device):
    x, t = batch("float64", n=100)
    nets = [network("silu").to(device), network(ACTIVATIONS["silu"]).to(device)]
    losses = "softmax_cross_entropy", softmax_cross_entropy
    for net, loss in zip(nets, losses, strict=True):
        net.fit(x, t, loss=loss, epochs=3, batch_size=30, seed=0, validation_data=(x, t))
    np.testing.assert_allclose(nets[1].parameters, nets[0].parameters, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(nets[1].history.loss, nets[0].history.loss, rtol=1e-13)
    scores = [net.evaluate(x, t)["loss"] for net in nets]
    assert scores[0] == pytest.approx(scores[1], rel=1e-13)
    assert scores[1] == pytest.approx(nets[1].history.validation["loss"][-1], rel=1e-13)


# Groups of rows with gradients of their own; panels that all threads share, on both engines.
@pytest.mark.parametrize("sizes", [(8, 64, 3), (64, 300, 3)])
@pytest.mark.parametrize("engine", ["tiles", "blas"])
def test_threads_give_the_same_bits(sizes, engine):
    x, t = batch("float64", n=1200, k=sizes[0])
    net, before = network(ACTIVATIONS["silu"], sizes=sizes), fastbp.get_num_threads()
    found = []
    try:
        fastbp.set_engine(engine)
        for threads in (1, 2):
            fastbp.set_num_threads(threads)
            value, dx = net.loss_and_gradients(x, t, softmax_cross_entropy)
            found.append((value, dx, net.gradients.copy()))
    finally:
        fastbp.set_num_threads(before)
        fastbp.set_engine("tiles")
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
    expected = network("silu", sizes=sizes).loss_and_gradients(x, t, "softmax_cross_entropy")
    assert found[0][0] == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("n", [1, 5, 40])  # of few rows each layer has its own kernels
def test_gradients_by_differences(n):
    x, t = batch("float64", n=n)
    mish = fastbp.Dense(
        5, 3, activation=lambda z: z * graph.tanh(graph.softplus(z)), rng=0, dtype="float64"
    )
    assert fastbp.gradcheck(mish, x)
    net = network(ACTIVATIONS["silu"])
    assert fastbp.gradcheck(net, (x, t), loss=lambda y, t: (y - t) ** 4)
    assert fastbp.gradcheck(F.expression_loss, (x[:, :3].copy(), t, softmax_cross_entropy))


PULL = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])
ROWS = {
    "with constants": lambda y, t: np.array([1.0, 2.0, 0.5]) * (y - t) ** 2,
    "with a matrix": lambda y, t: ((y - t) @ PULL) ** 2,
    "of a distance": lambda y, t: graph.sqrt(graph.sum((y - t) ** 2, axis=1)),
    "of pairs": lambda y, t: graph.sum((y[:, :, None] - t[:, None, :]) ** 2, axis=(1, 2)),
    "of factors": lambda y, t: 3 * -(graph.sum(y * t, axis=1) / 2),
    "of some": lambda y, t: (y[:, 0] - t[:, 2]) ** 2 + y[:, 1],
    "of logarithms": lambda y, t: (
        graph.log(1 + graph.sum(y * y, 1)) - graph.sum(t * graph.log(graph.sigmoid(y) + t), axis=1)
    ),
    "of columns": lambda y, t: graph.logsumexp(y[:, :2] - t[:, 1:], axis=1) * graph.exp(y[:, 2]),
    "of soft pairs": lambda y, t: graph.sum(
        graph.softplus(y[:, :, None] - t[:, None, :]), axis=(1, 2)
    ),
    "of powers": lambda y, t: graph.sum((1 + y * y) ** graph.sum(t, axis=1, keepdims=True), 1),
    "of functions": lambda y, t: graph.sum(
        t * graph.exp(graph.tanh(PULL[:, 0] * y) * graph.tanh(y)), axis=1
    ),
    "a margin": lambda y, t: graph.relu(1 + graph.max(y * (1 - t), axis=1) - graph.sum(y * t, 1)),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_loss_of_rows(name):
    y, t = batch("float64", n=40, k=3)
    s = np.random.default_rng(3).random(40)
    assert fastbp.gradcheck(F.expression_loss, (y, t, ROWS[name], s))
    value, dy = F.expression_loss(y, t, ROWS[name], s)
    code, expected = fastbp.losses.for_outputs(ROWS[name], 3, DOUBLE).rows.code, np.empty_like(dy)
    assert reference.expression_loss(y, t, code, s, expected) == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(dy, expected, rtol=1e-12, atol=1e-15)


def test_a_row_too_long_for_the_stack():
    y, t = batch("float64", n=2, k=5000, m=5000)  # 40 kB: exp is computed twice
    value, dy = F.expression_loss(y, t, softmax_cross_entropy)
    expected, gradient = F.softmax_cross_entropy(y, t)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(dy, gradient, rtol=1e-12, atol=1e-18)


def test_a_batch_without_rows():
    y = np.empty((0, 3))
    value, dy = F.expression_loss(y, y, LOSSES["squared_error"])
    assert (value, dy.shape) == (0.0, (0, 3))


# What they are known by


def test_a_formula_that_is_built_in_is_that_one():
    def dense(activation):
        return fastbp.Dense(2, 2, activation=activation)

    assert dense(graph.gelu).activation == "gelu"
    assert dense(lambda z: z).activation == "identity"
    assert dense(lambda z: 1 / (1 + graph.exp(-z))).activation == "sigmoid"
    assert dense(lambda z: graph.maximum(0, z)).activation == "relu"
    assert dense(lambda z: graph.maximum(z, 1)).code >= codes.EXPRESSION


def test_equal_expressions_share_one_function():
    layers = [fastbp.Dense(2, 2, activation=lambda z: z * graph.sigmoid(z)) for _ in range(2)]
    assert layers[0].code == layers[1].code
    assert layers[0].activation is layers[1].activation
    same = fastbp.Dense(2, 2, activation=lambda z: 1 * z * graph.sigmoid(z))
    assert same.code == layers[0].code
    two, three = (fastbp.Dense(2, 2, activation=lambda z, c=c: c * z) for c in (2.0, 3.0))
    assert two.code != three.code


def test_a_layer_shows_its_expression():
    layer = fastbp.Dense(2, 3, activation=lambda z: z * graph.sigmoid(1.702 * z))
    assert repr(layer) == ("Dense(2 -> 3, z * sigmoid(1.702 * z), w (2, 3), b (3,), float32)")


def test_the_start_of_weights_is_that_of_no_rectifier():
    weights = [
        fastbp.Dense(9, 9, activation=activation, rng=0, dtype="float64").w
        for activation in ("tanh", ACTIVATIONS["silu"])
    ]
    np.testing.assert_array_equal(*weights)


# In files, copies and compiled code


def fitted():
    x, t = batch("float64")
    net = network(lambda z: z * graph.sigmoid(1.702 * z))
    weights = np.array([1.0, 0.1, 2.0])
    net.fit(x, t, loss=lambda y, t: softmax_cross_entropy(y, weights * t), epochs=1, seed=0)
    return net, x, t


@pytest.mark.parametrize("copied", ["file", "pickle", "deepcopy"])
def test_a_copy_computes_the_same(copied, tmp_path):
    net, x, t = fitted()
    if copied == "file":
        other = fastbp.load(net.save(tmp_path / "net"))
    else:
        other = copy.deepcopy(net) if copied == "deepcopy" else pickle.loads(pickle.dumps(net))
    assert repr(other) == repr(net)
    np.testing.assert_array_equal(other.predict(x), net.predict(x))
    assert other.evaluate(x, t) == net.evaluate(x, t)


def test_another_process_computes_the_same_and_compiles_nothing():
    net, x, t = fitted()
    code = """
import sys, pickle
net, x, t = pickle.load(sys.stdin.buffer)
print(net.evaluate(x, t))
expressions = [module for name, module in sys.modules.items() if name.startswith("fastbp_graph_")]
print(len(expressions), sum(len(one.compiled.stats.cache_misses) for one in expressions))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((net, x, t)),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert ended.stdout.decode() == f"{net.evaluate(x, t)}\n2 0\n", ended.stderr


def test_a_layer_alone_is_copied_by_its_expression():
    layer = fastbp.Dense(3, 2, activation=ACTIVATIONS["silu"], dtype="float64", rng=0)
    other = pickle.loads(pickle.dumps(layer))
    x, _ = batch("float64", k=3)
    np.testing.assert_array_equal(other.forward(x), layer.forward(x))


def test_inside_compiled_code():
    x, t = batch("float64")
    nets = network("silu"), network(ACTIVATIONS["silu"])
    losses = "squared_error", LOSSES["squared_error"]
    found = []
    for net, loss in zip(nets, losses, strict=True):
        space = net.workspace(len(x), loss=loss, optimizer=fastbp.SGD(0.1))
        step = net.njit_step()
        found.append([step(space, x, t) for _ in range(4)])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-13)
    assert found[1][3] < found[1][0]
    with pytest.raises(TypeError, match="workspace: expected built-in activations and loss"):
        pickle.dumps(space)


def test_an_ensemble():
    x, t = batch("float64")
    nets = [fastbp.Ensemble(network(a), 2) for a in ("silu", ACTIVATIONS["silu"])]
    losses = "squared_error", LOSSES["squared_error"]
    histories = [n.fit(x, t, loss=a, epochs=2) for n, a in zip(nets, losses, strict=True)]
    for one, two in zip(*histories, strict=True):
        np.testing.assert_allclose(two.loss, one.loss, rtol=1e-12)


# Errors


def number_outside(z):
    return z * graph.variable("a", (), z.dtype)


@pytest.mark.parametrize(
    ("activation", "kind", "message"),
    [
        ("swish", ValueError, "expected one of identity, relu"),
        (lambda z: 1.0, TypeError, "expected a node, got float; the function gets nodes"),
        (np.exp, TypeError, "operand 'Node' does not support ufuncs"),
        (lambda: 1.0, TypeError, "takes 0 positional arguments"),
        (lambda z: np.float64(2) * z, TypeError, "float64 and float32 do not mix"),
        (lambda z: z if z > 0 else 0 * z, TypeError, "a node has no truth value"),
        (lambda z: z > 0, TypeError, "expected an expression of float32, got one of bool"),
        (lambda z: graph.cast(z, "float64"), TypeError, "expected an expression of float32"),
        (number_outside, ValueError, "expected an expression of z alone, got the variable a too"),
        (graph.softmax, ValueError, "expected a function of each element alone, got softmax"),
        (lambda z: graph.sum(z, axis=1), ValueError, "each element alone, got sum"),
        (lambda z: graph.mean(z), ValueError, "expected no batch size in it"),
        (lambda z: z * np.ones(2, SINGLE), ValueError, "do not broadcast"),
        (
            lambda z: z * np.ones((1, 1), SINGLE),
            ValueError,
            "alone, got a constant of shape (1, 1)",
        ),
        (graph.floor, ValueError, "floor has no derivative: it is constant but for jumps"),
        (lambda z: graph.constant(1.0, z.dtype), ValueError, "z does not influence"),
    ],
)
def test_what_is_no_activation(activation, kind, message):
    with pytest.raises(kind, match=f"^activation: .*{re.escape(message)}"):
        fastbp.Dense(2, 2, activation=activation)


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        ("mse", ValueError, "expected one of squared_error"),
        (lambda y: y, TypeError, "takes 1 positional argument but 2 were given"),
        (lambda y, t: 0.0, TypeError, "expected a node, got float"),
        (lambda y, t: y < t, TypeError, "expected an expression of float32, got one of bool"),
        (lambda y, t: graph.mean((y - t) ** 2), ValueError, "got shape (); graph.sum(..., axis=1)"),
        (lambda y, t: (y - graph.sum(y, 0)) ** 2, ValueError, "got sum over the batch"),
        (lambda y, t: t * graph.softmax(y, 0), ValueError, "got softmax over the batch"),
        (lambda y, t: y - graph.mean(y), ValueError, "expected no batch size in it"),
        (lambda y, t: y * y.T, ValueError, "do not broadcast"),
        (lambda y, t: number_outside(y), ValueError, "y and t alone, got the variable a too"),
        (lambda y, t: t * t, ValueError, "y does not influence"),
        (lambda y, t: graph.floor(y), ValueError, "floor has no derivative"),
        (lambda y, t: graph.concatenate([y, t], 1), ValueError, "concatenate has no loop within"),
    ],
)
def test_what_is_no_loss(loss, kind, message):
    net = network("tanh", "float32")
    x, t = batch("float32")
    with pytest.raises(kind, match=f"^loss: .*{re.escape(message)}"):
        net.fit(x, t, loss=loss)
    assert net.history is None


def test_a_loss_of_another_network():
    loss = fastbp.losses.for_outputs(LOSSES["squared_error"], 2, DOUBLE)
    x, t = batch("float64")
    with pytest.raises(ValueError, match="loss: expected an expression for 3 outputs of float64"):
        network("tanh").evaluate(x, t, loss)


def test_an_activation_of_another_type():
    layer = fastbp.Dense(2, 2, activation=ACTIVATIONS["silu"])
    with pytest.raises(TypeError, match="expected an expression of float64, got one of float32"):
        fastbp.Dense(2, 2, activation=layer.activation, dtype="float64")


def test_a_loss_that_is_not_finite():
    x, t = batch("float64")
    with pytest.raises(fastbp.DivergenceError, match="the loss or its gradient is NaN"):
        network("tanh").loss_and_gradients(x, t, lambda y, t: graph.log(y - 100))


def distance(y, t):
    return graph.sqrt((y - t) ** 2)  # 0 at y = t, where its derivative is 0 / 0


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("rows", [2, 600])
@pytest.mark.parametrize(
    ("activation", "loss"),
    [("identity", distance), (lambda z: graph.sqrt(abs(z)), "squared_error")],
    ids=["loss", "activation"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_step_on_a_gradient_that_is_not_finite(device, rows, activation, loss):
    layer = fastbp.Dense(2, 1, activation=activation, init="zeros", dtype="float64")
    net, x, t = fastbp.Sequential(layer, device=device), np.ones((rows, 2)), np.zeros((rows, 1))
    t += 0.0 if loss is distance else 1.0
    optimizer = fastbp.Adam()
    for call in (
        lambda: net.loss_and_gradients(x, t, loss),
        lambda: net.train_step(x, t, loss, optimizer),
        lambda: net.fit(x, t, loss=loss, optimizer=optimizer, epochs=1),
    ):
        with pytest.raises(fastbp.DivergenceError, match="no finite derivative here"):
            call()
        np.testing.assert_array_equal(net.parameters, 0)
        assert optimizer.step == 0


def test_no_expressions_on_a_gpu():
    from fastbp import expressions

    expressions.check_device("loss", "cpu")
    with pytest.raises(ValueError, match="activation: expected a built-in one for device='cuda'"):
        network(ACTIVATIONS["silu"]).to("cuda")
    with pytest.raises(ValueError, match="expressions run on 'cpu' and 'reference'"):
        expressions.check_device("loss", "cuda")


def test_every_kind_of_parameter_comes_back_from_a_file():
    y = graph.variable("y", (None, 5))
    some = y[:, 1:4] * y[:, [0, 2, 4]] + np.array([np.inf, 0.1, -0.0])
    node = graph.softmax(graph.cast(graph.reshape(some, (None, 3, 1)), "float32"), axis=1)
    assert from_data(json.loads(json.dumps(to_data(node)))) is node


def test_a_file_with_unknown_operations():
    data = [["variable", [], {"name": "z"}, [None, None], "<f8"], ["swirl", [0], {}, [], "<f8"]]
    with pytest.raises(ValueError, match="unknown operation 'swirl' in an expression"):
        fastbp.expressions.read_activation(data, DOUBLE)
    data[1][:2] = "exp", [1]
    with pytest.raises(ValueError, match=r"operands \[1\] of exp do not stand"):
        fastbp.expressions.read_activation(data, DOUBLE)


# The page and the benchmark


def test_examples_of_the_page_run():
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    done = doctest.testfile(str(PAGE), module_relative=False, optionflags=options)
    assert done.attempted > 5
    assert done.failed == 0


@pytest.fixture
def bench():
    place, script = list(sys.path), ROOT / "bench" / "expressions.py"
    spec = importlib.util.spec_from_file_location("bench_expressions", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = place


def test_measured_ratios_are_those_of_the_committed_run(bench):
    results = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert "\n".join(bench.table(results)) in PAGE.read_text(encoding="utf-8")
    assert all(row["ratio"] < 1.1 for row in results["rows"])


def test_the_benchmark_runs(bench, monkeypatch, tmp_path, capsys):
    small = {"LAYERS": [(9, 4, 5)], "OUTPUTS": [(9, 3)], "NETS": [((4, 5, 3), 9)]}
    small |= {"ROUNDS": 1, "BUDGET": 1e-6, "RESULTS": tmp_path / "expressions.json"}
    small["ACTIVATIONS"] = {name: ACTIVATIONS[name] for name in ("gelu_tanh", "tanh")}
    small["LOSSES"] = {name: LOSSES[name] for name in bench.LOSSES}
    for name, value in small.items():
        monkeypatch.setattr(bench, name, value)
    bench.main()
    assert "| 9 x 4 x 5 |" in capsys.readouterr().out
    assert len(json.loads(small["RESULTS"].read_text())["rows"]) == 2 + 4 + 2
    monkeypatch.setitem(bench.LOSSES, "huber", LOSSES["squared_error"])
    with pytest.raises(AssertionError, match="the expression gives other results; nothing was"):
        bench.main()


@DTYPES
def test_a_panel_that_the_batch_does_not_fill_has_no_part_in_the_gradients(dtype):
    # 77 rows of a narrow network. What fills the last panel up has z = b = 0: log(0), 1 / 0.
    rng = np.random.default_rng(0)
    net = fastbp.Sequential(
        fastbp.Dense(5, 7, activation=graph.log, dtype=dtype, rng=0),
        fastbp.Dense(7, 3, dtype=dtype, rng=1),
    )
    net.layers[0].w[...] = rng.uniform(0.5, 1, (5, 7))
    x, t = rng.uniform(0.5, 1, (77, 5)).astype(dtype), rng.random((77, 3)).astype(dtype)
    loss, dx = net.loss_and_gradients(x, t, loss="squared_error")
    together, total = net.gradients.copy(), np.zeros_like(net.gradients)
    for i in range(77):
        _, alone = net.loss_and_gradients(x[i : i + 1], t[i : i + 1], loss="squared_error")
        np.testing.assert_allclose(dx[i : i + 1], alone / 77, rtol=0, atol=10 * TOLERANCE[dtype])
        total += net.gradients / 77
    assert np.isfinite(loss)
    np.testing.assert_allclose(together, total, rtol=0, atol=10 * TOLERANCE[dtype])
