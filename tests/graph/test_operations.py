"""Every row of the table: its value, its type, its derivatives in all modes, and what holds at
zeros, ties and infinities."""

import numpy as np
import pytest
from scipy import special

from fastbp import functional as F
from fastbp import graph
from fastbp.graph import functions as f
from fastbp.graph.table import OPERATIONS
from fastbp.kernels import codes

rng = np.random.default_rng(0)
A, B = rng.normal(size=(4, 3)), rng.normal(size=(3,))
POSITIVE = np.abs(A) + 0.5
inf, nan = np.inf, np.nan

# Central differences with a step of 1e-5: the third derivative over 1e10, and 1e-16 over the step.
DIFFERENCES = {"rtol": 1e-7, "atol": 1e-7}
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def softmax(x):
    return special.softmax(x, axis=1)


def normal(z):
    return 0.5 * (1 + special.erf(z / np.sqrt(2)))


def at(shape, key, g):
    result = np.zeros(shape)
    np.add.at(result, key, g)
    return result


C = A > 0
LABELS = np.array([2, 0, 1, 1])
W = rng.normal(size=(3, 2))
CUBE = rng.normal(size=(2, 3, 4))
CHOSEN = [2, 0, 2]
# op: (function, what NumPy says, arrays that can be differentiated by)
SMOOTH = {
    "add": (lambda a, b: a + b, np.add, (A, B)),
    "subtract": (lambda a, b: a - b, np.subtract, (A, B)),
    "multiply": (lambda a, b: a * b, np.multiply, (A, B)),
    "divide": (lambda a, b: a / b, np.divide, (A, POSITIVE[:1])),
    "negative": (lambda a: -a, np.negative, (A,)),
    "power": (lambda a, b: a**b, np.power, (POSITIVE, B)),
    "exp": (f.exp, np.exp, (A,)),
    "expm1": (f.expm1, np.expm1, (A,)),
    "log": (f.log, np.log, (POSITIVE,)),
    "log1p": (f.log1p, np.log1p, (POSITIVE,)),
    "sqrt": (f.sqrt, np.sqrt, (POSITIVE,)),
    "sin": (f.sin, np.sin, (A,)),
    "cos": (f.cos, np.cos, (A,)),
    "erf": (f.erf, special.erf, (A,)),
    "abs": (abs, np.abs, (A,)),
    "tanh": (f.tanh, np.tanh, (A,)),
    "sigmoid": (f.sigmoid, special.expit, (A,)),
    "softplus": (f.softplus, lambda x: np.log(1 + np.exp(x)), (A,)),
    "relu": (f.relu, lambda x: np.where(x > 0, x, 0), (A,)),
    "leaky_relu": (f.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x), (A,)),
    "elu": (f.elu, lambda x: np.where(x > 0, x, np.exp(x) - 1), (A,)),
    "silu": (f.silu, lambda x: x * special.expit(x), (A,)),
    "gelu": (f.gelu, lambda x: x * normal(x), (A,)),
    "gelu_tanh": (
        f.gelu_tanh,
        lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        (A,),
    ),
    "maximum": (f.maximum, np.maximum, (A, B)),
    "minimum": (f.minimum, np.minimum, (A, B)),
    "where": (lambda a, b: f.where(C, a, b), lambda a, b: np.where(C, a, b), (A, B)),
    "stop_gradient": (lambda a: a * f.stop_gradient(3 * a), lambda a: 3 * a * a, ()),
    "cast": (lambda a: f.cast(a, "float64"), lambda a: a, (A,)),
    "matmul": (lambda a, b: a @ b, np.matmul, (A, W)),
    "dense": (
        lambda x, w, b: f.dense(x, w, b, "silu"),
        lambda x, w, b: (x @ w + b) * special.expit(x @ w + b),
        (A, W, B[:2]),
    ),
    "transpose": (
        lambda a: f.transpose(a, (2, 0, 1)),
        lambda a: np.transpose(a, (2, 0, 1)),
        (CUBE,),
    ),
    "reshape": (lambda a: f.reshape(a, (2, 6)), lambda a: a.reshape(2, 6), (A,)),
    "broadcast": (lambda b: f.broadcast(b, (4, 3)), lambda b: b + np.zeros((4, 3)), (B,)),
    "concatenate": (
        lambda a, b: f.concatenate([a, b[None], a]),
        lambda a, b: np.concatenate([a, b[None], a]),
        (A, B),
    ),
    "index": (lambda a: f.index(a, (CHOSEN,)), lambda a: a[CHOSEN], (A,)),
    "place": (
        lambda a: f.place(a, (("take", 1, 3, 1, 0),), (5, 3)),
        lambda a: at((5, 3), [1, 3, 1, 0], a),
        (A,),
    ),
    "pick": (lambda a: f.pick(a, LABELS), lambda a: a[range(4), LABELS], (A,)),
    "unpick": (
        lambda a: f.unpick(a[:, 0], LABELS, 3),
        lambda a: at((4, 3), (range(4), LABELS), a[:, 0]),
        (A,),
    ),
    "sum": (lambda a: f.sum(a, 1), lambda a: a.sum(1), (A,)),
    "max": (lambda a: f.max(a, (0, 1)), np.max, (A,)),
    "logsumexp": (
        lambda a: f.logsumexp(a, 0, True),
        lambda a: special.logsumexp(a, 0, keepdims=True),
        (A,),
    ),
    "softmax": (f.softmax, softmax, (A,)),
}
FLAT = {
    "sign": (f.sign, np.sign, (A,)),
    "floor": (f.floor, np.floor, (A,)),
    "less": (lambda a, b: a < b, np.less, (A, B)),
    "less_equal": (lambda a, b: a <= b, np.less_equal, (A, B)),
    "equal": (f.equal, np.equal, (A, A * C)),
    "argmax": (f.argmax, lambda a: np.argmax(a, 1), (A,)),
}


