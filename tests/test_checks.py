"""What the checks answer to every kind of wrong argument, and that they neither copy nor cast."""

import gc
import re

import numpy as np
import pytest

import fastbp
from fastbp import checks
from fastbp.kernels import cpu


def unaligned(dtype, *shape):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = np.zeros(size + 1, np.uint8)[1:].view(dtype).reshape(shape)
    assert not array.flags.aligned
    return array


def matrix(rows):
    with pytest.warns(PendingDeprecationWarning, match="matrix"):
        return np.matrix(rows)


def read_only(array):
    array.flags.writeable = False
    return array


WRONG_ARRAYS = {
    "list": (
        lambda: [[1.0, 2.0]],
        TypeError,
        "x: expected a NumPy array, got list; pass np.asarray(x, dtype=np.float32)",
    ),
    "None": (lambda: None, TypeError, "x: expected a NumPy array, got NoneType"),
    "number": (lambda: np.float64(1), TypeError, "x: expected a NumPy array, got float64"),
    "masked": (
        lambda: np.ma.zeros((1, 2)),
        TypeError,
        "x: expected a plain NumPy array, got MaskedArray; fill the masked entries",
    ),
    "matrix": (
        lambda: matrix([[1.0, 2.0]]),
        TypeError,
        "x: expected a plain NumPy array, got matrix; fill the masked entries or pass np.asarray",
    ),
    "integers": (
        lambda: np.ones((1, 2), int),
        TypeError,
        "x: expected float32 or float64, got int64; pass x.astype(np.float32) or",
    ),
    "objects": (
        lambda: np.ones((1, 2), object),
        TypeError,
        "x: expected float32 or float64, got object",
    ),
    "booleans": (
        lambda: np.ones((1, 2), bool),
        TypeError,
        "x: expected float32 or float64, got bool",
    ),
    "half": (
        lambda: np.ones((1, 2), np.float16),
        TypeError,
        "x: expected float32 or float64, got float16",
    ),
    "big-endian": (
        lambda: np.ones((1, 2), ">f8"),
        TypeError,
        "x: expected float32 or float64, got >f8; pass x.astype(np.float32)",
    ),
    "one dimension": (
        lambda: np.ones(2),
        ValueError,
        "x: expected shape (n, 2), got (2,)",
    ),
    "no dimension": (lambda: np.array(1.0), ValueError, "x: expected shape (n, 2), got ()"),
    "width": (lambda: np.ones((1, 3)), ValueError, "x: expected shape (n, 2), got (1, 3)"),
    "F-ordered": (
        lambda: np.asfortranarray(np.ones((3, 2))),
        ValueError,
        "x: expected a C-contiguous array, got an F-ordered one; pass np.ascontiguousarray(x)",
    ),
    "strided": (
        lambda: np.ones((4, 4))[::2, ::2],
        ValueError,
        "x: expected a C-contiguous array, got a strided view; pass np.ascontiguousarray(x)",
    ),
    "reversed": (
        lambda: np.ones((4, 2))[::-1],
        ValueError,
        "x: expected a C-contiguous array, got a strided view",
    ),
    "unaligned": (
        lambda: unaligned(np.float64, 1, 2),
        ValueError,
        "x: expected aligned memory, got unaligned; pass x.copy()",
    ),
}


@pytest.mark.parametrize("kind", WRONG_ARRAYS)
def test_check_array_refuses(kind):
    make, error, text = WRONG_ARRAYS[kind]
    with pytest.raises(error, match=re.escape(text)):
        checks.check_array("x", make(), ("n", 2))


WAYS_OUT = {
    "list": lambda x: np.asarray(x, dtype=np.float32),
    "masked": np.asarray,
    "matrix": np.asarray,
    "integers": lambda x: x.astype(np.float32),
    "objects": lambda x: x.astype(np.float64),
    "big-endian": lambda x: x.astype(np.float64),
    "F-ordered": np.ascontiguousarray,
    "strided": np.ascontiguousarray,
    "reversed": np.ascontiguousarray,
    "unaligned": lambda x: x.copy(),
}


@pytest.mark.parametrize("kind", WAYS_OUT)
def test_the_way_out_that_a_message_names_works(kind):
    make, _, _ = WRONG_ARRAYS[kind]
    repaired = WAYS_OUT[kind](make())
    assert checks.check_array("x", repaired, ("n", 2)) is repaired


def test_check_array_returns_the_array_itself():
    x = np.ones((3, 2), np.float32)
    assert checks.check_array("x", x, ("n", 2)) is x
    assert checks.as_input("x", x, ("n", "k"), np.dtype(np.float32)) is x


def test_check_array_wants_one_dtype():
    text = "x: expected float32 like the other arrays, got float64; pass x.astype(np.float32)"
    with pytest.raises(TypeError, match=re.escape(text)):
        checks.check_array("x", np.ones((1, 2)), ("n", 2), np.dtype(np.float32))


def test_shape_of_one_size_reads_as_a_tuple():
    with pytest.raises(ValueError, match=re.escape("b: expected shape (3,), got (1, 3)")):
        checks.check_array("b", np.ones((1, 3)), (3,))


def test_as_output_refuses_read_only():
    text = "out: expected a writable array, got a read-only one; pass out.copy()"
    with pytest.raises(ValueError, match=re.escape(text)):
        checks.as_output("out", read_only(np.ones((1, 2))), ("n", 2))


def test_as_input_of_read_only_is_the_same_memory():
    x = read_only(np.arange(6.0).reshape(3, 2))
    view = checks.as_input("x", x, ("n", 2))
    assert np.shares_memory(view, x)
    np.testing.assert_array_equal(view, x)
    assert not x.flags.writeable  # the user's own array stays locked


