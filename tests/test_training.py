"""`fit`: its trajectory, its reasons to stop, what it keeps, and what it refuses."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import fastbp
from fastbp import training
from fastbp.kernels import cpu, reference

NOT_FINITE = "expected finite numbers, got NaN or infinity, first in row"


def make(*, dropout=None, dtype="float64", sizes=(3, 4, 2), **options):
    """A small network, always with the same start."""
    k, hidden, m = sizes
    layers = [
        fastbp.Dense(k, hidden, activation="tanh", dtype=dtype, rng=0),
        fastbp.Dense(hidden, m, dtype=dtype, rng=1),
    ]
    if dropout is not None:
        layers.insert(1, fastbp.Dropout(dropout, rng=2))
    return fastbp.Sequential(*layers, **options)


def data(n=11, k=3, m=2, dtype=np.float64):
    """x (n, k) and targets (n, m) in [0, 1] that sum to one in every row."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((n, k)).astype(dtype), rng.dirichlet(np.ones(m), n).astype(dtype)


X, T = data()


def fit(net, x=X, t=T, **options):
    return net.fit(x, t, **({"loss": "squared_error", "epochs": 3, "seed": 0} | options))


def state(net):
    """All that a refused call must leave as it was."""
    passes = [getattr(layer, "passes", None) for layer in net.layers]
    return net.parameters.tobytes(), net.gradients.tobytes(), net.history, net.loss, passes


@contextmanager
def refuses(net, error, text):
    before = state(net)
    with pytest.raises(error, match=re.escape(text)):
        yield
    assert state(net) == before


# The trajectory


@pytest.mark.parametrize("n", [1, 7, 8, 9])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_an_epoch_takes_every_row_once(n, shuffle, device):
    # Row i adds 2**i to the sum of the losses: no other choice of n rows has the same sum.
    layer = fastbp.Dense(1, 1, bias=False, init="zeros", dtype="float64")
    net = fastbp.Sequential(layer, device=device)
    t = np.sqrt(2.0 ** np.arange(n))
    history = net.fit(
        np.zeros((n, 1)), t, loss="squared_error", epochs=3, batch_size=4, shuffle=shuffle, seed=0
    )
    np.testing.assert_allclose(history.loss, [(2**n - 1) / n] * 3, rtol=1e-14)


@pytest.mark.parametrize("dropout", [None, 0.5])
def test_same_seed_same_result_to_the_bit(dropout):
    nets = [make(dropout=dropout) for _ in range(4)]
    seeds = [7, 7, np.random.default_rng(7), 8]
    histories = [fit(net, seed=seed, batch_size=4) for net, seed in zip(nets, seeds, strict=True)]
    first, other = nets[0], nets[3]
    for net, history in zip(nets[1:3], histories[1:3], strict=True):
        np.testing.assert_array_equal(net.parameters, first.parameters)
        assert history.loss == histories[0].loss
    assert (other.parameters != first.parameters).any()
    assert histories[3].loss != histories[0].loss


def test_dropout_seeds_differ():
    net, other = make(dropout=0.5), make(dropout=0.5)
    other.layers[1].seed += 1
    assert fit(net).loss != fit(other).loss


def test_without_shuffling_the_batches_come_in_order():
    net, by_hand = make(), make()
    optimizer = fastbp.Adam(0.1)
    history = fit(net, shuffle=False, batch_size=4, optimizer=fastbp.Adam(0.1), l2=0.01, clip=0.5)
    losses = []
    for _ in range(3):
        mean = 0.0
        for rows in (slice(0, 4), slice(4, 8), slice(8, 11)):
            value = by_hand.train_step(
                X[rows], T[rows], "squared_error", optimizer, l2=0.01, clip=0.5
            )
            mean += value * len(X[rows]) / 11
        losses.append(mean)
    np.testing.assert_array_equal(net.parameters, by_hand.parameters)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-13)


def test_shuffled_batches_are_steps_too():
    net, by_hand = make(), make()
    optimizer, rng = fastbp.SGD(0.1), np.random.default_rng(5)
    fit(net, seed=5, batch_size=4, optimizer=fastbp.SGD(0.1))
    for _ in range(3):
        order = np.empty(11, np.int64)
        reference.shuffle(int(rng.integers(2**63)), order)
        for start in (0, 4, 8):
            rows = order[start : start + 4]
            by_hand.train_step(X[rows], T[rows], "squared_error", optimizer)
    np.testing.assert_array_equal(net.parameters, by_hand.parameters)


