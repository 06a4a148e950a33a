"""What this machine and its libraries are: names that a measurement is worth nothing without."""

import os
import platform
from functools import cache

import numpy as np
import scipy

from .kernels.cpu import simd


@cache
def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.split(":", 1)[1].strip() for line in file if "model name" in line)
            return next(names)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def processors() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def vector_bits() -> int:
    """The width of the kernels' vectors."""
    return 8 * simd.VECTOR_BYTES


@cache
def scipy_blas() -> str:
    """Name and version of the BLAS that SciPy was built with: the kernels' second engine."""
    return _blas(scipy)


@cache
def numpy_blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    return _blas(np)


def _blas(library: object) -> str:
    try:
        config = library.show_config(mode="dicts")  # type: ignore[attr-defined]
        blas = config["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas.get('version', '')}".strip()
    except (AttributeError, KeyError, TypeError):  # another way to build it
        return "unknown"
