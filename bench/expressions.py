"""Measure activations and losses given as expressions beside the built-in ones.

    python bench/expressions.py            # a minute; writes bench/results/expressions.json

Whole layers, losses alone and whole training steps, in float32. Results are compared first, then
all take turns; what is shown are medians.
"""

import json
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

# This folder would stand before the repository's root, which has fastbp, installed or not.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import fastbp  # noqa: E402
from fastbp import functional, graph, losses  # noqa: E402
from fastbp.benchmarks.measure import Contender, provenance, race  # noqa: E402
from fastbp.kernels import codes, cpu  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "expressions.json"
FLOAT = np.dtype("float32")
LAYERS = [(512, 512, 512), (128, 784, 512), (32, 128, 128), (128, 256, 10)]
OUTPUTS = [(128, 1), (128, 10), (512, 128)]
NETS = [((4, 64, 64, 2), 64), ((784, 128, 10), 128), ((784, 512, 512, 10), 128)]
KINDS = {
    "layer": "layer, n x k x m, forward and backward",
    "loss": "loss alone, n x m",
    "step": "training step",
}
ROUNDS, BUDGET = 25, 0.005  # turns of each contender, seconds of one


def gelu_tanh(z):
    return 0.5 * z * (1 + graph.tanh(codes.GELU_SCALE * (z + codes.GELU_CUBIC * z**3)))


def huber(y, t):
    d = graph.abs(y - t)
    return graph.where(d <= 1, 0.5 * d * d, d - 0.5)


def softmax_cross_entropy(y, t):
    return -graph.sum(t * graph.log(graph.softmax(y, axis=1)), axis=1)


ACTIVATIONS = {
    "gelu_tanh": gelu_tanh,
    "gelu": lambda z: 0.5 * z * (1 + graph.erf(codes.SQRT_HALF * z)),
    "silu": lambda z: z * graph.sigmoid(z),
    "tanh": lambda z: 2 * graph.sigmoid(2 * z) - 1,
    "elu": lambda z: graph.where(z > 0, z, graph.exp(graph.minimum(z, 0)) - 1),
}
LOSSES = {
    "half_squared_error": lambda y, t: 0.5 * (y - t) ** 2,
    "huber": huber,
    "binary_cross_entropy": lambda y, t: graph.softplus(y) - y * t,
    "softmax_cross_entropy": softmax_cross_entropy,
}


def layer(n, k, m, activation):
    """Forward and backward of a layer, as functions of no arguments, and their results."""
    rng, code = np.random.default_rng(0), functional.activation_code(activation, FLOAT)
    shapes = (n, k), (k, m), (m,), (n, m)
    x, w, b, dy = (rng.standard_normal(shape).astype(FLOAT) for shape in shapes)
    w /= np.sqrt(k).astype(FLOAT)
    y, dw, db, dx = (np.empty_like(a) for a in (dy, w, b, x))
    z = np.empty((n, m) if codes.keeps_array(code) else (0, 0), FLOAT)
    sizes = cpu.dense_forward_work(n, k, m), cpu.dense_backward_work(n, k, m)
    work, saved = np.empty(max(sizes), FLOAT), z if z.size else y
    calls = (
        lambda: cpu.dense_forward(x, w, b, code, work, z, y),
        lambda: cpu.dense_backward(dy, x, w, saved, code, work, dw, db, dx),
    )
    for call in calls:
        call()
    return calls, (y, dw, db, dx)


@cache
def operands(n, m):
    """y, t and dy of a loss: the same for all, as where arrays lie is worth 10 % here."""
    rng = np.random.default_rng(0)
    y, t = rng.standard_normal((n, m)).astype(FLOAT), rng.random((n, m)).astype(FLOAT)
    return y, t, np.empty_like(y)


