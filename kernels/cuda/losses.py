"""Losses in CUDA: each returns the mean over the batch and writes its gradient in the same pass.

A row's loss is the sum over its outputs; sample_weight (n,) weighs the rows, empty means all one:
loss = sum(sample_weight * row_loss) / sum(sample_weight), and zero for a batch without rows.

`lanes` threads share a row, as many as it is wide, up to LANES. Rows are summed in float64.
"""

from math import inf, nan

from numba import types
from numba.types import float64, int32

from ..codes import (
    BINARY_CROSS_ENTROPY,
    HALF_SQUARED_ERROR,
    HUBER,
    SOFTMAX_CROSS_ENTROPY,
    SPARSE_SOFTMAX_CROSS_ENTROPY,
    SQUARED_ERROR,
)
from .blocks import FLAT_BLOCKS, LANES, ROW_THREADS, blocks
from .elementary import exp, log, softplus
from .elementary import sigmoid as logistic
from .launch import REALS, for_reals, kernel, variants
from .sums import LOSS, PARTIALS, PLAIN, WEIGHT, block_sum, flat_sum, result, scratch, sum_partials
from .target import cuda, device

LABELS = {str(of): of for of in sorted(types.integer_domain, key=str)}


@device
def row_sum(lanes, shared, value):
    """The sum of `value` over the lanes of a row; all threads of the block take part."""
    t = cuda.threadIdx.x
    shared[t] = value
    cuda.syncthreads()
    step = lanes // 2
    while step > 0:
        if t % lanes < step:
            shared[t] += shared[t + step]
        step //= 2
        cuda.syncthreads()
    total = shared[t - t % lanes]
    cuda.syncthreads()
    return total


@device
def row_peak(lanes, shared, value):
    """The largest `value` of the lanes of a row; all threads of the block take part."""
    t = cuda.threadIdx.x
    shared[t] = value
    cuda.syncthreads()
    step = lanes // 2
    while step > 0:
        if t % lanes < step and shared[t + step] > shared[t]:
            shared[t] = shared[t + step]
        step //= 2
        cuda.syncthreads()
    peak = shared[t - t % lanes]
    cuda.syncthreads()
    return peak


@device
def share_of(sample_weight, scratch, n, i):
    """What row i counts in the mean."""
    if sample_weight.size > 0:
        return sample_weight[i] / scratch[WEIGHT]
    return 1.0 / n


@device
def huber_term(d, delta):
    """d**2 / 2 within +-delta, delta (|d| - delta / 2) beyond: `inside` is d or +-delta."""
    inside = delta if d > delta else (-delta if d < -delta else d)
    return inside * (d - type(d)(0.5) * inside), inside


@device
def cross_entropy_term(z, t):
    """-t log p - (1 - t) log(1 - p), p = sigmoid(z); NaN for t outside [0, 1]."""
    real = type(z)
    target = t if t >= real(0) and t <= real(1) else real(nan)
    return softplus(z) - z * target, logistic(z) - t


@device
def term(loss, y, t, delta):
    """(loss, slope) of one output."""
    d = y - t
    if loss == SQUARED_ERROR:
        return d * d, d + d
    if loss == HUBER:
        return huber_term(d, delta)
    if loss == BINARY_CROSS_ENTROPY:
        return cross_entropy_term(y, t)
    return type(y)(0.5) * d * d, d


@for_reals
def element_kernel(real):
    """Losses whose outputs do not know of each other. y, t, dy: (n, m)."""

    @kernel(
        int32, int32, real[:, ::1], real[:, ::1], real, real[::1], float64[::1], real[:, ::1],
        threads=ROW_THREADS,
    )  # fmt: skip
    def element_loss(loss, lanes, y, t, delta, sample_weight, scratch, dy):
        shared = cuda.shared.array(ROW_THREADS, float64)
        (n, m), lane, total = y.shape, cuda.threadIdx.x % lanes, 0.0
        rows = ROW_THREADS // lanes
        for i in range(
            cuda.blockIdx.x * rows + cuda.threadIdx.x // lanes, n, cuda.gridDim.x * rows
        ):
            share, row = share_of(sample_weight, scratch, n, i), real(0)
            for j in range(lane, m, lanes):
                value, slope = term(loss, y[i, j], t[i, j], delta)
                row += value
                dy[i, j] = real(share) * slope
            total += share * row
        total = block_sum(shared, total)
        if cuda.threadIdx.x == 0:
            scratch[PARTIALS + cuda.blockIdx.x] = total

    return element_loss


