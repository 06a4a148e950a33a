"""A whole network in NumPy: forward, loss, backward and the optimiser's step, layer by layer.

The network is a table, what a step does a recipe of integers and numbers: see codes.py.
"""

import numpy as np

from .. import codes
from .dense import dense_backward, dense_backward_work, dense_forward, dense_forward_work
from .dropout import dropout
from .expressions import expression_loss
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


def network_work(n, table):
    """Elements of `work` that the kernels of this module need for n rows."""
    dense = [row for row in table if row[codes.KIND] == codes.DENSE]
    scratch = [
        max(dense_forward_work(n, k, m), dense_backward_work(n, k, m))
        for k, m in (row[[codes.K, codes.M]] for row in dense)
    ]
    return n * (_kept(table) + 2 * _widest(table)) + max(scratch)


def _kept(table):
    """Elements of activations that a row of the batch keeps."""
    return max(max(row[codes.Y], row[codes.Z]) + row[codes.M] for row in table)


def _widest(table):
    return max(table[:, codes.K].max(), table[:, codes.M].max())


def _part(flat, offset, shape):
    """The piece of a flat array, empty for an offset of -1."""
    if offset < 0:
        return flat[:0].reshape((0,) * len(shape))
    return flat[offset : offset + int(np.prod(shape))].reshape(shape)


def network_forward(x, table, numbers, training, parameters, work, y):
    """y = the output of the last layer. x: (n, k) of the first layer, y: (n, m) of the last.

    With `training`, masks of the dropout layers; numbers: their rates, from codes.RATES on.
    """
    np.copyto(y, _forward(range(len(table)), x, table, numbers, training, parameters, work))


def _forward(layers, x, table, numbers, training, parameters, work):
    """The output of some layers in a row, for the input x of the first of them."""
    n = len(x)
    scratch = work[n * (_kept(table) + 2 * _widest(table)) :]
    for i in layers:
        row = table[i]
        k, m = row[codes.K], row[codes.M]
        below = x
        x = _part(work, n * row[codes.Y], (n, m))
        if row[codes.KIND] == codes.DROPOUT:
            rate = numbers[codes.RATES + i] if training else 0.0
            dropout(below.reshape(-1), rate, row[codes.SEED], x.reshape(-1))
            continue
        w = _part(parameters, row[codes.W], (k, m))
        b = _part(parameters, row[codes.B], (m,))
        z = _part(work, n * row[codes.Z] if row[codes.Z] >= 0 else -1, (n, m))
        dense_forward(below, w, b, row[codes.ACTIVATION], scratch, z, x)
    return x


def _output(i, x, table, work):
    """The output of layer i that lies in work; of -1, x."""
    n, row = len(x), table[i]
    return x if i < 0 else _part(work, n * row[codes.Y], (n, row[codes.M]))


LOSSES = {
    codes.SQUARED_ERROR: squared_error,
    codes.HALF_SQUARED_ERROR: half_squared_error,
    codes.HUBER: huber,
    codes.BINARY_CROSS_ENTROPY: binary_cross_entropy,
    codes.SOFTMAX_CROSS_ENTROPY: softmax_cross_entropy,
    codes.SPARSE_SOFTMAX_CROSS_ENTROPY: sparse_softmax_cross_entropy,
}


def network_loss(recipe, numbers, y, t, sample_weight, dy):
    """The loss of the recipe and its gradient dy. y, dy: (n, m), t: (n, m) or (n,) labels."""
    loss = recipe[codes.LOSS]
    if loss >= codes.EXPRESSION:
        return expression_loss(y, t, loss, sample_weight, dy)
    more = (numbers[codes.DELTA],) if loss == codes.HUBER else ()
    return LOSSES[loss](y, t, *more, sample_weight, dy)


def network_loss_gradients(
    x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, dx
):
    """Returns the loss, L2 included; NaN for x with NaN or infinity, and for an expression whose
    derivative makes a gradient so.

    gradients: (size,) of it, dx: (n, k) or empty; without meaning if the loss is not finite.
    """
    if not np.isfinite(x).all():  # a saturated unit would hide it from the loss
        return np.nan
    n = len(x)
    kept, widest = _kept(table), _widest(table)
    scratch = work[n * (kept + 2 * widest) :]
    y = _forward(range(len(table)), x, table, numbers, True, parameters, work)
    buffers = [work[n * (kept + i * widest) :] for i in range(2)]
    dy = _part(buffers[0], 0, y.shape)
    loss = network_loss(recipe, numbers, y, t, sample_weight, dy)
    if not np.isfinite(loss):
        return loss
    for i in reversed(range(len(table))):
        row = table[i]
        k, m, first = row[codes.K], row[codes.M], row[codes.AGAIN]
        if first >= 0:
            start = _output(first - 1, x, table, work)
            _forward(range(first, i), start, table, numbers, True, parameters, work)
        below = _output(i - 1, x, table, work)
        above, dy = dy, _part(buffers[(len(table) - i) % 2], 0, (n, k)) if i else dx
        if row[codes.KIND] == codes.DROPOUT:
            if dy.size:
                rate = numbers[codes.RATES + i]
                dropout(above.reshape(-1), rate, row[codes.SEED], dy.reshape(-1))
            continue
        w, dw = (_part(flat, row[codes.W], (k, m)) for flat in (parameters, gradients))
        db = _part(gradients, row[codes.B], (m,))
        place = row[codes.Z] if row[codes.Z] >= 0 else row[codes.Y]
        saved = _part(work, n * place, (n, m))
        dense_backward(above, below, w, saved, row[codes.ACTIVATION], scratch, dw, db, dy)
    if numbers[codes.L2] != 0:
        weights = slice(recipe[codes.WEIGHTS])
        loss += l2_penalty(parameters[weights], numbers[codes.L2], gradients[weights])
    highest = max(recipe[codes.LOSS], *table[:, codes.ACTIVATION])
    if highest >= codes.EXPRESSION and not np.isfinite(gradients).all():
        return np.nan
    return loss


def network_update(recipe, numbers, gradients, parameters, first, second):
    """Clip the gradients and take one step of the optimiser; first, second: its state or empty."""
    if recipe[codes.CLIP] == codes.CLIP_NORM:
        clip_by_global_norm(numbers[codes.LIMIT], gradients)
    elif recipe[codes.CLIP] == codes.CLIP_VALUE:
        clip_by_value(numbers[codes.LIMIT], gradients)
    a, b, c, d, e = numbers[codes.FIRST : codes.RATES]
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
    loss = network_loss_gradients(
        x, t, sample_weight, table, recipe, numbers, parameters, work, gradients, x[:0, :0]
    )
    if np.isfinite(loss):
        recipe[codes.STEP] += 1
        network_update(recipe, numbers, gradients, parameters, first, second)
        for row in table:
            if row[codes.KIND] == codes.DROPOUT:
                row[codes.SEED] = (int(row[codes.SEED]) + codes.NEXT_SEED) % 2**63
    return loss


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
        chosen = order[begin:end] if order.size else slice(begin, end)
        s = sample_weight[chosen] if sample_weight.size else sample_weight
        weight = s.sum(dtype=np.float64) if s.size else float(end - begin)
        if weight > 0:
            loss = network_step(
                x[chosen], t[chosen], s, table, recipe, numbers, work, gradients, parameters,
                first, second,
            )  # fmt: skip
            sums[2] = loss
            if not np.isfinite(loss):
                break
            sums[0] += weight * loss
            sums[1] += weight
        elif not np.isfinite(x[chosen]).all():
            sums[2] = np.nan
            break
        begin = end
    return begin
