"""Random expressions of hundreds of nodes and all operations: value, first and second derivative
beside finite differences, and beside JAX in float64.

An expression grows with its value beside it, so that it stays within the domain of its functions,
of moderate size, and away from kinks, where a difference has no meaning and JAX other conventions.
"""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbp import graph
from fastbp.graph import functions as f
from fastbp.graph.evaluation import parameters_of, sized
from fastbp.graph.shapes import broadcast_or_none
from fastbp.graph.table import OPERATIONS
from fastbp.graph.walk import topological
from fastbp.kernels import codes

NODES = 250
SHAPES = ((), (3,), (1, 3), (3, 3), (None, 3))
N = 4  # for None
AWAY = 1e-4  # from a kink; the differences step by 1e-6
ACTIVATIONS = [name for name in codes.ACTIVATIONS if name != "identity"]


def positive(a):
    return f.softplus(a) + 0.5


def row(a):
    """Whatever a is, three numbers."""
    return a[(0,) * (np.ndim(a) - 1)] if np.ndim(a) else f.broadcast(a, (3,))


def square(a):
    """Whatever a is, three by three."""
    r = row(a)
    return f.concatenate([r[None, :], f.reshape(2 * r, (1, 3)), r[None, :] * r[None, ::-1]])


UNARY = {name: getattr(f, name) for name in ("sin", "cos", "erf", "tanh", *ACTIVATIONS)} | {
    "negative": lambda a: -a,
    "exp": lambda a: f.exp(-f.abs(a)),
    "expm1": lambda a: f.expm1(-f.square(a)),
    "log": lambda a: f.log(positive(a)),
    "log1p": lambda a: f.log1p(f.square(a)),
    "sqrt": lambda a: f.sqrt(positive(a)),
    "power": lambda a: positive(a) ** 1.7,
    "power 3": lambda a: a**3,
    "stop_gradient": lambda a: a * f.stop_gradient(f.floor(a) + f.sign(a)),
    "cast": lambda a: a * f.cast(f.cast(a, "float32") * 0 + 1, "float64"),
    "where": lambda a: f.where(f.equal(f.floor(a), 0.0), a * a, 2 * a),
    "transpose": lambda a: f.transpose(square(a)),
    "matmul": lambda a: row(a) @ square(a),
    "matmul.T": lambda a: square(a).T @ square(a),
    "dense": lambda a: f.dense(square(a), square(a), row(a), "gelu"),
    "dense, no bias": lambda a: f.dense(square(a), square(a), activation="sigmoid"),
    "sum": lambda a: f.sum(square(a), 0),
    "mean": lambda a: f.mean(square(a), (0, 1)),
    "max": lambda a: f.max(square(a) * 1.1, 1),
    "min": lambda a: f.min(row(a) * np.array([1.0, 2.0, 3.0])),
    "logsumexp": lambda a: f.logsumexp(square(a), 1),
    "softmax": lambda a: f.softmax(square(a), 1),
    "pick": lambda a: f.pick(square(a), f.argmax(square(a) * 1.3, 0)),
    "unpick": lambda a: f.unpick(row(a), np.array([1, 2, 1]), 3),
    "index": lambda a: row(a)[[2, 0, 2]] + row(a)[::-1],
    "softmax of rows": lambda a: f.softmax(a) * a if np.ndim(a) else a + 1,
    "rows, centred": lambda a: a - f.mean(a, axis=0) if np.ndim(a) else a - 1,
    "rows, scaled": lambda a: (
        a / (1 + f.sum(a * a, axis=-1, keepdims=True)) if np.ndim(a) else a / 3
    ),
    "stack": lambda a: f.stack([row(a), row(a) * 2, row(a) - 1]),
}
BINARY = {
    "add": f.add,
    "subtract": f.subtract,
    "multiply": f.multiply,
    "divide": lambda a, b: a / positive(b),
    "power": lambda a, b: positive(a) ** f.tanh(b),
    "maximum": f.maximum,
    "minimum": f.minimum,
    "where": lambda a, b: f.where(f.less_equal(a, b), a * b, f.where(f.less(a, 2 * b), a, b)),
    "matmul": lambda a, b: square(a) @ square(b),
}


