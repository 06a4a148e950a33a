"""network_*: a whole step beside the same step in NumPy, whatever its groups and threads."""

import itertools
from itertools import pairwise

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python as nrt
from numba.core.runtime import rtsys

import fastbp
from fastbp.kernels import codes, cpu, reference
from fastbp.kernels.cpu import groups, network
from fastbp.kernels.cpu.narrow import TOGETHER
from fastbp.kernels.cpu.simd import WIDEST
from fastbp.losses import LOSSES
from fastbp.plan import Plan

OPTIMIZERS = {
    "sgd": fastbp.SGD(0.05),
    "momentum": fastbp.SGD(0.05, momentum=0.9),
    "nesterov": fastbp.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": fastbp.Adam(0.01),
    "adamw": fastbp.AdamW(0.01, weight_decay=0.1),
    "rmsprop": fastbp.RMSprop(0.01),
}
CLIPS = {"none": None, "norm": fastbp.ClipNorm(0.3), "value": fastbp.ClipValue(0.02)}

# sizes, rows: one row; too little work for groups; groups of one and of several panels, with rows
# that no group size divides; too many parameters for groups; several panels without groups;
# parameters for several updates; deep ones, in panels of groups and without groups. Narrow ones:
# alone, in groups of one and of several turns of panels, deep.
NETS = {
    "one row": ((3, 5, 2), 1),
    "small": ((3, 5, 2), 15),
    "groups": ((4, 64, 64, 2), 77),
    "panels": ((3, 32, 32, 16), 1501),
    "wide": ((30, 300, 40, 3), 65),
    "long": ((5, 150, 120, 2), 1100),
    "updates": ((90, 500, 2), 33),
    "deep groups": ((5, *[32] * 8, 6), 1100),
    "deep": ((5, *[70] * 9, 2), 600),
    "narrow": ((5, 7, 3), 77),
    "narrow groups": ((4, 33, 35, 1), 203),
    "narrow panels": ((3, 21, 21, 1), 3001),
    "narrow, deep": ((5, *[29] * 8, 2), 1100),
}


class Case:
    """A network as the kernels take it, its data, and room for what they write."""

    def __init__(self, name, dtype, loss="squared_error", optimizer="sgd", **options):
        sizes, n = NETS[name]
        hidden = [options.get("hidden", "tanh")] * (len(sizes) - 2)
        activations = options.get("activations", [*hidden, "identity"])
        rng = np.random.default_rng(0)
        layers = [
            fastbp.Dense(k, m, activation=f, bias=f != "elu", dtype=dtype, rng=rng)
            for (k, m), f in zip(pairwise(sizes), activations, strict=True)
        ]
        if options.get("dropout"):
            layers.insert(1, fastbp.Dropout(options["dropout"], rng=1))
            layers.insert(0, fastbp.Dropout(options["dropout"] / 2, rng=2))
        self.net = fastbp.Sequential(*layers)
        self.plan = Plan(layers, sizes[0], options.get("recompute", False))
        self.x = rng.standard_normal((n, sizes[0])).astype(dtype)
        self.t = rng.dirichlet(np.ones(sizes[-1]), n).astype(dtype)
        if options.get("labels"):
            self.t = rng.integers(0, sizes[-1], n, dtype=np.int32)
            loss = "softmax_cross_entropy"
        self.s = rng.random(n).astype(dtype) if options.get("weights") else np.empty(0, dtype)
        loss = LOSSES[loss]
        kernel, _, _ = loss.check((n, sizes[-1]), np.dtype(dtype), self.t, None)
        self.plan.set_loss(loss, kernel, options.get("l2", 0.0))
        self.plan.set_update(OPTIMIZERS[optimizer], CLIPS[options.get("clip", "none")])
        self.slots = len(OPTIMIZERS[optimizer].slots())

    def arrays(self, kernels, dtype):
        """All that a step may write, as it begins: NaN where it must not be read."""
        parameters = self.net.parameters.astype(dtype)
        work = np.full(kernels.network_work(len(self.x), self.plan.table), np.nan, dtype)
        state = [np.zeros_like(parameters) for _ in range(self.slots)]
        state += [parameters[:0]] * (2 - self.slots)
        plan = self.plan.table.copy(), self.plan.recipe.copy(), self.plan.numbers.copy()
        return [*plan, work, np.full_like(parameters, np.nan), parameters, *state]

    def data(self, dtype):
        t = self.t if self.t.ndim == 1 else self.t.astype(dtype)
        return self.x.astype(dtype), t, self.s.astype(dtype)


def steps(case, kernels, dtype, launch, count=3):
    """(losses, parameters, gradients, state, table, recipe) after some steps."""
    out, losses = case.arrays(kernels, dtype), []
    for _ in range(count):
        loss, *out = launch(kernels.network_step, *case.data(dtype), out=out)
        losses.append(loss)
    table, recipe, _, _, gradients, parameters, *state = out
    return losses, parameters, gradients, state, table, recipe


