"""Activations in Numba: y = f(z), and f'(z) from what the forward pass keeps (y, or z).

Each formula stands once, as a function of one number; `activate_memory` and `gradient_memory` run
it over a stretch of memory. They choose the formula outside of the loop: a choice inside it stops
LLVM from vectorising (6 times slower, measured), and a table of functions is not cached on disk.
"""

import math

from numba import carray, int64, types

from ..codes import (
    ELU,
    EXPRESSION,
    GELU,
    GELU_CUBIC,
    GELU_EDGE,
    GELU_SCALE,
    GELU_TANH,
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
from .binding import addressed, call, launcher
from .elementary import SIN_MAX, cos, erf, exp, expm1, sigmoid, sin, softplus, tanh
from .expressions import expression_activation
from .jit import inline
from .pointers import address
from .scalar import like

SIN_LIMIT = min(SIN_MAX.values())  # beyond, the vector sine gives up and libm's takes over


@inline
def relu(z):
    return like(z, 0) if z <= 0 else z  # this way round a NaN passes


@inline
def relu_slope(y):
    return like(y, 1) if y > 0 else like(y, 0)


@inline
def leaky_relu(z):
    return z if z > 0 else like(z, LEAKY_SLOPE) * z


@inline
def leaky_relu_slope(y):
    return like(y, 1) if y > 0 else like(y, LEAKY_SLOPE)


@inline
def elu(z):
    return z if z > 0 else expm1(min(z, like(z, 0)))


@inline
def elu_slope(y):
    return like(y, 1) if y > 0 else y + like(y, 1)


@inline
def sigmoid_slope(y):
    return y * (like(y, 1) - y)


@inline
def tanh_slope(y):
    return like(y, 1) - y * y


@inline
def softplus_slope(y):
    return -expm1(-y)


@inline
def silu(z):
    return z * sigmoid(z)


@inline
def silu_slope(z):
    s = sigmoid(z)
    return s * (like(z, 1) + z * (like(z, 1) - s))


@inline
def gelu(z):
    return like(z, 0.5) * z * (like(z, 1) + erf(like(z, SQRT_HALF) * z))


@inline
def gelu_slope(z):
    density = like(z, INV_SQRT_2PI) * exp(like(z, -0.5) * z * z)
    return like(z, 0.5) * (like(z, 1) + erf(like(z, SQRT_HALF) * z)) + z * density


@inline
def saturated(z):
    """z within +-GELU_EDGE, where gelu_tanh's slope is 0 or 1: its cube would overflow beyond."""
    edge = like(z, GELU_EDGE)
    return edge if z > edge else (-edge if z < -edge else z)


@inline
def gelu_tanh(z):
    u = like(z, GELU_SCALE) * (z + like(z, GELU_CUBIC) * z * z * z)
    return like(z, 0.5) * z * (like(z, 1) + tanh(u))


@inline
def gelu_tanh_slope(z):
    z = saturated(z)
    t = tanh(like(z, GELU_SCALE) * (z + like(z, GELU_CUBIC) * z * z * z))
    inner = like(z, GELU_SCALE) * (like(z, 1) + like(z, 3 * GELU_CUBIC) * z * z)
    return like(z, 0.5) * (like(z, 1) + t + z * (like(z, 1) - t * t) * inner)


@inline
def within(z, limit):
    """Whether all |z| are at most `limit`; a NaN is not."""
    outside = 0
    for i in range(z.size):
        outside += not abs(z[i]) <= limit
    return outside == 0


def activate_memory(activation, size, kept_size, kept, y):
    """`activate_and_keep` for pointers."""
    kept, y = carray(kept, kept_size), carray(y, size)
    if activation >= EXPRESSION:
        expression_activation(activation, kept, y)
        return
    for i in range(kept.size):
        kept[i] = y[i]
    if activation == RELU:
        for i in range(y.size):
            y[i] = relu(y[i])
    elif activation == LEAKY_RELU:
        for i in range(y.size):
            y[i] = leaky_relu(y[i])
    elif activation == ELU:
        for i in range(y.size):
            y[i] = elu(y[i])
    elif activation == SIGMOID:
        for i in range(y.size):
            y[i] = sigmoid(y[i])
    elif activation == TANH:
        for i in range(y.size):
            y[i] = tanh(y[i])
    elif activation == SOFTPLUS:
        for i in range(y.size):
            y[i] = softplus(y[i])
    elif activation == SILU:
        for i in range(y.size):
            y[i] = silu(y[i])
    elif activation == GELU:
        for i in range(y.size):
            y[i] = gelu(y[i])
    elif activation == GELU_TANH:
        for i in range(y.size):
            y[i] = gelu_tanh(y[i])
    elif activation == SIN and within(y, SIN_LIMIT):
        for i in range(y.size):
            y[i] = sin(y[i])
    elif activation == SIN:
        for i in range(y.size):
            y[i] = math.sin(y[i])


def gradient_memory(activation, size, saved, dy, dz):
    """`activation_gradient` for pointers."""
    saved, dy, dz = carray(saved, size), carray(dy, size), carray(dz, size)
    if activation >= EXPRESSION:
        for i in range(dz.size):
            dz[i] = dy[i] * saved[i]
    elif activation == RELU:
        for i in range(dz.size):
            dz[i] = dy[i] * relu_slope(saved[i])
    elif activation == LEAKY_RELU:
        for i in range(dz.size):
            dz[i] = dy[i] * leaky_relu_slope(saved[i])
    elif activation == ELU:
        for i in range(dz.size):
            dz[i] = dy[i] * elu_slope(saved[i])
    elif activation == SIGMOID:
        for i in range(dz.size):
            dz[i] = dy[i] * sigmoid_slope(saved[i])
    elif activation == TANH:
        for i in range(dz.size):
            dz[i] = dy[i] * tanh_slope(saved[i])
    elif activation == SOFTPLUS:
        for i in range(dz.size):
            dz[i] = dy[i] * softplus_slope(saved[i])
    elif activation == SILU:
        for i in range(dz.size):
            dz[i] = dy[i] * silu_slope(saved[i])
    elif activation == GELU:
        for i in range(dz.size):
            dz[i] = dy[i] * gelu_slope(saved[i])
    elif activation == GELU_TANH:
        for i in range(dz.size):
            dz[i] = dy[i] * gelu_tanh_slope(saved[i])
    elif activation == SIN and within(saved, SIN_LIMIT):
        for i in range(dz.size):
            dz[i] = dy[i] * cos(saved[i])
    elif activation == SIN:
        for i in range(dz.size):
            dz[i] = dy[i] * math.cos(saved[i])
    else:
        for i in range(dz.size):
            dz[i] = dy[i]


# All formulas lie behind two addresses: each function that ran them held 4,500 instructions.


def _arguments(pointers):
    return lambda real: (types.intp,) * (5 - pointers) + (types.CPointer(real),) * pointers


activate_at = addressed(activate_memory, _arguments(2))
gradient_at = addressed(gradient_memory, _arguments(3))


@inline
def activate_and_keep(activation, kept, y):
    """y = f(y) in place; kept = z, or f'(z) of an expression, unless it is empty.

    y, kept: (size,).
    """
    place = address(y, 0)
    call(activate_at(place), (int64(activation), y.size, kept.size, address(kept, 0), place))


@launcher
def activate(activation, y):
    """y = f(y) in place. y: (size,)."""
    activate_and_keep(activation, carray(address(y, 0), 0), y)


@launcher
def activation_gradient(activation, saved, dy, dz):
    """dz = dy * f'(z). saved (y, z for codes.KEEPS_Z, f'(z) of an expression), dy, dz: (size,)."""
    place = address(dz, 0)
    operands = address(saved, 0), address(dy, 0), place
    call(gradient_at(place), (int64(activation), dz.size, *operands))
