"""A training step from Python: what stays the same from call to call is checked once.

On a small network the checks of a call take longer than its arithmetic, so `Sequential.train_step`
keeps the last `Step`. The arrays are looked at in every call.
"""

from math import isfinite
from threading import get_ident
from typing import TYPE_CHECKING, Any

from numpy import ndarray

from . import regularization
from .checks import Array, check_flag
from .losses import Given
from .optimizers import Optimizer, slots
from .regularization import Clip

if TYPE_CHECKING:
    from .network import Sequential


class Step:
    """Steps of one network with one loss, optimiser, penalty and clipping."""

    def __init__(
        self,
        net: "Sequential",
        loss: Given,
        optimizer: Optimizer,
        l2: float,
        clip: float | Clip | None,
        recompute: bool,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "optimizer: expected an instance that keeps its state between the calls, such as "
                f"fastbp.Adam(), got {optimizer!r}"
            )
        self.asked = loss, optimizer, l2, clip, recompute
        # A function is called with each step: what it captures may have changed.
        self.again = not callable(loss)
        self.loss, self.optimizer = net.check_loss(loss, l2), optimizer
        self.l2, self.clip = l2, regularization.resolve(clip)
        self.plan = net.new_plan(check_flag("recompute", recompute))
        # Of the last call: thread, shapes and dtypes of x and t; the loss's kernel; what a step
        # takes besides. One tuple: another thread, whose scratch differs, may replace it.
        self.last: tuple[Any, ...] = (), "", None, ()
        self.update: tuple[Any, ...] = ()  # of the last call: the optimiser's numbers and state
        self.count = -1  # steps before the next one, as the plan has them

    def is_for(
        self, loss: object, optimizer: object, l2: object, clip: object, recompute: object
    ) -> bool:
        """Whether these are the very arguments that it was made of."""
        made_of = self.asked
        return (
            self.again
            and loss is made_of[0]
            and optimizer is made_of[1]
            and l2 is made_of[2]
            and clip is made_of[3]
            and recompute is made_of[4]
        )

    def __call__(self, net: "Sequential", x: Any, t: Any, sample_weight: object) -> float:
        """One step; returns the loss before it."""
        plan, optimizer = self.plan, self.optimizer
        form, kernel, network_step, fixed = self.last
        if not (
            sample_weight is None
            and type(x) is type(t) is ndarray
            and (get_ident(), x.shape, x.dtype, t.shape, t.dtype) == form
            and x.flags.carray
            and t.flags.carray
        ):
            x, t, network_step, fixed = self._look_at(net, x, t, sample_weight)
        elif plan.dropouts:
            plan.set_loss(self.loss, kernel, self.l2)
        if _update(optimizer, optimizer.state) != self.update:
            self._look_at_optimizer(net)
        if optimizer.step != self.count:
            plan.set_count(optimizer)
        value: float = network_step(x, t, *fixed, *self.changed)  # it looks for NaN in x, too
        if not isfinite(value):
            net.check_value(value, self.loss, x, t, fixed[0])
        plan.passed(1)
        optimizer.step = self.count = optimizer.step + 1
        optimizer.state = self.state
        return value

    def _look_at(
        self, net: "Sequential", x: object, t: object, sample_weight: object
    ) -> tuple[Array, Array, Any, tuple[Array, ...]]:
        """Check a batch; returns x, t, the kernel that takes them, and what else it takes."""
        plan, kernels, batch = self.plan, net._kernels, net.check_input(x)
        kernel, targets, weights = net.check_targets(self.loss, batch, t, sample_weight)
        plan.set_loss(self.loss, kernel, self.l2)
        work = plan.work(kernels, len(batch), net.dtype)
        fixed = weights, plan.table, plan.recipe, plan.numbers, work
        as_they_are = batch is x and targets is t and sample_weight is None
        form = get_ident(), batch.shape, batch.dtype, targets.shape, targets.dtype
        self.last = form if as_they_are else (), kernel, kernels.network_step, fixed
        return batch, targets, kernels.network_step, fixed

    def _look_at_optimizer(self, net: "Sequential") -> None:
        """Check the optimiser's state, and write what a step does into the plan."""
        self.optimizer.check(net.parameters)
        self.plan.set_update(self.optimizer, self.clip)
        self.state = self.optimizer.state_for(net.parameters)
        self.update = _update(self.optimizer, self.state)
        self.changed = net.gradients, net.parameters, *slots(self.state, net.parameters)


def _update(optimizer: Optimizer, state: dict[str, Array]) -> tuple[Any, ...]:
    """What a step depends on besides the batch."""
    return optimizer.code, optimizer.numbers(), state and [*map(id, state.values())]
