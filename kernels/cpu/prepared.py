"""A step and a prediction whose operands, all but the batch, stand in one array of words.

A call from Python spends 0.07 us on each array, and Python 1.5 us on looking at a batch: more than
the arithmetic of a small network. So `prepare` writes the operands down, and the kernels look
themselves whether the next batch is like that one.
"""

from math import nan

from numba import carray, typeof

from ..codes import COLUMNS, RATES, WEIGHTS, M
from .binding import launcher
from .jit import inline, kernel
from .network import network_room, predict, step
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


_named: set[tuple[object, ...]] = set()  # types of arguments


def of_named_types(function):
    """A launcher that raises TypeError for types that `first` has not named."""
    dispatcher = launcher(function)
    compile_kernel = dispatcher.compile

    def compile_named(arguments):
        if arguments not in _named:
            raise TypeError(f"{function.__name__}: not for {arguments}")
        return compile_kernel(arguments)

    dispatcher.compile = compile_named
    return dispatcher


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
def is_like(x, table, words):
    """Whether x is like the prepared one, with any number of rows that the scratch has room for."""
    if x.itemsize != words[ITEM] or x.shape[1] != words[FEATURES]:
        return False
    n = len(x)
    if n == words[ROWS]:
        return True
    return words[WEIGHTED] == 0 and network_room(n, table) <= words[WORK]


@of_named_types
def prepared_step(x, t, words):
    """`network_step` for a batch like the prepared one; NaN, and no step, for another."""
    table, size = layers_of(words), words[SIZE]
    rows = t.ndim == words[TARGETS] and len(t) == len(x)
    if t.ndim == 2:
        rows = rows and t.size == len(x) * table[len(table) - 1, M]
    if not rows or not is_like(x, table, words):
        return nan
    return step(
        x, t, operand(words, AT_S, x, words[WEIGHTED]), table,
        carray(pointer_to(words[AT_RECIPE], address(words, 0)), WEIGHTS + 1), numbers_of(words),
        operand(words, AT_WORK, x, words[WORK]), operand(words, AT_GRADIENTS, x, size),
        operand(words, AT_PARAMETERS, x, size), operand(words, AT_FIRST, x, words[FIRST]),
        operand(words, AT_SECOND, x, words[SECOND]),
    )  # fmt: skip


@of_named_types
def prepared_forward(x, words, y):
    """`network_forward` without masks for a batch like the prepared one; returns whether it is.

    y: (n, m) as x asks.
    """
    table = layers_of(words)
    if not is_like(x, table, words):
        return False
    parameters = operand(words, AT_PARAMETERS, x, words[SIZE])
    work = operand(words, AT_WORK, x, words[WORK])
    predict(x, table, numbers_of(words), False, parameters, work, y)
    return True


def first(kernel, *arguments):
    """Call a kernel of this module, which from now on takes arrays of these types."""
    try:
        return kernel(*arguments)
    except TypeError:
        _named.add(tuple(map(typeof, arguments)))
    return kernel(*arguments)
