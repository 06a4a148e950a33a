"""The functions that a network with device="cuda" calls: arrays of the host in and out.

The kernels of fastbp.kernels.cuda take arrays on the GPU. A network keeps its parameters, its
gradients and the optimiser's state on the host, where the layers, `save` and callbacks look at
them; here they are uploaded, and come back when a call has changed them. During an epoch all that
a step needs stays on the GPU: data are uploaded when it begins.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .checks import Array
from .kernels import cuda
from .kernels.cuda.launch import allocate


def _upload(array: Array) -> Any:
    """A copy on the GPU."""
    copy = allocate(array.shape, array.dtype)
    if array.size:
        copy.copy_to_device(array)
    return copy


def _download(copy: Any, array: Array) -> None:
    """What the GPU has computed, into the array of the host."""
    if array.size:
        copy.copy_to_host(array)


def _on_host(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel for arrays of the host: the last is its output."""

    def call(*arguments: Any) -> Any:
        given = [_upload(a) if isinstance(a, np.ndarray) else a for a in arguments]
        value = kernel(*given)
        _download(given[-1], arguments[-1])
        return value

    return call


squared_error = _on_host(cuda.squared_error)
half_squared_error = _on_host(cuda.half_squared_error)
huber = _on_host(cuda.huber)
binary_cross_entropy = _on_host(cuda.binary_cross_entropy)
softmax_cross_entropy = _on_host(cuda.softmax_cross_entropy)
sparse_softmax_cross_entropy = _on_host(cuda.sparse_softmax_cross_entropy)
sigmoid = _on_host(cuda.sigmoid)
softmax = _on_host(cuda.softmax)
shuffle = _on_host(cuda.shuffle)


def network_work(n: int, table: Array) -> int:
    """Elements of `work` on the host: none, the GPU has its own."""
    return 0


def _work(n: int, table: Array, dtype: np.dtype[Any]) -> Any:
    return allocate(max(cuda.network_work(n, table), 1), dtype)


def network_forward(
    x: Array, table: Array, numbers: Array, training: bool, parameters: Array, work: Array, y: Array
) -> None:
    """y = the output of the last layer, as kernels.network_forward computes it."""
    out = allocate(y.shape, y.dtype)
    room = _work(len(x), table, x.dtype)
    cuda.network_forward(_upload(x), table, numbers, training, _upload(parameters), room, out)
    _download(out, y)


def network_loss_gradients(
    x: Array,
    t: Array,
    sample_weight: Array,
    table: Array,
    recipe: Array,
    numbers: Array,
    parameters: Array,
    work: Array,
    gradients: Array,
    dx: Array,
) -> float:
    """The loss and its gradients, as kernels.network_loss_gradients computes them."""
    data = _upload(x), _upload(t), _upload(sample_weight)
    out = _upload(gradients), _upload(dx)
    room = _work(len(x), table, x.dtype)
    loss: float = cuda.network_loss_gradients(
        *data, table, recipe, numbers, _upload(parameters), room, *out
    )
    _download(out[0], gradients)
    _download(out[1], dx)
    return loss


class _Resident:
    """What the steps of an epoch work on, on the GPU; `changed` comes back after each call."""

    def __init__(
        self, data: tuple[Array, ...], rooms: tuple[Array, ...], changed: tuple[Array, ...]
    ) -> None:
        self.hosts = (*data, *changed)
        self.data = [_upload(a) for a in data]
        self.rooms = [allocate(a.shape, a.dtype) for a in rooms]
        self.changed = [_upload(a) for a in changed]

    def is_for(self, *hosts: Array) -> bool:
        return len(hosts) == len(self.hosts) and all(
            one is other for one, other in zip(hosts, self.hosts, strict=True)
        )

    def download(self) -> None:
        for copy, array in zip(self.changed, self.hosts[len(self.data) :], strict=True):
            _download(copy, array)


def network_step(
    x: Array,
    t: Array,
    sample_weight: Array,
    table: Array,
    recipe: Array,
    numbers: Array,
    work: Array,
    *changed: Array,
) -> float:
    """One step on one batch, as kernels.network_step takes it.

    changed: gradients, parameters and the optimiser's state.
    """
    here = _Resident((x, t, sample_weight), (), changed)
    room = _work(len(x), table, x.dtype)
    arguments = [*here.data, table, recipe, numbers, room, *here.changed]
    loss: float = cuda.network_step(*arguments)
    here.download()
    return loss


_epoch: list[tuple[_Resident, Any]] = []  # that of the epoch in progress


def network_epoch(
    x: Array,
    t: Array,
    sample_weight: Array,
    order: Array,
    begin: int,
    steps: int,
    table: Array,
    recipe: Array,
    numbers: Array,
    x_batch: Array,
    t_batch: Array,
    s_batch: Array,
    work: Array,
    *changed: Array,
) -> int:
    """Steps of an epoch, as kernels.network_epoch takes them.

    changed: gradients, parameters, the optimiser's state and, last, the sums, which stay on the
    host. Parameters, gradients and state come back after every call: one may be the last.
    """
    *changed_on_gpu, sums = changed
    data = x, t, sample_weight, order
    if begin == 0 or not _epoch or not _epoch[0][0].is_for(*data, *changed_on_gpu):
        _epoch.clear()  # its memory first
        rooms = x_batch, t_batch, s_batch
        room = _work(len(x_batch), table, x.dtype)
        _epoch.append((_Resident(data, rooms, tuple(changed_on_gpu)), room))
    here, room = _epoch[0]
    steps_to_take = begin, steps, table, recipe, numbers
    arguments = [*here.data, *steps_to_take, *here.rooms, room, *here.changed, sums]
    end: int = cuda.network_epoch(*arguments)
    here.download()
    if end >= len(x) or not np.isfinite(sums[2]):
        _epoch.clear()
    return end
