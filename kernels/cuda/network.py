"""A whole network in CUDA: a sequence of launches; table, recipe, numbers and sums lie on the host.

The network is a table, what a step does a recipe of integers and numbers: see codes.py. x, t,
parameters and all that grows with them stay on the GPU. The host waits for it once in a step, and
once in a call of network_epoch: whether a loss is finite is seen on the GPU, by a gate (sums.py).
The launches of a step are the same every time, so that they can be recorded (graphs.py).
"""

from functools import partial

import numpy as np

from .. import codes
from . import launch
from .batches import launch_batch
from .dense import backward, dense_backward_work, dense_forward, dense_forward_work
from .dropout import dropout
from .launch import address_of, nothing
from .losses import launch_loss
from .narrow import launch_narrow, slices_of
from .optimizers import adamw, rmsprop, sgd
from .regularization import clip_by_value, launch_clip, launch_penalty
from .sums import (
    CHECK,
    DIFFERENCES,
    LAST,
    LOSS,
    PLAIN,
    WEIGHT,
    account,
    flat_sum,
    gated,
    launch_slices,
    open_gate,
    result,
    results,
    scratch,
    spoil_loss,
    sum_partials,
)


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

    With `training`, masks of the dropout layers; numbers: their rates, from codes.RATES on.
    """
    x = _forward(range(len(table)), x, table, numbers, training, parameters, work, y)
    if training and x.size:
        y.copy_to_device(x, stream=launch.stream())


def _forward(layers, x, table, numbers, training, parameters, work, y):
    """The output of some layers in a row, for the input x of the first of them."""
    n, rows = x.shape[0], table.tolist()
    room = work[n * (_kept(table) + 2 * _widest(table)) :]
    for i in layers:
        row = rows[i]
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
    return x


def _output(i, x, rows, work):
    """The output of layer i that lies in work; of -1, x."""
    n = x.shape[0]
    return x if i < 0 else _matrix(work, n * rows[i][codes.Y], n, rows[i][codes.M])


def network_loss_gradients(
    x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
):
    """Returns the loss, L2 included, or NaN for x with NaN or infinity.

    gradients: (size,) of it, dx: (n, k) or empty; without meaning if the loss is not finite.
    """
    open_gate(1, 0, 0, scratch())
    _launch_gradients(
        (1.0, 0), x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
    )
    return result(LAST)


def _launch_gradients(
    counts, x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
):
    """Gradients, while the gate is open; then the loss goes to its account.

    counts: the weight of the batch there (0: of its sample weights), and its rows.
    """
    slices, panel = slices_of(x.shape[0], table, x.dtype.itemsize, t)
    operands = x, t, sample_weight, table, recipe, numbers, parameters, work, gradients
    with gated():
        if slices and dx.size == 0:
            _narrow(*operands, slices, panel)
        else:
            _layers(*operands, dx)
        if numbers[codes.L2] != 0:
            size = int(recipe[codes.WEIGHTS])
            launch_penalty(parameters[:size], numbers[codes.L2], gradients[:size])
    betas = numbers[codes.FIRST + 1 : codes.FIRST + 3]
    if recipe[codes.OPTIMIZER] != codes.ADAMW:
        betas = 0.0, 0.0
    account(1, *counts, numbers[codes.L2] != 0, *betas, scratch())


def _narrow(
    x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, slices, panel
):
    """The loss, and its gradients, in one kernel and the sum over its slices."""
    if sample_weight.size:
        flat_sum(sample_weight, PLAIN, WEIGHT)
    launch_narrow(
        x, t, sample_weight, table, recipe[codes.LOSS], numbers, parameters, slices, panel, work
    )
    sum_partials(1, slices, LOSS, scratch())
    size = gradients.size
    launch_slices(slices, size, False, work, gradients.reshape(1, size), gradients[:0])


def _layers(x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx):
    """The loss, its gradients and dx, layer by layer."""
    n, rows = x.shape[0], table.tolist()
    kept, widest = _kept(table), _widest(table)
    room = work[n * (kept + 2 * widest) :]
    y = _forward(range(len(rows)), x, table, numbers, True, parameters, work, None)
    places = n * kept, n * (kept + widest)
    above = _matrix(work, places[0], n, rows[-1][codes.M])
    launch_loss(recipe[codes.LOSS], y, t, numbers[codes.DELTA], sample_weight, above)
    flat_sum(_flat(x), DIFFERENCES, CHECK)
    spoil_loss(1, scratch())
    ready = False  # whether `above` is dz already
    for i in reversed(range(len(rows))):
        row, lower = rows[i], rows[i - 1] if i else None
        k, first = row[codes.K], row[codes.AGAIN]
        if first >= 0:
            start = _output(first - 1, x, rows, work)
            _forward(range(first, i), start, table, numbers, True, parameters, work, None)
        below = _output(i - 1, x, rows, work)
        dy = _matrix(work, places[(len(rows) - i) % 2], n, k) if i else dx
        if row[codes.KIND] == codes.DROPOUT:
            if dy.size:
                dropout(_flat(above), numbers[codes.RATES + i], row[codes.SEED], _flat(dy))
            above, ready = dy, False
            continue
        w, dw = (_matrix(a, row[codes.W], k, row[codes.M]) for a in (parameters, gradients))
        db = _vector(gradients, row[codes.B], row[codes.M])
        saved, activation = _saved(work, n, row), codes.IDENTITY if ready else row[codes.ACTIVATION]
        ready = i > 0 and lower[codes.KIND] == codes.DENSE
        saved_below = _saved(work, n, lower) if ready else nothing(x)
        f_below = lower[codes.ACTIVATION] if ready else codes.IDENTITY
        backward(False, above, below, w, saved, activation, saved_below, f_below, room, dw, db, dy)
        above = dy


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
    """One step on one batch; returns the loss before it. No step if that is not finite.

    The step count of the recipe goes up by one, each dropout layer's seed to the next.
    """
    step = int(recipe[codes.STEP])
    open_gate(1, step, 0, scratch())
    what = *_at_step_0(table, recipe), numbers, work, gradients, parameters, first, second
    _launch_step((1.0, 0), x, t, sample_weight, *what)
    loss, _, _, after, _ = results()
    recipe[codes.STEP] = after
    _next_masks(table, after - step)
    return loss


def _at_step_0(table, recipe):
    """What every step shares: seeds and step count as they were before the first."""
    table, recipe = table.copy(), recipe.copy()
    _next_masks(table, -int(recipe[codes.STEP]))
    recipe[codes.STEP] = 0
    return table, recipe


def _launch_step(
    counts, x, t, sample_weight, table, recipe, numbers, work, gradients, parameters, first, second
):
    """Gradients and update while the gate is open; table and recipe as they were at step 0."""
    _launch_gradients(
        counts, x, t, sample_weight, table, recipe, numbers, parameters, work, gradients,
        nothing(x),
    )  # fmt: skip
    with gated():
        network_update(recipe, numbers, gradients, parameters, first, second)


def _next_masks(table, steps):
    """The seeds of dropout after so many steps."""
    for row in table:
        if row[codes.KIND] == codes.DROPOUT:
            row[codes.SEED] = (int(row[codes.SEED]) + steps * codes.NEXT_SEED) % 2**63


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
    rows, batch, step = x.shape[0], x_batch.shape[0], int(recipe[codes.STEP])
    end = min(begin + steps * batch, rows)
    if begin >= end:
        return begin
    data, rooms = (x, t, sample_weight), (x_batch, t_batch, s_batch)
    fixed, ahead = _at_step_0(table, recipe)
    what = fixed, ahead, numbers, work, gradients, parameters, first, second
    key = tuple(map(_identity, (*data, order, *rooms, *what))), launch.precision()
    open_gate(1, step, begin, scratch())
    try:
        for start in range(begin, end, batch):
            count = min(batch, rows - start)
            step_of = partial(_batch_step, count, data, order, rooms, what)
            launch.recorder().run((count, key), step_of)
    finally:  # also when Ctrl-C was pressed in the meantime
        loss, losses, weights, after, row = results()
        recipe[codes.STEP] = after
        _next_masks(table, after - step)
    sums += losses, weights, 0
    if after > step or row < end:
        sums[2] = loss
    return row


def _batch_step(rows, data, order, rooms, what):
    """One step on the next rows."""
    batch = launch_batch(rows, data, order, rooms)
    weight = 0.0 if data[2].size else float(rows)
    _launch_step((weight, rows), *batch, *what)


def _identity(array):
    """What a launch takes of an array: its place on the GPU, or its numbers on the host."""
    if isinstance(array, np.ndarray):
        return array.tobytes()
    return address_of(array) if array.size else 0, tuple(array.shape), str(array.dtype)
