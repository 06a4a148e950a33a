"""The training loop: epochs of shuffled batches, when to stop, and what is kept of it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import losses, optimizers, regularization
from .checks import (
    Array,
    as_generator,
    check_count,
    check_finite,
    check_flag,
    check_number,
    on_gpu,
)
from .kernels import codes
from .losses import Given, Loss
from .optimizers import Optimizer, slots
from .progress import bar, none
from .regularization import Clip

if TYPE_CHECKING:
    from .network import Sequential
    from .plan import Plan

SLICE = 0.05  # seconds of steps in one call of a kernel, about: Ctrl-C waits no longer
STALL = 1e-4  # an epoch counts as progress when it lowers the loss by more than this share


class DivergenceError(ArithmeticError):
    """The loss became NaN or infinite on finite data; the last good parameters were kept."""


def too_large(what: str, with_expressions: bool = False) -> str:
    """What a DivergenceError says."""
    more = "; or an expression has no finite derivative here, as sqrt, log and division at 0"
    return (
        f"{what} on finite data: the parameters grew too large; "
        "lower the learning rate, scale the inputs, or clip the gradients"
        f"{more if with_expressions else ''}"
    )


@dataclass
class History:
    """What `fit` did, a list entry per finished epoch.

    Attributes
    ----------
    loss : list of float
        Mean over the epoch's batches, the L2 penalty included.
    seconds : list of float
        Time of each epoch, validation included.
    validation : dict of lists
        `loss`, and `accuracy` for cross-entropies, of the validation data.
    stopped : str
        Why it ended: "epochs", "target_loss", "patience", "callback", "interrupted", "diverged",
        or "failed", when a callback raised.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> x = np.ones((4, 1), np.float32)
    >>> history = fastbp.Sequential(fastbp.Dense(1, 1)).fit(x, x, loss="squared_error", epochs=3)
    >>> history.epochs, len(history.loss), history.stopped
    (3, 3, 'epochs')
    """

    loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    validation: dict[str, list[float]] = field(default_factory=dict)
    stopped: str = "epochs"

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.loss)


Callback = Callable[["Sequential", History], Any]
Batch = tuple[Loss, str, Array, Array, Array]  # a loss, its kernel, x, t and sample_weight


def fit(
    net: "Sequential",
    x: Array,
    t: Array,
    *,
    loss: Given,
    optimizer: str | Optimizer = "adam",
    epochs: int = 10,
    batch_size: int = 32,
    shuffle: bool = True,
    sample_weight: Array | None = None,
    validation_data: tuple[Array, Array] | None = None,
    l2: float = 0.0,
    clip: float | Clip | None = None,
    target_loss: float | None = None,
    patience: int | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = False,
    seed: object = None,
    data_budget: int | None = None,
    recompute: bool = False,
) -> History:
    """Train on (x, t) by gradient descent over shuffled batches.

    Parameters
    ----------
    x, t, loss, sample_weight, l2
        As in `loss_and_gradients`.
    optimizer : str or Optimizer
        sgd, adam, adamw, rmsprop, or an instance, which keeps its state for a later call.
    epochs : int
        Passes over the data, at most.
    batch_size : int
        Rows per step; the last batch of an epoch may be shorter.
    shuffle : bool
        A new order of the rows in every epoch, drawn from `seed`.
    validation_data : (x, t), optional
        Evaluated after every epoch.
    clip : float, ClipNorm or ClipValue, optional
        Limits the gradients of every step; a number is a global norm.
    target_loss : float, optional
        Stop once the epoch's loss is at or below it.
    patience : int, optional
        Stop once this many epochs in a row have not lowered the best loss (the validation loss
        where there is one) by more than a ten-thousandth of it. The network keeps the weights of
        the last epoch, not of the best one.
    callbacks : iterable of functions (net, history)
        Called after every epoch; one that returns True stops the training.
    progress : bool
        Show a progress bar on the standard error stream.
    seed : int or numpy.random.Generator, optional
        Same network, data and seed: same result, bit for bit.
    data_budget : int, optional
        With device="cuda": bytes of the GPU's memory for x, t and sample_weight. Data that fit are
        uploaded once; larger ones come in pieces, each while the one before is computed. Default:
        half of what is free.
    recompute : bool
        Keep the activations of some layers alone, and compute those between them again on the way
        back: less memory for a deep network, more time, the same bits. `memory` tells the bytes.

    Returns
    -------
    History
        Also kept as `net.history`. Ctrl-C ends the training and keeps the network and the history
        as they are.

    Raises
    ------
    TypeError, ValueError
        For wrong arguments, and for NaN or infinity in the data, named with their first row. In x
        they are looked for as its rows are used, as x may be a file larger than memory. In the
        first epoch the network and the optimizer are then as they were before; later, when x has
        changed since, all is as after DivergenceError.
    DivergenceError
        When the loss becomes NaN or infinite. The network and the optimizer are then as they were
        at the beginning of the last epoch that began with a finite loss; `net.history` has all
        finished epochs.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> x = np.linspace(-1, 1, 64).reshape(64, 1)
    >>> net = fastbp.Sequential(
    ...     fastbp.Dense(1, 16, activation="tanh", dtype="float64", rng=0),
    ...     fastbp.Dense(16, 1, dtype="float64", rng=1),
    ... )
    >>> history = net.fit(
    ...     x,
    ...     np.sin(3 * x),
    ...     loss="squared_error",
    ...     optimizer=fastbp.Adam(0.05),
    ...     epochs=500,
    ...     target_loss=1e-3,
    ...     seed=0,
    ... )
    >>> history.stopped, history.loss[-1] <= 1e-3
    ('target_loss', True)

    Less memory for a deep network, the same bits:

    >>> layers = [[fastbp.Dense(8, 8, activation="gelu", rng=i) for i in range(9)] for _ in "ab"]
    >>> keeping, recomputing = (fastbp.Sequential(*each) for each in layers)
    >>> x, options = np.ones((4, 8), np.float32), {"loss": "squared_error", "epochs": 3}
    >>> kept = keeping.fit(x, 2 * x, seed=0, **options)
    >>> recomputing.fit(x, 2 * x, seed=0, recompute=True, **options).loss == kept.loss
    True
    """
    epochs, batch_size = check_count("epochs", epochs, 0), check_count("batch_size", batch_size)
    target = -np.inf if target_loss is None else check_number("target_loss", target_loss)
    patience = None if patience is None else check_count("patience", patience)
    optimizer, clip = optimizers.resolve(optimizer), regularization.resolve(clip)
    optimizer.check(net.parameters)
    rng = as_generator(seed, "seed") if check_flag("shuffle", shuffle) else None
    recompute = check_flag("recompute", recompute)
    show = bar if check_flag("progress", progress) else none
    callbacks = check_callbacks(callbacks)
    data_budget = _check_budget(net.device, data_budget)
    batch = _check_data(net, x, t, loss, sample_weight, l2)
    validation = None if validation_data is None else _check_pair(net, validation_data, loss)

    run = _run_of(net.device)(
        *(net, batch, batch_size, rng, optimizer, clip, l2, data_budget),
        recompute=recompute,
    )
    earlier = net.history, net.loss
    history = net.history = History()
    net.loss, diverged = batch[0], ""
    best, stalled = np.inf, 0  # the loss that is watched; epochs in a row that have not lowered it
    with show(epochs) as report:
        try:
            for _ in range(epochs):
                start = time.perf_counter()
                value = run.epoch()
                scores = run.evaluate(validation) if validation else {}
                history.loss.append(value)
                history.seconds.append(time.perf_counter() - start)
                for name, score in scores.items():
                    history.validation.setdefault(name, []).append(score)
                watched = scores.get("loss", value)
                best, stalled = (watched, 0) if _improves(watched, best) else (best, stalled + 1)
                report(history)
                # Every callback is called, whatever the others answer.
                answers = run.call(callbacks, history)
                if value <= target:
                    history.stopped = "target_loss"
                elif patience is not None and stalled >= patience:
                    history.stopped = "patience"
                elif any(answer is True or answer is np.True_ for answer in answers):
                    history.stopped = "callback"
                if history.stopped != "epochs":
                    break
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        except DivergenceError as fault:
            history.stopped, diverged = "diverged", str(fault)
            run.restore()
        except BaseException:
            history.stopped = "failed"
            raise
        finally:
            run.close()
    if diverged:
        kept = f"The network and the optimizer are as they were after epoch {run.good_epoch}"
        try:
            if not on_gpu(batch[2]):  # there it was looked at before the first step
                check_finite("x", batch[2])
        except ValueError as fault:
            if history.epochs:
                raise ValueError(
                    f"{fault} (found in epoch {history.epochs + 1}: x has changed). {kept}"
                ) from None
            net.history, net.loss = earlier  # as if there had been no fit
            raise
        raise DivergenceError(
            f"training diverged in epoch {history.epochs + 1}: {diverged}. {kept}"
        )
    return history


def _run_of(device: str) -> type["Run"]:
    """What trains on a device."""
    if device != "cuda":
        return Run
    from .gpu_training import GpuRun

    return GpuRun


@dataclass
class Run:
    """What stays the same over the epochs of a fit, and the last state that was good."""

    net: "Sequential"
    batch: Batch
    batch_size: int
    rng: np.random.Generator | None
    optimizer: Optimizer
    clip: Clip | None
    l2: float
    data_budget: int | None = None
    recompute: bool = False
    finished: int = 0  # epochs
    good_epoch: int = 0

    steps: int = 1  # between two looks at the keyboard

    def __post_init__(self) -> None:
        self.good = self.state()
        self.order = np.empty(0 if self.rng is None else len(self.batch[2]), np.int64)
        self.optimizer.state = self.optimizer.state_for(self.net.parameters)
        _, _, *arrays = self.batch
        rows = min(self.batch_size, len(arrays[0]))
        x, t, sample_weight = (np.empty((rows, *a.shape[1:]), a.dtype) for a in arrays)
        self.room = x, t, sample_weight  # for the rows of one batch

    @property
    def plan(self) -> "Plan":
        """The network as the kernels take it."""
        return self.net.plan_for(self.recompute)

    def epoch(self) -> float:
        """One pass over the data; the mean loss, weighted as the rows are."""
        plan, n = self.plan, len(self.batch[2])
        begun, begin, sums = self.state(), 0, np.zeros(3)
        self.optimizer.check_settings()  # a callback may have changed them
        self.begin_epoch()
        while begin < n:
            start, before = time.perf_counter(), begin
            plan.set_loss(*self.batch[:2], self.l2)
            plan.set_update(self.optimizer, self.clip)
            try:
                begin = self.take_steps(begin, sums)
            finally:  # also when Ctrl-C was pressed in the meantime
                plan.passed(int(plan.recipe[codes.STEP]) - self.optimizer.step)
                self.optimizer.step = int(plan.recipe[codes.STEP])
            if sums[1] > 0:  # a finite loss: what this epoch began with is good
                self.good, self.good_epoch = begun, self.finished
            if not np.isfinite(sums[2]):
                raise DivergenceError(self.net.why_not_finite(sums[2], self.batch[0]))
            if begin - before >= self.steps * self.batch_size:
                share = SLICE / max(time.perf_counter() - start, 1e-6)
                self.steps = max(1, int(self.steps * min(share, 10)))
        if not self.is_finite():
            raise DivergenceError(too_large("a parameter is NaN or infinite"))
        self.finished += 1
        return float(sums[0] / sums[1]) if sums[1] else 0.0

    def begin_epoch(self) -> None:
        """The order of the rows."""
        if self.rng is not None:
            self.net._kernels.shuffle(int(self.rng.integers(2**63)), self.order)

    def take_steps(self, begin: int, sums: Array) -> int:
        """Some steps from a row of the order on; returns the row after them."""
        net, plan, (_, _, *data) = self.net, self.plan, self.batch
        work = plan.work(net._kernels, len(self.room[0]), net.dtype)
        return net._kernels.network_epoch(
            *(*data, self.order, begin, self.steps, plan.table, plan.recipe, plan.numbers),
            *(*self.room, work, net.gradients, net.parameters),
            *(*slots(self.optimizer.state, net.parameters), sums),
        )

    def is_finite(self) -> bool:
        """Whether all parameters are finite."""
        return bool(np.isfinite(self.net.parameters).all())

    def evaluate(self, validation: Batch) -> dict[str, float]:
        """The scores of other data."""
        return self.net.evaluate_checked(*validation)

    def call(self, callbacks: list[Callback], history: History) -> list[Any]:
        """What the callbacks answer; they see the network, and may change it."""
        return [callback(self.net, history) for callback in callbacks]

    def close(self) -> None:
        """Nothing to bring home."""

    def restore(self) -> None:
        """Put the network and the optimiser back to the last good state."""
        net, step = self.net, self.optimizer.step
        net.parameters[...], self.optimizer.step, self.optimizer.state = self.good
        self.plan.passed(self.optimizer.step - step)

    def state(self) -> Any:
        """Parameters and the optimiser's state as they are now."""
        slots = {slot: array.copy() for slot, array in self.optimizer.state.items()}
        return self.net.parameters.copy(), self.optimizer.step, slots


