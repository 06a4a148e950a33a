"""The engine of register tiles: a dense layer with fused passes, on all threads of the pool.

Forward: the bias is what the accumulators start from, relu happens on registers, other activations
on rows that are still in cache. Backward: one sweep over panels of the batch; dz is computed while
it is packed, db is summed from the packed panel, and the same panel is the right operand of
dw = x.T @ dz and the left operand of dx = dz @ w.T.

A kernel writes its operands into the words of a job and cuts the work into tasks (threads.py).
"""

from math import inf

from numba import carray

from ..codes import IDENTITY, RELU
from .activations import activate_and_keep, activation_gradient
from .few import ZEROS, backward_few, forward_few, forward_few_work
from .jit import inline, spliced
from .pointers import address, at, element, get, new_job, number_of, pointer_to, put
from .products import (
    ALL_ROWS,
    fills_by_dots,
    fills_by_panels,
    multiply_columns,
    multiply_columns_far_apart,
    multiply_dots,
    multiply_panel,
    multiply_rows,
    multiply_rows_and_pack,
    multiply_rows_far_apart,
    pack_block,
    pack_left,
    pack_right,
    pack_right_transposed,
    padded,
    turns_of,
)
from .simd import BLOCK, MOST_FEW, STEPS, TALLEST, WIDEST, add_column_sums, copy_part, width
from .threads import part, parts, run, task, thread_count, useful_tasks

# Sizes of what is packed, in elements; docs/cpu.md holds the measurements.
DEPTH = 512  # of the summed dimension: a panel is then 64 KB
ROWS = 14 * TALLEST  # of x: with DEPTH 401 KB, less than half of an L2 cache
COLUMNS = 512  # of y that ROWS rows stay in L2 for, until their activation has run
BATCH = 512  # rows of the batch whose dz is packed at once
CHUNK = 4096  # elements of dz that are computed at once, in L1
# Each thread packs dz for itself: up to so many elements and threads, from so many rows of w on.
OWN, MOST_OWNERS, LEAST_OWNED = ROWS * DEPTH, 4, WIDEST
OWN_COLUMNS = 4 * WIDEST  # of dz that it packs at a time
UNEVEN = 200  # rows of w: up to them halves may differ much
# Fewer rows, and at least so many of w and elements of it, make two sums; see halves_of.
HALVED_ROWS, HALVED_DEPTH, HALVED_SIZE = 4 * TALLEST, 256, 2**16
GRAIN = 120_000  # multiplications that make a task worth a thread; 63 cubed makes two

# Elements of scratch that a task needs: packed rows, a panel, zeros for the widest tile.
SCRATCH = ROWS * DEPTH + (DEPTH + TALLEST) * WIDEST + ZEROS


@inline
def most_rows(pointer):
    """ROWS for float32, half as many for float64: as many bytes."""
    return ROWS * width(pointer) // WIDEST


@inline
def zeros_at(scratch):
    """A tile's row of zeros, at the end of a task's scratch."""
    zeros = at(scratch, SCRATCH - ZEROS)
    for j in range(0, ZEROS, width(scratch)):
        copy_part(at(zeros, j), zeros, 0)
    return zeros


@inline
def halves_of(n, k, m):
    """Whether to compute y = x @ w as two sums, each over half of the rows of w: 2 or 1.

    For fewer rows than two threads can share w costs more than y. So each reads the rows of w that
    it has just updated in a training step, and not those that wait in the other's cache. By the
    shape alone, since a sum has an order.
    """
    return 2 if n < HALVED_ROWS and k >= HALVED_DEPTH and k * m >= HALVED_SIZE else 1


@inline
def forward_work(n, k, m):
    """Elements of `work` that `forward` needs for n rows, or less."""
    if n <= MOST_FEW:
        return forward_few_work(k, m)
    rows = min(n, HALVED_ROWS - 1)
    return SCRATCH + (rows * m if halves_of(rows, k, m) == 2 else 0)


# The words of a forward job
X, W, B, Z, Y, N, K, M, ACTIVATION, ROW_PARTS, COLUMN_PARTS = range(11)
HALVES, SECOND = 26, 27  # behind those of a backward job


