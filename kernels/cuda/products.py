"""The three products of a wide layer, each one kernel: what surrounds a product is fused into it.

forward: y = f(x @ w + b). toward_input: dx = dz @ w.T, times f' of the layer below if asked for.
toward_weights: dw = x.T @ dz and db = dz.sum(0), for slices of the batch. Where `fused`, the last
two compute dz = dy * f'(z) while they load it; otherwise dy is dz.
"""

import numpy as np
from numba.types import boolean, int32

from . import tensor, tiles
from .activations import apply, slope
from .blocks import TENSOR_TILES, TILES, step_of, threads_of
from .launch import REALS, kernel, variants
from .target import cuda
from .tiles import add_columns


def operand(real, tile, *how, **more):
    """How an operand comes to shared memory: in float32 or for tensor cores."""
    return (tiles if tile.precision == "float32" else tensor).operand(real, tile, *how, **more)


def result(real, tile):
    """How a tile is computed and handed out: by threads or by warps on tensor cores."""
    return (tiles if tile.precision == "float32" else tensor).result(real, tile)


def room(tile):
    """Blocks that share a multiprocessor: fragments of a tensor core take half of its registers."""
    return 2 if tile.precision == "float32" else 1


def forward(real, tile):
    """A block for each tile of y."""
    threads, rows, columns, depth = threads_of(tile), tile.rows, tile.columns, step_of(tile)
    load_x, keep_x, held_x, shape_x, word = operand(real, tile, rows, along=False)
    load_w, keep_w, held_w, shape_w, word = operand(real, tile, columns, along=True)
    shape, clear, multiply, stage, staged_shape, row, column, turns = result(real, tile)
    elements = rows // turns * columns

    @kernel(
        real[:, ::1], real[:, ::1], real[::1], int32, boolean, boolean, real[:, ::1], real[:, ::1],
        threads=threads, blocks=room(tile),
    )  # fmt: skip
    def product_forward(x, w, b, activation, wide_x, wide_w, z, y):
        xs = cuda.shared.array(shape_x, word, alignment=16)
        ws = cuda.shared.array(shape_w, word, alignment=16)
        staged = cuda.shared.array(staged_shape, real, alignment=16)
        c = cuda.local.array(shape, real)
        hx, hw = cuda.local.array(held_x, real), cuda.local.array(held_w, real)
        (n, m), k, side = y.shape, x.shape[1], 0
        i0, j0 = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        clear(c)
        load_x(x, x, activation, i0, 0, n, wide_x, hx)
        load_w(w, w, activation, j0, 0, k, wide_w, hw)
        keep_x(hx, side, xs)
        keep_w(hw, side, ws)
        cuda.syncthreads()
        for p in range(depth, k + depth, depth):
            if p < k:
                load_x(x, x, activation, i0, p, n, wide_x, hx)
                load_w(w, w, activation, j0, p, k, wide_w, hw)
            multiply(xs, ws, side, c)
            side = 1 - side
            if p < k:
                keep_x(hx, side, xs)
                keep_w(hw, side, ws)
            cuda.syncthreads()
        for turn in range(turns):
            stage(c, turn, staged)
            for e in range(cuda.threadIdx.x, elements, threads):
                i, j = i0 + row(turn, e), j0 + column(e)
                if i < n and j < m:
                    v = staged[e // columns, column(e)]
                    if b.size > 0:
                        v += b[j]
                    if z.size > 0:
                        z[i, j] = v
                    y[i, j] = apply(activation, v)

    return product_forward


def toward_input(real, tile, fused):
    """A block for each tile of dx. dy, saved: (n, m), w: (k, m), below: (n, k) or empty."""
    threads, rows, columns, depth = threads_of(tile), tile.rows, tile.columns, step_of(tile)
    load_dz, keep_dz, held_dz, shape_dz, word = operand(
        real, tile, rows, along=False, fused=bool(fused)
    )
    load_w, keep_w, held_w, shape_w, word = operand(real, tile, columns, along=False)
    shape, clear, multiply, stage, staged_shape, row, column, turns = result(real, tile)
    elements = rows // turns * columns

    @kernel(
        real[:, ::1], real[:, ::1], real[:, ::1], int32, real[:, ::1], int32, boolean, boolean,
        real[:, ::1], threads=threads, blocks=room(tile),
    )  # fmt: skip
    def product_toward_input(dy, w, saved, activation, below, f_below, wide_dy, wide_w, dx):
        dzs = cuda.shared.array(shape_dz, word, alignment=16)
        ws = cuda.shared.array(shape_w, word, alignment=16)
        staged = cuda.shared.array(staged_shape, real, alignment=16)
        c = cuda.local.array(shape, real)
        hz, hw = cuda.local.array(held_dz, real), cuda.local.array(held_w, real)
        (n, m), k, side = dy.shape, w.shape[0], 0
        i0, j0 = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        clear(c)
        load_dz(dy, saved, activation, i0, 0, n, wide_dy, hz)
        load_w(w, w, activation, j0, 0, k, wide_w, hw)
        keep_dz(hz, side, dzs)
        keep_w(hw, side, ws)
        cuda.syncthreads()
        for p in range(depth, m + depth, depth):
            if p < m:
                load_dz(dy, saved, activation, i0, p, n, wide_dy, hz)
                load_w(w, w, activation, j0, p, k, wide_w, hw)
            multiply(dzs, ws, side, c)
            side = 1 - side
            if p < m:
                keep_dz(hz, side, dzs)
                keep_w(hw, side, ws)
            cuda.syncthreads()
        for turn in range(turns):
            stage(c, turn, staged)
            for e in range(cuda.threadIdx.x, elements, threads):
                i, j = i0 + row(turn, e), j0 + column(e)
                if i < n and j < k:
                    v = staged[e // columns, column(e)]
                    if below.size > 0:
                        v *= slope(f_below, below[i, j])
                    dx[i, j] = v

    return product_toward_input


def toward_weights(real, tile, fused):
    """A block for each tile of dw in each slice of the batch. dy, saved: (n, m), x: (n, k).

    out: dw then db of every slice, one after the other. The blocks of the first rows of dw sum db:
    all of dz passes through their registers.
    """
    threads, rows, columns, depth = threads_of(tile), tile.rows, tile.columns, step_of(tile)
    load_x, keep_x, held_x, shape_x, word = operand(real, tile, rows, along=True)
    load_dz, keep_dz, held_dz, shape_dz, word = operand(
        real, tile, columns, along=True, fused=bool(fused)
    )
    shape, clear, multiply, stage, staged_shape, row, column, turns = result(real, tile)
    elements, line, fours = rows // turns * columns, columns // 4, held_dz // 4

    @kernel(
        real[:, ::1], real[:, ::1], real[:, ::1], int32, int32, boolean, boolean, real[::1],
        threads=threads, blocks=room(tile),
    )  # fmt: skip
    def product_toward_weights(dy, x, saved, activation, slice_rows, wide_dy, wide_x, out):
        xs = cuda.shared.array(shape_x, word, alignment=16)
        dzs = cuda.shared.array(shape_dz, word, alignment=16)
        staged = cuda.shared.array(staged_shape, real, alignment=16)
        c, db = cuda.local.array(shape, real), cuda.local.array(4, real)
        hx, hz = cuda.local.array(held_x, real), cuda.local.array(held_dz, real)
        (n, m), k, side, t = dy.shape, x.shape[1], 0, cuda.threadIdx.x
        i0, j0 = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        begin = cuda.blockIdx.z * slice_rows
        end = min(begin + slice_rows, n)
        clear(c)
        for u in range(4):
            db[u] = real(0)
        load_x(x, x, activation, i0, begin, end, wide_x, hx)
        load_dz(dy, saved, activation, j0, begin, end, wide_dy, hz)
        add_columns(hz, fours, db)
        keep_x(hx, side, xs)
        keep_dz(hz, side, dzs)
        cuda.syncthreads()
        for p in range(begin + depth, end + depth, depth):
            if p < end:
                load_x(x, x, activation, i0, p, end, wide_x, hx)
                load_dz(dy, saved, activation, j0, p, end, wide_dy, hz)
                add_columns(hz, fours, db)
            multiply(xs, dzs, side, c)
            side = 1 - side
            if p < end:
                keep_x(hx, side, xs)
                keep_dz(hz, side, dzs)
            cuda.syncthreads()
        base = cuda.blockIdx.z * (k + 1) * m
        for turn in range(turns):
            stage(c, turn, staged)
            for e in range(t, elements, threads):
                i, j = i0 + row(turn, e), j0 + column(e)
                if i < k and j < m:
                    out[base + i * m + j] = staged[e // columns, column(e)]
        cuda.syncthreads()
        for u in range(4):
            staged[t // line, t % line * 4 + u] = db[u]
        cuda.syncthreads()
        for e in range(t, columns, threads):
            if i0 == 0 and j0 + e < m:
                total = real(0)
                for group in range(threads // line):
                    total += staged[group, e]
                out[base + k * m + j0 + e] = total

    return product_toward_weights


def with_tiles(make, *options):
    """{(float type, tile, *options): kernel}."""
    keys = [(dtype, tile) for dtype in REALS for tile in TILES[dtype.itemsize]]
    keys += [(np.dtype(np.float32), tile) for tile in TENSOR_TILES.values()]
    return variants(make, [(*key, *option) for key in keys for option in options])


FORWARD = with_tiles(forward, ())
TOWARD_INPUT = with_tiles(toward_input, ("",), ("fused",))
TOWARD_WEIGHTS = with_tiles(toward_weights, ("",), ("fused",))
