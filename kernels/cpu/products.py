"""Packed operands and the loops over register tiles.

Operands are packed into panels (see simd.py), zero up to a multiple of STEPS along k. What is
packed is small enough for the L1 or L2 cache and is used many times from there.
"""

from math import inf

from numba import carray

from .dots import sums_along, tile_along, tile_dots
from .jit import inline, spliced
from .pointers import at, element
from .simd import (
    BLOCK,
    OUTER,
    PANEL,
    STEPS,
    TALLEST,
    WIDEST,
    copy_part,
    copy_row,
    transpose_rows,
    width,
)
from .tiles import (
    few_columns,
    tile_block,
    tile_block_transposed,
    tile_columns,
    tile_columns_far_apart,
    tile_of_panel,
    tile_rows,
    tile_rows_and_pack,
    tile_rows_far_apart,
)

ALL_ROWS = 2**30  # fetch_rows of a block that is a panel wide
MOST_DOTS = 4  # columns of w for which products of rows are worth their sums over lanes
MOST_TURNED = 2**9 * WIDEST  # elements of w that are transposed for them, into a panel's room
DEEP = 64  # steps of k, no multiple of STEPS, from which on a second visit of a tile is worth it


@inline
def turns_of(k):
    """Turns of the inner loop for k steps."""
    return (k + STEPS - 1) // STEPS


@inline
def padded(size, multiple):
    return (size + multiple - 1) // multiple * multiple