def gaps(node, values):
    """The smallest distance of a node's operands to a kink or a jump."""
    a, *rest = (values[operand] for operand in node.operands)
    if node.op in ("maximum", "minimum", "less", "less_equal"):
        return np.abs(a - rest[0])
    if node.op in ("relu", "leaky_relu", "elu", "abs", "sign"):
        return np.abs(a)
    if node.op in ("floor", "equal"):
        return np.abs(a - np.round(a)) if node.op == "floor" else np.inf
    if node.op in ("max", "argmax"):
        parameters = dict(node.parameters)
        axes = parameters.get("axes") or (parameters["axis"],)
        flat = np.moveaxis(a, axes, range(-len(axes), 0))
        flat = np.sort(flat.reshape(*flat.shape[: a.ndim - len(axes)], -1), -1)
        return flat[..., -1] - flat[..., -2]
    return np.inf


def values_of(nodes, given):
    """The values of all nodes that are not known yet, added to `given`."""
    values = dict(given)
    with np.errstate(all="ignore"):
        for node in topological(nodes):
            if node.op == "constant":
                values[node] = node.parameters[0][1]
            elif node.op == "rows":
                values[node] = np.float64(N)
            elif node not in values:
                arrays = [values[operand] for operand in node.operands]
                values[node] = OPERATIONS[node.op].value(*arrays, **parameters_of(node, N))
    return values


def expression(seed):
    """(a number as a node, its variables, their arrays)."""
    rng = np.random.default_rng(seed)
    xs = [graph.variable(f"x{i}", shape) for i, shape in enumerate(SHAPES)]
    arrays = [rng.normal(size=sized(x.shape, N)) for x in xs]
    values, pool = dict(zip(xs, arrays, strict=True)), list(xs)
    while len(values) < NODES:
        a, b = (pool[-1 - int(rng.integers(min(len(pool), 12)))] for _ in range(2))
        if rng.random() < 0.4:
            if broadcast_or_none(a.shape, b.shape) is None:
                continue
            node = BINARY[rng.choice(list(BINARY))](a, b) if a is not b else a * 0.7
        else:
            node = UNARY[rng.choice(list(UNARY))](a)
        found = values_of([node], values)
        new = [n for n in found if n not in values and n.operands]
        if min((np.min(gaps(n, found)) for n in new), default=0) < AWAY:
            continue
        if np.max(np.abs(found[node])) > 3:
            node = f.tanh(node) * 1.5
            found = values_of([node], found)
        if node in values:
            continue
        values = found
        pool.append(node)
    total = sum(f.mean(f.sin(node)) for node in pool[-8:])
    return total + sum(0.01 * f.sum(x) for x in xs), xs, arrays


def near(got, wanted, tolerance):
    """Equal relative to the largest element of all arrays."""
    largest = max(np.max(np.abs(b)) for b in wanted)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * largest)


def directions(xs, arrays, us):
    """A variable for the direction of each of xs, and what all of them are fed."""
    vs = [graph.variable(f"v{i}", x.shape) for i, x in enumerate(xs)]
    return vs, dict(zip([*xs, *vs], [*arrays, *us], strict=True))


seeds = st.integers(0, 2**32 - 1)


def test_every_operation_occurs():
    seen = {n.op for seed in range(40) for n in topological([expression(seed)[0]])}
    assert OPERATIONS.keys() - seen == {"place"}  # which the derivative of an index makes


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_against_finite_differences(seed):
    y, xs, arrays = expression(seed)
    rng = np.random.default_rng(seed)
    us = [rng.normal(size=a.shape) for a in arrays]
    vs, fed = directions(xs, arrays, us)
    slopes = graph.gradient(y, xs)
    bends = graph.hessian_vector_product(y, xs, vs)
    value, *found = graph.evaluate([y, *slopes, *bends], fed)
    gradient, product = found[: len(xs)], found[len(xs) :]

    def at(step, outputs):
        moved = [a + step * u for a, u in zip(arrays, us, strict=True)]
        return graph.evaluate(outputs, dict(zip(xs, moved, strict=True)))

    step = 1e-6
    along = sum(np.sum(g * u) for g, u in zip(gradient, us, strict=True))
    size = sum(np.sum(np.abs(g * u)) for g, u in zip(gradient, us, strict=True))
    difference = (at(step, y) - at(-step, y)) / (2 * step)
    assert abs(along - difference) <= 1e-6 * size + 1e-8
    ahead, back = at(step, slopes), at(-step, slopes)
    near(product, [(a - b) / (2 * step) for a, b in zip(ahead, back, strict=True)], 1e-4)

    number, numbers = graph.value_and_gradient(y, xs, dict(zip(xs, arrays, strict=True)))
    assert number == pytest.approx(value, rel=1e-12)
    near(numbers, gradient, 1e-10)