def check(case, candidate, launch, close):
    kernels, dtype = candidate
    losses, parameters, gradients, state, table, recipe = steps(case, kernels, dtype, launch)
    wanted = steps(case, reference, np.float64, launch)
    close(np.array(losses, dtype), wanted[0])
    close(parameters, wanted[1])
    close(gradients, wanted[2])
    for slot, expected in zip(state, wanted[3], strict=True):
        close(slot, expected)
    np.testing.assert_array_equal(table, wanted[4])
    np.testing.assert_array_equal(recipe, wanted[5])


@pytest.mark.parametrize("name", NETS)
def test_a_step_equals_the_reference(name, candidate, launch, close):
    check(Case(name, "float64"), candidate, launch, close)


@pytest.mark.parametrize("name", ["small", "groups", "panels", "wide", "narrow", "narrow groups"])
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.4},
        {"weights": True, "loss": "huber"},
        {"labels": True, "weights": True},
        {"loss": "softmax_cross_entropy", "l2": 0.01},
        {"loss": "binary_cross_entropy"},
        {"loss": "half_squared_error", "clip": "norm"},
        {"clip": "value", "dropout": 0.2},
    ],
    ids=str,
)
def test_what_a_step_can_do_equals_the_reference(name, options, candidate, launch, close):
    check(Case(name, "float64", **options), candidate, launch, close)


@pytest.mark.parametrize("name", ["small", "groups", "updates"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_equals_the_reference(name, optimizer, kernels, launch, close):
    check(Case(name, "float64", optimizer=optimizer), (kernels, np.dtype("f8")), launch, close)


@pytest.mark.parametrize("name", ["groups", "narrow groups"])
def test_every_activation_in_groups_equals_the_reference(
    name, activation, candidate, launch, close
):
    case = Case(name, "float64", activations=[activation, activation, "elu"])
    check(case, candidate, launch, close)


def test_the_nets_are_what_their_names_say():
    tables = {name: Case(name, "float64").plan.table for name in NETS}
    counts = {name: groups.group_count(NETS[name][1], tables[name]) for name in NETS}
    narrow = {name for name in NETS if groups.is_narrow(NETS[name][1], tables[name])}
    assert narrow == {name for name in NETS if name.startswith("narrow")}
    several = {name for name in NETS if counts[name] > 1}
    assert several == {"groups", "panels", "deep groups", *narrow - {"narrow"}}
    assert TOGETHER * WIDEST < 3001 / 8
    assert groups.GROUP_PANEL < 1501 / 8
    assert groups.GROUP_PANEL < 1100 / 8
    assert NETS["long"][1] > network.PANEL
    assert NETS["deep"][1] > network.PANEL
    for name in ("deep groups", "deep"):
        again = Case(name, "float64", recompute=True).plan.table[:, codes.AGAIN]
        assert (again >= 0).sum() >= 2
    assert Case("updates", "float64").net.parameters.size > network.UPDATED


@pytest.mark.parametrize("name", NETS)
def test_dx_equals_the_reference(name, kernels, launch, close):
    case = Case(name, "float64", dropout=0.3)

    def dx(kernels):
        table, recipe, numbers, work, gradients, parameters, *_ = case.arrays(kernels, "f8")
        inputs = *case.data("f8"), table, recipe, numbers, parameters
        out = [work, gradients, np.full_like(case.x, np.nan)]
        loss, *_, dx = launch(kernels.network_loss_gradients, *inputs, out=out)
        return loss, dx

    for actual, expected in zip(dx(kernels), dx(reference), strict=True):
        close(actual, expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_forward_pass_equals_the_reference(name, training, kernels, launch, close):
    case = Case(name, "float64", dropout=0.3)

    def outputs(kernels):
        table, _, numbers, work, _, parameters, *_ = case.arrays(kernels, "f8")
        y = np.full((len(case.x), table[-1, codes.M]), np.nan)
        inputs = case.x, table, numbers, training, parameters
        return launch(kernels.network_forward, *inputs, out=[work, y])[-1]

    close(outputs(kernels), outputs(reference))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_for_every_number_of_threads(name, dtype, launch):
    case, before = Case(name, dtype, dropout=0.3, optimizer="adam"), fastbp.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 5):
            fastbp.set_num_threads(threads)
            losses, parameters, *_ = steps(case, cpu, dtype, launch)
            results.append((losses, parameters.tobytes()))
    finally:
        fastbp.set_num_threads(before)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    "options",
    [{}, {"hidden": "gelu", "weights": True}, {"dropout": 0.3, "labels": True, "l2": 0.01}],
    ids=str,
)
def test_the_same_bits_whether_activations_are_kept(name, options, kernels, dtype, launch):
    def outcome(recompute):
        case = Case(name, dtype.name, optimizer="adam", recompute=recompute, **options)
        losses, *arrays, state, table, recipe = steps(case, kernels, dtype, launch)
        arrays += [*state, table[:, codes.SEED], recipe]
        return losses, [array.tobytes() for array in arrays]

    assert outcome(True) == outcome(False)


def test_groups_do_not_depend_on_whether_activations_are_kept():
    # 60 layers of dropout: more activations than a group has room for, unless they share places.
    sizes, n = [60] * 2, 8 * 98
    layers = [fastbp.Dense(*sizes), *(fastbp.Dropout(0.1) for _ in range(60)), fastbp.Dense(*sizes)]
    kept, again = (Plan(layers, 60, recompute) for recompute in (False, True))
    room = groups.GROUP_PANEL * np.array([kept.kept, again.kept])
    assert room[1] < groups.ARENA_BYTES // 16 < groups.ARENA_BYTES // 8 < room[0]
    assert groups.group_count(n, kept.table) == groups.group_count(n, again.table) == 1


@pytest.mark.parametrize(
    "sizes",
    [(1024, 1024), (64, 9000), (16, 64, 64, 4), (300, 10), (4, 50, 50, 2), (5, 7, 3)],
    ids=str,
)
def test_room_for_some_rows_is_room_for_fewer(sizes):
    layers = (fastbp.Dense(k, m, init="zeros") for k, m in itertools.pairwise(sizes))
    for plan in fastbp.Sequential(*layers).plans:
        rows = [*range(1, 140), 195, 196, 197, 511, 512, 513, 1000]
        rooms = [cpu.network_work(n, plan.table) for n in rows]
        assert rooms == sorted(rooms)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["small", "groups"])
