"""A step and a prediction whose operands, all but the batch, stand in one array of words.

A call from Python takes each of its arrays apart, and to look at a batch in Python takes longer
than the arithmetic of a small network. So `prepare` writes the operands down, and the kernels look
themselves whether the next batch is like that one.
"""

from math import nan

from numba import carray, typeof

from ..codes import COLUMNS, RATES, WEIGHTS, M
from .binding import launcher
from .jit import inline, kernel
from .network import predict, step
from .pointers import address, doubles_at, number_of, pointer_to

# Of the batch, the layers, the parameters, the optimiser's state; then addresses.
ITEM, ROWS, FEATURES, TARGETS, WEIGHTED, LAYERS, SIZE, FIRST, SECOND, WORK = range(10)
AT_S, AT_TABLE, AT_RECIPE, AT_NUMBERS, AT_WORK, AT_GRADIENTS = range(10, 16)
AT_PARAMETERS, AT_FIRST, AT_SECOND = range(16, 19)
WORDS = 19


@kernel
def prepare(
    x, t, sample_weight, table, recipe, numbers, work, gradients, parameters, first, second, words
):  # fmt: skip
    """words: (WORDS,) the operands of `network_step`, which have to stay where they are."""
    words[ITEM], words[ROWS], words[FEATURES] = x.itemsize, len(x), x.shape[1]
    words[TARGETS] = t.ndim
    words[WEIGHTED], words[LAYERS], words[SIZE] = sample_weight.size, len(table), parameters.size
    words[FIRST], words[SECOND], words[WORK] = first.size, second.size, work.size
    words[AT_S] = number_of(address(sample_weight, 0))
    words[AT_TABLE] = number_of(address(table, 0))
    words[AT_RECIPE] = number_of(address(recipe, 0))
    words[AT_NUMBERS] = number_of(address(numbers, 0))
    words[AT_WORK] = number_of(address(work, 0))
    words[AT_GRADIENTS] = number_of(address(gradients, 0))
    words[AT_PARAMETERS] = number_of(address(parameters, 0))
    words[AT_FIRST] = number_of(address(first, 0))
    words[AT_SECOND] = number_of(address(second, 0))


@inline
def operand(words, place, x, size):
    """An operand with numbers like those of x."""
    return carray(pointer_to(words[place], address(x, 0)), size)


@inline
def layers_of(words):
    """The prepared table."""
    return carray(pointer_to(words[AT_TABLE], address(words, 0)), (words[LAYERS], COLUMNS))


@inline
def numbers_of(words):
    """The prepared numbers."""
    return carray(doubles_at(words[AT_NUMBERS]), RATES + words[LAYERS])


@inline
def is_like(x, words):
    """Whether x is like the prepared one, with as many rows, or fewer ones without weights."""
    alike = x.itemsize == words[ITEM] and x.shape[1] == words[FEATURES]
    whole = len(x) == words[ROWS] or words[WEIGHTED] == 0
    return alike and whole and len(x) <= words[ROWS]


@launcher
def prepared_step(x, t, words):
    """`network_step` for a batch like the prepared one; NaN, and no step, for another."""
    table, size = layers_of(words), words[SIZE]
    fits = t.ndim == words[TARGETS] and len(t) == len(x)
    if t.ndim == 2:
        fits = fits and t.shape[1] == table[len(table) - 1, M]
    if not fits or not is_like(x, words):
        return nan
    return step(
        x, t, operand(words, AT_S, x, words[WEIGHTED]), table,
        carray(pointer_to(words[AT_RECIPE], address(words, 0)), WEIGHTS + 1), numbers_of(words),
        operand(words, AT_WORK, x, words[WORK]), operand(words, AT_GRADIENTS, x, size),
        operand(words, AT_PARAMETERS, x, size), operand(words, AT_FIRST, x, words[FIRST]),
        operand(words, AT_SECOND, x, words[SECOND]),
    )  # fmt: skip


@launcher
def prepared_forward(x, words, y):
    """`network_forward` without masks for a batch like the prepared one; returns whether it is.

    y: (n, m) as x asks.
    """
    if not is_like(x, words):
        return False
    parameters = operand(words, AT_PARAMETERS, x, words[SIZE])
    work = operand(words, AT_WORK, x, words[WORK])
    predict(x, layers_of(words), numbers_of(words), False, parameters, work, y)
    return True


def _refuse(*arguments):
    raise TypeError("arrays of other types than those that were looked at")


for _kernel in (prepared_step, prepared_forward):
    _kernel._compile_for_args = _refuse  # a call compiles nothing: `first` alone does


def first(kernel, *arguments):
    """Call a kernel of this module, which from now on takes arrays of these types.

    Called with others it raises TypeError.
    """
    try:
        return kernel(*arguments)
    except TypeError:
        kernel.compile(tuple(map(typeof, arguments)))
        return kernel(*arguments)
