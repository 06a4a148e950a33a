"""L2 penalty and gradient clipping in NumPy, over flat arrays."""

import numpy as np


def l2_penalty(w, reg, dw):
    """Returns reg * sum(w**2) and adds its gradient: dw += 2 * reg * w. w, dw: (size,)."""
    dw += 2 * reg * w
    return float(reg * np.sum(w * w, dtype=np.float64))


def clip_by_global_norm(max_norm, gradients):
    """Returns the norm; scales gradients (size,) in place by max_norm / norm if it is larger."""
    with np.errstate(over="ignore"):
        norm = float(np.sqrt(np.sum(np.square(gradients, dtype=np.float64))))
    if norm == np.inf and (peak := float(np.max(np.abs(gradients)))) < np.inf:
        shares = gradients / peak  # their squares do not overflow
        norm = float(np.sqrt(np.sum(np.square(shares))))
        if peak * norm > max_norm:
            gradients[...] = shares * (max_norm / norm)
        return peak * norm
    if norm > max_norm:
        gradients *= max_norm / norm
    return norm


def clip_by_value(limit, gradients):
    """gradients (size,) = min(max(gradients, -limit), limit) in place."""
    np.clip(gradients, -limit, limit, out=gradients)
