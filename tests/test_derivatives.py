"""Derivatives of networks by their inputs, and losses that contain them."""

import numpy as np
import pytest

import fastbp
from fastbp import graph
from fastbp.kernels import codes

rng = np.random.default_rng(0)
POINTS = rng.normal(size=(5, 3))
CLOSE = {
    "float32": {"rtol": 2e-2, "atol": 2e-3},
    "float64": {"rtol": 1e-5, "atol": 1e-6},
}


def network(sizes, activation="tanh", dtype="float64", device="reference"):
    """A network with a bias in each layer but the last."""
    last = len(sizes) - 2
    layers = [
        fastbp.Dense(
            *sizes[i : i + 2],
            activation=activation if i < last else "identity",
            bias=i < last,
            dtype=dtype,
            init="glorot_uniform",
            rng=i,
        )
        for i in range(last + 1)
    ]
    layers[0].b[:] = rng.normal(size=sizes[1]) / 3
    return fastbp.Sequential(*layers[:1], fastbp.Dropout(0.5, rng=0), *layers[1:], device=device)


def expression(z):
    """An activation of the user's own."""
    return z * graph.sigmoid(1.702 * z)


def axes_of(x, step):
    return [step * unit for unit in np.eye(x.shape[1], dtype=x.dtype)]


def differences(f, x, step):
    """Central differences (n, m, k) in float64."""
    return np.stack([(f(x + e) - f(x - e)) / (2 * step) for e in axes_of(x, step)], axis=2)


def bends(net, x, step=1e-5):
    """Central differences of the slopes, summed over the axes (n, m)."""
    return sum(
        (net.jacobian(x + e) - net.jacobian(x - e))[:, :, i] / (2 * step)
        for i, e in enumerate(axes_of(x, step))
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [*codes.ACTIVATIONS, expression])
def test_every_activation(activation, dtype):
    net, double = network((3, 6, 5, 2), activation, dtype), network((3, 6, 5, 2), activation)
    double.parameters[:] = net.parameters  # the same network: differences are taken in float64
    x = POINTS.astype(dtype)
    exact, close = POINTS.astype(dtype).astype(float), CLOSE[dtype]
    slopes = differences(double.predict, exact, 1e-6)
    found = net.jacobian(x)
    assert (found.dtype, found.shape) == (np.dtype(dtype), (5, 2, 3))
    np.testing.assert_allclose(found, slopes, **close)
    np.testing.assert_allclose(net.input_gradient(x, 1), slopes[:, 1], **close)
    np.testing.assert_allclose(net.laplacian(x), bends(double, exact), **close)


def test_closed_forms():
    net = fastbp.Sequential(
        fastbp.Dense(2, 1, activation="sin", dtype="float64"), device="reference"
    )
    net.layers[0].w[:], net.layers[0].b[:] = [[3.0], [4.0]], 0.5
    x = POINTS[:, :2].copy()
    z = x @ net.layers[0].w + 0.5
    np.testing.assert_allclose(net.input_gradient(x), np.cos(z) * [[3.0, 4.0]], rtol=1e-12)
    np.testing.assert_allclose(net.laplacian(x), -25 * np.sin(z), rtol=1e-12)


def test_relu_has_no_curvature():
    net = network((2, 4, 1), "relu")
    assert (net.laplacian(np.zeros((3, 2))) == 0).all()


def test_more_inputs_than_go_together():
    net = network((6, 4, 2))
    x = rng.normal(size=(3, 6))
    np.testing.assert_allclose(net.laplacian(x), bends(net, x), rtol=1e-5, atol=1e-7)