@device
def exp_row(lanes, lane, shared, z, i, n, e):
    """e[i] = exp(z[i] - max(z[i])); returns max(z[i]) and sum(e[i])."""
    m, real = z.shape[1], z.dtype.type
    peak, total = real(-inf), real(0)
    if i < n:
        for j in range(lane, m, lanes):
            peak = z[i, j] if z[i, j] > peak else peak
    peak = row_peak(lanes, shared, peak)
    if i < n:
        for j in range(lane, m, lanes):
            e[i, j] = exp(z[i, j] - peak)
            total += e[i, j]
    return peak, row_sum(lanes, shared, total)


@for_reals
def softmax_kernel(real):
    """t: one-hot or probabilities. z, t, dz: (n, m)."""

    @kernel(
        int32, real[:, ::1], real[:, ::1], real[::1], float64[::1], real[:, ::1],
        threads=ROW_THREADS,
    )  # fmt: skip
    def softmax_loss(lanes, z, t, sample_weight, scratch, dz):
        shared = cuda.shared.array(ROW_THREADS, real)
        sums = cuda.shared.array(ROW_THREADS, float64)
        (n, m), lane, loss = z.shape, cuda.threadIdx.x % lanes, 0.0
        rows = ROW_THREADS // lanes
        for first in range(cuda.blockIdx.x * rows, n, cuda.gridDim.x * rows):
            i, mass, row = first + cuda.threadIdx.x // lanes, real(0), real(0)
            peak, total = exp_row(lanes, lane, shared, z, i, n, dz)
            if i < n:
                log_total = log(total)
                for j in range(lane, m, lanes):
                    mass += t[i, j]
                    row += t[i, j] * (log_total - (z[i, j] - peak))
            mass = row_sum(lanes, shared, mass)
            if i < n:
                share = share_of(sample_weight, scratch, n, i)
                for j in range(lane, m, lanes):
                    dz[i, j] = real(share) * (dz[i, j] * (mass / total) - t[i, j])
                loss += share * row
        loss = block_sum(sums, loss)
        if cuda.threadIdx.x == 0:
            scratch[PARTIALS + cuda.blockIdx.x] = loss

    return softmax_loss


def sparse_kernel(real, label):
    """t: labels (n,). z, dz: (n, m)."""
    integer = LABELS[label]

    @kernel(
        int32, real[:, ::1], integer[::1], real[::1], float64[::1], real[:, ::1],
        threads=ROW_THREADS,
    )  # fmt: skip
    def sparse_loss(lanes, z, t, sample_weight, scratch, dz):
        shared = cuda.shared.array(ROW_THREADS, real)
        sums = cuda.shared.array(ROW_THREADS, float64)
        (n, m), lane, loss = z.shape, cuda.threadIdx.x % lanes, 0.0
        rows = ROW_THREADS // lanes
        for first in range(cuda.blockIdx.x * rows, n, cuda.gridDim.x * rows):
            i = first + cuda.threadIdx.x // lanes
            peak, total = exp_row(lanes, lane, shared, z, i, n, dz)
            if i < n:
                known = t[i] >= 0 and t[i] < m
                share = share_of(sample_weight, scratch, n, i)
                scale = real(share) if known else real(nan)
                for j in range(lane, m, lanes):
                    dz[i, j] *= scale / total
                    if known and j == t[i]:
                        dz[i, j] -= scale
                        loss += share * (log(total) - (z[i, j] - peak))
                if not known:
                    loss = nan
        loss = block_sum(sums, loss)
        if cuda.threadIdx.x == 0:
            scratch[PARTIALS + cuda.blockIdx.x] = loss

    return sparse_loss


SPARSE = variants(sparse_kernel, [(dtype, label) for dtype in REALS for label in LABELS])


