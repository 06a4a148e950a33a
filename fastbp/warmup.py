"""Compiling ahead of time: every kernel that layers, losses and optimisers need, once, to the disk.

Tiny networks are trained through the public API, so that the kernels get the very types of a call.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import engines
from .checks import Array, check_dtype
from .kernels import cpu
from .kernels.cpu import binding, prepared, threads
from .layers import Dense, Dropout
from .losses import LOSSES
from .network import Sequential
from .optimizers import SGD, Adam, AdamW, RMSprop
from .parallel import get_num_threads, start_threads
from .regularization import ClipNorm, ClipValue

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Warmup:
    """What a warm-up did.

    Attributes
    ----------
    compiled, loaded : int
        Kernels that were compiled, and kernels that came from the cache on disk.
    seconds : float
        All of it, the measurement of the engines included.
    folder : Path or None
        Where the compiled kernels are; None if no folder is writable.
    table : engines.Table or None
        The measured engines, if they were measured.
    table_path : Path or None
        The file they were written to.
    """

    compiled: int
    loaded: int
    seconds: float
    folder: Path | None
    table: engines.Table | None = None
    table_path: Path | None = None


def warmup(
    dtypes: Iterable[object] = DTYPES,
    measure: bool = True,
    progress: engines.Progress | None = None,
) -> Warmup:
    """Compile the CPU kernels, or load them from the cache, and measure which engine is faster.

    Later processes then start at once. A second warm-up takes about as long as its measurement.

    Parameters
    ----------
    dtypes : iterable
        Of float32 and float64; compiled code is for one type.
    measure : bool
        False leaves the table of engines as it is.
    progress : function(what, done, total), optional
        Called before each step.

    Returns
    -------
    Warmup
        compiled, loaded, seconds, folder, table, table_path.

    Raises
    ------
    TypeError
        For another dtype.

    Examples
    --------
    >>> import fastbp
    >>> done = fastbp.warmup(["float64"], measure=False)
    >>> done.table is None
    True
    """
    start = time.perf_counter()
    wanted = [check_dtype(dtype) for dtype in dtypes]
    steps = [
        (f"{what} {dtype}", step, dtype.name) for dtype in wanted for what, step in STEPS.items()
    ]
    before = cache_counts()
    start_threads()
    for done, (what, step, dtype) in enumerate(steps):
        if progress is not None:
            progress(what, done, len(steps))
        step(dtype)
    loaded, compiled = (now - then for now, then in zip(cache_counts(), before, strict=True))
    table = engines.measure(get_num_threads(), progress) if measure else None
    path = engines.save(table) if table is not None else None
    seconds = time.perf_counter() - start
    return Warmup(compiled, loaded, seconds, kernel_folder(), table, path)


def kernel_folder() -> Path | None:
    """Where compiled kernels are kept; None if no folder was writable."""
    path = cpu.dense_forward._cache.cache_path
    return Path(path) if path else None


def cache_counts() -> tuple[int, int]:
    """Kernels that this process has loaded from the cache, and compiled."""
    kernels = [*(getattr(cpu, name) for name in cpu.__all__), threads.work]
    kernels += [prepared.prepare, prepared.prepared_step, prepared.prepared_forward]
    kernels += [function.dispatcher for function in binding.functions]
    stats = [kernel.stats for kernel in kernels]
    hits = sum(sum(s.cache_hits.values()) for s in stats)
    return hits, sum(sum(s.cache_misses.values()) for s in stats)


# What a step compiles follows from what it does.


def _net(dtype: str) -> tuple[Sequential, Array]:
    """A network with every kind of layer, and data for it."""
    net = Sequential(Dense(2, 2, init="zeros", dtype=dtype), Dropout(0.5, rng=0))
    return net, np.ones((2, 2), dtype)


LABELS = np.zeros(2, np.int64)
CROSS_ENTROPY = "softmax_cross_entropy"


def _alone(dtype: str) -> None:
    net, x = _net(dtype)
    for layer in net.layers:
        layer.backward(layer.forward(x))


def _waiting(dtype: str) -> None:
    binding.bind_all(next(real for real in binding.REALS if real.name == dtype))


def _step(dtype: str) -> None:
    net, x = _net(dtype)
    net.train_step(x, x, "squared_error", SGD(0.1))
    net.train_step(x, LABELS, CROSS_ENTROPY, SGD(0.1))


def _epoch(dtype: str) -> None:
    net, x = _net(dtype)
    net.fit(x, x, loss="squared_error", epochs=1, optimizer="sgd")
    net.fit(x, LABELS, loss=CROSS_ENTROPY, epochs=1, optimizer="sgd")


def _gradients(dtype: str) -> None:
    net, x = _net(dtype)
    net.loss_and_gradients(x, x, "squared_error")
    net.loss_and_gradients(x, LABELS, CROSS_ENTROPY)


def _updates(dtype: str) -> None:
    _, x = _net(dtype)
    for optimizer in (SGD(0.1), Adam(), AdamW(), RMSprop()):
        optimizer.update(cpu, x.ravel(), x.ravel().copy())
    for clip in (ClipNorm(1.0), ClipValue(1.0)):
        clip.apply(cpu, x.ravel())


def _losses(dtype: str) -> None:
    net, x = _net(dtype)
    for loss in LOSSES:
        net.evaluate(x, x / 2, loss)
    net.evaluate(x, LABELS, CROSS_ENTROPY)


def _probabilities(dtype: str) -> None:
    net, x = _net(dtype)
    net.predict_proba(x, loss=CROSS_ENTROPY)
    net.predict_proba(x, loss="binary_cross_entropy")


STEPS: dict[str, Callable[[str], object]] = {
    "layers": _alone,
    "what waits for a first call": _waiting,
    "a training step": _step,
    "an epoch": _epoch,
    "gradients": _gradients,
    "optimisers and clipping": _updates,
    "losses": _losses,
    "probabilities": _probabilities,
}
