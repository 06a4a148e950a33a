"""Networks with device="cuda" behave as on the CPU."""

import contextlib
import copy
from itertools import pairwise

import numpy as np
import pytest

import fastbp
from fastbp import gpu, gpu_training
from fastbp.gpu_training import Pieces
from fastbp.kernels import cuda
from fastbp.kernels.cuda import dense, graphs, launch, target


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


@pytest.mark.parametrize("wide", [False, True])
def test_the_same_bits_whether_activations_are_kept(wide):
    x, t = data()

    def run(recompute):
        widths = [3, 300 if wide and not target.SIMULATED else 9 if wide else 5, 5, 5, 5, 2]
        layers = [
            fastbp.Dense(k, m, activation="gelu" if m > 2 else "identity", rng=k)
            for k, m in pairwise(widths)
        ]
        net = fastbp.Sequential(*layers, fastbp.Dropout(0.2, rng=0), device="cuda")
        options = {"loss": "softmax_cross_entropy", "recompute": recompute}
        batch = x.astype("f4"), t
        history = net.fit(*batch, epochs=2, batch_size=5, seed=0, validation_data=batch, **options)
        net.train_step(*batch, optimizer=fastbp.SGD(0.1), **options)
        loss, dx = net.loss_and_gradients(*batch, **options)
        arrays = net.parameters, net.gradients, dx, net.predict(batch[0])
        told = net.memory(12)
        work = 4 * cuda.network_work(12, net.plan_for(recompute).table)
        assert work == (told.recomputing if recompute else told.keeping) > 0
        return history.loss, history.validation, loss, [a.tobytes() for a in arrays]

    assert run(True) == run(False)


def test_memory_grows_with_the_batch_and_less_where_layers_are_recomputed():
    wide = fastbp.Sequential(*(fastbp.Dense(300, 300) for _ in range(9)), device="cuda")
    few, many = wide.memory(1000), wide.memory(2000)
    assert many.keeping - few.keeping >= many.kept - few.kept > 0
    assert many.recomputing < 0.75 * many.keeping


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


def test_data_are_uploaded_once_in_a_fit(monkeypatch):
    x, t = data()
    net, uploads, upload = make("cuda"), [], gpu.upload
    monkeypatch.setattr(gpu, "upload", lambda a: uploads.append(a) or upload(a))
    net.fit(x, t, loss="softmax_cross_entropy", epochs=3, batch_size=3, seed=0)
    for array in (x, t, net.parameters, net.gradients):
        assert sum(each is array for each in uploads) == 1


def test_divergence_leaves_the_last_good_state():
    x, _ = data()
    net = make("cuda", dropout=0.0)
    with pytest.raises(fastbp.DivergenceError):
        net.fit(x * 1e200, x[:, :2] * 1e200, loss="squared_error", epochs=3, seed=0)
    assert np.isfinite(net.parameters).all()
    assert not gpu._resident


def trained(device, n=13, dtype="float64", net_options=(), **options):
    """History and network of a fit with all that a step can do."""
    x, t = data(n)
    x = x.astype(dtype)
    weights = np.linspace(0.1, 1, n, dtype=dtype)
    net = make(device, dtype, **dict(net_options))
    settings = {"optimizer": fastbp.Adam(0.05), "epochs": 3, "batch_size": 3, "seed": 0}
    settings |= {"loss": "softmax_cross_entropy", "sample_weight": weights} | options
    return net.fit(x, t, **settings), net, settings["optimizer"]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rows", [6, 1])
def test_streamed_data_train_as_data_that_are_there(rows, shuffle):
    row_bytes = 3 * 8 + 8 + 8
    whole, net, optimizer = trained("cuda", shuffle=shuffle, epochs=2)
    budget = 2 * rows * row_bytes
    pieces, other, state = trained("cuda", shuffle=shuffle, epochs=2, data_budget=budget)
    assert whole.loss == pieces.loss
    np.testing.assert_array_equal(net.parameters, other.parameters)
    np.testing.assert_array_equal(optimizer.state["v"], state.state["v"])
    assert optimizer.step == state.step == 10


def test_a_piece_is_on_its_way_while_the_one_before_is_computed(monkeypatch):
    events, at, send, epoch = [], Pieces.at, Pieces._send, cuda.network_epoch

    class Event(type(target.host.event())):
        def wait(self, stream=0):
            events.append("wait")
            super().wait(stream)

    def note_send(pieces, number):
        if pieces._rows(number):
            assert pieces.copy is not pieces.compute
            events.append(f"send {number}")
        send(pieces, number)

    def note_epoch(*arguments):
        events.append("compute")
        return epoch(*arguments)

    monkeypatch.setattr(target.host, "event", Event)
    monkeypatch.setattr(Pieces, "_send", note_send)
    monkeypatch.setattr(cuda, "network_epoch", note_epoch)
    trained("cuda", epochs=1, data_budget=1)
    once = [name for i, name in enumerate(events) if name != "compute" or events[i - 1] != name]
    assert once == [
        "send 0", "wait", "send 1", "compute", "wait", "send 2", "compute", "wait", "send 3",
        "compute", "wait", "send 4", "compute", "wait", "compute",
    ]  # fmt: skip
    assert at is Pieces.at


