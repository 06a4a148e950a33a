"""dense_forward and dense_backward beside the reference, at the edges of tiles and of sweeps."""

import numpy as np
import pytest

from fastbp.kernels import codes, cuda, reference
from fastbp.kernels.cuda import blocks, dense, target

CODES = codes.ACTIVATIONS
SIMULATED = target.SIMULATED

# (n, k, m). Simulated tiles have 8 x 8 or 16 x 8 elements, sweeps panels of 4 rows, 8 inputs and 4
# or 8 outputs; beyond 16 inputs a layer is wide. On a GPU each of these is 8 to 32 times larger.
SWEPT = [(1, 1, 1), (5, 3, 2), (9, 9, 8), (13, 20, 3)]
TILED = [(1, 17, 5), (9, 17, 13), (11, 20, 8)]
EMPTY = [(0, 3, 2), (0, 20, 8)]
if not SIMULATED:
    SWEPT += [
        (63, 31, 32), (64, 32, 33), (65, 64, 64), (1000, 65, 63), (257, 128, 127), (513, 129, 128),
        (2000, 256, 10), (300, 256, 256), (100, 255, 129), (70000, 32, 32), (40, 1000, 10),
    ]  # fmt: skip
    TILED += [
        (64, 300, 64), (127, 257, 129), (128, 512, 128), (1, 1024, 1000), (1000, 784, 512),
        (129, 1030, 70), (2049, 300, 260), (300, 64, 1100), (1025, 1023, 1021),
    ]  # fmt: skip
SHAPES = EMPTY + SWEPT + TILED
FEW = [(5, 3, 2), (9, 17, 13)]


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


def double(*arrays):
    return (a.astype(np.float64) for a in arrays)


def forward_by_reference(activation, x, w, b):
    y = nans(len(x), w.shape[1], like=x)
    z = y.copy()
    reference.dense_forward(x, w, b, CODES[activation], x[:0, 0], z, y)
    return z, y


def backward_by_reference(activation, dy, x, w, saved):
    work = nans(reference.dense_backward_work(*x.shape, w.shape[1]), like=x)
    dw, db, dx = np.empty_like(w), np.empty_like(w[0]), np.empty_like(x)
    reference.dense_backward(dy, x, w, saved, CODES[activation], work, dw, db, dx)
    return dw, db, dx


def problem(shape, activation, dtype):
    """x, w, b, dy, z, y, saved of a layer, and its gradients dw, db, dx; results in float64."""
    x, w, b, dy = operands(*shape, dtype)
    z, y = forward_by_reference(activation, *double(x, w, b))
    saved = (z if CODES[activation] in codes.KEEPS_Z else y).astype(dtype)
    return x, w, b, dy, z, y, saved, backward_by_reference(activation, *double(dy, x, w, saved))


def check(shape, activation, dtype, pad, launch, close):
    x, w, b, dy, z, y, saved, gradients = problem(shape, activation, dtype)
    code, out = CODES[activation], [x[:0, 0], nans(*y.shape, like=x), nans(*y.shape, like=x)]
    _, _, actual_z, actual_y = launch(cuda.dense_forward, x, w, b, code, out=out, pad=pad)
    close(actual_z, z)
    close(actual_y, y)
    work = nans(cuda.dense_backward_work(*shape), like=x)
    out = [work, nans(*w.shape, like=x), nans(*b.shape, like=x), nans(*x.shape, like=x)]
    _, _, *actual = launch(cuda.dense_backward, dy, x, w, saved, code, out=out, pad=pad)
    for gradient, expected in zip(actual, gradients, strict=True):
        close(gradient, expected)


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(shape, name, dtype, pad, launch, close):
    check(shape, name, dtype, pad, launch, close)


@pytest.mark.parametrize("shape", [(5, 3, 2), (3, 17, 5)], ids=["swept", "tiled"])
def test_every_activation_equals_reference(shape, activation, dtype, launch, close):
    check(shape, activation, dtype, 64, launch, close)


@pytest.mark.parametrize("shape", FEW, ids=str)
def test_left_out_operands_change_nothing_else(shape, dtype, launch, close):
    x, w, b, dy, *_, y, saved, _ = problem(shape, "tanh", dtype)
    code, none = CODES["tanh"], np.empty((0, 0), dtype)
    _, _, _, alone = launch(
        cuda.dense_forward, x, w, b[:0], code, out=[b[:0], none, nans(*y.shape, like=x)]
    )
    close(alone, forward_by_reference("tanh", *double(x, w, 0 * b))[1])
    work = nans(cuda.dense_backward_work(*shape), like=x)

    def gradients(db, dx):
        out = [work, nans(*w.shape, like=x), db, dx]
        return launch(cuda.dense_backward, dy, x, w, saved, code, out=out)[2:]

    dw, db, dx = gradients(nans(*b.shape, like=x), nans(*x.shape, like=x))
    without_db, without_dx = gradients(b[:0], x * np.nan), gradients(b * np.nan, none)
    np.testing.assert_array_equal(without_db[0], dw)
    np.testing.assert_array_equal(without_db[2], dx)
    np.testing.assert_array_equal(without_dx[0], dw)
    np.testing.assert_array_equal(without_dx[1], db)