def poisson(net, points):
    x, f = graph.variable("x", (None, 2)), graph.variable("f", (None,))
    edge = graph.constant(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    residual = graph.laplacian(graph.network(net, x), x)[:, 0] - f
    loss = graph.mean(residual**2) + graph.mean(graph.network(net, edge) ** 2)
    return net.objective(loss, [x, f]), np.sin(points[:, 0])


def loss_of(net, x, f):
    edge = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return np.mean((net.laplacian(x)[:, 0] - f) ** 2) + np.mean(net.predict(edge) ** 2)


def test_a_loss_with_second_derivatives_and_its_gradients():
    net = network((2, 6, 5, 1))
    step, f = poisson(net, POINTS[:, :2])
    x = POINTS[:, :2].copy()
    assert step(x, f) == pytest.approx(loss_of(net, x, f))
    start, slopes = net.parameters.copy(), net.gradients.copy()
    for i in range(start.size):
        both = []
        for sign in (1, -1):
            net.parameters[:] = start
            net.parameters[i] += sign * 1e-5
            both.append(loss_of(net, x, f))
        assert slopes[i] == pytest.approx((both[0] - both[1]) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.fixture
def threads():
    before = fastbp.get_num_threads()
    yield
    fastbp.set_num_threads(before)


def test_compiled_losses_have_the_same_bits_on_any_number_of_threads(threads):
    net, numpy = network((2, 6, 5, 1), device="cpu"), network((2, 6, 5, 1))
    numpy.parameters[:] = net.parameters
    x = rng.normal(size=(2100, 2))  # many groups and panels
    x.flags.writeable = False
    (step, f), (plain, _) = poisson(net, x), poisson(numpy, x)
    results = []
    for count in (1, 2, 3):
        fastbp.set_num_threads(count)
        results.append((step(x, f), net.gradients.copy()))
    assert results[0][0] == pytest.approx(plain(x, f), rel=1e-12)
    np.testing.assert_allclose(results[0][1], numpy.gradients, rtol=1e-9, atol=1e-12)
    for loss, gradients in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(gradients, results[0][1])


def test_compiled_derivatives_take_the_batch_in_pieces():
    net, numpy = network((2, 4, 1), device="cpu"), network((2, 4, 1))
    numpy.parameters[:] = net.parameters
    x = rng.normal(size=(2100, 2))
    np.testing.assert_allclose(net.laplacian(x), numpy.laplacian(x), rtol=1e-9, atol=1e-11)
    net.parameters[:] *= 2  # calls see the parameters as they are
    numpy.parameters[:] *= 2
    np.testing.assert_allclose(net.laplacian(x), numpy.laplacian(x), rtol=1e-9, atol=1e-11)
    assert net.laplacian(x[:0]).shape == (0, 1)


def test_training_on_a_loss_of_derivatives():
    net = network((2, 6, 5, 1))
    step, f = poisson(net, POINTS[:, :2])
    adam, x = fastbp.Adam(0.02), POINTS[:, :2].copy()
    first = step(x, f)
    for _ in range(100):
        step(x, f)
        net.update(adam)
    assert step(x, f) < 0.2 * first


def test_nan_never_passes_unseen():
    net = network((2, 6, 5, 1), "relu")
    x = np.ones((3, 2))
    step, f = poisson(net, x)
    x[1, 0] = np.nan
    for call in (net.input_gradient, net.jacobian, net.laplacian):
        with pytest.raises(ValueError, match=r"x: expected finite numbers.*first in row 1"):
            call(x)
    f[2] = np.nan
    with pytest.raises(ValueError, match=r"f: expected finite numbers.*first in row 2"):
        step(np.ones((3, 2)), f)
    net.parameters[:] = 1e200
    with pytest.raises(fastbp.DivergenceError, match="the loss or its gradient is NaN"):
        step(np.ones((3, 2)), np.ones(3))


def test_no_update_with_a_gradient_that_is_not_finite():
    net = fastbp.Sequential(fastbp.Dense(2, 1, init="zeros", dtype="float64"))
    x = graph.variable("x", shape=(None, 2), dtype="float64")
    loss = net.objective(graph.mean(graph.sqrt(graph.network(net, x) ** 2)), [x])
    with pytest.raises(fastbp.DivergenceError, match="no finite derivative here"):
        loss(np.ones((3, 2)))
    net.gradients[0] = np.inf
    optimizer = fastbp.SGD()
    with pytest.raises(fastbp.DivergenceError, match="a gradient is NaN or infinite"):
        net.update(optimizer)
    np.testing.assert_array_equal(net.parameters, 0)
    assert optimizer.step == 0


ERRORS = [
    (lambda n: n.laplacian(np.ones((2, 3))), ValueError, r"x: expected shape \(n, 2\)"),
    (lambda n: n.jacobian(np.ones((2, 2), "f4")), TypeError, "x: expected float64"),
    (lambda n: n.input_gradient(np.ones((2, 2))), ValueError, "output: .* has 3 outputs"),
    (lambda n: n.input_gradient(np.ones((2, 2)), 3), ValueError, r"output: .* 0\.\.\.2, got 3"),
    (lambda n: poisson(n, np.ones((2, 2)))[0](np.ones((2, 2))), TypeError, "expected 2 arrays"),
    (
        lambda n: (setattr(n, "device", "cuda"), n.jacobian(np.ones((2, 2)))),
        ValueError,
        "device: derivatives by inputs run on 'cpu' or 'reference'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[row[2] for row in ERRORS])
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text):
        call(network((2, 4, 3)))