@pytest.mark.parametrize("batch_size", [11, 12, 10**12])
def test_a_batch_may_be_larger_than_the_data(batch_size):
    net, by_hand = make(), make()
    history = fit(net, shuffle=False, batch_size=batch_size, optimizer=fastbp.SGD(0.1), epochs=1)
    assert history.loss == [by_hand.train_step(X, T, "squared_error", fastbp.SGD(0.1))]
    np.testing.assert_array_equal(net.parameters, by_hand.parameters)


def test_fit_learns():
    net = make(sizes=(3, 16, 2))
    history = fit(net, epochs=300, optimizer=fastbp.Adam(0.02), batch_size=4)
    assert history.loss[-1] < 0.01 * history.loss[0]
    assert net.evaluate(X, T)["loss"] < 0.01 * history.loss[0]


def test_reference_device_has_the_same_trajectory():
    x, t = data(dtype=np.float32)
    options = {"batch_size": 4, "epochs": 5, "optimizer": "rmsprop", "l2": 0.01, "clip": 1.0}
    cpu, reference = (make(dropout=0.25, dtype="float32", device=d) for d in ("cpu", "reference"))
    history = fit(cpu, x, t, validation_data=(x, t), **options)
    expected = fit(reference, x, t, validation_data=(x, t), **options)
    # 15 steps of float32: each twin rounds in its own order.
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-4)
    np.testing.assert_allclose(history.validation["loss"], expected.validation["loss"], rtol=1e-4)
    np.testing.assert_allclose(cpu.parameters, reference.parameters, rtol=1e-3, atol=1e-4)


def test_an_optimizer_keeps_its_state_for_a_later_call():
    net, twice = make(), make()
    optimizer = fastbp.Adam(0.1)
    fit(net, epochs=4, shuffle=False, optimizer=fastbp.Adam(0.1))
    fit(twice, epochs=2, shuffle=False, optimizer=optimizer)
    fit(twice, epochs=2, shuffle=False, optimizer=optimizer)
    np.testing.assert_array_equal(twice.parameters, net.parameters)
    assert optimizer.step == 4


def test_a_name_stands_for_a_fresh_optimizer():
    net, expected = make(), make()
    fit(net, optimizer="sgd")
    fit(net, optimizer="sgd")
    for seed in (0, 0):
        fit(expected, optimizer=fastbp.SGD(), seed=seed)
    np.testing.assert_array_equal(net.parameters, expected.parameters)


def test_the_default_optimizer_is_adam():
    net, expected = make(), make()
    fit(net)
    fit(expected, optimizer=fastbp.Adam())
    np.testing.assert_array_equal(net.parameters, expected.parameters)


def test_read_only_files_as_data(tmp_path):
    X.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", np.float64, mode="r", shape=X.shape)
    for shuffle in (False, True):
        net, expected = make(), make()
        fit(expected, shuffle=shuffle, batch_size=4)
        compiled = len(cpu.dense_forward.signatures), len(cpu.dense_backward.signatures)
        fit(net, x, shuffle=shuffle, batch_size=4, validation_data=(x, T))
        np.testing.assert_array_equal(net.parameters, expected.parameters)
        assert (len(cpu.dense_forward.signatures), len(cpu.dense_backward.signatures)) == compiled


def test_labels_and_flat_targets():
    net, expected = make(), make()
    labels = np.arange(11) % 2
    fit(net, t=labels, loss="softmax_cross_entropy")
    fit(expected, t=np.eye(2)[labels], loss="softmax_cross_entropy")
    np.testing.assert_allclose(net.parameters, expected.parameters, rtol=1e-12)

    net, expected = make(sizes=(3, 4, 1)), make(sizes=(3, 4, 1))
    fit(net, t=T[:, 0].copy())
    fit(expected, t=T[:, :1].copy())
    np.testing.assert_array_equal(net.parameters, expected.parameters)


# Sample weights, l2, clipping


