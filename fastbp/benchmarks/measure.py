"""Interleaved timing, the machine's limits, and what a result must say of its origin."""

import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..kernels.cpu import simd
from ..kernels.cpu.peak import BURNT, burn
from ..parallel import get_num_threads

REST = 0.01  # seconds before a turn: idle threads of the contender before spin for a while

Contenders = dict[str, Callable[[], object]]


def race(contenders: Contenders, rounds: int = 9, budget: float = 0.02) -> dict[str, float]:
    """Median seconds of one call of each contender, all taking turns.

    Parameters
    ----------
    contenders : dict
        Functions of no arguments by name; each is called a few times before anything is timed.
    rounds : int
        Turns of each.
    budget : float
        Seconds of one turn, about.
    """
    calls = {}
    for name, function in contenders.items():
        for _ in range(3):
            function()
        calls[name] = max(1, round(budget / max(_seconds(function, 1), 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            time.sleep(REST)
            function()  # untimed: the one before has the caches
            times[name].append(_seconds(function, calls[name]))
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def _seconds(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def fma_peak(dtype: np.dtype[Any]) -> tuple[Callable[[], object], float]:
    """A function that multiplies and adds in registers alone, on all threads; its operations."""
    lanes = simd.VECTOR_BYTES // dtype.itemsize
    turns, threads = 20_000, get_num_threads()
    out = np.zeros(threads, dtype)
    return lambda: burn(turns, out), 2.0 * lanes * BURNT * turns * threads


def copy_rate(dtype: np.dtype[Any], megabytes: int = 256) -> tuple[Callable[[], object], float]:
    """A function that copies an array larger than the caches; the bytes it reads and writes."""
    source = np.ones(megabytes * 2**20 // dtype.itemsize, dtype)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source), 2.0 * source.nbytes


def provenance(*packages: str) -> dict[str, Any]:
    """When, where and with what a benchmark ran."""
    versions = {"python": platform.python_version(), "fastbp": __version__}
    for package in ("numpy", "scipy", "numba", *packages):
        versions[package] = metadata.version(package)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": _processor(),
        "vector_bits": 8 * simd.VECTOR_BYTES,
        "threads": get_num_threads(),
        "versions": versions,
    }


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
