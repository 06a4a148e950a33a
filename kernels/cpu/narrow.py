"""A narrow network: the rows of its batch lie along the vectors.

The outputs of a layer of 2, 4 or 10 units fill a part of a vector. So here a panel of the batch is
transposed, as many of its rows as a panel is wide, and all lanes are full whatever the widths are.
z.T = w.T @ x.T and dx.T = w @ dz.T are tiles, which read the same packed w by columns and by rows.
dw = x.T @ dz are products along the batch; since they end with sums over lanes, they wait until
some panels are through.

A panel has slots of one size: x of each layer and y of the last, then z or f'(z) where a layer
keeps it, dz of each layer, dy. Rows of a slot beyond a layer's units are zero where a tile reads
them, and so are y and dz of columns beyond the last row of the batch.
"""

from functools import partial
from math import inf, isfinite, nan

from numba import carray, types

from ..codes import (
    ACTIVATION,
    COLUMNS,
    DENSE,
    KIND,
    LOSS,
    RELU,
    SOFTMAX_CROSS_ENTROPY,
    B,
    K,
    M,
    W,
    Z,
)
from .activations import activate_and_keep, activation_gradient
from .binding import addressed, call
from .elementary import exp, log1p
from .jit import inline, spliced
from .losses import row_room, row_scale
from .panels import all_finite, losses, rows_of, widest
from .pointers import address, at, element
from .products import (
    multiply_along,
    multiply_block,
    multiply_block_transposed,
    pack_block,
    pack_right_transposed,
    padded,
    sum_along,
    turns_of,
)
from .scalar import larger, plus
from .simd import BLOCK, PANEL, STEPS, TALLEST, WIDEST, copy_part, width
from .threads import ARENA_BYTES

LANES = WIDEST // PANEL
TOGETHER, LEAST_TOGETHER = 8, 4  # panels whose dw is summed at once: they stay in L1 and L2
ZEROS = TALLEST * WIDEST

LEAST_ROWS, MANY_ROWS = 2 * WIDEST, 8 * WIDEST  # of a batch; see `fills_more`


@inline
def slot_rows(table):
    """Rows of a slot: LANES at a time are transposed into it."""
    return padded(widest(table), LANES)


@inline
def slot(panel, number, rows):
    return at(panel, number * rows * width(panel))


@inline
def slots(layers):
    """Slots of a panel."""
    return 3 * layers + 2


@inline
def weights_of(packed, layer, rows):
    """The block of a layer's w, and behind it b in all lanes."""
    return at(packed, layer * rows * (BLOCK + WIDEST))


@inline
def room_beside(table):
    """Elements beside those of panels: zeros, the weights, the loss's operands."""
    rows = slot_rows(table)
    return ZEROS + len(table) * rows * (BLOCK + WIDEST) + 2 * rows * WIDEST


