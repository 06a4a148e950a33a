"""L2 penalty and gradient clipping in Numba, over flat arrays. Sums are in float64."""

from math import sqrt

import numpy as np

from .jit import kernel
from .scalar import plus


@kernel
def l2_penalty(w, reg, dw):
    """Returns reg * sum(w**2) and adds its gradient: dw += 2 * reg * w. w, dw: (size,)."""
    slope, total = w.dtype.type(2 * reg), 0.0
    for i in range(w.size):
        total = plus(total, np.float64(w[i]) * w[i])
        dw[i] += slope * w[i]
    return reg * total


@kernel
def clip_by_global_norm(max_norm, gradients):
    """Returns the norm; scales gradients (size,) in place by max_norm / norm if it is larger."""
    total = 0.0
    for i in range(gradients.size):
        g = np.float64(gradients[i])
        total = plus(total, g * g)
    norm = sqrt(total)
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
