"""A dense layer in Numba: the batch is taken in panels of rows that stay in the L2 cache.

A panel's product and the passes around it run while the panel is in cache, and the backward pass
sweeps the batch once: dz exists for one panel only.
"""

from .activations import activate, activation_gradient
from .blas import gemm
from .jit import inline, kernel

PANEL = 256  # rows; fewer make BLAS pack w too often, more leave L2


@inline
def add_bias(b, y):
    for i in range(y.shape[0]):
        for j in range(b.size):
            y[i, j] += b[j]


@inline
def add_column_sums(dz, db):
    for i in range(dz.shape[0]):
        for j in range(db.size):
            db[j] += dz[i, j]


@kernel
def dense_forward(x, w, b, activation, z, y):
    """z = x @ w + b, y = f(z).

    x: (n, k), w: (k, m), b: (m,) or empty, z: (n, m) or empty (z is then not kept), y: (n, m).
    """
    n = x.shape[0]
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        panel = y[start:stop]
        gemm(x[start:stop], False, w, False, 0.0, panel)
        add_bias(b, panel)
        if z.size > 0:
            z[start:stop] = panel
        activate(activation, panel.reshape(panel.size))


@kernel
def dense_backward_work(n, k, m):
    """Elements of `work` that dense_backward needs: dz of one panel."""
    return min(n, PANEL) * m


@kernel
def dense_backward(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    dy, saved: (n, m), x: (n, k), w, dw: (k, m), db: (m,) or empty, dx: (n, k) or empty.
    """
    n, m = dy.shape
    db[:] = 0
    if n == 0:
        dw[:] = 0
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        size = (stop - start) * m
        kept, above = saved[start:stop].reshape(size), dy[start:stop].reshape(size)
        dz = work[:size]
        activation_gradient(activation, kept, above, dz)
        dz_rows = dz.reshape(stop - start, m)
        add_column_sums(dz_rows, db)
        gemm(x[start:stop], True, dz_rows, False, 0.0 if start == 0 else 1.0, dw)
        if dx.size > 0:
            gemm(dz_rows, False, w, True, 0.0, dx[start:stop])
