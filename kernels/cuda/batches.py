"""The rows of a batch, gathered on the GPU: which they are is known there alone (sums.py)."""

from numba.types import float64, int64

from .blocks import FLAT, flat_grid
from .launch import REALS, kernel, variants
from .losses import LABELS
from .sums import ROW, scratch
from .target import cuda, device


@device
def gather(source, order, first, target):
    """target = the rows of source that the order names from `first` on, or that follow it."""
    columns = source.shape[1]
    for e in range(cuda.grid(1), target.size, cuda.gridsize(1)):
        i = first + e // columns
        target[e // columns, e % columns] = source[order[i] if order.size > 0 else i, e % columns]


@device
def gather_items(source, order, first, target):
    """`gather` for sources (n,)."""
    for e in range(cuda.grid(1), target.size, cuda.gridsize(1)):
        i = first + e
        target[e] = source[order[i] if order.size > 0 else i]


def batch_kernel(real, label):
    """Threads take strides of x, then of t, then of the weights."""
    targets = LABELS[label][::1] if label else real[:, ::1]
    gather_targets = gather_items if label else gather

    @kernel(
        real[:, ::1], targets, real[::1], int64[::1], float64[::1], real[:, ::1], targets,
        real[::1], threads=FLAT,
    )  # fmt: skip
    def gather_batch(x, t, sample_weight, order, scratch, x_batch, t_batch, s_batch):
        first = int64(scratch[ROW])
        gather(x, order, first, x_batch)
        gather_targets(t, order, first, t_batch)
        gather_items(sample_weight, order, first, s_batch)

    return gather_batch


BATCHES = variants(batch_kernel, [(dtype, label) for dtype in REALS for label in ("", *LABELS)])


def launch_batch(rows, data, order, rooms):
    """The next `rows` rows of x, t and sample_weight, in the rooms for them."""
    batch = [room[:rows] if a.size else a for a, room in zip(data, rooms, strict=True)]
    x, t, _ = data
    BATCHES[x.dtype, str(t.dtype) if t.ndim == 1 else ""](
        flat_grid(max(a.size for a in batch)), *data, order, scratch(), *batch
    )
    return batch
