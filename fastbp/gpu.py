"""The functions that a network with device="cuda" calls: arrays of the host or of a GPU in and out.

The kernels of fastbp.kernels.cuda take arrays on the GPU. A network keeps its parameters, its
gradients and the optimiser's state on the host, where the layers, `save` and callbacks look at
them. Here they are uploaded for a call, and come back when it has changed them, unless they are
`resident`: then they stay on the GPU. `fit` holds them there (gpu_training.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import Array
from .kernels import cuda
from .kernels.cuda import launch
from .kernels.cuda.launch import allocate
from .kernels.cuda.target import host
from .optimizers import Optimizer

if TYPE_CHECKING:
    from .network import Sequential

_resident: dict[int, tuple[Array, Any]] = {}  # arrays of the host, and where their numbers are
_rooms: dict[tuple[int, str], Any] = {}  # scratch, by GPU and type


def upload(array: Any) -> Any:
    """A copy on the GPU, or the array itself if its numbers are there."""
    if not isinstance(array, np.ndarray):
        return array
    if id(array) in _resident:
        return _resident[id(array)][1]
    copy = allocate(array.shape, array.dtype)
    if array.size:
        copy.copy_to_device(array, stream=launch.stream())
    return copy


def download(copy: Any, array: Array) -> None:
    """What the GPU has computed, into the array of the host; waits for it."""
    if array.size:
        copy.copy_to_host(array, stream=launch.stream())
        launch.synchronize()


def _hand_back(copy: Any, array: Any) -> None:
    """The result of a call to where its caller looks for it."""
    if copy is not array and id(array) not in _resident:
        download(copy, array)


@contextmanager
def using(stream: Any = None, precision: str | None = None) -> Iterator[None]:
    """How `fastbp.functional` computes on a GPU inside of `with`.

    Parameters
    ----------
    stream : stream or int, optional
        One of Numba's, what has `__cuda_stream__` (CuPy, PyTorch), or its address. Results are in
        order on it, and say so to whom they are handed.
    precision : {"float32", "tf32", "bf16"}, optional
        Of the products of wide layers in float32.

    Raises
    ------
    ValueError
        For an unknown precision.

    Examples
    --------
    With PyTorch::

        with fastbp.gpu.using(stream=torch.cuda.current_stream().cuda_stream):
            y, saved = fastbp.functional.dense_forward(x, w, b, activation="relu")
    """
    with launch.using(stream=_as_stream(stream), precision=precision):
        yield


def _as_stream(stream: Any) -> Any:
    """Numba's stream for one of another library."""
    if isinstance(stream, int) and stream:
        return host.external_stream(stream)
    if hasattr(type(stream), "__cuda_stream__") and not hasattr(stream, "auto_synchronize"):
        _, address = stream.__cuda_stream__()
        return host.external_stream(int(address)) if address else 0
    return stream


@contextmanager
def resident(arrays: list[Array], copies: list[Any]) -> Iterator[None]:
    """Numbers that stay on the GPU inside of `with`; the host's arrays are old until `download`."""
    pairs = {id(array): (array, copy) for array, copy in zip(arrays, copies, strict=True)}
    before = {key: _resident[key] for key in pairs if key in _resident}
    _resident.update(pairs)
    try:
        yield
    finally:
        for key in pairs:
            _resident.pop(key, None)
        _resident.update(before)


@contextmanager
def keep(net: "Sequential", optimizer: Optimizer | None = None) -> Iterator[None]:
    """Parameters, gradients and state stay on the GPU inside of `with`, and come home at its end.

    Without it `predict` and `train_step` upload them for every call; `fit` needs no help. Until the
    end the arrays of the host are as they were.

    Parameters
    ----------
    net : Sequential
        With device="cuda".
    optimizer : Optimizer, optional
        What `train_step` will be given.

    Raises
    ------
    ValueError
        If the network is on another device, or the optimizer belongs to another network.

    Examples
    --------
    ::

        with fastbp.gpu.keep(net, optimizer):
            for x, t in batches:
                net.train_step(x, t, "squared_error", optimizer)
    """
    if net.device != "cuda":
        raise ValueError(
            f"net: expected one with device='cuda', got one on {net.device}; pass net.to('cuda')"
        )
    hosts = [net.parameters, net.gradients]
    if optimizer is not None:
        optimizer.check(net.parameters)
        optimizer.state = optimizer.state_for(net.parameters)
        hosts += optimizer.state.values()
    copies = [upload(array) for array in hosts]
    try:
        with resident(hosts, copies):
            yield
    finally:
        for copy, array in zip(copies, hosts, strict=True):
            download(copy, array)


