"""Losses of arrays on the GPU: what `losses` and `Sequential.evaluate` do for those of the host."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import gpu
from .checks import check_finite
from .interop import as_gpu, empty, home
from .kernels.cuda import accuracy, launch, sums
from .losses import Loss, most_weight

Batch = tuple[Loss, str, Any, Any, Any]  # a loss, its kernel, x, t and sample_weight

ROWS = 4096  # of a piece, so that its outputs stay small


def check(
    loss: Loss, shape: tuple[int, ...], dtype: np.dtype[Any], t: Any, sample_weight: Any
) -> tuple[str, Any, Any]:
    """(kernel's name, targets, sample weights) on the GPU, as `Loss.check` gives them."""
    n, m = shape
    kernel, flat = loss.name, getattr(t, "ndim", 2) == 1
    if loss.name == "softmax_cross_entropy" and flat:
        kernel, targets = "sparse_softmax_cross_entropy", as_gpu("t", t, (n,), "labels")
    elif flat and m == 1:
        targets = as_gpu("t", t, (n,), dtype).reshape(n, 1)
    else:
        targets = as_gpu("t", t, (n, m), dtype)
    if sample_weight is None:
        return kernel, targets, launch.allocate(0, dtype)
    weights = as_gpu("sample_weight", sample_weight, (n,), dtype)
    if n and not _weigh(weights):
        most = most_weight(dtype)
        raise ValueError(
            "sample_weight: expected finite weights >= 0 with a sum > 0, from "
            f"{1 / most:.1g} to {most:.1g}; divide them by their largest"
        )
    return kernel, targets, weights


def _sum(a: Any, what: int) -> float:
    sums.flat_sum(a.reshape(a.size), what, sums.CHECK)
    return sums.result(sums.CHECK)


def _weigh(weights: Any) -> bool:
    total, most = _sum(weights, sums.PLAIN), most_weight(weights.dtype)
    return 1 / most <= total <= most and _sum(weights, sums.NEGATIVES) == 0


def check_input(x: Any) -> None:
    """Raise for NaN or infinity in x; to name its row it is read back."""
    if not np.isfinite(_sum(x, sums.DIFFERENCES)):
        check_finite("x", home(x))


def check_data(loss: Loss, kernel: str, x: Any, t: Any, sample_weight: Any, m: int) -> None:
    """Raise for numbers in x and t that no loss can take; they are looked for on the GPU."""
    zeros = np.zeros((min(len(x), ROWS), m), x.dtype)
    y = gpu.upload(zeros)
    room = empty(zeros.shape, x.dtype, y)
    none = launch.allocate(0, x.dtype)
    finite = np.isfinite(_sum(x, sums.DIFFERENCES))
    for rows, n in pieces(len(x)):
        piece = loss.launch(gpu, kernel, y[:n], t[rows], none, room[:n])
        finite = finite and np.isfinite(piece)
    if not finite:
        explain(loss, {"x": x}, t, sample_weight, m)


def explain(loss: Loss, inputs: dict[str, Any], t: Any, sample_weight: Any, m: int) -> None:
    """Raise for the array that made the loss NaN or infinite; to name its row it is read back."""
    on_host = {name: home(array) for name, array in inputs.items()}
    loss.explain(on_host, home(t), home(sample_weight), m)


def pieces(n: int) -> Iterator[tuple[slice, int]]:
    """(rows, how many) of each piece."""
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        yield slice(start, stop), stop - start


def evaluate(forward: Callable[[Any, Any], None], m: int, batch: Batch) -> dict[str, float]:
    """`Sequential.evaluate` for a checked batch; nothing but sums comes back.

    forward: writes m outputs for each row of its first argument to its second.
    """
    loss, kernel, x, t, sample_weight = batch
    y, dy = (empty((min(len(x), ROWS), m), x.dtype, x) for _ in range(2))
    value, correct, total = 0.0, 0.0, 0.0
    for rows, n in pieces(len(x)):
        s, out = sample_weight[rows] if sample_weight.size else sample_weight, y[:n]
        weight = _sum(s, sums.PLAIN) if s.size else float(n)
        if weight == 0:
            continue
        forward(x[rows], out)
        piece = loss.launch(gpu, kernel, out, t[rows], s, dy[:n])
        if not np.isfinite(piece):
            explain(loss, {"x": x}, t, sample_weight, m)
        value, total = value + weight * piece, total + weight
        if loss.link:
            correct += accuracy.hits(out, t[rows], s, loss.link == "softmax")
    scores = {"loss": value} | ({"accuracy": correct} if loss.link else {})
    return {name: score / total if total else 0.0 for name, score in scores.items()}