def variables(arrays):
    return [graph.variable(f"x{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]


def feed(xs, arrays):
    return dict(zip(xs, arrays, strict=True))


def test_every_operation_is_tested():
    assert SMOOTH.keys() | FLAT.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("op", SMOOTH | FLAT)
def test_value_is_that_of_numpy(op):
    function, expected, arrays = (SMOOTH | FLAT)[op]
    arrays = arrays or (A,)
    xs = variables(arrays)
    y = function(*xs)
    value = graph.evaluate(y, feed(xs, arrays))
    np.testing.assert_allclose(value, expected(*arrays), **CLOSE)
    assert value.shape == y.shape
    assert value.dtype == y.dtype


@pytest.mark.parametrize("op", SMOOTH)
def test_float32_stays_float32_forth_and_back(op):
    function, _, arrays = SMOOTH[op]
    arrays = [array.astype(np.float32) for array in arrays or (A,)]
    if op == "cast":
        function = lambda a: f.cast(a, "float64")  # noqa: E731
    xs = variables(arrays)
    y = graph.sum(function(*xs))
    assert y.dtype == (np.float64 if op == "cast" else np.float32)
    slopes = graph.gradient(y, xs)
    assert {slope.dtype for slope in slopes} == {np.dtype(np.float32)}
    values = graph.evaluate([y, *slopes], feed(xs, arrays))
    assert [value.dtype for value in values] == [y.dtype, *(np.float32 for _ in xs)]
    _, numbers = graph.value_and_gradient(y, xs, feed(xs, arrays))
    for number, value in zip(numbers, values[1:], strict=True):
        assert number.dtype == np.float32
        np.testing.assert_allclose(number, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", SMOOTH | FLAT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_generated_code_agrees(op, dtype, agree):
    function, _, arrays = (SMOOTH | FLAT)[op]
    arrays = [array.astype(dtype) for array in arrays or (A,)]
    if op == "cast":
        function = lambda a: f.cast(a, "float64")  # noqa: E731
    xs = variables(arrays)
    y = function(*xs)
    v = random_like(np.zeros(y.shape)).astype(y.dtype)
    outputs = [y, *graph.vjp(y, xs, v)] if op in SMOOTH else [y]
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else None
    agree(outputs, feed(xs, arrays), close)


def random_like(array):
    return np.random.default_rng(array.size).normal(size=array.shape)


@pytest.mark.parametrize("op", [op for op, row in SMOOTH.items() if row[2]])
def test_derivatives_in_all_modes(op):
    function, expected, arrays = SMOOTH[op]
    xs = variables(arrays)
    y = function(*xs)
    v = random_like(expected(*arrays))
    us = [random_like(array) for array in arrays]
    step = 1e-5
    ahead, back = (
        expected(*(a + s * u for a, u in zip(arrays, us, strict=True))) for s in (step, -step)
    )
    slope = (ahead - back) / (2 * step)

    fed = feed(xs, arrays)
    forward = graph.evaluate(graph.jvp(y, xs, us), fed)
    np.testing.assert_allclose(forward, slope, **DIFFERENCES)

    backward = graph.vjp(y, xs, v)
    along = sum(np.sum(b * u) for b, u in zip(graph.evaluate(backward, fed), us, strict=True))
    np.testing.assert_allclose(along, np.sum(v * forward), **CLOSE)

    _, numbers = graph.value_and_gradient(graph.sum(y * v), xs, fed)
    for number, value in zip(numbers, graph.evaluate(backward, fed), strict=True):
        np.testing.assert_allclose(number, value, **CLOSE)

    # The second derivative: that of the first one along the same direction.
    twice = graph.jvp(backward, xs, us, unused="zeros")
    ahead, back = (
        graph.evaluate(backward, feed(xs, [a + s * u for a, u in zip(arrays, us, strict=True)]))
        for s in (step, -step)
    )
    for value, high, low in zip(graph.evaluate(twice, fed), ahead, back, strict=True):
        np.testing.assert_allclose(value, (high - low) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", FLAT)
def test_operations_without_derivative_say_why(op):
    function, _, arrays = FLAT[op]
    xs = variables(arrays)
    y = function(*xs)
    why = {"argmax": "a place is an integer"}.get(op, "constant but for jumps")
    total = graph.sum(y) if y.dtype.kind == "f" else y
    with pytest.raises(ValueError, match=rf"{op} has no derivative: .*{why}; graph.stop_gradient"):
        graph.vjp(total, xs, 1.0)


def test_stop_gradient_counts_as_constant():
    x = graph.variable("x")
    y = x * graph.stop_gradient(graph.floor(x))
    assert graph.evaluate(graph.gradient(y, x), {x: 2.5}) == 2
    assert graph.evaluate(graph.jvp(y, x, 10.0), {x: 2.5}) == 20


# Zeros, ties, infinities: (function, at, value, slope)
EDGES = [
    (f.relu, 0.0, 0, 0),
    (f.relu, -0.0, 0, 0),
    (f.relu, inf, inf, 1),
    (f.relu, nan, nan, 0),
    (f.leaky_relu, 0.0, 0, 0.01),
    (f.leaky_relu, -inf, -inf, 0.01),
    (f.elu, 0.0, 0, 1),
    (f.elu, -inf, -1, 0),
    (lambda x: f.maximum(x, 0.0), 0.0, 0, 0),
    (lambda x: f.maximum(0.0, x), 0.0, 0, 0),
    (lambda x: f.maximum(x, x), 3.0, 3, 1),
    (lambda x: f.maximum(x, 2 * x), 0.0, 0, 2),
    (lambda x: f.minimum(x, 0.0), 0.0, 0, 1),
    (lambda x: f.minimum(0.0, x), 0.0, 0, 1),
    (lambda x: f.minimum(x, 2 * x), 0.0, 0, 1),
    (lambda x: f.maximum(x, 0.0), nan, nan, 0),
    (abs, 0.0, 0, 0),
    (abs, -inf, inf, -1),
    (lambda x: f.max(f.stack([x, x, 2 * x])), 0.0, 0, 4 / 3),
    (lambda x: f.min(f.stack([x, 3 * x])), 0.0, 0, 2),
    (lambda x: f.max(f.stack([x, x + 1])), nan, nan, nan),
    (lambda x: x**0, 0.0, 1, 0),
    (lambda x: x**0, nan, 1, 0),
    (lambda x: x**1, 0.0, 0, 1),
    (lambda x: x**2, 0.0, 0, 0),
    (lambda x: x**0.5, 0.0, 0, inf),
    (lambda x: x**-1, 0.0, inf, -inf),
    (lambda x: x**3, -2.0, -8, 12),
    (lambda x: 0.0**x, 2.0, 0, 0),
    (lambda x: 0.0**x, 0.0, 1, 0),
    (lambda x: 2.0**x, -inf, 0, 0),
    (f.sqrt, 0.0, 0, inf),
    (f.sqrt, inf, inf, 0),
    (f.log, 0.0, -inf, inf),
    (f.log, inf, inf, 0),
    (f.log1p, -1.0, -inf, inf),
    (lambda x: 1 / x, inf, 0, 0),
    (lambda x: 1 / x, 0.0, inf, -inf),
    (f.exp, -inf, 0, 0),
    (f.exp, inf, inf, inf),
    (f.expm1, -inf, -1, 0),
    (f.softplus, inf, inf, 1),
    (f.softplus, -inf, 0, 0),
    (f.sigmoid, inf, 1, 0),
    (f.sigmoid, -inf, 0, 0),
    (f.tanh, inf, 1, 0),
    (f.erf, -inf, -1, 0),
    (f.gelu_tanh, inf, inf, 1),
    (f.gelu_tanh, -1e200, 0, 0),
    (lambda x: f.logsumexp(f.stack([x, 0 * x + 1])), -inf, nan, nan),  # 0 * inf is the user's
    (lambda x: f.logsumexp(f.stack([x, graph.constant(1.0)])), -inf, 1, 0),
    (lambda x: f.logsumexp(f.stack([x, graph.constant(1.0)])), inf, inf, 1),
    (lambda x: f.logsumexp(f.stack([x, x])), -inf, -inf, 1),
    (lambda x: f.logsumexp(f.stack([x, x])), inf, inf, 1),
    (lambda x: f.logsumexp(f.stack([x, x])), 1e300, 1e300, 1),
    (lambda x: f.softmax(f.stack([x, graph.constant(1.0)]))[0], inf, 1, 0),
    (lambda x: f.where(x > 0, f.log(x), 7.0), -1.0, 7, 0),
    (lambda x: f.where(x > 0, f.log(f.where(x > 0, x, 1.0)), 7.0), 0.0, 7, 0),
    (lambda x: f.where(x > 0, x, nan), 2.0, 2, 1),
]


@pytest.mark.parametrize(("function", "at", "value", "slope"), EDGES)
def test_zeros_ties_and_infinities(function, at, value, slope):
    x = graph.variable("x")
    y = function(x)
    got = graph.value_and_gradient(y, x, {x: at})
    np.testing.assert_allclose(got, (value, slope), rtol=1e-15)
    symbolic = graph.evaluate([y, graph.gradient(y, x)], {x: at})
    np.testing.assert_allclose(symbolic, (value, slope), rtol=1e-15)
    forward = graph.evaluate(graph.jvp(y, x, 1.0), {x: at})
    np.testing.assert_allclose(forward, slope, rtol=1e-15)


def test_the_branch_not_taken():
    x = graph.variable("x")
    y = f.where(x > 0, f.log(x), 7.0)
    assert graph.evaluate(y, {x: 0.0}) == 7
    assert graph.evaluate(graph.jvp(y, x, 1.0), {x: 0.0}) == 0
    assert np.isnan(graph.evaluate(graph.gradient(y, x), {x: 0.0}))  # 0 * inf, as documented


def test_reductions_of_nothing():
    x = graph.variable("x", (None, 2))
    outputs = [f.sum(x, 0), f.max(x, 0), f.min(x, 0), f.logsumexp(x, 0), f.mean(x, 0)]
    values = graph.evaluate(outputs, {x: np.empty((0, 2))})
    np.testing.assert_array_equal(values, [[v, v] for v in (0, -inf, inf, -inf, nan)])
    slope = graph.gradient(f.sum(f.logsumexp(x, 0)), x)
    assert graph.evaluate(slope, {x: np.empty((0, 2))}).shape == (0, 2)


def test_a_place_that_does_not_exist_is_nan(agree):
    x, t = graph.variable("x", (2, 3)), graph.variable("t", (2,), "int64")
    y = f.pick(x, t)
    fed = {x: A[:2], t: np.array([-1, 2])}
    np.testing.assert_array_equal(graph.evaluate(y, fed), [nan, A[1, 2]])
    slope = graph.evaluate(graph.gradient(f.sum(y), x), fed)
    np.testing.assert_array_equal(slope, [[nan, nan, nan], [0, 0, 1]])
    agree([y, graph.gradient(f.sum(y), x)], fed)


# The kernels' activations


@pytest.mark.parametrize("name", [name for name in codes.ACTIVATIONS if name != "identity"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slopes_of_the_activations_are_those_of_the_kernels(name, dtype):
    z = np.linspace(-9, 9, 73, dtype=dtype).reshape(-1, 1)  # 0 is among them
    one = np.ones((1, 1), dtype)
    y, saved = F.dense_forward(z, one, activation=name)
    dz, _, _ = F.dense_backward(np.ones_like(z), z, one, saved, activation=name)
    x = graph.variable("x", z.shape, dtype)
    node = getattr(graph, name)(x)
    value, slope = graph.evaluate([node, graph.vjp(node, x, np.ones_like(z))], {x: z})
    close = {"rtol": 1e-12, "atol": 1e-14} if dtype == "float64" else {"rtol": 1e-5, "atol": 2e-6}
    np.testing.assert_allclose(value, y, **close)
    np.testing.assert_allclose(slope, dz, **close)


@pytest.mark.parametrize("name", codes.ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_is_the_kernel(name, bias):
    rng = np.random.default_rng(1)
    x, w, b, dy = (rng.normal(size=shape) for shape in [(5, 3), (3, 4), (4,), (5, 4)])
    y, saved = F.dense_forward(x, w, b if bias else None, name)
    wanted = [y, *F.dense_backward(dy, x, w, saved, name, bias=bias)][: 4 if bias else 3]
    arrays = [x, w, b][: 3 if bias else 2]
    xs = variables(arrays)
    node = graph.dense(*xs, activation=name)
    got = graph.evaluate([node, *graph.vjp(node, xs, dy)], feed(xs, arrays))
    for value, expected in zip(got, wanted, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)
