"""L2 penalty and gradient clipping in Numba, over flat arrays. Sums are in float64."""

from math import inf, sqrt

import numpy as np

from .jit import inline, kernel
from .scalar import plus


@kernel
def l2_penalty(w, reg, dw):
    """Returns reg * sum(w**2) and adds its gradient: dw += 2 * reg * w. w, dw: (size,)."""
    slope, total = w.dtype.type(2 * reg), 0.0
    for i in range(w.size):
        total = plus(total, np.float64(w[i]) * w[i])
        dw[i] += slope * w[i]
    return reg * total


@inline
def largest(gradients):
    """The largest magnitude; 0 of none."""
    most = 0.0
    for i in range(gradients.size):
        most = max(most, abs(np.float64(gradients[i])))
    return most


@inline
def clip_by_large_norm(max_norm, peak, gradients):
    """`clip_by_global_norm` where squares overflow; peak: the largest magnitude, finite."""
    total = 0.0
    for i in range(gradients.size):
        share = gradients[i] / peak
        total = plus(total, share * share)
    norm = sqrt(total)
    if peak * norm > max_norm:
        for i in range(gradients.size):
            gradients[i] = gradients[i] / peak * (max_norm / norm)
    return peak * norm


@kernel
def clip_by_global_norm(max_norm, gradients):
    """Returns the norm; scales gradients (size,) in place by max_norm / norm if it is larger."""
    total = 0.0
    for i in range(gradients.size):
        g = np.float64(gradients[i])
        total = plus(total, g * g)
    norm = sqrt(total)
    if norm == inf:
        peak = largest(gradients)
        if peak < inf:
            return clip_by_large_norm(max_norm, peak, gradients)
    if norm > max_norm:
        scale = gradients.dtype.type(max_norm / norm)
        for i in range(gradients.size):
            gradients[i] *= scale
    return norm


@kernel
def clip_by_value(limit, gradients):
    """gradients (size,) = min(max(gradients, -limit), limit) in place."""
    edge = gradients.dtype.type(limit)
    for i in range(gradients.size):
        g = gradients[i]
        gradients[i] = edge if g > edge else (-edge if g < -edge else g)  # a NaN stays