def at_precision(precision: str) -> Any:
    """These functions, with products of wide layers in "float32", "tf32" or "bf16"."""

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            with launch.using(precision=precision):
                return function(*arguments)

        return call

    return SimpleNamespace(**{name: within(function) for name, function in _FUNCTIONS.items()})


def _either_side(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel for arrays of the host, too: the last is its output."""

    @wraps(kernel)
    def call(*arguments: Any) -> Any:
        given = [upload(a) if isinstance(a, np.ndarray) else a for a in arguments]
        value = kernel(*given)
        _hand_back(given[-1], arguments[-1])
        return value

    return call


squared_error = _either_side(cuda.squared_error)
half_squared_error = _either_side(cuda.half_squared_error)
huber = _either_side(cuda.huber)
binary_cross_entropy = _either_side(cuda.binary_cross_entropy)
softmax_cross_entropy = _either_side(cuda.softmax_cross_entropy)
sparse_softmax_cross_entropy = _either_side(cuda.sparse_softmax_cross_entropy)
sigmoid = _either_side(cuda.sigmoid)
softmax = _either_side(cuda.softmax)
shuffle = _either_side(cuda.shuffle)


def network_work(n: int, table: Array) -> int:
    """Elements of `work` on the host: none, the GPU has its own."""
    return 0


def _work(n: int, table: Array, dtype: np.dtype[Any]) -> Any:
    """Scratch on the GPU for a step of n rows."""
    return room(cuda.network_work(n, table), dtype)


def room(size: int, dtype: np.dtype[Any]) -> Any:
    """At least so many elements of scratch on the GPU, which later calls take again."""
    size, key = max(size, 1), (launch.current_device(), dtype.char)
    if key not in _rooms or _rooms[key].size < size:
        _rooms.pop(key, None)  # its memory first
        _rooms[key] = allocate(size, dtype)
    return _rooms[key]


def network_forward(
    x: Any, table: Array, numbers: Array, training: bool, parameters: Array, work: Array, y: Any
) -> None:
    """y = the output of the last layer, as kernels.network_forward computes it."""
    out = upload(y)
    work = _work(x.shape[0], table, x.dtype)
    cuda.network_forward(upload(x), table, numbers, training, upload(parameters), work, out)
    _hand_back(out, y)


def network_loss_gradients(
    x: Any,
    t: Any,
    sample_weight: Any,
    table: Array,
    recipe: Array,
    numbers: Array,
    parameters: Array,
    work: Array,
    gradients: Array,
    dx: Any,
) -> float:
    """The loss and its gradients, as kernels.network_loss_gradients computes them."""
    data = upload(x), upload(t), upload(sample_weight)
    out = upload(gradients), upload(dx)
    work = _work(x.shape[0], table, x.dtype)
    loss: float = cuda.network_loss_gradients(
        *data, table, recipe, numbers, upload(parameters), work, *out
    )
    _hand_back(out[0], gradients)
    _hand_back(out[1], dx)
    return loss


def network_step(
    x: Any,
    t: Any,
    sample_weight: Any,
    table: Array,
    recipe: Array,
    numbers: Array,
    work: Array,
    *changed: Array,
) -> float:
    """One step on one batch, as kernels.network_step takes it.

    changed: gradients, parameters and the optimiser's state.
    """
    data = upload(x), upload(t), upload(sample_weight)
    copies = [upload(array) for array in changed]
    work = _work(x.shape[0], table, x.dtype)
    loss: float = cuda.network_step(*data, table, recipe, numbers, work, *copies)
    for copy, array in zip(copies, changed, strict=True):
        _hand_back(copy, array)
    return loss


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: value for name, value in vars().items() if callable(value) and hasattr(cuda, name)
}
