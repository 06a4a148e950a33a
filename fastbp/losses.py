"""Losses by name: which kernel computes them, what targets they take, what a user should be told.

Every loss is the mean over the batch: sum(s * row_loss) / sum(s) with sample weights s (one where
none are given), a row's loss the sum over its outputs. See docs/losses.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from . import expressions
from .checks import (
    FLOATS,
    Array,
    as_input,
    check_choice,
    check_finite,
    check_number,
    check_plain,
    is_ready,
    unlocked,
)
from .kernels import codes


@dataclass(frozen=True)
class Loss:
    """A loss: its kernel's name, and the link from logits to probabilities where there is one."""

    name: str
    link: str | None = None

    @property
    def parameters(self) -> tuple[float, ...]:
        """What the kernel takes between the targets and the sample weights."""
        return ()

    def code(self, kernel: str) -> int:
        """By which a network's kernels know it."""
        return codes.LOSSES[kernel]

    def config(self) -> dict[str, Any]:
        """What `Sequential.save` writes of it."""
        return {"name": self.name, "parameters": self.parameters}

    def check(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], t: object, sample_weight: object
    ) -> tuple[str, Array, Array]:
        """(kernel's name, targets, sample weights), the weights empty where there are none."""
        n, m = shape
        kernel = self.name
        if self.name == "softmax_cross_entropy" and _is_labels(t):
            kernel, targets = "sparse_softmax_cross_entropy", _check_labels(t, n)
        elif isinstance(t, np.ndarray) and t.ndim == 1 and m == 1:
            targets = as_input("t", t, (n,), dtype).reshape(n, 1)
        else:
            targets = as_input("t", t, (n, m), dtype)
        if sample_weight is None:
            return kernel, targets, _NONE[dtype]
        weights = as_input("sample_weight", sample_weight, (n,), dtype)
        if n:
            _check_weights(weights)
        return kernel, targets, weights

    def launch(
        self, kernels: ModuleType, kernel: str, y: Array, t: Array, sample_weight: Array, dy: Array
    ) -> float:
        """The loss; dy is overwritten by its gradient."""
        return float(getattr(kernels, kernel)(y, t, *self.parameters, sample_weight, dy))

    def hits(self, y: Array, t: Array) -> Array:
        """What each row counts for the accuracy (n,): right or wrong, or its share of labels."""
        if self.link == "softmax":
            labels = t if t.ndim == 1 else np.argmax(t, axis=1)
            return np.argmax(y, axis=1) == labels
        return np.mean((y > 0) == (t > 0.5), axis=1)

    def explain(self, inputs: dict[str, Array], t: Array, sample_weight: Array, m: int) -> None:
        """Raise for the array that made the loss NaN or infinite, if one of them did.

        The kernels answer bad targets with NaN, so the ordinary call pays nothing for this search.
        """
        if t.dtype.kind in "iu":
            check_labels_range(t, m)
        else:
            check_finite("t", t)
        if self.name == "binary_cross_entropy":
            check_probabilities(t)
        for name, array in inputs.items():
            check_finite(name, array)
        check_finite("sample_weight", sample_weight)


@dataclass(frozen=True)
class Huber(Loss):
    """Huber's loss (1964): d**2 / 2 where |d| <= delta, delta (|d| - delta / 2) beyond.

    d = y - t; the loss of a row is the sum over its outputs (docs/losses.md).

    Parameters
    ----------
    delta : float
        delta > 0: where the square ends.

    Raises
    ------
    TypeError, ValueError
        If delta is no finite number > 0.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.Huber(delta=0.5).delta
    0.5
    """

    name: str = field(default="huber", init=False)
    link: str | None = field(default=None, init=False)
    delta: float = 1.0

    def __post_init__(self) -> None:
        check_number("delta", self.delta, 0, above=True)

    @property
    def parameters(self) -> tuple[float, ...]:
        """What the kernel takes between the targets and the sample weights."""
        return (float(self.delta),)


@dataclass(frozen=True)
class ExpressionLoss(Loss):
    """A loss from an expression of y and t, for outputs of one width and type."""

    name: str = field(default="expression_loss", init=False)
    link: str | None = field(default=None, init=False)
    rows: expressions.RowLoss

    @property
    def parameters(self) -> tuple[float, ...]:
        """What the kernel takes between the targets and the sample weights."""
        return (self.rows.code,)

    def code(self, kernel: str) -> int:
        """By which a network's kernels know it."""
        return self.rows.code

    def config(self) -> dict[str, Any]:
        """What `Sequential.save` writes of it."""
        return {"name": self.name, "expression": self.rows.data()}


