"""The same numbers as PyTorch, in float64: activations, losses, networks, optimisers.

Our w is (in, out), the transpose of torch's weight. Our losses are means over the rows of sums over
the outputs; torch's are taken with reduction="none" and averaged here.
"""

import numpy as np
import pytest

import fastbp
from fastbp import functional as F
from fastbp.kernels import codes

torch = pytest.importorskip("torch", reason="compares with PyTorch: make TORCH=1 test")

# Both sides round each of some hundred operations to 1e-16, at values of about one.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
# Three steps of an optimiser; a division by sqrt(v) of a small gradient enlarges rounding.
STEPS = {"rtol": 1e-9, "atol": 1e-11}

nn = torch.nn.functional
ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": nn.softplus,
    "silu": nn.silu,
    "gelu": nn.gelu,
    "gelu_tanh": lambda z: nn.gelu(z, approximate="tanh"),
    "sin": torch.sin,
}

# What every row loses, summed over its outputs.
ROWS = {
    "squared_error": lambda y, t: nn.mse_loss(y, t, reduction="none").sum(1),
    "half_squared_error": lambda y, t: nn.mse_loss(y, t, reduction="none").sum(1) / 2,
    "huber": lambda y, t: nn.huber_loss(y, t, reduction="none").sum(1),
    "binary_cross_entropy": lambda y, t: nn.binary_cross_entropy_with_logits(
        y, t, reduction="none"
    ).sum(1),
    "softmax_cross_entropy": lambda y, t: nn.cross_entropy(y, t, reduction="none"),
}


def tensor(array, grad=False):
    return torch.tensor(array, requires_grad=grad)


def mean_loss(name, y, t, s=None):
    rows = ROWS[name](y, t)
    return rows.mean() if s is None else (s * rows).sum() / s.sum()


