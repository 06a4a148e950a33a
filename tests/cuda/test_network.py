"""network_*: whole steps and epochs beside the same in NumPy."""

from itertools import pairwise

import numpy as np
import pytest

import fastbp
from fastbp.kernels import codes, cuda, reference
from fastbp.kernels.cuda import launch, narrow, sums, target
from fastbp.losses import LOSSES
from fastbp.plan import Plan

OPTIMIZERS = {
    "sgd": fastbp.SGD(0.05),
    "nesterov": fastbp.SGD(0.05, momentum=0.9, nesterov=True),
    "adamw": fastbp.AdamW(0.01, weight_decay=0.1),
    "rmsprop": fastbp.RMSprop(0.01),
}
CLIPS = {"none": None, "norm": fastbp.ClipNorm(0.3), "value": fastbp.ClipValue(0.02)}

# sizes, rows: all in one kernel, with several panels for a block; layer by layer, one of them wide.
# On a GPU also what people train.
NETS = {"narrow": ((3, 5, 2), 14), "wide": ((3, 20, 9, 2), 5)}
DEEP = {"deep narrow": ((3, 5, 5, 5, 5, 2), 6), "deep wide": ((3, 20, 9, 9, 9, 9, 2), 5)}
if not target.SIMULATED:
    DEEP["deep wide"] = (3, 300, 40, 40, 40, 40, 2), 1001
    NETS |= {
        "wide": ((3, 300, 9, 2), 5),
        "digits": ((64, 128, 10), 256),
        "images": ((784, 512, 512, 10), 512),
        "odd": ((30, 300, 40, 3), 1001),
        "deep": ((100, 128, 128, 65, 10), 5003),
    }


class Case:
    """A network as the kernels take it, and its data."""

    def __init__(self, name, dtype, loss="squared_error", optimizer="sgd", **options):
        sizes, n = (NETS | DEEP)[name]
        hidden = [options.get("hidden", "tanh")] * (len(sizes) - 2)
        activations = options.get("activations", [*hidden, "identity"])
        rng = np.random.default_rng(0)
        layers = [
            fastbp.Dense(k, m, activation=f, bias=f != "elu", dtype=dtype.name, rng=rng)
            for (k, m), f in zip(pairwise(sizes), activations, strict=True)
        ]
        if options.get("dropout"):
            layers.insert(1, fastbp.Dropout(options["dropout"], rng=1))
            layers.insert(0, fastbp.Dropout(options["dropout"] / 2, rng=2))
        self.net = fastbp.Sequential(*layers, device="reference")
        self.plan = Plan(layers, sizes[0], options.get("recompute", False))
        self.x = rng.standard_normal((n, sizes[0])).astype(dtype)
        self.t = rng.dirichlet(np.ones(sizes[-1]), n).astype(dtype)
        if options.get("labels"):
            self.t = rng.integers(0, sizes[-1], n, dtype=np.int32)
            loss = "softmax_cross_entropy"
        self.s = rng.random(n).astype(dtype) if options.get("weights") else np.empty(0, dtype)
        loss = LOSSES[loss]
        kernel, _, _ = loss.check((n, sizes[-1]), dtype, self.t, None)
        self.plan.set_loss(loss, kernel, options.get("l2", 0.0))
        self.plan.set_update(OPTIMIZERS[optimizer], CLIPS[options.get("clip", "none")])
        self.slots = len(OPTIMIZERS[optimizer].slots())

    def data(self, kernels, dtype):
        t = self.t if self.t.ndim == 1 else self.t.astype(dtype)
        return at(kernels, self.x.astype(dtype), t, self.s.astype(dtype))

    def arrays(self, kernels, dtype):
        """All that a step may write; table, recipe and numbers lie on the host."""
        parameters = self.net.parameters.astype(dtype)
        work = np.full(kernels.network_work(len(self.x), self.plan.table), np.nan, dtype)
        state = [np.zeros_like(parameters) for _ in range(self.slots)]
        state += [parameters[:0]] * (2 - self.slots)
        plan = self.plan.table.copy(), self.plan.recipe.copy(), self.plan.numbers.copy()
        gradients = np.full_like(parameters, np.nan)
        return [*plan, *at(kernels, work, gradients, parameters, *state)]