def test_what_a_callback_changes_is_trained_on(close):
    def halve(net, history):
        net.parameters *= 0.5
        net.predict(data()[0])  # with the new ones

    def run(device):
        history, net, optimizer = trained(device, callbacks=[halve])
        return [history.loss, net.parameters, optimizer.state["m"]]

    for actual, expected in zip(run("cuda"), run("reference"), strict=True):
        close(np.asarray(actual), expected)


def test_a_learning_rate_that_changes_is_obeyed(close):
    def run(device):
        optimizer = fastbp.Adam(0.1)

        def slower(net, history):
            optimizer.learning_rate *= 0.5

        return trained(device, optimizer=optimizer, callbacks=[slower], epochs=4)[1].parameters

    close(run("cuda"), run("reference"))


def test_a_callback_that_fails_leaves_the_network_as_it_saw_it():
    seen = []

    def fail(net, history):
        net.parameters[0] = 7
        seen.extend([net, net.parameters.copy()])
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        trained("cuda", callbacks=[fail])
    np.testing.assert_array_equal(seen[0].parameters, seen[1])
    assert not gpu._resident


def test_ctrl_c_brings_the_network_home(monkeypatch):
    run, steps = graphs.Recorder.run, []

    def interrupted(*arguments):
        steps.append(1)
        if len(steps) > 7:
            raise KeyboardInterrupt
        run(*arguments)

    monkeypatch.setattr(graphs.Recorder, "run", interrupted)
    history, net, optimizer = trained("cuda")
    assert history.stopped == "interrupted"
    assert optimizer.step == 7
    monkeypatch.setattr(graphs.Recorder, "run", run)
    whole = []
    trained("cuda", callbacks=[lambda net, _: whole.append(net.parameters.copy())])
    assert not any((net.parameters == each).all() for each in whole)  # between two epochs
    assert not gpu._resident


def test_steps_of_a_fit_are_recorded_once(monkeypatch):
    launched, call = [], launch.Kernel.__call__

    def count(kernel, *arguments, **more):
        launched.append(kernel.name)
        call(kernel, *arguments, **more)

    monkeypatch.setattr(launch.Kernel, "__call__", count)
    trained("cuda", n=12, epochs=5)
    assert launched.count("narrow_network") == 2  # as it is, then recorded; of 20 steps
    assert launched.count("open_gate") >= 5


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_precision_is_that_of_every_product(precision, monkeypatch):
    used, choose = set(), dense.tile_for
    monkeypatch.setattr(dense, "tile_for", lambda *a: used.add(launch.precision()) or choose(*a))
    net = fastbp.Sequential(fastbp.Dense(3, 9), device="cuda", precision=precision)
    x, t = np.ones((4, 3), np.float32), np.ones((4, 9), np.float32)
    net.predict(x)
    net.train_step(x, t, "squared_error", fastbp.SGD(0.1))
    net.fit(x, t, loss="squared_error", epochs=1)
    assert used == {precision}
    assert copy.deepcopy(net).precision == precision
    assert net.to("reference").precision is None


def test_parameters_that_are_kept_are_uploaded_once(monkeypatch, close):
    x, t = data()

    def run(device):
        net, optimizer = make(device), fastbp.Adam(0.1)
        place = gpu.keep(net, optimizer) if device == "cuda" else contextlib.nullcontext()
        with place:
            net.train_step(x, t, "softmax_cross_entropy", optimizer)
            net.fit(x, t, loss="softmax_cross_entropy", optimizer=optimizer, epochs=1, seed=0)
            value = net.train_step(x, t, "softmax_cross_entropy", optimizer)
            y = net.predict(x)
        return [value, y, net.parameters, net.gradients, optimizer.state["m"], net.predict(x)]

    uploads, allocate = [], launch.allocate
    monkeypatch.setattr(gpu, "allocate", lambda *a: uploads.append(a[0]) or allocate(*a))
    for actual, expected in zip(run("cuda"), run("reference"), strict=True):
        close(np.asarray(actual), expected)
    size = make("reference").parameters.shape
    assert uploads.count(size) == 5  # parameters, gradients, two of Adam; the last prediction
    assert not gpu._resident
    with pytest.raises(ValueError, match=r"net: expected one with device='cuda', got one on ref"):
        gpu.keep(make("reference")).__enter__()


def test_a_fit_without_memory_leaves_the_network_alone(monkeypatch):
    def full(shape, dtype):
        raise MemoryError("out of memory on the GPU")

    net = make("cuda")
    monkeypatch.setattr(gpu_training, "allocate", full)
    with pytest.raises(MemoryError, match="out of memory on the GPU"):
        net.fit(*data(), loss="softmax_cross_entropy")
    assert not gpu._resident
    net.parameters[:] = 0
    assert not net.predict(data()[0]).any()


def test_data_that_cannot_stream_are_refused():
    x, t = data()
    message = "data_budget: expected None on reference, which copies no data, got 7"
    with pytest.raises(ValueError, match=message):
        make("reference").fit(x, t, loss="softmax_cross_entropy", data_budget=7)
    with pytest.raises(ValueError, match="data_budget: expected an integer >= 1, got 0"):
        make("cuda").fit(x, t, loss="softmax_cross_entropy", data_budget=0)
