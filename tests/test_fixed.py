"""What belongs to a network: it is written into but not replaced, and copies of it are free."""

import copy
import pickle

import numpy as np
import pytest

import fastbp

X = np.random.default_rng(0).standard_normal((5, 3))


def dense(*sizes, **options):
    return fastbp.Dense(*sizes, dtype="float64", **options)


def make():
    return fastbp.Sequential(
        dense(3, 4, activation="tanh", rng=0), fastbp.Dropout(0.5, rng=1), dense(4, 2, rng=2)
    )


@pytest.mark.parametrize("name", ["w", "b", "dw", "db", "activation", "bias"])
def test_a_layer_of_a_network_cannot_be_changed_under_it(name):
    layer = make().layers[0]
    value = getattr(layer, name)
    with pytest.raises(AttributeError, match=rf"Dense\.{name}: belongs to a network"):
        setattr(layer, name, copy.copy(value) if isinstance(value, np.ndarray) else object())
    assert getattr(layer, name) is value
    free = dense(3, 2)
    setattr(free, name, value)
    assert getattr(free, name) is value


@pytest.mark.parametrize("name", ["parameters", "gradients", "layers"])
def test_what_a_network_is_made_of_cannot_be_replaced(name):
    net = make()
    value = getattr(net, name)
    with pytest.raises(AttributeError, match=rf"Sequential\.{name}: "):
        setattr(net, name, np.ones(3))
    assert getattr(net, name) is value


def test_arrays_of_a_network_change_in_place():
    net = make()
    expected = 2 * net.parameters + 1
    net.parameters *= 2
    for layer in net.layers[::2]:
        layer.w += 1
        layer.b += 1
    np.testing.assert_array_equal(net.parameters, expected)


def pickled(it):
    return pickle.loads(pickle.dumps(it))


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_layer_is_free(copier):
    net = make()
    x = net.predict(X)
    other = fastbp.Sequential(*map(copier, net.layers))
    np.testing.assert_array_equal(other.predict(X), x)
    other.parameters[...] = 0
    np.testing.assert_array_equal(net.predict(X), x)
    for layer in copier(net).layers:
        with pytest.raises(ValueError, match="already part of a network"):
            fastbp.Sequential(layer)
