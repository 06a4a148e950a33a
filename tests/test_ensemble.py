"""Many networks side by side: each member is what it would be alone."""

import signal
import threading

import numpy as np
import pytest

import fastbp

X = np.random.default_rng(0).standard_normal((40, 3))
T = np.random.default_rng(1).standard_normal((40, 2))


def make():
    return fastbp.Sequential(
        fastbp.Dense(3, 5, activation="tanh", dtype="float64", rng=0),
        fastbp.Dense(5, 2, dtype="float64", rng=1),
    )


def test_each_member_is_what_it_is_alone():
    net = make()
    ensemble = fastbp.Ensemble(net, 3)
    optimizer = fastbp.Adam(0.01)
    histories = ensemble.fit(X, T, loss="huber", optimizer=optimizer, epochs=3, batch_size=8)
    assert optimizer.step == 0
    np.testing.assert_array_equal(net.parameters, make().parameters)
    for i, (member, history) in enumerate(zip(ensemble.nets, histories, strict=True)):
        alone = make()
        expected = alone.fit(
            X, T, loss="huber", optimizer=fastbp.Adam(0.01), epochs=3, batch_size=8, seed=i
        )
        np.testing.assert_array_equal(member.parameters, alone.parameters)
        assert history.loss == expected.loss
    np.testing.assert_array_equal(ensemble.predict(X)[1], ensemble.nets[1].predict(X))


def test_seeds_draw_other_weights_for_every_member():
    one, other = (fastbp.Ensemble(make(), 3, seed=5) for _ in range(2))
    weights = {net.parameters.tobytes() for net in one.nets}
    assert len(weights) == 3
    assert weights == {net.parameters.tobytes() for net in other.nets}


def test_members_may_differ_in_data_and_options():
    folds = [np.arange(40) % 2 == i for i in range(2)]
    each = [
        {"x": X[f], "t": T[f], "optimizer": fastbp.SGD(0.1 * (i + 1))} for i, f in enumerate(folds)
    ]
    ensemble = fastbp.Ensemble(make(), 2)
    ensemble.fit(X, T, loss="squared_error", epochs=2, seed=3, each=each)
    for i, fold in enumerate(folds):
        alone = make()
        optimizer = fastbp.SGD(0.1 * (i + 1))
        alone.fit(X[fold], T[fold], loss="squared_error", optimizer=optimizer, epochs=2, seed=3)
        np.testing.assert_array_equal(ensemble.nets[i].parameters, alone.parameters)


def test_ctrl_c_keeps_what_the_members_have_learnt():
    ensemble, first = fastbp.Ensemble(make(), 4), threading.Lock()

    def interrupt(net, history):
        if history.epochs > 99 and first.acquire(blocking=False):  # all threads have begun
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    histories = ensemble.fit(X, T, loss="huber", epochs=10**6, callbacks=[interrupt])
    signal.signal(signal.SIGINT, before)
    assert [history.stopped for history in histories] == ["interrupted"] * 4
    assert sum(history.epochs for history in histories) >= 100
    assert ensemble.fit(X, T, loss="huber", epochs=2)[0].epochs == 2


def test_what_is_refused():
    with pytest.raises(ValueError, match="members"):
        fastbp.Ensemble(make(), 0)
    with pytest.raises(ValueError, match="each: expected one dict per member, 2, got 1"):
        fastbp.Ensemble(make(), 2).fit(X, T, loss="huber", each=[{}])
    with pytest.raises(TypeError, match="x: expected"):
        fastbp.Ensemble(make(), 2).fit(X.astype("f4"), T, loss="huber")