@pytest.mark.parametrize("loss", ["squared_error", "huber", "softmax_cross_entropy"])
def test_rows_of_weight_zero_are_rows_that_are_not_there(loss):
    net, expected = make(), make()
    s = np.ones(11)
    s[[1, 5, 10]] = 0
    options = {"loss": loss, "batch_size": 11, "optimizer": fastbp.SGD(0.1)}
    history = fit(net, sample_weight=s, **options)
    kept = s > 0
    expected_history = fit(expected, X[kept], T[kept], **options)
    np.testing.assert_allclose(net.parameters, expected.parameters, rtol=1e-12)
    np.testing.assert_allclose(history.loss, expected_history.loss, rtol=1e-12)


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_integer_weights_are_repeated_rows(loss):
    net, expected = make(), make()
    repeats = np.arange(11) % 3 + 1
    options = {"loss": loss, "batch_size": 10**6, "optimizer": "rmsprop"}
    fit(net, sample_weight=repeats.astype(float), **options)
    fit(expected, np.repeat(X, repeats, axis=0), np.repeat(T, repeats, axis=0), **options)
    np.testing.assert_allclose(net.parameters, expected.parameters, rtol=1e-9)


def test_batches_that_weigh_nothing_take_no_step():
    net, expected = make(dropout=0.5), make(dropout=0.5)
    s = np.ones(11)
    s[4:8] = 0  # the second batch of three
    optimizer = fastbp.Adam()
    rest = np.r_[0:4, 8:11]
    options = {"shuffle": False, "batch_size": 4}
    history = fit(net, sample_weight=s, optimizer=optimizer, **options)
    expected_history = fit(expected, X[rest], T[rest], **options)
    np.testing.assert_array_equal(net.parameters, expected.parameters)
    np.testing.assert_allclose(history.loss, expected_history.loss, rtol=1e-13)
    assert optimizer.step == 6
    assert net.layers[1].passes == 6


def test_the_loss_of_an_epoch_weighs_batches_as_their_rows():
    net = make()
    s = np.array([1.0] * 4 + [5.0] * 7)
    optimizer = fastbp.SGD(1e-300)  # the parameters stay
    history = fit(net, sample_weight=s, batch_size=4, optimizer=optimizer, epochs=1)
    expected = net.evaluate(X, T, sample_weight=s)["loss"]
    np.testing.assert_allclose(history.loss, [expected], rtol=1e-13)


def test_l2_shrinks_weights_and_leaves_biases():
    net = make()
    net.parameters[...] = 0.5
    rest = net.weight_count
    x, t = np.zeros((4, 3)), np.tile(net.predict(np.zeros((1, 3))), (4, 1))  # no error: only l2
    net.layers[0].w[...] = 2.0  # meets x = 0
    start = net.parameters.copy()
    history = fit(net, x, t, l2=0.05, optimizer=fastbp.SGD(0.1), epochs=1)
    np.testing.assert_allclose(net.parameters[:rest], start[:rest] * (1 - 2 * 0.1 * 0.05))
    np.testing.assert_allclose(net.parameters[rest:], start[rest:], atol=1e-15)
    np.testing.assert_allclose(history.loss, [0.05 * np.sum(start[:rest] ** 2)])


@pytest.mark.parametrize("clip", [0.01, fastbp.ClipNorm(0.01), fastbp.ClipValue(0.001)])
def test_clip(clip):
    net = make()
    start = net.parameters.copy()
    fit(net, clip=clip, optimizer=fastbp.SGD(1.0), epochs=1, batch_size=11)
    step = start - net.parameters
    if isinstance(clip, fastbp.ClipValue):
        np.testing.assert_allclose(np.abs(step).max(), 0.001, rtol=1e-9)
        assert (np.abs(step) > 0.000999).sum() > step.size / 2
    else:
        np.testing.assert_allclose(np.linalg.norm(step), 0.01, rtol=1e-9)


# History and the reasons to stop


def test_history():
    net = make()
    history = fit(net, validation_data=(X[:5], T[:5]))
    assert net.history is history
    assert history.epochs == len(history.loss) == len(history.seconds) == 3
    assert history.stopped == "epochs"
    assert list(history.validation) == ["loss"]
    assert len(history.validation["loss"]) == 3
    assert history.validation["loss"][-1] == net.evaluate(X[:5], T[:5])["loss"]
    assert all(type(value) is float for value in history.loss)
    assert min(history.seconds) > 0
    assert history.loss[2] < history.loss[0]


