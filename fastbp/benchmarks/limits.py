"""What the machine can do at most: multiply and add in registers, and copy memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..kernels.cpu import simd
from ..kernels.cpu.peak import BURNT, burn
from .measure import Contender, Contenders, use_threads

COPIED = 64 * 2**20  # bytes of the array that is copied: beyond the caches


def fma_peak(dtype: np.dtype[Any], threads: int) -> tuple[Callable[[], object], float]:
    """A function that multiplies and adds in registers alone, and its operations."""
    lanes = simd.VECTOR_BYTES // dtype.itemsize
    turns = 20_000
    out = np.zeros(threads, dtype)
    return lambda: burn(turns, out), 2.0 * lanes * BURNT * turns * threads


def copy_rate(pool: ThreadPoolExecutor, threads: int) -> tuple[Callable[[], object], float]:
    """A function that copies an array larger than the caches; the bytes it reads and writes."""
    source, target = np.ones(COPIED, np.uint8), np.empty(COPIED, np.uint8)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    if threads == 1:
        return lambda: np.copyto(target, source), 2.0 * COPIED
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts)), 2.0 * COPIED


class Limits:
    """The machine's limits as contenders of a race, for one thread and for all.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.benchmarks.limits import Limits
    >>> limits = Limits(np.dtype(np.float32), threads=2)
    >>> sorted(limits.contenders)
    ['copy', 'copy, 1 thread', 'peak', 'peak, 1 thread']
    """

    def __init__(self, dtype: np.dtype[Any], threads: int) -> None:
        pool = ThreadPoolExecutor(threads)
        self.contenders: Contenders = {}
        self.amounts: dict[str, float] = {}  # operations or bytes of one call
        for count, suffix in {1: ", 1 thread", threads: ""}.items():
            for name, (call, amount) in {
                "peak": fma_peak(dtype, count),
                "copy": copy_rate(pool, count),
            }.items():
                self.contenders[name + suffix] = Contender(call, use_threads(count))
                self.amounts[name + suffix] = amount

    def take_rates(self, times: dict[str, Any]) -> dict[str, float]:
        """Operations and bytes per second by name; their times leave `times`, a race's result."""
        for name in self.amounts:
            del times["quartiles"][name]
        rates = {name: n / times["seconds"].pop(name) for name, n in self.amounts.items()}
        # With one thread in all there is one measurement of each.
        return {f"{name}, 1 thread": rates[name] for name in ("peak", "copy")} | rates
