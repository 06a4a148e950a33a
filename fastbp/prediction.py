"""Prediction from Python: as in step.py, what stays the same from call to call is checked once."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import Array
from .interop import empty
from .kernels.cpu import prepared

if TYPE_CHECKING:
    from .network import Sequential

PIECE = 4096  # rows that are predicted in one call: its buffers stay small


class Operands(threading.local):
    """What a thread's last prediction took besides x: as words, and the arrays they point to."""

    words: Array | None = None
    arrays: tuple[Any, ...] = ()


def predict(net: "Sequential", x: Array) -> Array:
    """The output (n, out_features) for x (n, in_features): logits for the cross-entropies.

    Parameters
    ----------
    x : (n, in_features) array
        Of the network's type, C-contiguous. A NaN in it is no error: it shows in its row.

    Raises
    ------
    TypeError, ValueError
        If x is no such array.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(2, 1, init="zeros"))
    >>> net.predict(np.ones((3, 2), np.float32)).shape
    (3, 1)
    """
    words = net._operands.words
    if words is not None and type(x) is np.ndarray:
        try:
            y = np.empty((len(x), net.out_features), net.dtype)
            if prepared.prepared_forward(x, words, y):
                return y
        except TypeError:  # for arrays of other types
            pass
    return _look_at(net, x)


def _look_at(net: "Sequential", x: Any) -> Array:
    """The output for x, which is checked, and which the next one may be like."""
    batch = net.check_input(x)
    y = empty((len(batch), net.out_features), net.dtype, like=batch)
    for start in range(0, len(batch), PIECE):
        rows = slice(start, start + PIECE)
        forward(net, batch[rows], y[rows])
    return y


def forward(net: "Sequential", x: Array, y: Array) -> None:
    """y = the output for a checked x."""
    _, plan = net.plans  # nothing is kept, so layers may share places
    table, numbers, parameters = plan.table, plan.numbers, net.parameters
    operands = net._operands
    if operands.words is not None and prepared.prepared_forward(x, operands.words, y):
        return
    work = plan.work(net._kernels, len(x), net.dtype)
    if net.device != "cpu":
        net._kernels.network_forward(x, table, numbers, False, parameters, work, y)
        return
    none, words = parameters[:0], np.empty(prepared.WORDS, np.int64)
    state = parameters, parameters, none, none  # no step is taken
    prepared.prepare(x, y, none, table, plan.recipe, numbers, work, *state, words)
    prepared.first(prepared.prepared_forward, x, words, y)
    operands.words, operands.arrays = words, (plan, work, parameters)


def pieces(net: "Sequential", x: Array) -> Iterator[tuple[slice, Array]]:
    """Outputs for a checked x piece by piece, each valid until the next."""
    y = np.empty((min(len(x), PIECE), net.out_features), net.dtype)
    for start in range(0, len(x), PIECE):
        rows = slice(start, min(start + PIECE, len(x)))
        part = y[: rows.stop - start]
        forward(net, x[rows], part)
        yield rows, part
