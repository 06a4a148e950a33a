"""Products on tensor cores: those of operands rounded to tf32 or bf16, summed in float32."""

import numpy as np
import pytest

from fastbp.kernels import codes, cuda
from fastbp.kernels.cuda import blocks, ptx, target
from fastbp.kernels.cuda.launch import using

BITS = {"tf32": 11, "bf16": 8}  # of a rounded number, with the one that is not stored
precisions = pytest.mark.parametrize("precision", BITS)

# (n, k, m): wide in both passes. Simulated tiles have 32 x 16 elements and 8 or 16 of depth.
SHAPES = [(34, 18, 19)]
if not target.SIMULATED:
    SHAPES += [(2048, 1024, 1024), (2049, 1023, 1025), (4096, 512, 2048)]


def rounded(a, precision):
    """The nearest numbers of so many bits, in float64; of two, tf32 takes the one away from 0."""
    mantissa, exponent = np.frexp(a.astype(float))
    mantissa = np.ldexp(mantissa, BITS[precision])
    away = np.trunc(mantissa + np.copysign(0.5, mantissa))
    nearest = away if precision == "tf32" else np.rint(mantissa)
    return np.ldexp(nearest, exponent - BITS[precision])


def operands(n, k, m):
    rng = np.random.default_rng([n, k, m])
    x, w, b, dy = (rng.standard_normal(s) for s in ((n, k), (k, m), m, (n, m)))
    return [a.astype(np.float32) for a in (x, w / np.sqrt(k), b, dy / np.sqrt(n))]


def nans(*shape):
    return np.full(shape, np.nan, np.float32)


def near(actual, expected):
    """Sums in float32 of products that are exact there."""
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=3e-5)


@precisions
@pytest.mark.parametrize("pad", [64, 67], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_those_of_rounded_operands(shape, precision, pad, launch):
    x, w, b, dy = operands(*shape)
    relu = codes.RELU
    with using(precision=precision):
        out = [nans(0), nans(0, 0), nans(*dy.shape)]
        *_, y = launch(cuda.dense_forward, x, w, b, relu, out=out, pad=pad)
        out = [nans(cuda.dense_backward_work(*shape)), *map(nans_like, (w, b, x))]
        _, _, dw, db, dx = launch(cuda.dense_backward, dy, x, w, y, relu, out=out, pad=pad)
    xs, ws = rounded(x, precision), rounded(w, precision)
    near(y, np.maximum(xs @ ws + b, 0))
    dz = dy * (y > 0)
    dzs = rounded(dz, precision)
    near(dw, xs.T @ dzs)
    near(db, dz.sum(0, dtype=float))  # never rounded
    near(dx, dzs @ ws.T)
    assert np.abs(y - np.maximum(x.astype(float) @ w + b, 0)).max() > 2.0 ** -(BITS[precision] + 5)


def nans_like(a):
    return nans(*a.shape)


def test_a_nan_stays_where_it_was(launch):
    x, w, b, _ = operands(17, 18, 19)
    x[3, 4] = np.nan
    for precision in BITS:
        with using(precision=precision):
            out = [nans(0), nans(0, 0), nans(17, 19)]
            *_, y = launch(cuda.dense_forward, x, w, b, codes.IDENTITY, out=out)
        assert np.isnan(y[3]).all()
        assert np.isfinite(np.delete(y, 3, axis=0)).all()


@precisions
def test_float64_and_narrow_layers_stay_exact(precision):
    with using(precision=precision):
        assert blocks.tile_for(8, 10**4, 10**4, precision).precision == "float32"
        assert blocks.tile_for(4, 10**4, 8, precision).precision == "float32"
        assert blocks.tile_for(4, 10**4, 10**4, precision).precision == precision


@pytest.mark.anywhere
@pytest.mark.skipif(not hasattr(ptx, "to_bf16"), reason="these are the simulator's twins")
@pytest.mark.parametrize("x", [0.0, -0.0, 1.0, 1 + 2**-8, -(1 + 3 * 2**-8), 3.14159, np.inf])
def test_the_twins_round_as_ptx_says(x):
    x = np.float32(x)
    word = int(ptx.to_bf16_pair(x, np.float32(2)))
    assert word >> 16 == 0x4000
    low = np.array([(word & 0xFFFF) << 16], np.uint32).view(np.float32)[0]
    assert low == (rounded(x, "bf16") if np.isfinite(x) else x)  # to even, as rint
    tf32 = np.array([ptx.to_tf32(x)], np.uint32).view(np.float32)[0]
    assert tf32 == (rounded(x, "tf32") if np.isfinite(x) else x)
