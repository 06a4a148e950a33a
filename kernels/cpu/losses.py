"""Losses in Numba: each returns the mean over the batch and writes its gradient in the same pass.

A row's loss is the sum over its outputs; sample_weight (n,) weighs the rows, empty means all one:
loss = sum(sample_weight * row_loss) / sum(sample_weight), and zero for a batch without rows.
The loss is summed in float64.

The `inline` functions do it for some rows of a batch: `share` is what one unit of weight counts in
the mean over the batch, and what they return adds up to the loss.
"""

from math import log, nan

from .elementary import exp, softplus
from .elementary import sigmoid as logistic
from .jit import inline, kernel


@inline
def row_share(sample_weight, n):
    """1 / sum(sample_weight): what one unit of weight counts in the mean."""
    total = 0.0
    for i in range(sample_weight.size):
        total += sample_weight[i]
    return 1.0 / (total if sample_weight.size > 0 else n)


@inline
def row_scale(sample_weight, share, i):
    return share * sample_weight[i] if sample_weight.size > 0 else share


@inline
def scaled_squares(y, t, factor, sample_weight, share, dy):
    """factor * (y - t)**2 of some rows."""
    (n, m), loss = y.shape, 0.0
    for i in range(n):
        scale = y.dtype.type(factor * row_scale(sample_weight, share, i))
        row = y.dtype.type(0)
        for j in range(m):
            d = y[i, j] - t[i, j]
            row += d * d
            dy[i, j] = (scale + scale) * d
        loss += scale * row
    return loss


@kernel
def squared_error(y, t, sample_weight, dy):
    """(y - t)**2. y, t, dy: (n, m)."""
    return scaled_squares(y, t, 1.0, sample_weight, row_share(sample_weight, len(y)), dy)


@kernel
def half_squared_error(y, t, sample_weight, dy):
    """(y - t)**2 / 2. y, t, dy: (n, m)."""
    return scaled_squares(y, t, 0.5, sample_weight, row_share(sample_weight, len(y)), dy)


@inline
def huber_losses(y, t, delta, sample_weight, share, dy):
    """huber of some rows."""
    (n, m), loss = y.shape, 0.0
    edge, half = y.dtype.type(delta), y.dtype.type(0.5)
    for i in range(n):
        scale = y.dtype.type(row_scale(sample_weight, share, i))
        row = y.dtype.type(0)
        for j in range(m):
            d = y[i, j] - t[i, j]
            inside = min(max(d, -edge), edge)
            row += inside * (d - half * inside)  # both branches: inside is d or +-delta
            dy[i, j] = scale * inside
        loss += scale * row
    return loss


@kernel
def huber(y, t, delta, sample_weight, dy):
    """d**2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond, d = y - t. y, t, dy: (n, m)."""
    return huber_losses(y, t, delta, sample_weight, row_share(sample_weight, len(y)), dy)


@inline
def logistic_losses(z, t, sample_weight, share, dz):
    """binary_cross_entropy of some rows."""
    (n, m), loss = z.shape, 0.0
    zero, one, bad = z.dtype.type(0), z.dtype.type(1), z.dtype.type(nan)
    for i in range(n):
        scale = z.dtype.type(row_scale(sample_weight, share, i))
        row = zero
        for j in range(m):
            target = t[i, j] if zero <= t[i, j] <= one else bad
            row += softplus(z[i, j]) - z[i, j] * target
            dz[i, j] = scale * (logistic(z[i, j]) - t[i, j])
        loss += scale * row
    return loss


@kernel
def binary_cross_entropy(z, t, sample_weight, dz):
    """-t log p - (1 - t) log(1 - p), p = sigmoid(z); NaN for t outside [0, 1]. z, t, dz: (n, m)."""
    return logistic_losses(z, t, sample_weight, row_share(sample_weight, len(z)), dz)


@inline
def exp_row(z, e):
    """e = exp(z - max(z)); returns max(z) and sum(e). z, e: (m,)."""
    peak = z[0]
    for j in range(1, z.size):
        peak = max(peak, z[j])
    total = z.dtype.type(0)
    for j in range(z.size):
        e[j] = exp(z[j] - peak)
        total += e[j]
    return peak, total


@inline
def cross_entropies(z, t, sample_weight, share, dz):
    """softmax_cross_entropy of some rows."""
    (n, m), loss = z.shape, 0.0
    for i in range(n):
        scale = z.dtype.type(row_scale(sample_weight, share, i))
        peak, total = exp_row(z[i], dz[i])
        log_total, mass, row = log(total), z.dtype.type(0), z.dtype.type(0)
        for j in range(m):
            mass += t[i, j]
            row += t[i, j] * (log_total - (z[i, j] - peak))
        for j in range(m):
            dz[i, j] = scale * (dz[i, j] * (mass / total) - t[i, j])
        loss += scale * row
    return loss


@kernel
def softmax_cross_entropy(z, t, sample_weight, dz):
    """-sum(t * log p), p = softmax(z). z, t (one-hot or probabilities), dz: (n, m)."""
    return cross_entropies(z, t, sample_weight, row_share(sample_weight, len(z)), dz)


@inline
def sparse_cross_entropies(z, t, sample_weight, share, dz):
    """sparse_softmax_cross_entropy of some rows."""
    (n, m), loss = z.shape, 0.0
    for i in range(n):
        scale = z.dtype.type(row_scale(sample_weight, share, i))
        if 0 <= t[i] < m:
            peak, total = exp_row(z[i], dz[i])
            loss += scale * (log(total) - (z[i, t[i]] - peak))
            for j in range(m):
                dz[i, j] *= scale / total
            dz[i, t[i]] -= scale
        else:
            loss = nan
            dz[i] = nan
    return loss


@kernel
def sparse_softmax_cross_entropy(z, t, sample_weight, dz):
    """-log p[t], p = softmax(z); NaN for a label outside 0..m-1. z, dz: (n, m), t: (n,) int."""
    return sparse_cross_entropies(z, t, sample_weight, row_share(sample_weight, len(z)), dz)


@kernel
def sigmoid(z, p):
    """p = 1 / (1 + exp(-z)). z, p: (n, m)."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            p[i, j] = logistic(z[i, j])


@kernel
def softmax(z, p):
    """p = exp(z) / sum(exp(z)) in every row. z, p: (n, m)."""
    for i in range(z.shape[0]):
        _, total = exp_row(z[i], p[i])
        for j in range(z.shape[1]):
            p[i, j] /= total
