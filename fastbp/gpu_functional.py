"""`fastbp.functional` for arrays on the GPU: check, allocate, launch; results lie there, too."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import gpu, gpu_losses
from .backends import check_precision
from .interop import as_gpu, empty
from .kernels import codes, cuda
from .kernels.cuda import launch
from .losses import Loss


def _output(
    name: str, given: Any, shape: tuple[int, ...], like: Any, others: Sequence[Any]
) -> tuple[Any, Any]:
    """(what the caller gets, the kernels' view of it): the array to write to, or a new one."""
    if given is None:
        array = empty(shape, like.dtype, like)
        return array, array
    array = as_gpu(name, given, shape, like.dtype, written=True)
    if any(_overlap(array, other) for other in others):
        raise ValueError(
            f"{name}: expected memory of its own, got memory shared with an input or another output"
        )
    return given, array


def _overlap(a: Any, b: Any) -> bool:
    (a0, a1), (b0, b1) = (
        (begin := launch.address_of(each), begin + each.nbytes) if each.size else (0, 0)
        for each in (a, b)
    )
    return a0 < b1 and b0 < a1


def dense_forward(
    x: Any, w: Any, b: Any, code: int, given: tuple[Any, ...], precision: str | None
) -> tuple[Any, Any]:
    """`functional.dense_forward`. given: y and saved, or None."""
    w = as_gpu("w", w, ("k", "m"))
    k, m = w.shape
    x = as_gpu("x", x, ("n", k), w.dtype)
    precision = check_precision(precision, "cuda", w.dtype)
    none = launch.allocate(0, w.dtype)
    b = none if b is None else as_gpu("b", b, (m,), w.dtype)
    y, to_y = _output("y", given[0], (x.shape[0], m), w, [x, w, b])
    z = to_z = launch.nothing(w)
    if code in codes.KEEPS_Z:
        z, to_z = _output("saved", given[1], to_y.shape, w, [x, w, b, to_y])
    with launch.using(precision=precision):
        cuda.dense_forward(x, w, b, code, none, to_z, to_y)
    return y, (z if code in codes.KEEPS_Z else y)


def dense_backward(
    dy: Any,
    x: Any,
    w: Any,
    saved: Any,
    code: int,
    wanted: tuple[bool, bool],
    given: tuple[Any, ...],
    precision: str | None,
) -> tuple[Any, Any, Any]:
    """`functional.dense_backward`. wanted: db and dx; given: dx, dw and db, or None."""
    w = as_gpu("w", w, ("k", "m"))
    k, m = w.shape
    x = as_gpu("x", x, ("n", k), w.dtype)
    n = x.shape[0]
    saved = as_gpu("saved", saved, (n, m), w.dtype)
    dy = as_gpu("dy", dy, (n, m), w.dtype)
    precision = check_precision(precision, "cuda", w.dtype)
    others = [dy, x, w, saved]
    dw, to_dw = _output("dw", given[1], (k, m), w, others)
    db, to_db = None, launch.allocate(0, w.dtype)
    dx, to_dx = None, launch.nothing(w)
    if wanted[0]:
        db, to_db = _output("db", given[2], (m,), w, [*others, to_dw])
    if wanted[1]:
        dx, to_dx = _output("dx", given[0], (n, k), w, [*others, to_dw, to_db])
    work = gpu.room(cuda.dense_backward_work(n, k, m), w.dtype)
    with launch.using(precision=precision):
        cuda.dense_backward(dy, x, w, saved, code, work, to_dw, to_db, to_dx)
    return dx, dw, db


def loss_and_gradient(
    loss: Loss, y: Any, t: Any, sample_weight: Any, out: Any, name: str
) -> tuple[float, Any]:
    """`functional`'s losses; the loss itself is a number on the host, which waits for it."""
    y = as_gpu(name, y, ("n", "m"))
    kernel, t, sample_weight = gpu_losses.check(loss, tuple(y.shape), y.dtype, t, sample_weight)
    dy, to_dy = _output("out", out, tuple(y.shape), y, [y, t, sample_weight])
    value = loss.launch(cuda, kernel, y, t, sample_weight, to_dy)
    if not np.isfinite(value):
        gpu_losses.explain(loss, {name: y}, t, sample_weight, y.shape[1])
    return value, dy
