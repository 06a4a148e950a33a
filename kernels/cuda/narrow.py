"""A narrow network in one kernel: forward, loss and backward of all layers, panel by panel.

A block takes a few rows through the whole network. Their activations and gradients stay in its
shared memory; of global memory it reads x, t and the parameters, which the caches keep, and it
writes gradients: a slice of its own, to which each of its panels adds. The slices are then summed
in their order. Every thread has 4 x 4 elements of a product at a time. No activation reaches global
memory, so layers that share places for them there have places of their own here.
"""

from functools import lru_cache
from math import inf, nan

import numpy as np
from numba.types import float64, int32, int64, uint64

from ..codes import (
    ACTIVATION,
    AGAIN,
    DELTA,
    DENSE,
    DROPOUT,
    HUBER,
    KEEPS_Z,
    KIND,
    RATES,
    SEED,
    SOFTMAX_CROSS_ENTROPY,
    SPARSE_SOFTMAX_CROSS_ENTROPY,
    B,
    K,
    M,
    W,
    Y,
    Z,
)
from .activations import apply, slope
from .blocks import NARROW_SLICES, NARROW_THREADS, NARROW_WIDTH, SHARED, blocks
from .dropout import masked, scale_and_threshold, seed_of_step
from .elementary import exp, log
from .launch import REALS, current_device, kernel, variants
from .losses import share_of, term
from .sums import PARTIALS, block_sum, scratch
from .target import cuda, device, host

WITH_Z = tuple(sorted(KEEPS_Z))  # Numba knows no sets
LABELS = {"int32": int32, "int64": int64}


@device
def clear(c):
    for i in range(16):
        c[i] = type(c[i])(0)


