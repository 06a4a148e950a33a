"""How many rows of a batch are right, counted on the GPU."""

from numba.types import boolean, float64

from .blocks import FLAT, flat_grid
from .launch import REALS, kernel, variants
from .losses import LABELS
from .sums import CHECK, PARTIALS, block_sum, result, scratch, sum_partials
from .target import cuda, device


@device
def largest(a, i):
    """The first column of row i whose number is the largest."""
    best = 0
    for j in range(1, a.shape[1]):
        best = j if a[i, j] > a[i, best] else best
    return best


@device
def hit_of_labels(y, t, i, classes):
    """1 where the largest output is that of the label."""
    return 1.0 if largest(y, i) == t[i] else 0.0


@device
def hit_of_numbers(y, t, i, classes):
    """1 where the largest output and target are in one column; else the share of right columns."""
    if classes:
        return 1.0 if largest(y, i) == largest(t, i) else 0.0
    right = 0.0
    for j in range(y.shape[1]):
        right += 1.0 if (y[i, j] > 0) == (t[i, j] > 0.5) else 0.0
    return right / y.shape[1]


def hits_kernel(real, label):
    """Threads take strides of the rows."""
    targets = LABELS[label][::1] if label else real[:, ::1]
    hit = hit_of_labels if label else hit_of_numbers

    @kernel(real[:, ::1], targets, real[::1], boolean, float64[::1], threads=FLAT)
    def count_hits(y, t, sample_weight, classes, scratch):
        shared = cuda.shared.array(FLAT, float64)
        total = 0.0
        for i in range(cuda.grid(1), y.shape[0], cuda.gridsize(1)):
            weight = sample_weight[i] if sample_weight.size > 0 else 1.0
            total += weight * hit(y, t, i, classes)
        total = block_sum(shared, total)
        if cuda.threadIdx.x == 0:
            scratch[PARTIALS + cuda.blockIdx.x] = total

    return count_hits


HITS = variants(hits_kernel, [(dtype, label) for dtype in REALS for label in ("", *LABELS)])


def hits(y, t, sample_weight, classes):
    """The weight of the rows that are right. y: (n, m), t: (n, m) or labels (n,).

    classes: one column is right, the largest; else each is, or is not, above 0.
    """
    grid = flat_grid(y.shape[0])
    if grid:
        label = str(t.dtype) if t.ndim == 1 else ""
        HITS[y.dtype, label](grid, y, t, sample_weight, classes, scratch())
    sum_partials(1, grid, CHECK, scratch())
    return result(CHECK)
