"""A dense layer in NumPy: three products and the passes between them, as the formulas stand."""

import numpy as np

from .activations import activate, activation_gradient


def dense_forward_work(n, k, m):
    """Elements of `work` that dense_forward needs."""
    return 0


def dense_forward(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z).

    x: (n, k), w: (k, m), b: (m,) or empty, z: (n, m) or empty (z is then not kept), y: (n, m).
    """
    np.matmul(x, w, out=y)
    if b.size:
        np.add(y, b, out=y)
    if z.size:
        np.copyto(z, y)
    activate(activation, y.reshape(-1))


def dense_backward_work(n, k, m):
    """Elements of `work` that dense_backward needs: dz of the whole batch."""
    return n * m


def dense_backward(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    dy, saved: (n, m), x: (n, k), w, dw: (k, m), db: (m,) or empty, dx: (n, k) or empty.
    """
    dz = work[: dy.size].reshape(dy.shape)
    activation_gradient(activation, saved.reshape(-1), dy.reshape(-1), dz.reshape(-1))
    np.matmul(x.T, dz, out=dw)
    if db.size:
        np.sum(dz, axis=0, out=db)
    if dx.size:
        np.matmul(dz, w.T, out=dx)
