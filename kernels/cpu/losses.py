"""Losses in Numba: each returns the mean over the batch and writes its gradient in the same pass.

A row's loss is the sum over its outputs; sample_weight (n,) weighs the rows, empty means all one:
loss = sum(sample_weight * row_loss) / sum(sample_weight), and zero for a batch without rows.
The loss is summed in float64.

The `inline` functions do it for some rows of a batch: `share` is what one unit of weight counts in
the mean over the batch, and what they return adds up to the loss.
"""

from math import nan

from numba import carray

from .elementary import exp, log1p, softplus
from .elementary import sigmoid as logistic
from .jit import inline, kernel, spliced
from .pointers import address, room
from .scalar import larger, plus

# What one loop of exponentials takes of a batch.
ROWS = 32
TOGETHER = 1024  # elements, about


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
            row = plus(row, d * d)
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
            row = plus(row, inside * (d - half * inside))  # both branches: inside is d or +-delta
            dy[i, j] = scale * inside
        loss += scale * row
    return loss


@kernel
def huber(y, t, delta, sample_weight, dy):
    """d**2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond, d = y - t. y, t, dy: (n, m)."""
    return huber_losses(y, t, delta, sample_weight, row_share(sample_weight, len(y)), dy)


@inline
def rows_together(m):
    """Rows whose exponentials are computed in one loop: a row of few outputs fills no vector."""
    return max(1, min(ROWS, TOGETHER // max(m, 1)))


@spliced
def row_room(z):
    """A number of z's type for each row that is taken together, on the caller's stack."""
    return room(z.dtype.type, ROWS)


@inline
def flat_rows(array, begin, end):
    """Some rows of a matrix as a vector."""
    m = array.shape[1]
    return carray(address(array, begin * m), (end - begin) * m)


@inline
def logistic_losses(z, t, sample_weight, share, dz):
    """binary_cross_entropy of some rows."""
    (n, m), loss = z.shape, 0.0
    zero, one, bad = z.dtype.type(0), z.dtype.type(1), z.dtype.type(nan)
    for begin in range(0, n, rows_together(m)):
        end = min(begin + rows_together(m), n)
        logits, targets = flat_rows(z, begin, end), flat_rows(t, begin, end)
        results = flat_rows(dz, begin, end)
        for j in range(results.size):
            target = targets[j] if zero <= targets[j] <= one else bad
            results[j] = softplus(logits[j]) - logits[j] * target
        for i in range(begin, end):
            row = zero
            for j in range(m):
                row = plus(row, dz[i, j])
            loss += z.dtype.type(row_scale(sample_weight, share, i)) * row
        for j in range(results.size):
            results[j] = logistic(logits[j]) - targets[j]
        for i in range(begin, end):
            scale = z.dtype.type(row_scale(sample_weight, share, i))
            for j in range(m):
                dz[i, j] *= scale
    return loss


@kernel
def binary_cross_entropy(z, t, sample_weight, dz):
    """-t log p - (1 - t) log(1 - p), p = sigmoid(z); NaN for t outside [0, 1]. z, t, dz: (n, m)."""
    return logistic_losses(z, t, sample_weight, row_share(sample_weight, len(z)), dz)


@inline
def exp_rows(z, begin, end, e, peaks, totals):
    """e = exp(z - max(z)) in some rows. peaks, totals: max(z) and sum(e) of each of them."""
    m = z.shape[1]
    for i in range(begin, end):
        peak = z[i, 0]
        for j in range(1, m):
            peak = larger(peak, z[i, j])
        for j in range(m):
            e[i, j] = z[i, j] - peak
        peaks[i - begin] = peak
    flat = flat_rows(e, begin, end)
    for j in range(flat.size):
        flat[j] = exp(flat[j])
    for i in range(begin, end):
        total = e.dtype.type(0)
        for j in range(m):
            total = plus(total, e[i, j])
        totals[i - begin] = total


@inline
def cross_entropies(z, t, sample_weight, share, dz):
    """softmax_cross_entropy of some rows."""
    (n, m), loss, zero, one = z.shape, 0.0, z.dtype.type(0), z.dtype.type(1)
    peaks, totals, logs = row_room(z), row_room(z), row_room(z)
    for begin in range(0, n, rows_together(m)):
        end = min(begin + rows_together(m), n)
        exp_rows(z, begin, end, dz, peaks, totals)
        for i in range(end - begin):
            logs[i] = log1p(totals[i] - one)  # the largest exponential is 1
        for i in range(begin, end):
            scale = z.dtype.type(row_scale(sample_weight, share, i))
            peak, total, log_total = peaks[i - begin], totals[i - begin], logs[i - begin]
            mass, row = zero, zero
            for j in range(m):
                mass = plus(mass, t[i, j])
                row = plus(row, t[i, j] * (log_total - (z[i, j] - peak)))
            factor = mass / total
            for j in range(m):
                dz[i, j] = scale * (dz[i, j] * factor - t[i, j])
            loss += scale * row
    return loss


@kernel
def softmax_cross_entropy(z, t, sample_weight, dz):
    """-sum(t * log p), p = softmax(z). z, t (one-hot or probabilities), dz: (n, m)."""
    return cross_entropies(z, t, sample_weight, row_share(sample_weight, len(z)), dz)


@inline
def sparse_cross_entropies(z, t, sample_weight, share, dz):
    """sparse_softmax_cross_entropy of some rows."""
    (n, m), loss, one = z.shape, 0.0, z.dtype.type(1)
    peaks, totals, logs = row_room(z), row_room(z), row_room(z)
    for begin in range(0, n, rows_together(m)):
        end = min(begin + rows_together(m), n)
        exp_rows(z, begin, end, dz, peaks, totals)
        for i in range(end - begin):
            logs[i] = log1p(totals[i] - one)  # the largest exponential is 1
        for i in range(begin, end):
            scale = z.dtype.type(row_scale(sample_weight, share, i))
            if 0 <= t[i] < m:
                loss += scale * (logs[i - begin] - (z[i, t[i]] - peaks[i - begin]))
                factor = scale / totals[i - begin]
                for j in range(m):
                    dz[i, j] *= factor
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
    (n, m), peaks, totals = z.shape, row_room(z), row_room(z)
    for begin in range(0, n, rows_together(m)):
        end = min(begin + rows_together(m), n)
        exp_rows(z, begin, end, p, peaks, totals)
        for i in range(begin, end):
            for j in range(m):
                p[i, j] /= totals[i - begin]
