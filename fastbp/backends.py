"""The one place that maps a device's name to the twin whose kernels run there."""

from types import ModuleType

from .checks import check_choice
from .kernels import cpu, reference
from .parallel import start_threads

BACKENDS = {"cpu": cpu, "reference": reference}


def kernels_for(device: str) -> ModuleType:
    """The kernels of a device; "reference" is plain NumPy."""
    kernels = BACKENDS[check_choice("device", device, BACKENDS)]
    if kernels is cpu:
        start_threads()
    return kernels
