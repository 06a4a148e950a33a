"""dense_forward and dense_backward: the reference, differences, and sums of products by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbp.kernels import codes, cpu, reference
from fastbp.kernels.cpu import engines

CODES = codes.ACTIVATIONS

# (n, k, m): zero rows, ones, around 64 and, for n, around 256 and 512.
SHAPES = [
    (0, 3, 2),
    (1, 1, 1),
    (1, 64, 65),
    (2, 129, 1),
    (63, 1, 64),
    (63, 65, 64),
    (64, 63, 65),
    (64, 64, 64),
    (65, 64, 1),
    (65, 64, 63),
    (255, 17, 9),
    (256, 5, 33),
    (257, 9, 17),
    (513, 7, 31),
    (1100, 3, 2),
]
LONG = [  # in k or m; around what the engines cut: 16 and 512 rows, 4096 and 2**14 elements
    (7, 300, 20), (20, 7, 513), (3, 1030, 70), (70, 2, 1030), (260, 515, 34), (515, 3, 1030),
    (17, 2, 4100), (1000, 3, 33),
    (9, 257, 256), (23, 1030, 70), (55, 300, 225), (56, 300, 225),  # y in two sums
    (31, 64, 3), (130, 65, 2), (600, 100, 4), (129, 256, 10), (129, 256, 17),  # few outputs
    (40, 4100, 4),
    (70, 100, 36), (130, 65, 65), (600, 300, 74),  # few outputs beyond whole panels
]  # fmt: skip
FEW = [(1, 1, 1), (65, 64, 63), (257, 9, 17)]


def operands(n, k, m, dtype=np.float64, seed=0):
    """x, w, b, dy, scaled so that z and all gradients are of size one."""
    rng = np.random.default_rng([seed, n, k, m])
    x = rng.standard_normal((n, k))
    w = rng.standard_normal((k, m)) / np.sqrt(k)
    b = rng.standard_normal(m) / 2
    dy = rng.standard_normal((n, m)) / np.sqrt(max(n, 1))
    return tuple(a.astype(dtype) for a in (x, w, b, dy))


def nans(*shape, like):
    return np.full(shape, np.nan, like.dtype)


def on_blas(kernel):
    """The kernel with the engine forced to BLAS for the time of a call."""

    def call(*arguments):
        before = engines.choices.copy()
        engines.choices[...] = -1
        try:
            return kernel(*arguments)
        finally:
            engines.choices[...] = before

    return call


# Each engine of the CPU's is a twin of its own here; without a measured table `cpu` is the tiles.
LAYERS = [name for name in cpu.__all__ if name.startswith("dense_")]
BLAS = SimpleNamespace(**{name: on_blas(getattr(cpu, name)) for name in LAYERS})
TWINS = {"reference": reference, "tiles": cpu, "blas": BLAS}


@pytest.fixture(scope="session", params=TWINS)
def kernels(request):
    return TWINS[request.param]


@pytest.fixture(
    scope="session",
    params=[
        *((name, dtype) for name in ("tiles", "blas") for dtype in (np.float64, np.float32)),
        ("reference", np.float32),
    ],
    ids=lambda param: f"{param[0]}-{np.dtype(param[1])}",
)
def candidate(request):
    """(kernels, dtype) of all that is measured against the reference in float64."""
    name, dtype = request.param
    return TWINS[name], np.dtype(dtype)


@pytest.fixture(scope="session")
def forward(launch):
    """forward(kernels, activation, x, w, b, keep_z): z and y, z empty unless it is kept."""

    def dense_forward(kernels, activation, x, w, b, keep_z=True):
        (n, k), m = x.shape, w.shape[1]
        work = nans(kernels.dense_forward_work(n, k, m), like=x)
        z = nans(n, m, like=x) if keep_z else nans(0, 0, like=x)
        _, _, z, y = launch(
            kernels.dense_forward, x, w, b, CODES[activation], out=[work, z, nans(n, m, like=x)]
        )
        return z, y

    return dense_forward


@pytest.fixture(scope="session")
def backward(launch):
    """backward(kernels, activation, dy, x, w, saved, bias, need_dx): dw, db, dx, maybe empty."""

    def dense_backward(kernels, activation, dy, x, w, saved, bias=True, need_dx=True):
        (n, k), m = x.shape, w.shape[1]
        work = nans(kernels.dense_backward_work(n, k, m), like=x)
        db = nans(m if bias else 0, like=x)
        dx = nans(n, k, like=x) if need_dx else nans(0, 0, like=x)
        _, _, dw, db, dx = launch(
            kernels.dense_backward,
            *(dy, x, w, saved, CODES[activation]),
            out=[work, nans(k, m, like=w), db, dx],
        )
        return dw, db, dx

    return dense_backward


def saved_by(activation, z, y):
    """What the forward pass keeps for the backward pass."""
    return z if CODES[activation] in codes.KEEPS_Z else y


def double(*arrays):
    return (a.astype(np.float64) for a in arrays)


def check_forward(candidate, activation, shape, forward, close):
    kernels, dtype = candidate
    x, w, b, _ = operands(*shape, dtype)
    z, y = forward(kernels, activation, x, w, b)
    expected_z, expected_y = forward(reference, activation, *double(x, w, b))
    close(z, expected_z)
    close(y, expected_y)
    _, y = forward(kernels, activation, x, w, b, keep_z=False)
    close(y, expected_y)


def check_backward(candidate, activation, shape, forward, backward, close):
    kernels, dtype = candidate
    x, w, b, dy = operands(*shape, dtype)
    saved = saved_by(activation, *forward(reference, activation, x, w, b))
    gradients = backward(kernels, activation, dy, x, w, saved)
    expected = backward(reference, activation, *double(dy, x, w, saved))
    for actual, wanted in zip(gradients, expected, strict=True):
        close(actual, wanted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_equals_reference(candidate, activation, shape, forward, close):
    check_forward(candidate, activation, shape, forward, close)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward_equals_reference(candidate, activation, shape, forward, backward, close):
    check_backward(candidate, activation, shape, forward, backward, close)


@pytest.mark.parametrize("name", ["identity", "relu", "gelu"])
@pytest.mark.parametrize("shape", LONG, ids=str)
def test_long_rows_equal_reference(candidate, name, shape, forward, backward, close):
    check_forward(candidate, name, shape, forward, close)
    check_backward(candidate, name, shape, forward, backward, close)


def test_sums_of_products(kernels, dtype, forward, backward, close):
    # Loops over Python floats: no product of matrices and no kernel checks itself.
    n, k, m = 4, 3, 2
    x, w, b, dy = operands(n, k, m, dtype)
    _, y = forward(kernels, "tanh", x, w, b)
    dw, db, dx = backward(kernels, "tanh", dy, x, w, y)
    x, w, b, dy = (a.tolist() for a in (x, w, b, dy))
    z = [[sum(x[i][p] * w[p][j] for p in range(k)) + b[j] for j in range(m)] for i in range(n)]
    dz = [[dy[i][j] / np.cosh(z[i][j]) ** 2 for j in range(m)] for i in range(n)]
    close(y, np.tanh(z))
    close(dw, [[sum(x[i][p] * dz[i][j] for i in range(n)) for j in range(m)] for p in range(k)])
    close(db, [sum(dz[i][j] for i in range(n)) for j in range(m)])
    close(dx, [[sum(dz[i][j] * w[p][j] for j in range(m)) for p in range(k)] for i in range(n)])


def test_numbers_by_hand(kernels, dtype, forward, backward):
    x = np.array([[1, 2], [3, 4]], dtype)
    w = np.array([[1, 0, -1], [2, 1, 0]], dtype)
    b = np.array([10, 20, 2], dtype)
    z, y = forward(kernels, "relu", x, w, b)
    np.testing.assert_array_equal(z, [[15, 22, 1], [21, 24, -1]])
    np.testing.assert_array_equal(y, [[15, 22, 1], [21, 24, 0]])
    dw, db, dx = backward(kernels, "relu", np.ones_like(y), x, w, y)
    np.testing.assert_array_equal(dw, [[4, 4, 1], [6, 6, 2]])
    np.testing.assert_array_equal(db, [2, 2, 1])
    np.testing.assert_array_equal(dx, [[0, 3], [1, 3]])


def test_gradients_equal_differences(kernels, activation, forward, backward, slopes):
    x, w, b, dy = operands(5, 4, 3)

    def loss():
        return np.sum(dy * forward(kernels, activation, x, w, b)[1])

    z, y = forward(kernels, activation, x, w, b)
    assert np.abs(z).min() > 1e-3, "a step of the differences would cross the kink"
    gradients = backward(kernels, activation, dy, x, w, saved_by(activation, z, y))
    for gradient, operand in zip(gradients, (w, b, x), strict=True):
        np.testing.assert_allclose(gradient, slopes(loss, operand), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(0, 3, 2), *FEW], ids=str)
@pytest.mark.parametrize("name", ["identity", "relu", "gelu"])
def test_absent_bias_is_a_bias_of_zeros(kernels, dtype, name, shape, forward, backward, close):
    x, w, b, dy = operands(*shape, dtype)
    z, y = forward(kernels, name, x, w, np.zeros_like(b))
    without_z, without_y = forward(kernels, name, x, w, b[:0])
    close(without_z, z)
    close(without_y, y)
    saved = saved_by(name, z, y)
    dw, _, dx = backward(kernels, name, dy, x, w, saved)
    without_dw, without_db, without_dx = backward(kernels, name, dy, x, w, saved, bias=False)
    close(without_dw, dw)
    close(without_dx, dx)
    assert without_db.size == 0


@pytest.mark.parametrize("shape", [(0, 3, 2), *FEW], ids=str)
def test_absent_z_changes_nothing_else(kernels, dtype, activation, shape, forward):
    x, w, b, _ = operands(*shape, dtype)
    _, y = forward(kernels, activation, x, w, b)
    _, alone = forward(kernels, activation, x, w, b, keep_z=False)
    np.testing.assert_array_equal(alone, y)


@pytest.mark.parametrize("shape", [(0, 3, 2), (600, 9, 17), (600, 70, 3), *FEW], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_gradients_are_added(kernels, dtype, shape, bias, launch, forward, backward, close):
    x, w, b, dy = operands(*shape, dtype)
    saved = saved_by("tanh", *forward(kernels, "tanh", x, w, b))
    dw, db, dx = backward(kernels, "tanh", dy, x, w, saved, bias)
    work = nans(kernels.dense_backward_work(*shape), like=x)
    inputs = dy, x, w, saved, CODES["tanh"]
    out = [work, w.copy(), b.copy() if bias else b[:0], np.full_like(x, np.nan)]
    _, _, more_dw, more_db, again_dx = launch(kernels.dense_backward_add, *inputs, out=out)
    close(more_dw, w + dw)
    close(more_db, b + db if bias else db)
    np.testing.assert_array_equal(again_dx, dx)


@pytest.mark.parametrize("shape", [(0, 3, 2), *FEW], ids=str)
def test_absent_dx_changes_nothing_else(kernels, dtype, activation, shape, forward, backward):
    x, w, b, dy = operands(*shape, dtype)
    saved = saved_by(activation, *forward(kernels, activation, x, w, b))
    dw, db, _ = backward(kernels, activation, dy, x, w, saved)
    alone_dw, alone_db, _ = backward(kernels, activation, dy, x, w, saved, need_dx=False)
    np.testing.assert_array_equal(alone_dw, dw)
    np.testing.assert_array_equal(alone_db, db)


@pytest.mark.parametrize("bias", [True, False])
def test_no_rows_give_zero_gradients(kernels, dtype, activation, bias, forward, backward):
    x, w, b, dy = operands(0, 65, 3, dtype)
    saved = saved_by(activation, *forward(kernels, activation, x, w, b))
    dw, db, dx = backward(kernels, activation, dy, x, w, saved, bias=bias)
    np.testing.assert_array_equal(dw, np.zeros((65, 3)))
    np.testing.assert_array_equal(db, np.zeros(3 if bias else 0))
    assert dx.shape == (0, 65)


@pytest.mark.parametrize("shape", FEW, ids=str)
def test_work_may_be_longer_than_needed(kernels, dtype, shape, forward, launch, backward):
    x, w, b, dy = operands(*shape, dtype)
    _, y = forward(kernels, "tanh", x, w, b)
    n, k, m = shape
    work = nans(kernels.dense_backward_work(n, k, m) + 5, like=x)
    _, _, *gradients = launch(
        kernels.dense_backward,
        *(dy, x, w, y, CODES["tanh"]),
        out=[work, np.empty_like(w), np.empty_like(b), np.empty_like(x)],
    )
    for actual, expected in zip(gradients, backward(kernels, "tanh", dy, x, w, y), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shape", [(257, 65, 33), (64, 64, 64)], ids=str)
def test_same_call_gives_same_bits(kernels, dtype, shape, forward, backward):
    x, w, b, dy = operands(*shape, dtype)

    def bits():
        _, y = forward(kernels, "tanh", x, w, b)
        return [a.tobytes() for a in (y, *backward(kernels, "tanh", dy, x, w, y))]

    first = bits()
    assert all(bits() == first for _ in range(3))


@pytest.mark.parametrize("name", ["identity", "relu"])
@pytest.mark.parametrize("keep_z", [True, False], ids=["z", "no z"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("n", "row"), [(3, 1), (257, 0), (257, 255), (257, 256)])
def test_nan_and_inf_stay_in_their_row(
    kernels, dtype, name, keep_z, bad, n, row, forward, backward
):
    x, w, b, dy = operands(n, 5, 4, dtype)
    x[row, 2] = bad
    w[2] = np.abs(w[2])  # inf times w is then inf, and relu keeps it
    with np.errstate(invalid="ignore"):  # NumPy's product may pass by inf * 0 or inf - inf
        _, y = forward(kernels, name, x, w, b, keep_z)
        dw, db, dx = backward(kernels, name, dy, x, w, y)
    np.testing.assert_array_equal(y[row], np.full(4, bad))
    assert np.isfinite(np.delete(y, row, axis=0)).all()
    assert np.isfinite(np.delete(dw, 2, axis=0)).all()
    assert np.isfinite(db).all()
    assert np.isfinite(dx).all()
    assert not np.isfinite(dw[2]).any()


@pytest.mark.parametrize("operand", ["w", "b"])
@pytest.mark.parametrize("n", [3, 257])
def test_nan_in_parameters_reaches_its_column(kernels, dtype, activation, operand, n, forward):
    x, w, b, _ = operands(n, 5, 4, dtype)
    (w[2] if operand == "w" else b)[1] = np.nan
    for keep_z in (True, False):
        _, y = forward(kernels, activation, x, w, b, keep_z)
        assert np.isnan(y[:, 1]).all()
        assert np.isfinite(np.delete(y, 1, axis=1)).all()


@pytest.mark.parametrize("row", [0, 255, 256])
def test_nan_in_dy_reaches_every_gradient(kernels, dtype, activation, row, forward, backward):
    x, w, b, dy = operands(257, 5, 4, dtype)
    dy[row, 1] = np.nan
    saved = saved_by(activation, *forward(kernels, activation, x, w, b))
    dw, db, dx = backward(kernels, activation, dy, x, w, saved)
    assert np.isnan(dw[:, 1]).all()
    assert np.isnan(db[1])
    assert np.isnan(dx[row]).all()
    assert np.isfinite(np.delete(dw, 1, axis=1)).all()
    assert np.isfinite(np.delete(db, 1)).all()
    assert np.isfinite(np.delete(dx, row, axis=0)).all()


def test_work_does_not_grow_with_the_batch():
    # The contract: dz exists for one panel of rows. The reference, as NumPy does, keeps them all.
    sizes = [cpu.dense_backward_work(n, 65, 63) for n in (0, 10**5, 10**7)]
    assert all(isinstance(size, int) for size in sizes)
    assert 0 <= sizes[0] <= sizes[1] == sizes[2] < 63 * 10**5


@given(
    shape=st.tuples(st.integers(0, 70), st.integers(1, 70), st.integers(1, 70)),
    name=st.sampled_from(sorted(CODES)),
    size=st.sampled_from([1e-6, 1.0, 30.0]),
    bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_equals_reference(
    candidate, forward, backward, tolerance, shape, name, size, bias, seed
):
    kernels, dtype = candidate
    x, w, b, dy = operands(*shape, dtype, seed)
    x *= dtype.type(size)
    b = b if bias else b[:0]
    z, y = forward(kernels, name, x, w, b)
    saved = saved_by(name, z, y)
    dw, db, dx = backward(kernels, name, dy, x, w, saved, bias=bias)

    expected_z, expected_y = forward(reference, name, *double(x, w, b))
    expected = backward(reference, name, *double(dy, x, w, saved), bias=bias)
    allowed = tolerance[dtype]
    # y moves with z: |f'| < 1.2 for every activation.
    np.testing.assert_allclose(z, expected_z, rtol=0, atol=allowed * (1 + size))
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=2 * allowed * (1 + size))
    for actual, wanted, scale in zip((dw, db, dx), expected, (size, 1, 1), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=allowed, atol=allowed * (1 + scale))