def at(kernels, *arrays):
    """The arrays where the kernels take them."""
    return [target.host.to_device(a) for a in arrays] if kernels is cuda else list(arrays)


def home(array):
    return array.copy_to_host() if hasattr(array, "copy_to_host") else array


def steps(case, kernels, dtype, count=2):
    """Losses, then table, recipe, gradients, parameters and state after some steps."""
    out, data = case.arrays(kernels, dtype), case.data(kernels, dtype)
    losses = [kernels.network_step(*data, *out) for _ in range(count)]
    return losses, [home(array) for i, array in enumerate(out) if i not in (2, 3)]


def check(case, dtype, close):
    losses, arrays = steps(case, cuda, dtype)
    wanted, expected = steps(case, reference, np.dtype(float))
    close(np.array(losses, dtype), wanted)
    for array, other in zip(arrays, expected, strict=True):
        (close if array.dtype.kind == "f" else np.testing.assert_array_equal)(array, other)


@pytest.mark.parametrize("name", NETS)
def test_a_step_equals_the_reference(name, dtype, close):
    check(Case(name, dtype), dtype, close)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.4, "clip": "norm"},
        {"weights": True, "loss": "huber", "optimizer": "nesterov"},
        {"labels": True, "weights": True, "optimizer": "adamw"},
        {"loss": "softmax_cross_entropy", "l2": 0.01, "optimizer": "rmsprop"},
        {"loss": "binary_cross_entropy", "clip": "value"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NETS)
def test_what_a_step_can_do_equals_the_reference(name, options, dtype, close):
    if "adamw" in options.values() and dtype == np.float32:
        pytest.skip("Adam divides by |g|, so a gradient near 0 turns rounding into a whole step")
    check(Case(name, dtype, **options), dtype, close)


@pytest.mark.parametrize("name", ["narrow", "wide"])
def test_every_activation_equals_the_reference(name, activation, close):
    activations = [activation] * (len(NETS[name][0]) - 2) + ["elu"]
    double = np.dtype(float)
    check(Case(name, double, activations=activations), double, close)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_forward_pass_and_dx_equal_the_reference(name, training, close):
    case, double = Case(name, np.dtype(float), dropout=0.3), np.dtype(float)

    def outputs(kernels):
        table, recipe, numbers, work, gradients, parameters, *_ = case.arrays(kernels, double)
        (x, t, s) = case.data(kernels, double)
        y, dx = at(kernels, np.full((len(case.x), table[-1, codes.M]), np.nan), case.x * np.nan)
        kernels.network_forward(x, table, numbers, training, parameters, work, y)
        loss = kernels.network_loss_gradients(
            x, t, s, table, recipe, numbers, parameters, work, gradients, dx
        )
        return home(y), loss, home(dx)

    for actual, expected in zip(outputs(cuda), outputs(reference), strict=True):
        close(actual, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("spoilt", ["x", "t"])
def test_no_step_on_bad_numbers(spoilt, bad):
    double = np.dtype(float)
    case = Case("narrow", double, optimizer="adamw")
    getattr(case, spoilt)[-1, -1] = bad
    out = case.arrays(cuda, double)
    before = [home(array).copy() for array in out]
    assert not np.isfinite(cuda.network_step(*case.data(cuda, double), *out))
    work = 3
    for i, (array, old) in enumerate(zip(out, before, strict=True)):
        if i != work:
            np.testing.assert_array_equal(home(array), old)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("options", [{"weights": True}, {"labels": True}], ids=str)
def test_an_epoch_equals_the_reference(shuffled, options, close):
    double = np.dtype(float)
    case = Case("narrow", double, **options)
    case.s[2:4] = 0  # a batch of the ordered epoch that weighs nothing
    order = np.random.default_rng(3).permutation(len(case.x)) if shuffled else np.empty(0, int)

    def epoch(kernels):
        table, recipe, numbers, *rest = case.arrays(kernels, double)
        x, t, s = case.data(kernels, double)
        rooms = at(kernels, np.empty_like(case.x[:2]), np.empty_like(case.t[:2]), np.empty(2))
        sums, (rows,) = np.zeros(3), at(kernels, order)
        fixed = table, recipe, numbers, *rooms, *rest, sums
        begin = kernels.network_epoch(x, t, s, rows, 0, 1, *fixed)
        end = kernels.network_epoch(x, t, s, rows, begin, 9, *fixed)
        return begin, end, recipe[codes.STEP], sums, home(rest[2])

    for actual, expected in zip(epoch(cuda), epoch(reference), strict=True):
        close(np.asarray(actual, float), np.asarray(expected, float))


@pytest.mark.parametrize("name", NETS)
def test_the_same_steps_give_the_same_bits(name):
    case = Case(name, np.dtype(np.float32), dropout=0.3)
    _, first = steps(case, cuda, np.dtype(np.float32))
    _, again = steps(case, cuda, np.dtype(np.float32))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in again]


