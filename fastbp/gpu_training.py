"""A training on the GPU: parameters, gradients, state, data and their order stay there.

Data that fit into the budget are uploaded once. Larger ones stream through two pieces of it: while
the GPU computes on one, the next is on its way, and a thread gathers the rows of the one after.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from . import gpu
from .checks import Array
from .kernels import cuda
from .kernels.cuda import launch, sums
from .kernels.cuda.graphs import Recorder
from .kernels.cuda.launch import allocate
from .kernels.cuda.target import host
from .training import Batch, Callback, History, Run

Data = tuple[Any, Any, Any]  # x, t and sample_weight


class Whole:
    """All data on the GPU, and the order of an epoch."""

    def __init__(self, data: Data, rows: int) -> None:
        x, t, sample_weight = map(gpu.upload, data)
        self.data, self.rows = (x, t, sample_weight), rows
        self.order = allocate(0, np.int64)

    def begin(self, seed: int | None) -> None:
        """A new epoch, in the order that a seed names."""
        if seed is not None:
            if not self.order.size:
                self.order = allocate(self.rows, np.int64)
            cuda.shuffle(seed, self.order)

    def at(self, row: int) -> tuple[Data, Any, int]:
        """Data that hold a row of the order, the order of their rows, and the first row of them."""
        return self.data, self.order, 0

    def close(self) -> None:
        """Nothing to wait for."""


class Pieces:
    """Data on the host that come in pieces, each a few batches; two have room on the GPU.

    budget: bytes of both.
    """

    def __init__(self, data: Data, rows: int, batch_size: int, budget: int) -> None:
        self.source, self.rows = data, rows
        row_bytes = sum(a.nbytes for a in data) // rows
        self.size = max(budget // (2 * row_bytes) // batch_size, 1) * batch_size
        shapes = [(min(self.size, len(a)), *a.shape[1:]) for a in data]
        self.compute = launch.stream()
        self.copy = launch.stream_of(launch.current_device(), "copy")
        self.pinned, self.on_gpu, self.arrived = [], [], []
        for _ in range(2):
            dtypes = [a.dtype for a in data]
            self.pinned.append([_pinned(s, of) for s, of in zip(shapes, dtypes, strict=True)])
            self.on_gpu.append([allocate(s, of) for s, of in zip(shapes, dtypes, strict=True)])
            self.arrived.append(host.event())
        self.order, self.none = np.empty(0, np.int64), allocate(0, np.int64)
        self.worker = ThreadPoolExecutor(1)
        self.gathered: dict[int, Future[None]] = {}
        self.here = -1  # the piece that is computed on

    def begin(self, seed: int | None) -> None:
        """A new epoch, in the order that a seed names."""
        self._wait()
        self.here = -1
        if seed is not None:
            on_gpu = allocate(self.rows, np.int64)
            cuda.shuffle(seed, on_gpu)
            self.order = np.empty(self.rows, np.int64)
            gpu.download(on_gpu, self.order)
        self._gather(0)
        self._send(0)
        self._gather(1)

    def at(self, row: int) -> tuple[Data, Any, int]:
        """Data that hold a row of the order, the order of their rows, and the first row of them."""
        piece = row // self.size
        if piece != self.here:
            self.here = piece
            self.arrived[piece % 2].wait(self.compute)
            self._send(piece + 1)  # what was computed there is done: network_epoch waits
            self._gather(piece + 2)
        rows = self._rows(piece)
        x, t, s = (a[: len(rows)] if a.size else a for a in self.on_gpu[piece % 2])
        return (x, t, s), self.none, rows.start

    def _rows(self, piece: int) -> range:
        begin = piece * self.size
        return range(begin, max(begin, min(begin + self.size, self.rows)))

    def _gather(self, piece: int) -> None:
        """The rows of a piece into memory that the GPU copies from, once it has copied the last."""
        if rows := self._rows(piece):
            if piece > 1:
                self.arrived[piece % 2].synchronize()
            self.gathered[piece] = self.worker.submit(self._fill, rows, self.pinned[piece % 2])

    def _fill(self, rows: range, target: list[Array]) -> None:
        chosen = self.order[rows.start : rows.stop]
        for a, room in zip(self.source, target, strict=True):
            if not a.size:
                continue
            if chosen.size:
                np.take(a, chosen, axis=0, out=room[: len(rows)], mode="clip")
            else:
                room[: len(rows)] = a[rows.start : rows.stop]

    def _send(self, piece: int) -> None:
        """A piece to the GPU, beside what is computed there."""
        if rows := self._rows(piece):
            self.gathered.pop(piece).result()
            for a, room in zip(self.pinned[piece % 2], self.on_gpu[piece % 2], strict=True):
                if a.size:
                    room[: len(rows)].copy_to_device(a[: len(rows)], stream=self.copy)
            self.arrived[piece % 2].record(self.copy)

    def _wait(self) -> None:
        """Nothing is gathered or on its way any more."""
        wait(self.gathered.values())
        self.gathered.clear()
        self.copy.synchronize()

    def close(self) -> None:
        """Wait for what is on its way."""
        self._wait()
        self.worker.shutdown()


def _bytes_to_upload(data: Iterable[Any]) -> int:
    return sum(a.nbytes for a in data if isinstance(a, np.ndarray))


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Memory of the host that the GPU copies from on its own."""
    if 0 in shape:
        return np.empty(shape, dtype)
    array: Array = host.pinned_array(shape, dtype)
    return array