@spliced
def forward(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z)."""
    n, k = x.shape
    m = w.shape[1]
    if n == 0 or m == 0:
        return
    if n <= MOST_FEW:
        forward_few(x, w, b, activation, work, z, y)
        return
    scratch = address(work, 0)
    on_registers = activation == IDENTITY or (activation == RELU and z.size == 0)
    wanted = useful_tasks(n * k * m, GRAIN)
    # Each part of the columns packs the rows again, w is packed without a cost: so rows first.
    row_parts = parts(n, most_rows(scratch), wanted, 2 * TALLEST)
    halves = halves_of(n, k, m)
    rest = (wanted + halves * row_parts - 1) // (halves * row_parts)
    in_tasks = halves == 1 and not on_registers  # where the activation runs
    column_parts = parts(m, COLUMNS if in_tasks else m, rest, 2 * WIDEST)
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
    put(job, ROW_PARTS, row_parts)
    put(job, COLUMN_PARTS, column_parts)
    put(job, HALVES, halves)
    put(job, SECOND, number_of(address(work, SCRATCH)))
    run(forward_block(scratch), job, halves * row_parts * column_parts, scratch, wanted > 1)
    if halves == 2:
        second = at(scratch, SCRATCH)
        flat, rest = carray(address(y, 0), n * m), carray(second, n * m)
        for i in range(flat.size):
            flat[i] += rest[i]
        if activation != IDENTITY or z.size > 0:
            activate_and_keep(activation, carray(address(z, 0), z.size), flat)


@task
def forward_block(job, number, scratch):
    """One block of y, or what half of the rows of w give to it."""
    n, k, m, activation = get(job, N), get(job, K), get(job, M), get(job, ACTIVATION)
    row_parts, column_parts, halves = get(job, ROW_PARTS), get(job, COLUMN_PARTS), get(job, HALVES)
    blocks = row_parts * column_parts
    half, number = number // blocks, number % blocks
    first, last = part(k, halves, half, WIDEST // 2)  # as the rows of dw are cut
    row, row_end = part(n, row_parts, number // column_parts, 2)
    column, column_end = part(m, column_parts, number % column_parts, width(scratch))
    rows, columns, depth = row_end - row, column_end - column, last - first
    if rows <= 0 or columns <= 0:
        return
    kept = get(job, Z) != 0
    on_registers = activation == IDENTITY or (activation == RELU and not kept)
    x = at(pointer_to(get(job, X), scratch), row * k + first)
    w = at(pointer_to(get(job, W), scratch), first * m + column)
    y = at(pointer_to(get(job, Y if half == 0 else SECOND), scratch), row * m + column)
    zeros, biased = zeros_at(scratch), get(job, B) != 0 and half == 0
    b = at(pointer_to(get(job, B), scratch), column) if biased else zeros
    b_step = 1 if biased else 0
    rectify = activation == RELU and not kept and halves == 1
    last = columns - columns % width(scratch)  # columns beyond it fill no panel
    if fills_by_dots(depth, columns - last, width(scratch)):
        last_w, last_b, wt = at(w, last), at(b, last * b_step), at(scratch, ROWS * DEPTH)
        last_y, count = at(y, last), columns - last
        multiply_dots(
            x, k, last_w, m, depth, last_b, b_step, rectify, wt, last_y, m, rows, count
        )  # fmt: skip
    else:
        last = columns
    done = 0  # columns of x that are multiplied
    if 0 < last <= width(scratch):
        done = narrow_product(x, k, w, b, rectify, scratch, y, rows, depth, last, m)
    if last > 0 and (done < depth or k == 0):
        product(done, x, k, w, b, b_step, rectify, scratch, y, rows, depth, last, m)
    if halves == 1 and (kept or not on_registers):
        z = at(pointer_to(get(job, Z), scratch), row * m + column)
        # Rows that lie one behind the other in memory are computed together.
        together = max(1, min(rows, CHUNK // columns)) if columns == m else 1
        for i in range(0, rows, together):
            size = min(together, rows - i) * columns
            held = carray(at(z, i * m), size if kept else 0)
            activate_and_keep(activation, held, carray(at(y, i * m), size))


@spliced
def product(done, x, x_row, w, b, b_step, rectify, scratch, y, rows, k, columns, m):
    """y = x @ w + b, or max(x @ w + b, 0) with `rectify`, for one block of y (rows, columns).

    y already holds what the first `done` columns of x give.
    """
    wide, zero = width(scratch), element(scratch)
    right = at(scratch, ROWS * DEPTH)
    for p in range(done, max(k, 1), DEPTH):
        steps = min(DEPTH, k - p)
        floor = zero if rectify and p + steps == k else -type_inf(scratch)
        pack_left(at(x, p), x_row, rows, steps, wide, scratch)
        for j in range(0, columns, wide):
            count = min(wide, columns - j)
            c = at(y, j)
            start, start_row = (c, m) if p > 0 else (at(b, j * b_step), 0)
            multiply_rows_and_pack(
                steps, scratch, (rows - 1) * wide, at(w, p * m + j), m, right,
                start, start_row, c, m, rows, count, wide, floor,
            )  # fmt: skip


@spliced
def narrow_product(x, x_row, w, b, rectify, scratch, y, rows, k, columns, m):
    """`product` for one panel of columns: x is read where it lies, since no second panel follows.

    Returns how many columns of x it multiplies, a multiple of STEPS.
    """
    wide, low = width(scratch), -type_inf(scratch)
    right, whole = at(scratch, ROWS * DEPTH), k - k % STEPS
    top = element(scratch) if rectify else low
    for p in range(0, whole, DEPTH):
        steps = min(DEPTH, whole - p)
        pack_right(at(w, p * m), m, steps, columns, wide, right)
        start, start_row = (y, m) if p > 0 else (b, 0)
        floor = top if p + steps == k else low
        multiply_rows_far_apart(
            steps, at(x, p), x_row, right, start, start_row, y, m, rows, columns, floor
        )
    return whole


@inline
def type_inf(pointer):
    return element(pointer) + inf


# The words of a backward job; those of the forward job that it shares keep their places.
DY, SAVED, PANELS, WT, DW, DB, DX, ADD = range(11, 19)
FIRST, ROWS_HERE, CHUNKS, WT_PARTS, DW_PARTS, DX_PARTS = range(19, 25)
SHARES = 25


@inline
def shares_of(k, size, wanted):
    """How many threads share a backward pass with little dz, each of which packs all of it:
    to fetch what another one has packed takes longer. 0: all pack it together, then come tasks.
    """
    owners = min(wanted, thread_count())
    few = owners == 1 or (owners <= MOST_OWNERS and k >= LEAST_OWNED)
    return owners if few and size <= OWN else 0


@inline
def backward_work(n, k, m):
    """Elements of `work` that `backward` needs: scratch, dz of some rows, w.T for a long batch."""
    if n <= MOST_FEW:
        return ZEROS + n * m
    gradients = padded(min(n, BATCH), STEPS) * padded(m, WIDEST)
    weights = padded(m, WIDEST) * padded(k, WIDEST) if n > ROWS else 0
    return SCRATCH + gradients + weights


@spliced
def backward(add, dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T; dw += and db += with `add`."""
    n, m = dy.shape
    k = x.shape[1]
    if not add and (n == 0 or n > MOST_FEW):
        db[:] = 0
    if n == 0 or m == 0:
        if not add:
            dw[:] = 0
        dx[:] = 0
        return
    if n <= MOST_FEW:
        backward_few(add, dy, x, w, saved, activation, work, dw, db, dx)
        return
    panels = padded(min(n, BATCH), STEPS) * padded(m, WIDEST)
    scratch = address(work, 0)
    wanted = useful_tasks(n * k * m, GRAIN)
    shares = shares_of(k, panels, wanted)
    transposed = n > ROWS and dx.size > 0 and shares == 0
    job = new_job()
    put(job, X, number_of(address(x, 0)))
    put(job, W, number_of(address(w, 0)))
    put(job, DY, number_of(address(dy, 0)))
    put(job, SAVED, number_of(address(saved, 0)))
    put(job, PANELS, number_of(address(work, SCRATCH)))
    put(job, WT, number_of(address(work, SCRATCH + panels)) if transposed else 0)
    put(job, DW, number_of(address(dw, 0)))
    put(job, DB, number_of(address(db, 0)) if db.size > 0 else 0)
    put(job, DX, number_of(address(dx, 0)) if dx.size > 0 else 0)
    put(job, N, n)
    put(job, K, k)
    put(job, M, m)
    put(job, ACTIVATION, activation)
    put(job, ADD, 1 if add else 0)
    put(job, SHARES, shares)
    if shares > 0:
        run(multiply_gradient(scratch), job, shares, scratch, shares > 1)
        return
    for first in range(0, n, BATCH):
        rows = min(BATCH, n - first)
        wanted = useful_tasks(rows * k * m, GRAIN)
        wt_parts = parts(k, max(k, 1), wanted, WIDEST) if transposed and first == 0 else 0
        chunks = parts(m, SCRATCH // 2, useful_tasks(rows * m, CHUNK), 4 * WIDEST)
        dw_parts = parts(k, max(k, 1), wanted, BLOCK // 2)
        dx_parts = parts(k, max(k, 1), wanted, 2 * WIDEST) if dx.size > 0 else 0
        put(job, FIRST, first)
        put(job, ROWS_HERE, rows)
        put(job, CHUNKS, chunks)
        put(job, WT_PARTS, wt_parts)
        put(job, DW_PARTS, dw_parts)
        put(job, DX_PARTS, dx_parts)
        run(pack_operands(scratch), job, chunks + wt_parts, scratch, wanted > 1)
        run(multiply_gradient(scratch), job, dw_parts + dx_parts, scratch, wanted > 1)


@task
def pack_operands(job, number, scratch):
    """Some columns of dz for one panel of the batch, or, once, some panels of w.T."""
    if number < get(job, CHUNKS):
        panels = pointer_to(get(job, PANELS), scratch)
        first, rows, chunks = get(job, FIRST), get(job, ROWS_HERE), get(job, CHUNKS)
        pack_gradient(job, first, rows, number, chunks, panels, True, scratch)
        return
    k, m, wide = get(job, K), get(job, M), width(scratch)
    w, panels = pointer_to(get(job, W), scratch), pointer_to(get(job, WT), scratch)
    begin, end = part(k, get(job, WT_PARTS), number - get(job, CHUNKS), wide)
    for j in range(begin, end, wide):
        target = at(panels, j * padded(m, WIDEST))
        pack_right_transposed(at(w, j * m), m, m, min(wide, end - j), wide, target)


@spliced
def pack_gradient(job, first, rows, number, chunks, panels, with_db, scratch):
    """Panels of dz = dy * f'(z) for some columns of some rows, and `with_db` their sum in db."""
    m = get(job, M)
    wide, depth = width(scratch), turns_of(rows) * STEPS
    column, column_end = part(m, chunks, number, wide)
    columns = column_end - column
    if columns <= 0:
        return
    panels = at(panels, column * depth)
    saved = at(pointer_to(get(job, SAVED), scratch), first * m + column)
    dy = at(pointer_to(get(job, DY), scratch), first * m + column)
    # Rows that lie one behind the other in memory are computed together.
    together = max(1, min(rows, CHUNK // columns)) if columns == m else 1
    for row in range(0, rows, together):
        count = min(together, rows - row)
        size = count * columns
        dz = carray(scratch, size)
        kept, above = carray(at(saved, row * m), size), carray(at(dy, row * m), size)
        source, step = scratch, columns
        if get(job, ACTIVATION) == IDENTITY:  # dz is dy
            source, step = at(dy, row * m), m
        else:
            activation_gradient(get(job, ACTIVATION), kept, above, dz)
        for j in range(0, columns, wide):
            for i in range(count):
                target = at(panels, j * depth + (row + i) * wide)
                copy_part(target, at(source, i * step + j), min(wide, columns - j))
    for j in range(0, columns, wide):
        panel = at(panels, j * depth)
        for i in range(rows, depth):
            copy_part(at(panel, i * wide), dy, 0)
        if with_db and get(job, DB) != 0:
            sums = at(pointer_to(get(job, DB), scratch), column + j)
            add_column_sums(sums, panel, turns_of(rows), min(wide, columns - j))


@task
def multiply_gradient(job, number, scratch):
    """Some rows of dw, or some columns of dx, for one panel of the batch; a share has both, for all
    panels, whose dz it packs first.
    """
    k, m, shares = get(job, K), get(job, M), get(job, SHARES)
    w, wt = pointer_to(get(job, W), scratch), pointer_to(get(job, WT), scratch)
    dw, packed = pointer_to(get(job, DW), scratch), get(job, WT) != 0
    panels, begin, i, i_end, j, j_end = pointer_to(get(job, PANELS), scratch), 0, 0, 0, 0, 0
    if shares > 0:
        panels, end = at(scratch, SCRATCH), get(job, N)
        # Where halves of k are not equal, dx evens out dw; else w is read where it is updated.
        for_dx = shares - 1 - number if k <= UNEVEN else number
        i, i_end = part(k, shares, number, WIDEST // 2)
        if get(job, DX) != 0:
            j, j_end = part(k, shares, for_dx, WIDEST // 2)
    else:
        begin, end = get(job, FIRST), get(job, FIRST) + get(job, ROWS_HERE)
        # dx lies in the middle, so that threads that come from both ends have a half of dw each.
        dw_parts, dx_parts = get(job, DW_PARTS), get(job, DX_PARTS)
        half = (dw_parts + 1) // 2
        if half <= number < half + dx_parts:
            j, j_end = part(k, dx_parts, number - half, width(scratch))
        else:
            number -= dx_parts if number >= half else 0
            i, i_end = part(k, dw_parts, number, WIDEST // 2)
    for first in range(begin, end, BATCH):
        rows, add = min(BATCH, end - first), get(job, ADD) != 0 or first > 0
        if shares > 0:
            chunks = parts(m, OWN_COLUMNS, 1, OWN_COLUMNS)
            for chunk in range(chunks):
                pack_gradient(job, first, rows, chunk, chunks, panels, number == 0, scratch)
        if i < i_end:
            x = at(pointer_to(get(job, X), scratch), first * k)
            weight_gradient(x, panels, add, rows, k, m, scratch, dw, i, i_end)
        if j < j_end:
            dx = at(pointer_to(get(job, DX), scratch), first * k)
            input_gradient(packed, w, wt, panels, rows, k, m, scratch, dx, j, j_end)


@spliced
def weight_gradient(x, panels, add, rows, k, m, scratch, dw, begin, end):
    """dw = x.T @ dz, or dw += with `add`, for the rows begin..end-1 of dw."""
    wide, depth, zeros = width(scratch), turns_of(rows) * STEPS, zeros_at(scratch)
    first = 0  # row of the batch that is packed
    last = m - m % wide  # columns beyond it fill no panel
    if fills_by_panels(rows, k, m - last, wide):
        c, panel = at(dw, begin * m + last), at(panels, last * depth)
        multiply_panel(
            panel, at(x, begin), k, rows, add, zeros, scratch, c, m, end - begin, m - last
        )  # fmt: skip
    else:
        last = m
    if last == 0:
        return
    if last <= wide and rows >= STEPS:  # a packed x would be read once
        first = rows - rows % STEPS
        c = at(dw, begin * m)
        start, start_row = (c, m) if add else (zeros, 0)
        multiply_columns_far_apart(
            first, at(x, begin), k, panels, start, start_row, c, m, end - begin, last,
            -type_inf(scratch),
        )  # fmt: skip
        if first == rows:
            return
    add = add or first > 0
    for i in range(begin, end, BLOCK):
        height = min(BLOCK, end - i)
        pack_block(at(x, first * k + i), k, rows - first, height, wide, scratch)
        for j in range(0, last, wide):
            c = at(dw, i * m + j)
            start, start_row = (c, m) if add else (zeros, 0)
            multiply_columns(
                turns_of(rows - first), scratch, at(panels, j * depth + first * wide),
                start, start_row, c, m, height, min(wide, last - j), -type_inf(scratch),
            )  # fmt: skip


@spliced
def input_gradient(packed, w, wt, panels, rows, k, m, scratch, dx, begin, end):
    """dx = dz @ w.T for the columns begin..end-1 of dx; wt holds panels of w.T if `packed`."""
    wide, depth, zeros = width(scratch), turns_of(rows) * STEPS, zeros_at(scratch)
    most = most_rows(scratch) if packed else rows  # few rows, or few columns
    for i in range(0, rows, most):
        for p in range(0, m, DEPTH):
            steps = min(DEPTH, m - p)
            for j in range(begin, end, wide):
                c, count = at(dx, i * k + j), min(wide, end - j)
                panel = at(wt, j * padded(m, WIDEST) + p * wide)
                if not packed:
                    panel = scratch
                    pack_right_transposed(at(w, j * m + p), m, steps, count, wide, scratch)
                start, start_row = (c, k) if p > 0 else (zeros, 0)
                following = at(panel, padded(m, WIDEST) * wide)
                fetch_rows, fetch_row = ALL_ROWS, wide
                if not packed:  # the next rows of w, or its first ones further right
                    next_row = j + wide if j + wide < end else begin
                    following = at(w, next_row * m + p + (DEPTH if next_row == begin else 0))
                    fetch_rows, fetch_row = wide, m
                multiply_rows(
                    turns_of(steps), at(panels, p * depth + i * wide), wide, (depth - 1) * wide,
                    panel, start, start_row, c, k, min(most, rows - i), count,
                    -type_inf(scratch), following, fetch_rows, fetch_row,
                )  # fmt: skip