@pytest.mark.parametrize("options", [{"hidden": "gelu"}, {"dropout": 0.3}], ids=str)
@pytest.mark.parametrize("name", DEEP)
def test_the_same_bits_whether_activations_are_kept(name, options, dtype):
    def outcome(recompute):
        case = Case(name, dtype, recompute=recompute, weights=True, **options)
        assert (case.plan.table[:, codes.AGAIN] >= 0).any() == recompute
        table, recipe, numbers, work, gradients, parameters, *_ = case.arrays(cuda, dtype)
        x, t, s = case.data(cuda, dtype)
        (dx,) = at(cuda, case.x * np.nan)
        loss = cuda.network_loss_gradients(
            x, t, s, table, recipe, numbers, parameters, work, gradients, dx
        )
        losses, arrays = steps(case, cuda, dtype)
        arrays = [home(dx), home(gradients), *arrays[1:]]  # all but the table
        return work.size, [loss, *losses, *(array.tobytes() for array in arrays)]

    (kept, expected), (shared, actual) = outcome(False), outcome(True)
    assert actual == expected
    assert shared < kept


def test_a_narrow_epoch_is_six_kernels_a_step_and_one_wait(monkeypatch):
    names, waits, call, read = [], [], launch.Kernel.__call__, sums.read

    def record(kernel, *arguments, **more):
        names.append(kernel.name)
        call(kernel, *arguments, **more)

    monkeypatch.setattr(launch.Kernel, "__call__", record)
    monkeypatch.setattr(sums, "read", lambda *place: waits.append(place) or read(*place))
    dtype = np.dtype(np.float32)
    case = Case("narrow", dtype, optimizer="adamw")
    (x, t, s), out = case.data(cuda, dtype), case.arrays(cuda, dtype)
    none = target.host.to_device(np.empty(0, int))
    end = cuda.network_epoch(x, t, s, none, 0, 9, *out[:3], x[:7], t[:7], s, *out[3:], np.zeros(3))
    assert end == len(case.x)
    step = ["gather_batch", "narrow_network", "sum_partials", "sum_slices", "account", "adamw"]
    assert names == ["open_gate", *step, *step]
    assert len(waits) == 1


def test_the_nets_are_what_their_names_say():
    n, table = NETS["narrow"][1], Case("narrow", np.dtype(float)).plan.table
    slices, rows = narrow.slices_of(n, table, 8)
    assert slices
    assert target.SIMULATED is (slices * rows < n)
    masked = Case("narrow", np.dtype(float), dropout=0.3).plan.table
    assert narrow.slices_of(n, masked, 8)[0]
    assert narrow.slices_of(5, Case("wide", np.dtype(float)).plan.table, 8) == (0, 0)
