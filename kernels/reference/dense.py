"""A dense layer in NumPy: three products and the passes between them, as the formulas stand."""

import numpy as np

from .activations import activate_and_keep, activation_gradient


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
    activate_and_keep(activation, z.reshape(-1), y.reshape(-1))


def dense_backward_work(n, k, m):
    """Elements of `work` that dense_backward and dense_backward_add need: dz, then dw or db."""
    return n * m + max(k, 1) * m


def dense_backward(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    dy, saved: (n, m), x: (n, k), w, dw: (k, m), db: (m,) or empty, dx: (n, k) or empty.
    """
    dz = _gradient_of_z(dy, saved, activation, work)
    np.matmul(x.T, dz, out=dw)
    if db.size:
        np.sum(dz, axis=0, out=db)
    if dx.size:
        np.matmul(dz, w.T, out=dx)


def dense_backward_add(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw += x.T @ dz, db += dz.sum(0), dx = dz @ w.T.

    dense_backward for gradients that the parts of a batch add to; shapes as there.
    """
    dz = _gradient_of_z(dy, saved, activation, work)
    product = work[dy.size : dy.size + dw.size].reshape(dw.shape)
    np.add(dw, np.matmul(x.T, dz, out=product), out=dw)
    if db.size:
        np.add(db, np.sum(dz, axis=0, out=work[dy.size : dy.size + db.size]), out=db)
    if dx.size:
        np.matmul(dz, w.T, out=dx)


def _gradient_of_z(dy, saved, activation, work):
    dz = work[: dy.size].reshape(dy.shape)
    activation_gradient(activation, saved.reshape(-1), dy.reshape(-1), dz.reshape(-1))
    return dz