def loss(n, m, given):
    """A loss as a function of no arguments, and its results."""
    (y, t, dy), found = operands(n, m), losses.for_outputs(given, m, FLOAT)
    kernel, t, weights = found.check(y.shape, y.dtype, t, None)
    more, function = found.parameters, getattr(cpu, kernel)
    value = function(y, t, *more, weights, dy)
    return lambda: function(y, t, *more, weights, dy), (np.array(value), dy.copy())


def step(sizes, n, activation, given):
    """A training step as a function of no arguments, and the parameters after it."""
    names = [activation] * (len(sizes) - 2) + ["identity"]
    init = "glorot_uniform"
    net = fastbp.Sequential(
        *(
            fastbp.Dense(k, m, activation=f, rng=i, init=init)
            for i, ((k, m), f) in enumerate(zip(pairwise(sizes), names, strict=True))
        )
    )
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((n, sizes[0])), rng.random((n, sizes[-1]))
    x, t = x.astype(FLOAT), (t / t.sum(1, keepdims=True)).astype(FLOAT)
    space = net.workspace(n, loss=given, optimizer=fastbp.SGD(1e-3))
    call = net.njit_step()
    call(space, x, t)
    return lambda: call(space, x, t), (net.parameters.copy(),)


def compare(built_in, expression):
    """Raise unless the results agree to rounding."""
    for one, other in zip(built_in, expression, strict=True):
        scale = np.abs(one).max()
        if not np.abs(one - other).max() <= 1e-5 * scale:
            raise AssertionError("the expression gives other results; nothing was timed")


def row(kind, case, name, built_in, expression):
    """What a race of pairs of calls gives: seconds of each, and the ratio of their sums."""
    contenders = {}
    for who, calls in (("built in", built_in), ("expression", expression)):
        contenders |= {f"{who} {i}": Contender(call) for i, call in enumerate(calls)}
    times = race(contenders, ROUNDS, BUDGET)["seconds"]
    seconds = [
        [times[f"{who} {i}"] for i in range(len(built_in))] for who in ("built in", "expression")
    ]
    found = dict(zip(("built_in", "expression"), seconds, strict=True))
    ratio = sum(seconds[1]) / sum(seconds[0])
    return {"kind": kind, "case": case, "name": name, "seconds": found, "ratio": ratio}


def rows():
    """All rows: kind, case, name, seconds of the parts, expression over built in."""
    for shape in LAYERS:
        for name, function in ACTIVATIONS.items():
            (one, results), (other, got) = layer(*shape, name), layer(*shape, function)
            compare(results, got)
            yield row("layer", " x ".join(map(str, shape)), name, one, other)
    for shape in OUTPUTS:
        for name, function in LOSSES.items():
            (one, results), (other, got) = loss(*shape, name), loss(*shape, function)
            compare(results, got)
            yield row("loss", " x ".join(map(str, shape)), name, [one], [other])
    for sizes, n in NETS:
        for f, given in (("gelu_tanh", "softmax_cross_entropy"), ("tanh", "half_squared_error")):
            one, results = step(sizes, n, f, given)
            other, got = step(sizes, n, ACTIVATIONS[f], LOSSES[given])
            compare(results, got)
            case = f"{'-'.join(map(str, sizes))} @ {n}"
            yield row("step", case, f"{f}, {given}", [one], [other])


def table(results):
    """Ratios as the tables of docs/expressions.md: a line for each case, a column for each name."""
    lines = []
    for kind, title in KINDS.items():
        ratios = {}
        for one in results["rows"]:
            if one["kind"] == kind:
                ratios.setdefault(one["case"], {})[one["name"]] = f"{one['ratio']:.2f}"
        names = list(next(iter(ratios.values())))
        lines += [f"| {' | '.join([title, *names])} |", f"|---|{'--:|' * len(names)}"]
        lines += [f"| {' | '.join([case, *found.values()])} |" for case, found in ratios.items()]
        lines.append("")
    return lines


def main():
    results = {"benchmark": "expressions", "dtype": FLOAT.name, "rounds": ROUNDS}
    results |= {"rows": list(rows()), "provenance": provenance()}
    print("\n".join(table(results)))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
