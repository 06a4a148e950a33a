"""The one place that maps a device's name to the functions that run there."""

from importlib import import_module
from types import ModuleType

from .checks import check_choice
from .kernels import cpu
from .parallel import start_threads

# By name: "cuda" is imported when it is asked for, so that numba-cuda is, too.
BACKENDS = {"cpu": ".kernels.cpu", "reference": ".kernels.reference", "cuda": ".gpu"}


def kernels_for(device: str) -> ModuleType:
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
    return kernels
