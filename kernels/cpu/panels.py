"""Some rows of a batch, a panel, through all layers of a network.

In training a panel goes forward, through the loss and backward before the next one begins: its
activations are still in cache, and no more of them ever exist, however long the batch is. `room`
holds, one behind the other: y and z of each layer, dy of the loss, two buffers for the dx between
layers, and the scratch of a dense layer. Layers may share places for y and z: what is overwritten
is then computed again on the way back.
"""

from math import isfinite, nan

from numba import carray

from ..codes import (
    ACTIVATION,
    AGAIN,
    BINARY_CROSS_ENTROPY,
    DELTA,
    DROPOUT,
    EXPRESSION,
    HALF_SQUARED_ERROR,
    HUBER,
    KIND,
    LOSS,
    RATES,
    SEED,
    SQUARED_ERROR,
    B,
    K,
    M,
    W,
    Y,
    Z,
)
from .dense import (
    dense_backward,
    dense_backward_add,
    dense_backward_work,
    dense_forward,
    dense_forward_work,
)
from .dropout import dropout, seed_from
from .expressions import expression_losses
from .jit import inline, spliced
from .losses import (
    cross_entropies,
    huber_losses,
    logistic_losses,
    scaled_squares,
    sparse_cross_entropies,
)
from .pointers import address

# Arrays of a bare pointer: a slice would count references, 0.1 us a layer.


@inline
def vector(flat, offset, size):
    """A piece of a flat array, empty for an offset of -1."""
    return carray(address(flat, max(offset, 0)), size if offset >= 0 else 0)


@inline
def matrix(flat, offset, rows, columns):
    """A piece of a flat array as a matrix, empty for a negative offset."""
    return carray(address(flat, max(offset, 0)), (rows if offset >= 0 else 0, columns))


@inline
def rows_of(array, begin, end):
    """Some rows of a matrix, or elements of a vector; none of an empty one."""
    count = end - begin if array.size > 0 else 0
    if array.ndim == 1:
        return carray(address(array, begin), count)
    return carray(address(array, begin * array.shape[1]), (count, array.shape[1]))


@inline
def kept(table):
    """Elements of activations that a row keeps."""
    most = 0
    for i in range(len(table)):
        most = max(most, max(table[i, Y], table[i, Z]) + table[i, M])
    return most


@inline
def all_kept(table):
    """Elements of activations that a row would keep if no layers shared places."""
    count = 0
    for i in range(len(table)):
        count += table[i, M] * (1 if table[i, Z] < 0 else 2)
    return count


@inline
def widest(table):
    """Elements of the widest layer of a row."""
    most = 0
    for i in range(len(table)):
        most = max(most, max(table[i, K], table[i, M]))
    return most


@inline
def places(rows, table):
    """Where in the room of a panel begin: dy of the loss, the buffers for dx, the scratch."""
    at_dy = rows * kept(table)
    buffers = at_dy + rows * table[len(table) - 1, M]
    return at_dy, buffers, buffers + 2 * rows * widest(table)


@inline
def panel_room(rows, table):
    """Elements of room that a panel of up to so many rows needs."""
    scratch = 0
    for i in range(len(table)):
        if table[i, KIND] != DROPOUT:
            k, m = table[i, K], table[i, M]
            work = max(dense_forward_work(rows, k, m), dense_backward_work(rows, k, m))
            scratch = max(scratch, work)
    return places(rows, table)[2] + scratch


@spliced
def forward(begin, end, x, row, table, numbers, training, parameters, room, y):
    """Layers begin..end-1 for a panel x that begins at a row of the batch; y: of the last of all.

    x: (rows, k) of layer `begin`.
    """
    rows, last, below = len(x), len(table) - 1, x
    at_scratch = places(rows, table)[2]
    scratch = vector(room, at_scratch, room.size - at_scratch)
    for i in range(begin, end):
        k, m = table[i, K], table[i, M]
        above = matrix(room, rows * table[i, Y], rows, m) if i < last else y
        if table[i, KIND] == DROPOUT:
            rate = numbers[RATES + i] if training else 0.0
            seed = seed_from(table[i, SEED], row * m)
            dropout(below.reshape(rows * m), rate, seed, above.reshape(rows * m))
        else:
            w, b = matrix(parameters, table[i, W], k, m), vector(parameters, table[i, B], m)
            z = matrix(room, rows * table[i, Z] if training else -1, rows, m)
            dense_forward(below, w, b, table[i, ACTIVATION], scratch, z, above)
        below = above