@inline
def together(table):
    """How many panels fit into the room of one thread."""
    size = slots(len(table)) * slot_rows(table) * WIDEST
    return min(TOGETHER, (ARENA_BYTES // 8 - room_beside(table)) // size)


@inline
def narrow_work(table):
    """Elements of work that `train_narrow` needs, 0 for a network that never takes this way."""
    size = slots(len(table)) * slot_rows(table) * WIDEST
    return room_beside(table) + together(table) * size if may_be_narrow(table) else 0


@inline
def may_be_narrow(table):
    """Whether this way is there for a network."""
    dense = True
    for i in range(len(table)):
        dense = dense and table[i, KIND] == DENSE
    return dense and widest(table) <= BLOCK and together(table) >= LEAST_TOGETHER


@inline
def fills_more(n, table):
    """Whether n rows along the vectors fill so many more lanes than the outputs of the layers that
    this way takes less time: 15 % more, for many rows 6 %; docs/cpu.md has what was measured.
    """
    full, filled = 0, 0
    for i in range(len(table)):
        k, m, back = table[i, K], table[i, M], 1 if i > 0 else 0  # dx
        full += (2 + back) * k * m
        filled += 2 * k * padded(m, LANES) + back * m * padded(k, LANES)
    return 100 * filled * n >= (106 if n >= MANY_ROWS else 115) * full * padded(n, WIDEST)


def _arguments(numbers, pointers):
    """Numbers, the table of layers, pointers."""
    words = (types.intp,) * numbers + (types.CPointer(types.intp),)
    return lambda real: words + (types.CPointer(real),) * pointers


# Each is compiled once, by itself, and only where a network is narrow.
part_of_narrow = partial(addressed, group="_narrow")


@inline
def clear(rows, begin, end, count):
    """Zeros in some rows of a slot, from column `count` on."""
    for j in range(begin, end):
        row = at(rows, j * width(rows))
        copy_part(row, row, count)


def pack(layers, rows, shapes, parameters, packed, panels):
    """The weights of all layers, and zeros in the panels."""
    table, wide, zero = carray(shapes, (layers, COLUMNS)), width(packed), element(packed)
    for i in range(layers):
        k, m = table[i, K], table[i, M]
        block = weights_of(packed, i, rows)
        pack_block(at(parameters, table[i, W]), m, k, m, wide, block)
        biases = carray(at(block, rows * BLOCK), padded(m, STEPS) * wide)
        for j in range(padded(m, STEPS)):
            b = carray(at(parameters, table[i, B]), m)[j] if j < m and table[i, B] >= 0 else zero
            for lane in range(wide):
                biases[j * wide + lane] = b
        for p in range(together(table)):
            panel = slot(panels, p * slots(layers), rows)
            clear(slot(panel, i, rows), k, padded(k, STEPS), 0)
            clear(slot(panel, 2 * layers + 1 + i, rows), m, padded(m, STEPS), 0)


def forward(layers, rows, count, shapes, packed, panel):
    """y of each layer for a panel of `count` rows of the batch."""
    table, wide, zero = carray(shapes, (layers, COLUMNS)), width(panel), element(panel)
    for i in range(layers):
        k, m, activation = table[i, K], table[i, M], table[i, ACTIVATION]
        w, x, y = weights_of(packed, i, rows), slot(panel, i, rows), slot(panel, i + 1, rows)
        floor = zero if activation == RELU else zero - inf
        multiply_block_transposed(w, x, turns_of(k), at(w, rows * BLOCK), y, m, floor)
        if activation != RELU:
            kept = m * wide if table[i, Z] >= 0 else 0
            z = carray(slot(panel, layers + 1 + i, rows), kept)
            activate_and_keep(activation, z, carray(y, m * wide))
        if count < wide:
            clear(y, 0, m, count)


def softmax(m, columns, z, t, scales, values, dz):
    """Rows' losses -sum(t * log p), p = softmax(z), and dz of their sum, each times its scale.

    z, t, dz: (m, columns), scales, values: (columns,).
    """
    zero, one = element(z), element(z) + 1
    scales, values = carray(scales, columns), carray(values, columns)
    z, t, dz = carray(z, (m, columns)), carray(t, (m, columns)), carray(dz, (m, columns))
    peaks, totals, logs, masses = row_room(z), row_room(z), row_room(z), row_room(z)
    for i in range(columns):
        peaks[i], totals[i], masses[i], values[i] = z[0, i], zero, zero, zero
    for j in range(1, m):
        for i in range(columns):
            peaks[i] = larger(peaks[i], z[j, i])
    for j in range(m):
        for i in range(columns):
            dz[j, i] = exp(z[j, i] - peaks[i])
            totals[i] += dz[j, i]
    for i in range(columns):
        logs[i] = log1p(totals[i] - one)  # the largest exponential is 1
    for j in range(m):
        for i in range(columns):
            masses[i] += t[j, i]
            values[i] += t[j, i] * (logs[i] - (z[j, i] - peaks[i]))
    for i in range(columns):
        masses[i] /= totals[i]
    for j in range(m):
        for i in range(columns):
            dz[j, i] = scales[i] * (dz[j, i] * masses[i] - t[j, i])


def backward(has_dx, layers, rows, count, shapes, packed, zeros, panel):
    """dz of each layer from dy of the last; with `has_dx`, dx of the first in the place of dy."""
    table, wide, low = carray(shapes, (layers, COLUMNS)), width(panel), element(panel) - inf
    dy = slot(panel, 3 * layers + 1, rows)
    for i in range(layers - 1, -1, -1):
        k, m, keeps = table[i, K], table[i, M], table[i, Z] >= 0
        dz = slot(panel, 2 * layers + 1 + i, rows)
        saved = carray(slot(panel, layers + 1 + i if keeps else i + 1, rows), m * wide)
        above, result = carray(dy, m * wide), carray(dz, m * wide)
        activation_gradient(table[i, ACTIVATION], saved, above, result)
        if count < wide:
            clear(dz, 0, m, count)
        if i > 0 or has_dx:
            w = weights_of(packed, i, rows)
            multiply_block(w, dz, turns_of(m), zeros, dy, k, low)


def gradients_of_panels(add, layers, rows, count, shapes, zeros, panels, gradients):
    """dw and db of all layers from `count` panels, or what they add to them."""
    table, jump = carray(shapes, (layers, COLUMNS)), slots(layers) * rows * width(panels)
    for i in range(layers):
        k, m = table[i, K], table[i, M]
        x, dz = slot(panels, i, rows), slot(panels, 2 * layers + 1 + i, rows)
        dw = at(gradients, table[i, W])
        multiply_along(x, dz, jump, count, add, zeros, dw, k, m)
        if table[i, B] >= 0:
            sum_along(dz, jump, count, add, zeros, at(gradients, table[i, B]), m)


pack_at = part_of_narrow(pack, _arguments(2, 3))
forward_at = part_of_narrow(forward, _arguments(3, 2))
backward_at = part_of_narrow(backward, _arguments(4, 3))
gradients_at = part_of_narrow(gradients_of_panels, _arguments(4, 3))
softmax_at = part_of_narrow(softmax, lambda real: (types.intp,) * 2 + (types.CPointer(real),) * 5)


@inline
def ready(work):
    """Compile this way now: a task may not, whose caller may hold Python's lock."""
    return pack_at(address(work, 0)) != 0


@inline
def pack_targets(t, m, panel):
    """Some rows of t as a panel, labels one-hot; returns whether all labels are below m."""
    wide = width(panel)
    if t.ndim == 2:
        pack_right_transposed(address(t, 0), m, m, len(t), wide, panel)
        return True
    clear(panel, 0, m, 0)
    places = carray(panel, (m, wide))
    for i in range(t.size):
        if not 0 <= t[i] < m:
            return False
        places[t[i], i] = 1
    return True


@inline
def softmax_of_panel(y, m, t, sample_weight, share, room, dy):
    """What a panel adds to the loss; room for two panels of m rows."""
    count, wide = len(t), width(room)
    at_scales = at(room, padded(m, LANES) * wide)
    at_values = at(at_scales, wide)
    scales, values = carray(at_scales, wide), carray(at_values, count)
    if not pack_targets(t, m, room):
        return nan
    for i in range(count):
        scales[i] = row_scale(sample_weight, share, i)
    call(softmax_at(room), (m, wide, y, room, at_scales, at_values, dy))
    loss = 0.0
    for i in range(count):
        loss = plus(loss, row_scale(sample_weight, share, i) * values[i])
    return loss


@inline
def loss_of_panel(recipe, numbers, y, m, t, sample_weight, share, room, dy):
    """`softmax_of_panel` for the other losses, which take a row per sample."""
    count, wide = len(t), width(room)
    at_slopes = at(room, padded(m, LANES) * wide)
    columns, outputs = carray(y, (m, wide)), carray(room, (count, m))
    for i in range(count):
        for j in range(m):
            outputs[i, j] = columns[j, i]
    slopes = carray(at_slopes, (count, m))
    loss = losses(recipe, numbers, outputs, t, sample_weight, share, slopes)
    pack_right_transposed(at_slopes, m, m, count, wide, dy)
    return loss


@spliced
def train_narrow(
    begin, end, x, t, sample_weight, share, table, recipe, numbers, parameters, room, gradients, dx
):
    """`panels.train` for a narrow network."""
    layers, rows, most = len(table), slot_rows(table), together(table)
    k, m, has_dx = table[0, K], table[layers - 1, M], 1 if dx.size > 0 else 0
    zeros, wide = address(room, 0), width(address(room, 0))
    packed = at(zeros, ZEROS)
    beside = weights_of(packed, layers, rows)
    panels = at(beside, 2 * rows * wide)
    shapes, to_gradients = address(table, 0), address(gradients, 0)
    for j in range(0, ZEROS, wide):
        copy_part(at(zeros, j), zeros, 0)
    call(pack_at(zeros), (layers, rows, shapes, address(parameters, 0), packed, panels))
    loss, number, add = 0.0, 0, 0
    for row in range(begin, end, wide):
        stop = min(end, row + wide)
        count = stop - row
        batch, targets = rows_of(x, row, stop), rows_of(t, row, stop)
        s = rows_of(sample_weight, row, stop)
        if not all_finite(batch):
            return nan
        panel = slot(panels, number * slots(layers), rows)
        pack_right_transposed(address(batch, 0), k, k, count, wide, panel)
        call(forward_at(zeros), (layers, rows, count, shapes, packed, panel))
        y, dy = slot(panel, layers, rows), slot(panel, 3 * layers + 1, rows)
        if t.ndim == 1 or recipe[LOSS] == SOFTMAX_CROSS_ENTROPY:
            loss += softmax_of_panel(y, m, targets, s, share, beside, dy)
        else:
            loss += loss_of_panel(recipe, numbers, y, m, targets, s, share, beside, dy)
        if not isfinite(loss):
            return loss
        call(backward_at(zeros), (has_dx, layers, rows, count, shapes, packed, zeros, panel))
        if has_dx:
            out, columns = rows_of(dx, row, stop), carray(dy, (k, wide))
            for i in range(count):
                for j in range(k):
                    out[i, j] = columns[j, i]
        number += 1
        if number == most or stop == end:
            operands = shapes, zeros, panels, to_gradients
            call(gradients_at(zeros), (add, layers, rows, number, *operands))
            number, add = 0, 1
    return loss
