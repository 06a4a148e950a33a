"""A whole network in Numba: forward, loss, backward and the optimiser's step in one call.

The network is a table, what a step does a recipe of integers and numbers: see codes.py.
"""

from math import isfinite, nan

import numpy as np
from numba import carray

from .. import codes
from ..codes import (
    ACTIVATION,
    ADAMW,
    BINARY_CROSS_ENTROPY,
    CLIP,
    CLIP_NORM,
    CLIP_VALUE,
    DELTA,
    DROPOUT,
    FIRST,
    HALF_SQUARED_ERROR,
    HUBER,
    KIND,
    L2,
    LIMIT,
    LOSS,
    NESTEROV,
    OPTIMIZER,
    RATES,
    RMSPROP,
    SEED,
    SQUARED_ERROR,
    STEP,
    WEIGHTS,
    B,
    K,
    M,
    W,
    Y,
    Z,
)
from .binding import launcher
from .dense import (
    dense_backward,
    dense_backward_add,
    dense_backward_work,
    dense_forward,
    dense_forward_work,
)
from .dropout import dropout, seed_from
from .jit import inline, kernel
from .losses import (
    binary_cross_entropy,
    half_squared_error,
    huber,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
    squared_error,
)
from .optimizers import adamw, rmsprop, sgd
from .pointers import address, at, doubles_at, get, new_job, number_of, pointer_to, put
from .regularization import clip_by_global_norm, clip_by_value, l2_penalty
from .threads import ARENA_BYTES, part, run, task

NEXT_SEED = np.uint64(0xD1342543DE82EF95)  # from one pass to the next; odd: no seed comes twice
SEED_BITS = np.uint64(2**63 - 1)
KEEPS_Z = tuple(sorted(codes.KEEPS_Z))
COLUMNS = SEED + 1  # of the table

# Small networks: each group of rows goes through all layers on one thread.
MOST_PARAMETERS = 2**14  # each group has gradients of its own: they stay in its cache
LEAST_WORK = 2**18  # multiplications of a forward pass: two tasks that are worth a thread
LEAST_ROWS = 32  # of a group
MOST_GROUPS = 8
UPDATED = 2**15  # parameters that are worth a thread
PANEL = 98  # rows that go through all layers before the next: 7 full tiles


@inline
def kept(table):
    """Elements of activations that a row of the batch keeps."""
    most = 0
    for i in range(len(table)):
        most = max(most, max(table[i, Y], table[i, Z]) + table[i, M])
    return most


@inline
def widest(table):
    """Elements of the widest layer of a row."""
    most = 0
    for i in range(len(table)):
        most = max(most, max(table[i, K], table[i, M]))
    return most


@inline
def vector(flat, offset, size):
    """A piece of a flat array, empty for an offset of -1."""
    return flat[:0] if offset < 0 else flat[offset : offset + size]


@inline
def matrix(flat, offset, rows, columns):
    """A piece of a flat array as a matrix, empty for a negative offset."""
    if offset < 0:
        return flat[:0].reshape((0, 0))
    return flat[offset : offset + rows * columns].reshape((rows, columns))


@inline
def rows_of(flat, offset, begin, end, columns):
    """Rows of a matrix in a flat array, empty for a negative offset."""
    if offset < 0:
        return matrix(flat, -1, 0, 0)
    return matrix(flat, offset + begin * columns, end - begin, columns)


@inline
def dense_work(n, table):
    """Elements of scratch that the largest layer needs for n rows."""
    most = 0
    for i in range(len(table)):
        if table[i, KIND] != DROPOUT:
            k, m = table[i, K], table[i, M]
            most = max(most, dense_forward_work(n, k, m), dense_backward_work(n, k, m))
    return most


