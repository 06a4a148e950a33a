"""A network inside the user's own compiled code: the workspace, and a function for SciPy."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import carray, cfunc, types
from numba.np.numpy_support import from_dtype

from . import losses, optimizers, regularization
from .checks import Array, check_count, check_flag, check_number
from .kernels import codes, cpu
from .kernels.cpu import space
from .kernels.cpu.binding import bind_all
from .kernels.cpu.pointers import doubles_at
from .optimizers import Optimizer
from .regularization import Clip
from .scratch import aligned, copied, zeros

if TYPE_CHECKING:
    from .network import Sequential


class Workspace(NamedTuple):
    """What the compiled functions work on; Numba takes it as one argument.

    Attributes
    ----------
    parameters, gradients : (size,) arrays
        Those of the network itself, or copies.
    first, second : arrays
        The optimiser's state, or empty.
    work : (size,) array
        Scratch for `batch_size` rows.
    table, recipe : int64 arrays
    numbers : float64 array
        The network and what a step does, as kernels/README.md describes them.
    rows : int
        Of a call, at most.
    """

    parameters: Array
    gradients: Array
    first: Array
    second: Array
    work: Array
    table: Array
    recipe: Array
    numbers: Array
    rows: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Raise TypeError for expressions: their codes are addresses in this process."""
        if max(self.table[:, codes.ACTIVATION].max(), self.recipe[codes.LOSS]) >= codes.EXPRESSION:
            raise TypeError(
                "workspace: expected built-in activations and loss for a copy or a pickle, got "
                "expressions; pickle the network, and make a workspace of it"
            )
        return Workspace, tuple(self)


def workspace(
    net: "Sequential",
    batch_size: int,
    *,
    loss: losses.Given = "squared_error",
    optimizer: str | Optimizer = "sgd",
    l2: float = 0.0,
    clip: float | Clip | None = None,
    copy: bool = False,
    recompute: bool = False,
) -> Workspace:
    """Room for the compiled functions of a network on the CPU, and what a step does.

    Parameters
    ----------
    batch_size : int
        Rows of a call, at most.
    loss, optimizer, l2, clip
        As in `fit`. The state of the optimizer is the workspace's own and begins with zeros.
    copy : bool
        Copy the parameters, so that calls with several workspaces may run at the same time; else
        the workspace shares those of the network.
    recompute : bool
        As in `fit`: a smaller `work`, more time.

    Raises
    ------
    TypeError, ValueError
        For wrong arguments, and for a network that is not on the CPU.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> from numba import njit
    >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros", dtype="float64"))
    >>> space, step = net.workspace(4, optimizer=fastbp.SGD(0.1)), net.njit_step()
    >>> @njit
    ... def train(space, x, t):
    ...     for _ in range(200):
    ...         loss = step(space, x, t)
    ...     return loss
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> loss = train(space, x, 2 * x + 1)
    >>> net.predict(np.array([[10.0]])).round(2)
    array([[21.]])
    """
    if net.device != "cpu":
        raise ValueError(f"device: expected a network on 'cpu', got {net.device!r}")
    # Now: the first call of code from the user's cache may come from threads without Python's lock.
    bind_all(from_dtype(net.dtype))
    n = check_count("batch_size", batch_size)
    loss = losses.for_outputs(loss, net.out_features, net.dtype)
    optimizer = optimizers.resolve(optimizer)
    plan = net.new_plan(check_flag("recompute", recompute))
    plan.set_loss(loss, loss.name, check_number("l2", l2, 0))
    plan.set_update(optimizer, regularization.resolve(clip))
    plan.recipe[codes.STEP] = 0
    state = {slot: zeros(net.parameters.size, net.dtype) for slot in optimizer.slots()}
    first, second = optimizers.slots(state, net.parameters)
    return Workspace(
        copied(net.parameters) if copy else net.parameters,
        copied(net.gradients) if copy else net.gradients,
        first,
        second,
        aligned(cpu.network_work(n, plan.table), net.dtype),
        plan.table,
        plan.recipe,
        plan.numbers,
        n,
    )


