"""Memory for kernels, which allocate nothing themselves: aligned; scratch for each thread."""

import threading
from typing import Any

import numpy as np

from .checks import Array

LINE = 64  # bytes of a cache line, and of the widest vector: one that begins elsewhere lies on two

_buffers = threading.local()


def aligned(size: int, dtype: np.dtype[Any]) -> Array:
    """So many elements that begin with a cache line, not initialised."""
    room = np.empty(size + LINE // dtype.itemsize, dtype)
    first = -room.ctypes.data % LINE // dtype.itemsize
    return room[first : first + size]


def zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """`aligned`, and zero."""
    room = aligned(size, dtype)
    room[...] = 0
    return room


def copied(array: Array) -> Array:
    """`aligned`, with the elements of a flat array."""
    room = aligned(array.size, array.dtype)
    room[...] = array
    return room


def scratch(size: int, dtype: np.dtype[Any]) -> Array:
    """At least `size` elements that stay valid until this thread's next call."""
    buffer = getattr(_buffers, dtype.char, None)
    if buffer is None or buffer.size < size:
        buffer = aligned(size, dtype)
        setattr(_buffers, dtype.char, buffer)
    return buffer
