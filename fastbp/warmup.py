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
from .kernels.cpu import threads
from .layers import Dense, Dropout
from .losses import Huber, Loss
from .network import Sequential
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
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
    return Warmup(compiled, loaded, seconds, cache_folder(), table, path)


def cache_folder() -> Path | None:
    """Where compiled kernels are kept; None if no folder was writable."""
    path = cpu.dense_forward._cache.cache_path
    return Path(path) if path else None


def cache_counts() -> tuple[int, int]:
    """Kernels that this process has loaded from the cache, and compiled."""
    stats = [kernel.stats for kernel in (*(getattr(cpu, n) for n in cpu.__all__), threads.work)]
    hits = sum(sum(s.cache_hits.values()) for s in stats)
    return hits, sum(sum(s.cache_misses.values()) for s in stats)


# What a step compiles follows from what it trains.


def _data(dtype: str) -> Array:
    return np.ones((2, 2), dtype)


def _step(
    dtype: str,
    loss: str | Loss = "squared_error",
    t: Array | None = None,
    optimizer: Optimizer | None = None,
    clip: ClipNorm | ClipValue | None = None,
    l2: float = 0.0,
    dropout: bool = False,
) -> Sequential:
    """One training step of one layer of zeros."""
    dense = Dense(2, 2, init="zeros", dtype=dtype)
    net = Sequential(dense, Dropout(0.5, rng=0)) if dropout else Sequential(dense)
    x = _data(dtype)
    net.train_step(x, x if t is None else t, loss, optimizer or SGD(0.1), clip=clip, l2=l2)
    return net


def _probabilities(dtype: str) -> None:
    net = Sequential(Dense(2, 2, init="zeros", dtype=dtype))
    net.predict_proba(_data(dtype), loss="softmax_cross_entropy")
    net.predict_proba(_data(dtype), loss="binary_cross_entropy")


STEPS: dict[str, Callable[[str], object]] = {
    "layers": lambda dtype: _step(dtype),
    "dropout": lambda dtype: _step(dtype, dropout=True),
    "half_squared_error": lambda dtype: _step(dtype, "half_squared_error"),
    "huber": lambda dtype: _step(dtype, Huber()),
    "binary_cross_entropy": lambda dtype: _step(dtype, "binary_cross_entropy"),
    "softmax_cross_entropy": lambda dtype: _step(dtype, "softmax_cross_entropy", _data(dtype) / 2),
    "softmax_cross_entropy of labels": lambda dtype: _step(
        dtype, "softmax_cross_entropy", np.zeros(2, np.int64)
    ),
    "probabilities": _probabilities,
    "SGD": lambda dtype: _step(dtype, optimizer=SGD(0.1, momentum=0.9)),
    "Adam": lambda dtype: _step(dtype, optimizer=Adam()),
    "AdamW": lambda dtype: _step(dtype, optimizer=AdamW()),
    "RMSprop": lambda dtype: _step(dtype, optimizer=RMSprop()),
    "clipping by norm": lambda dtype: _step(dtype, clip=ClipNorm(1.0)),
    "clipping by value": lambda dtype: _step(dtype, clip=ClipValue(1.0)),
    "L2": lambda dtype: _step(dtype, l2=0.1),
}
