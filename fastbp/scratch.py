"""Scratch memory for kernels, which allocate nothing themselves: one buffer a thread and type."""

import threading
from typing import Any

import numpy as np

from .checks import Array

_buffers = threading.local()


def scratch(size: int, dtype: np.dtype[Any]) -> Array:
    """At least `size` elements that stay valid until this thread's next call."""
    buffer = getattr(_buffers, dtype.char, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, dtype)
        setattr(_buffers, dtype.char, buffer)
    return buffer
