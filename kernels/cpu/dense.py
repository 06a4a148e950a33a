"""A dense layer in Numba."""

from . import tiled
from .jit import kernel


@kernel
def dense_forward_work(n, k, m):
    """Elements of `work` that dense_forward needs."""
    return tiled.forward_work(n, k, m)


@kernel
def dense_forward(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z).

    x: (n, k), w: (k, m), b: (m,) or empty, z: (n, m) or empty (z is then not kept), y: (n, m).
    """
    tiled.forward(x, w, b, activation, work, z, y)


@kernel
def dense_backward_work(n, k, m):
    """Elements of `work` that dense_backward and dense_backward_add need."""
    return tiled.backward_work(n, k, m)


@kernel
def dense_backward(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    dy, saved: (n, m), x: (n, k), w, dw: (k, m), db: (m,) or empty, dx: (n, k) or empty.
    """
    tiled.backward(False, dy, x, w, saved, activation, work, dw, db, dx)


@kernel
def dense_backward_add(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw += x.T @ dz, db += dz.sum(0), dx = dz @ w.T.

    dense_backward for gradients that the parts of a batch add to; shapes as there.
    """
    tiled.backward(True, dy, x, w, saved, activation, work, dw, db, dx)
