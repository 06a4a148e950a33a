"""A whole network for the user's own @njit code: all that it works on is one argument.

space: a named tuple of parameters, gradients, first, second, work, table, recipe, numbers, as
network.py takes them. x: (n, k), t: (n, m) or (n,) labels, y: (n, m).

A user calls these functions where no Python sees the arrays, so they look at the shapes themselves.
"""

from ..codes import LOSS, LOSSES, K, M
from .binding import launcher
from .jit import inline
from .network import PANEL, network_loss_gradients, network_room, network_step
from .network import predict as forward
from .panels import panel_room

SOFTMAX = LOSSES["softmax_cross_entropy"]


@inline
def check_input(space, x):
    """Raise ValueError for x of another width than the network's."""
    if x.shape[1] != space.table[0, K]:
        raise ValueError("x: expected (n, in_features) of the workspace's network")


@inline
def check_batch(space, x, t):
    """Raise ValueError for x or t of wrong shapes, or too many rows."""
    check_input(space, x)
    if len(t) != len(x):
        raise ValueError("t: expected as many rows as x")
    if t.ndim == 1:
        if space.recipe[LOSS] != SOFTMAX:
            raise ValueError("t: expected (n, out_features); t.reshape((n, 1)) for one output")
    elif t.shape[1] != space.table[-1, M]:
        raise ValueError("t: expected (n, out_features) of the workspace's network")
    # A workspace has room for one row at least: the most frequent call pays nothing.
    if len(x) > 1 and network_room(len(x), space.table) > space.work.size:
        raise ValueError("x: more rows than the workspace has room for; make one of more rows")


@launcher
def predict(space, x, y):
    """y = the output of the network for x; y: (n, m)."""
    check_input(space, x)
    if y.shape != (len(x), space.table[-1, M]):
        raise ValueError("y: expected (n, out_features), as many rows as x")
    if len(x) > 1 and panel_room(min(len(x), PANEL), space.table) > space.work.size:
        raise ValueError("x: more rows than the workspace has room for; make one of more rows")
    # Spliced: with one call less a row takes 136 ns; it took 148 with the call and no checks.
    forward(x, space.table, space.numbers, False, space.parameters, space.work, y)


@launcher
def loss_and_gradients(space, x, t):
    """Returns the loss; fills space.gradients. t: as the loss takes it, (n, m) or (n,) labels."""
    s = space
    check_batch(s, x, t)
    none = s.parameters[:0].reshape((0, 0))
    return network_loss_gradients(
        x, t, s.parameters[:0], s.table, s.recipe, s.numbers, s.parameters, s.work, s.gradients,
        none,
    )  # fmt: skip


@launcher
def step(space, x, t):
    """One step of the optimiser; returns the loss before it, and does nothing if that is NaN."""
    s = space
    check_batch(s, x, t)
    return network_step(
        x, t, s.parameters[:0], s.table, s.recipe, s.numbers, s.work, s.gradients, s.parameters,
        s.first, s.second,
    )  # fmt: skip
