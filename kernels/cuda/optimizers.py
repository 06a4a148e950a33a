"""Optimisers in CUDA, over flat arrays: one launch updates parameters and state in place.

gradients, parameters and every state array: (size,). step counts from 1.
"""

from numba.types import boolean, float64

from .blocks import FLAT, flat_grid
from .elementary import sqrt
from .launch import for_reals, kernel
from .sums import BIAS1, BIAS2, gate, is_open
from .target import cuda


@for_reals
def sgd_kernel(real):
    """p -= rate g, or rate v with momentum."""

    @kernel(float64[::1], real[::1], real, real, boolean, real[::1], real[::1], threads=FLAT)
    def sgd(gate, gradients, rate, mu, nesterov, parameters, velocity):
        if not is_open(gate):
            return
        for i in range(cuda.grid(1), parameters.size, cuda.gridsize(1)):
            g = gradients[i]
            if velocity.size > 0:
                v = mu * velocity[i] + g
                velocity[i] = v
                g = g + mu * v if nesterov else v
            parameters[i] -= rate * g

    return sgd


@for_reals
def adamw_kernel(real):
    """bias1, bias2: 1 - beta**step, or 0 for those that the count beside the gate gives."""

    @kernel(
        float64[::1], real[::1], real, real, real, real, real, real, float64, float64, float64,
        real[::1], real[::1], real[::1], threads=FLAT,
    )  # fmt: skip
    def adamw(
        gate, gradients, b1, new1, b2, new2, eps, shrink, rate, bias1, bias2, parameters, m, v
    ):  # fmt: skip
        if not is_open(gate):
            return
        m_scale = real(rate / (bias1 if bias1 > 0 else gate[BIAS1]))
        v_scale = real(1 / (bias2 if bias2 > 0 else gate[BIAS2]))
        for i in range(cuda.grid(1), parameters.size, cuda.gridsize(1)):
            g = gradients[i]
            mean = b1 * m[i] + new1 * g
            square = b2 * v[i] + new2 * g * g
            m[i], v[i] = mean, square
            update = m_scale * mean / (sqrt(v_scale * square) + eps)
            parameters[i] = shrink * parameters[i] - update

    return adamw


@for_reals
def rmsprop_kernel(real):
    """p -= rate g / (sqrt(s) + eps)."""

    @kernel(float64[::1], real[::1], real, real, real, real, real[::1], real[::1], threads=FLAT)
    def rmsprop(gate, gradients, rate, old, new, eps, parameters, square):
        if not is_open(gate):
            return
        for i in range(cuda.grid(1), parameters.size, cuda.gridsize(1)):
            g = gradients[i]
            s = old * square[i] + new * g * g
            square[i] = s
            parameters[i] -= rate * g / (sqrt(s) + eps)

    return rmsprop


def sgd(gradients, learning_rate, momentum, nesterov, parameters, velocity):
    """v = momentum v + g; p -= learning_rate v, or learning_rate (g + momentum v) after Nesterov.

    velocity is empty where momentum is zero.
    """
    grid = flat_grid(parameters.size)
    if grid:
        sgd_kernel[parameters.dtype](
            grid, gate(), gradients, learning_rate, momentum, nesterov, parameters, velocity
        )


def adam(gradients, learning_rate, beta1, beta2, eps, step, parameters, m, v):
    """m, v: means of g and g**2; p -= learning_rate m^ / (sqrt(v^) + eps) (Kingma & Ba 2015)."""
    adamw(gradients, learning_rate, beta1, beta2, eps, 0.0, step, parameters, m, v)


def adamw(gradients, learning_rate, beta1, beta2, eps, weight_decay, step, parameters, m, v):
    """p -= learning_rate weight_decay p, then a step of Adam (Loshchilov & Hutter 2019).

    step 0, behind a gate: the step that is counted there.
    """
    grid, step = flat_grid(parameters.size), int(step)
    if grid:
        adamw_kernel[parameters.dtype](
            grid, gate(), gradients, beta1, 1 - beta1, beta2, 1 - beta2, eps,
            1 - learning_rate * weight_decay, learning_rate, 1 - beta1**step, 1 - beta2**step,
            parameters, m, v,
        )  # fmt: skip


def rmsprop(gradients, learning_rate, alpha, eps, parameters, square):
    """s = alpha s + (1 - alpha) g**2; p -= learning_rate g / (sqrt(s) + eps) (Hinton 2012)."""
    grid = flat_grid(parameters.size)
    if grid:
        rmsprop_kernel[parameters.dtype](
            grid, gate(), gradients, learning_rate, alpha, 1 - alpha, eps, parameters, square
        )