def test_validation_scores_of_cross_entropies():
    net = make()
    labels = np.arange(11) % 2
    history = fit(net, t=labels, loss="softmax_cross_entropy", validation_data=[X, labels], l2=1.0)
    assert list(history.validation) == ["loss", "accuracy"]
    scores = net.evaluate(X, labels)
    assert {name: column[-1] for name, column in history.validation.items()} == scores


def test_validation_does_not_change_the_training():
    net, expected = make(dropout=0.5), make(dropout=0.5)
    fit(net, validation_data=(X, T), batch_size=4)
    fit(expected, batch_size=4)
    np.testing.assert_array_equal(net.parameters, expected.parameters)


def test_no_epochs():
    net = make()
    start = net.parameters.copy()
    history = fit(net, epochs=0)
    assert history == training.History()
    assert net.history is history
    assert history.epochs == 0
    np.testing.assert_array_equal(net.parameters, start)
    assert net.loss.name == "squared_error"


@pytest.mark.parametrize("t", [T[:0], np.empty(0, np.int64)])
def test_no_rows(t):
    net = make(dropout=0.5)
    start = net.parameters.copy()
    history = fit(net, X[:0], t, loss="softmax_cross_entropy", validation_data=(X[:0], t), l2=0.1)
    assert history.loss == [0, 0, 0]
    assert history.validation == {"loss": [0.0] * 3, "accuracy": [0.0] * 3}
    np.testing.assert_array_equal(net.parameters, start)


def test_target_loss():
    losses = fit(make(), epochs=5).loss
    history = fit(make(), epochs=5, target_loss=losses[2])
    assert history.loss == losses[:3]
    assert history.stopped == "target_loss"


def test_patience_counts_epochs_without_progress():
    net = make()
    history = fit(net, epochs=50, patience=4, optimizer=fastbp.SGD(1e-300))
    assert history.epochs == 1 + 4  # the first epoch sets the best loss
    assert history.stopped == "patience"


def test_patience_wants_more_than_a_ten_thousandth():
    # Without an error the loss is the penalty l2 w**2, and a step takes w to w (1 - 2 rate l2).
    def epochs(share):
        net = fastbp.Sequential(fastbp.Dense(1, 1, dtype="float64", init="zeros"))
        net.layers[0].w[...] = 1.0
        optimizer = fastbp.SGD(share / 2 / 2)  # the loss falls by about this share in an epoch
        x = np.zeros((2, 1))
        return fit(net, x, x, l2=1.0, epochs=10, patience=2, optimizer=optimizer).epochs

    assert epochs(1.2e-4) == 10
    assert epochs(0.4e-4) < 10


def test_patience_sums_small_progress_up():
    # 0.6e-4 an epoch: none is progress by itself, but two are, seen from the last progress.
    net = fastbp.Sequential(fastbp.Dense(1, 1, dtype="float64", init="zeros"))
    net.layers[0].w[...] = 1.0
    x = np.zeros((2, 1))
    optimizer = fastbp.SGD(0.6e-4 / 4)
    assert fit(net, x, x, l2=1.0, epochs=10, patience=2, optimizer=optimizer).epochs == 10


def test_patience_watches_the_validation_loss():
    net = make()
    far = 1e3 * np.ones_like(T)  # the better the fit, the worse here
    history = fit(net, X, T - 5, epochs=50, patience=3, validation_data=(X, far))
    assert history.stopped == "patience"
    assert history.epochs == 4
    assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize("far", [1e200, 1.7e308])
def test_patience_sees_no_progress_in_an_infinite_validation_loss(far):
    net = make()
    history = fit(net, epochs=50, patience=3, validation_data=(X, np.full_like(T, far)))
    assert history.validation["loss"] == [np.inf] * 3
    assert history.stopped == "patience"