def test_as_input_keeps_read_only_memory_alive():
    view = checks.as_input("x", read_only(np.full((1000, 100), 7.0)), ("n", 100))
    gc.collect()
    np.full((1000, 100), 8.0)  # would lie in the same memory, were it free
    assert (view == 7).all()


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (3, 2)])
def test_read_only_inputs_share_one_compilation(shape):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    layer = fastbp.Dense(2, 2, activation="silu", dtype="float64", rng=0)
    expected = layer.forward(x)
    expected_dx = layer.backward(expected)
    forward = len(cpu.dense_forward.signatures)
    backward = len(cpu.dense_backward.signatures)

    y = layer.forward(read_only(x.copy()))
    dx = layer.backward(read_only(y.copy()))

    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, expected_dx)
    assert len(cpu.dense_forward.signatures) == forward
    assert len(cpu.dense_backward.signatures) == backward


def test_subclass_without_other_meaning_is_an_array():
    x = np.ones((1, 2)).view(np.recarray)
    np.testing.assert_array_equal(checks.as_input("x", x, ("n", 2)), np.ones((1, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_check_finite_names_the_first_row(bad, shape):
    array = np.zeros(shape)
    array[[2, 4]] = bad
    text = "x: expected finite numbers, got NaN or infinity, first in row 2; drop or fill"
    with pytest.raises(ValueError, match=text):
        checks.check_finite("x", array)


def test_check_finite_counts_rows_beyond_its_first_block():
    array = np.zeros((5, 2**19), np.float32)  # two rows to a block
    checks.check_finite("x", array)
    array[3, 7] = np.nan
    with pytest.raises(ValueError, match="first in row 3;"):
        checks.check_finite("x", array)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_check_finite_of_nothing(shape):
    checks.check_finite("x", np.zeros(shape))


@pytest.mark.parametrize("value", ["Relu", "", None, 3, ["relu"]])
def test_check_choice_lists_the_known_names(value):
    text = f"activation: expected one of relu, tanh; got {value!r}"
    with pytest.raises(ValueError, match=re.escape(text)):
        checks.check_choice("activation", value, {"relu": 1, "tanh": 2})


@pytest.mark.parametrize("value", [True, "1", None, 1j, np.array([1.0])])
def test_check_number_refuses_what_is_no_number(value):
    with pytest.raises(TypeError, match=f"l2: expected a number, got {type(value).__name__}"):
        checks.check_number("l2", value)


@pytest.mark.parametrize(
    ("limits", "value", "text"),
    [
        ({"low": 0}, -0.5, "l2: expected a finite number >= 0, got -0.5"),
        ({"low": 0, "above": True}, 0, "l2: expected a finite number > 0, got 0"),
        ({"low": 0, "high": 1}, 1.5, "l2: expected a finite number >= 0 and <= 1, got 1.5"),
        (
            {"low": 0, "high": 1, "below": True},
            1.0,
            "l2: expected a finite number >= 0 and < 1, got 1",
        ),
        ({"low": 0}, np.nan, "l2: expected a finite number >= 0, got nan"),
        ({"low": 0}, np.inf, "l2: expected a finite number >= 0, got inf"),
        ({}, -np.inf, "l2: expected a finite number, got -inf"),
    ],
)
def test_check_number_says_the_limits(limits, value, text):
    with pytest.raises(ValueError, match=re.escape(text) + "$"):
        checks.check_number("l2", value, **limits)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(1), 0])
def test_check_number_returns_a_float(value):
    number = checks.check_number("l2", value, 0, 1)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize("value", [True, 2.0, "2", None, np.float64(2)])
def test_check_count_refuses_what_is_no_integer(value):
    with pytest.raises(TypeError, match=f"epochs: expected an integer, got {type(value).__name__}"):
        checks.check_count("epochs", value)


def test_check_count_says_the_least():
    with pytest.raises(ValueError, match="epochs: expected an integer >= 1, got 0"):
        checks.check_count("epochs", 0)
    assert checks.check_count("epochs", 0, 0) == 0
    assert type(checks.check_count("epochs", np.int32(3))) is int


@pytest.mark.parametrize("name", ["float32", "f8", np.float32, float, np.dtype("float64")])
def test_check_dtype(name):
    assert checks.check_dtype(name) == np.dtype(name)


@pytest.mark.parametrize("name", ["float16", "int64", "nonsense", None, ">f4", 3, object])
def test_check_dtype_refuses(name):
    text = f"dtype: expected float32 or float64, got {name!r}"
    with pytest.raises(TypeError, match=re.escape(text)):
        checks.check_dtype(name)


def test_as_generator():
    rng = np.random.default_rng(5)
    assert checks.as_generator(rng) is rng
    expected = np.random.default_rng(5).random(3)
    for seed in (5, np.int64(5)):
        np.testing.assert_array_equal(checks.as_generator(seed).random(3), expected)
    assert checks.as_generator(None).random() != checks.as_generator(None).random()


@pytest.mark.parametrize("seed", ["5", 5.0, True, np.random.RandomState(5)])
def test_as_generator_refuses(seed):
    text = f"seed: expected a numpy.random.Generator or an integer seed, got {type(seed).__name__}"
    with pytest.raises(TypeError, match=text):
        checks.as_generator(seed, "seed")


def test_as_generator_refuses_a_negative_seed():
    with pytest.raises(ValueError, match="rng: expected an integer >= 0, got -1"):
        checks.as_generator(-1)
