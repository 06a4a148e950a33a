"""Sequential: its parts and views, gradients, single steps, prediction and evaluation."""

import re
from contextlib import contextmanager

import numpy as np
import pytest

import fastbp
from fastbp import functional as F
from fastbp import losses, prediction
from fastbp.kernels import codes
from fastbp.scratch import scratch

LOSSES = (
    "squared_error",
    "half_squared_error",
    "huber",
    "binary_cross_entropy",
    "softmax_cross_entropy",
)
NOT_FINITE = "expected finite numbers, got NaN or infinity, first in row"


def dense(*sizes, **options):
    return fastbp.Dense(*sizes, **({"dtype": "float64"} | options))


def make(activation="tanh", *, dropout=None, sizes=(3, 4, 2), **options):
    """Dense, perhaps Dropout, Dense; always with the same weights and with biases that matter."""
    k, hidden, m = sizes
    layers = [dense(k, hidden, activation=activation, rng=0), dense(hidden, m, rng=1)]
    if dropout is not None:
        layers.insert(1, fastbp.Dropout(dropout, rng=2))
    net = fastbp.Sequential(*layers, **options)
    net.parameters[net.weight_count :] = np.linspace(-0.5, 0.5, hidden + m)
    return net


def data(n=5, k=3, m=2, seed=3):
    """x (n, k) and targets (n, m) in [0, 1] that sum to one in every row."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, k)), rng.dirichlet(np.ones(m), n)


def state(net):
    """All that a refused call must leave as it was."""
    passes = [getattr(layer, "passes", None) for layer in net.layers]
    return net.parameters.tobytes(), net.gradients.tobytes(), net.history, net.loss, passes


@contextmanager
def refuses(net, error, text):
    before = state(net)
    with pytest.raises(error, match=re.escape(text)):
        yield
    assert state(net) == before


# Construction


def test_repr():
    net = fastbp.Sequential(fastbp.Dense(2, 3, activation="relu"), fastbp.Dropout(0.5))
    text = """Sequential(
  Dense(2 -> 3, relu, w (2, 3), b (3,), float32)
  Dropout(0.5)
) 9 parameters on cpu"""
    assert repr(net) == text
    assert repr(make(device="reference")).endswith(") 26 parameters on reference")


def test_parameters_are_weights_then_biases():
    layers = [dense(2, 3, rng=0), dense(3, 1, bias=False, rng=1), dense(1, 2, rng=2)]
    for value, layer in enumerate(layers, 1):
        layer.b[...] = value
    parts = [layer.w.ravel().copy() for layer in layers] + [layer.b.copy() for layer in layers]
    net = fastbp.Sequential(*layers)
    np.testing.assert_array_equal(net.parameters, np.concatenate(parts))
    assert net.weight_count == 2 * 3 + 3 * 1 + 1 * 2
    assert net.parameters.size == net.gradients.size == net.weight_count + 3 + 2


@pytest.mark.parametrize("index", [0, 2])
def test_layers_see_what_the_network_writes_and_the_other_way_round(index):
    net = make(dropout=0.5)
    layer = net.layers[index]
    for flat, parts in (
        (net.parameters, (layer.w, layer.b)),
        (net.gradients, (layer.dw, layer.db)),
    ):
        flat[...] = 7
        assert all((part == 7).all() for part in parts)
        for part in parts:
            part[...] = 8
        assert (flat == 8).sum() == sum(part.size for part in parts)


def test_gradients_of_layers_move_along():
    layer = dense(2, 1)
    layer.dw[...] = 5
    net = fastbp.Sequential(layer)
    np.testing.assert_array_equal(net.gradients, [5, 5, 0])


def test_sizes_and_dtype():
    net = fastbp.Sequential(fastbp.Dropout(0.5), dense(3, 4), dense(4, 2), fastbp.Dropout(0))
    assert (net.in_features, net.out_features, net.dtype) == (3, 2, np.float64)
    assert net.history is None
    assert net.loss is None


BAD_CHAINS = {
    "nothing": (lambda: (), ValueError, "layers: expected at least one Dense layer, got none"),
    "only dropout": (
        lambda: (fastbp.Dropout(0.5),),
        ValueError,
        "layers: expected at least one Dense layer, got none",
    ),
    "list": (
        lambda: ([dense(2, 3), dense(3, 1)],),
        TypeError,
        "layers[0]: expected Dense or Dropout, got list; pass the layers one by one: "
        "Sequential(*layers)",
    ),
    "text": (lambda: (dense(2, 3), "relu"), TypeError, "layers[1]: expected Dense or Dropout, got"),
    "class": (lambda: (fastbp.Dense,), TypeError, "layers[0]: expected Dense or Dropout, got type"),
    "width": (
        lambda: (dense(2, 3), fastbp.Dropout(0.5), dense(4, 1)),
        ValueError,
        "layers[2]: expected in_features=3, the width of the layer below, got 4",
    ),
    "dtype": (
        lambda: (dense(2, 3), dense(3, 1, dtype="float32")),
        TypeError,
        "layers[1]: expected dtype float64, got float32",
    ),
}


@pytest.mark.parametrize("kind", BAD_CHAINS)
def test_layers_that_make_no_network(kind):
    chain, error, text = BAD_CHAINS[kind]
    layers = chain()
    with pytest.raises(error, match=re.escape(text)):
        fastbp.Sequential(*layers)
    assert not any(getattr(layer, "owned", False) for layer in layers)


@pytest.mark.parametrize("shared", [dense(3, 3, rng=0), fastbp.Dropout(0.5)])
def test_a_layer_belongs_to_one_network(shared):
    first = dense(3, 3)
    text = "expected a layer of its own, got one that is already part of a network; make a new lay"
    with pytest.raises(ValueError, match=re.escape(f"layers[2]: {text}")):
        fastbp.Sequential(first, shared, shared)

    net = fastbp.Sequential(first, shared)  # the refusal left both free
    with refuses(net, ValueError, f"layers[0]: {text}"):
        fastbp.Sequential(shared, dense(3, 3))
    net.parameters[...] = 7
    assert (first.w == 7).all()


@pytest.mark.parametrize("device", ["gpu", None, 0])
def test_unknown_device_lists_the_known_ones(device):
    layer = dense(2, 1)
    text = f"device: expected one of cpu, reference, cuda; got {device!r}"
    with pytest.raises(ValueError, match=re.escape(text)):
        fastbp.Sequential(layer, device=device)
    fastbp.Sequential(layer)  # is still free


# Loss and gradients


def composed(net, x, t, loss, activation):
    """Loss, dx and flat gradients by the functions of `fastbp.functional`."""
    first, last = net.layers[0], net.layers[-1]
    h, saved = F.dense_forward(x, first.w, first.b, activation)
    y, last_saved = F.dense_forward(h, last.w, last.b)
    value, dy = getattr(F, loss)(y, t)
    dh, dw2, db2 = F.dense_backward(dy, h, last.w, last_saved)
    dx, dw1, db1 = F.dense_backward(dh, x, first.w, saved, activation)
    return value, dx, np.concatenate([dw1.ravel(), dw2.ravel(), db1, db2])


@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_network_is_the_composition_of_functions(activation, loss):
    net = make(activation)
    x, t = data()
    value, dx = net.loss_and_gradients(x, t, loss=loss)
    expected, expected_dx, gradients = composed(net, x, t, loss, activation)
    assert type(value) is float
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(net.gradients, gradients, rtol=1e-12, atol=1e-16)


# Differences of step 1e-6 in float64 err by about 1e-10.
CLOSE = {"atol": 1e-8, "rtol": 1e-6}


@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_central_differences(activation, loss):
    assert fastbp.gradcheck(make(activation), data(), loss=loss, **CLOSE)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_gradients_for_labels(activation):
    x, _ = data()
    labels = np.array([0, 1, 1, 0, 1])
    assert fastbp.gradcheck(make(activation), (x, labels), loss="softmax_cross_entropy", **CLOSE)


@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
def test_gradients_through_an_activation_at_the_end(activation):
    net = fastbp.Sequential(dense(3, 4, activation, rng=0), dense(4, 2, activation, rng=1))
    net.parameters[net.weight_count :] = 0.1  # no unit lies on a kink
    assert fastbp.gradcheck(net, data(), loss="squared_error", **CLOSE)


@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weights_and_l2_in_the_gradients(loss):
    net = make("tanh")
    x, t = data()
    s, p = np.array([0.0, 1.0, 2.0, 0.5, 3.0]), net.parameters

    def func(p):
        net.parameters[...] = p
        value, _ = net.loss_and_gradients(x, t, loss=loss, sample_weight=s, l2=0.3)
        return value, net.gradients

    assert fastbp.gradcheck(func, p.copy(), **CLOSE)


def test_l2_is_of_weights_only():
    net = make()
    x, t = data()
    value, dx = net.loss_and_gradients(x, t, loss="huber")
    gradients = net.gradients.copy()
    penalized, penalized_dx = net.loss_and_gradients(x, t, loss="huber", l2=0.25)

    w = net.parameters[: net.weight_count]
    np.testing.assert_allclose(penalized, value + 0.25 * np.sum(w * w), rtol=1e-14)
    gradients[: net.weight_count] += 0.5 * w
    np.testing.assert_allclose(net.gradients, gradients, rtol=1e-13)
    np.testing.assert_array_equal(penalized_dx, dx)


def test_dx_is_the_users_own():
    net = make()
    x, t = data()
    _, dx = net.loss_and_gradients(x, t, loss="huber")
    kept = dx.copy()
    net.loss_and_gradients(2 * x, t, loss="huber")
    np.testing.assert_array_equal(dx, kept)


def test_batches_of_many_sizes_in_turn():
    # Buffers are kept for two sizes: a third must not read those of another.
    net, fresh = make("gelu"), make("gelu")
    for n in (5, 3, 7, 5, 1, 3, 0, 5):
        x, t = data(n, seed=n)
        value, dx = net.loss_and_gradients(x, t, loss="squared_error")
        expected, expected_dx, gradients = composed(fresh, x, t, "squared_error", "gelu")
        np.testing.assert_allclose(value, expected, rtol=1e-14)
        np.testing.assert_allclose(dx, expected_dx, rtol=1e-12)
        np.testing.assert_allclose(net.gradients, gradients, rtol=1e-12)


def test_a_precision_that_the_device_or_the_dtype_does_not_have_is_refused():
    layer = fastbp.Dense(2, 1)
    with pytest.raises(ValueError, match=r"precision: .* on cpu, got 'tf32', .* device='cuda'"):
        fastbp.Sequential(layer, precision="tf32")
    with pytest.raises(
        ValueError, match="precision: expected one of float32, tf32, bf16; got 'fp8'"
    ):
        fastbp.Sequential(layer, precision="fp8")
    double = fastbp.Dense(2, 1, dtype="float64")
    with pytest.raises(ValueError, match=r"precision: expected None .* in float64, .*'float32'"):
        fastbp.Sequential(double, precision="float32")
    assert fastbp.Sequential(layer, precision="float32").precision == "float32"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_empty_batch(loss, device):
    net = make(dropout=0.5, device=device)
    net.gradients[...] = 7
    x, t = data(0)
    value, dx = net.loss_and_gradients(x, t, loss=loss)
    assert value == 0
    assert dx.shape == (0, 3)
    assert not net.gradients.any()

    before = net.parameters.copy()
    assert net.train_step(x, t, loss, fastbp.SGD(0.1)) == 0
    np.testing.assert_array_equal(net.parameters, before)
    assert net.predict(x).shape == (0, 2)
    scores = {"loss": 0.0} | ({"accuracy": 0.0} if "entropy" in loss else {})
    assert net.evaluate(x, t, loss) == scores


def test_dropout_inside_a_network():
    net = make(dropout=0.5)
    x, t = data()
    losses = {net.loss_and_gradients(x, t, loss="squared_error")[0] for _ in range(10)}
    assert len(losses) == 10  # a new mask each time
    assert net.layers[1].passes == 10

    layer = net.layers[1]
    layer.passes = 3
    value, _ = net.loss_and_gradients(x, t, loss="squared_error")
    h, _ = F.dense_forward(x, net.layers[0].w, net.layers[0].b, "tanh")
    layer.passes = 3
    y, _ = F.dense_forward(layer.forward(h), net.layers[2].w, net.layers[2].b)
    np.testing.assert_allclose(value, F.squared_error(y, t)[0], rtol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_reference_device_agrees(loss):
    x, t = data()
    value, dx = (cpu := make("gelu", dropout=0.5)).loss_and_gradients(x, t, loss=loss, l2=0.1)
    reference = make("gelu", dropout=0.5, device="reference")
    expected, expected_dx = reference.loss_and_gradients(x, t, loss=loss, l2=0.1)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(cpu.gradients, reference.gradients, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(cpu.predict(x), reference.predict(x), rtol=1e-13)


def test_read_only_batch():
    net = make()
    x, t = data()
    s = np.arange(1.0, 6.0)
    expected = net.loss_and_gradients(x, t, "huber", sample_weight=s)[0]
    for array in (x, t, s):
        array.flags.writeable = False
    assert net.loss_and_gradients(x, t, "huber", sample_weight=s)[0] == expected
    net.predict(x)
    net.evaluate(x, t, "huber", sample_weight=s)


# What is refused


def bad_row(array, value=np.nan, row=2):
    array = array.copy()
    array[row:] = value
    return array


X, T = data()
REFUSED = {
    "x width": ({"x": np.ones((5, 4))}, ValueError, "x: expected shape (n, 3), got (5, 4)"),
    "x dtype": (
        {"x": X.astype(np.float32)},
        TypeError,
        "x: expected float64 like the other arrays, got float32; pass x.astype(np.float64)",
    ),
    "x order": ({"x": np.asfortranarray(X)}, ValueError, "x: expected a C-contiguous array, got"),
    "x list": ({"x": X.tolist()}, TypeError, "x: expected a NumPy array, got list"),
    "t rows": ({"t": T[:4]}, ValueError, "t: expected shape (5, 2), got (4, 2)"),
    "t flat": ({"t": T[:, 0].copy()}, ValueError, "t: expected shape (5, 2), got (5,)"),
    "t integers": ({"t": np.ones((5, 2), int)}, TypeError, "t: expected float64 like the other"),
    "loss": (
        {"loss": "mse"},
        ValueError,
        f"loss: expected one of {', '.join(LOSSES)}; got 'mse'",
    ),
    "l2 negative": ({"l2": -0.1}, ValueError, "l2: expected a finite number >= 0, got -0.1"),
    "l2 text": ({"l2": "0.1"}, TypeError, "l2: expected a number, got str"),
    "weights shape": (
        {"sample_weight": np.ones((5, 1))},
        ValueError,
        "sample_weight: expected shape (5,), got (5, 1)",
    ),
    "weights sign": (
        {"sample_weight": -np.ones(5)},
        ValueError,
        "sample_weight: expected weights >= 0 with a sum > 0",
    ),
    "weights list": ({"sample_weight": [1.0] * 5}, TypeError, "sample_weight: expected a NumPy"),
    "x nan": ({"x": bad_row(X)}, ValueError, f"x: {NOT_FINITE} 2; drop or fill such rows"),
    "x inf": ({"x": bad_row(X, np.inf)}, ValueError, f"x: {NOT_FINITE} 2"),
    "t nan": ({"t": bad_row(T)}, ValueError, f"t: {NOT_FINITE} 2"),
    "t inf": ({"t": bad_row(T, -np.inf)}, ValueError, f"t: {NOT_FINITE} 2"),
    "weights nan": (
        {"sample_weight": bad_row(np.ones(5))},
        ValueError,
        f"sample_weight: {NOT_FINITE} 2",
    ),
    "weights inf": (
        {"sample_weight": bad_row(np.ones(5), np.inf)},
        ValueError,
        f"sample_weight: {NOT_FINITE} 2",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_loss_and_gradients_refuses(kind):
    changed, error, text = REFUSED[kind]
    arguments = {"x": X, "t": T, "loss": "squared_error"} | changed
    net = make()
    net.gradients[...] = 7
    with refuses(net, error, text):
        net.loss_and_gradients(**arguments)


@pytest.mark.parametrize("kind", REFUSED)
def test_train_step_refuses(kind):
    changed, error, text = REFUSED[kind]
    arguments = {"x": X, "t": T, "loss": "squared_error", "optimizer": fastbp.Adam()} | changed
    net = make()
    net.gradients[...] = 7
    with refuses(net, error, text):
        net.train_step(**arguments)
    assert arguments["optimizer"].step == 0
    assert arguments["optimizer"].state == {}


def test_labels_and_probabilities_out_of_range():
    net = make()
    with refuses(net, ValueError, "t: expected labels in 0..1, got 2 in row 3"):
        net.loss_and_gradients(X, np.array([0, 1, 1, 2, -1]), "softmax_cross_entropy")
    with refuses(net, ValueError, "t: expected labels in 0..1, got -1 in row 0"):
        net.train_step(X, np.array([-1, 1, 1, 2, 0]), "softmax_cross_entropy", fastbp.SGD())
    with refuses(net, ValueError, "t: expected targets in [0, 1], got others, first in row 2"):
        net.loss_and_gradients(X, bad_row(T, 1.5), "binary_cross_entropy")


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_an_infinity_that_the_loss_does_not_show(activation):
    # x = inf makes a saturated unit: the loss stays finite, the gradients would be NaN.
    net = make(activation)
    x = X.copy()
    x[4, 1] = -np.inf
    with refuses(net, ValueError, f"x: {NOT_FINITE} 4"):
        net.loss_and_gradients(x, T, "squared_error")


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "softmax_cross_entropy"])
@pytest.mark.parametrize("extra", [False, True])
def test_losses_on_logits_want_an_identity_at_the_end(loss, extra):
    layers = [dense(3, 2, activation="sigmoid", rng=0)] + [fastbp.Dropout(0.5, rng=0)] * extra
    net = fastbp.Sequential(*layers)
    link = "sigmoid" if loss.startswith("binary") else "softmax"
    text = (
        f"loss: {loss} takes logits, so the last layer needs activation='identity', got 'sigmoid'; "
        f"predict_proba applies the {link}"
    )
    for call in (
        lambda: net.loss_and_gradients(X, T, loss),
        lambda: net.train_step(X, T, loss, fastbp.SGD()),
        lambda: net.evaluate(X, T, loss),
        lambda: net.fit(X, T, loss=loss),
    ):
        with refuses(net, ValueError, text):
            call()
    net.loss_and_gradients(X, T, "squared_error")


@pytest.mark.parametrize("value", ["adam", None, fastbp.Adam])
def test_train_step_wants_an_optimizer_that_keeps_its_state(value):
    net = make(dropout=0.5)
    text = (
        "optimizer: expected an instance that keeps its state between the calls, such as "
        f"fastbp.Adam(), got {value!r}"
    )
    with refuses(net, TypeError, text):
        net.train_step(X, T, "huber", value)


def test_train_step_refuses_the_optimizer_of_another_network():
    optimizer, other = fastbp.Adam(), make(sizes=(3, 5, 2))
    other.train_step(X, T, "huber", optimizer)
    kept = {slot: array.copy() for slot, array in optimizer.state.items()}
    net = make(dropout=0.5)
    net.gradients[...] = 7
    text = (
        "optimizer: expected a fresh one, got one whose m belongs to a network of 32 float64 "
        "parameters (this one has 26 float64); make a new Adam"
    )
    with refuses(net, ValueError, text):
        net.train_step(X, T, "huber", optimizer)
    assert optimizer.step == 1
    for slot, array in kept.items():
        np.testing.assert_array_equal(optimizer.state[slot], array)


@pytest.mark.parametrize(
    ("clip", "error", "text"),
    [
        (0, ValueError, "clip: expected a finite number > 0, got 0"),
        ("1", TypeError, "clip: expected a number, got str"),
    ],
)
def test_train_step_refuses_a_clip(clip, error, text):
    net, optimizer = make(dropout=0.5), fastbp.Adam()
    net.gradients[...] = 7
    with refuses(net, error, text):
        net.train_step(X, T, "huber", optimizer, clip=clip)
    assert optimizer.step == 0


def test_parameters_that_grew_too_large():
    net = make("relu")
    net.parameters[...] = 1e200
    net.gradients[...] = 7
    text = (
        "the loss is inf on finite data: the parameters grew too large; lower the learning rate, "
        "scale the inputs, or clip the gradients"
    )
    for call in (
        lambda: net.loss_and_gradients(np.abs(X), T, "squared_error"),
        lambda: net.train_step(np.abs(X), T, "squared_error", fastbp.SGD()),
    ):
        with refuses(net, fastbp.DivergenceError, text):
            call()


def test_a_penalty_that_grew_too_large():
    net = make()
    net.parameters[: net.weight_count] = 1e200
    before = net.parameters.copy()
    text = "the loss is inf on finite data: the parameters grew too large"
    with pytest.raises(fastbp.DivergenceError, match=text):
        net.train_step(np.zeros((1, 3)), T[:1], "binary_cross_entropy", fastbp.SGD(), l2=0.1)
    np.testing.assert_array_equal(net.parameters, before)


# Single steps


OPTIMIZERS = {
    "sgd": lambda: fastbp.SGD(0.1),
    "nesterov": lambda: fastbp.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: fastbp.Adam(0.1),
    "adamw": lambda: fastbp.AdamW(0.1),
    "rmsprop": lambda: fastbp.RMSprop(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_train_step_is_gradients_then_update(name):
    net, by_hand = make(), make()
    stepping, updating = OPTIMIZERS[name](), OPTIMIZERS[name]()
    s = np.arange(5.0)
    for _ in range(3):
        value = net.train_step(X, T, "huber", stepping, sample_weight=s, l2=0.1)
        expected, _ = by_hand.loss_and_gradients(X, T, "huber", sample_weight=s, l2=0.1)
        updating.update(by_hand._kernels, by_hand.gradients, by_hand.parameters)
        assert value == expected
        np.testing.assert_array_equal(net.parameters, by_hand.parameters)
    assert net.history is None
    assert net.loss is None


@pytest.mark.parametrize("clip", [0.01, fastbp.ClipNorm(0.01)])
def test_train_step_clips_the_norm(clip):
    net = make()
    net.loss_and_gradients(X, T, "squared_error", l2=0.1)
    g, start = net.gradients.copy(), net.parameters.copy()
    net.train_step(X, T, "squared_error", fastbp.SGD(1.0), l2=0.1, clip=clip)
    np.testing.assert_allclose(start - net.parameters, 0.01 * g / np.linalg.norm(g), rtol=1e-10)


def test_train_step_clips_values():
    net = make()
    net.loss_and_gradients(X, T, "squared_error")
    g, start = net.gradients.copy(), net.parameters.copy()
    net.train_step(X, T, "squared_error", fastbp.SGD(1.0), clip=fastbp.ClipValue(0.05))
    assert (np.abs(g) > 0.05).any()
    np.testing.assert_allclose(start - net.parameters, np.clip(g, -0.05, 0.05), atol=1e-15)


# Prediction


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_predict_is_the_forward_pass_without_dropout(activation):
    net = make(activation, dropout=0.5)
    h, _ = F.dense_forward(X, net.layers[0].w, net.layers[0].b, activation)
    y, _ = F.dense_forward(h, net.layers[2].w, net.layers[2].b)
    np.testing.assert_allclose(net.predict(X), y, rtol=1e-14)
    assert net.layers[1].passes == 0


def test_predictions_are_the_users_own():
    net = make()
    first = net.predict(X)
    kept = first.copy()
    net.predict(2 * X)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("dropout", [None, 0.5])
@pytest.mark.parametrize("rows", [1, 4, 5, 6, 10, 11])
def test_pieces_of_a_prediction_make_the_whole(monkeypatch, rows, dropout):
    net = make("gelu", dropout=dropout)
    x, t = data(11)
    whole, scores = net.predict(x), net.evaluate(x, t, "softmax_cross_entropy")
    s = np.linspace(0, 1, 11)
    weighted = net.evaluate(x, t, "softmax_cross_entropy", sample_weight=s)
    monkeypatch.setattr(prediction, "PIECE", rows)
    # BLAS may sum in another order for another number of rows.
    np.testing.assert_allclose(net.predict(x), whole, rtol=1e-13)
    pieces = net.evaluate(x, t, "softmax_cross_entropy")
    np.testing.assert_allclose(pieces["loss"], scores["loss"], rtol=1e-13)
    np.testing.assert_allclose(pieces["accuracy"], scores["accuracy"], rtol=1e-13)
    pieces = net.evaluate(x, t, "softmax_cross_entropy", sample_weight=s)
    np.testing.assert_allclose(pieces["loss"], weighted["loss"], rtol=1e-13)
    np.testing.assert_allclose(pieces["accuracy"], weighted["accuracy"], rtol=1e-13)


def test_predict_passes_nan_through():
    net = make()
    y = net.predict(bad_row(X, row=4))
    assert np.isfinite(y[:4]).all()
    assert np.isnan(y[4]).all()


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_predict_refuses(method):
    net = make()
    net.loss = fastbp.losses.resolve("softmax_cross_entropy")
    with refuses(net, ValueError, "x: expected shape (n, 3), got (5, 2)"):
        getattr(net, method)(T)
    with refuses(net, TypeError, "x: expected float64 like the other arrays, got float32; pass"):
        getattr(net, method)(X.astype(np.float32))


def test_predict_proba_applies_the_link():
    net = make()
    z = net.predict(X)
    p = net.predict_proba(X, loss="softmax_cross_entropy")
    np.testing.assert_allclose(p, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-13)
    p = net.predict_proba(X, loss="binary_cross_entropy")
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-z)), rtol=1e-13)
    assert net.predict_proba(X[:0], loss="softmax_cross_entropy").shape == (0, 2)


def test_predict_proba_remembers_the_loss_of_fit():
    net = make()
    with refuses(net, ValueError, "loss: expected a name before the first fit, got None"):
        net.predict_proba(X)
    net.fit(X, T, loss="softmax_cross_entropy", epochs=1, seed=0)
    np.testing.assert_allclose(net.predict_proba(X).sum(axis=1), 1, rtol=1e-13)


def test_predict_proba_of_a_regression():
    net = make()
    net.fit(X, T, loss="huber", epochs=0)
    text = (
        "loss: expected binary_cross_entropy or softmax_cross_entropy for probabilities, got "
        "huber; use predict(x)"
    )
    with refuses(net, ValueError, text):
        net.predict_proba(X)


# Evaluation


def passes_through(m):
    """A network whose output is its input."""
    net = fastbp.Sequential(dense(m, m))
    net.layers[0].w[...] = np.eye(m)
    return net


Z = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 3.0, 1.0], [3.0, 0.0, 1.0]])


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize(
    ("weights", "accuracy"),
    [(None, 0.5), ([1.0, 0.0, 0.0, 0.0], 1.0), ([1.0, 2.0, 4.0, 1.0], 0.625)],
)
def test_accuracy_of_classes(one_hot, weights, accuracy):
    labels = np.array([0, 1, 1, 2])  # right, wrong, right, wrong
    t = np.eye(3)[labels] if one_hot else labels
    s = None if weights is None else np.array(weights)
    scores = passes_through(3).evaluate(Z, t, "softmax_cross_entropy", sample_weight=s)
    assert scores["accuracy"] == accuracy
    np.testing.assert_allclose(scores["loss"], F.softmax_cross_entropy(Z, t, s)[0], rtol=1e-13)


def test_accuracy_of_many_labels_is_the_share_that_is_right():
    z = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    t = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    net = passes_through(2)
    scores = net.evaluate(z, t, "binary_cross_entropy")
    assert scores["accuracy"] == 0.5
    weighted = net.evaluate(z, t, "binary_cross_entropy", sample_weight=np.array([1.0, 1.0, 0.0]))
    assert weighted["accuracy"] == 0.75


def test_accuracy_of_flat_binary_targets():
    z, t = np.array([[1.0], [-1.0], [2.0]]), np.array([1.0, 0.0, 0.0])
    scores = passes_through(1).evaluate(z, t, "binary_cross_entropy")
    np.testing.assert_allclose(scores["accuracy"], 2 / 3)


@pytest.mark.parametrize("loss", ["squared_error", "half_squared_error", "huber"])
def test_regressions_have_no_accuracy(loss):
    net = make()
    scores = net.evaluate(X, T, loss)
    assert list(scores) == ["loss"]
    np.testing.assert_allclose(scores["loss"], getattr(F, loss)(net.predict(X), T)[0], rtol=1e-13)


def test_evaluate_changes_nothing():
    net = make(dropout=0.5)
    before = state(net)
    net.evaluate(X, T, "huber")
    assert state(net) == before


def test_evaluate_uses_the_loss_of_fit():
    net = make()
    with refuses(net, ValueError, "loss: expected a name before the first fit, got None"):
        net.evaluate(X, T)
    net.fit(X, T, loss=fastbp.Huber(0.1), epochs=0)
    assert net.evaluate(X, T) == net.evaluate(X, T, fastbp.Huber(0.1))
    assert net.evaluate(X, T) != net.evaluate(X, T, "huber")


@pytest.mark.parametrize("kind", [k for k in REFUSED if not k.startswith("l2")])
def test_evaluate_refuses(kind):
    changed, error, text = REFUSED[kind]
    arguments = {"x": X, "t": T, "loss": "squared_error"} | changed
    net = make("tanh")
    net.parameters[...] = 1  # an infinity in x saturates a unit, and the loss stays finite
    with refuses(net, error, text):
        net.evaluate(**arguments)


def test_evaluate_of_pieces_that_weigh_nothing(monkeypatch):
    net = make()
    s = np.array([0.0, 0.0, 0.0, 2.0, 1.0])
    expected = net.evaluate(X[3:], T[3:], "softmax_cross_entropy", sample_weight=s[3:])
    monkeypatch.setattr(prediction, "PIECE", 2)
    scores = net.evaluate(X, T, "softmax_cross_entropy", sample_weight=s)
    np.testing.assert_allclose(scores["loss"], expected["loss"], rtol=1e-13)
    assert scores["accuracy"] == expected["accuracy"]


def test_evaluate_sees_a_bad_row_that_weighs_nothing(monkeypatch):
    monkeypatch.setattr(prediction, "PIECE", 2)
    s = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match=re.escape(f"x: {NOT_FINITE} 4")):
        make().evaluate(bad_row(X, row=4), T, "squared_error", sample_weight=s)


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("bad", [np.nan, 1e200])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # NumPy's, of reference
def test_evaluate_of_a_network_that_diverged(device, bad):
    net = make(device=device)
    net.parameters[...] = bad
    with pytest.raises(
        fastbp.DivergenceError, match=r"the loss is .* the parameters grew too large"
    ):
        net.evaluate(X, T, "squared_error")


def test_evaluate_names_the_row_of_the_whole_batch(monkeypatch):
    monkeypatch.setattr(prediction, "PIECE", 2)
    with pytest.raises(ValueError, match=re.escape(f"x: {NOT_FINITE} 3")):
        make().evaluate(bad_row(X, row=3), T, "squared_error")
    with pytest.raises(ValueError, match=re.escape("t: expected labels in 0..1, got 5 in row 4")):
        make().evaluate(X, np.array([0, 1, 0, 1, 5]), "softmax_cross_entropy")


# Every activation with every loss, at the sizes around a block


def targets(loss, n, m, dtype):
    rng = np.random.default_rng(n)
    if loss == "softmax_cross_entropy":
        return rng.integers(0, m, n)
    return rng.random((n, m)).astype(dtype)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
def test_gradients_equal_the_reference_in_float64(activation, loss, dtype, n):
    k, h, m = (65, 63, 64) if n % 2 else (63, 64, 65)  # not square, one of them the batch's size
    x = np.random.default_rng(n).standard_normal((n, k))
    results = []
    for device, real in (("cpu", dtype), ("reference", "float64")):
        first = fastbp.Dense(k, h, activation=activation, dtype=real, rng=0)
        net = fastbp.Sequential(first, fastbp.Dense(h, m, dtype=real, rng=1), device=device)
        net.parameters[...] = np.float32(net.parameters)  # the same numbers in both types
        net.gradients[...] = np.nan
        t = targets(loss, n, m, real)
        value, dx = net.loss_and_gradients(np.float32(x).astype(real), t, loss=loss)
        results.append((value, dx, net.gradients))
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for got, want in zip(*results, strict=True):
        scale = max(1e-3, float(np.max(np.abs(want), initial=0)))
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


# Another device


def test_a_network_goes_on_where_it_was_moved_to():
    x, t = data(3000)
    sizes = 3, 60, 2  # the twins need different scratch
    moved, stayed = (make("silu", sizes=sizes, device=name) for name in ("cpu", "reference"))
    for net in (moved, stayed):
        optimizer = fastbp.Adam()
        net.train_step(x, t, "squared_error", optimizer)
        assert net.to("reference") is net
        net.train_step(x, t, "squared_error", optimizer)
    assert moved.device == "reference"
    np.testing.assert_allclose(moved.parameters, stayed.parameters, rtol=1e-12)
    np.testing.assert_allclose(moved.to("cpu").predict(x), stayed.predict(x), atol=1e-12)


def test_an_unknown_device_leaves_the_network_where_it_is():
    net = make()
    with pytest.raises(ValueError, match="device: expected one of cpu, reference, cuda; got 'tpu'"):
        net.to("tpu")
    assert net.device == "cpu"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arenas_begin_with_a_cache_line(dtype):
    nets = [fastbp.Sequential(fastbp.Dense(i, 3, dtype=dtype)) for i in range(1, 9)]
    for net in nets:
        state = fastbp.Adam().state_for(net.parameters)
        space = net.workspace(4, optimizer="adam", copy=True)
        arenas = [net.parameters, net.gradients, *state.values(), scratch(99, net.dtype)]
        arenas += [space.parameters, space.gradients, space.first, space.second, space.work]
        assert [array.ctypes.data % 64 for array in arenas] == [0] * len(arenas)
