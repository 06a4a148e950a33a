"""A whole network for the user's own @njit code: all that it works on is one argument.

space: a named tuple of parameters, gradients, first, second, work, table, recipe, numbers, as
network.py takes them, and of rows, for which there is room. x: (n, k), t: (n, m) or (n,) labels,
y: (n, m).

A user calls these functions where no Python sees the arrays, so they look at the shapes themselves.
Each holds its kernel spliced, which saves as much as the look takes.
"""

from ..codes import LOSS, LOSSES, K, M
from . import network
from .binding import launcher
from .jit import inline

SOFTMAX = LOSSES["softmax_cross_entropy"]


@inline
def check_input(space, x):
    """Raise ValueError for x of another width than the network's, or of too many rows."""
    if x.shape[1] != space.table[0, K]:
        raise ValueError("x: expected (n, in_features) of the workspace's network")
    if len(x) > space.rows:
        raise ValueError("x: more rows than the workspace has room for; make one of more rows")


@inline
def check_batch(space, x, t):
    """Raise ValueError for x or t of wrong shapes."""
    check_input(space, x)
    if len(t) != len(x):
        raise ValueError("t: expected as many rows as x")
    if t.ndim == 1:
        if space.recipe[LOSS] != SOFTMAX:
            raise ValueError("t: expected (n, out_features); t.reshape((n, 1)) for one output")
    elif t.shape[1] != space.table[-1, M]:
        raise ValueError("t: expected (n, out_features) of the workspace's network")


@launcher
def predict(space, x, y):
    """y = the output of the network for x; y: (n, m)."""
    check_input(space, x)
    if y.shape != (len(x), space.table[-1, M]):
        raise ValueError("y: expected (n, out_features), as many rows as x")
    network.predict(x, space.table, space.numbers, False, space.parameters, space.work, y)


@launcher
def loss_and_gradients(space, x, t):
    """Returns the loss; fills space.gradients. t: as the loss takes it, (n, m) or (n,) labels."""
    s = space
    check_batch(s, x, t)
    none = s.parameters[:0].reshape((0, 0))
    return network.loss_gradients(
        x, t, s.parameters[:0], s.table, s.recipe, s.numbers, s.parameters, s.work, s.gradients,
        none,
    )  # fmt: skip


@launcher
def step(space, x, t):
    """One step of the optimiser; returns the loss before it, and does nothing if that is NaN."""
    s = space
    check_batch(s, x, t)
    return network.step(
        x, t, s.parameters[:0], s.table, s.recipe, s.numbers, s.work, s.gradients, s.parameters,
        s.first, s.second,
    )  # fmt: skip
