"""Networks with device="cuda" behave as on the CPU."""

import numpy as np
import pytest

import fastbp
from fastbp import gpu


def make(device, dtype="float64", dropout=0.3):
    return fastbp.Sequential(
        fastbp.Dense(3, 5, activation="tanh", dtype=dtype, rng=0),
        *([fastbp.Dropout(dropout, rng=1)] if dropout else []),
        fastbp.Dense(5, 2, dtype=dtype, rng=2),
        device=device,
    )


def data(n=12, dtype=np.float64):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 3)).astype(dtype), rng.integers(0, 2, n)


@pytest.mark.parametrize("dropout", [0.3, 0.0])
def test_fit_predict_and_evaluate_agree(dropout, close):
    x, t = data()

    def run(device):
        net, seen = make(device, dropout=dropout), []
        history = net.fit(
            x, t, loss="softmax_cross_entropy", optimizer=fastbp.Adam(0.05), epochs=2,
            batch_size=5, validation_data=(x, t), clip=0.5, l2=1e-3, seed=0,
            callbacks=[lambda net, _: seen.append(net.parameters.copy())],
        )  # fmt: skip
        dx = net.loss_and_gradients(x, t, loss="softmax_cross_entropy")[1]
        proba, scores = net.predict_proba(x), net.evaluate(x, t)
        return [history.loss, *seen, net.predict(x), proba, dx, net.gradients, *scores.values()]

    for actual, expected in zip(run("cuda"), run("reference"), strict=True):
        close(np.asarray(actual), expected)


def test_train_step_agrees(close):
    x, t = data()

    def run(device):
        net, optimizer = make(device), fastbp.SGD(0.1, momentum=0.9)
        losses = [net.train_step(x, t, "softmax_cross_entropy", optimizer) for _ in range(2)]
        return losses, net.parameters

    for actual, expected in zip(run("cuda"), run("reference"), strict=True):
        close(np.asarray(actual), expected)


def test_a_network_moves_and_is_saved(close, tmp_path):
    x, _ = data()
    net = make("reference")
    expected, file = net.predict(x), tmp_path / "net.npz"
    assert net.to("cuda") is net
    close(net.predict(x), expected)
    net.save(file)
    assert fastbp.load(file, device="cuda").device == "cuda"
    close(net.to("reference").predict(x), expected)


def test_data_are_uploaded_once_in_an_epoch_and_anew_in_the_next(monkeypatch):
    x, t = data()
    net, uploads, upload = make("cuda"), [], gpu._upload
    monkeypatch.setattr(gpu, "_upload", lambda a: uploads.append(a is x) or upload(a))
    net.fit(x, t, loss="softmax_cross_entropy", epochs=2, batch_size=3, seed=0)
    assert sum(uploads) == 2
    assert not gpu._epoch


def test_divergence_leaves_the_last_good_state():
    x, _ = data()
    net = make("cuda", dropout=0.0)
    with pytest.raises(fastbp.DivergenceError):
        net.fit(x * 1e200, x[:, :2] * 1e200, loss="squared_error", epochs=3, seed=0)
    assert np.isfinite(net.parameters).all()
    assert not gpu._epoch
