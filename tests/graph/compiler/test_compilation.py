"""Compiled graphs: called from Python and @njit code, cached on disk, their choices and errors.

That generated code computes the right thing is tested without a compiler, in test_operations.py and
test_random.py; here it is compiled.
"""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from fastbp import functional as F
from fastbp import graph
from fastbp.graph.compiler import compilation
from fastbp.graph.compiler.compilation import written

rng = np.random.default_rng(0)
x = graph.variable("x", (None, 3))
w, b = graph.variable("w", (3, 4)), graph.variable("b", (4,))
t = graph.variable("t", (None,), "int64")
s = graph.variable("s")
X, W, B = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTBP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def body(outputs, inputs, **options):
    """The lines of the function."""
    text, _ = written(outputs, inputs, options.get("memory", "store"), 1024)
    return text[text.index("def compiled") :]


def test_elementwise_and_reductions():
    outputs = [graph.softmax(x), graph.sum(x * x, axis=0), graph.max(x, axis=1) + s]
    f = graph.compile(outputs, [x, s])
    wanted = graph.evaluate(outputs, {x: X, s: 2.0})
    for value, expected in zip(f(X, 2.0), wanted, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-14)


def test_labels():
    loss = graph.mean(graph.logsumexp(x, axis=1) - graph.pick(x, t))
    outputs, labels = [loss, graph.gradient(loss, x)], np.array([0, 2, 1, 1, 0])
    f = graph.compile(outputs, [x, t])
    value, dx = f(X, labels)
    expected, slope = F.softmax_cross_entropy(X, labels)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(dx, slope, rtol=1e-13)
    value, dx = f(X, np.array([0, 3, 1, -1, 0]))  # outside: NaN, and nothing is read there
    assert np.isnan(value)
    assert np.isnan(dx).any(1).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_runs_in_the_kernels(dtype):
    v = graph.variable("v", (4, 2), dtype)
    p = [graph.variable(name, y.shape, dtype) for name, y in [("x", x), ("w", w), ("b", b)]]
    y = graph.tanh(p[0] @ p[1] + p[2]) @ v
    loss = graph.mean(graph.sum(y * y, axis=1))
    inputs = [*p, v]
    outputs = [loss, *graph.gradient(loss, inputs)]
    f = graph.compile(outputs, inputs)
    assert f.source.count("dense_forward(") == 2
    assert f.source.count("dense_backward(") == 2
    arrays = [a.astype(dtype) for a in (X, W, B, rng.normal(size=(4, 2)))]
    wanted = graph.evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    for value, expected in zip(f(*arrays), wanted, strict=True):
        close = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12}
        np.testing.assert_allclose(value, expected, **close)


def test_called_from_njit_code():
    f = graph.compile([graph.sum(graph.exp(x)), graph.exp(x)], x)

    @numba.njit
    def twice(a):
        total, y = f(a)
        return total + f(y)[0]

    assert twice(X) == pytest.approx(np.sum(np.exp(X)) + np.sum(np.exp(np.exp(X))))


def test_locked_arrays_are_read_and_results_are_the_callers():
    f = graph.compile([x, x @ w, graph.constant(np.ones(2))], [x, w])
    locked = X.copy()
    locked.flags.writeable = False
    same, product, one = f(locked, W)
    np.testing.assert_allclose(product, X @ W, rtol=1e-13)
    same[:] = 0
    one[:] = 7
    np.testing.assert_array_equal(f(locked, W)[0], X)
    np.testing.assert_array_equal(f(locked, W)[2], np.ones(2))


def test_every_batch_size():
    f = graph.compile([graph.mean(x), graph.sum(x, axis=0), graph.max(x, axis=0)], x)
    assert f(X[:1])[0] == pytest.approx(X[:1].mean())
    mean, total, largest = f(X[:0])
    assert np.isnan(mean)
    np.testing.assert_array_equal(total, np.zeros(3))
    np.testing.assert_array_equal(largest, np.full(3, -np.inf))


def test_nan_and_infinity():
    outputs = [graph.relu(x), graph.maximum(x, 0.0), graph.max(x), graph.logsumexp(x)]
    f = graph.compile(outputs, x)
    for special in ([np.nan, 1, 2], [np.inf, 1, -np.inf], [-np.inf] * 3, [1, 2, np.nan]):
        array = np.array([special], float)
        for value, expected in zip(f(array), graph.evaluate(outputs, {x: array}), strict=True):
            np.testing.assert_array_equal(value, expected)


# The source


