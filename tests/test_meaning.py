"""When two functions mean the same, and that a loss is traced again where they do not."""

import math

import numpy as np
import pytest

import fastbp
from fastbp import graph
from fastbp.meaning import meaning

SCALE, TABLE = 2.0, {"scale": 1.0}


def scaled(y):
    return SCALE * y


def made(delta):
    return lambda y, t: graph.abs(y - t) * delta


def with_default(y, t, *, power=2):
    return (y - t) ** power


def recursive(y, depth=2):
    return recursive(y, depth - 1) if depth else y


def importing(y, t):
    import random

    return random.random() * y


def counting():
    count = 0

    def given(y, t):
        nonlocal count
        count += 1
        return count * (y - t)

    return given


def method_of(owner):
    return lambda y, t: owner.scale * (y - t)


class Owner:
    scale = 1.0


KNOWN = {
    "nodes alone": lambda: lambda y, t: (y - t) ** 2,
    "a closure": lambda: made(2.0),
    "a tuple": lambda: made((1.0, ("a", None))),
    "another function": lambda: lambda y, t: scaled(y - t),
    "a function within": lambda: lambda y, t: sum(SCALE * f(y) for f in (lambda y: y - 1,)),
    "a default": lambda: with_default,
    "a function that calls itself": lambda: recursive,
    "math": lambda: lambda y, t: math.pi * graph.sqrt(y - t),
}
UNKNOWN = {
    "a dictionary": lambda: lambda y, t: TABLE["scale"] * y,
    "an array": lambda: made(np.ones(3)),
    "an object": lambda: method_of(Owner()),
    "a class": lambda: lambda y, t: Owner.scale * y,
    "a method": lambda: Owner().__init__,
    "NumPy, which has random numbers": lambda: (
        lambda y, t: float(np.random.default_rng().random()) * y
    ),
    "a count": counting,
    "an import": lambda: importing,
    "an import within": lambda: lambda y, t: (lambda: importing(y, t))(),
    "a dictionary in a tuple": lambda: made((TABLE,)),
    "what it prints": lambda: lambda y, t: print(y),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known(name):
    key = meaning(KNOWN[name]())
    assert key is not None
    assert meaning(KNOWN[name]()) == key
    hash(key)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown(name):
    assert meaning(UNKNOWN[name]()) is None


def test_attributes_of_a_function_are_unknown():
    given = made(1.0)
    given.scale = 2.0
    assert meaning(given) is None


def test_a_cell_without_a_value_is_unknown():
    def outer():
        given = lambda y, t: later * y  # noqa: E731
        found = meaning(given)
        later = 1.0
        return found, later

    assert outer()[0] is None


@pytest.mark.parametrize("pair", [(1.0, 2.0), (1.0, 1), (1, True), (0.0, -0.0), ((1, 2), (2, 1))])
def test_numbers_that_differ_in_value_type_or_sign(pair):
    one, two = (meaning(made(delta)) for delta in pair)
    assert one != two


def test_what_a_global_or_a_default_is_at_the_time(monkeypatch):
    before = meaning(scaled), meaning(with_default)
    monkeypatch.setattr(f"{__name__}.SCALE", 3.0)
    monkeypatch.setitem(with_default.__kwdefaults__, "power", 4)
    assert all(meaning(f) != one for f, one in zip((scaled, with_default), before, strict=True))


def test_a_step_reads_a_number_again_and_traces_once(monkeypatch):
    net = fastbp.Sequential(fastbp.Dense(2, 2, rng=0, dtype="float64"))
    x, t, calls = np.ones((4, 2)), np.zeros((4, 2)), []
    called = fastbp.expressions._called
    monkeypatch.setattr(
        fastbp.expressions, "_called", lambda *given: calls.append(1) or called(*given)
    )
    loss = lambda y, t: SCALE * (y - t) ** 2  # noqa: E731
    one = [net.loss_and_gradients(x, t, loss)[0] for _ in range(3)]
    assert len(calls) == 1
    monkeypatch.setattr(f"{__name__}.SCALE", 6.0)
    assert net.loss_and_gradients(x, t, loss)[0] == pytest.approx(3 * one[2], rel=1e-14)
    assert len(calls) == 2
    by_list = lambda y, t: TABLE["scale"] * (y - t) ** 2  # noqa: E731
    one = net.loss_and_gradients(x, t, by_list)[0]
    monkeypatch.setitem(TABLE, "scale", 5.0)
    assert net.loss_and_gradients(x, t, by_list)[0] == pytest.approx(5 * one, rel=1e-14)
