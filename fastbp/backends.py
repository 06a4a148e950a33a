"""The one place that maps a device's name to the functions that run there."""

from importlib import import_module
from typing import Any

import numpy as np

from .checks import check_choice
from .kernels import cpu
from .parallel import start_threads

# By name: "cuda" is imported when it is asked for, so that numba-cuda is, too.
BACKENDS = {"cpu": ".kernels.cpu", "reference": ".kernels.reference", "cuda": ".gpu"}
PRECISIONS = ("float32", "tf32", "bf16")  # of products in float32; the last two on tensor cores


def check_precision(precision: object, device: str, dtype: np.dtype[Any]) -> str | None:
    """The precision of the products of wide layers, or None for that of the network itself."""
    if precision is None:
        return None
    check_choice("precision", precision, PRECISIONS)
    if dtype != np.float32:
        raise ValueError(
            f"precision: expected None for a network in {dtype}, which computes in {dtype}, got "
            f"{precision!r}; make its layers with dtype='float32'"
        )
    if device != "cuda" and precision != "float32":
        raise ValueError(
            f"precision: expected None or 'float32' on {device}, got {precision!r}, which takes "
            "the tensor cores of a GPU; pass device='cuda'"
        )
    return str(precision)


def kernels_for(device: str, precision: str | None = None) -> Any:
    """The functions of a device; "reference" is plain NumPy.

    Asking for "cuda" raises the one error that says what keeps a GPU from being used here.
    """
    name = BACKENDS[check_choice("device", device, BACKENDS)]
    if device == "cuda":
        from .kernels.cuda import target

        target.require()
    kernels = import_module(name, __package__)
    if kernels is cpu:
        start_threads()
    return kernels.at_precision(precision) if device == "cuda" and precision else kernels
