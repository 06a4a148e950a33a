"""A dense layer in Numba: each call runs on the engine that the table of engines.py names."""

from . import blas, tiled
from .binding import launcher
from .engines import BACKWARD, FORWARD, chooses_blas
from .jit import kernel, spliced

OVERWRITE, ADD = 0, 1  # for a literal bool Numba would compile a function of its own


@kernel
def dense_forward_work(n, k, m):
    """Elements of `work` that dense_forward needs, whichever engine runs."""
    return max(tiled.forward_work(n, k, m), blas.forward_work(n, k, m))


@launcher
def dense_forward(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z).

    x: (n, k), w: (k, m), b: (m,) or empty, z: (n, m) or empty (z is then not kept), y: (n, m).
    """
    if chooses_blas(FORWARD, x, w):
        blas.forward(x, w, b, activation, work, z, y)
    else:
        tiled.forward(x, w, b, activation, work, z, y)


@kernel
def dense_backward_work(n, k, m):
    """Elements of `work` that dense_backward and dense_backward_add need, whichever engine runs."""
    return max(tiled.backward_work(n, k, m), blas.backward_work(n, k, m))


@spliced
def backward(add, dy, x, w, saved, activation, work, dw, db, dx):
    if chooses_blas(BACKWARD, x, w):
        blas.backward(add, dy, x, w, saved, activation, work, dw, db, dx)
    else:
        tiled.backward(add, dy, x, w, saved, activation, work, dw, db, dx)


@launcher
def dense_backward(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    dy, saved: (n, m), x: (n, k), w, dw: (k, m), db: (m,) or empty, dx: (n, k) or empty.
    """
    backward(OVERWRITE, dy, x, w, saved, activation, work, dw, db, dx)


@launcher
def dense_backward_add(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw += x.T @ dz, db += dz.sum(0), dx = dz @ w.T.

    dense_backward for gradients that the parts of a batch add to; shapes as there.
    """
    backward(ADD, dy, x, w, saved, activation, work, dw, db, dx)
