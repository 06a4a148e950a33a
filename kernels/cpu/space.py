"""A whole network for the user's own @njit code: all that it works on is one argument.

space: a named tuple of parameters, gradients, first, second, work, table, recipe, numbers, as
network.py takes them. x: (n, k), t: (n, m) or (n,) labels, y: (n, m).
"""

from .binding import launcher
from .network import network_forward, network_loss_gradients, network_step


@launcher
def predict(space, x, y):
    """y = the output of the network for x; y: (n, m)."""
    network_forward(x, space.table, space.numbers, False, space.parameters, space.work, y)


@launcher
def loss_and_gradients(space, x, t):
    """Returns the loss; fills space.gradients. t: as the loss takes it, (n, m) or (n,) labels."""
    s = space
    none = s.parameters[:0].reshape((0, 0))
    return network_loss_gradients(
        x, t, s.parameters[:0], s.table, s.recipe, s.numbers, s.parameters, s.work, s.gradients,
        none,
    )  # fmt: skip


@launcher
def step(space, x, t):
    """One step of the optimiser; returns the loss before it, and does nothing if that is NaN."""
    s = space
    return network_step(
        x, t, s.parameters[:0], s.table, s.recipe, s.numbers, s.work, s.gradients, s.parameters,
        s.first, s.second,
    )  # fmt: skip
