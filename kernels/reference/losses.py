"""Losses in NumPy: each returns the mean over the batch and writes its gradient.

A row's loss is the sum over its outputs; sample_weight (n,) weighs the rows, empty means all one:
loss = sum(sample_weight * row_loss) / sum(sample_weight), and zero for a batch without rows.
"""

import numpy as np
from scipy import special


def weighted_mean(row_loss, gradient, sample_weight, out):
    """The weighted mean of row_loss (n,), with d(mean) written to out from d(row_loss) (n, m)."""
    n = len(row_loss)
    if n == 0:
        return 0.0
    s = sample_weight if sample_weight.size else np.ones(n, out.dtype)
    total = s.sum(dtype=np.float64)
    np.multiply(gradient, (s / out.dtype.type(total))[:, None], out=out)
    return float(np.sum(s * row_loss, dtype=np.float64) / total)


def squared_error(y, t, sample_weight, dy):
    """(y - t)**2. y, t, dy: (n, m)."""
    d = y - t
    return weighted_mean(np.sum(d * d, axis=1), 2 * d, sample_weight, dy)


def half_squared_error(y, t, sample_weight, dy):
    """(y - t)**2 / 2. y, t, dy: (n, m)."""
    d = y - t
    return weighted_mean(0.5 * np.sum(d * d, axis=1), d, sample_weight, dy)


def huber(y, t, delta, sample_weight, dy):
    """d**2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond, d = y - t. y, t, dy: (n, m)."""
    d = y - t
    size = np.abs(d)
    loss = np.where(size <= delta, 0.5 * d * d, delta * (size - 0.5 * delta))
    return weighted_mean(np.sum(loss, axis=1), np.clip(d, -delta, delta), sample_weight, dy)


def binary_cross_entropy(z, t, sample_weight, dz):
    """-t log p - (1 - t) log(1 - p), p = sigmoid(z); NaN for t outside [0, 1]. z, t, dz: (n, m)."""
    loss = np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))
    loss = np.where((t >= 0) & (t <= 1), loss, np.nan)
    return weighted_mean(np.sum(loss, axis=1), special.expit(z) - t, sample_weight, dz)


def softmax_cross_entropy(z, t, sample_weight, dz):
    """-sum(t * log p), p = softmax(z). z, t (one-hot or probabilities), dz: (n, m)."""
    shifted = z - np.max(z, axis=1, keepdims=True, initial=-np.inf)
    log_p = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    mass = np.sum(t, axis=1, keepdims=True)
    row_loss = -np.sum(t * log_p, axis=1)
    return weighted_mean(row_loss, np.exp(log_p) * mass - t, sample_weight, dz)


def sparse_softmax_cross_entropy(z, t, sample_weight, dz):
    """-log p[t], p = softmax(z); NaN for a label outside 0..m-1. z, dz: (n, m), t: (n,) int."""
    classes = np.arange(z.shape[1])
    known = (t >= 0) & (t < len(classes))
    one_hot = np.where(known[:, None], t[:, None] == classes, np.nan).astype(z.dtype)
    return softmax_cross_entropy(z, one_hot, sample_weight, dz)


def sigmoid(z, p):
    """p = 1 / (1 + exp(-z)). z, p: (n, m)."""
    special.expit(z, out=p)


def softmax(z, p):
    """p = exp(z) / sum(exp(z)) in every row. z, p: (n, m)."""
    np.exp(z - np.max(z, axis=1, keepdims=True, initial=-np.inf), out=p)
    np.divide(p, np.sum(p, axis=1, keepdims=True), out=p)
