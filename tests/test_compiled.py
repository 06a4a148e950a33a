"""A network inside the user's own compiled code, and as a function of SciPy."""

import re

import numpy as np
import pytest
from numba import njit, prange
from scipy.integrate import quad

import fastbp

X = np.random.default_rng(0).standard_normal((7, 3))
T = np.random.default_rng(1).standard_normal((7, 2))


def make(dtype="float64", out=2, **options):
    return fastbp.Sequential(
        fastbp.Dense(3, 5, activation="tanh", dtype=dtype, rng=0),
        fastbp.Dense(5, out, dtype=dtype, rng=1),
        **options,
    )


@njit
def steps(step, space, x, t, count):
    loss = 0.0
    for _ in range(count):
        loss = step(space, x, t)
    return loss


@njit
def predicted(predict, space, x, y):
    predict(space, x, y)
    return y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_steps_are_those_of_train_step(name, dtype):
    net, by_hand = make(dtype), make(dtype)
    x, t, optimizer = X.astype(dtype), T.astype(dtype), fastbp.optimizers.resolve(name)
    options = {"l2": 0.01, "clip": 0.5}
    space = net.workspace(7, loss="huber", optimizer=name, **options)
    loss = steps(net.njit_step(), space, x, t, 4)
    for _ in range(4):
        expected = by_hand.train_step(x, t, "huber", optimizer, **options)
    assert loss == expected
    np.testing.assert_array_equal(net.parameters, by_hand.parameters)
    y = predicted(net.njit_predict(), space, x, np.empty_like(t))
    np.testing.assert_array_equal(y, by_hand.predict(x))


def test_loss_and_gradients_with_labels():
    net, by_hand = make(), make()
    labels = np.array([0, 1, 1, 0, 1, 0, 0])
    space = net.workspace(7, loss="softmax_cross_entropy")
    compiled = net.njit_loss_and_gradients()
    loss = njit(lambda space, x, t: compiled(space, x, t))(space, X, labels)
    expected, _ = by_hand.loss_and_gradients(X, labels, "softmax_cross_entropy")
    assert loss == expected
    np.testing.assert_array_equal(net.gradients, by_hand.gradients)


def test_workspaces_with_copies_train_side_by_side():
    @njit(parallel=True)
    def train(step, first, second, x, t):
        for i in prange(2):
            for _ in range(50):
                if i == 0:
                    step(first, x, t)
                else:
                    step(second, x, t)

    net = make()
    before = net.parameters.copy()
    spaces = [net.workspace(7, optimizer=fastbp.SGD(rate), copy=True) for rate in (0.1, 0.01)]
    train(net.njit_step(), *spaces, X, T)
    np.testing.assert_array_equal(net.parameters, before)
    for space, rate in zip(spaces, (0.1, 0.01), strict=True):
        alone, optimizer = make(), fastbp.SGD(rate)
        for _ in range(50):
            alone.train_step(X, T, "squared_error", optimizer)
        np.testing.assert_array_equal(space.parameters, alone.parameters)


def test_a_function_for_scipy_follows_the_parameters():
    net = fastbp.Sequential(fastbp.Dense(1, 1, dtype="float64"))
    function = net.low_level_callable()
    for slope in (2.0, 5.0):
        net.parameters[:] = slope, 1
        assert quad(function, 0, 2)[0] == pytest.approx(2 * slope + 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rows", "x", "y", "text"),
    [
        (1, (1, 4), (1, 2), "x: expected (n, in_features) of the workspace's network"),
        (1, (2, 3), (2, 2), "x: more rows than the workspace has room for; make one of more rows"),
        (512, (513, 3), (513, 2), "x: more rows than the workspace has room for"),
        (4, (4, 3), (4, 1), "expected (n, out_features)"),
        (4, (4, 3), (4, 3), "expected (n, out_features)"),
        (4, (4, 3), (3, 2), "as many rows as x"),
        (4, (4, 3), (5, 2), "as many rows as x"),
    ],
)
def test_arrays_that_do_not_fit_a_workspace(rows, x, y, text, dtype):
    net = make(dtype)
    space, x, y = net.workspace(rows), np.ones(x, dtype), np.ones(y, dtype)
    before = net.parameters.copy()
    with pytest.raises(ValueError, match=re.escape(text)):
        predicted(net.njit_predict(), space, x, y)
    for function in net.njit_step(), net.njit_loss_and_gradients():
        with pytest.raises(ValueError, match=re.escape(text)):
            steps(function, space, x, y, 1)
    assert (y == 1).all()
    np.testing.assert_array_equal(net.parameters, before)


def test_a_workspace_takes_all_rows_it_was_made_for():
    for net, rows in (make(), 1), (make(), 513), (make(out=200), 300):
        space, x = net.workspace(rows), np.ones((rows, 3))
        y = np.empty((rows, net.out_features))
        predicted(net.njit_predict(), space, x, y)
        np.testing.assert_array_equal(y, net.predict(x))
        for fewer in range(1, rows + 1, 64):
            steps(net.njit_step(), space, x[:fewer], y[:fewer], 1)


def test_labels_are_for_the_cross_entropy_of_classes():
    net, labels = make(), np.array([0, 1])
    step = net.njit_step()
    with pytest.raises(ValueError, match=re.escape("t: expected (n, out_features); t.reshape")):
        steps(step, net.workspace(2), X[:2], labels, 1)
    with pytest.raises(ValueError, match="t: expected as many rows as x"):
        steps(step, net.workspace(7, loss="softmax_cross_entropy"), X, labels, 1)


def test_what_is_refused():
    with pytest.raises(ValueError, match="device: expected a network on 'cpu', got 'reference'"):
        make(device="reference").workspace(1)
    with pytest.raises(ValueError, match="network: expected float64 and one output"):
        make().low_level_callable()
    with pytest.raises(ValueError, match="batch_size"):
        make().workspace(0)
