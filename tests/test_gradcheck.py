"""gradcheck: it passes right gradients, catches wrong ones, and leaves what it checks as it was."""

import inspect
import re

import numpy as np
import pytest

import fastbp
from fastbp import functional as F
from fastbp import gradcheck
from fastbp.gradcheck import GradcheckError
from fastbp.kernels import codes

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))
T = RNG.dirichlet(np.ones(2), 4)
LABELS = np.array([0, 1, 1, 0])


def dense(*sizes, **options):
    return fastbp.Dense(*sizes, **({"dtype": "float64", "rng": 0} | options))


def make(dropout=False):
    layers = [dense(3, 4, activation="tanh"), *[fastbp.Dropout(0.5, rng=1)] * dropout, dense(4, 2)]
    return fastbp.Sequential(*layers)


def cube(x, factor=3.0):
    """sum(x**3) and factor * x**2: the gradient where factor is 3."""
    return np.sum(x**3), factor * x**2


# Right gradients


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
def test_dense_layers(activation, bias):
    assert gradcheck(dense(3, 2, activation=activation, bias=bias), X, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("rate", [0, 0.3, 0.9])
def test_dropout(rate):
    layer = fastbp.Dropout(rate, rng=0)
    assert gradcheck(layer, X, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (None, None),
        ("squared_error", T),
        (fastbp.Huber(0.3), T),
        ("binary_cross_entropy", T),
        ("softmax_cross_entropy", T),
        ("softmax_cross_entropy", LABELS),
    ],
)
def test_networks(loss, targets, dropout):
    inputs = X if loss is None else (X, targets)
    assert gradcheck(make(dropout), inputs, loss=loss, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    "loss", [F.squared_error, F.half_squared_error, F.huber, F.binary_cross_entropy]
)
def test_losses(loss):
    y = RNG.standard_normal((4, 2))
    assert gradcheck(loss, (y, T), atol=1e-8, rtol=1e-6)
    assert gradcheck(loss, [y, T, np.array([1.0, 0.0, 2.0, 0.5])], atol=1e-8, rtol=1e-6)


def test_softmax_with_labels():
    assert gradcheck(F.softmax_cross_entropy, (RNG.standard_normal((4, 2)), LABELS))


def test_own_functions():
    assert gradcheck(cube, X)
    assert gradcheck(cube, (X, 3.0))

    def product(a, b, scale):
        return scale * np.sum(a * b), (scale * b, scale * a)

    assert gradcheck(product, (X, 2 * X, 3))
    assert gradcheck(lambda a, b, scale: (product(a, b, scale)[0], [None, scale * a]), (X, X, 3))
    assert gradcheck(lambda a: (2.0 * float(a), 2.0), np.array(5.0))
    assert gradcheck(cube, np.empty((0, 3)))


def test_a_reused_output_is_copied():
    # The gradient at X must be compared, not the one of the last difference in the same memory.
    buffer = np.empty_like(X)

    def function(x):
        np.multiply(3, x**2, out=buffer)
        return np.sum(x**3), buffer

    assert gradcheck(function, X, atol=1e-7, rtol=0)


# Wrong gradients


def text_of(wrong, inputs, **options):
    with pytest.raises(GradcheckError) as caught:
        gradcheck(wrong, inputs, **options)
    return str(caught.value)


@pytest.mark.parametrize("index", [(0, 0), (3, 1)])
def test_a_wrong_entry_is_named(index):
    def wrong(x):
        value, gradient = cube(x)
        gradient[index] += 0.5
        return value, gradient

    slope = 3 * X[index] ** 2
    text = text_of(wrong, X)
    found = re.fullmatch(
        r"inputs\[0\]: the gradient at \((\d), (\d)\) is (\S+), its finite difference (\S+)", text
    )
    assert tuple(map(int, found.groups()[:2])) == index
    np.testing.assert_allclose(float(found[3]), slope + 0.5, rtol=1e-8)
    np.testing.assert_allclose(float(found[4]), slope, rtol=1e-6)