def batch(n, k, m, seed=0):
    """x (n, k), targets (n, m) whose rows sum to one, labels (n,), weights (n,) with a zero."""
    rng = np.random.default_rng(seed)
    s = rng.random(n) + 0.5
    s[n // 2] = 0
    x, t = rng.standard_normal((n, k)), rng.dirichlet(np.ones(m), n)
    return x, t, rng.integers(0, m, n), s


class Twin:
    """The same network in torch: parameters copied from ours, weights first as ours are."""

    def __init__(self, net):
        dense = [layer for layer in net.layers if isinstance(layer, fastbp.Dense)]
        self.activations = [ACTIVATIONS[layer.activation] for layer in dense]
        self.weights = [tensor(layer.w.T.copy(), grad=True) for layer in dense]
        self.biases = [tensor(layer.b.copy(), grad=True) for layer in dense]
        self.parameters = [*self.weights, *self.biases]

    def __call__(self, x):
        for weight, b, f in zip(self.weights, self.biases, self.activations, strict=True):
            x = f(nn.linear(x, weight, b))
        return x

    def loss(self, name, x, t, s=None, l2=0.0):
        penalty = sum((weight**2).sum() for weight in self.weights)
        return mean_loss(name, self(x), t, s) + l2 * penalty

    def flat(self, of=lambda parameter: parameter.detach()):
        """Parameters, or what `of` takes of them, in the order of our flat arrays."""
        weights = [of(weight).T.reshape(-1) for weight in self.weights]
        return torch.cat([*weights, *map(of, self.biases)]).numpy()

    def gradients(self):
        return self.flat(lambda parameter: parameter.grad)


def make(*sizes, activation="tanh", last="identity"):
    """A network with the widths `sizes` and random biases."""
    activations = [activation] * (len(sizes) - 2) + [last]
    layers = [
        fastbp.Dense(k, m, f, dtype="float64", rng=i)
        for i, (k, m, f) in enumerate(zip(sizes, sizes[1:], activations, strict=False))
    ]
    net = fastbp.Sequential(*layers)
    biases = net.parameters[net.weight_count :]
    biases[...] = np.random.default_rng(9).standard_normal(biases.size)
    return net


def same_gradients(net, x, t, loss, s=None, l2=0.0):
    twin, their_x = Twin(net), tensor(x, grad=True)
    theirs = twin.loss(loss, their_x, tensor(t), None if s is None else tensor(s), l2)
    theirs.backward()
    value, dx = net.loss_and_gradients(x, t, loss, sample_weight=s, l2=l2)

    np.testing.assert_allclose(net.predict(x), twin(tensor(x)).detach().numpy(), **CLOSE)
    np.testing.assert_allclose(value, theirs.item(), **CLOSE)
    np.testing.assert_allclose(dx, their_x.grad.numpy(), **CLOSE)
    np.testing.assert_allclose(net.gradients, twin.gradients(), **CLOSE)
    assert np.abs(net.gradients).max() > 1e-3  # so that the tolerance means something


# Activations and losses


def test_every_activation_and_loss_is_compared():
    assert set(ACTIVATIONS) == set(codes.ACTIVATIONS)
    assert set(ROWS) == set(fastbp.losses.LOSSES)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(activation):
    z = np.concatenate([np.linspace(-30, 30, 401), np.linspace(-1, 1, 101)])
    dy = np.random.default_rng(0).standard_normal(z.size)
    theirs = tensor(z, grad=True)
    y = ACTIVATIONS[activation](theirs)
    y.backward(tensor(dy))

    w = np.ones((1, 1))
    own, saved = F.dense_forward(z[:, None], w, None, activation)
    dx, _, _ = F.dense_backward(dy[:, None], z[:, None], w, saved, activation)
    # softplus: torch takes z itself beyond 20, which errs by 2e-9.
    tolerance = {"atol": 3e-9, "rtol": 1e-9} if activation == "softplus" else CLOSE
    np.testing.assert_allclose(own[:, 0], y.detach().numpy(), **tolerance)
    np.testing.assert_allclose(dx[:, 0], theirs.grad.numpy(), **tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ROWS)
def test_loss(loss, weighted):
    _, t, _, s = batch(9, 1, 4)
    y = 3 * np.random.default_rng(1).standard_normal((9, 4))
    s = s if weighted else None
    theirs = tensor(y, grad=True)
    expected = mean_loss(loss, theirs, tensor(t), None if s is None else tensor(s))
    expected.backward()
    value, dy = getattr(F, loss)(y, t, s)
    np.testing.assert_allclose(value, expected.item(), **CLOSE)
    np.testing.assert_allclose(dy, theirs.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_of_labels(weighted):
    _, _, labels, s = batch(9, 1, 4)
    z = 3 * np.random.default_rng(1).standard_normal((9, 4))
    s = s if weighted else None
    theirs = tensor(z, grad=True)
    expected = mean_loss(
        "softmax_cross_entropy", theirs, tensor(labels), None if s is None else tensor(s)
    )
    expected.backward()
    value, dz = F.softmax_cross_entropy(z, labels, s)
    np.testing.assert_allclose(value, expected.item(), **CLOSE)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("delta", [0.1, 1.0, 2.5])
def test_huber(delta):
    _, t, _, _ = batch(9, 1, 4)
    y = 3 * np.random.default_rng(1).standard_normal((9, 4))
    theirs = tensor(y, grad=True)
    expected = nn.huber_loss(theirs, tensor(t), reduction="sum", delta=delta) / 9
    expected.backward()
    value, dy = F.huber(y, t, delta=delta)
    np.testing.assert_allclose(value, expected.item(), **CLOSE)
    np.testing.assert_allclose(dy, theirs.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "softmax_cross_entropy"])
def test_cross_entropies_of_large_logits(loss):
    z, t = np.array([[800.0, -800.0], [-50.0, 50.0]]), np.array([[0.0, 1.0], [0.25, 0.75]])
    theirs = tensor(z, grad=True)
    expected = mean_loss(loss, theirs, tensor(t))
    expected.backward()
    value, dz = getattr(F, loss)(z, t)
    np.testing.assert_allclose(value, expected.item(), **CLOSE)
    np.testing.assert_allclose(dz, theirs.grad.numpy(), **CLOSE)


# Networks


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ROWS)
def test_network(activation, loss):
    x, t, _, s = batch(17, 6, 3)
    same_gradients(make(6, 5, 4, 3, activation=activation), x, t, loss, s, l2=0.1)


@pytest.mark.parametrize("last", ACTIVATIONS)
def test_network_with_an_activation_at_the_end(last):
    x, t, _, _ = batch(17, 6, 3)
    same_gradients(make(6, 5, 3, last=last), x, t, "squared_error")


@pytest.mark.parametrize("sizes", [(1, 1), (1, 7, 1), (65, 33, 2), (3, 64, 64, 5)])
@pytest.mark.parametrize("n", [1, 64, 300])
def test_sizes(sizes, n):
    x, t, labels, _ = batch(n, sizes[0], sizes[-1])
    same_gradients(make(*sizes, activation="gelu"), x, t, "squared_error")
    if sizes[-1] > 1:
        same_gradients(make(*sizes, activation="relu"), x, labels, "softmax_cross_entropy")


def set_parameters(net, *arrays):
    for layer, (w, b) in zip(net.layers, zip(arrays[::2], arrays[1::2], strict=True), strict=True):
        layer.w[...], layer.b[...] = w, b


@pytest.mark.parametrize("s", [None, np.array([1.0, 3.0])])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_worked_example_of_two_layers(s, l2):
    net = make(2, 3, 3, activation="relu")
    set_parameters(
        net,
        [[1, -1, 1], [1, 1, -1]],
        [0, 1, -1],
        [[1, 0, -1], [-1, 1, 1], [0, -1, 1]],
        [0, -1, 1],
    )
    x, labels = np.array([[1.0, 2.0], [2.0, -1.0]]), np.array([0, 2])
    same_gradients(net, x, labels, "softmax_cross_entropy", s, l2)


