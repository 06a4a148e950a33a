"""Optimisers: several steps against the reference and against the formulas in Python floats."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from fastbp.kernels import reference

SIZES = [0, 1, 63, 64, 65, 1000]
STEPS = 5


@dataclass(frozen=True)
class Rule:
    """An optimiser: its kernel, its numbers before and after `step`, and how many state arrays."""

    label: str
    kernel: str
    numbers: tuple
    states: int
    counts: bool = False

    def arguments(self, step):
        return (*self.numbers, step) if self.counts else self.numbers

    def __str__(self):
        return self.label


RULES = [
    Rule("sgd", "sgd", (0.1, 0.0, False), 0),
    Rule("momentum", "sgd", (0.1, 0.9, False), 1),
    Rule("nesterov", "sgd", (0.1, 0.9, True), 1),
    Rule("adam", "adam", (0.01, 0.9, 0.999, 1e-8), 2, counts=True),
    Rule("adam-large-eps", "adam", (0.3, 0.5, 0.75, 0.1), 2, counts=True),
    Rule("adamw", "adamw", (0.01, 0.9, 0.999, 1e-8, 0.1), 2, counts=True),
    Rule("rmsprop", "rmsprop", (0.01, 0.9, 1e-8), 1),
]
every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


def by_hand(rule, p, gradients):
    """One parameter after a step per gradient, with the formulas of the papers."""
    state = second = 0.0
    for step, g in enumerate(gradients, 1):
        if rule.kernel == "sgd":
            rate, momentum, nesterov = rule.numbers
            state = momentum * state + g
            p -= rate * (g + momentum * state if nesterov else state)
        elif rule.kernel == "rmsprop":
            rate, alpha, eps = rule.numbers
            state = alpha * state + (1 - alpha) * g**2
            p -= rate * g / (math.sqrt(state) + eps)
        else:
            rate, beta1, beta2, eps, decay = (*rule.numbers, 0.0)[:5]
            state = beta1 * state + (1 - beta1) * g
            second = beta2 * second + (1 - beta2) * g**2
            unbiased, unbiased_second = state / (1 - beta1**step), second / (1 - beta2**step)
            p = p - rate * decay * p - rate * unbiased / (math.sqrt(unbiased_second) + eps)
    return p


def problem(size, dtype, seed=0):
    """Parameters (size,) and gradients (steps, size)."""
    rng = np.random.default_rng([seed, size])
    return rng.standard_normal(size).astype(dtype), rng.standard_normal((STEPS, size)).astype(dtype)


@pytest.fixture
def train(launch):
    """train(kernels, rule, parameters, gradients): parameters and state after all steps."""

    def run(kernels, rule, parameters, gradients):
        state = [np.zeros_like(parameters) for _ in range(rule.states)]
        if rule.kernel == "sgd" and not state:
            state = [parameters[:0]]  # no momentum: the velocity is absent
        arrays = [parameters, *state]
        for step, g in enumerate(gradients, 1):
            kernel = getattr(kernels, rule.kernel)
            value, *arrays = launch(kernel, g, *rule.arguments(step), out=arrays)
            assert value is None
        return arrays

    return run


@pytest.mark.parametrize("size", SIZES)
@every_rule
def test_equals_reference(candidate, rule, size, train, close):
    kernels, dtype = candidate
    parameters, gradients = problem(size, dtype)
    expected = train(reference, rule, parameters.astype(np.float64), gradients.astype(np.float64))
    for actual, wanted in zip(train(kernels, rule, parameters, gradients), expected, strict=True):
        close(actual, wanted)


@every_rule
def test_equals_formula(kernels, dtype, rule, train, close):
    parameters, gradients = problem(3, dtype)
    trained, *_ = train(kernels, rule, parameters, gradients)
    pairs = zip(parameters.tolist(), gradients.T.tolist(), strict=True)
    close(trained, [by_hand(rule, p, g) for p, g in pairs])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("sgd", [0.8, 0.6]),
        ("momentum", [0.8, 0.42]),
        ("nesterov", [0.62, 0.078]),
        ("adam", [0.99, 0.98]),
        ("adamw", [0.989, 0.978011]),
    ],
)
def test_numbers_by_hand(kernels, dtype, label, expected, train):
    # The gradient is 2 twice, the parameter starts at 1; Adam's first steps are learning_rate long.
    (rule,) = (rule for rule in RULES if rule.label == label)
    for steps, value in enumerate(expected, 1):
        trained, *_ = train(kernels, rule, np.ones(1, dtype), np.full((steps, 1), 2, dtype))
        assert trained[0] == pytest.approx(value, rel=1e-5)


@every_rule
def test_changes_arrays_in_place(kernels, dtype, rule, close):
    parameters, (g, *_) = problem(65, dtype)
    arena = np.concatenate([parameters, np.zeros(2 * 65, dtype)])  # parameters, then state
    views = [arena[i * 65 : (i + 1) * 65] for i in range(3)]
    arrays = views[: 1 + rule.states]
    if rule.kernel == "sgd" and not rule.states:
        arrays.append(arena[:0])
    assert getattr(kernels, rule.kernel)(g, *rule.arguments(1), *arrays) is None
    for i, view in enumerate(views):
        changed = np.any(arena[i * 65 : (i + 1) * 65] != (parameters if i == 0 else 0))
        assert changed == (i <= rule.states), f"array {i}"
        assert view.base is arena


@every_rule
def test_zero_gradient_moves_nothing_but_decay(kernels, dtype, rule, train, close):
    parameters, _ = problem(9, dtype)
    trained, *state = train(kernels, rule, parameters, np.zeros((STEPS, 9), dtype))
    shrink = (1 - 0.01 * 0.1) ** STEPS if rule.kernel == "adamw" else 1
    close(trained, parameters * shrink)
    assert not any(array.any() for array in state)


@every_rule
def test_nan_stays_in_its_element(kernels, dtype, rule, train):
    parameters, gradients = problem(65, dtype)
    gradients[1, 7] = np.nan
    for array in train(kernels, rule, parameters, gradients):
        if array.size:
            assert np.isnan(array[7])
            assert np.isfinite(np.delete(array, 7)).all()


def test_momentum_zero_equals_absent_velocity(kernels, dtype, train, close):
    parameters, gradients = problem(65, dtype)
    plain, _ = train(kernels, RULES[0], parameters, gradients)
    for nesterov in (False, True):
        rule = Rule("zero", "sgd", (0.1, 0.0, nesterov), 1)
        kept, velocity = train(kernels, rule, parameters, gradients)
        close(kept, plain)
        close(velocity, gradients[-1])


def test_adamw_without_decay_is_adam(kernels, dtype, train, close):
    parameters, gradients = problem(65, dtype)
    adam = Rule("adam", "adam", (0.01, 0.9, 0.999, 1e-8), 2, counts=True)
    adamw = Rule("adamw", "adamw", (*adam.numbers, 0.0), 2, counts=True)
    expected = train(kernels, adam, parameters, gradients)
    for actual, wanted in zip(train(kernels, adamw, parameters, gradients), expected, strict=True):
        close(actual, wanted)


def test_adam_far_into_training(kernels, dtype, launch, close):
    # At step 100000 the corrections are gone: 1 - beta**step is one.
    g, p, m, v = (np.full(3, value, dtype) for value in (0.5, 1.0, 0.25, 0.04))
    _, p, m, v = launch(kernels.adam, g, 0.1, 0.9, 0.999, 1e-8, 100_000, out=[p, m, v])
    close(m, np.full(3, 0.275))
    close(v, np.full(3, 0.04021))
    close(p, np.full(3, 1 - 0.1 * 0.275 / (math.sqrt(0.04021) + 1e-8)))