def _improves(loss: float, best: float) -> bool:
    """Whether a loss is below the best one by a share of STALL."""
    return loss < (best - STALL * abs(best) if best < np.inf else best)


def _check_budget(device: str, data_budget: int | None) -> int | None:
    if data_budget is not None and device != "cuda":
        raise ValueError(
            f"data_budget: expected None on {device}, which copies no data, got {data_budget!r}"
        )
    return None if data_budget is None else check_count("data_budget", data_budget)


def _check_data(
    net: "Sequential", x: object, t: object, loss: Given, sample_weight: object, l2: float
) -> Batch:
    """Check shapes and dtypes, and every number but those of x, once, before the first step."""
    batch = net.check_batch(x, t, loss, sample_weight, l2)
    found, kernel, x_checked, t_checked, weights = batch
    if on_gpu(x_checked):
        from . import gpu_losses

        gpu_losses.check_data(found, kernel, x_checked, t_checked, weights, net.out_features)
        return batch
    if t_checked.dtype.kind in "iu":
        losses.check_labels_range(t_checked, net.out_features)
    else:
        check_finite("t", t_checked)
    if found.name == "binary_cross_entropy":
        losses.check_probabilities(t_checked)
    check_finite("sample_weight", weights)
    return batch


def _check_pair(net: "Sequential", pair: object, loss: Given) -> Batch:
    if not isinstance(pair, tuple | list):
        raise TypeError(
            f"validation_data: expected a pair (x, t) of arrays, got {type(pair).__name__}"
        )
    if len(pair) != 2:
        raise ValueError(f"validation_data: expected a pair (x, t), got {len(pair)} items")
    try:
        batch = _check_data(net, pair[0], pair[1], loss, None, 0.0)
        if not on_gpu(batch[2]):
            check_finite("x", batch[2])
        return batch
    except (TypeError, ValueError) as fault:
        raise type(fault)(f"validation_data: {fault}") from None


def check_callbacks(callbacks: object) -> list[Callback]:
    """The callbacks as a list, or an error."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(
            f"callbacks: expected a list of functions, got {type(callbacks).__name__}; "
            "pass [function]"
        )
    found = list(callbacks)  # an iterator would be used up in the first epoch
    for callback in found:
        if not callable(callback):
            raise TypeError(
                f"callbacks: expected functions (net, history), got {callback!r}; pass [function]"
            )
    return found