def njit_predict(net: "Sequential") -> Any:
    """A function predict(workspace, x, y) for @njit code.

    The same function serves every network: what differs is in the workspace. The arrays are
    C-contiguous and of the network's type. It raises ValueError for wrong shapes, and for more rows
    than the workspace's batch_size.

    Returns
    -------
    function
        x: (n, in_features); y: (n, out_features), overwritten by the output. Returns nothing.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros", dtype="float64"))
    >>> y = np.empty((2, 1))
    >>> net.njit_predict()(net.workspace(batch_size=2), np.ones((2, 1)), y)
    >>> y
    array([[0.],
           [0.]])
    """
    return space.predict


def njit_loss_and_gradients(net: "Sequential") -> Any:
    """A function (workspace, x, t) -> loss for @njit code; fills workspace.gradients.

    The same function serves every network: what differs is in the workspace. The arrays are
    C-contiguous and of the network's type; for what it raises see `njit_predict`.

    Returns
    -------
    function
        x: (n, in_features); t: (n, out_features), or int64 labels (n,) for softmax_cross_entropy.
        The loss is NaN where x or t holds one.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros", dtype="float64"))
    >>> space = net.workspace(batch_size=1, loss="squared_error")
    >>> net.njit_loss_and_gradients()(space, np.array([[2.0]]), np.array([[3.0]]))
    9.0
    >>> space.gradients
    array([-12.,  -6.])
    """
    return space.loss_and_gradients


def njit_step(net: "Sequential") -> Any:
    """A function step(workspace, x, t) -> loss for @njit code: one step of the optimiser.

    The same function serves every network: what differs is in the workspace. The arrays are
    C-contiguous and of the network's type; for what it raises see `njit_predict`.

    Returns
    -------
    function
        x, t: as in `njit_loss_and_gradients`. The loss is that before the step; if it is not
        finite, the parameters stay as they are.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros", dtype="float64"))
    >>> space = net.workspace(batch_size=1, optimizer=fastbp.SGD(0.1))
    >>> net.njit_step()(space, np.array([[2.0]]), np.array([[3.0]]))
    9.0
    >>> net.layers[0].w
    array([[1.2]])
    """
    return space.step


def low_level_callable(net: "Sequential") -> Any:
    """The network as a function of SciPy's integrators: double f(int n, double *x).

    It reads the parameters of the network in every call, so it follows a training.

    Raises
    ------
    ValueError
        If the network is not on the CPU, not of float64, or has more than one output.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> from scipy.integrate import quad
    >>> net = fastbp.Sequential(fastbp.Dense(1, 1, dtype="float64"))
    >>> net.parameters[:] = 2.0, 1.0
    >>> round(quad(net.low_level_callable(), 0, 3)[0], 6)  # 2 x + 1 from 0 to 3
    12.0
    """
    from scipy import LowLevelCallable

    if net.device != "cpu" or net.dtype != np.float64 or net.out_features != 1:
        raise ValueError(
            "network: expected float64 and one output on 'cpu' for a function of SciPy, got "
            f"{net.dtype} and {net.out_features} on {net.device!r}"
        )
    plan, size = net.new_plan(), net.parameters.size
    table, numbers, features = plan.table, plan.numbers, net.in_features
    place, room = net.parameters.ctypes.data, cpu.network_work(1, plan.table)

    @cfunc(types.float64(types.intc, types.CPointer(types.float64)))
    def function(n: int, x: Any) -> float:
        parameters = carray(doubles_at(place), size)
        y = np.empty((1, 1))
        cpu.network_forward(
            carray(x, (1, features)), table, numbers, False, parameters, np.empty(room), y
        )
        return y[0, 0]

    _alive.append((net, function))
    return LowLevelCallable(function.ctypes)


_alive: list[tuple[Any, Any]] = []  # for good: a LowLevelCallable has no room for a reference