_NONE = {dtype: np.empty(0, dtype) for dtype in FLOATS}  # sample weights where there are none
Given = str | Loss | Callable[..., Any]  # as users give a loss

LOSSES = {
    "squared_error": Loss("squared_error"),
    "half_squared_error": Loss("half_squared_error"),
    "huber": Huber(),
    "binary_cross_entropy": Loss("binary_cross_entropy", link="sigmoid"),
    "softmax_cross_entropy": Loss("softmax_cross_entropy", link="softmax"),
}


def resolve(loss: str | Loss) -> Loss:
    """The loss of a name, or the loss itself."""
    return loss if isinstance(loss, Loss) else LOSSES[check_choice("loss", loss, LOSSES)]


def for_outputs(loss: Given, m: int, dtype: np.dtype[Any]) -> Loss:
    """The loss of a name, the loss itself, or that of a function, for m outputs of a type."""
    if callable(loss):
        traced = ExpressionLoss(expressions.loss(loss, m, dtype))
        traced.code(traced.name)  # compiled now: what cannot be is an error before any step
        return traced
    found = resolve(loss)
    if isinstance(found, ExpressionLoss) and (found.rows.m, found.rows.y.dtype) != (m, dtype):
        raise ValueError(
            f"loss: expected an expression for {m} outputs of {dtype}, got one for "
            f"{found.rows.m} of {found.rows.y.dtype}; pass its function"
        )
    return found


def read(config: dict[str, Any], m: int, dtype: np.dtype[Any]) -> Loss:
    """The loss whose `config` was saved with a network."""
    if config["name"] == ExpressionLoss.name:
        return ExpressionLoss(expressions.read_loss(config["expression"], m, dtype))
    return Huber(*config["parameters"]) if config["name"] == "huber" else resolve(config["name"])


def most_weight(dtype: np.dtype[Any]) -> float:
    """The largest sum of sample weights: it, its inverse and its product with a loss are finite."""
    return min(float(np.finfo(dtype).max), 1e154)


def _check_weights(weights: Array) -> None:
    """Raise ValueError unless the weights of every batch can be divided by their sum."""
    most = most_weight(weights.dtype)
    with np.errstate(over="ignore"):
        total = weights.sum(dtype=np.float64)
    if 0 < total <= most and np.all((weights == 0) | (weights >= 1 / most)):
        return
    check_finite("sample_weight", weights)
    if total == 0 or (weights < 0).any():
        raise ValueError("sample_weight: expected weights >= 0 with a sum > 0")
    raise ValueError(
        f"sample_weight: expected 0 or weights from {1 / most:.1g} on with a sum up to {most:.1g} "
        f"in {weights.dtype}, got the sum {total:.3g}; divide them by their largest"
    )


def _is_labels(t: object) -> bool:
    return isinstance(t, np.ndarray) and (t.dtype.kind in "iu" or t.ndim == 1)


def _check_labels(t: Any, n: int) -> Array:
    dtype = t.dtype
    if dtype.kind in "iu" and dtype.isnative and is_ready(t, (n,), dtype):
        return t
    check_plain("t", t)
    if t.dtype.kind not in "iu":
        raise TypeError(
            f"t: expected integer labels (n,) or float targets (n, m), got {t.dtype} of shape "
            f"{t.shape}; pass t.astype(np.int64) for labels"
        )
    if t.shape != (n,):
        raise ValueError(f"t: expected labels of shape ({n},), got {t.shape}")
    if not t.flags.c_contiguous or not t.flags.aligned or not t.dtype.isnative:
        raise ValueError(
            f"t: expected contiguous, aligned labels of native byte order, got {t.dtype} with "
            f"strides {t.strides}; pass t.astype(np.int64)"
        )
    return unlocked(t)


def check_labels_range(t: Array, m: int) -> None:
    """Raise ValueError with the first label outside 0..m-1."""
    bad = (t < 0) | (t >= m)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"t: expected labels in 0..{m - 1}, got {t[row]} in row {row}")


def check_probabilities(t: Array) -> None:
    """Raise ValueError with the first row that holds a target outside [0, 1]."""
    bad = ~((t >= 0) & (t <= 1)).all(axis=1)
    if bad.any():
        raise ValueError(
            f"t: expected targets in [0, 1], got others, first in row {np.argmax(bad)}"
        )
