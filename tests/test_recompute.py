"""recompute=True: whoever trains, the same bits as with all activations kept."""

from itertools import pairwise

import numpy as np
import pytest
from numba import njit

import fastbp

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "expression": lambda z: z * fastbp.graph.tanh(z)}


def make(depth, activation="gelu", width=6, dtype="float64", dropout=0.0, device="cpu"):
    """As many dense layers, and dropout above each but the last."""
    rng, layers = np.random.default_rng(0), []
    for k, m in pairwise([3, *[width] * (depth - 1), 2]):
        last = len(layers) and m == 2
        f = "identity" if last or depth == 1 else ACTIVATIONS[activation]
        layers.append(fastbp.Dense(k, m, activation=f, dtype=dtype, rng=rng))
        if dropout and m != 2:
            layers.append(fastbp.Dropout(dropout, rng=len(layers)))
    return fastbp.Sequential(*layers, device=device)


def data(rows, dtype="float64"):
    rng = np.random.default_rng(rows)
    x, t = rng.standard_normal((rows, 3)), rng.standard_normal((rows, 2))
    return x.astype(dtype), t.astype(dtype), rng.random(rows).astype(dtype)


def outcome(net, rows, recompute, weights=False):
    """All that training changes and returns, as bytes."""
    x, t, s = data(rows, net.dtype)
    options = {"sample_weight": s if weights else None, "l2": 0.01, "recompute": recompute}
    loss, dx = net.loss_and_gradients(x, t, "huber", **options)
    seen, optimizer = [loss, dx.tobytes(), net.gradients.tobytes()], fastbp.Adam(0.01)
    seen += [net.train_step(x, t, "huber", optimizer, clip=1.0, **options) for _ in range(2)]
    return [*seen, net.parameters.tobytes(), net.predict(x).tobytes()]


def check(rows, weights=False, **options):
    kept, again = (outcome(make(**options), rows, choice, weights) for choice in (False, True))
    assert again == kept
    assert np.isfinite(kept[0])


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 9])
def test_every_depth(depth, activation, dropout, device):
    check(7, depth=depth, activation=activation, dropout=dropout, device=device)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("depth", [2, 3, 5, 9])
def test_expressions(depth, dropout):
    check(513, depth=depth, activation="expression", dropout=dropout)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [30, 70])  # groups of rows, and all threads for each layer
@pytest.mark.parametrize("rows", [1, 8, 511, 512, 513, 1100])
def test_rows_around_a_panel(rows, width, dtype):
    for weights in (False, True):
        check(rows, weights, depth=9, width=width, dtype=dtype, dropout=0.2)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_fit(device):
    x, t, s = data(100)
    results = []
    for recompute in (False, True):
        net = make(9, dropout=0.2, device=device)
        options = {"loss": "huber", "epochs": 3, "seed": 0, "validation_data": (x[:9], t[:9])}
        history = net.fit(x, t, sample_weight=s, recompute=recompute, **options)
        more = net.fit(x, t, recompute=not recompute, **options)  # the choice may change
        results.append([history.loss, history.validation, more.loss, net.parameters.tobytes()])
    assert results[0] == results[1]


def test_a_saved_network_goes_on(tmp_path):
    x, t, _ = data(40)
    net, options = make(9, dropout=0.2), {"loss": "huber", "epochs": 2, "seed": 0}
    net.fit(x, t, recompute=True, **options)
    copy = fastbp.load(net.save(tmp_path / "net"))
    net.fit(x, t, recompute=False, **options)
    copy.fit(x, t, recompute=True, **options)
    np.testing.assert_array_equal(copy.parameters, net.parameters)


def test_an_ensemble():
    x, t, _ = data(40)
    kept, again = (fastbp.Ensemble(make(5), 3, seed=0) for _ in range(2))
    kept.fit(x, t, loss="huber", epochs=2)
    again.fit(x, t, loss="huber", epochs=2, each=[{"recompute": i != 1} for i in range(3)])
    np.testing.assert_array_equal(kept.predict(x), again.predict(x))


@njit
def many_steps(step, space, x, t):
    loss = 0.0
    for _ in range(3):
        loss = step(space, x, t)
    return loss


def test_inside_compiled_code():
    x, t, _ = data(40)
    nets = make(9, dropout=0.2), make(9, dropout=0.2)
    spaces = [
        net.workspace(40, loss="huber", optimizer="adam", recompute=recompute)
        for net, recompute in zip(nets, (False, True), strict=True)
    ]
    kept, again = (many_steps(nets[0].njit_step(), space, x, t) for space in spaces)
    assert again == kept
    np.testing.assert_array_equal(nets[1].parameters, nets[0].parameters)
    assert spaces[1].work.size < spaces[0].work.size


@pytest.mark.parametrize("wrong", [None, 1, "yes", 0.0])
def test_what_is_no_choice(wrong):
    net, (x, t, _) = make(3), data(4)
    optimizer, message = fastbp.SGD(0.1), "recompute: expected True or False, got "
    for call in (
        lambda: net.fit(x, t, loss="huber", recompute=wrong),
        lambda: net.train_step(x, t, "huber", optimizer, recompute=wrong),
        lambda: net.loss_and_gradients(x, t, "huber", recompute=wrong),
        lambda: net.workspace(4, recompute=wrong),
        lambda: net.memory(4, recompute=wrong),
    ):
        with pytest.raises(TypeError, match=message):
            call()
