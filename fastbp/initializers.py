"""Start values of weights, drawn from an explicit generator.

A weight matrix w (in_features, out_features) keeps the variance of what passes through it when its
own variance is 1/in_features (LeCun et al. 1998), 2/in_features before a rectifier (He et al.
2015), or 2/(in_features + out_features), a compromise of both directions (Glorot & Bengio 2010).
"""

from collections.abc import Callable

import numpy as np

from .checks import Array, check_choice

Initializer = Callable[[np.random.Generator, int, int], Array]


def _normal(variance: Callable[[int, int], float]) -> Initializer:
    def draw(rng: np.random.Generator, in_features: int, out_features: int) -> Array:
        scale = np.sqrt(variance(in_features, out_features))
        return rng.normal(0.0, scale, (in_features, out_features))

    return draw


def _uniform(variance: Callable[[int, int], float]) -> Initializer:
    def draw(rng: np.random.Generator, in_features: int, out_features: int) -> Array:
        limit = np.sqrt(3 * variance(in_features, out_features))
        return rng.uniform(-limit, limit, (in_features, out_features))

    return draw


def _glorot(k: int, m: int) -> float:
    return 2 / (k + m)


def _he(k: int, m: int) -> float:
    return 2 / k


def _lecun(k: int, m: int) -> float:
    return 1 / k


def zeros(rng: np.random.Generator, in_features: int, out_features: int) -> Array:
    """Zeros (in_features, out_features): for a last layer, or where the values are set later."""
    return np.zeros((in_features, out_features))


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": _uniform(_glorot),
    "glorot_normal": _normal(_glorot),
    "he_uniform": _uniform(_he),
    "he_normal": _normal(_he),
    "lecun_uniform": _uniform(_lecun),
    "lecun_normal": _normal(_lecun),
    "zeros": zeros,
}

# What a layer starts from when the user names nothing: He before rectifiers, Glorot elsewhere, also
# before an expression, whose slopes are not known here.
_RECTIFIERS = {"relu", "leaky_relu", "elu", "softplus", "silu", "gelu", "gelu_tanh"}


def resolve(init: str | Initializer | None, activation: object) -> Initializer:
    """The initialiser for a name, a callable (rng, in_features, out_features) or None."""
    if init is None:
        init = "he_uniform" if activation in _RECTIFIERS else "glorot_uniform"
    if callable(init):
        return init
    return INITIALIZERS[check_choice("init", init, INITIALIZERS)]
