"""The one place that maps a device's name to the twin whose kernels run there."""

from types import ModuleType

from .checks import check_choice
from .kernels import cpu, reference
from .parallel import start_threads

BACKENDS = {"cpu": cpu, "reference": reference}


def kernels_for(device: str) -> ModuleType:
    """The kernels of a device; "reference" is plain NumPy.

    Asking for "cuda" raises the one error that says what keeps a GPU from being used here.
    """
    if device == "cuda":
        from .kernels.cuda import target

        target.require()
        raise ValueError(
            "device: expected 'cpu' or 'reference', got 'cuda': networks do not live on a GPU yet; "
            "fastbp.kernels.cuda has every kernel, network_step among them, for arrays on the GPU"
        )
    kernels = BACKENDS[check_choice("device", device, BACKENDS)]
    if kernels is cpu:
        start_threads()
    return kernels
