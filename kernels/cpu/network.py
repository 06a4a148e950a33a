"""A whole network in Numba: forward, loss, backward and the optimiser's step in one call.

The network is a table, what a step does a recipe of integers and numbers: see codes.py.
"""

from math import isfinite, nan

import numpy as np

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
from .dense import dense_backward, dense_backward_work, dense_forward, dense_forward_work
from .dropout import dropout
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
from .regularization import clip_by_global_norm, clip_by_value, l2_penalty

NEXT_SEED = np.uint64(0xD1342543DE82EF95)  # from one pass to the next; odd: no seed comes twice
SEED_BITS = np.uint64(2**63 - 1)
KEEPS_Z = tuple(sorted(codes.KEEPS_Z))


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


@kernel
def network_work(n, table):
    """Elements of `work` that the kernels of this module need for n rows."""
    scratch = 0
    for i in range(len(table)):
        if table[i, KIND] != DROPOUT:
            k, m = table[i, K], table[i, M]
            scratch = max(scratch, dense_forward_work(n, k, m), dense_backward_work(n, k, m))
    return n * (kept(table) + 2 * widest(table)) + scratch


@kernel
def network_forward(x, table, numbers, training, parameters, work, y):
    """y = the output of the last layer. x: (n, k) of the first layer, y: (n, m) of the last.

    numbers: dropout rates from codes.RATES on. With `training`, dropout masks; what the backward
    pass needs is then in `work`.
    """
    n, last = len(x), len(table) - 1
    scratch = work[n * (kept(table) + 2 * widest(table)) :]
    below = x
    for i in range(last + 1):
        k, m = table[i, K], table[i, M]
        above = matrix(work, n * table[i, Y], n, m) if training or i < last else y
        if table[i, KIND] == DROPOUT:
            rate = numbers[RATES + i] if training else 0.0
            dropout(below.reshape(n * m), rate, table[i, SEED], above.reshape(n * m))
        else:
            w, b = matrix(parameters, table[i, W], k, m), vector(parameters, table[i, B], m)
            z = matrix(work, n * table[i, Z] if training else -1, n, m)
            dense_forward(below, w, b, table[i, ACTIVATION], scratch, z, above)
        below = above
    if training and y.size > 0:
        y[:] = below


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


@kernel
def network_loss_gradients(
    x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
):
    """Returns the loss, L2 included; gradients: (size,) of it, dx: (n, k) or empty.

    Neither is written for a loss that is not finite.
    """
    n, last = len(x), len(table) - 1
    buffers, wide = n * kept(table), n * widest(table)
    scratch = work[buffers + 2 * wide :]
    y = matrix(work, n * table[last, Y], n, table[last, M])
    network_forward(x, table, numbers, True, parameters, work, y[:0])
    above = matrix(work, buffers, n, table[last, M])
    loss = network_loss(recipe, numbers, y, t, sample_weight, above)
    if not isfinite(loss):
        return loss
    for i in range(last, -1, -1):
        k, m = table[i, K], table[i, M]
        below = x if i == 0 else matrix(work, n * table[i - 1, Y], n, k)
        dy = matrix(work, buffers + (last - i + 1) % 2 * wide, n, k) if i > 0 else dx
        if table[i, KIND] == DROPOUT:
            if dy.size > 0:
                rate = numbers[RATES + i]
                dropout(above.reshape(n * m), rate, table[i, SEED], dy.reshape(n * m))
        else:
            w, dw = matrix(parameters, table[i, W], k, m), matrix(gradients, table[i, W], k, m)
            db = vector(gradients, table[i, B], m)
            activation = table[i, ACTIVATION]
            saved = table[i, Z] if activation in KEEPS_Z else table[i, Y]
            dense_backward(
                above, below, w, matrix(work, n * saved, n, m), activation, scratch, dw, db, dy
            )
        above = dy
    if numbers[L2] != 0:
        weights = recipe[WEIGHTS]
        loss += l2_penalty(parameters[:weights], numbers[L2], gradients[:weights])
    return loss


@kernel
def network_update(recipe, numbers, gradients, parameters, first, second):
    """Clip the gradients and take one step of the optimiser; first, second: its state or empty."""
    if recipe[CLIP] == CLIP_NORM:
        clip_by_global_norm(numbers[LIMIT], gradients)
    elif recipe[CLIP] == CLIP_VALUE:
        clip_by_value(numbers[LIMIT], gradients)
    a, b, c = numbers[FIRST], numbers[FIRST + 1], numbers[FIRST + 2]
    if recipe[OPTIMIZER] == ADAMW:
        d, e = numbers[FIRST + 3], numbers[FIRST + 4]
        adamw(gradients, a, b, c, d, e, recipe[STEP], parameters, first, second)
    elif recipe[OPTIMIZER] == RMSPROP:
        rmsprop(gradients, a, b, c, parameters, first)
    else:
        sgd(gradients, a, b, recipe[OPTIMIZER] == NESTEROV, parameters, first)


@inline
def all_finite(x):
    """Whether no number of x is NaN or infinite: their difference to themselves is NaN."""
    flat, bad = x.reshape(x.size), 0
    for i in range(flat.size):
        bad += flat[i] - flat[i] != 0
    return bad == 0


@kernel
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


@kernel
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
