"""L2 penalty and gradient clipping in CUDA, over flat arrays. Sums are in float64."""

from numba.types import float64

from .blocks import FLAT, flat_grid
from .elementary import sqrt
from .launch import for_reals, kernel
from .sums import (
    NORM,
    PARTIALS,
    PENALTY,
    SQUARES,
    block_sum,
    flat_sum,
    gate,
    is_open,
    result,
    scratch,
    sum_partials,
)
from .target import cuda


@for_reals
def penalty_kernel(real):
    """dw += 2 reg w, and partial sums of the penalty."""

    @kernel(float64[::1], real[::1], float64, real[::1], float64[::1], threads=FLAT)
    def l2_penalty(gate, w, reg, dw, scratch):
        if not is_open(gate):
            return
        shared = cuda.shared.array(FLAT, float64)
        slope, total = real(2 * reg), 0.0
        for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
            total += reg * (float64(w[i]) * float64(w[i]))
            dw[i] += slope * w[i]
        total = block_sum(shared, total)
        if cuda.threadIdx.x == 0:
            scratch[PARTIALS + cuda.blockIdx.x] = total

    return l2_penalty


@for_reals
def scale_kernel(real):
    """gradients *= max_norm / norm where the norm is larger."""

    @kernel(float64[::1], float64, float64[::1], real[::1], threads=FLAT)
    def clip_by_global_norm(gate, max_norm, scratch, gradients):
        if not is_open(gate):
            return
        norm = sqrt(scratch[NORM])
        if norm > max_norm:
            scale = real(max_norm / norm)
            for i in range(cuda.grid(1), gradients.size, cuda.gridsize(1)):
                gradients[i] *= scale

    return clip_by_global_norm


@for_reals
def clip_kernel(real):
    """gradients within +-limit; a NaN stays."""

    @kernel(float64[::1], real, real[::1], threads=FLAT)
    def clip_by_value(gate, limit, gradients):
        if not is_open(gate):
            return
        for i in range(cuda.grid(1), gradients.size, cuda.gridsize(1)):
            g = gradients[i]
            gradients[i] = limit if g > limit else (-limit if g < -limit else g)  # a NaN stays

    return clip_by_value


def launch_penalty(w, reg, dw):
    """dw += 2 reg w, and leaves the penalty in scratch[PENALTY]."""
    grid = flat_grid(w.size)
    if grid:
        penalty_kernel[w.dtype](grid, gate(), w, reg, dw, scratch())
    sum_partials(1, grid, PENALTY, scratch())


def l2_penalty(w, reg, dw):
    """Returns reg * sum(w**2) and adds its gradient: dw += 2 * reg * w. w, dw: (size,)."""
    launch_penalty(w, reg, dw)
    return result(PENALTY)


def launch_clip(max_norm, gradients):
    """Scales the gradients, and leaves the square of their norm in scratch[NORM]."""
    flat_sum(gradients, SQUARES, NORM)
    if gradients.size:
        scale_kernel[gradients.dtype](
            flat_grid(gradients.size), gate(), max_norm, scratch(), gradients
        )


def clip_by_global_norm(max_norm, gradients):
    """Returns the norm; scales gradients (size,) in place by max_norm / norm if it is larger.

    Gradients beyond 1e154 become zero here, since their squares overflow.
    """
    launch_clip(max_norm, gradients)
    return result(NORM) ** 0.5


def clip_by_value(limit, gradients):
    """gradients (size,) = min(max(gradients, -limit), limit) in place."""
    if gradients.size:
        clip_kernel[gradients.dtype](flat_grid(gradients.size), gate(), limit, gradients)
