"""The CUDA target: the one place that imports it.

`cuda` is numba-cuda's module, a stand-in for it under the simulator (NUMBA_ENABLE_CUDASIM=1), or
None where numba-cuda is not installed: kernels can then be imported and read, and `require` says
what is missing. `device` makes a function that only kernels call. launch.py makes kernels.
"""

import importlib
import importlib.util
import sys
from typing import Any

import numpy as np
from numba.core import config

host: Any = None
missing = "numba-cuda is not installed"
if importlib.util.find_spec("numba_cuda") is not None:
    if not hasattr(np, "row_stack"):  # numba-cuda 0.30 names it, NumPy 2.5 has it no more
        np.row_stack = np.vstack  # noqa: NPY201
    try:
        host = importlib.import_module("numba.cuda")
        missing = ""
    except ImportError as error:
        missing = f"numba-cuda cannot be imported ({error})"

SIMULATED = bool(config.ENABLE_CUDASIM) and host is not None


class _Running:
    """`cuda` inside of a simulated kernel: its own threads, blocks and shared memory."""

    def __getattr__(self, name):
        from numba.cuda.simulator.kernel import _get_kernel_context

        value = getattr(_get_kernel_context() or host, name)
        return _Shared(value) if name == "shared" else value


class _Shared:
    """The simulator's shared memory, with an alignment, which its own refuses; it begins as NaN."""

    def __init__(self, memory):
        self.memory, self.arrays = memory, memory._allocations

    def array(self, shape, dtype, alignment=None):
        return self.at(sys._getframe(1), shape, dtype)

    def at(self, caller, shape, dtype):
        """The array of a block that is known by the line that asks for it."""
        if shape == 0:  # what the launch has asked for
            return self.memory.array(0, dtype)
        place = caller.f_code, caller.f_lineno
        fresh = np.empty(shape, str(np.dtype(dtype) if isinstance(dtype, type) else dtype))
        fresh.fill(np.nan if fresh.dtype.kind == "f" else 0x7FC00000)  # a NaN to tensor cores
        return self.arrays.setdefault(place, fresh)


cuda = _Running() if SIMULATED else host


def why_not():
    """What keeps kernels from running here, and the way out; empty where they run."""
    if missing:
        return f'{missing}; pip install "fastbp[cuda]" for CUDA 13, "fastbp[cuda12]" for CUDA 12'
    if not SIMULATED and not host.is_available():
        return "there is no NVIDIA GPU with a working driver; nvidia-smi shows what the driver sees"
    return ""


def require():
    """Raise the one error of a machine on which no CUDA kernel can run."""
    reason = why_not()
    if reason:
        raise ValueError(f"device: 'cuda' cannot be used here: {reason}")


def device(function):
    """A function that kernels call; inlined, so that constants and small arrays dissolve in it."""
    if host is None or SIMULATED:
        return function
    return host.jit(device=True, forceinline=True)(function)
