"""What the tests of compiled graphs share: generated code run by Python, without Numba."""

from math import inf, nan
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special

from fastbp import graph
from fastbp.graph import values
from fastbp.graph.compiler.compilation import HEADER, NAME, as_list, written
from fastbp.kernels import codes, reference
from fastbp.kernels.cpu import threads

ALIASES = HEADER.splitlines()[-1]  # the last line before constants and functions

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
    "sign": np.sign,
    "unlocked": np.asarray,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "erf": special.erf,
    "dense_forward": reference.dense_forward,
    "dense_forward_work": reference.dense_forward_work,
    "dense_backward": reference.dense_backward,
    "dense_backward_work": reference.dense_backward_work,
}


_arrays = {}  # by address: what a task is given


def place(array):
    _arrays[array.ctypes.data] = array
    return array.ctypes.data


def array(word, like, offset, shape):
    flat = _arrays[word].reshape(-1)
    assert flat.dtype == np.asarray(like).dtype
    return flat[offset : offset + int(np.prod(shape))].reshape(shape)


def add_up(sums):
    for group in range(1, len(sums)):
        sums[0] += sums[group]


def run(task, job, count, scratch, worth):
    for number in reversed(range(count)):
        task(job, number, scratch)


IMPORTED |= {
    "separate": lambda function: function,
    "numba": SimpleNamespace(njit=lambda **options: lambda function: function),
    "OPTIONS": {},
    "dense_backward_add": reference.dense_backward_add,
    "place": place,
    "array": array,
    "room": lambda scratch, begin, like, size: np.full(size, nan).astype(type(like)),
    "get": lambda job, word: job[word],
    "part": threads.part,
    "task_of": lambda function: function,
    "words": lambda array: array,
    "keep": lambda array: None,
    "run": run,
    "add_up": add_up,
}


def interpreted(outputs, inputs, memory="store", batch_size=1024):
    """`graph.compile` without a compiler: the same source, run by Python."""
    text, _ = written(outputs, as_list("inputs", inputs), memory, batch_size)
    names = dict(IMPORTED)
    exec(text[text.index(ALIASES) + len(ALIASES) :], names)

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
