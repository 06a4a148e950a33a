"""What the tests of the CUDA kernels share: arrays on the GPU, and a careful call.

They run on a GPU, or at tiny sizes in the simulator (NUMBA_ENABLE_CUDASIM=1); elsewhere they are
skipped with the reason. `.ci/run cuda` installs numba-cuda and runs the simulator.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from fastbp.kernels import codes
from fastbp.kernels.cuda import target

TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}

# The simulator hands the interpreter from one Python thread to the next, for every thread of a
# block. 10 us in place of 5 ms between two of them, and one core, which none has to be woken on:
# a tenth of the time, then half of it.
if target.SIMULATED:
    sys.setswitchinterval(1e-5)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


HERE = Path(__file__).parent


def why_not(item):
    """What keeps a test from running here."""
    if HERE not in item.path.parents or item.get_closest_marker("anywhere"):
        return ""
    if item.get_closest_marker("offline"):
        return target.missing or ("the simulator has no compiler" if target.SIMULATED else "")
    return target.why_not()


def pytest_collection_modifyitems(config, items):
    run, left_out, files = [], [], set()
    for item in items:
        reason = why_not(item)
        if reason and item.path in files:
            left_out.append(item)  # the first of its file says why
            continue
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
            files.add(item.path)
        if target.SIMULATED and HERE in item.path.parents:
            # NumPy warns where a GPU computes in silence: integers that wrap, infinities.
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
        run.append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = run


@pytest.fixture(scope="session", params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(scope="session", params=codes.ACTIVATIONS)
def activation(request):
    """The name of each activation."""
    return request.param


@pytest.fixture(scope="session")
def tolerance():
    return TOLERANCE


@pytest.fixture(scope="session")
def close():
    """close(actual, expected): equal up to the rounding of actual's float type; NaN equals NaN."""

    def assert_close(actual, expected):
        allowed = TOLERANCE[np.asarray(actual).dtype]
        np.testing.assert_allclose(actual, expected, rtol=allowed, atol=allowed)

    return assert_close


# Elements around each operand: rows that begin on 16 bytes, and rows that do not.
PADS = (64, 67)


@pytest.fixture(scope="session", params=PADS, ids=["aligned", "unaligned"])
def pad(request):
    return request.param


@pytest.fixture(scope="session")
def launch():
    """launch(kernel, *inputs, out=arrays, pad=67): what the kernel returns, then what it wrote.

    Inputs and outputs are copied to the GPU between pads; inputs and pads must keep every bit.
    """

    def careful_call(kernel, *inputs, out, pad=PADS[1]):
        def on_gpu(array, around):
            buffer = np.full(array.size + 2 * pad, around, array.dtype)
            buffer[pad : pad + array.size] = array.reshape(-1)
            buffer = target.host.to_device(buffer)
            return buffer, buffer[pad : pad + array.size].reshape(array.shape)

        def around(array):
            return np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max

        given = [on_gpu(a, around(a)) if isinstance(a, np.ndarray) else (None, a) for a in inputs]
        written = [on_gpu(a, -1234) for a in out]
        before = [buffer.copy_to_host() for buffer, _ in given if buffer is not None]

        value = kernel(*(a for _, a in given), *(a for _, a in written))

        after = [buffer.copy_to_host() for buffer, _ in given if buffer is not None]
        for was, now in zip(before, after, strict=True):
            np.testing.assert_array_equal(now, was, err_msg="an input has changed")
        results = []
        for (buffer, _), array in zip(written, out, strict=True):
            host = buffer.copy_to_host()
            edges = np.concatenate([host[:pad], host[host.size - pad :]])
            assert (edges == -1234).all(), "written outside of an output"
            results.append(host[pad : pad + array.size].reshape(array.shape))
        return value, *results

    return careful_call
