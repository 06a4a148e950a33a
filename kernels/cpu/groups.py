"""A small network: its rows in groups, each of which one thread takes through all layers.

A group has gradients of its own, which are summed in order; one fork and one join.
"""

from functools import partial

from numba import carray

from ..codes import COLUMNS, DROPOUT, KIND, RATES, WEIGHTS, B, K, M
from . import blas
from .engines import BACKWARD, FORWARD, choice, may_choose_blas
from .jit import inline, spliced
from .narrow import LEAST_ROWS as LEAST_NARROW
from .narrow import fills_more, may_be_narrow, narrow_work, ready, train_narrow
from .panels import all_kept, kept, panel_room, train, vector
from .pointers import address, at, doubles_at, get, new_job, number_of, pointer_to, put
from .products import padded
from .simd import WIDEST
from .threads import ARENA_BYTES, part, run, task

MOST_PARAMETERS = 2**14  # each group has gradients of its own: they stay in its cache
LEAST_WORK = 2**18  # multiplications of a forward pass: two tasks that are worth a thread
LEAST_ROWS = 32  # of a group
NARROW_ROWS = 2 * WIDEST  # of a group whose rows lie along the vectors
MOST_GROUPS = 8
GROUP_PANEL = 112  # rows of a panel of a group: 8 full tiles, and whole turns of dw


@inline
def parameter_count(table):
    """Elements of weights and biases."""
    count = 0
    for i in range(len(table)):
        if table[i, KIND] != DROPOUT:
            count += table[i, K] * table[i, M] + (table[i, M] if table[i, B] >= 0 else 0)
    return count


