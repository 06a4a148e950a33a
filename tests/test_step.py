"""What `train_step` keeps from one call to the next, and what it looks at again."""

import gc
import threading
import weakref

import numpy as np
import pytest

import fastbp
from fastbp.kernels import cpu
from fastbp.kernels.cpu import prepared


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 3)), rng.standard_normal((6, 2))


def network(device="cpu"):
    rng = np.random.default_rng(1)
    layers = (fastbp.Dense(k, m, dtype="float64", rng=rng) for k, m in [(3, 4), (4, 2)])
    return fastbp.Sequential(*layers, device=device)


def after(*calls, make=fastbp.Adam, device="cpu"):
    """The parameters after some steps, each (arguments by name, what is done before it)."""
    (x, t), net, optimizer = batch(), network(device), make()
    for arguments, before in calls:
        if before:
            optimizer = before(net, optimizer) or optimizer
        net.train_step(x, t, **{"loss": "squared_error", "optimizer": optimizer} | arguments)
    return net.parameters


def afresh(*calls, **options):
    """`after`, where each call of train_step begins with nothing kept."""

    def forget(before):
        def both(net, optimizer):
            net._step = None
            return before and before(net, optimizer)

        return both

    return after(*((arguments, forget(before)) for arguments, before in calls), **options)


def set_rate(net, optimizer):
    optimizer.learning_rate = 0.25


def set_momentum(net, optimizer):
    optimizer.momentum = 0.9


def set_state(net, optimizer):
    optimizer.state = {slot: np.ones_like(array) for slot, array in optimizer.state.items()}


def set_array(net, optimizer):
    optimizer.state["m"] = np.ones_like(optimizer.state["m"])


def set_count(net, optimizer):
    optimizer.step = 10


def set_nothing(net, optimizer):
    optimizer.step, optimizer.state = 0, {}


def another(net, optimizer):
    return fastbp.Adam(0.5)


def move(net, optimizer):
    net.to("reference")


@pytest.mark.parametrize(
    ("make", "before"),
    [
        (fastbp.SGD, None),
        (fastbp.SGD, set_rate),
        (fastbp.SGD, set_momentum),
        (fastbp.Adam, None),
        (fastbp.Adam, set_rate),
        (fastbp.Adam, set_state),
        (fastbp.Adam, set_array),
        (fastbp.Adam, set_count),
        (fastbp.Adam, set_nothing),
        (fastbp.Adam, another),
        (fastbp.Adam, move),
    ],
)
def test_what_changes_between_calls_counts(make, before):
    calls = [({}, None), ({}, before), ({}, None)]
    np.testing.assert_array_equal(after(*calls, make=make), afresh(*calls, make=make))
    if before:
        unchanged = after(*[({}, None)] * 3, make=make)
        assert before is move or not np.array_equal(after(*calls, make=make), unchanged)


