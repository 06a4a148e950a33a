"""How many bytes a training takes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import optimizers
from .checks import check_count, check_flag
from .optimizers import Optimizer

if TYPE_CHECKING:
    from .network import Sequential


@dataclass(frozen=True)
class Memory:
    """Bytes of a training, beside the data.

    A step takes the batch in panels of up to 512 rows, each forward and backward before the next:
    so the activations of a long batch are not kept. Those of a panel are, or with `recompute` only
    some layers' are, and the others are computed again. With device="cuda" a panel is the whole
    batch, unless one kernel serves the network; the bytes are then those of the GPU.

    Attributes
    ----------
    network : int
        Parameters and gradients.
    state : int
        What the optimizer keeps.
    work : int
        Of a step: activations and gradients of one panel, packed operands. It is one of the next
        two, as `recompute` chose.
    keeping, recomputing : int
        `work` without and with `recompute`.
    kept : int
        What the activations of the whole batch would take, all layers kept.
    batch : int
        Room for the rows of one batch.
    copies : int
        Of parameters and state, for the case of divergence, and the order of the rows.

    Examples
    --------
    >>> import fastbp
    >>> told = fastbp.Sequential(fastbp.Dense(784, 10)).memory(batch_size=32)
    >>> told.network  # 7,850 parameters and as many gradients, 4 bytes each
    62800
    >>> told.step == told.network + told.state + told.work
    True
    """

    network: int
    state: int
    work: int
    keeping: int
    recomputing: int
    kept: int
    batch: int
    copies: int

    @property
    def step(self) -> int:
        """What `train_step` holds."""
        return self.network + self.state + self.work

    @property
    def fit(self) -> int:
        """What `fit` holds."""
        return self.step + self.batch + self.copies


def memory(
    net: "Sequential",
    batch_size: int = 32,
    rows: int = 0,
    optimizer: str | Optimizer = "adam",
    recompute: bool = False,
) -> Memory:
    """Bytes that a training takes, beside the data.

    Parameters
    ----------
    batch_size : int
        Rows of a step.
    rows : int
        Of the data, for `fit`, which holds their order.
    optimizer : str or Optimizer
        As in `fit`.
    recompute : bool
        As in `fit`: which of the two choices `work`, `step` and `fit` count.

    Returns
    -------
    Memory
        network, state, work, keeping, recomputing, kept, batch, copies; `step` and `fit` are sums.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(784, 128), fastbp.Dense(128, 10))
    >>> few, many = net.memory(512), net.memory(60_000)
    >>> few.kept // 1024, many.kept // 1024, many.work == few.work
    (276, 32343, True)

    A deep network, its activations kept or computed again:

    >>> net = fastbp.Sequential(*(fastbp.Dense(64, 64, activation="relu") for _ in range(32)))
    >>> told = net.memory(512)
    >>> (told.keeping - told.recomputing) // 1024, told.recomputing < told.keeping / 2
    (2816, True)
    """
    n, rows = check_count("batch_size", batch_size), check_count("rows", rows, 0)
    size, item = net.parameters.nbytes, net.dtype.itemsize
    kernels = net._kernels
    if net.device == "cuda":
        from .kernels import cuda as kernels  # those of the device have no scratch on the host
    works = [item * int(kernels.network_work(n, plan.table)) for plan in net.plans]
    state = len(optimizers.resolve(optimizer).slots()) * size
    return Memory(
        network=2 * size,
        state=state,
        work=works[check_flag("recompute", recompute)],
        keeping=works[0],
        recomputing=works[1],
        kept=item * n * net.plans[0].kept,
        batch=item * n * (net.in_features + net.out_features + 1),
        copies=2 * (size + state) + 8 * rows,
    )
