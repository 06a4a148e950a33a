"""A training step from Python: what stays the same from call to call is checked once.

On a small network the checks of a call take longer than its arithmetic. So `Sequential.train_step`
keeps the last `Step`, and that keeps its operands: the kernel itself sees whether the next batch
is one of their shape, and whatever else comes is looked at in full.
"""

from math import isfinite
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from . import regularization
from .checks import check_flag
from .kernels import codes
from .kernels.cpu import prepared
from .losses import Given
from .optimizers import Optimizer, slots
from .regularization import Clip

if TYPE_CHECKING:
    from .network import Sequential

NONE: tuple[Any, ...] = 0, (None,), None, ()  # no thread has this identity


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
        # A function is called with each step, by a new Step: what it captures may have changed.
        given = object() if callable(loss) else loss
        self.asked = given, optimizer, l2, clip, recompute
        self.loss, self.optimizer = net.check_loss(loss, l2), optimizer
        self.l2, self.clip = l2, regularization.resolve(clip)
        self.plan = net.new_plan(check_flag("recompute", recompute))
        # Of the last call, if the next one may be like it: its thread, whose scratch it is, the
        # optimiser's settings, the operands as words, and the arrays that these point to.
        self.last = NONE
        self.count = -1  # steps before the next one, as the plan has them

    def is_for(
        self, loss: object, optimizer: object, l2: object, clip: object, recompute: object
    ) -> bool:
        """Whether these are the very arguments that it was made of."""
        a, b, c, d, e = self.asked
        return loss is a and optimizer is b and l2 is c and clip is d and recompute is e

    def __call__(self, net: "Sequential", x: Any, t: Any, sample_weight: object) -> float:
        """One step; returns the loss before it."""
        thread, settings, words, _ = self.last
        optimizer = self.optimizer
        if (
            thread == get_ident()
            and type(x) is type(t) is np.ndarray
            and sample_weight is None
            and (
                (optimizer.step == self.count and _settings(optimizer) == settings)
                or self._look_at_settings()
            )
        ):
            dropouts = self.plan.dropouts
            try:
                if dropouts:
                    self.plan.set_masks()
                value: float = prepared.prepared_step(x, t, words)
                if isfinite(value):
                    if dropouts:
                        self.plan.passed(1)
                    optimizer.step = self.count = self.count + 1
                    return value
            except TypeError:  # for arrays of other types
                pass
            except BaseException:  # Ctrl-C, which waits for the kernel
                self._count()
                raise
        return self._look_at(net, x, t, sample_weight)

    def _look_at_settings(self) -> bool:
        """Take up new settings of the optimiser, a learning rate, say, if its arrays stay."""
        optimizer, (thread, settings, *rest) = self.optimizer, self.last
        now = _settings(optimizer)
        if now[-1] != settings[-1] or (optimizer.slots() and not optimizer.state):
            return False
        optimizer.check_settings()
        self.plan.set_update(optimizer, self.clip)
        self.last, self.count = (thread, now, *rest), optimizer.step
        return True

    def _look_at(self, net: "Sequential", x: Any, t: Any, sample_weight: object) -> float:
        """One step on a batch that is checked, and that the next one may be like."""
        plan, kernels, optimizer = self.plan, net._kernels, self.optimizer
        self.last = NONE  # the plan is not as it was, also if this call fails
        batch = net.check_input(x)
        kernel, targets, weights = net.check_targets(self.loss, batch, t, sample_weight)
        optimizer.check(net.parameters)
        plan.set_loss(self.loss, kernel, self.l2)
        plan.set_update(optimizer, self.clip)
        state, work = optimizer.state_for(net.parameters), plan.work(kernels, len(batch), net.dtype)
        operands = (
            *(batch, targets, weights, plan.table, plan.recipe, plan.numbers, work),
            *(net.gradients, net.parameters, *slots(state, net.parameters)),
        )
        before, optimizer.state = optimizer.state, state
        words = None
        try:
            if net.device == "cpu":
                words = np.empty(prepared.WORDS, np.int64)
                prepared.prepare(*operands, words)
                value = prepared.first(prepared.prepared_step, batch, targets, words)
            else:
                value = kernels.network_step(*operands)
        finally:  # also when Ctrl-C was pressed in the meantime
            if not self._count():
                optimizer.state = before
        net.check_value(value, self.loss, batch, targets, weights)
        as_they_are = batch is x and targets is t and sample_weight is None
        if as_they_are and words is not None:
            self.last = get_ident(), _settings(optimizer), words, operands[3:]
        return value

    def _count(self) -> int:
        """Count what the kernel has done since the last count: so many steps."""
        taken = int(self.plan.recipe[codes.STEP]) - self.optimizer.step
        self.plan.passed(taken)
        self.optimizer.step = self.count = self.optimizer.step + taken
        self.last = NONE
        return taken


def _settings(optimizer: Optimizer) -> tuple[Any, ...]:
    """What a step depends on besides the batch and the count."""
    state = optimizer.state
    return optimizer.code, optimizer.numbers(), state and [*map(id, state.values())]
