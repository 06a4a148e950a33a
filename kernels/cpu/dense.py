"""A dense layer in Numba: each call runs on the engine that the table of engines.py names."""

from numba import carray, int64, types

from . import blas, tiled
from .binding import addressed, call, launcher
from .engines import BACKWARD, FORWARD, chooses_blas
from .jit import inline, kernel
from .pointers import address

# Each layer of a network, and each user's code that has one, calls the same two functions.


def forward_memory(n, k, m, activation, b_size, z_size, x, w, b, work, z, y):
    """`dense_forward` for pointers."""
    x, w, b, work = carray(x, (n, k)), carray(w, (k, m)), carray(b, b_size), carray(work, 0)
    z, y = carray(z, z_size), carray(y, (n, m))
    if chooses_blas(FORWARD, x, w):
        blas.forward(x, w, b, activation, work, z, y)
    else:
        tiled.forward(x, w, b, activation, work, z, y)


def backward_memory(
    add, n, k, m, activation, db_size, dx_size, dy, x, w, saved, work, dw, db, dx
):  # fmt: skip
    """`dense_backward` for pointers; dw += and db += with `add`."""
    dy, x, w, saved = carray(dy, (n, m)), carray(x, (n, k)), carray(w, (k, m)), carray(saved, n * m)
    work, dw, db, dx = carray(work, 0), carray(dw, k * m), carray(db, db_size), carray(dx, dx_size)
    if chooses_blas(BACKWARD, x, w):
        blas.backward(add, dy, x, w, saved, activation, work, dw, db, dx)
    else:
        tiled.backward(add, dy, x, w, saved, activation, work, dw, db, dx)


def _arguments(numbers, pointers):
    return lambda real: (types.intp,) * numbers + (types.CPointer(real),) * pointers


forward_at = addressed(forward_memory, _arguments(6, 6))
backward_at = addressed(backward_memory, _arguments(7, 8))


@kernel
def dense_forward_work(n, k, m):
    """Elements of `work` that dense_forward needs, whichever engine runs."""
    return max(tiled.forward_work(n, k, m), blas.forward_work(n, k, m))


@launcher
def dense_forward(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z).

    x: (n, k), w: (k, m), b: (m,) or empty, z: (n, m) or empty (z is then not kept), y: (n, m).
    """
    (n, k), m, place = x.shape, w.shape[1], address(y, 0)
    sizes = n, k, m, int64(activation), b.size, z.size
    inputs = address(x, 0), address(w, 0), address(b, 0)
    call(forward_at(place), (*sizes, *inputs, address(work, 0), address(z, 0), place))


@kernel
def dense_backward_work(n, k, m):
    """Elements of `work` that dense_backward and dense_backward_add need, whichever engine runs."""
    return max(tiled.backward_work(n, k, m), blas.backward_work(n, k, m))


@inline
def backward(add, dy, x, w, saved, activation, work, dw, db, dx):
    (n, k), m, place = x.shape, w.shape[1], address(dw, 0)
    sizes = add, n, k, m, int64(activation), db.size, dx.size
    inputs = address(dy, 0), address(x, 0), address(w, 0), address(saved, 0), address(work, 0)
    call(backward_at(place), (*sizes, *inputs, place, address(db, 0), address(dx, 0)))


@launcher
def dense_backward(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    dy, saved: (n, m), x: (n, k), w, dw: (k, m), db: (m,) or empty, dx: (n, k) or empty.
    """
    backward(0, dy, x, w, saved, activation, work, dw, db, dx)


@launcher
def dense_backward_add(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw += x.T @ dz, db += dz.sum(0), dx = dz @ w.T.

    dense_backward for gradients that the parts of a batch add to; shapes as there.
    """
    backward(1, dy, x, w, saved, activation, work, dw, db, dx)
