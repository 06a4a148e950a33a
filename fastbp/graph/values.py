"""NumPy values of the operations that NumPy has no function for."""

from typing import Any

import numpy as np
from scipy import special

from ..checks import Array
from ..kernels import codes, reference


def power(a: Any, b: Any) -> Any:
    """a**b; with NumPy's fast ways for the exponents 2, 1/2 and the like."""
    return np.power(a, b[()] if isinstance(b, np.ndarray) and b.ndim == 0 else b)


def softplus(x: Any) -> Any:
    """log(1 + e**x), where e**x may overflow and where it is lost beside 1."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def activation(code: int) -> Any:
    """An activation of the reference kernels as a function of an array."""

    def value(z: Any) -> Array:
        y = np.array(z)
        flat = y.reshape(-1)
        reference.activate(code, flat)
        return flat.reshape(y.shape)

    return value


def dense(x: Array, w: Array, b: Array | None = None, *, activation: str) -> Array:
    """y = f(x @ w + b) by the reference kernel."""
    y = np.empty((len(x), w.shape[1]), w.dtype)
    no_bias, no_z = np.empty(0, w.dtype), np.empty((0, 0), w.dtype)
    code = codes.ACTIVATIONS[activation]
    work = np.empty(0, w.dtype)
    reference.dense_forward(x, w, no_bias if b is None else b, code, work, no_z, y)
    return y


def total(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The sum over axes."""
    return np.sum(x, axis=axes, keepdims=keepdims)


def largest(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The maximum over axes: -inf over none, NaN where there is one."""
    return np.max(x, axis=axes, keepdims=keepdims, initial=-np.inf)


def _shifted(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """exp(x - max(x)), and max(x); an infinite maximum counts as 0 below itself."""
    peak = largest(x, axes, True)
    return np.exp(np.where(x == peak, 0, x - peak)), peak


def logsumexp(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    """log(sum(exp(x))), where exp may overflow or lose all terms."""
    e, peak = _shifted(x, axes)
    result = peak + np.log(total(e, axes, True))
    return result if keepdims else np.squeeze(result, axes)


def softmax(x: Array, axes: tuple[int, ...]) -> Any:
    """exp(x) / sum(exp(x)); infinite logits share the whole among them."""
    e, _ = _shifted(x, axes)
    return e / total(e, axes, True)


def key_of(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A parameter `key` as NumPy takes it."""
    return tuple(_entry(entry) for entry in key)


def _entry(entry: Any) -> Any:
    if not isinstance(entry, tuple):
        return entry
    kind, *rest = entry
    return slice(*rest) if kind == "slice" else np.array(rest, np.intp)


def index(x: Array, key: tuple[Any, ...]) -> Any:
    """x[key]."""
    return x[key_of(key)]


def place(g: Array, key: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """Zeros, and g added at [key]: once for each time that a place is named."""
    result = np.zeros(shape, g.dtype)
    np.add.at(result, key_of(key), g)
    return result


def concatenate(*arrays: Array, axis: int) -> Array:
    """Arrays one after the other along an axis."""
    return np.concatenate(arrays, axis)


def pick(x: Array, i: Array) -> Any:
    """x[..., i], one place of the last axis for each i; NaN for a place that does not exist."""
    known = (i >= 0) & (i < x.shape[-1])
    found = np.take_along_axis(x, np.where(known, i, 0)[..., None], -1)[..., 0]
    return np.where(known, found, np.nan).astype(x.dtype)


def unpick(g: Array, i: Array, size: int) -> Any:
    """Zeros of `size` in a last axis, and g at i; NaN for a place that does not exist."""
    inside = ((i >= 0) & (i < size))[..., None]
    return np.where(inside, np.where(i[..., None] == np.arange(size), g[..., None], 0), np.nan)


erf, expit = special.erf, special.expit
