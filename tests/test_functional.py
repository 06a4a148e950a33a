"""Layers and losses over a user's own arrays: results, `out`, and the answer to bad arguments."""

import re
import warnings

import numpy as np
import pytest

from fastbp import functional as F
from fastbp.kernels import codes, cpu, reference

KEEPS_Z = [name for name, code in codes.ACTIVATIONS.items() if code in codes.KEEPS_Z]
KEEPS_Y = [name for name in codes.ACTIVATIONS if name not in KEEPS_Z]
LOSSES = {
    "squared_error": F.squared_error,
    "half_squared_error": F.half_squared_error,
    "huber": F.huber,
    "binary_cross_entropy": F.binary_cross_entropy,
    "softmax_cross_entropy": F.softmax_cross_entropy,
}
INPUT = dict.fromkeys(LOSSES, "y") | {"binary_cross_entropy": "z", "softmax_cross_entropy": "z"}


@pytest.fixture
def batch():
    """x (5, 3), w (3, 2), b (2,) and dy (5, 2)."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape) for shape in ((5, 3), (3, 2), (2,), (5, 2)))


@pytest.fixture
def outputs():
    """y (5, 3) and targets (5, 3) in [0, 1] that sum to one in every row."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((5, 3)), rng.dirichlet(np.ones(3), 5)


