"""Activations in NumPy: y = f(z), and f'(z) from what the forward pass keeps (y, or z)."""

import numpy as np
from scipy import special

from ..codes import (
    ELU,
    EXPRESSION,
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

# Formulas: f(z, out). The common ones work in place, as a careful NumPy programmer writes them.


def relu(z, out):
    np.maximum(z, 0, out=out)


def leaky_relu(z, out):
    np.multiply(z, LEAKY_SLOPE, out=out, where=z <= 0)


def elu(z, out):
    np.expm1(z, out=out, where=z <= 0)


def softplus(z, out):
    out[:] = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def silu(z, out):
    np.multiply(z, special.expit(z), out=out)


def gelu(z, out):
    out[:] = 0.5 * z * (1 + special.erf(SQRT_HALF * z))


def gelu_tanh(z, out):
    out[:] = 0.5 * z * (1 + np.tanh(GELU_SCALE * (z + GELU_CUBIC * z * z * z)))


# Slopes: dy/dz as f'(y, out), or f'(z, out) for the activations in codes.KEEPS_Z.


def relu_slope(y, out):
    np.greater(y, 0, out=out)


def leaky_relu_slope(y, out):
    out[:] = np.where(y > 0, 1, LEAKY_SLOPE)


def elu_slope(y, out):
    out[:] = np.where(y > 0, 1, y + 1)


def sigmoid_slope(y, out):
    np.subtract(1, y, out=out)
    np.multiply(out, y, out=out)


def tanh_slope(y, out):
    np.multiply(y, y, out=out)
    np.subtract(1, out, out=out)


def softplus_slope(y, out):
    out[:] = -np.expm1(-y)


def silu_slope(z, out):
    s = special.expit(z)
    out[:] = s * (1 + z * (1 - s))


def gelu_slope(z, out):
    density = INV_SQRT_2PI * np.exp(-0.5 * z * z)
    out[:] = 0.5 * (1 + special.erf(SQRT_HALF * z)) + z * density


def gelu_tanh_slope(z, out):
    z = np.clip(z, -GELU_EDGE, GELU_EDGE)  # beyond, the slope is 0 or 1 and the cube may overflow
    t = np.tanh(GELU_SCALE * (z + GELU_CUBIC * z * z * z))
    inner = GELU_SCALE * (1 + 3 * GELU_CUBIC * z * z)
    out[:] = 0.5 * (1 + t + z * (1 - t * t) * inner)


RULES = {  # activation: (formula, slope); expressions are added as they are compiled
    RELU: (relu, relu_slope),
    LEAKY_RELU: (leaky_relu, leaky_relu_slope),
    ELU: (elu, elu_slope),
    SIGMOID: (special.expit, sigmoid_slope),
    TANH: (np.tanh, tanh_slope),
    SOFTPLUS: (softplus, softplus_slope),
    SILU: (silu, silu_slope),
    GELU: (gelu, gelu_slope),
    GELU_TANH: (gelu_tanh, gelu_tanh_slope),
    SIN: (np.sin, np.cos),
}


def activate(activation, y):
    """y = f(y) in place. y: (size,)."""
    if activation != IDENTITY:
        formula, _ = RULES[activation]
        formula(y, out=y)


def activate_and_keep(activation, kept, y):
    """y = f(y) in place; kept = z, or f'(z) of an expression, unless it is empty.

    y, kept: (size,).
    """
    if activation >= EXPRESSION and kept.size:
        _, slope = RULES[activation]
        slope(y, out=kept)
    elif kept.size:
        np.copyto(kept, y)
    activate(activation, y)


def activation_gradient(activation, saved, dy, dz):
    """dz = dy * f'(z). saved (y, z for codes.KEEPS_Z, f'(z) of an expression), dy, dz: (size,)."""
    if activation == IDENTITY:
        dz[:] = dy
    elif activation >= EXPRESSION:
        np.multiply(dy, saved, out=dz)
    else:
        _, slope = RULES[activation]
        slope(saved, out=dz)
        np.multiply(dy, dz, out=dz)