@spliced
def tile_height(rows, tiles):
    """Rows of the next of `tiles` tiles over `rows` rows: nearly equal and even."""
    pairs = (rows + 1) // 2
    return min(rows, 2 * ((pairs + tiles - 1) // tiles))


@spliced
def pack_right(b, b_row, k, columns, wide, panel):
    """One panel of b (k, columns): panel[p * wide + j] = b[p * b_row + j]."""
    if columns == wide:
        for p in range(k):
            copy_row(at(panel, p * wide), at(b, p * b_row))
    else:
        for p in range(k):
            copy_part(at(panel, p * wide), at(b, p * b_row), columns)
    for p in range(k, turns_of(k) * STEPS):
        copy_part(at(panel, p * wide), b, 0)


@spliced
def pack_right_transposed(b, b_row, k, columns, wide, panel):
    """One panel of b.T, b (columns, k): panel[p * wide + j] = b[j * b_row + p]."""
    lanes = wide // PANEL
    for j in range(0, wide, lanes // 2):
        for p in range(0, turns_of(k) * STEPS, lanes):
            target = at(panel, p * wide + j)
            transpose_rows(target, at(b, j * b_row + p), b_row, columns - j, k - p)


@spliced
def pack_left(a, a_row, rows, k, wide, panels):
    """The rows of a (rows, k) in panels: panels[(p // wide * rows + i) * wide + p % wide]."""
    for p in range(0, k, wide):
        columns = min(wide, k - p)
        panel = at(panels, p * rows)
        if columns == wide:
            for i in range(rows):
                copy_row(at(panel, i * wide), at(a, i * a_row + p))
        else:
            for i in range(rows):
                copy_part(at(panel, i * wide), at(a, i * a_row + p), columns)


@spliced
def pack_block(a, a_row, rows, columns, wide, block):
    """block[i * BLOCK + j] = a[i * a_row + j] for columns <= BLOCK, zero rows up to STEPS."""
    for i in range(turns_of(rows) * STEPS):
        for j in range(0, padded(columns, wide), wide):
            count = min(columns - j, wide) if i < rows else 0
            target = at(block, i * BLOCK + j)
            if count == wide:
                copy_row(target, at(a, i * a_row + j))
            else:
                copy_part(target, at(a, i * a_row + min(j, columns)), count)


@spliced
def multiply_rows(
    turns, a, a_row, a_jump, b, init, init_row, c, c_row, rows, columns, floor,
    fetch, fetch_rows, fetch_row,
):  # fmt: skip
    """tile_rows over any number of rows: a_row leads from a row of a to the next.

    The last tiles fetch the block at `fetch`, which the caller will want next.
    """
    i, tiles, fetched = 0, (rows + TALLEST - 1) // TALLEST, 0
    while tiles > 0:
        ahead = tiles <= STEPS
        height = tile_height(rows - i, tiles)
        tile_rows(
            at(a, i * a_row),
            a_jump,
            b,
            turns,
            at(init, i * init_row),
            init_row,
            at(c, i * c_row),
            c_row,
            height,
            columns,
            floor,
            fetch,
            fetched,
            fetch_rows,
            fetch_row if ahead else 0,
        )
        i, tiles = i + height, tiles - 1
        fetched += turns if ahead else 0


@spliced
def multiply_rows_and_pack(
    k, a, a_jump, b, b_row, panel, init, init_row, c, c_row, rows, columns, wide, floor
):
    """multiply_rows with k rows of b as they lie in memory, packed by the first tile on its way.

    What is left of k above a multiple of STEPS is packed apart, and added to that tile.
    """
    whole, done = k - k % STEPS, tile_height(rows, (rows + TALLEST - 1) // TALLEST)
    low = floor if whole == k else element(a) - inf
    if whole < k < DEEP:
        pack_right(b, b_row, k, columns, wide, panel)
        done = 0
    else:
        tile_rows_and_pack(
            a, a_jump, b, b_row, panel, whole // STEPS, init, init_row, c, c_row, done, columns, low
        )
    if done > 0 and whole < k:
        rest, before = at(panel, whole * wide), whole // wide * (a_jump + wide) + whole % wide
        pack_right(at(b, whole * b_row), b_row, k - whole, columns, wide, rest)
        tile_rows(
            at(a, before), a_jump, rest, 1, c, c_row, c, c_row, done, columns, floor,
            b, 0, ALL_ROWS, 0,
        )  # fmt: skip
    multiply_rows(
        turns_of(k), at(a, done * wide), wide, a_jump, panel,
        at(init, done * init_row), init_row, at(c, done * c_row), c_row,
        rows - done, columns, floor, at(b, wide), ALL_ROWS, b_row,
    )  # fmt: skip


@spliced
def multiply_rows_far_apart(k, a, a_row, b, init, init_row, c, c_row, rows, columns, floor):
    """tile_rows_far_apart over any number of rows; k is a multiple of STEPS."""
    i, tiles = 0, (rows + TALLEST - 1) // TALLEST
    while tiles > 0:
        height = tile_height(rows - i, tiles)
        tile_rows_far_apart(
            at(a, i * a_row), a_row, b, k // STEPS, at(init, i * init_row), init_row,
            at(c, i * c_row), c_row, height, columns, floor,
        )  # fmt: skip
        i, tiles = i + height, tiles - 1


@spliced
def multiply_columns_far_apart(k, a, a_row, b, init, init_row, c, c_row, rows, columns, floor):
    """tile_columns_far_apart over any number of rows of the product; k is a multiple of STEPS."""
    i, tiles = 0, (rows + TALLEST - 1) // TALLEST
    while tiles > 0:
        height = tile_height(rows - i, tiles)
        tile_columns_far_apart(
            at(a, i), a_row, b, k // STEPS, at(init, i * init_row), init_row,
            at(c, i * c_row), c_row, height, columns, floor,
        )  # fmt: skip
        i, tiles = i + height, tiles - 1


@spliced
def multiply_columns(turns, a, b, init, init_row, c, c_row, rows, columns, floor):
    """tile_columns over up to BLOCK rows of the product."""
    i, tiles = 0, (rows + TALLEST - 1) // TALLEST
    while tiles > 0:
        height = tile_height(rows - i, tiles)
        tile_columns(
            at(a, i),
            b,
            turns,
            at(init, i * init_row),
            init_row,
            at(c, i * c_row),
            c_row,
            height,
            columns,
            floor,
        )
        i, tiles = i + height, tiles - 1


# Few outputs fill a part of a vector. Along k all of its lanes are full.


@inline
def fills_by_dots(k, m, wide):
    """Whether products of rows of x and columns of w take less time than w's rows in vectors.

    A sum over lanes takes about as long as four multiplications of whole vectors.
    """
    lanes = wide // PANEL
    return 0 < m <= MOST_DOTS and k * m <= MOST_TURNED and 2 * (k * m // lanes + 4 * m) <= k


@spliced
def multiply_dots(x, x_row, w, w_row, k, b, b_step, rectify, wt, y, y_row, rows, m):
    """y = x @ w + b, or max(x @ w + b, 0) with `rectify`, by products of rows. wt: (m, k)."""
    turned, weights = carray(wt, (m, k)), carray(w, (k, w_row))
    for j in range(m):
        for p in range(k):
            turned[j, p] = weights[p, j]
    together = few_columns(x, m) * PANEL // width(x)
    for i in range(0, rows, together):
        count = min(together, rows - i)
        tile_dots(wt, k, at(x, i * x_row), x_row, k, at(y, i * y_row), 1, y_row, m, count)
    out, bias, zero = carray(y, (rows, y_row)), carray(b, m), element(y)
    for i in range(rows):
        for j in range(m):
            z = out[i, j] + bias[j * b_step]
            out[i, j] = zero if rectify and z < zero else z


@inline
def fills_by_panels(n, k, m, wide):
    """Whether dw.T = dz.T @ x takes less time than dw = x.T @ dz, although it is transposed."""
    lanes = wide // PANEL
    along, across = k * ((m + lanes - 1) // lanes), m * ((k + lanes - 1) // lanes)
    return 0 < m <= TALLEST and n * (along - across) >= 2 * k * m


@spliced
def multiply_panel(panel, x, x_row, n, add, zeros, scratch, dw, dw_row, k, m):
    """dw = x.T @ dz for k rows of dw, or dw +=; a panel holds dz (n, m), scratch m of its rows."""
    wide, zero = width(scratch), element(scratch)
    gradient, totals = carray(dw, (k, dw_row)), carray(scratch, (m, wide))
    for i in range(0, k, wide):
        count = min(wide, k - i)
        tile_of_panel(panel, at(x, i), x_row, n, zeros, 0, scratch, wide, m, count, zero - inf)
        for p in range(count):
            for j in range(m):
                before = gradient[i + p, j] if add else zero
                gradient[i + p, j] = before + totals[j, p]


# A panel of the batch: all of a tile's columns exist, and rows up to a multiple of STEPS.


@spliced
def multiply_block(block, b, turns, init, c, rows, floor):
    """c = max(init + block @ b, floor) for some rows of a block; init: what each tile adds to."""
    wide, i, tiles = width(b), 0, (rows + TALLEST - 1) // TALLEST
    while tiles > 0:
        height = tile_height(rows - i, tiles)
        tile_block(at(block, i * BLOCK), b, turns, init, at(c, i * wide), height, floor)
        i, tiles = i + height, tiles - 1


@spliced
def multiply_block_transposed(block, b, turns, init, c, rows, floor):
    """c = max(init + block.T @ b, floor) for some columns of a block."""
    wide, i, tiles = width(b), 0, (rows + TALLEST - 1) // TALLEST
    while tiles > 0:
        height = tile_height(rows - i, tiles)
        start, target = at(init, i * wide), at(c, i * wide)
        tile_block_transposed(at(block, i), b, turns, start, target, height, floor)
        i, tiles = i + height, tiles - 1


@spliced
def multiply_along(a, b, jump, turns, add, zeros, c, rows, columns):
    """c = a @ b.T, or c +=, for rows of a and of b, each in `turns` panels, a jump apart."""
    wide, (high, across) = width(a), OUTER
    for i in range(0, rows, high):
        for j in range(0, columns, across):
            target = at(c, i * columns + j)
            start, start_row = (target, columns) if add else (zeros, 0)
            tile_along(
                at(a, i * wide), jump, at(b, j * wide), jump, turns, start, start_row,
                target, columns, min(high, rows - i), min(across, columns - j),
            )  # fmt: skip


@spliced
def sum_along(a, jump, turns, add, zeros, c, rows):
    """c = the sums of rows of a, or c +=."""
    for i in range(0, rows, OUTER[1]):
        target, count = at(c, i), min(OUTER[1], rows - i)
        sums_along(at(a, i * width(a)), jump, turns, target if add else zeros, target, count)