def row_grid(n, m):
    """(blocks, lanes) of a kernel over rows."""
    lanes = 1
    while lanes < min(m, LANES):
        lanes *= 2
    return min(blocks(n, ROW_THREADS // lanes), FLAT_BLOCKS), lanes


def launch_loss(loss, y, t, delta, sample_weight, dy):
    """Writes dy, and leaves the loss in scratch[LOSS]. loss: its code in codes.py."""
    (n, m), place = y.shape, scratch()
    grid, lanes = row_grid(n, m)
    if n and sample_weight.size:
        flat_sum(sample_weight, PLAIN, WEIGHT)
    if n == 0:
        pass
    elif loss == SPARSE_SOFTMAX_CROSS_ENTROPY:
        SPARSE[y.dtype, str(t.dtype)](grid, lanes, y, t, sample_weight, place, dy)
    elif loss == SOFTMAX_CROSS_ENTROPY:
        softmax_kernel[y.dtype](grid, lanes, y, t, sample_weight, place, dy)
    else:
        element_kernel[y.dtype](grid, loss, lanes, y, t, delta, sample_weight, place, dy)
    sum_partials(1, grid, LOSS, place)


def squared_error(y, t, sample_weight, dy):
    """(y - t)**2. y, t, dy: (n, m)."""
    launch_loss(SQUARED_ERROR, y, t, 0.0, sample_weight, dy)
    return result(LOSS)


def half_squared_error(y, t, sample_weight, dy):
    """(y - t)**2 / 2. y, t, dy: (n, m)."""
    launch_loss(HALF_SQUARED_ERROR, y, t, 0.0, sample_weight, dy)
    return result(LOSS)


def huber(y, t, delta, sample_weight, dy):
    """d**2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond, d = y - t. y, t, dy: (n, m)."""
    launch_loss(HUBER, y, t, delta, sample_weight, dy)
    return result(LOSS)


def binary_cross_entropy(z, t, sample_weight, dz):
    """-t log p - (1 - t) log(1 - p), p = sigmoid(z); NaN for t outside [0, 1]. z, t, dz: (n, m)."""
    launch_loss(BINARY_CROSS_ENTROPY, z, t, 0.0, sample_weight, dz)
    return result(LOSS)


def softmax_cross_entropy(z, t, sample_weight, dz):
    """-sum(t * log p), p = softmax(z). z, t (one-hot or probabilities), dz: (n, m)."""
    launch_loss(SOFTMAX_CROSS_ENTROPY, z, t, 0.0, sample_weight, dz)
    return result(LOSS)


def sparse_softmax_cross_entropy(z, t, sample_weight, dz):
    """-log p[t], p = softmax(z); NaN for a label outside 0..m-1. z, dz: (n, m), t: (n,) int."""
    launch_loss(SPARSE_SOFTMAX_CROSS_ENTROPY, z, t, 0.0, sample_weight, dz)
    return result(LOSS)


@for_reals
def sigmoid_kernel(real):
    """Lanes of threads share a row of p = sigmoid(z)."""

    @kernel(int32, real[:, ::1], real[:, ::1], threads=ROW_THREADS)
    def sigmoid(lanes, z, p):
        n, m = z.shape
        rows = ROW_THREADS // lanes
        first = cuda.blockIdx.x * rows + cuda.threadIdx.x // lanes
        for i in range(first, n, cuda.gridDim.x * rows):
            for j in range(cuda.threadIdx.x % lanes, m, lanes):
                p[i, j] = logistic(z[i, j])

    return sigmoid


@for_reals
def probability_kernel(real):
    """Lanes of threads share a row of p = softmax(z)."""

    @kernel(int32, real[:, ::1], real[:, ::1], threads=ROW_THREADS)
    def softmax(lanes, z, p):
        shared = cuda.shared.array(ROW_THREADS, real)
        (n, m), lane = z.shape, cuda.threadIdx.x % lanes
        rows = ROW_THREADS // lanes
        for first in range(cuda.blockIdx.x * rows, n, cuda.gridDim.x * rows):
            i = first + cuda.threadIdx.x // lanes
            _, total = exp_row(lanes, lane, shared, z, i, n, p)
            if i < n:
                for j in range(lane, m, lanes):
                    p[i, j] /= total

    return softmax


def sigmoid(z, p):
    """p = 1 / (1 + exp(-z)). z, p: (n, m)."""
    grid, lanes = row_grid(*z.shape)
    if grid:
        sigmoid_kernel[z.dtype](grid, lanes, z, p)


def softmax(z, p):
    """p = exp(z) / sum(exp(z)) in every row. z, p: (n, m)."""
    grid, lanes = row_grid(*z.shape)
    if grid:
        probability_kernel[z.dtype](grid, lanes, z, p)
