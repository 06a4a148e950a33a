"""A dense layer for a few rows: w is read once, where it lies, and nothing is packed.

A batch of 1 to 8 rows uses each weight so rarely that reading w is all that counts. The forward
pass runs down blocks of columns, for one row along the rows of w; the backward pass walks along the
rows of w and dw together, dx[:, j] = dz @ w[j] and dw[j] = x[:, j].T @ dz, so that both are read
and written in order.
"""

from math import inf

from numba import carray

from ..codes import IDENTITY, RELU
from .activations import activate_and_keep, activation_gradient
from .dots import tile_dots
from .jit import inline, spliced
from .pointers import address, at, get, new_job, number_of, pointer_to, put
from .simd import OUTER, PANEL, WIDEST, copy_part, width
from .threads import part, parts, run, task, useful_tasks
from .tiles import few_columns, outer_columns, tile_in_place, tile_outer

GRAIN = 2**17  # weights that make a task worth a thread
ZEROS = 8 * WIDEST  # elements of scratch that stand for an absent bias
ROWS = 2 * OUTER[0]  # of w that are read, and of dw that are written, before the next
ROWS_OF_ONE = 64  # the same for a batch of one row
MOST_SUMS = 8  # that make one row of y

# The words of a job
X, W, B, Z, Y, DY, SAVED, DZ, DW, DB, DX, N, K, M, ACTIVATION, ADD, PARTS, SUMS = range(18)


@inline
def zero(scratch, size):
    """The scratch, its first `size` elements zero."""
    for j in range(0, size, width(scratch)):
        copy_part(at(scratch, j), scratch, 0)
    return scratch