@inline
def group_count(n, table):
    """Into how many groups to cut the rows, each with gradients of its own; 1: threads per layer.

    It depends on the shapes alone, so that a sum has the same bits for every number of threads.
    """
    size = parameter_count(table)
    small = size <= MOST_PARAMETERS and dense_work(PANEL, table) <= ARENA_BYTES // 8
    return min(MOST_GROUPS, n // LEAST_ROWS) if small and n * size >= LEAST_WORK else 1


@inline
def parameter_count(table):
    """Elements of weights and biases."""
    count = 0
    for i in range(len(table)):
        if table[i, KIND] != DROPOUT:
            count += table[i, K] * table[i, M] + (table[i, M] if table[i, B] >= 0 else 0)
    return count


@inline
def places(n, table):
    """Where in `work` the parts begin: dy of the loss, two buffers for dx, gradients, scratch."""
    loss = n * kept(table)
    buffers = loss + n * table[len(table) - 1, M]
    gradients = buffers + 2 * n * widest(table)
    groups = group_count(n, table)
    return loss, buffers, gradients, gradients + (groups - 1) * parameter_count(table)


@kernel
def network_work(n, table):
    """Elements of `work` that the kernels of this module need for n rows."""
    rows = n if group_count(n, table) == 1 else PANEL
    return places(n, table)[3] + dense_work(rows, table)


@inline
def forward_rows(x, begin, end, n, table, numbers, training, parameters, work, scratch, y):
    """Some rows of every layer's output; the last goes to y, in training to `work`."""
    last, below = len(table) - 1, x[begin:end]
    for i in range(last + 1):
        k, m = table[i, K], table[i, M]
        if training or i < last:
            above = rows_of(work, n * table[i, Y], begin, end, m)
        else:
            above = y[begin:end]
        if table[i, KIND] == DROPOUT:
            rate = numbers[RATES + i] if training else 0.0
            size, seed = (end - begin) * m, seed_from(table[i, SEED], begin * m)
            dropout(below.reshape(size), rate, seed, above.reshape(size))
        else:
            w, b = matrix(parameters, table[i, W], k, m), vector(parameters, table[i, B], m)
            z = rows_of(work, n * table[i, Z] if training else -1, begin, end, m)
            dense_forward(below, w, b, table[i, ACTIVATION], scratch, z, above)
        below = above


@inline
def backward_rows(
    add, x, begin, end, n, table, numbers, parameters, work, scratch, gradients, dx
):  # fmt: skip
    """What some rows give to the gradients, from dy of the loss in `work`, and their dx."""
    last, wide = len(table) - 1, widest(table)
    loss, buffers, _, _ = places(n, table)
    above = rows_of(work, loss, begin, end, table[last, M])
    for i in range(last, -1, -1):
        k, m = table[i, K], table[i, M]
        if i > 0:
            below = rows_of(work, n * table[i - 1, Y], begin, end, k)
            place = buffers + (i % 2 * n + begin) * wide  # rows of one stride in every layer
            dy = matrix(work, place, end - begin, k)
        else:
            below, dy = x[begin:end], dx[begin:end]
        if table[i, KIND] == DROPOUT:
            if dy.size > 0:
                size, seed = (end - begin) * m, seed_from(table[i, SEED], begin * m)
                dropout(above.reshape(size), numbers[RATES + i], seed, dy.reshape(size))
        else:
            w, dw = matrix(parameters, table[i, W], k, m), matrix(gradients, table[i, W], k, m)
            db = vector(gradients, table[i, B], m)
            activation = table[i, ACTIVATION]
            place = table[i, Z] if activation in KEEPS_Z else table[i, Y]
            saved = rows_of(work, n * place, begin, end, m)
            if add:
                dense_backward_add(above, below, w, saved, activation, scratch, dw, db, dy)
            else:
                dense_backward(above, below, w, saved, activation, scratch, dw, db, dy)
        above = dy


# Groups of rows on the threads of the pool. The words of a job:
ROWS, FEATURES, LAYERS, GROUPS, SIZE, AT_X, AT_TABLE, AT_NUMBERS = range(8)
AT_PARAMETERS, AT_WORK, AT_GRADIENTS, AT_DX, WORK_SIZE = range(8, 13)


@inline
def describe(job, x, table, numbers, parameters, work, groups):
    """The operands of both tasks."""
    put(job, ROWS, len(x))
    put(job, FEATURES, x.shape[1])
    put(job, LAYERS, len(table))
    put(job, GROUPS, groups)
    put(job, SIZE, parameters.size)
    put(job, AT_X, number_of(address(x, 0)))
    put(job, AT_TABLE, number_of(address(table, 0)))
    put(job, AT_NUMBERS, number_of(address(numbers, 0)))
    put(job, AT_PARAMETERS, number_of(address(parameters, 0)))
    put(job, AT_WORK, number_of(address(work, 0)))
    put(job, WORK_SIZE, work.size)


@inline
def operands(job, scratch):
    """x, table, numbers, parameters, work, scratch of a job as arrays."""
    n, layers = get(job, ROWS), get(job, LAYERS)
    return (
        carray(pointer_to(get(job, AT_X), scratch), (n, get(job, FEATURES))),
        carray(pointer_to(get(job, AT_TABLE), job), (layers, COLUMNS)),
        carray(doubles_at(get(job, AT_NUMBERS)), RATES + layers),
        carray(pointer_to(get(job, AT_PARAMETERS), scratch), get(job, SIZE)),
        carray(pointer_to(get(job, AT_WORK), scratch), get(job, WORK_SIZE)),
        carray(scratch, ARENA_BYTES // 8),
    )


@task
def forward_group(job, number, scratch):
    """The outputs of one group of rows, panel by panel."""
    x, table, numbers, parameters, work, room = operands(job, scratch)
    n = len(x)
    begin, end = part(n, get(job, GROUPS), number, 2)
    for row in range(begin, end, PANEL):
        stop = min(row + PANEL, end)
        forward_rows(x, row, stop, n, table, numbers, True, parameters, work, room, x)


@task
def backward_group(job, number, scratch):
    """The gradients of one group of rows, panel by panel."""
    x, table, numbers, parameters, work, room = operands(job, scratch)
    n, size, groups = len(x), get(job, SIZE), get(job, GROUPS)
    begin, end = part(n, groups, number, 2)
    _, _, own, _ = places(n, table)
    gradients = carray(pointer_to(get(job, AT_GRADIENTS), scratch), size)
    if number > 0:
        gradients = vector(work, own + (number - 1) * size, size)
    wanted = n if get(job, AT_DX) != 0 else 0
    dx = carray(pointer_to(get(job, AT_DX), scratch), (wanted, get(job, FEATURES)))
    gradients[:] = 0
    for row in range(begin, end, PANEL):
        stop = min(row + PANEL, end)
        backward_rows(
            True, x, row, stop, n, table, numbers, parameters, work, room, gradients, dx
        )  # fmt: skip


@launcher
def network_forward(x, table, numbers, training, parameters, work, y):
    """y = the output of the last layer. x: (n, k) of the first layer, y: (n, m) of the last.

    numbers: dropout rates from codes.RATES on. With `training`, dropout masks, and what the
    backward pass needs is then in `work`.
    """
    n, last = len(x), len(table) - 1
    scratch = work[places(n, table)[3] :]
    forward_rows(x, 0, n, n, table, numbers, training, parameters, work, scratch, y)
    if training:
        y[:] = matrix(work, n * table[last, Y], n, table[last, M])


@inline
def network_loss(recipe, numbers, y, t, sample_weight, dy):
    """The loss of the recipe and its gradient dy. y, dy: (n, m), t: (n, m) or (n,) labels."""
    if t.ndim == 1:
        return sparse_softmax_cross_entropy(y, t, sample_weight, dy)
    loss = recipe[LOSS]
    if loss == SQUARED_ERROR:
        return squared_error(y, t, sample_weight, dy)
    if loss == HALF_SQUARED_ERROR:
        return half_squared_error(y, t, sample_weight, dy)
    if loss == HUBER:
        return huber(y, t, numbers[DELTA], sample_weight, dy)
    if loss == BINARY_CROSS_ENTROPY:
        return binary_cross_entropy(y, t, sample_weight, dy)
    return softmax_cross_entropy(y, t, sample_weight, dy)


@launcher
def network_loss_gradients(
    x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
):
    """Returns the loss, L2 included; gradients: (size,) of it, dx: (n, k) or empty.

    Neither is written for a loss that is not finite.
    """
    n, last = len(x), len(table) - 1
    groups, (at_dy, _, own, at_scratch) = group_count(n, table), places(n, table)
    scratch, job = work[at_scratch:], new_job()
    if groups > 1:
        describe(job, x, table, numbers, parameters, work, groups)
        put(job, AT_GRADIENTS, number_of(address(gradients, 0)))
        put(job, AT_DX, number_of(address(dx, 0)) if dx.size > 0 else 0)
        room = address(scratch, 0)
        run(forward_group(room), job, groups, room, True)
    else:
        forward_rows(x, 0, n, n, table, numbers, True, parameters, work, scratch, x)
    m = table[last, M]
    y, dy = matrix(work, n * table[last, Y], n, m), matrix(work, at_dy, n, m)
    loss = network_loss(recipe, numbers, y, t, sample_weight, dy)
    if not isfinite(loss):
        return loss
    if groups > 1:
        run(backward_group(room), job, groups, room, True)
        for group in range(groups - 1):
            more = vector(work, own + group * gradients.size, gradients.size)
            for i in range(gradients.size):
                gradients[i] += more[i]
    else:
        backward_rows(
            False, x, 0, n, n, table, numbers, parameters, work, scratch, gradients, dx
        )  # fmt: skip
    if numbers[L2] != 0:
        weights = recipe[WEIGHTS]
        loss += l2_penalty(parameters[:weights], numbers[L2], gradients[:weights])
    return loss


# The words of a job of updates; those that it shares keep their places.
AT_RECIPE, AT_FIRST, AT_SECOND = range(13, 16)


@inline
def piece(job, word, scratch, begin, end):
    """A piece of a flat operand of a job, empty where it has none."""
    there = get(job, word) != 0
    return carray(at(pointer_to(get(job, word), scratch), begin), end - begin if there else 0)


@task
def update_part(job, number, scratch):
    """The optimiser's step for some of the parameters."""
    begin = number * UPDATED
    end = min(begin + UPDATED, get(job, SIZE))
    recipe = carray(pointer_to(get(job, AT_RECIPE), job), WEIGHTS + 1)
    numbers = carray(doubles_at(get(job, AT_NUMBERS)), RATES)
    gradients = piece(job, AT_GRADIENTS, scratch, begin, end)
    parameters = piece(job, AT_PARAMETERS, scratch, begin, end)
    first = piece(job, AT_FIRST, scratch, begin, end)
    second = piece(job, AT_SECOND, scratch, begin, end)
    a, b, c = numbers[FIRST], numbers[FIRST + 1], numbers[FIRST + 2]
    if recipe[OPTIMIZER] == ADAMW:
        d, e = numbers[FIRST + 3], numbers[FIRST + 4]
        adamw(gradients, a, b, c, d, e, recipe[STEP], parameters, first, second)
    elif recipe[OPTIMIZER] == RMSPROP:
        rmsprop(gradients, a, b, c, parameters, first)
    else:
        sgd(gradients, a, b, recipe[OPTIMIZER] == NESTEROV, parameters, first)


@launcher
def network_update(recipe, numbers, gradients, parameters, first, second):
    """Clip the gradients and take one step of the optimiser; first, second: its state or empty."""
    if recipe[CLIP] == CLIP_NORM:
        clip_by_global_norm(numbers[LIMIT], gradients)
    elif recipe[CLIP] == CLIP_VALUE:
        clip_by_value(numbers[LIMIT], gradients)
    job, size = new_job(), parameters.size
    put(job, SIZE, size)
    put(job, AT_RECIPE, number_of(address(recipe, 0)))
    put(job, AT_NUMBERS, number_of(address(numbers, 0)))
    put(job, AT_GRADIENTS, number_of(address(gradients, 0)))
    put(job, AT_PARAMETERS, number_of(address(parameters, 0)))
    put(job, AT_FIRST, number_of(address(first, 0)) if first.size > 0 else 0)
    put(job, AT_SECOND, number_of(address(second, 0)) if second.size > 0 else 0)
    place = address(parameters, 0)
    count = (size + UPDATED - 1) // UPDATED
    run(update_part(place), job, count, place, count > 1)


@inline
def all_finite(x):
    """Whether no number of x is NaN or infinite: their difference to themselves is NaN."""
    flat, bad = x.reshape(x.size), 0
    for i in range(flat.size):
        bad += flat[i] - flat[i] != 0
    return bad == 0


@launcher
def network_step(
    x, t, sample_weight, table, recipe, numbers, work, gradients, parameters, first, second
):
    """One step on one batch; returns the loss before it. If that or x is not finite, no step.

    The step count of the recipe goes up by one, each dropout layer's seed to the next.
    """
    if not all_finite(x):  # a saturated unit would hide an infinity from the loss
        return nan
    none = parameters[:0].reshape((0, 0))
    loss = network_loss_gradients(
        x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, none
    )
    if isfinite(loss):
        recipe[STEP] += 1
        network_update(recipe, numbers, gradients, parameters, first, second)
        for i in range(len(table)):
            if table[i, KIND] == DROPOUT:
                table[i, SEED] = np.int64((np.uint64(table[i, SEED]) + NEXT_SEED) & SEED_BITS)
    return loss


@inline
def gather(source, chosen, target):
    """target[i] = source[chosen[i]], row by row."""
    for i in range(chosen.size):
        target[i] = source[chosen[i]]


@launcher
def network_epoch(
    x, t, sample_weight, order, begin, steps, table, recipe, numbers,
    x_batch, t_batch, s_batch, work, gradients, parameters, first, second, sums,
):  # fmt: skip
    """Up to `steps` steps on the batches from row `begin` of the order on; returns the row after.

    order: (rows,) the rows of x in the order of this epoch, or empty for as they are. x_batch,
    t_batch, s_batch: room for one batch of x, t and sample_weight. sums: (3,) has the weighted
    losses, the weights and the last loss added, added and written. It stops before a batch whose
    loss is not finite: sums[2] then holds that loss.
    """
    rows, batch = len(x), len(x_batch)
    for _ in range(steps):
        if begin >= rows:
            break
        end = min(begin + batch, rows)
        xs, ts, s = x_batch[: end - begin], t_batch[: end - begin], s_batch[: end - begin]
        if order.size > 0:
            chosen = order[begin:end]
            gather(x, chosen, xs)
            gather(t, chosen, ts)
            if sample_weight.size > 0:
                gather(sample_weight, chosen, s)
        else:
            xs, ts = x[begin:end], t[begin:end]
            if sample_weight.size > 0:
                s = sample_weight[begin:end]
        weight = float(end - begin)
        if sample_weight.size > 0:
            weight = 0.0
            for i in range(s.size):
                weight += s[i]
        else:
            s = sample_weight
        if weight > 0:
            loss = network_step(
                xs, ts, s, table, recipe, numbers, work, gradients, parameters, first, second
            )
            sums[2] = loss
            if not isfinite(loss):
                break
            sums[0] += weight * loss
            sums[1] += weight
        begin = end
    return begin
