"""A training step from Python: what stays the same from call to call is checked once.

On a small network the checks of a call take longer than its arithmetic, so `Sequential.train_step`
keeps the last `Step`. The arrays are looked at in every call.
"""

from typing import TYPE_CHECKING, Any

from . import regularization
from .checks import check_flag
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
        self.kernel = ""
        self.update: tuple[Any, ...] = ()  # what the plan holds of the optimiser
        self.state: list[int] | None = None  # identities of the arrays in `slots`

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

    def __call__(self, net: "Sequential", x: object, t: object, sample_weight: object) -> float:
        """One step; returns the loss before it."""
        plan, optimizer = self.plan, self.optimizer
        checked = net.check_input(x)
        kernel, targets, weights = net.check_targets(self.loss, checked, t, sample_weight)
        if kernel != self.kernel or plan.dropouts:
            plan.set_loss(self.loss, kernel, self.l2)
            self.kernel = kernel
        update = optimizer.code, optimizer.numbers()
        if update != self.update:
            plan.set_update(optimizer, self.clip)
            self.update, self.state = update, None
        plan.set_count(optimizer)
        state = optimizer.state
        if [*map(id, state.values())] != self.state:
            optimizer.check(net.parameters)
            state = optimizer.state_for(net.parameters)
            self.state = [*map(id, state.values())]
            self.slots = slots(state, net.parameters)
        kernels = net._kernels
        value: float = kernels.network_step(  # it looks for NaN and infinity in x
            *(checked, targets, weights, plan.table, plan.recipe, plan.numbers),
            *(plan.work(kernels, len(checked), net.dtype), net.gradients, net.parameters),
            *self.slots,
        )
        net.check_value(value, self.loss, checked, targets, weights)
        plan.passed(1)
        optimizer.step, optimizer.state = optimizer.step + 1, state
        return value