def test_the_worst_entry_is_named():
    def wrong(x):
        value, gradient = cube(x)
        gradient[1, 1] += 0.1
        gradient[2, 0] -= 0.5
        return value, gradient

    assert "the gradient at (2, 0) is" in text_of(wrong, X)


def test_the_wrong_input_is_named():
    def wrong(a, b):
        return np.sum(a * b), (b, 2 * a)

    assert text_of(wrong, (X, X)).startswith("inputs[1]: the gradient at")


def test_wrong_gradients_of_a_layer_are_named():
    class Wrong(fastbp.Dense):
        spoils = ""

        def backward(self, dy, need_dx=True):
            dx = super().backward(dy, need_dx)
            {"dx": dx, "dw": self.dw, "db": self.db}[self.spoils].flat[1] += 1
            return dx

    for name, index in (("dx", "(0, 1)"), ("dw", "(0, 1)"), ("db", "(1,)")):
        layer = Wrong(3, 2, dtype="float64", rng=0)
        layer.spoils = name
        assert text_of(layer, X).startswith(f"{name}: the gradient at {index} is")


def test_wrong_gradients_of_a_network_are_named(monkeypatch):
    right = fastbp.Sequential.step_gradients

    def wrong(net, *batch, **options):
        value, dx = right(net, *batch, **options)
        net.gradients[5] *= 1.1
        return value, dx

    monkeypatch.setattr(fastbp.Sequential, "step_gradients", wrong)
    assert text_of(make(), (X, T), loss="huber").startswith("gradients: the gradient at (5,) is")


def test_nan_counts_as_wrong():
    def wrong(x):
        value, gradient = cube(x)
        gradient[2, 1] = np.nan
        return value, gradient

    assert "the gradient at (2, 1) is nan" in text_of(wrong, X)


def test_a_value_of_nan_counts_as_wrong():
    assert "its finite difference nan" in text_of(lambda x: (np.nan, x), X)


def test_false_in_place_of_an_error():
    assert gradcheck(lambda x: cube(x, 2.0), X, raise_exception=False) is False
    assert gradcheck(cube, X, raise_exception=False) is True
    with pytest.raises(
        TypeError, match="expected float64"
    ):  # a wrong call is an error all the same
        gradcheck(cube, X.astype(np.float32), raise_exception=False)


def test_tolerances():
    def wrong(x):
        return np.sum(x), np.full_like(x, 1.01)

    assert not gradcheck(wrong, X, raise_exception=False)
    assert gradcheck(wrong, X, rtol=0.011)
    assert gradcheck(wrong, X, atol=0.011, rtol=0)
    assert not gradcheck(wrong, X, atol=0.009, rtol=0, raise_exception=False)


def test_eps_is_half_the_step():
    seen = []

    def function(x):
        seen.append(float(x))
        return float(x) ** 2, 2 * x

    assert gradcheck(function, np.array(1.0), eps=0.25)
    assert sorted(set(seen)) == [0.75, 1.0, 1.25]


def test_nondet_tol():
    calls = []

    def noisy(x):
        calls.append(1)
        noise = 1e-9 * (-1) ** len(calls)
        return np.sum(x), np.ones_like(x) + noise

    text = "inputs[0]: two calls with the same input differ by 2e-09, more than nondet_tol=0"
    assert text_of(noisy, X) == text
    assert gradcheck(noisy, X, nondet_tol=1e-8)


def test_a_value_that_changes_is_nondeterministic():
    calls = []

    def noisy(x):
        calls.append(1)
        return np.sum(x) + len(calls), np.ones_like(x)

    assert "differ by 1, more than nondet_tol=0" in text_of(noisy, X)


# What it leaves behind


