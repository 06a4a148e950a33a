"""Random layers against the reference in float64: 300 in the tests, 10,000 in `make fuzz`.

Shapes love the edges of tiles and blocks. Arrays lie between pads that show what was read or
written outside; outputs are full of NaN first.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbp.kernels import codes, cpu, reference

LAYERS = 10_000 if settings.default == settings.get_profile("fuzz") else 300
LARGEST = 700
BLOCKS = (8, 14, 16, 32, 64, 112, 256, 512)  # vectors, tiles, panels, chunks of all widths
EDGES = sorted(
    {
        size
        for block in BLOCKS
        for multiple in range(block, LARGEST + 1, block)
        for size in range(multiple - 1, multiple + 2)
        if multiple <= 4 * block
    }
)

sizes = st.one_of(st.integers(1, 20), st.sampled_from(EDGES), st.integers(1, LARGEST))
few = st.integers(1, 20)
giants = st.integers(LARGEST, 5000)
shapes = st.one_of(
    *[st.tuples(sizes, sizes, sizes)] * 6,  # the other two of eight: a giant side, a row or none
    st.one_of(
        st.tuples(giants, few, few), st.tuples(few, giants, few), st.tuples(few, few, giants)
    ),
    st.tuples(st.integers(0, 1), sizes, sizes),
)


def operands(n, k, m, dtype, rng):
    """x, w, b, dy, scaled so that z, dw and db are of size one."""
    x = rng.standard_normal((n, k))
    w = rng.standard_normal((k, m)) / np.sqrt(k)
    b = rng.standard_normal(m) / 2
    dy = rng.standard_normal((n, m)) / np.sqrt(max(n, 1))
    return [array.astype(dtype) for array in (x, w, b, dy)]


def double(*arrays):
    return [array.astype(np.float64) for array in arrays]


def exact_forward(x, w, b, code):
    """z and y by the reference in float64."""
    x, w, b = double(x, w, b)
    y = np.empty((len(x), w.shape[1]))
    z = np.empty_like(y)
    reference.dense_forward(x, w, b, code, np.empty(0), z, y)
    return z, y


def exact_backward(dy, x, w, saved, code):
    """dw, db, dx by the reference in float64."""
    dy, x, w, saved = double(dy, x, w, saved)
    work = np.empty(reference.dense_backward_work(*x.shape, w.shape[1]))
    dw, db, dx = np.empty_like(w), np.empty(w.shape[1]), np.empty_like(x)
    reference.dense_backward(dy, x, w, saved, code, work, dw, db, dx)
    return dw, db, dx


def assert_close(actual, expected, allowed):
    """Equal up to rounding; an operand that was left out has nothing to compare."""
    if actual.size:
        largest = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed * largest)


@settings(max_examples=LAYERS)
@given(
    shape=shapes,
    dtype=st.sampled_from([np.float32, np.float64]),
    name=st.sampled_from(sorted(codes.ACTIVATIONS)),
    bias=st.booleans(),
    keep_z=st.booleans(),
    need_dx=st.booleans(),
    add=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_layer_equals_the_reference(
    launch, tolerance, shape, dtype, name, bias, keep_z, need_dx, add, seed
):
    n, k, m = shape
    code, allowed = codes.ACTIVATIONS[name], tolerance[np.dtype(dtype)]
    rng = np.random.default_rng(seed)
    x, w, b, dy = operands(n, k, m, dtype, rng)
    b = b if bias else b[:0]

    def nans(*shape):
        return np.full(shape, np.nan, dtype)

    z = nans(n, m) if keep_z else nans(0, 0)
    work = nans(cpu.dense_forward_work(n, k, m))
    _, _, z, y = launch(cpu.dense_forward, x, w, b, code, out=[work, z, nans(n, m)])
    exact_z, exact_y = exact_forward(x, w, b, code)
    assert_close(z, exact_z, allowed)
    assert_close(y, exact_y, allowed)

    saved = (exact_z if code in codes.KEEPS_Z else exact_y).astype(dtype)
    kernel = cpu.dense_backward_add if add else cpu.dense_backward
    before_dw, before_db = np.zeros_like(w), np.zeros_like(b)
    dw, db = nans(k, m), nans(b.size)
    if add:
        before_dw, before_db = rng.standard_normal(w.shape), rng.standard_normal(b.size)
        dw, db = before_dw.astype(dtype), before_db.astype(dtype)
    dx = nans(n, k) if need_dx else nans(0, 0)
    work = nans(cpu.dense_backward_work(n, k, m))
    _, _, dw, db, dx = launch(kernel, dy, x, w, saved, code, out=[work, dw, db, dx])
    exact_dw, exact_db, exact_dx = exact_backward(dy, x, w, saved, code)
    assert_close(dw, before_dw + exact_dw, allowed)
    assert_close(db, before_db + (exact_db if bias else before_db), allowed)
    assert_close(dx, exact_dx, allowed)
