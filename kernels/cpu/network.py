"""A whole network in Numba: forward, loss, backward and the optimiser's step in one call.

The network is a table, what a step does a recipe of integers and numbers: see codes.py. The batch
is taken in panels (panels.py). All threads share each panel of a large network; the rows of a small
one are cut into groups, each of which one thread takes through all layers (groups.py). Where the
outputs of layers would leave lanes idle, the rows lie along the vectors (narrow.py).

What a step consists of is both a kernel and, spliced, a part of the kernels after it.
"""

from math import isfinite, nan

import numpy as np
from numba import carray

from ..codes import (
    ACTIVATION,
    ADAMW,
    CLIP,
    CLIP_NORM,
    CLIP_VALUE,
    DROPOUT,
    EXPRESSION,
    FIRST,
    KIND,
    L2,
    LIMIT,
    LOSS,
    NESTEROV,
    NEXT_SEED,
    OPTIMIZER,
    RATES,
    RMSPROP,
    SEED,
    STEP,
    WEIGHTS,
)
from .binding import launcher
from .groups import address_or_none, group_count, groups_work, train_groups, train_part
from .jit import inline, kernel, spliced
from .losses import row_share
from .narrow import LEAST_ROWS as LEAST_NARROW
from .narrow import narrow_work
from .optimizers import adamw, rmsprop, sgd
from .panels import all_finite, forward, matrix, panel_room, rows_of
from .pointers import address, at, doubles_at, get, new_job, pointer_to, put
from .regularization import clip_by_global_norm, clip_by_value, l2_penalty
from .threads import part, run, task

SEED_BITS = np.uint64(2**63 - 1)

PANEL = 512  # rows of a panel that all threads share: dense_backward packs as many at once
UPDATED = 2**15  # parameters that are worth a thread


def network_work(n, table):
    """Elements of `work` that the kernels of this module need for n rows."""
    room = panel_room(min(n, PANEL), table)
    if n >= LEAST_NARROW:
        room = max(room, narrow_work(table))
    return max(room, groups_work(n, table))


network_room = inline(network_work)
network_work = kernel(network_work)


def network_forward(x, table, numbers, training, parameters, work, y):
    """y = the output of the last layer. x: (n, k) of the first layer, y: (n, m) of the last.

    With `training`, masks of the dropout layers; numbers: their rates, from codes.RATES on.
    """
    for row in range(0, len(x), PANEL):
        end = min(row + PANEL, len(x))
        panel, out = rows_of(x, row, end), rows_of(y, row, end)
        forward(0, len(table), panel, row, table, numbers, training, parameters, work, out)


predict = spliced(network_forward)
network_forward = launcher(network_forward)


@inline
def has_expressions(table, recipe):
    """Whether a user's own expression is in it: sqrt, say, has no finite derivative at 0."""
    found = recipe[LOSS] >= EXPRESSION
    for i in range(len(table)):
        found = found or table[i, ACTIVATION] >= EXPRESSION
    return found


def network_loss_gradients(
    x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
):
    """Returns the loss, L2 included; NaN for x with NaN or infinity, and for an expression whose
    derivative makes a gradient so.

    gradients: (size,) of it, dx: (n, k) or empty; without meaning if the loss is not finite.
    """
    n = len(x)
    groups, share = group_count(n, table), row_share(sample_weight, n)
    if n == 0:
        gradients[:] = 0
    if groups > 1:
        loss = train_groups(
            groups, x, t, sample_weight, share, table, recipe, numbers, parameters, work,
            gradients, dx,
        )  # fmt: skip
    else:
        loss = train_part(
            n, 0, n, PANEL, x, t, sample_weight, share, table, recipe, numbers, parameters, work,
            gradients, dx,
        )  # fmt: skip
    if numbers[L2] != 0 and isfinite(loss):
        weights = recipe[WEIGHTS]
        loss += l2_penalty(parameters[:weights], numbers[L2], gradients[:weights])
    if has_expressions(table, recipe) and isfinite(loss) and not all_finite(gradients):
        return nan
    return loss


