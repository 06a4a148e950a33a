"""A tile of a matrix product on tensor cores, with the functions of tiles.py.

Operands are float32 in global memory. On their way to shared memory they are rounded: a word there
holds one number in tf32, or two in bf16 that follow each other along the depth. The products of a
warp are mma.sync instructions of 16 x 8 elements and 8 words of depth; sums are in float32.
"""

from numba.types import uint32

from .blocks import step_of, threads_of
from .ptx import mma_bf16, mma_tf32, store4, to_bf16_pair, to_tf32
from .target import cuda, device
from .tiles import Operand, Result, fetch_dz, hold


def operand(real, tile, span, along, fused=""):
    """How one operand comes to shared memory: words (2, depth, span).

    along: its rows run along the span of the tile; a thread then takes four elements of each row
    that shares a word. Else they run along the depth.
    """
    threads, depth, fused = threads_of(tile), tile.depth, bool(fused)
    paired = tile.precision == "bf16"
    fours = span * step_of(tile) // 4 // threads  # of a thread
    line = (span if along else step_of(tile)) // 4
    rows = 2 if paired and along else 1  # that share a word

    @device
    def load(a, saved, activation, start, p, end, wide, held):
        """The four elements of this thread, from global memory into registers."""
        for u in range(fours):
            v = cuda.threadIdx.x + threads * (u // rows)
            i, j = (p, start) if along else (start, p)
            i, j = i + v // line * rows + u % rows, j + v % line * 4
            hold(held, u, fetch_dz(fused, a, saved, activation, i, j, end, wide))

    @device
    def word(held, q, step):
        """The word of number q, in bf16 with the one `step` places on."""
        return to_bf16_pair(held[q], held[q + step]) if paired else to_tf32(held[q])

    @device
    def keep_along(held, side, target):
        for u in range(fours // rows):
            v, q = cuda.threadIdx.x + threads * u, 4 * rows * u
            four = (
                word(held, q, 4),
                word(held, q + 1, 4),
                word(held, q + 2, 4),
                word(held, q + 3, 4),
            )
            store4(target, (side, v // line, v % line * 4), four)

    @device
    def keep_across(held, side, target):
        for u in range(fours):
            v = cuda.threadIdx.x + threads * u
            i, j = v // line, v % line * 4
            if paired:
                for c in range(2):
                    target[side, j // 2 + c, i] = word(held, 4 * u + 2 * c, 1)
            else:
                for c in range(4):
                    target[side, j + c, i] = word(held, 4 * u + c, 1)

    # Eight more columns: the 4 x 8 words of a fragment then fall into different banks.
    keep = keep_along if along else keep_across
    return Operand(load, keep, 4 * fours, (2, depth, span + 8), uint32)


def result(real, tile):
    """How a tile of c is computed and handed out, in turns that fit into shared memory."""
    rows, columns, depth, warp_rows, warp_columns, precision = tile
    across, down, wide = columns // warp_columns, warp_rows // 16, warp_columns // 8
    turns, shape = min(4, rows // 16), 4 * down * wide
    each = rows // 16 // turns  # rows of fragments in one turn
    a_words, b_words, bf16 = 4 * down, 2 * wide, precision == "bf16"

    @device
    def clear(c):
        for i in range(shape):
            c[i] = real(0)

    @device
    def corner():
        """Row and column of this thread's first element in the tile: its warp's, and its own."""
        warp, lane = cuda.threadIdx.x // 32, cuda.threadIdx.x % 32
        return warp // across * warp_rows, warp % across * warp_columns, lane // 4, lane % 4

    @device
    def multiply_add(a, b, c, i, j):
        """Fragment (i, j) of c += a @ b."""
        o, p, q = 4 * (i * wide + j), 4 * i, 2 * j
        mma = mma_bf16 if bf16 else mma_tf32
        four = mma(
            a[p], a[p + 1], a[p + 2], a[p + 3], b[q], b[q + 1], c[o], c[o + 1], c[o + 2], c[o + 3]
        )
        hold(c, i * wide + j, four)

    @device
    def multiply(xs, ys, side, c):
        """c += xs[side].T @ ys[side] of a warp. xs: (2, depth, rows), ys: (2, depth, columns)."""
        a, b = cuda.local.array(a_words, uint32), cuda.local.array(b_words, uint32)
        row, column, group, pair = corner()
        for step in range(0, depth, 8):
            p = step + pair
            for i in range(down):
                r = row + 16 * i + group
                a[4 * i], a[4 * i + 1] = xs[side, p, r], xs[side, p, r + 8]
                a[4 * i + 2], a[4 * i + 3] = xs[side, p + 4, r], xs[side, p + 4, r + 8]
            for j in range(wide):
                q = column + 8 * j + group
                b[2 * j], b[2 * j + 1] = ys[side, p, q], ys[side, p + 4, q]
            for i in range(down):
                for j in range(wide):
                    multiply_add(a, b, c, i, j)

    @device
    def stage(c, turn, staged):
        """The warps whose turn it is write c to shared memory; all may read it then."""
        row, column, group, pair = corner()
        cuda.syncthreads()
        for i in range(down):
            block = row // 16 + i
            if block // each == turn:
                line = block % each * 16 + group
                for j in range(wide):
                    o, q = 4 * (i * wide + j), column + 8 * j + 2 * pair
                    staged[line, q], staged[line, q + 1] = c[o], c[o + 1]
                    staged[line + 8, q], staged[line + 8, q + 1] = c[o + 2], c[o + 3]
        cuda.syncthreads()

    @device
    def row_of(turn, e):
        """The tile's row of element e of what a turn has staged."""
        return turn * each * 16 + e // columns

    @device
    def column_of(e):
        return e % columns

    staged = rows // turns, columns
    return Result(shape, clear, multiply, stage, staged, row_of, column_of, turns)