@pytest.mark.parametrize(
    "other",
    [
        {"loss": "half_squared_error"},
        {"loss": fastbp.Huber(0.1)},
        {"l2": 0.5},
        {"clip": 1e-3},
        {"sample_weight": np.arange(6.0)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_arguments_count(other):
    calls = [({}, None), (other, None), ({}, None)]
    np.testing.assert_array_equal(after(*calls, make=fastbp.SGD), afresh(*calls, make=fastbp.SGD))
    unchanged = after(*[({}, None)] * 3, make=fastbp.SGD)
    assert not np.array_equal(after(*calls, make=fastbp.SGD), unchanged)


def test_a_wrong_rate_between_calls_is_refused():
    (x, t), net, optimizer = batch(), network(), fastbp.Adam()
    for _ in range(2):
        net.train_step(x, t, "squared_error", optimizer)
    before = net.parameters.copy()
    optimizer.learning_rate = -5
    with pytest.raises(ValueError, match="learning_rate: expected a finite number >= 0, got -5"):
        net.train_step(x, t, "squared_error", optimizer)
    np.testing.assert_array_equal(net.parameters, before)
    optimizer.learning_rate = 0.1
    net.train_step(x, t, "squared_error", optimizer)
    assert optimizer.step == 3


def test_a_schedule_that_ends_at_zero():
    (x, t), net, optimizer, rates = batch(), network(), fastbp.Adam(), [0.1, 0.05, 0.0, 0.0]
    for rate in rates:
        before, optimizer.learning_rate = net.parameters.copy(), rate
        net.train_step(x, t, "squared_error", optimizer)
        assert np.array_equal(net.parameters, before) == (rate == 0)
    assert optimizer.step == 4


def test_a_function_is_called_with_every_step():
    (x, t), net, scale = batch(), network(), 1.0
    optimizer = fastbp.SGD(1e-9)

    def loss(y, t):
        return scale * (y - t) ** 2

    first = net.train_step(x, t, loss, optimizer)
    scale = 2.0
    assert net.train_step(x, t, loss, optimizer) == pytest.approx(2 * first, rel=1e-6)


def test_labels_after_one_hot_targets():
    x, _ = batch()
    labels = np.array([0, 1, 1, 0, 1, 0])
    values = []
    net, optimizer = network("reference"), fastbp.SGD(1e-12)
    for t in (labels, np.eye(2)[labels], labels):
        values.append(net.train_step(x, t, "softmax_cross_entropy", optimizer))
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)


def test_a_refused_call_is_not_kept():
    (x, t), net, optimizer = batch(), network(), fastbp.SGD()
    for _ in range(2):
        with pytest.raises(ValueError, match="l2: expected a finite number >= 0, got -1"):
            net.train_step(x, t, "squared_error", optimizer, l2=-1.0)
    net.train_step(x, t, "squared_error", optimizer)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"x: expected shape \(n, 3\), got \(6, 2\)"):
            net.train_step(t, t, "squared_error", optimizer)
    foreign = fastbp.Adam()
    foreign.state = {"m": np.zeros(3), "v": np.zeros(3)}
    for _ in range(2):
        with pytest.raises(ValueError, match="optimizer: expected a fresh one"):
            net.train_step(x, t, "squared_error", foreign)


def test_settings_of_a_refused_call_do_not_stay():
    (x, t), calls = batch(), []
    for refused in (True, False):
        net, optimizer = network(), fastbp.SGD(0.1)
        net.train_step(x, t, "squared_error", optimizer)
        if refused:
            optimizer.learning_rate = 0.5
            with pytest.raises(ValueError, match="x: expected finite numbers"):
                net.train_step(x * np.inf, t, "squared_error", optimizer)
            optimizer.learning_rate = 0.1
        net.train_step(x, t, "squared_error", optimizer)
        calls.append(net.parameters.tolist())
    assert calls[0] == calls[1]


def test_a_batch_is_freed_after_its_step():
    x, t = batch()
    net, there = network(), weakref.ref(x)
    net.train_step(x, t, "squared_error", fastbp.SGD())
    del x
    assert there() is None


def test_a_network_is_freed_at_once():
    (x, t), net = batch(), network()
    net.train_step(x, t, "squared_error", fastbp.SGD())
    gc.disable()
    try:
        there = weakref.ref(net)
        del net
        assert there() is None
    finally:
        gc.enable()


def test_a_thread_keeps_to_its_scratch_when_another_one_comes_between(monkeypatch):
    net, taken = network(), []

    def prepared_step(x, t, words):
        taken.append((len(x), words[prepared.AT_WORK], words[prepared.WORK]))
        return 0.0

    monkeypatch.setattr(prepared, "prepared_step", prepared_step)
    monkeypatch.setattr(prepared, "first", lambda kernel, *batch: kernel(*batch))

    def step(rows):
        net.train_step(np.ones((rows, 3)), np.ones((rows, 2)), "squared_error", optimizer)

    class Optimizer(fastbp.SGD):
        between = None

        def numbers(self):  # asked for after the operands were taken up
            if self.between:
                other, self.between = self.between, None
                other.start()
                other.join()
            return super().numbers()

    optimizer = Optimizer()
    step(3)
    optimizer.between = threading.Thread(target=step, args=(700,))
    step(3)
    (first, *work), (second, *others), (third, *again) = taken
    assert (first, second, third) == (3, 700, 3)
    assert again == work
    assert others[0] != work[0]
    assert others[1] >= cpu.network_work(700, net.new_plan().table)


def steps(net, batches, forget=False, optimizer=None, **options):
    """The losses of steps on batches, each looked at in full with `forget`."""
    values, optimizer = [], optimizer or fastbp.SGD(0.1)
    for x, t in batches:
        if forget:
            net._step = None
        values.append(net.train_step(x, t, options.get("loss", "squared_error"), optimizer))
    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [(6, 6, 1, 6), (6, 700, 6, 64)], ids=str)
def test_batches_of_other_sizes(dtype, rows):
    rng, nets = np.random.default_rng(0), []
    batches = [(rng.normal(size=(n, 3)), rng.normal(size=(n, 2))) for n in rows]
    batches = [(x.astype(dtype), t.astype(dtype)) for x, t in batches]
    for _ in range(2):
        layers = fastbp.Dense(3, 4, dtype=dtype, rng=1), fastbp.Dense(4, 2, dtype=dtype, rng=2)
        nets.append(fastbp.Sequential(*layers))
    assert steps(nets[0], batches) == steps(nets[1], batches, forget=True)
    np.testing.assert_array_equal(nets[0].parameters, nets[1].parameters)