def test_callbacks_in_order_after_every_epoch():
    net, seen = make(), []

    def note(name):
        def callback(given, history):
            assert given is net
            assert history is net.history
            seen.append((name, history.epochs, len(history.validation["loss"])))

        return callback

    fit(net, callbacks=[note("a"), note("b")], validation_data=(X, T))
    assert seen == [("a", 1, 1), ("b", 1, 1), ("a", 2, 2), ("b", 2, 2), ("a", 3, 3), ("b", 3, 3)]


def test_callbacks_from_an_iterator_serve_every_epoch():
    seen = []
    fit(make(), callbacks=(f for f in [lambda net, history: seen.append(history.epochs)]))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("yes", [True, np.True_])
def test_a_callback_stops(yes):
    net, seen = make(), []
    callbacks = [
        lambda net, history: history.epochs == 2 and yes,
        lambda net, history: seen.append(history.epochs),
    ]
    history = fit(net, epochs=9, callbacks=callbacks)
    assert history.stopped == "callback"
    assert history.epochs == 2
    assert seen == [1, 2]  # the others are called in the last epoch too


@pytest.mark.parametrize("answer", [None, False, 0, 1, "yes", [True], np.ones(3)])
def test_only_true_stops(answer):
    assert fit(make(), callbacks=[lambda net, history: answer]).epochs == 3


def test_a_callback_may_change_the_learning_rate():
    optimizer = fastbp.SGD(0.1)

    def decay(net, history):
        optimizer.learning_rate = 1e-300

    net, expected = make(), make()
    fit(net, optimizer=optimizer, callbacks=[decay])
    fit(expected, optimizer=fastbp.SGD(0.1), epochs=1)
    np.testing.assert_allclose(net.parameters, expected.parameters, rtol=1e-15)


def interrupt(net, history):
    if history.epochs == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("progress", [False, True])
