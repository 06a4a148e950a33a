"""What the tests of all kernels share: the twins, the float types, tolerances, and a careful call.

The fixtures live for the whole session, so that Hypothesis may use them too.
"""

import numpy as np
import pytest

from fastbp.kernels import codes, cpu, reference

TWINS = {"reference": reference, "cpu": cpu}

# Each relative to values of about one. float64: a dozen roundings, or a sum over 1100 rows in
# another order, stay below 4000 ulp. float32: below 100 ulp. A wrong formula misses by more.
TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}

# Elements around each operand. An odd count: nobody promised more than the element's alignment.
PAD = 67


@pytest.fixture(scope="session", params=TWINS)
def kernels(request):
    """Each twin."""
    return TWINS[request.param]


@pytest.fixture(scope="session", params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(
    scope="session",
    params=[("cpu", np.float64), ("cpu", np.float32), ("reference", np.float32)],
    ids=["cpu-float64", "cpu-float32", "reference-float32"],
)
def candidate(request):
    """(kernels, dtype) of all that is measured against the reference in float64."""
    name, dtype = request.param
    return TWINS[name], np.dtype(dtype)


@pytest.fixture(scope="session", params=codes.ACTIVATIONS)
def activation(request):
    """The name of each activation."""
    return request.param


@pytest.fixture(scope="session")
def tolerance():
    """What an error may be, by float type."""
    return TOLERANCE


@pytest.fixture(scope="session")
def close():
    """close(actual, expected): equal up to the rounding of actual's float type; NaN equals NaN."""

    def assert_close(actual, expected):
        allowed = TOLERANCE[np.asarray(actual).dtype]
        np.testing.assert_allclose(actual, expected, rtol=allowed, atol=allowed)

    return assert_close


@pytest.fixture(scope="session")
def slopes():
    """slopes(f, a): df/da for a number f() that reads a (float64), by central differences."""

    def central_differences(f, a):
        step = 6e-6  # about eps**(1/3): truncation and rounding then both err by about 1e-10
        gradient = np.empty_like(a)
        for i in np.ndindex(a.shape):
            value = a[i]
            a[i] = value + step
            above = f()
            a[i] = value - step
            below = f()
            a[i] = value
            gradient[i] = (above - below) / (2 * step)
        return gradient

    return central_differences


def between_pads(array, pad):
    """(buffer, copy): a copy of the array inside a longer buffer that holds `pad` around it."""
    buffer = np.full(array.size + 2 * PAD, pad, array.dtype)
    copy = buffer[PAD : PAD + array.size].reshape(array.shape)
    copy[...] = array
    assert copy.flags.c_contiguous
    assert copy.flags.aligned
    return buffer, copy


def around_input(dtype):
    """What would spoil the result if it were read: NaN, or a label out of range."""
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


@pytest.fixture(scope="session")
def launch():
    """launch(kernel, *inputs, out=arrays): what the kernel returns, then the arrays it wrote.

    The kernel gets copies of all arrays, each between pads: what it reads or writes outside of
    them shows. Inputs must keep every bit. `out` are the last arguments, with the content that the
    kernel finds there: NaN where it must not read.
    """

    def careful_call(kernel, *inputs, out):
        given = [
            between_pads(a, around_input(a.dtype)) if isinstance(a, np.ndarray) else (None, a)
            for a in inputs
        ]
        written = [between_pads(a, -1234.5) for a in out]  # no kernel maps it to itself
        before = [buffer.tobytes() for buffer, _ in given if buffer is not None]
        pads = [(buffer[:PAD].tobytes(), buffer[-PAD:].tobytes()) for buffer, _ in written]

        value = kernel(*(a for _, a in given), *(a for _, a in written))

        after = [buffer.tobytes() for buffer, _ in given if buffer is not None]
        assert after == before, "an input has changed"
        after = [(buffer[:PAD].tobytes(), buffer[-PAD:].tobytes()) for buffer, _ in written]
        assert after == pads, "written outside of an output"
        return value, *(a for _, a in written)

    return careful_call