@pytest.mark.parametrize("rows", [1, 2])
def test_worked_example_of_four_sigmoids(rows):
    net = make(2, 2, 2, 2, 2, activation="sigmoid")
    set_parameters(
        net,
        [[1, -1], [0.5, 1]],
        [0, 0.5],
        [[2, -1], [-1, 1]],
        [0, 0.5],
        [[1, 1], [-2, 1]],
        [0.5, -1],
        [[1, -2], [1, 1]],
        [-1, 0],
    )
    x, t = np.array([[1.0, 1.0], [-1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    same_gradients(net, x[:rows], t[:rows], "binary_cross_entropy")


# Steps


OPTIMIZERS = {
    "sgd": (lambda: fastbp.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        lambda: fastbp.SGD(0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    ),
    "nesterov": (
        lambda: fastbp.SGD(0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda: fastbp.Adam(), torch.optim.Adam),
    "adam, other numbers": (
        lambda: fastbp.Adam(0.02, beta1=0.8, beta2=0.9, eps=1e-4),
        lambda p: torch.optim.Adam(p, 0.02, betas=(0.8, 0.9), eps=1e-4),
    ),
    "adamw": (lambda: fastbp.AdamW(), torch.optim.AdamW),
    "adamw, other numbers": (
        lambda: fastbp.AdamW(0.02, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.3),
    ),
    "rmsprop": (lambda: fastbp.RMSprop(), torch.optim.RMSprop),
    "rmsprop, other numbers": (
        lambda: fastbp.RMSprop(0.02, alpha=0.7, eps=1e-4),
        lambda p: torch.optim.RMSprop(p, 0.02, alpha=0.7, eps=1e-4),
    ),
}

# How torch clips, and how close ours is: torch divides by (norm + 1e-6), ours by the norm.
CLIPS = {
    None: (lambda p: None, STEPS),
    fastbp.ClipNorm(0.05): (
        lambda p: torch.nn.utils.clip_grad_norm_(p, 0.05),
        {"rtol": 2e-5, "atol": 2e-6},
    ),
    fastbp.ClipNorm(1e3): (lambda p: torch.nn.utils.clip_grad_norm_(p, 1e3), STEPS),
    fastbp.ClipValue(0.02): (lambda p: torch.nn.utils.clip_grad_value_(p, 0.02), STEPS),
}


def same_steps(optimizers, clip=None, l2=0.01):
    ours, theirs = optimizers
    net = make(6, 5, 3)
    twin, start = Twin(net), net.parameters.copy()
    ours, theirs = ours(), theirs(twin.parameters)
    clip_theirs, tolerance = CLIPS[clip]
    for step in range(3):
        x, t, _, s = batch(8, 6, 3, seed=step)
        theirs.zero_grad()
        expected = twin.loss("squared_error", tensor(x), tensor(t), tensor(s), l2)
        expected.backward()
        clip_theirs(twin.parameters)
        theirs.step()
        loss = net.train_step(x, t, "squared_error", ours, sample_weight=s, l2=l2, clip=clip)
        np.testing.assert_allclose(loss, expected.item(), **tolerance)
        np.testing.assert_allclose(net.parameters, twin.flat(), **tolerance)
    assert np.abs(net.parameters - start).max() > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps(name):
    same_steps(OPTIMIZERS[name])


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", ["sgd", "nesterov", "rmsprop, other numbers"])
def test_three_clipped_steps(name, clip):
    same_steps(OPTIMIZERS[name], clip)


def test_clipping_is_that_of_torch_up_to_its_millionth():
    net = make(6, 5, 3)
    twin = Twin(net)
    x, t, _, _ = batch(8, 6, 3)
    twin.loss("squared_error", tensor(x), tensor(t)).backward()
    net.loss_and_gradients(x, t, "squared_error")
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters, 0.05).item()
    np.testing.assert_allclose(np.linalg.norm(net.gradients), norm, rtol=1e-12)
    net._kernels.clip_by_global_norm(0.05, net.gradients)
    np.testing.assert_allclose(net.gradients, twin.gradients() * (1 + 1e-6 / norm), rtol=1e-10)


def test_a_fit_without_shuffling():
    net = make(6, 5, 3, activation="relu")
    twin = Twin(net)
    x, _, labels, _ = batch(20, 6, 3)
    optimizer = torch.optim.SGD(twin.parameters, 0.1, momentum=0.9)
    for _ in range(4):
        for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
            optimizer.zero_grad()
            twin.loss("softmax_cross_entropy", tensor(x[rows]), tensor(labels[rows])).backward()
            optimizer.step()
    net.fit(
        x,
        labels,
        loss="softmax_cross_entropy",
        optimizer=fastbp.SGD(0.1, momentum=0.9),
        epochs=4,
        batch_size=8,
        shuffle=False,
    )
    np.testing.assert_allclose(net.parameters, twin.flat(), **STEPS)
    p = torch.softmax(twin(tensor(x)), 1).detach().numpy()
    np.testing.assert_allclose(net.predict_proba(x), p, **STEPS)