def test_no_step_on_bad_numbers(name, bad, kernels):
    for spoil in ("x", "t"):
        case = Case(name, "float64", optimizer="adam")
        getattr(case, spoil)[-1, -1] = bad
        out = case.arrays(kernels, "f8")
        before = [array.copy() for array in out]
        assert not np.isfinite(kernels.network_step(*case.data("f8"), *out))
        work, gradients = 3, 4
        for i, (array, old) in enumerate(zip(out, before, strict=True)):
            if i not in (work, gradients):
                np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("shuffled", [False, True])
def test_an_epoch_is_its_steps(kernels, weights, labels, shuffled):
    case = Case("small", "float64", optimizer="adam", weights=weights, labels=labels, dropout=0.2)
    x, t, s = case.data("f8")
    s[8:12] = 0  # a batch of the ordered epoch that weighs nothing
    batch = 4
    order = np.random.default_rng(3).permutation(len(x)) if shuffled else np.empty(0, np.int64)
    rows = order if shuffled else np.arange(len(x))

    whole, single = case.arrays(kernels, "f8"), case.arrays(kernels, "f8")
    table, recipe, numbers, *rest = whole
    rooms = np.empty_like(x[:batch]), np.empty_like(t[:batch]), np.empty(batch)
    sums, begin = np.zeros(3), 0
    for count in (2, 100):
        begin = kernels.network_epoch(
            x, t, s, order, begin, count, table, recipe, numbers, *rooms, *rest, sums
        )
        assert begin == min(count * batch, len(x))

    total, mass = 0.0, 0.0
    for start in range(0, len(x), batch):
        chosen = rows[start : start + batch]
        weight = s[chosen].sum() if weights else len(chosen)
        if weight > 0:
            loss = kernels.network_step(x[chosen], t[chosen], s[chosen] if weights else s, *single)
            total, mass = total + weight * loss, mass + weight
    np.testing.assert_allclose(sums[:2], [total, mass], rtol=1e-14)
    np.testing.assert_array_equal(whole[5], single[5])
    np.testing.assert_array_equal(recipe, single[1])
    np.testing.assert_array_equal(table, single[0])


def test_an_epoch_ends_before_a_loss_that_is_not_finite(kernels):
    case = Case("small", "float64")
    x, t, s = case.data("f8")
    x[9, 1] = np.inf
    table, recipe, numbers, *rest = case.arrays(kernels, "f8")
    rooms, sums = (np.empty_like(x[:4]), np.empty_like(t[:4]), s), np.zeros(3)
    order = np.empty(0, np.int64)
    begin = kernels.network_epoch(
        x, t, s, order, 0, 100, table, recipe, numbers, *rooms, *rest, sums
    )
    assert begin == 8
    assert recipe[codes.STEP] == 2
    assert np.isnan(sums[2])
    assert np.isfinite(sums[:2]).all()


@njit
def many_steps(count, x, t, s, table, recipe, numbers, work, gradients, parameters, m, v):
    loss = 0.0
    for _ in range(count):
        loss = cpu.network_step(x, t, s, table, recipe, numbers, work, gradients, parameters, m, v)
    return loss


@pytest.mark.parametrize("name", NETS)
def test_a_step_allocates_nothing(name):
    case = Case(name, "float32", optimizer="adam", dropout=0.2, weights=True)
    arrays = *case.data("f4"), *case.arrays(cpu, "f4")
    many_steps(1, *arrays)  # compiled

    def allocations(count):
        before = rtsys.get_allocation_stats().alloc
        many_steps(count, *arrays)
        return rtsys.get_allocation_stats().alloc - before

    nrt.memsys_enable_stats()
    try:
        assert allocations(500) == allocations(1)  # those of the arguments
    finally:
        nrt.memsys_disable_stats()
