"""A whole network in CUDA: a sequence of launches; table, recipe, numbers and sums lie on the host.

The network is a table, what a step does a recipe of integers and numbers: see codes.py. x, t,
parameters and all that grows with them stay on the GPU; what comes back is one number of a step.
"""

from math import isfinite, isnan, nan

import numpy as np
from numba.types import int64

from .. import codes
from .blocks import FLAT, flat_grid
from .dense import backward, dense_backward_work, dense_forward, dense_forward_work
from .dropout import dropout
from .launch import REALS, kernel, nothing
from .losses import LABELS, launch_loss
from .narrow import launch_narrow, slices_of
from .optimizers import adamw, rmsprop, sgd
from .regularization import clip_by_value, launch_clip, launch_penalty
from .sums import (
    CHECK,
    DIFFERENCES,
    LOSS,
    PENALTY,
    PLAIN,
    WEIGHT,
    flat_sum,
    launch_slices,
    result,
    scratch,
    sum_partials,
)
from .target import cuda

NEXT_SEED = 0xD1342543DE82EF95  # from one pass to the next; odd, so that no seed comes twice


def network_work(n, table):
    """Elements of `work` that the kernels of this module need for n rows."""
    room = [
        max(dense_forward_work(n, k, m), dense_backward_work(n, k, m))
        for kind, k, m in table[:, [codes.KIND, codes.K, codes.M]].tolist()
        if kind == codes.DENSE
    ]
    narrow = max(slices_of(n, table, itemsize)[0] for itemsize in (4, 8)) * _size(table)
    return max(n * (_kept(table) + 2 * _widest(table)) + max(room), narrow)


def _size(table):
    """Elements of weights and biases."""
    dense = table[table[:, codes.KIND] == codes.DENSE]
    return int((dense[:, codes.K] + (dense[:, codes.B] >= 0)) @ dense[:, codes.M])


def _kept(table):
    """Elements of activations that a row of the batch keeps."""
    return int((np.maximum(table[:, codes.Y], table[:, codes.Z]) + table[:, codes.M]).max())


def _widest(table):
    return int(max(table[:, codes.K].max(), table[:, codes.M].max()))


def _vector(flat, offset, size):
    """The piece of a flat array, empty for an offset of -1."""
    return flat[:0] if offset < 0 else flat[offset : offset + size]


def _matrix(flat, offset, rows, columns):
    """The piece of a flat array as a matrix, empty for a negative offset."""
    if offset < 0:
        return nothing(flat)
    return flat[offset : offset + rows * columns].reshape(rows, columns)


def _flat(a):
    return a.reshape(a.size)


def _saved(work, n, row):
    """What a dense layer has kept for its backward pass."""
    place = row[codes.Z] if row[codes.ACTIVATION] in codes.KEEPS_Z else row[codes.Y]
    return _matrix(work, n * place, n, row[codes.M])


def network_forward(x, table, numbers, training, parameters, work, y):
    """y = the output of the last layer. x: (n, k) of the first layer, y: (n, m) of the last.

    numbers: dropout rates from codes.RATES on. With `training`, dropout masks; what the backward
    pass needs is then in `work`.
    """
    n, rows = x.shape[0], table.tolist()
    room = work[n * (_kept(table) + 2 * _widest(table)) :]
    for i, row in enumerate(rows):
        k, m = row[codes.K], row[codes.M]
        here = training or i < len(rows) - 1
        above = _matrix(work, n * row[codes.Y], n, m) if here else y
        if row[codes.KIND] == codes.DROPOUT:
            rate = numbers[codes.RATES + i] if training else 0.0
            dropout(_flat(x), rate, row[codes.SEED], _flat(above))
        else:
            w, b = _matrix(parameters, row[codes.W], k, m), _vector(parameters, row[codes.B], m)
            z = _matrix(work, n * row[codes.Z] if training else -1, n, m)
            dense_forward(x, w, b, row[codes.ACTIVATION], room, z, above)
        x = above
    if training and y is not x and n:
        y.copy_to_device(x)


def network_loss_gradients(
    x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
):
    """Returns the loss, L2 included; gradients: (size,) of it, dx: (n, k) or empty.

    Neither is written for a loss that is not finite.
    """
    slices, panel = slices_of(x.shape[0], table, x.dtype.itemsize, t)
    if slices and dx.size == 0:
        loss = _narrow(
            False, x, t, sample_weight, table, recipe, numbers, parameters, work, gradients,
            slices, panel,
        )  # fmt: skip
    else:
        loss = _layers(x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx)
    return _with_penalty(loss, recipe, numbers, parameters, gradients)


def _narrow(
    strict, x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, slices, panel
):
    """The loss and its gradients in one kernel; strict: the loss is NaN if x is not finite."""
    if sample_weight.size:
        flat_sum(sample_weight, PLAIN, WEIGHT)
    launch_narrow(
        x, t, sample_weight, table, recipe[codes.LOSS], numbers[codes.DELTA], strict, parameters,
        slices, panel, work,
    )  # fmt: skip
    sum_partials(1, slices, LOSS, scratch())
    loss, size = result(LOSS), gradients.size
    if isfinite(loss):
        launch_slices(slices, size, False, work, gradients.reshape(1, size), gradients[:0])
    return loss


def _with_penalty(loss, recipe, numbers, parameters, gradients):
    """The loss with L2, whose gradient is added; nothing is if the loss is not finite."""
    if isfinite(loss) and numbers[codes.L2] != 0:
        size = int(recipe[codes.WEIGHTS])
        launch_penalty(parameters[:size], numbers[codes.L2], gradients[:size])
        loss += result(PENALTY)
    return loss