def test_dropout_masks_go_on():
    (x, t), nets = batch(), []
    for _ in range(2):
        layers = fastbp.Dense(3, 4, rng=1), fastbp.Dropout(0.5, rng=0), fastbp.Dense(4, 2, rng=2)
        nets.append(fastbp.Sequential(*layers))
    batches = [(x.astype("f4"), t.astype("f4"))] * 5
    kept, looked_at = steps(nets[0], batches), steps(nets[1], batches, forget=True)
    assert kept == looked_at
    assert nets[0].layers[1].passes == nets[1].layers[1].passes == 5
    assert len(set(kept)) == 5


WRONG = {
    "of another dtype": lambda x, t: (x.astype("f4"), t),
    "both of another dtype": lambda x, t: (x.astype("f4"), t.astype("f4")),
    "targets of another dtype": lambda x, t: (x, t.astype("f4")),
    "with too few columns": lambda x, t: (x[:, :2].copy(), t),
    "targets with too few columns": lambda x, t: (x, t[:, :1].copy()),
    "with fewer targets": lambda x, t: (x, t[:3].copy()),
    "with fewer rows": lambda x, t: (x[:3].copy(), t),
    "with every other column": lambda x, t: (np.repeat(x, 2, 1)[:, ::2], t),
    "as columns": lambda x, t: (np.asfortranarray(x), t),
    "a list": lambda x, t: (x.tolist(), t),
    "nothing": lambda x, t: (None, t),
    "labels": lambda x, t: (x, np.zeros(len(x), np.int64)),
    "masked": lambda x, t: (np.ma.masked_array(x), t),
    "a vector": lambda x, t: (x[:, 0].copy(), t),
    "without rows": lambda x, t: (x[:0], t[:0]),
    "without rows but targets of another width": lambda x, t: (x[:0], np.zeros((0, 9))),
    "NaN": lambda x, t: (np.where(x > 0, np.nan, x), t),
    "NaN in targets": lambda x, t: (x, np.where(t > 0, np.nan, t)),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_no_batch_is_refused_as_in_a_first_call(change):
    (x, t), outcomes = batch(), []
    # Steps of all kinds are compiled: what comes must not pass for what another network takes.
    labels = np.zeros(6, np.int64)
    network().train_step(x, labels, "softmax_cross_entropy", fastbp.SGD())
    narrow = fastbp.Sequential(fastbp.Dense(3, 2))
    narrow.train_step(x.astype("f4"), t.astype("f4"), "squared_error", fastbp.SGD())
    for forget in (True, False):
        net, optimizer = network(), fastbp.SGD(0.1)
        before = net.train_step(x, t, "squared_error", optimizer)
        assert np.isfinite(before)
        net.parameters[:] = 0.5  # finite numbers in float32, too
        try:
            outcome = steps(net, [change(x, t)], forget, optimizer)
        except (TypeError, ValueError) as fault:
            outcome = type(fault), str(fault)
        outcomes.append((outcome, net.parameters.tolist(), optimizer.step))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("taken", [True, False], ids=["after the step", "before the step"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupted_step_is_counted_if_it_was_taken(monkeypatch, at, taken):
    (x, t), counts = batch(), []
    x, t = x.astype("f4"), t.astype("f4")
    steps(fastbp.Sequential(fastbp.Dense(3, 2)), [(x, t)])  # the kernel is compiled for these types
    kernel = prepared.prepared_step

    def interrupted(*arguments):
        if taken:
            kernel(*arguments)
        raise KeyboardInterrupt

    for interrupt in (True, False):
        layers = fastbp.Dense(3, 4, rng=1), fastbp.Dropout(0.5, rng=0), fastbp.Dense(4, 2, rng=2)
        net, optimizer = fastbp.Sequential(*layers), fastbp.Adam(0.1)
        steps(net, [(x, t)] * at, optimizer=optimizer)
        if interrupt:
            monkeypatch.setattr(prepared, "prepared_step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                steps(net, [(x, t)], optimizer=optimizer)
            monkeypatch.setattr(prepared, "prepared_step", kernel)
        elif taken:
            steps(net, [(x, t)], optimizer=optimizer)
        counts.append((optimizer.step, net.layers[1].passes, sorted(optimizer.state)))
        steps(net, [(x, t)] * 2, optimizer=optimizer)
        counts[-1] += (net.parameters.tolist(),)
    assert counts[0] == counts[1]