def locked(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def refuses(error, text, function, *arguments, **options):
    """The call raises this text, and every array that it was given keeps its bits."""
    out = options.get("out")
    given = [*arguments, *options.values(), *(out if isinstance(out, tuple) else ())]
    arrays = [value for value in given if isinstance(value, np.ndarray)]
    before = [array.tobytes() for array in arrays]
    with pytest.raises(error, match=re.escape(text)):
        function(*arguments, **options)
    assert [array.tobytes() for array in arrays] == before


# Dense layers: results


@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
def test_forward_is_the_formula(batch, activation):
    x, w, b, _ = batch
    expected = x @ w + b
    reference.activate(codes.ACTIVATIONS[activation], expected.reshape(-1))
    y, _ = F.dense_forward(x, w, b, activation)
    np.testing.assert_allclose(y, expected, rtol=1e-13)


@pytest.mark.parametrize("activation", KEEPS_Y)
def test_saved_is_the_output(batch, activation):
    x, w, b, _ = batch
    y, saved = F.dense_forward(x, w, b, activation)
    assert saved is y


@pytest.mark.parametrize("activation", KEEPS_Z)
def test_saved_is_the_preactivation(batch, activation):
    x, w, b, _ = batch
    _, saved = F.dense_forward(x, w, b, activation)
    np.testing.assert_allclose(saved, x @ w + b, rtol=1e-13)


@pytest.mark.parametrize("activation", ["identity", "gelu"])
def test_no_bias_is_a_bias_of_zero(batch, activation):
    x, w, _, dy = batch
    y, saved = F.dense_forward(x, w, None, activation)
    expected, _ = F.dense_forward(x, w, np.zeros(2), activation)
    np.testing.assert_array_equal(y, expected)

    dx, dw, db = F.dense_backward(dy, x, w, saved, activation, bias=False)
    expected_dx, expected_dw, _ = F.dense_backward(dy, x, w, saved, activation)
    assert db is None
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_array_equal(dw, expected_dw)


def test_backward_is_the_formula(batch):
    x, w, b, dy = batch
    y, saved = F.dense_forward(x, w, b, "tanh")
    dx, dw, db = F.dense_backward(dy, x, w, saved, "tanh")
    dz = dy * (1 - y * y)
    np.testing.assert_allclose(dw, x.T @ dz, rtol=1e-12)
    np.testing.assert_allclose(db, dz.sum(0), rtol=1e-12)
    np.testing.assert_allclose(dx, dz @ w.T, rtol=1e-12)


def test_backward_without_dx(batch):
    x, w, b, dy = batch
    _, saved = F.dense_forward(x, w, b, "relu")
    dx, dw, db = F.dense_backward(dy, x, w, saved, "relu", need_dx=False)
    _, expected_dw, expected_db = F.dense_backward(dy, x, w, saved, "relu")
    assert dx is None
    np.testing.assert_array_equal(dw, expected_dw)
    np.testing.assert_array_equal(db, expected_db)


@pytest.mark.parametrize("activation", ["identity", "silu"])
def test_empty_batch(batch, activation):
    _, w, b, _ = batch
    x = np.empty((0, 3))
    y, saved = F.dense_forward(x, w, b, activation)
    dx, dw, db = F.dense_backward(y, x, w, saved, activation, out=(None, w + 1, b + 1))
    assert y.shape == (0, 2)
    assert dx.shape == (0, 3)
    np.testing.assert_array_equal(dw, np.zeros((3, 2)))
    np.testing.assert_array_equal(db, np.zeros(2))


@pytest.mark.parametrize(("k", "m"), [(0, 2), (3, 0), (0, 0)])
def test_layers_without_inputs_or_outputs(k, m):
    x, w, b = np.ones((4, k)), np.ones((k, m)), np.arange(float(m))
    y, saved = F.dense_forward(x, w, b)
    np.testing.assert_array_equal(y, np.tile(b, (4, 1)))
    dx, dw, db = F.dense_backward(np.ones((4, m)), x, w, saved)
    assert (dx.shape, dw.shape) == ((4, k), (k, m))
    np.testing.assert_array_equal(dx, np.zeros((4, k)))
    np.testing.assert_array_equal(db, np.full(m, 4.0))


@pytest.mark.parametrize("activation", ["identity", "gelu"])
def test_read_only_inputs(batch, activation):
    x, w, b, dy = batch
    y, saved = F.dense_forward(x, w, b, activation)
    gradients = F.dense_backward(dy, x, w, saved, activation)
    compiled = len(cpu.dense_forward.signatures), len(cpu.dense_backward.signatures)

    again, _ = F.dense_forward(locked(x), locked(w), locked(b), activation)
    repeated = F.dense_backward(locked(dy), locked(x), locked(w), locked(saved), activation)

    np.testing.assert_array_equal(again, y)
    for actual, expected in zip(repeated, gradients, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert (len(cpu.dense_forward.signatures), len(cpu.dense_backward.signatures)) == compiled


# Dense layers: out


@pytest.mark.parametrize("activation", ["identity", "gelu"])
def test_out_is_filled_and_returned(batch, activation):
    x, w, b, dy = batch
    y, saved = F.dense_forward(x, w, b, activation)
    given = np.full_like(y, np.nan), np.full_like(y, np.nan)
    got, kept = F.dense_forward(x, w, b, activation, out=given)
    assert got is given[0]
    assert kept is given[1 if activation == "gelu" else 0]
    np.testing.assert_array_equal(got, y)
    np.testing.assert_array_equal(kept, saved)

    expected = F.dense_backward(dy, x, w, saved, activation)
    out = tuple(np.full_like(gradient, np.nan) for gradient in expected)
    gradients = F.dense_backward(dy, x, w, saved, activation, out=out)
    for actual, own, gradient in zip(gradients, out, expected, strict=True):
        assert actual is own
        np.testing.assert_array_equal(actual, gradient)


def test_a_bare_array_is_the_first_output(batch):
    x, w, b, dy = batch
    y, dx = np.empty((5, 2)), np.empty((5, 3))
    got, saved = F.dense_forward(x, w, b, out=y)
    assert got is y
    assert F.dense_backward(dy, x, w, saved, out=dx)[0] is dx


def test_none_in_out_is_allocated(batch):
    x, w, b, dy = batch
    db = np.empty(2)
    _, saved = F.dense_forward(x, w, b, "sin", out=(None, np.empty((5, 2))))
    dx, dw, got = F.dense_backward(dy, x, w, saved, "sin", out=(None, None, db))
    assert got is db
    assert dx.shape == x.shape
    assert dw.shape == w.shape


def test_too_many_outputs(batch):
    x, w, b, dy = batch
    text = "out: expected at most (y, saved), got 3 arrays"
    refuses(ValueError, text, F.dense_forward, x, w, b, out=(None, None, None))
    text = "out: expected at most (dx, dw, db), got 4 arrays"
    refuses(ValueError, text, F.dense_backward, dy, x, w, dy, out=(None,) * 4)


BAD_OUTPUTS = {
    "list": (lambda: [0.0], TypeError, "y: expected a NumPy array, got list"),
    "shape": (lambda: np.ones((5, 3)), ValueError, "y: expected shape (5, 2), got (5, 3)"),
    "dtype": (
        lambda: np.ones((5, 2), np.float32),
        TypeError,
        "y: expected float64 like the other arrays, got float32",
    ),
    "read-only": (
        lambda: locked(np.ones((5, 2))),
        ValueError,
        "y: expected a writable array, got a read-only one; pass y.copy()",
    ),
    "strided": (
        lambda: np.ones((10, 2))[::2],
        ValueError,
        "y: expected a C-contiguous array, got a strided view",
    ),
}


@pytest.mark.parametrize("kind", BAD_OUTPUTS)
def test_bad_output(batch, kind):
    x, w, b, _ = batch
    make, error, text = BAD_OUTPUTS[kind]
    refuses(error, text, F.dense_forward, x, w, b, out=make())


def test_outputs_have_memory_of_their_own(batch):
    _, _, b, dy = batch
    x, w = np.ones((5, 2)), np.ones((2, 2))
    shared = "expected memory of its own, got memory shared with an input or another output"
    one, other = np.ones((5, 2)), np.ones((7, 2))
    refuses(ValueError, f"y: {shared}", F.dense_forward, x, w, b, out=x)
    refuses(ValueError, f"saved: {shared}", F.dense_forward, x, w, b, "gelu", out=(one, one))
    refuses(ValueError, f"saved: {shared}", F.dense_forward, x, w, b, "sin", out=(None, x))
    refuses(ValueError, f"y: {shared}", F.dense_forward, other[:5], w, b, out=other[2:])

    for out in [(x, None, None), (dy, None, None), (one, one[:2], None), (one, None, one[3])]:
        refuses(ValueError, f"dx: {shared}", F.dense_backward, dy, x, w, one * 2, out=out)
    refuses(ValueError, f"dw: {shared}", F.dense_backward, dy, x, w, one, out=(None, w, None))
    refuses(ValueError, f"db: {shared}", F.dense_backward, dy, x, w, one, out=(None, None, w[0]))
    square = np.ones((2, 2))
    out = (None, square, square[1])
    refuses(ValueError, f"db: {shared}", F.dense_backward, dy, x, w, one, out=out)


def test_saved_in_out_is_not_used_by_activations_that_keep_y(batch):
    x, w, b, _ = batch
    unused = np.full((5, 2), 7.0)
    y, saved = F.dense_forward(x, w, b, "relu", out=(None, unused))
    assert saved is y
    assert (unused == 7).all()


# Dense layers: bad arguments


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"x": np.ones((5, 4))}, ValueError, "x: expected shape (n, 3), got (5, 4)"),
        ({"x": np.ones(3)}, ValueError, "x: expected shape (n, 3), got (3,)"),
        ({"x": np.ones((5, 3), np.float32)}, TypeError, "x: expected float64 like the other"),
        ({"x": np.ones((5, 3), int)}, TypeError, "x: expected float64 like the other arrays, got"),
        ({"x": np.ones((5, 3), ">f8")}, TypeError, "x: expected float64 like the other arrays"),
        ({"x": np.ones((3, 5)).T}, ValueError, "x: expected a C-contiguous array, got an F-order"),
        ({"x": [[1.0, 2.0, 3.0]]}, TypeError, "pass np.asarray(x, dtype=np.float64)"),
        ({"w": np.ones(3)}, ValueError, "w: expected shape (k, m), got (3,)"),
        ({"w": np.ones((3, 2), int)}, TypeError, "w: expected float32 or float64, got int64"),
        ({"w": None}, TypeError, "w: expected a NumPy array, got NoneType"),
        ({"b": np.ones(3)}, ValueError, "b: expected shape (2,), got (3,)"),
        ({"b": np.ones((1, 2))}, ValueError, "b: expected shape (2,), got (1, 2)"),
        ({"b": 1.0}, TypeError, "b: expected a NumPy array, got float"),
        (
            {"activation": "ReLU"},
            ValueError,
            "activation: expected one of identity, relu, leaky_relu, elu, sigmoid, tanh, softplus, "
            "silu, gelu, gelu_tanh, sin; got 'ReLU'",
        ),
        ({"activation": None}, ValueError, "activation: expected one of identity, relu,"),
    ],
)
def test_forward_refuses(batch, changed, error, text):
    x, w, b, _ = batch
    arguments = {"x": x, "w": w, "b": b, "activation": "relu"} | changed
    refuses(error, text, F.dense_forward, **arguments)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"dy": np.ones((4, 2))}, ValueError, "dy: expected shape (5, 2), got (4, 2)"),
        ({"dy": np.ones((5, 2), np.float32)}, TypeError, "dy: expected float64 like the other"),
        ({"dy": np.ma.ones((5, 2))}, TypeError, "dy: expected a plain NumPy array, got Masked"),
        ({"saved": np.ones((5, 3))}, ValueError, "saved: expected shape (5, 2), got (5, 3)"),
        ({"saved": np.ones((2, 5)).T}, ValueError, "saved: expected a C-contiguous array, got an"),
        ({"x": np.ones((5, 2))}, ValueError, "x: expected shape (n, 3), got (5, 2)"),
        ({"w": np.ones((3, 2, 1))}, ValueError, "w: expected shape (k, m), got (3, 2, 1)"),
        ({"activation": "softmax"}, ValueError, "got 'softmax'"),
        ({"out": (np.ones((5, 2)),)}, ValueError, "dx: expected shape (5, 3), got (5, 2)"),
        ({"out": (None, np.ones((2, 3)))}, ValueError, "dw: expected shape (3, 2), got (2, 3)"),
        ({"out": (None, None, np.ones(3))}, ValueError, "db: expected shape (2,), got (3,)"),
    ],
)
def test_backward_refuses(batch, changed, error, text):
    x, w, _, dy = batch
    arguments = {"dy": dy, "x": x, "w": w, "saved": np.ones((5, 2)), "activation": "relu"} | changed
    refuses(error, text, F.dense_backward, **arguments)