def test_elementwise_regions_are_one_loop_without_temporaries():
    y = graph.tanh(x) * graph.exp(-x) + x
    text = body([graph.mean(graph.sum(y * y, axis=1))], [x])
    assert text.count("for ") == 2  # rows, columns
    assert "np.empty" not in text


def test_rows_are_shared_and_what_they_keep_is_a_row_long():
    text = body([graph.softmax(x)], [x])
    assert text.count("for i0") == 1
    assert "exp_1 = np.empty((3,)" in text
    assert text.count("exp(") == 1


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1), (0, 2), (1, 2)])
def test_reductions_over_any_axes_of_a_stack(axis, agree):
    stack = graph.variable("stack", (None, 2, 3))
    total = graph.sum(graph.exp(stack), axis=axis, keepdims=True)
    largest = graph.max(stack * total, axis=axis)
    outputs = [total * stack, largest]
    agree(outputs, {stack: rng.normal(size=(4, 2, 3))})
    text = body(
        [graph.sum(graph.exp(stack), axis=1) / graph.sum(stack, axis=(1, 2))[:, None]], [stack]
    )
    assert "sum_1 = np.empty((3,)" in text  # gathered row by row, from zero in each


def test_one_place_of_a_row_is_no_number(agree):
    rows = graph.sin(x)
    y = graph.exp(graph.sum(rows, axis=1)) * rows[:, 0] * rows[:, 2]
    text = body([graph.sum(y)], [x])
    assert "sin_1 = np.empty((3,)" in text
    agree([graph.sum(y)], {x: X})


def test_value_and_derivative_share_what_they_compute():
    y = graph.exp(graph.sin(x))
    loss = graph.sum(y)
    text = body([loss, graph.gradient(loss, x)], [x])
    assert text.count("for i0") == 1
    assert text.count(" exp(") == 1


def test_names_of_variables_do_not_collide():
    names = ["n", "exp", "work", "v1", "i0", "C1", "lambda_", "multiply_1", "k"]
    xs = [graph.variable(name, (2,)) for name in names]
    y = graph.exp(xs[0]) * np.array([1.0, 2.0])
    for other in xs[1:]:
        y = y * other
    f = graph.compile(y, xs)
    np.testing.assert_allclose(f(*[np.ones(2)] * len(xs)), np.e * np.array([1, 2]))


def test_deep_graphs_are_written_without_a_stack():
    y = s
    for _ in range(3000):
        y = graph.sin(y)
    assert body(y, [s]).count("sin(") == 3000


# Store or recompute


def shared():
    e = graph.exp(x)
    total = graph.sum(e, axis=0)  # all rows, before the second loop can begin
    return e / total, graph.sqrt(e) / total


@pytest.mark.parametrize(
    ("memory", "exponentials", "arrays"),
    [("store", 1, 1), ("recompute", 2, 0), (10**9, 1, 1), (100, 2, 0)],
)
def test_store_or_recompute(memory, exponentials, arrays, agree):
    outputs = list(shared())
    text = body(outputs, [x], memory=memory)
    assert text.count(" exp(") == exponentials
    assert text.count("exp_1 = memory_float64") == arrays
    agree(outputs, {x: X}, memory=memory)


def test_report():
    _, plan = written(list(shared()), [x], "store", 100)
    text = compilation.regions.report(plan.shared, 100)
    first, last = text.splitlines()
    assert first.startswith("stored in 2 loops: <exp: (None, 3) float64>, 2400 bytes, 3000 operat")
    assert last == "100 rows: 2400 bytes stored, 0 operations more"
    _, plan = written(list(shared()), [x], "recompute", 100)
    last = compilation.regions.report(plan.shared, 100).splitlines()[-1]
    assert last == "100 rows: 0 bytes stored, 3000 operations more"


def test_bytes_go_where_they_save_most():
    cheap, dear = x + 1, graph.exp(graph.sin(x))
    total = graph.sum(cheap * dear, axis=0)
    outputs = [cheap / total, dear / total]
    _, plan = written(outputs, [x], 1024 * 3 * 8, 1024)
    stored = [one.node.op for one in plan.shared if one.stored]
    assert stored == [dear.op]


