"""What the tests of compiled graphs share: generated code run by Python, without Numba."""

from math import inf, nan

import numpy as np
import pytest
from scipy import special

from fastbp import graph
from fastbp.graph import values
from fastbp.graph.compiler.compilation import NAME, as_list, written
from fastbp.kernels import codes, reference

ACTIVATIONS = {name: values.activation(code) for name, code in codes.ACTIVATIONS.items() if code}
# What a generated module imports, in NumPy and by the reference kernels.
IMPORTED = ACTIVATIONS | {
    "np": np,
    "inf": inf,
    "nan": nan,
    "f32": np.float32,
    "f64": np.float64,
    "plus": np.add,
    "larger": np.maximum,
    "smaller": np.minimum,
    "unlocked": np.asarray,
    "exp": np.exp,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "erf": special.erf,
    "dense_forward": reference.dense_forward,
    "dense_forward_work": reference.dense_forward_work,
    "dense_backward": reference.dense_backward,
    "dense_backward_work": reference.dense_backward_work,
}


def interpreted(outputs, inputs, memory="store", batch_size=1024):
    """`graph.compile` without a compiler: the same source, run by Python."""
    text, _ = written(outputs, as_list("inputs", inputs), memory, batch_size)
    constants = [line for line in text.splitlines() if line.startswith("C")]
    function = text[text.index(f"def {NAME}(") :]
    names = dict(IMPORTED)
    exec("\n".join([*constants, function]), names)

    def run(*arrays):
        with np.errstate(all="ignore"):
            return names[NAME](*arrays)

    return run


@pytest.fixture(scope="session")
def agree():
    """Check that generated code gives what evaluation gives, type and shape included."""

    def check(outputs, feed, close=None, **options):
        inputs = list(feed)
        got = interpreted(outputs, inputs, **options)(*feed.values())
        wanted = graph.evaluate(outputs, feed)
        for value, expected in zip(got, wanted, strict=True):
            assert np.shape(value) == np.shape(expected)
            assert np.asarray(value).dtype == np.asarray(expected).dtype
            np.testing.assert_allclose(value, expected, **(close or {"rtol": 1e-11, "atol": 1e-13}))

    return check