@inline
def forward_again(end, x, row, table, numbers, parameters, room):
    """y and z of the layers below `end` that its row names, which other layers have overwritten."""
    rows, begin = len(x), table[end, AGAIN]
    below = matrix(room, rows * table[begin - 1, Y], rows, table[begin, K]) if begin > 0 else x
    none = matrix(room, -1, rows, 0)
    forward(begin, end, below, row, table, numbers, True, parameters, room, none)


@inline
def losses(recipe, numbers, y, t, sample_weight, share, dy):
    """What a panel adds to the loss of the recipe, and its gradient dy (rows, m)."""
    if t.ndim == 1:
        return sparse_cross_entropies(y, t, sample_weight, share, dy)
    loss = recipe[LOSS]
    if loss >= EXPRESSION:
        return expression_losses(loss, y, t, sample_weight, share, dy)
    if loss == SQUARED_ERROR:
        return scaled_squares(y, t, 1.0, sample_weight, share, dy)
    if loss == HALF_SQUARED_ERROR:
        return scaled_squares(y, t, 0.5, sample_weight, share, dy)
    if loss == HUBER:
        return huber_losses(y, t, numbers[DELTA], sample_weight, share, dy)
    if loss == BINARY_CROSS_ENTROPY:
        return logistic_losses(y, t, sample_weight, share, dy)
    return cross_entropies(y, t, sample_weight, share, dy)


@spliced
def backward(add, x, row, table, numbers, parameters, room, gradients, dx):
    """What a panel gives to the gradients, or with `add` adds to them, and its dx or none."""
    rows, last, wide = len(x), len(table) - 1, widest(table)
    at_dy, buffers, at_scratch = places(rows, table)
    scratch = vector(room, at_scratch, room.size - at_scratch)
    above = matrix(room, at_dy, rows, table[last, M])
    for i in range(last, -1, -1):
        k, m = table[i, K], table[i, M]
        if table[i, AGAIN] >= 0:
            forward_again(i, x, row, table, numbers, parameters, room)
        below, dy = x, dx
        if i > 0:
            below = matrix(room, rows * table[i - 1, Y], rows, k)
            dy = matrix(room, buffers + i % 2 * rows * wide, rows, k)
        if table[i, KIND] == DROPOUT:
            if dy.size > 0:
                seed = seed_from(table[i, SEED], row * m)
                dropout(above.reshape(rows * m), numbers[RATES + i], seed, dy.reshape(rows * m))
        else:
            w, dw = matrix(parameters, table[i, W], k, m), matrix(gradients, table[i, W], k, m)
            db = vector(gradients, table[i, B], m)
            activation = table[i, ACTIVATION]
            place = table[i, Z] if table[i, Z] >= 0 else table[i, Y]
            saved = matrix(room, rows * place, rows, m)
            if add:
                dense_backward_add(above, below, w, saved, activation, scratch, dw, db, dy)
            else:
                dense_backward(above, below, w, saved, activation, scratch, dw, db, dy)
        above = dy


@inline
def all_finite(x):
    """Whether no number of x is NaN or infinite: their difference to themselves is NaN."""
    flat, bad = x.reshape(x.size), 0
    for i in range(flat.size):
        bad += flat[i] - flat[i] != 0
    return bad == 0


@spliced
def train(
    begin, end, most, x, t, sample_weight, share, table, recipe, numbers, parameters, room,
    gradients, dx,
):  # fmt: skip
    """The gradients of the rows begin..end-1, in panels of up to `most`; returns their loss.

    share: what one unit of weight counts in the mean loss of the batch. NaN for x with NaN or
    infinity, which a saturated unit would hide from the loss.
    """
    loss, last = 0.0, len(table) - 1
    for row in range(begin, end, most):
        rows = min(most, end - row)
        stop = row + rows
        panel, targets = rows_of(x, row, stop), rows_of(t, row, stop)
        s = rows_of(sample_weight, row, stop)
        if not all_finite(panel):
            return nan
        y = matrix(room, rows * table[last, Y], rows, table[last, M])
        dy = matrix(room, places(rows, table)[0], rows, table[last, M])
        forward(0, last + 1, panel, row, table, numbers, True, parameters, room, y)
        loss += losses(recipe, numbers, y, targets, s, share, dy)
        if not isfinite(loss):
            break
        out = rows_of(dx, row, stop)
        backward(row > begin, panel, row, table, numbers, parameters, room, gradients, out)
    return loss
