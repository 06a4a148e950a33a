"""A dense layer in CUDA: narrow layers run backward in one sweep, wide ones in two products."""

from ..codes import IDENTITY
from . import launch
from .blocks import (
    PRECISIONS,
    TILES,
    blocks,
    grid_of,
    split,
    sweep_for,
    sweep_slices,
    tile_for,
)
from .launch import nothing, on_16_bytes
from .products import FORWARD, TOWARD_INPUT, TOWARD_WEIGHTS
from .sums import launch_slices
from .sweep import SWEEPERS


def dense_forward_work(n, k, m):
    """Elements of `work` that dense_forward needs."""
    return 0


def dense_forward(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z).

    x: (n, k), w: (k, m), b: (m,) or empty, z: (n, m) or empty (z is then not kept), y: (n, m).
    """
    if y.size == 0:
        return
    tile = tile_for(y.dtype.itemsize, *y.shape, launch.precision())
    wide = on_16_bytes(x), on_16_bytes(w)
    FORWARD[y.dtype, tile](grid_of(tile, *y.shape), x, w, b, activation, *wide, z, y)


def dense_backward_work(n, k, m):
    """Elements of `work` that dense_backward and dense_backward_add need: dw, db of the slices."""

    def slices(itemsize):
        sweep = sweep_for(itemsize, k, m)
        if sweep:
            return sweep_slices(sweep, n, k)[0]
        return max(split(itemsize, n, k, m, precision)[1] for precision in PRECISIONS)

    return max(map(slices, TILES)) * (k + 1) * m


def dense_backward(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    dy, saved: (n, m), x: (n, k), w, dw: (k, m), db: (m,) or empty, dx: (n, k) or empty.
    """
    backward(False, dy, x, w, saved, activation, nothing(x), IDENTITY, work, dw, db, dx)


def dense_backward_add(dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw += x.T @ dz, db += dz.sum(0), dx = dz @ w.T.

    dense_backward for gradients that the parts of a batch add to; shapes as there.
    """
    backward(True, dy, x, w, saved, activation, nothing(x), IDENTITY, work, dw, db, dx)


def backward(add, dy, x, w, saved, activation, below, f_below, work, dw, db, dx):
    """dense_backward, or with `add` dense_backward_add; and one layer further where asked for.

    below: (n, k), what the layer below saved, or empty. With it, dx = (dz @ w.T) * f_below'(z of
    the layer below): the dz of that layer, which then runs with `activation` identity. So no
    layer of a network but the last ever multiplies by f' outside of an epilogue.
    """
    if f_below == IDENTITY:
        below = nothing(x)
    sweep = sweep_for(x.dtype.itemsize, *dw.shape)
    if sweep:
        slices = sweep_backward(sweep, dy, x, w, saved, activation, below, f_below, work, dx)
    else:
        slices = product_backward(dy, x, w, saved, activation, below, f_below, work, dx)
    launch_slices(slices, dw.size + dw.shape[1], add, work, dw, db)


def sweep_backward(sweep, dy, x, w, saved, activation, below, f_below, work, dx):
    """dx, and dw and db of slices in `work`; returns how many."""
    n, k = x.shape
    slices, rows = sweep_slices(sweep, n, k)
    if slices:
        grid = slices, blocks(k, sweep.inputs)
        wide = on_16_bytes(dy), on_16_bytes(x), on_16_bytes(w)
        SWEEPERS[x.dtype, sweep](
            grid, dy, x, w, saved, activation, below, f_below, rows, *wide, work, dx
        )
    return slices


def product_backward(dy, x, w, saved, activation, below, f_below, work, dx):
    """As sweep_backward, with a kernel for dx and one for dw and db."""
    (n, k), m, dtype = x.shape, dy.shape[1], x.dtype
    how, wide_dy = "" if activation == IDENTITY else "fused", on_16_bytes(dy)
    if dx.size:
        tile = tile_for(dtype.itemsize, n, k, launch.precision())
        TOWARD_INPUT[dtype, tile, how](
            grid_of(tile, n, k), dy, w, saved, activation, below, f_below, wide_dy,
            on_16_bytes(w), dx,
        )  # fmt: skip
    tile, slices, rows = split(dtype.itemsize, n, k, m, launch.precision())
    if slices:
        TOWARD_WEIGHTS[dtype, tile, how](
            (*grid_of(tile, k, m), slices), dy, x, saved, activation, rows, wide_dy,
            on_16_bytes(x), work,
        )  # fmt: skip
    return slices