loss_gradients = spliced(network_loss_gradients)
network_loss_gradients = launcher(network_loss_gradients)


# The words of a job of updates
SIZE, PIECES, AT_RECIPE, AT_NUMBERS, AT_GRADIENTS, AT_PARAMETERS, AT_FIRST, AT_SECOND = range(8)


@inline
def piece(job, word, scratch, begin, end):
    """A piece of a flat operand of a job, empty where it has none."""
    there = get(job, word) != 0
    return carray(at(pointer_to(get(job, word), scratch), begin), end - begin if there else 0)


@task
def update_part(job, number, scratch):
    """The optimiser's step for some of the parameters."""
    begin, end = part(get(job, SIZE), get(job, PIECES), number, 16)
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


def network_update(recipe, numbers, gradients, parameters, first, second):
    """Clip the gradients and take one step of the optimiser; first, second: its state or empty."""
    if recipe[CLIP] == CLIP_NORM:
        clip_by_global_norm(numbers[LIMIT], gradients)
    elif recipe[CLIP] == CLIP_VALUE:
        clip_by_value(numbers[LIMIT], gradients)
    job, size = new_job(), parameters.size
    put(job, SIZE, size)
    put(job, AT_RECIPE, address_or_none(recipe))
    put(job, AT_NUMBERS, address_or_none(numbers))
    put(job, AT_GRADIENTS, address_or_none(gradients))
    put(job, AT_PARAMETERS, address_or_none(parameters))
    put(job, AT_FIRST, address_or_none(first))
    put(job, AT_SECOND, address_or_none(second))
    place = address(parameters, 0)
    pairs = (size + 2 * UPDATED - 1) // (2 * UPDATED)  # even: each of two threads has its half
    pieces = 2 * pairs if size > UPDATED else 1
    put(job, PIECES, pieces)
    run(update_part(place), job, pieces, place, pieces > 1)


update = spliced(network_update)
network_update = launcher(network_update)


def network_step(
    x, t, sample_weight, table, recipe, numbers, work, gradients, parameters, first, second
):
    """One step on one batch; returns the loss before it. No step if that is not finite.

    The step count of the recipe goes up by one, each dropout layer's seed to the next.
    """
    none = matrix(parameters, -1, 0, 0)
    loss = loss_gradients(
        x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, none
    )
    if isfinite(loss):
        recipe[STEP] += 1
        update(recipe, numbers, gradients, parameters, first, second)
        for i in range(len(table)):
            if table[i, KIND] == DROPOUT:
                table[i, SEED] = np.int64(
                    (np.uint64(table[i, SEED]) + np.uint64(NEXT_SEED)) & SEED_BITS
                )
    return loss


step = spliced(network_step)
network_step = launcher(network_step)


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
    loss is not finite: sums[2] then holds that loss. A batch without weight makes no step, and has
    NaN for a loss if its x has NaN or infinity.
    """
    rows, batch = len(x), len(x_batch)
    for _ in range(steps):
        if begin >= rows:
            break
        end = min(begin + batch, rows)
        xs, ts = rows_of(x_batch, 0, end - begin), rows_of(t_batch, 0, end - begin)
        s = rows_of(s_batch, 0, end - begin)
        if order.size > 0:
            chosen = rows_of(order, begin, end)
            gather(x, chosen, xs)
            gather(t, chosen, ts)
            if sample_weight.size > 0:
                gather(sample_weight, chosen, s)
        else:
            xs, ts = rows_of(x, begin, end), rows_of(t, begin, end)
            if sample_weight.size > 0:
                s = rows_of(sample_weight, begin, end)
        weight = float(end - begin)
        if sample_weight.size > 0:
            weight = 0.0
            for i in range(s.size):
                weight += s[i]
        else:
            s = sample_weight
        if weight > 0:
            loss = step(
                xs, ts, s, table, recipe, numbers, work, gradients, parameters, first, second
            )
            sums[2] = loss
            if not isfinite(loss):
                break
            sums[0] += weight * loss
            sums[1] += weight
        elif not all_finite(xs):
            sums[2] = nan
            break
        begin = end
    return begin