@inline
def most_groups(n, table):
    """`group_count`, or more: it grows with n."""
    most = min(MOST_GROUPS, n // LEAST_ROWS)
    if most < 2:
        return 1
    size = parameter_count(table)
    room = panel_room(GROUP_PANEL, table) + GROUP_PANEL * (all_kept(table) - kept(table))
    small = size <= MOST_PARAMETERS and room <= ARENA_BYTES // 8
    return most if small and n * size >= LEAST_WORK else 1


@inline
def is_narrow(n, table):
    """Whether the rows of a narrow network lie along the vectors: by the shapes alone, too.

    Never where all threads would share the rows in another way.
    """
    if n < LEAST_NARROW or not may_be_narrow(table):
        return False
    much = n * parameter_count(table) >= LEAST_WORK
    if much and (n < 2 * NARROW_ROWS or most_groups(n, table) == 1):
        return False
    return fills_more(n, table)


@inline
def group_count(n, table):
    """Into how many groups to cut the rows, each with gradients of its own; 1: threads per layer.

    It depends on the shapes alone, so that a sum has the same bits for every number of threads,
    and whether layers share places or not.
    """
    groups = most_groups(n, table)
    if groups > 1 and is_narrow(n, table):
        groups = min(groups, n // NARROW_ROWS)
        rows = padded((n + groups - 1) // groups, WIDEST)
        groups = (n + rows - 1) // rows  # none without rows
    return groups


@inline
def groups_work(n, table):
    """Elements of `work` for groups of n rows or less: labels as words, the gradients of all groups
    but the first, the room of one; 0 where there are none.
    """
    groups, room = most_groups(n, table), max(panel_room(GROUP_PANEL, table), narrow_work(table))
    return 2 * n + (groups - 1) * parameter_count(table) + room if groups > 1 else 0


# The words of a job
ROWS, FEATURES, LAYERS, GROUPS, SIZE, AT_X, AT_T, AT_LABELS, AT_S = range(9)
AT_TABLE, AT_RECIPE, AT_NUMBERS, AT_PARAMETERS, AT_MORE, AT_GRADIENTS, AT_DX = range(9, 16)
SHARE = 16  # as a double
LOSSES = 17  # a double per group


@inline
def doubles_of(job):
    """The words of a job as doubles."""
    return carray(doubles_at(number_of(job)), LOSSES + MOST_GROUPS)


@inline
def address_or_none(array):
    """The address of an operand as a word, 0 of one that is left out."""
    return number_of(address(array, 0)) if array.size > 0 else 0


@inline
def rows_at(job, word, scratch, columns):
    """An operand of a job with a row per sample, or no row where it is left out."""
    rows = get(job, ROWS) if get(job, word) != 0 else 0
    return carray(pointer_to(get(job, word), scratch), (rows, columns))


@inline
def takes_narrow(n, x, table):
    """Whether the rows of a narrow network lie along the vectors: unless a layer is BLAS's."""
    if not is_narrow(n, table):
        return False
    for_blas = 0
    for i in range(len(table)):
        size = table[i, K] * table[i, M]
        for_blas |= choice(FORWARD, x, n, size) | choice(BACKWARD, x, n, size)
    return for_blas == 0


@spliced
def train_part(
    n, begin, end, most, x, t, sample_weight, share, table, recipe, numbers, parameters, room,
    gradients, dx,
):  # fmt: skip
    """`train`, or `train_narrow`, for some of the n rows of a batch."""
    if takes_narrow(n, x, table):
        return train_narrow(
            begin, end, x, t, sample_weight, share, table, recipe, numbers, parameters, room,
            gradients, dx,
        )  # fmt: skip
    return train(
        begin, end, most, x, t, sample_weight, share, table, recipe, numbers, parameters, room,
        gradients, dx,
    )  # fmt: skip


@partial(task, group="_groups")  # networks that are large, or see few rows, never need it
def train_group(job, number, scratch):
    """The gradients of one group of rows, and their loss."""
    n, layers, size = get(job, ROWS), get(job, LAYERS), get(job, SIZE)
    table = carray(pointer_to(get(job, AT_TABLE), job), (layers, COLUMNS))
    begin, end = part(n, get(job, GROUPS), number, WIDEST if is_narrow(n, table) else 2)
    recipe = carray(pointer_to(get(job, AT_RECIPE), job), WEIGHTS + 1)
    numbers = carray(doubles_at(get(job, AT_NUMBERS)), RATES + layers)
    parameters = carray(pointer_to(get(job, AT_PARAMETERS), scratch), size)
    gradients = carray(pointer_to(get(job, AT_GRADIENTS), scratch), size)
    if number > 0:
        more = pointer_to(get(job, AT_MORE), scratch)
        gradients = carray(at(more, (number - 1) * size), size)
    x = rows_at(job, AT_X, scratch, get(job, FEATURES))
    s = rows_at(job, AT_S, scratch, 1)
    dx = rows_at(job, AT_DX, scratch, get(job, FEATURES))
    room, doubles = carray(scratch, ARENA_BYTES // 8), doubles_of(job)
    if get(job, AT_LABELS) != 0:
        labels = carray(pointer_to(get(job, AT_LABELS), job), n)
        doubles[LOSSES + number] = train_part(
            n, begin, end, GROUP_PANEL, x, labels, s.reshape(s.size), doubles[SHARE],
            table, recipe, numbers, parameters, room, gradients, dx,
        )  # fmt: skip
    else:
        t = rows_at(job, AT_T, scratch, table[layers - 1, M])
        doubles[LOSSES + number] = train_part(
            n, begin, end, GROUP_PANEL, x, t, s.reshape(s.size), doubles[SHARE], table,
            recipe, numbers, parameters, room, gradients, dx,
        )  # fmt: skip


@inline
def train_groups(
    groups, x, t, sample_weight, share, table, recipe, numbers, parameters, work, gradients, dx
):  # fmt: skip
    """`train` for the whole batch, a thread per group of rows."""
    n, size, job, at_labels = len(x), gradients.size, new_job(), 0
    scratch = address(work, 2 * n + (groups - 1) * size)
    if t.ndim == 1:
        at_labels = number_of(address(work, 0))
        labels = carray(pointer_to(at_labels, job), n)
        for i in range(n):
            labels[i] = t[i]
    put(job, ROWS, n)
    put(job, FEATURES, x.shape[1])
    put(job, LAYERS, len(table))
    put(job, GROUPS, groups)
    put(job, SIZE, size)
    put(job, AT_X, address_or_none(x))
    put(job, AT_T, address_or_none(t))
    put(job, AT_LABELS, at_labels)
    put(job, AT_S, address_or_none(sample_weight))
    put(job, AT_TABLE, address_or_none(table))
    put(job, AT_RECIPE, address_or_none(recipe))
    put(job, AT_NUMBERS, address_or_none(numbers))
    put(job, AT_PARAMETERS, address_or_none(parameters))
    put(job, AT_MORE, number_of(address(work, 2 * n)))
    put(job, AT_GRADIENTS, address_or_none(gradients))
    put(job, AT_DX, address_or_none(dx))
    doubles = doubles_of(job)
    doubles[SHARE] = share
    if may_choose_blas(x):
        blas.ready(work)
    if takes_narrow(n, x, table):
        ready(work)
    run(train_group(scratch), job, groups, scratch, True)
    loss = doubles[LOSSES]
    for group in range(1, groups):
        loss += doubles[LOSSES + group]
        more = vector(work, 2 * n + (group - 1) * size, size)
        for i in range(size):
            gradients[i] += more[i]
    return loss