@inline
def sums_of(k, m):
    """Into how many sums over rows of w to cut one row of y: by the shape alone, as sums have an
    order. Whole rows of w are read at 80 GB/s, halves at 55.
    """
    return max(1, min(MOST_SUMS, k * m // GRAIN))


@inline
def forward_few_work(k, m):
    """Elements of `work` that `forward_few` needs, for one row and for more."""
    return max(sums_of(k, m) * m, ZEROS)


@spliced
def forward_few(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z)."""
    n, k = x.shape
    m = w.shape[1]
    if n == 1 and sums_of(k, m) == 1:
        forward_row(x, w, b, activation, z, y)
        return
    scratch = address(work, 0)
    wanted = useful_tasks(k * m, GRAIN)
    column_parts = parts(m, m, wanted, 4 * WIDEST)
    job = new_job()
    put(job, X, number_of(address(x, 0)))
    put(job, W, number_of(address(w, 0)))
    put(job, B, number_of(address(b, 0)) if b.size > 0 else 0)
    put(job, Z, number_of(address(z, 0)) if z.size > 0 else 0)
    put(job, Y, number_of(address(y, 0)))
    put(job, N, n)
    put(job, K, k)
    put(job, M, m)
    put(job, ACTIVATION, activation)
    if n == 1:
        sums = sums_of(k, m)
        put(job, PARTS, sums)
        put(job, SUMS, number_of(scratch))
        run(add_rows(scratch), job, sums, scratch, wanted > 1)
        run(finish_row(scratch), job, 1, scratch, False)
    else:
        put(job, PARTS, column_parts)
        run(forward_columns(scratch), job, column_parts, scratch, wanted > 1)


@spliced
def forward_row(x, w, b, activation, z, y):
    """forward_few for one row and a small w: without a job."""
    k, m = w.shape
    row, total = carray(address(x, 0), k), carray(address(y, 0), m)
    for j in range(m):
        total[j] = b[j] if b.size > 0 else 0
    add_product(row, address(w, 0), m, total)
    activate_and_keep(activation, carray(address(z, 0), z.size), total)


@task
def add_rows(job, number, scratch):
    """One of the sums that make a row of y: some rows of w, times their x."""
    k, m = get(job, K), get(job, M)
    begin, end = part(k, get(job, PARTS), number, 8)
    total = carray(pointer_to(get(job, Y), scratch), m)
    if number > 0:
        total = carray(at(pointer_to(get(job, SUMS), scratch), (number - 1) * m), m)
    first = carray(pointer_to(get(job, B), scratch), m if number == 0 and get(job, B) != 0 else 0)
    for j in range(m):
        total[j] = first[j] if first.size > 0 else 0
    x = carray(at(pointer_to(get(job, X), scratch), begin), end - begin)
    add_product(x, at(pointer_to(get(job, W), scratch), begin * m), m, total)


@task
def finish_row(job, number, scratch):
    """A row of y from its sums."""
    m, y = get(job, M), carray(pointer_to(get(job, Y), scratch), get(job, M))
    for i in range(get(job, PARTS) - 1):
        more = carray(at(pointer_to(get(job, SUMS), scratch), i * m), m)
        for j in range(m):
            y[j] += more[j]
    kept = carray(pointer_to(get(job, Z), scratch), m if get(job, Z) != 0 else 0)
    activate_and_keep(get(job, ACTIVATION), kept, y)


@task
def forward_columns(job, number, scratch):
    """Some columns of y."""
    n, k, m, activation = get(job, N), get(job, K), get(job, M), get(job, ACTIVATION)
    column, end = part(m, get(job, PARTS), number, 2 * WIDEST)
    x = pointer_to(get(job, X), scratch)
    w = pointer_to(get(job, W), scratch)
    y = pointer_to(get(job, Y), scratch)
    if get(job, B) != 0:
        b, b_step = pointer_to(get(job, B), scratch), 1
    else:
        b, b_step = zero(scratch, ZEROS), 0
    kept = get(job, Z) != 0
    on_registers = activation == IDENTITY or (activation == RELU and not kept)
    floor = 0.0 if on_registers and activation == RELU else -inf
    wide = few_columns(x, n)
    for j in range(column, end, wide):
        count = min(wide, end - j)
        start = at(b, j * b_step)
        tile_in_place(x, k, at(w, j), m, k, start, 0, at(y, j), m, n, count, floor)
    if kept or not on_registers:
        z = pointer_to(get(job, Z), scratch)
        for i in range(n):
            held = carray(at(z, i * m + column), end - column if kept else 0)
            activate_and_keep(activation, held, carray(at(y, i * m + column), end - column))


@inline
def add_product(x, w, m, y):
    """y += x @ w for one row x: along the rows of w, m apart, eight at a time."""
    for p in range(0, x.size - 7, 8):
        x0, x1, x2, x3 = x[p], x[p + 1], x[p + 2], x[p + 3]
        x4, x5, x6, x7 = x[p + 4], x[p + 5], x[p + 6], x[p + 7]
        w0, w1 = carray(at(w, p * m), y.size), carray(at(w, (p + 1) * m), y.size)
        w2, w3 = carray(at(w, (p + 2) * m), y.size), carray(at(w, (p + 3) * m), y.size)
        w4, w5 = carray(at(w, (p + 4) * m), y.size), carray(at(w, (p + 5) * m), y.size)
        w6, w7 = carray(at(w, (p + 6) * m), y.size), carray(at(w, (p + 7) * m), y.size)
        for j in range(y.size):
            y[j] = (
                y[j] + x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
                + x4 * w4[j] + x5 * w5[j] + x6 * w6[j] + x7 * w7[j]
            )  # fmt: skip
    for p in range(x.size // 8 * 8, x.size):
        weights = carray(at(w, p * m), y.size)
        for j in range(y.size):
            y[j] += x[p] * weights[j]


@spliced
def backward_few(add, dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    work: ZEROS + n * m elements.
    """
    n, m = dy.shape
    k = x.shape[1]
    scratch = address(work, 0)
    if n == 1 and sums_of(k, m) == 1:
        backward_row(add, dy, x, w, saved, activation, scratch, dw, db, dx)
        return
    wanted = useful_tasks(k * m, GRAIN)
    row_parts = parts(k, max(k, 1), wanted, ROWS)
    job = new_job()
    put(job, X, number_of(address(x, 0)))
    put(job, W, number_of(address(w, 0)))
    put(job, DY, number_of(address(dy, 0)))
    put(job, SAVED, number_of(address(saved, 0)))
    put(job, DZ, number_of(at(scratch, ZEROS)))
    put(job, DB, number_of(address(db, 0)) if db.size > 0 else 0)
    put(job, DW, number_of(address(dw, 0)))
    put(job, DX, number_of(address(dx, 0)) if dx.size > 0 else 0)
    put(job, N, n)
    put(job, K, k)
    put(job, M, m)
    put(job, ACTIVATION, activation)
    put(job, ADD, 1 if add else 0)
    put(job, PARTS, row_parts)
    run(gradient_few(scratch), job, 1, scratch, False)
    run(backward_rows(scratch), job, row_parts, scratch, wanted > 1)


@spliced
def backward_row(add, dy, x, w, saved, activation, scratch, dw, db, dx):
    """backward_few for one row and a small w: without a job."""
    k, m = w.shape
    dz = carray(scratch, m)
    above = carray(address(dy, 0), m)
    activation_gradient(activation, carray(address(saved, 0), m), above, dz)
    for j in range(db.size):
        db[j] = db[j] + dz[j] if add else dz[j]
    if dx.size > 0:
        dots_of_row(scratch, address(w, 0), m, address(dx, 0), k)
    add_outer(carray(address(x, 0), k), dz, add, address(dw, 0))


@inline
def dots_of_row(dz, w, m, dx, count):
    """dx = dz @ w.T for one row dz (m,) and some rows of w."""
    dots = few_columns(dz, 1) * PANEL // width(dz)
    for j in range(0, count, dots):
        tile_dots(dz, m, at(w, j * m), m, m, at(dx, j), count, 1, 1, min(dots, count - j))


@inline
def add_outer(x, dz, add, dw):
    """dw = x.T @ dz, or dw +=, for one row x (k,), dz (m,): a third of the time of tiles."""
    m = dz.size
    if add:
        for i in range(x.size):
            row = carray(at(dw, i * m), m)
            for j in range(m):
                row[j] += x[i] * dz[j]
    else:
        for i in range(x.size):
            row = carray(at(dw, i * m), m)
            for j in range(m):
                row[j] = x[i] * dz[j]


@task
def gradient_few(job, number, scratch):
    """dz = dy * f'(z) and db = dz.sum(0), or db += with ADD."""
    n, m = get(job, N), get(job, M)
    dz = carray(pointer_to(get(job, DZ), scratch), n * m)
    saved = carray(pointer_to(get(job, SAVED), scratch), n * m)
    dy = carray(pointer_to(get(job, DY), scratch), n * m)
    activation_gradient(get(job, ACTIVATION), saved, dy, dz)
    if get(job, DB) != 0:
        db, add = carray(pointer_to(get(job, DB), scratch), m), get(job, ADD) != 0
        for i in range(n):
            for j in range(m):
                db[j] = dz[i * m + j] if i == 0 and not add else db[j] + dz[i * m + j]


@task
def backward_rows(job, number, scratch):
    """Some rows of dw, and as many columns of dx."""
    n, k, m, add = get(job, N), get(job, K), get(job, M), get(job, ADD) != 0
    begin, end = part(k, get(job, PARTS), number, ROWS)
    x = pointer_to(get(job, X), scratch)
    w = pointer_to(get(job, W), scratch)
    dz = pointer_to(get(job, DZ), scratch)
    dw = pointer_to(get(job, DW), scratch)
    dx = pointer_to(get(job, DX), scratch)
    dots, wide = few_columns(x, n) * PANEL // width(scratch), outer_columns(scratch)
    zeros = zero(scratch, ZEROS) if n > 1 else scratch
    step = ROWS_OF_ONE if n == 1 else ROWS
    for row in range(begin, end, step):
        last = min(row + step, end)
        if get(job, DX) != 0:
            for j in range(row, last, dots):
                tile_dots(dz, m, at(w, j * m), m, m, at(dx, j), k, 1, n, min(dots, last - j))
        if n == 1:
            add_outer(carray(at(x, row), last - row), carray(dz, m), add, at(dw, row * m))
            continue
        for j in range(row, last, OUTER[0]):
            for column in range(0, m, wide):
                c = at(dw, j * m + column)
                start, start_row = (c, m) if add else (zeros, 0)
                tile_outer(
                    at(x, j), k, at(dz, column), m, n, start, start_row, c, m,
                    min(OUTER[0], last - j), min(wide, m - column),
                )  # fmt: skip