@given(seeds, st.sampled_from(["store", "recompute", 200]))
@settings(max_examples=15, deadline=None)
def test_generated_code_agrees(agree, seed, memory):
    y, xs, arrays = expression(seed)
    outputs = [y, *graph.gradient(y, xs)]
    agree(outputs, dict(zip(xs, arrays, strict=True)), {"rtol": 1e-9, "atol": 1e-9}, memory=memory)


# JAX


def jax_table(jax):
    """Operation: the same in JAX."""
    jnp, nn = jax.numpy, jax.nn
    activations = {
        "identity": lambda z: z,
        "relu": nn.relu,
        "leaky_relu": nn.leaky_relu,
        "elu": nn.elu,
        "sigmoid": nn.sigmoid,
        "tanh": jnp.tanh,
        "softplus": nn.softplus,
        "silu": nn.silu,
        "gelu": lambda z: nn.gelu(z, approximate=False),
        "gelu_tanh": nn.gelu,
        "sin": jnp.sin,
    }

    def key_of(key):
        entry = {"slice": lambda *r: slice(*r), "take": lambda *r: np.array(r)}
        return tuple(entry[e[0]](*e[1:]) if isinstance(e, tuple) else e for e in key)

    return {
        **{name: getattr(jnp, name) for name in OPERATIONS if hasattr(jnp, name)},
        **activations,
        "erf": jax.scipy.special.erf,
        "stop_gradient": jax.lax.stop_gradient,
        "cast": lambda x, dtype: x.astype(dtype),
        "dense": lambda x, w, *b, activation: activations[activation](x @ w + (b[0] if b else 0)),
        "broadcast": jnp.broadcast_to,
        "concatenate": lambda *xs, axis: jnp.concatenate(xs, axis),
        "index": lambda x, key: x[key_of(key)],
        "pick": lambda x, i: jnp.take_along_axis(x, i[:, None], 1)[:, 0],
        "unpick": lambda g, i, size: nn.one_hot(i, size, dtype=g.dtype) * g[:, None],
        "sum": lambda x, axes, keepdims: jnp.sum(x, axes, keepdims=keepdims),
        "max": lambda x, axes, keepdims: jnp.max(x, axes, keepdims=keepdims),
        "logsumexp": lambda x, axes, keepdims: nn.logsumexp(x, axes, keepdims=keepdims),
        "softmax": lambda x, axes: nn.softmax(x, axes),
    }


def in_jax(y, xs, table):
    """The expression as a function of JAX arrays."""
    order = topological([y])

    def function(*arrays):
        values = dict(zip(xs, arrays, strict=True))
        for node in order:
            parameters = parameters_of(node, N)
            if node.op == "constant":
                values[node] = parameters["value"]
            elif node.op == "rows":
                values[node] = float(N)
            elif node.op != "variable":
                operands = [values[operand] for operand in node.operands]
                values[node] = table[node.op](*operands, **parameters)
        return values[y]

    return function


@given(seeds)
@settings(max_examples=3, deadline=None)
@pytest.mark.filterwarnings("default")  # of JAX
def test_against_jax(seed):
    jax = pytest.importorskip("jax", reason="compares with JAX: pip install jax==0.10.2")
    y, xs, arrays = expression(seed)
    us = [np.random.default_rng(seed).normal(size=a.shape) for a in arrays]
    vs, fed = directions(xs, arrays, us)
    with warnings.catch_warnings(), jax.enable_x64(True):
        warnings.simplefilter("ignore")
        table = jax_table(jax)
        function = in_jax(y, xs, table)
        places = tuple(range(len(xs)))
        slope = jax.grad(function, places)
        value = function(*arrays)
        gradient, product = jax.jvp(slope, tuple(map(jax.numpy.asarray, arrays)), tuple(us))
        wanted = [[np.asarray(a) for a in group] for group in ([value], gradient, product)]
    found = [y], graph.gradient(y, xs), graph.hessian_vector_product(y, xs, vs)
    for nodes, expected in zip(found, wanted, strict=True):
        near(graph.evaluate(nodes, fed), expected, 1e-9)
