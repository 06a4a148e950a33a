"""A tile of a matrix product: operands to shared memory, products in registers, the way out.

A block computes rows x columns of c = a @ b in steps of `depth`. Its threads stand in a grid; each
holds thread_rows x thread_columns of c, in groups of four that lie next to each other. While a
step is computed from one half of shared memory, four elements at a time of the next come from
global memory into registers, and then go to the other half: one barrier for each step.
"""

from collections import namedtuple

from .activations import slope
from .blocks import threads_of
from .ptx import load4, store4
from .target import cuda, device

Operand = namedtuple("Operand", "load keep held shape word")
Result = namedtuple("Result", "shape clear multiply stage staged row column turns")


@device
def fetch(a, i, j, end, wide):
    """a[i, j : j + 4], zero from row `end` and beyond the columns; wide: rows lie on 16 bytes."""
    columns, zero = a.shape[1], a.dtype.type(0)
    if i < end and wide and j < columns:  # columns are then a multiple of four
        return load4(a, (i, j))
    return (
        a[i, j] if i < end and j < columns else zero,
        a[i, j + 1] if i < end and j + 1 < columns else zero,
        a[i, j + 2] if i < end and j + 2 < columns else zero,
        a[i, j + 3] if i < end and j + 3 < columns else zero,
    )


@device
def fetch_dz(fused, dy, saved, activation, i, j, end, wide):
    """Four elements of dz = dy * f'(z), or of dy where nothing is fused."""
    four = fetch(dy, i, j, end, wide)
    if not fused:
        return four
    s = fetch(saved, i, j, end, wide)
    return (
        four[0] * slope(activation, s[0]),
        four[1] * slope(activation, s[1]),
        four[2] * slope(activation, s[2]),
        four[3] * slope(activation, s[3]),
    )


@device
def add_columns(held, fours, sums):
    """sums += the fours that a thread holds: an operand along its rows has the same columns."""
    for u in range(fours):
        for c in range(4):
            sums[c] += held[4 * u + c]


@device
def hold(held, u, values):
    """held[4 u : 4 u + 4] = values, in registers."""
    for i in range(4):
        held[4 * u + i] = values[i]


def operand(real, tile, span, along, fused=""):
    """How one operand comes to shared memory (2, depth, span) as (load, keep, registers, shape).

    along: its rows run along the span of the tile; else along the depth, and each four is turned.
    """
    threads, depth, fused = threads_of(tile), tile.depth, bool(fused)
    fours = span * depth // 4 // threads  # of a thread
    line = (span if along else depth) // 4

    @device
    def load(a, saved, activation, start, p, end, wide, held):
        """The four elements of this thread, from global memory into registers."""
        for u in range(fours):
            v = cuda.threadIdx.x + threads * u
            i, j = (p, start) if along else (start, p)
            four = fetch_dz(fused, a, saved, activation, i + v // line, j + v % line * 4, end, wide)
            hold(held, u, four)

    @device
    def keep(held, side, target):
        """From registers to one half of shared memory."""
        for u in range(fours):
            v = cuda.threadIdx.x + threads * u
            i, j, q = v // line, v % line * 4, 4 * u
            if along:
                store4(target, (side, i, j), (held[q], held[q + 1], held[q + 2], held[q + 3]))
            else:
                for c in range(4):
                    target[side, j + c, i] = held[q + c]

    # Four more columns: those that `keep` turns then fall into different banks.
    return Operand(load, keep, 4 * fours, (2, depth, span + 4), real)


def result(real, tile):
    """How a tile of c is computed and handed out, in turns that fit into shared memory."""
    rows, columns, depth, thread_rows, thread_columns, _ = tile
    across, down = columns // thread_columns, rows // thread_rows
    turns = min(4, down)
    each = down // turns  # rows of threads in one turn

    @device
    def clear(c):
        for i in range(thread_rows):
            for j in range(thread_columns):
                c[i, j] = real(0)

    @device
    def multiply(a, b, side, c):
        """c += a[side].T @ b[side] of this thread. a: (2, depth, rows), b: (2, depth, columns)."""
        left = cuda.local.array(thread_rows, real)
        right = cuda.local.array(thread_columns, real)
        ty, tx = cuda.threadIdx.x // across, cuda.threadIdx.x % across
        for p in range(depth):
            for u in range(thread_rows // 4):
                hold(left, u, load4(a, (side, p, 4 * (u * down + ty))))
            for u in range(thread_columns // 4):
                hold(right, u, load4(b, (side, p, 4 * (u * across + tx))))
            for i in range(thread_rows):
                for j in range(thread_columns):
                    c[i, j] += left[i] * right[j]

    @device
    def stage(c, turn, staged):
        """The threads whose turn it is write c to shared memory; all may read it then."""
        ty, tx = cuda.threadIdx.x // across, cuda.threadIdx.x % across
        cuda.syncthreads()
        if ty // each == turn:
            for r in range(thread_rows):
                line = ty % each * thread_rows + r
                for u in range(thread_columns // 4):
                    q = 4 * u
                    four = c[r, q], c[r, q + 1], c[r, q + 2], c[r, q + 3]
                    store4(staged, (line, 4 * (u * across + tx)), four)
        cuda.syncthreads()

    @device
    def row(turn, e):
        """The tile's row of element e of what a turn has staged."""
        line = e // columns
        ty, r = turn * each + line // thread_rows, line % thread_rows
        return 4 * (r // 4 * down + ty) + r % 4

    @device
    def column(e):
        return e % columns

    shape, staged = (thread_rows, thread_columns), (rows // turns, columns)
    return Result(shape, clear, multiply, stage, staged, row, column, turns)