# Losses: results


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_that_of_the_reference(outputs, name, weighted):
    y, t = outputs
    s = np.array([0.0, 1.0, 2.0, 0.5, 3.0]) if weighted else None
    loss, dy = LOSSES[name](y, t, s)
    expected_dy = np.full_like(y, np.nan)
    delta = (1.0,) if name == "huber" else ()
    kernel = getattr(reference, name)
    expected = kernel(y, t, *delta, np.empty(0) if s is None else s, expected_dy)
    assert type(loss) is float
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    np.testing.assert_allclose(dy, expected_dy, rtol=1e-12, atol=1e-16)


def test_huber_takes_delta(outputs):
    y, t = outputs
    d = np.abs(y - t)
    rows = np.where(d <= 0.25, d * d / 2, 0.25 * (d - 0.125)).sum(axis=1)
    loss, dy = F.huber(y, t, delta=0.25)
    np.testing.assert_allclose(loss, rows.mean(), rtol=1e-13)
    np.testing.assert_allclose(dy, np.clip(y - t, -0.25, 0.25) / 5, rtol=1e-13)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_labels_are_one_hot_rows(outputs, kind):
    z, _ = outputs
    labels = np.array([0, 2, 1, 1, 0])
    expected, expected_dz = F.softmax_cross_entropy(z, np.eye(3)[labels])
    loss, dz = F.softmax_cross_entropy(z, locked(labels.astype(kind)))
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    np.testing.assert_allclose(dz, expected_dz, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("name", ["squared_error", "huber", "binary_cross_entropy"])
def test_targets_of_one_output_may_be_flat(outputs, name):
    y, t = outputs[0][:, :1].copy(), outputs[1][:, :1].copy()
    loss, dy = LOSSES[name](y, t.ravel())
    expected, expected_dy = LOSSES[name](y, t)
    assert loss == expected
    np.testing.assert_array_equal(dy, expected_dy)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_an_empty_batch(name):
    for weights in (None, np.empty(0)):
        loss, dy = LOSSES[name](np.empty((0, 3)), np.empty((0, 3)), weights)
        assert loss == 0
        assert dy.shape == (0, 3)


def test_labels_of_an_empty_batch():
    loss, dz = F.softmax_cross_entropy(np.empty((0, 3)), np.empty(0, np.int64))
    assert loss == 0
    assert dz.shape == (0, 3)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_fills_out_and_takes_read_only_inputs(outputs, name):
    y, t = outputs
    s, out = np.arange(1.0, 6.0), np.full_like(y, np.nan)
    expected, expected_dy = LOSSES[name](y, t, s)
    compiled = len(getattr(cpu, name).signatures)
    loss, dy = LOSSES[name](locked(y), locked(t), locked(s), out)
    assert loss == expected
    assert dy is out
    np.testing.assert_array_equal(dy, expected_dy)
    assert len(getattr(cpu, name).signatures) == compiled


def test_masked_classes_may_have_logits_of_minus_infinity():
    loss, dz = F.softmax_cross_entropy(np.array([[0.0, -np.inf, 0.0]]), np.array([2]))
    np.testing.assert_allclose(loss, np.log(2))
    np.testing.assert_allclose(dz, [[0.5, 0.0, -0.5]])


@pytest.mark.parametrize("name", LOSSES)
def test_good_data_are_answered_without_warnings(name):
    # The largest numbers of float32 overflow on the way: stable formulas do not care.
    y = np.array([[3e4, -3e4, 0.0]], np.float32)
    t = np.array([[0.0, 1.0, 0.0]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss, dy = LOSSES[name](y, t)
    assert np.isfinite(loss)
    assert np.isfinite(dy).all()


# Losses: bad arguments


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_loss_names_the_row_that_is_not_finite(outputs, name, bad):
    y, t = outputs
    spoilt, spoilt_t, s = y.copy(), t.copy(), np.ones(5)
    spoilt[3:, 1] = spoilt_t[2:, 1] = bad
    text = "expected finite numbers, got NaN or infinity, first in row"
    refuses(ValueError, f"{INPUT[name]}: {text} 3", LOSSES[name], spoilt, t)
    refuses(ValueError, f"t: {text} 2", LOSSES[name], y, spoilt_t)
    if bad != -np.inf:  # that is a negative weight
        s[4] = bad
        refuses(ValueError, f"sample_weight: {text} 4", LOSSES[name], y, t, s)


def test_an_infinite_logit_is_named_for_labels_too():
    text = "z: expected finite numbers, got NaN or infinity, first in row 1"
    for bad in (np.nan, np.inf):
        z = np.array([[0.0, 0.0], [0.0, bad]])
        refuses(ValueError, text, F.softmax_cross_entropy, z, np.array([0, 0]))


@pytest.mark.parametrize("bad", [-1, 3, -(2**40), 2**40])
def test_label_out_of_range(outputs, bad):
    labels = np.array([0, 1, bad, 2, bad])
    text = f"t: expected labels in 0..2, got {bad} in row 2"
    refuses(ValueError, text, F.softmax_cross_entropy, outputs[0], labels)


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_binary_target_out_of_range(outputs, bad):
    z, t = outputs[0], np.ones((5, 3))
    t[1, 2] = t[4, 0] = bad
    text = "t: expected targets in [0, 1], got others, first in row 1"
    refuses(ValueError, text, F.binary_cross_entropy, z, t)


def test_a_bad_row_of_weight_zero_is_reported_all_the_same(outputs):
    z, s = outputs[0], np.array([0.0, 1.0, 1.0, 1.0, 1.0])
    text = "t: expected labels in 0..2, got 7 in row 0"
    refuses(ValueError, text, F.softmax_cross_entropy, z, np.array([7, 1, 1, 1, 1]), s)


BAD_LABELS = {
    "floats": (
        np.array([0.0, 1.0, 2.0]),
        TypeError,
        "t: expected integer labels (n,) or float targets (n, m), got float64 of shape (3,); "
        "pass t.astype(np.int64) for labels",
    ),
    "booleans": (np.zeros(3, bool), TypeError, "got bool of shape (3,)"),
    "objects": (np.zeros(3, object), TypeError, "got object of shape (3,)"),
    "list": ([0, 1, 2], TypeError, "t: expected a NumPy array, got list"),
    "masked": (
        np.ma.array([0, 1, 2]),
        TypeError,
        "t: expected a plain NumPy array, got MaskedArray; fill the masked entries",
    ),
    "length": (np.zeros(4, int), ValueError, "t: expected labels of shape (3,), got (4,)"),
    "column": (np.zeros((3, 1), int), ValueError, "t: expected labels of shape (3,), got (3, 1)"),
    "strided": (
        np.zeros(6, np.int64)[::2],
        ValueError,
        "t: expected contiguous, aligned labels of native byte order, got int64 with strides "
        "(16,); pass t.astype(np.int64)",
    ),
    "big-endian": (np.zeros(3, ">i8"), ValueError, "labels of native byte order, got >i8 with"),
    "unaligned": (
        np.zeros(25, np.uint8)[1:].view(np.int64),
        ValueError,
        "t: expected contiguous, aligned labels",
    ),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels(kind):
    labels, error, text = BAD_LABELS[kind]
    refuses(error, text, F.softmax_cross_entropy, np.zeros((3, 3)), labels)


@pytest.mark.parametrize("kind", ["strided", "big-endian", "unaligned"])
def test_the_way_out_for_labels_works(kind):
    labels, _, _ = BAD_LABELS[kind]
    loss, _ = F.softmax_cross_entropy(np.zeros((3, 3)), labels.astype(np.int64))
    np.testing.assert_allclose(loss, np.log(3))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"t": np.ones((5, 2))}, ValueError, "t: expected shape (5, 3), got (5, 2)"),
        ({"t": np.ones((4, 3))}, ValueError, "t: expected shape (5, 3), got (4, 3)"),
        ({"t": np.ones((5, 3), np.float32)}, TypeError, "t: expected float64 like the other"),
        ({"t": np.ones((3, 5)).T}, ValueError, "t: expected a C-contiguous array, got an F-order"),
        ({"sample_weight": np.ones(4)}, ValueError, "sample_weight: expected shape (5,), got (4,)"),
        ({"sample_weight": np.ones(5, int)}, TypeError, "sample_weight: expected float64 like"),
        ({"sample_weight": [1] * 5}, TypeError, "sample_weight: expected a NumPy array, got list"),
        (
            {"sample_weight": np.array([1.0, 1.0, -1.0, 1.0, 1.0])},
            ValueError,
            "sample_weight: expected weights >= 0 with a sum > 0",
        ),
        (
            {"sample_weight": np.zeros(5)},
            ValueError,
            "sample_weight: expected weights >= 0 with a sum > 0",
        ),
        ({"out": np.ones((5, 2))}, ValueError, "out: expected shape (5, 3), got (5, 2)"),
        ({"out": locked(np.ones((5, 3)))}, ValueError, "out: expected a writable array, got a"),
    ],
)
def test_loss_refuses(outputs, name, changed, error, text):
    y, t = outputs
    refuses(error, text, LOSSES[name], y, **({"t": t} | changed))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_refuses_bad_outputs(outputs, name):
    y, t = outputs
    own = INPUT[name]
    shared = "out: expected memory of its own, got memory shared with an input"
    refuses(ValueError, f"{own}: expected shape (n, m), got (3,)", LOSSES[name], y[0], t)
    text = f"{own}: expected float32 or float64, got int64"
    refuses(TypeError, text, LOSSES[name], y.astype(np.int64), t)
    refuses(ValueError, shared, LOSSES[name], y, t, out=y)
    refuses(ValueError, shared, LOSSES[name], y, t, out=t)


@pytest.mark.parametrize("name", ["squared_error", "half_squared_error", "huber"])
def test_integer_targets_are_labels_only_for_softmax(outputs, name):
    text = "t: expected float64 like the other arrays, got int64; pass t.astype(np.float64)"
    refuses(TypeError, text, LOSSES[name], outputs[0], np.ones((5, 3), int))


@pytest.mark.parametrize(
    ("delta", "error", "text"),
    [
        (0, ValueError, "delta: expected a finite number > 0, got 0"),
        (-1.0, ValueError, "delta: expected a finite number > 0, got -1"),
        (np.nan, ValueError, "delta: expected a finite number > 0, got nan"),
        ("1", TypeError, "delta: expected a number, got str"),
        (True, TypeError, "delta: expected a number, got bool"),
    ],
)
def test_huber_refuses_delta(outputs, delta, error, text):
    refuses(error, text, F.huber, *outputs, delta=delta)