def test_what_is_cheap_is_computed_again():
    small = [x * x]
    for _ in range(2):  # of one operation, of three, of five
        small.append(1 - small[-1] * x)
    total = graph.sum(small[0] + small[1] + small[2], axis=0)
    _, plan = written([y / total for y in small], [x], "store", 1024)
    stored = {one.operations // (1024 * 3): one.stored for one in plan.shared}
    assert stored == {1: False, 2: False, 3: False, 5: True}


# The cache


SCRIPT = """
import numpy as np
from fastbp import graph
x, w = graph.variable("x", (None, 3)), graph.variable("w", (3, 4))
f = graph.compile(graph.sum(graph.tanh(x @ w)), [x, w])
hits = sum(f.stats.cache_hits.values())
print(hits, f.path, f(np.ones((2, 3)), np.zeros((3, 4))))
"""


def in_another_process(**environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_second_process_loads_from_the_disk(cache):
    hits, path, value = in_another_process()
    assert (hits, value) == ("0", "0.0")
    assert path.startswith(str(cache / "graph" / "fastbp_graph_"))
    assert in_another_process() == ["1", path, "0.0"]


def text_of_a_step(split):
    """The module of a network's loss and its derivatives; everything in it is forgotten."""
    shapes = {"x": (None, 3), "w": (3, 4), "b": (4,), "v": (4, 2)}
    inputs = x, w, b, v = [graph.variable(name, shape) for name, shape in shapes.items()]
    z = x @ w + b
    y = (graph.tanh(z) * graph.exp(z)) @ v
    loss = graph.mean(y * y) / graph.mean(z) + graph.sum(w * w)
    outputs = [loss, y, *graph.gradient(loss, [w, b, v])]
    return written(outputs, inputs, "store", 1024, split)[0]


@pytest.mark.parametrize("split", [True, False])
def test_the_text_follows_from_the_graph_alone(split):
    text = text_of_a_step(split)
    b, w, x = graph.variable("b", (4,)), graph.variable("w", (3, 4)), graph.variable("x", (None, 3))
    z = x @ w + b
    before = [graph.sum(w * w), 1 / graph.mean(z), graph.exp(z), graph.tanh(z)]
    assert text_of_a_step(split) == text
    del before


def test_another_version_of_the_kernels_is_another_module(monkeypatch):
    text, _ = written(graph.exp(x), [x], "store", 1)
    monkeypatch.setattr(compilation.jit, "source_stamp", lambda: "other")
    other, _ = written(graph.exp(x), [x], "store", 1)
    assert other != text


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FASTBP_CACHE_DIR", str(tmp_path / "file"))
    f = graph.compile(graph.exp(x) - 1, x)
    assert f.path.exists()
    np.testing.assert_allclose(f(X), np.expm1(X), rtol=1e-12)


def test_the_source_is_there_to_read():
    f = graph.compile(graph.exp(x) - 2, x)
    assert f.path.read_text() == f.source
    assert "v2 = exp(v1)" in f.source
    assert graph.compile(graph.exp(x) - 2, x) is f


# Errors


def test_wrong_arguments_of_the_function():
    f = graph.compile(graph.sum(x) + graph.sum(w), [x, w])
    with pytest.raises(ValueError, match=r"w: expected shape \(3, 4\)"):
        f(X, W.T.copy())
    with pytest.raises(TypeError, match="No matching definition"):
        f(X.astype(np.float32), W)
    with pytest.raises(TypeError, match="No matching definition"):
        f(X, W[:, ::-1])
    with pytest.raises(TypeError, match="not enough arguments"):
        f(X)


def test_batches_must_agree():
    other = graph.variable("other", (None,))
    f = graph.compile(graph.sum(x, axis=1) * other, [x, other])
    with pytest.raises(ValueError, match=r"other: expected shape \(None,\)"):
        f(X, np.ones(4))


ERRORS = [
    (lambda: graph.compile(3, x), TypeError, "outputs: expected a node or a sequence of nodes"),
    (lambda: graph.compile(x, "x"), TypeError, "inputs: expected a node or a sequence of nodes"),
    (lambda: graph.compile(x @ w, x), ValueError, "inputs: expected x, w; w is missing"),
    (lambda: graph.compile(x, [x, x]), ValueError, "inputs: x is there twice"),
    (lambda: graph.compile(x, x * 2), ValueError, "inputs: expected variables, got <multiply"),
    (lambda: graph.compile(x, x, memory="no"), ValueError, "memory: expected one of store, recomp"),
    (lambda: graph.compile(x, x, memory=-1), ValueError, "memory: expected an integer >= 0"),
    (lambda: graph.compile(x, x, memory=True), ValueError, "memory: expected one of store, recomp"),
    (lambda: graph.compile(x, x, batch_size=0), ValueError, "batch_size: expected an integer >= 1"),
    (
        lambda: graph.compile(
            graph.constant(1.0) + graph.mean(graph.gradient(graph.sum(x), x)), []
        ),
        ValueError,
        "inputs: expected a variable that says how large the batch is",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[row[2] for row in ERRORS])
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text):
        call()