def test_parameters_and_inputs_keep_their_bits():
    net, x = make(dropout=True), X.copy()
    before = net.parameters.tobytes()
    gradcheck(net, (x, T), loss="huber")
    assert net.parameters.tobytes() == before
    assert x.tobytes() == X.tobytes()

    layer = dense(3, 2)
    w = layer.w.tobytes()
    gradcheck(layer, x)
    assert layer.w.tobytes() == w

    gradcheck(cube, x)
    assert x.tobytes() == X.tobytes()


def test_parameters_keep_their_bits_when_a_call_fails(monkeypatch):
    net, calls = make(), []
    before = net.parameters.tobytes()
    right = fastbp.Sequential.step_gradients

    def fails(net, *batch, **options):
        calls.append(1)
        if len(calls) == 2 + 2 * X.size + 5:  # in the differences of the parameters
            raise KeyboardInterrupt
        return right(net, *batch, **options)

    monkeypatch.setattr(fastbp.Sequential, "step_gradients", fails)
    with pytest.raises(KeyboardInterrupt):
        gradcheck(net, (X, T), loss="huber")
    assert net.parameters.tobytes() == before


def test_read_only_inputs():
    x, t = X.copy(), T.copy()
    x.flags.writeable = t.flags.writeable = False
    assert gradcheck(make(), (x, t), loss="huber")
    assert gradcheck(dense(3, 2), x)
    assert gradcheck(cube, x)


# Wrong calls


@pytest.mark.parametrize(
    ("func", "inputs", "index"),
    [
        (cube, X.astype(np.float32), 0),
        (cube, (X, X.astype(np.float16)), 1),
        (dense(3, 2), X.astype(np.float32), 0),
        (F.huber, (T, T.astype(np.float32)), 1),
    ],
)
def test_floats_must_be_float64(func, inputs, index):
    text = f"inputs[{index}]: expected float64, got float"
    with pytest.raises(TypeError, match=re.escape(text)):
        gradcheck(func, inputs)


def test_a_layer_of_float32():
    with pytest.raises(TypeError, match="x: expected float32 like the other arrays, got float64"):
        gradcheck(fastbp.Dense(3, 2, rng=0), X)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"eps": 0}, ValueError, "eps: expected a finite number > 0, got 0"),
        ({"eps": "1"}, TypeError, "eps: expected a number, got str"),
        ({"atol": -1}, ValueError, "atol: expected a finite number >= 0, got -1"),
        ({"rtol": np.nan}, ValueError, "rtol: expected a finite number >= 0, got nan"),
        ({"nondet_tol": -1}, ValueError, "nondet_tol: expected a finite number >= 0, got -1"),
        ({"loss": "mse"}, ValueError, "loss: expected one of squared_error, half_squared_error"),
        ({"inputs": X}, ValueError, "inputs: expected (x, t) with a loss, got 1 of them"),
        ({"inputs": (X, T, T)}, ValueError, "inputs: expected (x, t) with a loss, got 3 of them"),
        (
            {"inputs": (T, T)},
            ValueError,
            "inputs[0]: expected shape (n, 3), got (4, 2)",
        ),
        ({"inputs": (X, X)}, ValueError, "t: expected shape (4, 2), got (4, 3)"),
    ],
)
def test_wrong_arguments(changed, error, text):
    arguments = {"inputs": (X, T), "loss": "huber"} | changed
    with pytest.raises(error, match=re.escape(text)):
        gradcheck(make(), **arguments)


def test_parameters_are_those_of_torch():
    torch = pytest.importorskip("torch", reason="compares with torch.autograd.gradcheck")
    theirs = inspect.signature(torch.autograd.gradcheck).parameters
    own = dict(inspect.signature(gradcheck).parameters)
    assert own.pop("loss").default is None  # ours alone
    assert list(own) == list(theirs)[: len(own)]
    for name, parameter in own.items():
        assert parameter.default == theirs[name].default, name
        assert parameter.kind == theirs[name].kind, name
