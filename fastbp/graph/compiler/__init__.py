"""From a graph to an @njit function: fused loops in readable source, and the library's kernels."""

from .compilation import compile

__all__ = ["compile"]