class GpuRun(Run):
    """What stays the same over the epochs of a fit on the GPU, and the last state that was good."""

    def __post_init__(self) -> None:
        net, optimizer = self.net, self.optimizer
        self.recorder, self.open = Recorder(), ExitStack()
        self.stream = launch.stream_of(launch.current_device(), "compute")
        self.at_home = False
        self.validation: list[Any] = []  # once they are on the GPU
        optimizer.state = optimizer.state_for(net.parameters)
        self.hosts = [net.parameters, *optimizer.state.values(), net.gradients]
        _, _, *arrays = self.batch
        rows = min(self.batch_size, len(arrays[0]))
        with self._using():
            self.changed = [gpu.upload(array) for array in self.hosts]
            self.none = allocate(0, net.dtype)
            self.spares = [[allocate(a.shape, a.dtype) for a in self.hosts[:-1]] for _ in range(2)]
            self.room = tuple(
                allocate((rows if a.size else 0, *a.shape[1:]), a.dtype) for a in arrays
            )
            self.work = allocate(max(cuda.network_work(rows, self.plan.table), 1), net.dtype)
            self.source = self._source((arrays[0], arrays[1], arrays[2]), len(arrays[0]))
            self.good = self.state()
        self.open.enter_context(gpu.resident(self.hosts, self.changed))

    def _source(self, data: Data, rows: int) -> Whole | Pieces:
        budget = self.data_budget or launch.free_bytes() // 2
        if _bytes_to_upload(data) <= budget:
            return Whole(data, rows)
        return Pieces(data, rows, self.batch_size, budget)

    @contextmanager
    def _using(self) -> Iterator[None]:
        with launch.using(self.stream, self.net.precision, self.recorder):
            yield

    def begin_epoch(self) -> None:
        """The order of the rows."""
        seed = None if self.rng is None else int(self.rng.integers(2**63))
        with self._using():
            self.source.begin(seed)

    def take_steps(self, begin: int, sums: Array) -> int:
        """Some steps from a row of the order on; returns the row after them."""
        plan, size = self.plan, self.batch_size
        parameters, *state, gradients = self.changed
        first, second = (*state, self.none, self.none)[:2]
        end = min(begin + self.steps * size, len(self.batch[2]))
        with self._using():
            while begin < end:
                data, order, at = self.source.at(begin)
                rows = data[0].shape[0]
                steps = -(-(min(end, at + rows) - begin) // size)
                row = cuda.network_epoch(
                    *(*data, order, begin - at, steps, plan.table, plan.recipe, plan.numbers),
                    *(*self.room, self.work, gradients, parameters, first, second, sums),
                )
                stopped = row < min(begin - at + steps * size, rows)
                begin = at + row
                if stopped:
                    break
        return begin

    def is_finite(self) -> bool:
        """Whether all parameters are finite."""
        with self._using():
            sums.flat_sum(self.changed[0], sums.DIFFERENCES, sums.CHECK)
            return bool(np.isfinite(sums.result(sums.CHECK)))

    def state(self) -> Any:
        """Parameters and the optimiser's state as they are now."""
        kept = getattr(self, "good", (None,))[0]
        room = self.spares[0 if kept is not self.spares[0] else 1]
        for copy, array in zip(room, self.changed, strict=False):
            copy.copy_to_device(array, stream=self.stream)
        return room, self.optimizer.step

    def restore(self) -> None:
        """Put the network and the optimiser back to the last good state."""
        self.at_home = False
        step, (room, self.optimizer.step) = self.optimizer.step, self.good
        self.plan.passed(self.optimizer.step - step)
        for copy, array in zip(room, self.changed, strict=False):
            array.copy_to_device(copy, stream=self.stream)

    def evaluate(self, validation: Batch) -> dict[str, float]:
        """The scores of other data, which are uploaded once if there is room for them."""
        loss, kernel, *arrays = validation
        with self._using():
            if not self.validation:
                room = _bytes_to_upload(arrays) <= launch.free_bytes() // 2
                self.validation = [gpu.upload(a) if room else a for a in arrays]
            return self.net.evaluate_checked(loss, kernel, *self.validation)

    def call(self, callbacks: list[Callback], history: History) -> list[Any]:
        """What the callbacks answer; they see the network, and may change it."""
        if not callbacks:
            return []
        self._show()
        self.open.close()
        answers = super().call(callbacks, history)
        self._take()
        return answers

    def _show(self) -> None:
        """The host's arrays as they are on the GPU."""
        self.at_home = True
        with self._using():
            for copy, array in zip(self.changed, self.hosts, strict=True):
                gpu.download(copy, array)

    def _take(self) -> None:
        """The host's arrays, which a callback may have changed, to the GPU."""
        self.at_home = False
        self.open.enter_context(gpu.resident(self.hosts, self.changed))
        for copy, array in zip(self.changed, self.hosts, strict=True):
            if array.size:
                copy.copy_to_device(array, stream=self.stream)

    def close(self) -> None:
        """Bring all home, and give the GPU's memory back."""
        try:
            if not self.at_home:
                self._show()
        finally:
            self.open.close()
            self.source.close()
            self.recorder.close()