def test_ctrl_c_keeps_network_and_history(progress):
    net, expected = make(), make()
    history = fit(net, epochs=50, callbacks=[interrupt], progress=progress)
    fit(expected, epochs=2)
    assert history.stopped == "interrupted"
    assert history.epochs == 2
    assert net.history is history
    np.testing.assert_array_equal(net.parameters, expected.parameters)
    fit(net)  # and goes on


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
def test_ctrl_c_within_an_epoch():
    net, optimizer = make(), fastbp.SGD(1e-6)
    fit(net, epochs=1)  # compiled
    x, t = np.tile(X, (400_000, 1)), np.tile(T, (400_000, 1))  # seconds of steps
    passed = net.parameters.copy()

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        history = net.fit(x, t, loss="squared_error", optimizer=optimizer, batch_size=4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert history.stopped == "interrupted"
    assert history.epochs == 0
    assert 0 < optimizer.step < len(x) // 4
    assert (net.parameters != passed).any()


def test_a_wrong_rate_of_a_callback_is_refused():
    net, optimizer = make(), fastbp.SGD(0.1)

    def turn(net, history):
        optimizer.learning_rate = -5

    with pytest.raises(ValueError, match="learning_rate: expected a finite number >= 0, got -5"):
        fit(net, optimizer=optimizer, callbacks=[turn])
    assert net.history.epochs == 1


def test_an_error_of_a_callback_passes_through():
    def fails(net, history):
        raise ZeroDivisionError("mine")

    net = make()
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(net, callbacks=[fails], progress=True)
    assert net.history.epochs == 1
    assert net.history.stopped == "failed"


# Divergence


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # NumPy's, of reference
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_divergence_keeps_the_last_good_epoch(device, dtype):
    x, t = data(dtype=dtype)
    good = []
    net = make(dtype=dtype, device=device)

    def keep(net, history):
        good.append(net.parameters.copy())
        if history.epochs == 3:
            optimizer.learning_rate = 1e30 if dtype == "float32" else 1e300

    optimizer = fastbp.SGD(0.01)
    text = "training diverged in epoch 4: .* on finite data: the parameters grew too large; lower"
    with pytest.raises(fastbp.DivergenceError, match=text) as caught:
        fit(net, x, t, epochs=9, batch_size=4, optimizer=optimizer, callbacks=[keep])
    assert str(caught.value).endswith("optimizer are as they were after epoch 3")
    assert len(good) == 3
    np.testing.assert_array_equal(net.parameters, good[-1])
    assert net.history.stopped == "diverged"
    assert net.history.epochs == 3
    assert np.isfinite(net.history.loss).all()
    assert fit(net, x, t, epochs=1).stopped == "epochs"


def test_divergence_in_the_first_epoch_keeps_the_start():
    net = make()
    start = net.parameters.copy()
    with pytest.raises(fastbp.DivergenceError, match=r"in epoch 1: .* were after epoch 0"):
        fit(net, batch_size=4, optimizer=fastbp.SGD(1e300))
    np.testing.assert_array_equal(net.parameters, start)
    assert net.history.loss == []


@pytest.mark.parametrize("make_optimizer", [fastbp.SGD, fastbp.Adam])
def test_divergence_does_not_keep_what_the_last_step_of_an_epoch_spoiled(make_optimizer):
    # One step an epoch: the loss of epoch 3 is finite, yet it was measured before the bad step.
    net, optimizer, states = make(), make_optimizer(learning_rate=0.01), []

    def keep(net, history):
        copies = {slot: array.copy() for slot, array in optimizer.state.items()}
        states.append((net.parameters.copy(), optimizer.step, copies))
        if history.epochs == 2:
            optimizer.learning_rate = 1e200

    with pytest.raises(fastbp.DivergenceError, match=r"in epoch 4: .* were after epoch 2"):
        fit(net, epochs=9, batch_size=11, optimizer=optimizer, callbacks=[keep])
    parameters, step, state = states[1]
    np.testing.assert_array_equal(net.parameters, parameters)
    assert optimizer.step == step == 2
    assert optimizer.state.keys() == state.keys()
    for slot, array in state.items():
        np.testing.assert_array_equal(optimizer.state[slot], array)


def test_parameters_that_overflow_in_the_last_step_of_an_epoch():
    # The loss before that step was finite: without a look at the parameters they would be kept.
    net = make()
    start = net.parameters.copy()
    text = "diverged in epoch 1: a parameter is NaN or infinite on finite data: the parameters grew"
    with pytest.raises(fastbp.DivergenceError, match=text):
        fit(net, t=T * 1e10, batch_size=11, optimizer=fastbp.SGD(1e300))
    np.testing.assert_array_equal(net.parameters, start)
    assert net.history.epochs == 0


# The progress bar


def test_progress_writes_to_stderr_only(capsys):
    labels = np.arange(11) % 2
    history = fit(
        make(), t=labels, loss="softmax_cross_entropy", progress=True, validation_data=(X, labels)
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert f"loss {history.loss[-1]:.4g}" in err
    assert f"validation accuracy {history.validation['accuracy'][-1]:.4g}" in err


def test_without_progress_nothing_is_written(capsys):
    fit(make())
    assert capsys.readouterr() == ("", "")


def test_what_a_callback_prints_stays_on_stdout(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich then takes stderr for a terminal
    fit(make(), progress=True, callbacks=[lambda net, history: print("epoch", history.epochs)])
    out, err = capsys.readouterr()
    assert out == "epoch 1\nepoch 2\nepoch 3\n"
    assert "epoch 2" not in err


def test_progress_does_not_change_the_training():
    net, expected = make(), make()
    fit(net, progress=True)
    fit(expected)
    np.testing.assert_array_equal(net.parameters, expected.parameters)


# What is refused


def bad_row(array, value=np.nan, row=2):
    array = array.copy()
    array[row:] = value
    return array


REFUSED = {
    "epochs": ({"epochs": -1}, ValueError, "epochs: expected an integer >= 0, got -1"),
    "epochs float": ({"epochs": 2.0}, TypeError, "epochs: expected an integer, got float"),
    "epochs bool": ({"epochs": True}, TypeError, "epochs: expected an integer, got bool"),
    "batch_size": ({"batch_size": 0}, ValueError, "batch_size: expected an integer >= 1, got 0"),
    "batch_size float": ({"batch_size": 4.0}, TypeError, "batch_size: expected an integer, got fl"),
    "patience": ({"patience": 0}, ValueError, "patience: expected an integer >= 1, got 0"),
    "target_loss": ({"target_loss": "0"}, TypeError, "target_loss: expected a number, got str"),
    "target nan": (
        {"target_loss": np.nan},
        ValueError,
        "target_loss: expected a finite number, got nan",
    ),
    "l2": ({"l2": -1.0}, ValueError, "l2: expected a finite number >= 0, got -1"),
    "clip": ({"clip": -1.0}, ValueError, "clip: expected a finite number > 0, got -1"),
    "optimizer": (
        {"optimizer": "Adam"},
        ValueError,
        "optimizer: expected one of sgd, adam, adamw, rmsprop; got 'Adam'",
    ),
    "loss": ({"loss": "mse"}, ValueError, "loss: expected one of squared_error, half_squared_er"),
    "shuffle": ({"shuffle": "no"}, TypeError, "shuffle: expected True or False, got 'no'"),
    "progress": ({"progress": 1}, TypeError, "progress: expected True or False, got 1"),
    "seed": (
        {"seed": "0"},
        TypeError,
        "seed: expected a numpy.random.Generator or an integer seed, got str",
    ),
    "seed negative": ({"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
    "callbacks": (
        {"callbacks": print},
        TypeError,
        "callbacks: expected a list of functions, got builtin_function_or_method; pass [function]",
    ),
    "callbacks with a number": (
        {"callbacks": [print, 3]},
        TypeError,
        "callbacks: expected functions (net, history), got 3; pass [function]",
    ),
    "optimizer class": (
        {"optimizer": fastbp.Adam},
        TypeError,
        "optimizer: expected an instance, got the class Adam; pass Adam()",
    ),
    "x": ({"x": X[:, :2].copy()}, ValueError, "x: expected shape (n, 3), got (11, 2)"),
    "x dtype": ({"x": X.astype(np.float32)}, TypeError, "x: expected float64 like the other arr"),
    "x order": ({"x": X[::-1]}, ValueError, "x: expected a C-contiguous array, got a strided vie"),
    "t": ({"t": T[:10]}, ValueError, "t: expected shape (11, 2), got (10, 2)"),
    "x nan": ({"x": bad_row(X)}, ValueError, f"x: {NOT_FINITE} 2; drop or fill such rows"),
    "x nan without weight": (
        {
            "x": np.vstack([bad_row(X[:4]), X[4:]]),
            "sample_weight": np.repeat([0.0, 1.0], [4, 7]),
            "batch_size": 4,
            "shuffle": False,
        },
        ValueError,
        f"x: {NOT_FINITE} 2",
    ),
    "x inf": ({"x": bad_row(X, -np.inf)}, ValueError, f"x: {NOT_FINITE} 2"),
    "t nan": ({"t": bad_row(T)}, ValueError, f"t: {NOT_FINITE} 2"),
    "t inf": ({"t": bad_row(T, np.inf)}, ValueError, f"t: {NOT_FINITE} 2"),
    "weights": (
        {"sample_weight": np.zeros(11)},
        ValueError,
        "sample_weight: expected weights >= 0 with a sum > 0",
    ),
    "weights nan": (
        {"sample_weight": bad_row(np.ones(11))},
        ValueError,
        f"sample_weight: {NOT_FINITE} 2",
    ),
    "weights inf": (
        {"sample_weight": bad_row(np.ones(11), np.inf, row=10)},
        ValueError,
        f"sample_weight: {NOT_FINITE} 10",
    ),
    "labels": (
        {"t": np.arange(11), "loss": "softmax_cross_entropy"},
        ValueError,
        "t: expected labels in 0..1, got 2 in row 2",
    ),
    "labels negative": (
        {"t": -np.arange(11), "loss": "softmax_cross_entropy"},
        ValueError,
        "t: expected labels in 0..1, got -1 in row 1",
    ),
    "probabilities": (
        {"t": bad_row(T, 1.5, row=7), "loss": "binary_cross_entropy"},
        ValueError,
        "t: expected targets in [0, 1], got others, first in row 7",
    ),
    "validation form": (
        {"validation_data": 3},
        TypeError,
        "validation_data: expected a pair (x, t) of arrays, got int",
    ),
    "validation array": (
        {"validation_data": X},
        TypeError,
        "validation_data: expected a pair (x, t) of arrays, got ndarray",
    ),
    "validation x only": (
        {"validation_data": (X,)},
        ValueError,
        "validation_data: expected a pair (x, t), got 1 items",
    ),
    "validation triple": (
        {"validation_data": (X, T, T)},
        ValueError,
        "validation_data: expected a pair (x, t), got 3 items",
    ),
    "validation shape": (
        {"validation_data": (X, T[:5])},
        ValueError,
        "validation_data: t: expected shape (11, 2), got (5, 2)",
    ),
    "validation dtype": (
        {"validation_data": (X.astype(np.float32), T)},
        TypeError,
        "validation_data: x: expected float64 like the other arrays, got float32",
    ),
    "validation nan": (
        {"validation_data": (bad_row(X), T)},
        ValueError,
        f"validation_data: x: {NOT_FINITE} 2",
    ),
    "validation labels": (
        {"loss": "softmax_cross_entropy", "validation_data": (X, np.arange(11))},
        ValueError,
        "validation_data: t: expected labels in 0..1, got 2 in row 2",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_fit_refuses(kind):
    changed, error, text = REFUSED[kind]
    net = make(dropout=0.5)
    fit(net, loss="huber")  # its history, loss and gradients must survive
    optimizer = fastbp.Adam()
    with refuses(net, error, text):
        fit(net, **({"optimizer": optimizer} | changed))
    assert optimizer.step == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_row_that_is_met_after_some_steps_leaves_all_as_it_was(bad):
    net, optimizer = make(dropout=0.5), fastbp.Adam()
    fit(net, loss="huber", optimizer=optimizer)
    before, step = state(net), optimizer.step
    slots = {slot: array.copy() for slot, array in optimizer.state.items()}
    with pytest.raises(ValueError, match=f"x: {NOT_FINITE} 9"):
        fit(net, bad_row(X, bad, row=9), optimizer=optimizer, batch_size=2, shuffle=False)
    parameters, _, *rest = before
    now, _, *others = state(net)
    assert (now, others) == (parameters, rest)
    assert optimizer.step == step
    for slot, array in slots.items():
        np.testing.assert_array_equal(optimizer.state[slot], array)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_x_that_changes_while_it_is_trained_on(device):
    net, optimizer, x, kept = make(device=device), fastbp.Adam(), X.copy(), []
    fit(net, loss="huber")

    def spoil(net, history):
        kept.append((net.parameters.copy(), optimizer.step))
        if history.epochs == 3:
            x[9] = np.nan

    text = f"x: {NOT_FINITE} 9; .* (found in epoch 4: x has changed). The network and the optimizer"
    options = {"optimizer": optimizer, "batch_size": 2, "shuffle": False, "callbacks": [spoil]}
    with pytest.raises(ValueError, match=re.escape(text).replace(r"\.\*", ".*")) as caught:
        fit(net, x, epochs=9, **options)
    assert "are as they were after epoch 3" in str(caught.value)
    assert (net.history.epochs, net.history.stopped) == (3, "diverged")
    np.testing.assert_array_equal(net.parameters, kept[-1][0])
    assert optimizer.step == kept[-1][1]


def test_fit_refuses_the_optimizer_of_another_network():
    optimizer = fastbp.RMSprop()
    fit(make(sizes=(3, 5, 2)), optimizer=optimizer)
    steps, square = optimizer.step, optimizer.state["square"].copy()
    net = make(dropout=0.5)
    fit(net, loss="huber")
    text = (
        "optimizer: expected a fresh one, got one whose square belongs to a network of 32 float64 "
        "parameters (this one has 26 float64); make a new RMSprop"
    )
    with refuses(net, ValueError, text):
        fit(net, optimizer=optimizer)
    assert optimizer.step == steps
    np.testing.assert_array_equal(optimizer.state["square"], square)


SIGINT = """
import os, signal
import numpy as np, fastbp
net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros", dtype="float64", rng=0))
x = np.ones((4, 1))
press = lambda net, history: history.epochs == 3 and os.kill(os.getpid(), signal.SIGINT)
history = net.fit(x, x, loss="squared_error", epochs=10**9, callbacks=[press])
print(history.stopped, history.epochs >= 3, net.history is history)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_the_signal_of_ctrl_c():
    run = subprocess.run(
        [sys.executable, "-c", SIGINT], capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.stdout, run.stderr) == ("interrupted True True\n", "")