@device
def forward(table, i, rows, a, w, c, s):
    """Layer i for a panel: s holds the input at a, and gets y, and z where it is kept."""
    k, m, at_w, at_b = table[i, K], table[i, M], table[i, W], table[i, B]
    y, z, across, zero = rows * table[i, Y], rows * table[i, Z], (m + 3) // 4, type(w[0])(0)
    for v in range(cuda.threadIdx.x, rows // 4 * across, NARROW_THREADS):
        r0, j0 = v // across * 4, v % across * 4
        clear(c)
        for p in range(k):
            for j in range(4):
                right = w[at_w + p * m + j0 + j] if j0 + j < m else zero
                for r in range(4):
                    c[4 * r + j] += s[a + (r0 + r) * k + p] * right
        for j in range(4):
            for r in range(4):
                if j0 + j < m:
                    s[y + (r0 + r) * m + j0 + j] = c[4 * r + j]
    cuda.syncthreads()
    for e in range(cuda.threadIdx.x, rows * m, NARROW_THREADS):
        v = s[y + e]
        if at_b >= 0:
            v += w[at_b + e % m]
        if z >= 0:
            s[z + e] = v
        s[y + e] = apply(table[i, ACTIVATION], v)
    cuda.syncthreads()


@device
def through_mask(table, masks, i, rows, row, scratch, a, b, s):
    """b = a under the mask of dropout layer i, for a panel from `row` on; both in s, or the same.

    masks: (layers, 2), the scale and the threshold of each layer.
    """
    m, real = table[i, M], type(s[0])
    seed = seed_of_step(uint64(table[i, SEED]), uint64(2**63 - 1), scratch)
    scale, threshold = real(masks[i, 0]), uint64(masks[i, 1])
    for e in range(cuda.threadIdx.x, rows * m, NARROW_THREADS):
        s[b + e] = masked(s[a + e], seed, row * m + e, scale, threshold)
    cuda.syncthreads()


@device
def toward_weights(table, i, rows, a, dz, first, base, c, s, out):
    """dw and db of a panel, written or added to this block's slice of the gradients."""
    k, m, at_w, at_b = table[i, K], table[i, M], base + table[i, W], table[i, B]
    across, zero = (m + 3) // 4, type(s[0])(0)
    for v in range(cuda.threadIdx.x, (k + 3) // 4 * across, NARROW_THREADS):
        p0, j0 = v // across * 4, v % across * 4
        clear(c)
        for r in range(rows):
            for p in range(4):
                left = s[a + r * k + p0 + p] if p0 + p < k else zero
                for j in range(4):
                    c[4 * p + j] += left * (s[dz + r * m + j0 + j] if j0 + j < m else zero)
        for p in range(4):
            for j in range(4):
                if p0 + p < k and j0 + j < m:
                    at = at_w + (p0 + p) * m + j0 + j
                    out[at] = c[4 * p + j] if first else out[at] + c[4 * p + j]
    if at_b >= 0:
        for j in range(cuda.threadIdx.x, m, NARROW_THREADS):
            total = zero
            for r in range(rows):
                total += s[dz + r * m + j]
            out[base + at_b + j] = total if first else out[base + at_b + j] + total


@device
def toward_input(table, i, rows, dz, w, dx, c, s):
    """dx = dz @ w.T of a panel, in s."""
    k, m, at_w = table[i, K], table[i, M], table[i, W]
    across, zero = (k + 3) // 4, type(s[0])(0)
    for v in range(cuda.threadIdx.x, rows // 4 * across, NARROW_THREADS):
        r0, p0 = v // across * 4, v % across * 4
        clear(c)
        for j in range(m):
            for p in range(4):
                right = w[at_w + (p0 + p) * m + j] if p0 + p < k else zero
                for r in range(4):
                    c[4 * r + p] += s[dz + (r0 + r) * m + j] * right
        for p in range(4):
            for r in range(4):
                if p0 + p < k:
                    s[dx + (r0 + r) * k + p0 + p] = c[4 * r + p]


@device
def through_activation(table, i, rows, dz, s):
    """dz = dy * f'(z) in place."""
    f, m = table[i, ACTIVATION], table[i, M]
    saved = rows * (table[i, Z] if f in WITH_Z else table[i, Y])
    for e in range(cuda.threadIdx.x, rows * m, NARROW_THREADS):
        s[dz + e] *= slope(f, s[saved + e])


@device
def softmax_row(mass, m, share, y, dz, s):
    """dz of a row but for its targets; returns the peak of y, and log(sum(exp(y - peak)))."""
    real = type(s[0])
    peak, total = real(-inf), real(0)
    for j in range(m):
        peak = s[y + j] if s[y + j] > peak else peak
    for j in range(m):
        s[dz + j] = exp(s[y + j] - peak)
        total += s[dz + j]
    for j in range(m):
        s[dz + j] *= real(share) * (mass / total)
    return peak, log(total)


@device
def loss_of_labels(loss, m, delta, share, i, t, y, dz, s):
    """dz of row i of a batch whose targets are labels; returns its loss."""
    real = type(s[0])
    if not (t[i] >= 0 and t[i] < m):
        return real(nan)
    peak, rest = softmax_row(real(1), m, share, y, dz, s)
    s[dz + t[i]] -= real(share)
    return rest - (s[y + t[i]] - peak)


@device
def loss_of_numbers(loss, m, delta, share, i, t, y, dz, s):
    """dz of row i of a batch whose targets are numbers; returns its loss."""
    real = type(s[0])
    row, mass = real(0), real(0)
    if loss == SOFTMAX_CROSS_ENTROPY:
        for j in range(m):
            mass += t[i, j]
        peak, rest = softmax_row(mass, m, share, y, dz, s)
        for j in range(m):
            s[dz + j] -= real(share) * t[i, j]
            row += t[i, j] * (rest - (s[y + j] - peak))
        return row
    for j in range(m):
        value, d = term(loss, s[y + j], t[i, j], delta)
        row += value
        s[dz + j] = real(share) * d
    return row


def narrow_kernel(real, label):
    """Blocks: slices of the rows. s: activations, two gradients, x; all of `rows` rows."""
    sparse = label != ""
    targets = LABELS[label][::1] if sparse else real[:, ::1]
    row_loss = loss_of_labels if sparse else loss_of_numbers

    @kernel(
        real[:, ::1], targets, real[::1], int64[:, ::1], float64[:, ::1], real[::1], int32, real,
        int32, int32, int32, float64[::1], real[::1], threads=NARROW_THREADS,
    )  # fmt: skip
    def narrow_network(
        x, t, sample_weight, table, masks, w, loss, delta, rows, kept, wide, scratch, out
    ):  # fmt: skip
        s = cuda.shared.array(0, real)
        sums = cuda.shared.array(NARROW_THREADS, float64)
        c = cuda.local.array(16, real)
        thread, (n, k), last = cuda.threadIdx.x, x.shape, table.shape[0] - 1
        above, below, at_x = rows * kept, rows * (kept + wide), rows * (kept + 2 * wide)
        m, base, total = table[last, M], cuda.blockIdx.x * w.size, 0.0
        y, first = rows * table[last, Y], cuda.blockIdx.x * rows
        for row in range(first, n, cuda.gridDim.x * rows):
            for e in range(thread, rows * k, NARROW_THREADS):
                i = row + e // k
                s[at_x + e] = x[i, e % k] if i < n else real(0)
                total += s[at_x + e] - s[at_x + e]  # NaN unless x is finite
            cuda.syncthreads()
            for i in range(last + 1):
                a = rows * table[i - 1, Y] if i > 0 else at_x
                if table[i, KIND] == DENSE:
                    forward(table, i, rows, a, w, c, s)
                else:
                    b = rows * table[i, Y]
                    through_mask(table, masks, i, rows, row, scratch, a, b, s)
            for r in range(thread, rows, NARROW_THREADS):
                i, dz = row + r, above + r * m
                if i < n:
                    share = share_of(sample_weight, scratch, n, i)
                    total += share * row_loss(loss, m, delta, share, i, t, y + r * m, dz, s)
                else:
                    for j in range(m):
                        s[dz + j] = real(0)
            cuda.syncthreads()
            dz, dx = above, below
            for i in range(last, -1, -1):
                if table[i, KIND] == DENSE:
                    a = rows * table[i - 1, Y] if i > 0 else at_x
                    through_activation(table, i, rows, dz, s)
                    cuda.syncthreads()
                    toward_weights(table, i, rows, a, dz, row == first, base, c, s, out)
                    if i > 0:
                        toward_input(table, i, rows, dz, w, dx, c, s)
                    cuda.syncthreads()
                    dz, dx = dx, dz
                else:
                    through_mask(table, masks, i, rows, row, scratch, dz, dz, s)
        total = block_sum(sums, total)
        if thread == 0:
            scratch[PARTIALS + cuda.blockIdx.x] = total

    return narrow_network


NARROW_NETWORKS = variants(
    narrow_kernel, [(dtype, label) for dtype in REALS for label in ("", *LABELS)]
)


def rows_of_panel(n, elements, itemsize):
    """Rows of a panel whose numbers fit into shared memory, in fours; fewer if the batch is small.

    0: not even four fit.
    """
    most = SHARED // (itemsize * elements) // 4 * 4
    return min(most, max(4, blocks(n, NARROW_SLICES) // 4 * 4), 32)


def apart(table):
    """The table with a place of its own for every y and z, so that nothing is computed again."""
    table, keeps = table.copy(), table[:, Z] >= 0
    sizes = table[:, M] * (1 + keeps)
    table[:, Y] = np.cumsum(sizes) - sizes
    table[:, Z] = np.where(keeps, table[:, Y] + table[:, M], -1)
    table[:, AGAIN] = -1
    return table


def elements_of(table):
    """(kept, widest, all) elements of a row of the batch in shared memory."""
    kept = int((table[:, M] * (1 + (table[:, Z] >= 0))).sum())
    widest = int(table[:, [K, M]].max())
    return kept, widest, kept + 2 * widest + int(table[0, K])


def slices_of(n, table, itemsize, t=None):
    """(slices, rows of a panel) where this kernel serves the network, else (0, 0)."""
    label = t is not None and t.ndim == 1
    if table[:, [K, M]].max() > NARROW_WIDTH or (label and str(t.dtype) not in LABELS):
        return 0, 0
    rows = rows_of_panel(n, elements_of(table)[2], itemsize)
    return (min(blocks(n, rows), NARROW_SLICES), rows) if rows else (0, 0)


@lru_cache(maxsize=64)
def _on_gpu(number, dtype, columns, content):
    """A small table on a GPU. A network's is that of step 0, so that it stays what it is."""
    return host.to_device(np.frombuffer(content, dtype).reshape(-1, columns).copy())


def _masks(table, numbers):
    """(layers, 2): the scale and the threshold of each dropout layer."""
    rates = numbers[RATES:] * (table[:, KIND] == DROPOUT)
    return np.array([scale_and_threshold(rate) for rate in rates], float)


def launch_narrow(x, t, sample_weight, table, loss, numbers, parameters, slices, rows, out):
    """Leaves the partial sums of the loss in scratch, the gradients of every slice in `out`."""
    kept, widest, elements = elements_of(table)
    label = str(t.dtype) if loss == SPARSE_SOFTMAX_CROSS_ENTROPY else ""
    tables = [
        _on_gpu(current_device(), a.dtype.str, a.shape[1], a.tobytes())
        for a in (apart(table), _masks(table, numbers))
    ]
    NARROW_NETWORKS[x.dtype, label](
        slices, x, t, sample_weight, *tables, parameters, loss,
        numbers[DELTA] if loss == HUBER else 0.0, rows, kept, widest, scratch(), out,
        shared=rows * elements * x.dtype.itemsize,
    )  # fmt: skip
