"""Optimisers: their state, their numbers, and the update written out in NumPy."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import optimizers, regularization
from fastbp.kernels import cpu, reference
from fastbp.optimizers import Optimizer

OPTIMIZERS = {
    "sgd": lambda: fastbp.SGD(0.1),
    "momentum": lambda: fastbp.SGD(0.1, momentum=0.9),
    "nesterov": lambda: fastbp.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: fastbp.Adam(0.1),
    "adamw": lambda: fastbp.AdamW(0.1, weight_decay=0.2),
    "rmsprop": lambda: fastbp.RMSprop(0.1),
}


def written_out(name, gradients, p):
    """The parameters after every step, straight from docs/optimisers.md."""
    first, second = np.zeros_like(p), np.zeros_like(p)
    for step, g in enumerate(gradients, 1):
        if name == "sgd":
            p = p - 0.1 * g
        elif name in ("momentum", "nesterov"):
            first = 0.9 * first + g
            p = p - 0.1 * (first if name == "momentum" else g + 0.9 * first)
        elif name == "rmsprop":
            second = 0.99 * second + 0.01 * g**2
            p = p - 0.1 * g / (np.sqrt(second) + 1e-8)
        else:
            if name == "adamw":
                p = p - 0.1 * 0.2 * p
            first = 0.9 * first + 0.1 * g
            second = 0.999 * second + 0.001 * g**2
            mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
            p = p - 0.1 * mean / (np.sqrt(square) + 1e-8)
        yield p


@pytest.mark.parametrize("kernels", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_written_out(name, kernels):
    rng = np.random.default_rng(0)
    gradients, p = rng.standard_normal((4, 7)), rng.standard_normal(7)
    optimizer = OPTIMIZERS[name]()
    for g, expected in zip(gradients, written_out(name, gradients, p.copy()), strict=True):
        kept = g.copy()
        optimizer.update(kernels, g, p)
        np.testing.assert_allclose(p, expected, rtol=1e-12)
        np.testing.assert_array_equal(g, kept)
    assert optimizer.step == 4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_has_the_type_of_the_parameters(name):
    optimizer, p = OPTIMIZERS[name](), np.ones(5, np.float32)
    optimizer.update(cpu, np.ones(5, np.float32), p)
    assert all(state.dtype == np.float32 for state in optimizer.state.values())
    assert p.dtype == np.float32


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learning_rate_may_change_between_steps(name):
    g, p = np.ones(3), np.ones(3)
    optimizer = OPTIMIZERS[name]()
    optimizer.update(cpu, g, p)
    optimizer.learning_rate = 1e-30
    before = p.copy()
    optimizer.update(cpu, g, p)
    np.testing.assert_allclose(p, before, rtol=1e-15)


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        (fastbp.SGD(), "SGD(learning_rate=0.01, momentum=0.0, nesterov=False)"),
        (fastbp.Adam(), "Adam(learning_rate=0.001, beta1=0.9, beta2=0.999, eps=1e-08)"),
        (
            fastbp.AdamW(),
            "AdamW(learning_rate=0.001, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.01)",
        ),
        (fastbp.RMSprop(), "RMSprop(learning_rate=0.01, alpha=0.99, eps=1e-08)"),
    ],
)
def test_repr_shows_the_defaults_and_no_state(optimizer, text):
    if not isinstance(optimizer, fastbp.SGD):
        optimizer.update(cpu, np.ones(2), np.ones(2))
    assert repr(optimizer) == text


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_name_gives_a_fresh_optimizer(name):
    first, second = optimizers.resolve(name), optimizers.resolve(name)
    assert type(first).__name__.lower() == name
    assert first == type(first)()
    assert first is not second
    assert optimizers.resolve(first) is first


@pytest.mark.parametrize("value", ["Adam", None, 3])
def test_unknown_name_lists_the_known_ones(value):
    text = f"optimizer: expected one of sgd, adam, adamw, rmsprop; got {value!r}"
    with pytest.raises(ValueError, match=re.escape(text)):
        optimizers.resolve(value)


@pytest.mark.parametrize(
    ("kind", "numbers", "error", "text"),
    [
        ("Adam", {"learning_rate": -1}, ValueError, "learning_rate: expected a finite number >= 0"),
        ("RMSprop", {"learning_rate": np.nan}, ValueError, "learning_rate: expected a finite numb"),
        (
            "SGD",
            {"learning_rate": np.inf},
            ValueError,
            "learning_rate: expected a finite number >=",
        ),
        ("SGD", {"learning_rate": "0.1"}, TypeError, "learning_rate: expected a number, got str"),
        ("SGD", {"learning_rate": True}, TypeError, "learning_rate: expected a number, got bool"),
        ("SGD", {"momentum": 1.5}, ValueError, "momentum: expected a finite number >= 0 and <= 1,"),
        ("SGD", {"momentum": -0.1}, ValueError, "momentum: expected a finite number >= 0 and <= 1"),
        (
            "SGD",
            {"nesterov": True},
            ValueError,
            "nesterov: expected momentum > 0 with it, got momentum=0",
        ),
        ("SGD", {"nesterov": "no"}, TypeError, "nesterov: expected True or False, got 'no'"),
        ("Adam", {"beta1": 1}, ValueError, "beta1: expected a finite number >= 0 and < 1, got 1"),
        ("AdamW", {"beta2": 1.0}, ValueError, "beta2: expected a finite number >= 0 and < 1, got"),
        ("Adam", {"eps": -1e-8}, ValueError, "eps: expected a finite number >= 0, got -1e-08"),
        ("AdamW", {"weight_decay": -1}, ValueError, "weight_decay: expected a finite number >= 0"),
        ("RMSprop", {"alpha": 2}, ValueError, "alpha: expected a finite number >= 0 and <= 1, got"),
        ("RMSprop", {"eps": None}, TypeError, "eps: expected a number, got NoneType"),
    ],
)
def test_wrong_numbers(kind, numbers, error, text):
    with pytest.raises(error, match=re.escape(text)):
        getattr(fastbp, kind)(**numbers)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("value", [-5, np.nan])
def test_a_wrong_number_that_was_set_later(name, value):
    optimizer, p = OPTIMIZERS[name](), np.ones(3)
    optimizer.learning_rate = value
    with pytest.raises(ValueError, match="learning_rate: expected a finite number >= 0, got"):
        optimizer.check(p)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
@pytest.mark.parametrize("other", [np.ones(4), np.ones(3, np.float32)])
def test_check_refuses_parameters_of_another_network(name, other):
    optimizer = OPTIMIZERS[name]()
    optimizer.update(cpu, np.ones(3), np.ones(3))
    slot, kind = next(iter(optimizer.state)), type(optimizer).__name__
    text = (
        f"optimizer: expected a fresh one, got one whose {slot} belongs to a network of 3 float64 "
        f"parameters (this one has {other.size} {other.dtype}); make a new {kind}"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        optimizer.check(other)
    optimizer.check(np.ones(3))


def test_plain_sgd_fits_every_network():
    optimizer = fastbp.SGD(0.1)
    optimizer.update(cpu, np.ones(3), np.ones(3))
    optimizer.check(np.ones(4))


def test_equal_optimizers_have_the_same_settings():
    used = fastbp.Adam(0.1)
    used.update(cpu, np.ones(3), np.ones(3))
    fresh = fastbp.Adam(0.1)
    fresh.step = used.step
    assert used == fresh
    assert used != fastbp.Adam(0.2)


def test_the_class_is_no_optimizer():
    with pytest.raises(TypeError, match=re.escape("got the class SGD; pass SGD()")):
        optimizers.resolve(fastbp.SGD)


def test_own_optimizer_must_say_its_slots():
    with pytest.raises(NotImplementedError):
        Optimizer(0.1).update(cpu, np.ones(3), np.ones(3))


# Clipping


@pytest.mark.parametrize("kernels", [cpu, reference], ids=["cpu", "reference"])
def test_clip_norm(kernels):
    g = np.array([3.0, -4.0])
    fastbp.ClipNorm(10).apply(kernels, g)
    np.testing.assert_array_equal(g, [3, -4])
    fastbp.ClipNorm(1).apply(kernels, g)
    np.testing.assert_allclose(g, [0.6, -0.8], rtol=1e-15)


@pytest.mark.parametrize("kernels", [cpu, reference], ids=["cpu", "reference"])
def test_clip_value(kernels):
    g = np.array([3.0, -4.0, 0.5])
    fastbp.ClipValue(1).apply(kernels, g)
    np.testing.assert_array_equal(g, [1, -1, 0.5])


def test_a_number_is_a_global_norm():
    assert regularization.resolve(2) == fastbp.ClipNorm(2)
    assert regularization.resolve(None) is None
    clip = fastbp.ClipValue(1)
    assert regularization.resolve(clip) is clip


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: fastbp.ClipNorm(0), ValueError, "max_norm: expected a finite number > 0, got 0"),
        (lambda: fastbp.ClipNorm(True), TypeError, "max_norm: expected a number, got bool"),
        (lambda: fastbp.ClipValue(-1), ValueError, "limit: expected a finite number > 0, got -1"),
        (lambda: fastbp.ClipValue("1"), TypeError, "limit: expected a number, got str"),
        (lambda: regularization.resolve("1"), TypeError, "clip: expected a number, got str"),
        (lambda: regularization.resolve(-1), ValueError, "clip: expected a finite number > 0"),
    ],
)
def test_wrong_clips(make, error, text):
    with pytest.raises(error, match=re.escape(text)):
        make()


def test_examples_of_the_page_run():
    page = Path(__file__).resolve().parents[1] / "docs" / "optimisers.md"
    done = doctest.testfile(str(page), module_relative=False)
    assert done.attempted > 5
    assert done.failed == 0
