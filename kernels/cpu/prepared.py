"""A training step whose operands stand in one array of words, all but the batch.

A call from Python spends 0.07 us on each array, and Python 1.5 us on looking at a batch: more than
the arithmetic of a small network. So `prepare` writes the operands down, and `prepared_step` itself
looks whether the next batch is like that one.
"""

from math import nan

from numba import carray, typeof

from ..codes import COLUMNS, RATES, WEIGHTS, M
from .binding import launcher
from .jit import inline, kernel
from .network import network_room, step
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


@launcher
def prepared_step(x, t, words):
    """`network_step` for a batch like the prepared one; NaN, and no step, for another.

    x: (n, k) and t as prepared, for any n that its scratch has room for.
    """
    n, layers, size = len(x), words[LAYERS], words[SIZE]
    here = address(words, 0)
    table = carray(pointer_to(words[AT_TABLE], here), (layers, COLUMNS))
    fits = x.itemsize == words[ITEM] and x.shape[1] == words[FEATURES]
    fits = fits and t.ndim == words[TARGETS] and len(t) == n
    if t.ndim == 2:
        fits = fits and t.size == n * table[layers - 1, M]
    if n != words[ROWS]:
        fits = fits and words[WEIGHTED] == 0 and network_room(n, table) <= words[WORK]
    if not fits:
        return nan
    return step(
        x, t, operand(words, AT_S, x, words[WEIGHTED]), table,
        carray(pointer_to(words[AT_RECIPE], here), WEIGHTS + 1),
        carray(doubles_at(words[AT_NUMBERS]), RATES + layers),
        operand(words, AT_WORK, x, words[WORK]), operand(words, AT_GRADIENTS, x, size),
        operand(words, AT_PARAMETERS, x, size), operand(words, AT_FIRST, x, words[FIRST]),
        operand(words, AT_SECOND, x, words[SECOND]),
    )  # fmt: skip


def first_step(x, t, words):
    """`prepared_step`, which from now on takes arrays of these types; of others, a TypeError."""
    try:
        if prepared_step.overloads:
            return prepared_step(x, t, words)
    except TypeError:
        prepared_step.disable_compile(False)
    try:
        prepared_step.compile((typeof(x), typeof(t), typeof(words)))
    finally:
        prepared_step.disable_compile()
    return prepared_step(x, t, words)