def _layers(x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx):
    """The loss, its gradients and dx, layer by layer."""
    n, rows = x.shape[0], table.tolist()
    kept, widest = _kept(table), _widest(table)
    room = work[n * (kept + 2 * widest) :]
    y = _matrix(work, n * rows[-1][codes.Y], n, rows[-1][codes.M])
    network_forward(x, table, numbers, True, parameters, work, y)
    places = n * kept, n * (kept + widest)
    above = _matrix(work, places[0], n, rows[-1][codes.M])
    launch_loss(recipe[codes.LOSS], y, t, numbers[codes.DELTA], sample_weight, above)
    loss = result(LOSS)
    if not isfinite(loss):
        return loss
    ready = False  # whether `above` is dz already
    for i in reversed(range(len(rows))):
        row, lower = rows[i], rows[i - 1] if i else None
        k, m = row[codes.K], row[codes.M]
        below = _matrix(work, n * lower[codes.Y], n, k) if i else x
        dy = _matrix(work, places[(len(rows) - i) % 2], n, k) if i else dx
        if row[codes.KIND] == codes.DROPOUT:
            if dy.size:
                dropout(_flat(above), numbers[codes.RATES + i], row[codes.SEED], _flat(dy))
            above, ready = dy, False
            continue
        w, dw = (_matrix(flat, row[codes.W], k, m) for flat in (parameters, gradients))
        db = _vector(gradients, row[codes.B], m)
        saved, activation = _saved(work, n, row), codes.IDENTITY if ready else row[codes.ACTIVATION]
        ready = i > 0 and lower[codes.KIND] == codes.DENSE
        saved_below = _saved(work, n, lower) if ready else nothing(x)
        f_below = lower[codes.ACTIVATION] if ready else codes.IDENTITY
        backward(False, above, below, w, saved, activation, saved_below, f_below, room, dw, db, dy)
        above = dy
    return loss


def network_update(recipe, numbers, gradients, parameters, first, second):
    """Clip the gradients and take one step of the optimiser; first, second: its state or empty."""
    if recipe[codes.CLIP] == codes.CLIP_NORM:
        launch_clip(numbers[codes.LIMIT], gradients)
    elif recipe[codes.CLIP] == codes.CLIP_VALUE:
        clip_by_value(numbers[codes.LIMIT], gradients)
    a, b, c, d, e = numbers[codes.FIRST : codes.RATES].tolist()
    if recipe[codes.OPTIMIZER] == codes.ADAMW:
        adamw(gradients, a, b, c, d, e, recipe[codes.STEP], parameters, first, second)
    elif recipe[codes.OPTIMIZER] == codes.RMSPROP:
        rmsprop(gradients, a, b, c, parameters, first)
    else:
        sgd(gradients, a, b, recipe[codes.OPTIMIZER] == codes.NESTEROV, parameters, first)


def network_step(
    x, t, sample_weight, table, recipe, numbers, work, gradients, parameters, first, second
):
    """One step on one batch; returns the loss before it. If that or x is not finite, no step.

    The step count of the recipe goes up by one, each dropout layer's seed to the next.
    """
    operands = x, t, sample_weight, table, recipe, numbers, parameters, work, gradients
    slices, panel = slices_of(x.shape[0], table, x.dtype.itemsize, t)
    if slices:
        loss = _narrow(True, *operands, slices, panel)
    else:
        flat_sum(_flat(x), DIFFERENCES, CHECK)  # a saturated unit would hide an infinity
        loss = nan if isnan(result(CHECK)) else _layers(*operands, nothing(x))
    loss = _with_penalty(loss, recipe, numbers, parameters, gradients)
    if isfinite(loss):
        recipe[codes.STEP] += 1
        network_update(recipe, numbers, gradients, parameters, first, second)
        for row in table:
            if row[codes.KIND] == codes.DROPOUT:
                row[codes.SEED] = (int(row[codes.SEED]) + NEXT_SEED) % 2**63
    return loss


def rows_kernel(real, name):
    @kernel(real[:, ::1], int64[::1], real[:, ::1], threads=FLAT, variant=name)
    def gather_rows(source, chosen, target):
        columns = source.shape[1]
        for e in range(cuda.grid(1), target.size, cuda.gridsize(1)):
            target[e // columns, e % columns] = source[chosen[e // columns], e % columns]

    return gather_rows


def items_kernel(of, name):
    @kernel(of[::1], int64[::1], of[::1], threads=FLAT, variant=name)
    def gather_items(source, chosen, target):
        for i in range(cuda.grid(1), target.size, cuda.gridsize(1)):
            target[i] = source[chosen[i]]

    return gather_items


TYPES = {str(dtype): real for dtype, real in REALS.items()}
GATHER = {(name, 2): rows_kernel(of, name) for name, of in TYPES.items()}
GATHER |= {(name, 1): items_kernel(of, name) for name, of in (TYPES | LABELS).items()}


def _gather(source, chosen, room):
    """The chosen rows of an array, in the room for a batch."""
    target = room[: chosen.size]
    GATHER[str(source.dtype), source.ndim](flat_grid(target.size), source, chosen, target)
    return target


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
    rows, batch = x.shape[0], x_batch.shape[0]
    for _ in range(steps):
        if begin >= rows:
            break
        end = min(begin + batch, rows)
        s, weight = sample_weight, float(end - begin)
        if order.size:
            chosen = order[begin:end]
            xs, ts = _gather(x, chosen, x_batch), _gather(t, chosen, t_batch)
            s = _gather(s, chosen, s_batch) if s.size else s
        else:
            xs, ts, s = x[begin:end], t[begin:end], s[begin:end] if s.size else s
        if s.size:
            flat_sum(s, PLAIN, WEIGHT)
            weight = result(WEIGHT)
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
