"""exp, tanh, erf and their kin as the device has them (libdevice), in float32 and in float64.

The simulator runs NumPy's: `math` would turn float32 into float64 and raise where a GPU overflows.
"""

from .target import SIMULATED, device

if SIMULATED:
    from numpy import cos, exp, expm1, isfinite, log, log1p, sin, sqrt, tanh
    from scipy.special import erf
else:
    from math import (  # type: ignore[assignment]
        cos,
        erf,
        exp,
        expm1,
        isfinite,
        log,
        log1p,
        sin,
        sqrt,
        tanh,
    )

__all__ = [
    "cos",
    "erf",
    "exp",
    "expm1",
    "isfinite",
    "log",
    "log1p",
    "sigmoid",
    "sin",
    "softplus",
    "sqrt",
    "tanh",
]


@device
def sigmoid(z):
    """1 / (1 + exp(-z)), with an exponential that never overflows."""
    real = type(z)
    e = exp(-abs(z))
    return (real(1) if z >= real(0) else e) / (real(1) + e)


@device
def softplus(z):
    """log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|)); a NaN stays."""
    real = type(z)
    above = real(0) if z < real(0) else z
    return above + log1p(exp(-abs(z)))