@pytest.mark.parametrize("shape", [(0, 3, 2), *FEW], ids=str)
def test_gradients_are_added(shape, dtype, launch, close):
    x, w, b, dy, *_, saved, (dw, db, dx) = problem(shape, "tanh", dtype)
    work = nans(cuda.dense_backward_work(*shape), like=x)
    out = [work, w, b, nans(*x.shape, like=x)]
    _, _, more_dw, more_db, again_dx = launch(
        cuda.dense_backward_add, dy, x, w, saved, CODES["tanh"], out=out
    )
    close(more_dw, w + dw)
    close(more_db, b + db)
    close(again_dx, dx)


@pytest.mark.parametrize("below", ["relu", "sin"])
@pytest.mark.parametrize("shape", FEW, ids=str)
def test_dx_goes_through_the_layer_below(shape, below, dtype, launch, close):
    x, w, b, dy, *_, saved, (dw, db, dx) = problem(shape, "elu", dtype)
    expected = np.empty_like(dx)
    reference.activation_gradient(CODES[below], x.astype(float), dx, expected)
    work = nans(cuda.dense_backward_work(*shape), like=x)
    out = [work, nans(*w.shape, like=x), nans(*b.shape, like=x), nans(*x.shape, like=x)]
    _, _, *actual = launch(
        dense.backward, False, dy, x, w, saved, CODES["elu"], x.copy(), CODES[below], out=out
    )
    for gradient, wanted in zip(actual, (dw, db, expected), strict=True):
        close(gradient, wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(9, 5, 4), (9, 17, 12)], ids=["swept", "tiled"])
def test_nan_and_inf_stay_in_their_row(shape, bad, dtype, launch):
    x, w, b, dy, *_, saved, _ = problem(shape, "identity", dtype)
    row, code = 4, CODES["identity"]
    x[row, 2], w[2] = bad, np.abs(w[2])
    out = [b[:0], np.empty((0, 0), dtype), nans(*saved.shape, like=x)]
    *_, y = launch(cuda.dense_forward, x, w, b, code, out=out, pad=64)
    np.testing.assert_array_equal(y[row], np.full(len(b), bad))
    assert np.isfinite(np.delete(y, row, axis=0)).all()
    dy[row, 1] = np.nan
    work = nans(cuda.dense_backward_work(*shape), like=x)
    out = [work, nans(*w.shape, like=x), nans(*b.shape, like=x), nans(*x.shape, like=x)]
    _, _, dw, db, dx = launch(cuda.dense_backward, dy, x, w, saved, code, out=out, pad=64)
    assert not np.isfinite(dw[2]).any()
    assert np.isnan(dw[:, 1]).all()
    assert np.isfinite(np.delete(np.delete(dw, 1, axis=1), 2, axis=0)).all()
    assert np.isnan(db[1])
    assert np.isfinite(np.delete(db, 1)).all()
    assert np.isnan(dx[row]).all()
    assert np.isfinite(np.delete(dx, row, axis=0)).all()


@pytest.mark.parametrize("shape", FEW if SIMULATED else [(70000, 32, 32), (3000, 784, 512)])
def test_same_call_gives_same_bits(shape, launch):
    x, w, b, dy, *_, saved, _ = problem(shape, "tanh", np.float32)
    work = nans(cuda.dense_backward_work(*shape), like=x)
    out = [work, np.empty_like(w), np.empty_like(b), np.empty_like(x)]

    def bits():
        results = launch(cuda.dense_backward, dy, x, w, saved, CODES["tanh"], out=out)
        return [a.tobytes() for a in results[2:]]

    first = bits()
    assert all(bits() == first for _ in range(1 if SIMULATED else 5))


def test_shapes_are_what_their_names_say():
    for k, m in ((k, m) for _, k, m in SWEPT):
        assert blocks.sweep_for(4, k, m)
    for k, m in ((k, m) for _, k, m in TILED):
        assert blocks.sweep_for(4, k, m) is None


@pytest.mark.skipif(SIMULATED, reason="the simulator is for small sizes")
@pytest.mark.parametrize("shape", [(8192, 8192, 8192), (8192, 1024, 4096), (1 << 20, 64, 64)])
def test_large_layers_equal_samples(shape, launch):
    x, w, b, dy = operands(*shape, np.float32)
    rows, columns = np.s_[:: shape[0] // 37], np.s_[:: shape[2] // 7]
    out = [b[:0], np.empty((0, 0), np.float32), nans(*dy.shape, like=x)]
    *_, y = launch(cuda.dense_forward, x, w, b, CODES["relu"], out=out, pad=64)
    xs, ws = x[rows].astype(float), w.astype(float)
    np.testing.assert_allclose(y[rows], np.maximum(xs @ ws + b, 0), atol=3e-5)
    work = nans(cuda.dense_backward_work(*shape), like=x)
    out = [work, np.empty_like(w), np.empty_like(b), np.empty_like(x)]
    _, _, dw, db, dx = launch(cuda.dense_backward, dy, x, w, y, CODES["relu"], out=out, pad=64)
    dz = dy * (y > 0)
    np.testing.assert_allclose(dx[rows], dz[rows].astype(float) @ ws.T, atol=3e-5)
    np.testing.assert_allclose(db, dz.sum(0, dtype=float), atol=3e-5)
    wanted = x.T.astype(float) @ dz[:, columns].astype(float)
    np.testing.assert_allclose(dw[:, columns], wanted, atol=3e-5)
