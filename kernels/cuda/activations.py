"""Activations in CUDA: y = f(z), and f'(z) from what the forward pass keeps (y, or z).

Each formula is a function of one number. `apply` and `slope` choose one by its code: all threads
of a launch take the same branch, so one compiled kernel serves every activation.
"""

from numba.types import int32

from ..codes import (
    ELU,
    GELU,
    GELU_CUBIC,
    GELU_EDGE,
    GELU_SCALE,
    GELU_TANH,
    IDENTITY,
    INV_SQRT_2PI,
    LEAKY_RELU,
    LEAKY_SLOPE,
    RELU,
    SIGMOID,
    SILU,
    SIN,
    SOFTPLUS,
    SQRT_HALF,
    TANH,
)
from .blocks import FLAT, flat_grid
from .elementary import cos, erf, exp, expm1, sigmoid, sin, softplus, tanh
from .launch import for_reals, kernel
from .target import cuda, device


@device
def gelu(z):
    real = type(z)
    return real(0.5) * z * (real(1) + erf(real(SQRT_HALF) * z))


@device
def gelu_slope(z):
    real = type(z)
    density = real(INV_SQRT_2PI) * exp(real(-0.5) * z * z)
    return real(0.5) * (real(1) + erf(real(SQRT_HALF) * z)) + z * density


@device
def gelu_tanh(z):
    real = type(z)
    u = real(GELU_SCALE) * (z + real(GELU_CUBIC) * z * z * z)
    return real(0.5) * z * (real(1) + tanh(u))


@device
def gelu_tanh_slope(z):
    real = type(z)
    edge = real(GELU_EDGE)  # beyond, the slope is 0 or 1 and the cube may overflow
    z = edge if z > edge else (-edge if z < -edge else z)
    t = tanh(real(GELU_SCALE) * (z + real(GELU_CUBIC) * z * z * z))
    inner = real(GELU_SCALE) * (real(1) + real(3 * GELU_CUBIC) * z * z)
    return real(0.5) * (real(1) + t + z * (real(1) - t * t) * inner)


@device
def silu_slope(z):
    real = type(z)
    s = sigmoid(z)
    return s * (real(1) + z * (real(1) - s))


@device
def apply(activation, z):
    """f(z). The branches are written so that a NaN passes."""
    real = type(z)
    if activation == RELU:
        return real(0) if z <= real(0) else z
    if activation == LEAKY_RELU:
        return real(LEAKY_SLOPE) * z if z <= real(0) else z
    if activation == ELU:
        return expm1(z) if z <= real(0) else z
    if activation == SIGMOID:
        return sigmoid(z)
    if activation == TANH:
        return tanh(z)
    if activation == SOFTPLUS:
        return softplus(z)
    if activation == SILU:
        return z * sigmoid(z)
    if activation == GELU:
        return gelu(z)
    if activation == GELU_TANH:
        return gelu_tanh(z)
    if activation == SIN:
        return sin(z)
    return z


@device
def slope(activation, saved):
    """f'(z) from y, or from z for the activations in codes.KEEPS_Z."""
    real = type(saved)
    if activation == RELU:
        return real(1) if saved > real(0) else real(0)
    if activation == LEAKY_RELU:
        return real(1) if saved > real(0) else real(LEAKY_SLOPE)
    if activation == ELU:
        return real(1) if saved > real(0) else saved + real(1)
    if activation == SIGMOID:
        return saved * (real(1) - saved)
    if activation == TANH:
        return real(1) - saved * saved
    if activation == SOFTPLUS:
        return -expm1(-saved)
    if activation == SILU:
        return silu_slope(saved)
    if activation == GELU:
        return gelu_slope(saved)
    if activation == GELU_TANH:
        return gelu_tanh_slope(saved)
    if activation == SIN:
        return cos(saved)
    return real(1)


@for_reals
def activate_kernel(real):
    @kernel(int32, real[::1], threads=FLAT)
    def activate(activation, y):
        for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            y[i] = apply(activation, y[i])

    return activate


@for_reals
def activation_gradient_kernel(real):
    @kernel(int32, real[::1], real[::1], real[::1], threads=FLAT)
    def activation_gradient(activation, saved, dy, dz):
        for i in range(cuda.grid(1), dz.size, cuda.gridsize(1)):
            dz[i] = dy[i] if activation == IDENTITY else dy[i] * slope(activation, saved[i])

    return activation_gradient


def activate(activation, y):
    """y = f(y) in place. y: (size,)."""
    if activation != IDENTITY and y.size:
        activate_kernel[y.dtype](flat_grid(y.size), activation, y)


def activation_gradient(activation, saved, dy, dz):
    """dz = dy * f'(z). saved (y, or z for codes.KEEPS_Z), dy, dz: (size,)."""
    if dz.size:
        activation_gradient_kernel[dz.dtype](flat_grid(dz.size), activation, saved, dy, dz)
