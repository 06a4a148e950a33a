"""Sums whose order depends on the shapes alone: of slices of gradients, and of flat arrays.

A flat sum runs in float64: every block leaves a partial sum in `scratch`, then one block adds them.

A step must change nothing once a loss is not finite, and the host shall not wait to see it: what
changes parameters, state or gradients asks a gate on the GPU first. `account` closes it. All else
that changes from step to step stands beside it: the count of steps, and the row of the next batch.
The launches of all steps are therefore the same, and may be recorded once (graphs.py).
"""

from contextlib import contextmanager
from functools import cache
from math import nan

import numpy as np
from numba.types import boolean, float64, int32, int64

from .blocks import FLAT, FLAT_BLOCKS, SUM_BLOCKS, SUM_OUTPUTS, SUM_SLICES, blocks, flat_grid
from .elementary import isfinite
from .launch import allocate, current_device, for_reals, kernel, read
from .target import cuda, device, host

# Places in scratch: results; the gate (0: open) and what went through it, as the last loss, the
# weighted losses and the weights; the count of steps, the first row of the next batch, and Adam's
# 1 - beta**step; then the partial sums.
LOSS, WEIGHT, PENALTY, NORM, CHECK, GATE, LAST, LOSSES, WEIGHTS, STEP, ROW = range(11)
BIAS1, BIAS2, PARTIALS = range(11, 14)
# sum a, sum a**2, sum (a - a): 0 if all are finite, and how many are below 0
PLAIN, SQUARES, DIFFERENCES, NEGATIVES = range(4)


@cache
def _scratch_on(number):
    return allocate(PARTIALS + FLAT_BLOCKS, np.float64)


def scratch():
    """The scratch of the GPU in use: its launches follow one another on one stream."""
    return _scratch_on(current_device())


@cache
def _always_on(number):
    return host.to_device(np.zeros(PARTIALS))


_gates = [None]


@contextmanager
def gated():
    """What is launched inside of `with` happens while the gate of scratch is open."""
    _gates.append(scratch)
    try:
        yield
    finally:
        _gates.pop()


def gate():
    """The gate of the next launches: that of scratch, or one that is always open."""
    return _always_on(current_device()) if ungated() else _gates[-1]()


def ungated():
    """Whether the next launches stand behind no gate but the one that is always open."""
    return _gates[-1] is None


@device
def is_open(gate):
    """Whether all losses up to this step were finite."""
    return gate[GATE] == 0 and isfinite(gate[LOSS])


@kernel(int64, int64, float64[::1], threads=1)
def open_gate(step, row, scratch):
    """So many steps were taken before the next; its batch begins with this row."""
    for place in range(GATE, PARTIALS):
        scratch[place] = 0
    scratch[STEP], scratch[ROW] = step, row


@kernel(float64[::1], threads=1)
def spoil_loss(scratch):
    """A loss whose x is not finite is NaN: a saturated unit would hide an infinity from it."""
    scratch[LOSS] += scratch[CHECK]


@kernel(float64, int32, boolean, float64, float64, float64[::1], threads=1)
def account(weight, rows, penalised, beta1, beta2, scratch):
    """Adds a step to the sums and goes on by its rows, or closes the gate after a bad loss.

    weight: of the batch, or 0 for the sum of its sample weights. One that weighs nothing is passed
    over: it changes nothing, and counts as no step.
    """
    if scratch[GATE] != 0:
        return
    weight = weight if weight > 0 else scratch[WEIGHT]
    loss = scratch[LOSS] + (scratch[PENALTY] if penalised else 0.0)
    if not weight > 0:
        scratch[LOSS] = nan
    else:
        scratch[LAST] = loss
        if not isfinite(loss):
            scratch[GATE] = 1
            return
        scratch[LOSSES] += weight * loss
        scratch[WEIGHTS] += weight
        scratch[STEP] += 1
        scratch[BIAS1] = 1 - beta1 ** scratch[STEP]
        scratch[BIAS2] = 1 - beta2 ** scratch[STEP]
    scratch[ROW] += rows


@device
def block_sum(shared, value):
    """The sum of `value` over the threads of a block, in a fixed order; FLAT threads or fewer."""
    t, count = cuda.threadIdx.x, cuda.blockDim.x
    shared[t] = value
    cuda.syncthreads()
    step = 1
    while step < count:
        if t % (2 * step) == 0 and t + step < count:
            shared[t] += shared[t + step]
        step *= 2
        cuda.syncthreads()
    total = shared[0]
    cuda.syncthreads()
    return total


@for_reals
def sum_flat(real):
    """Blocks take strides of a; each leaves its partial sum of what is asked for."""

    @kernel(real[::1], int32, float64[::1], threads=FLAT)
    def sum_flat(a, what, scratch):
        shared = cuda.shared.array(FLAT, float64)
        total = 0.0
        for i in range(cuda.grid(1), a.size, cuda.gridsize(1)):
            v = float64(a[i])
            if what == PLAIN:
                total += v
            elif what == SQUARES:
                total += v * v
            elif what == DIFFERENCES:
                total += v - v
            else:
                total += 1.0 if v < 0 else 0.0
        total = block_sum(shared, total)
        if cuda.threadIdx.x == 0:
            scratch[PARTIALS + cuda.blockIdx.x] = total

    return sum_flat


@kernel(int32, int32, float64[::1], threads=FLAT)
def sum_partials(count, place, scratch):
    """scratch[place] = the sum of the partial sums of `count` blocks."""
    shared = cuda.shared.array(FLAT, float64)
    total = 0.0
    for i in range(cuda.threadIdx.x, count, FLAT):
        total += scratch[PARTIALS + i]
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        scratch[place] = total


def flat_sum(a, what, place):
    """Leaves a sum over a (size,) in scratch[place]."""
    grid = flat_grid(a.size)
    if grid:
        sum_flat[a.dtype](grid, a, what, scratch())
    sum_partials(1, grid, place, scratch())


def result(place):
    """A number of scratch; waits for the GPU."""
    return float(read(scratch(), place, place + 1)[0])


def results():
    """The last loss, weighted losses and weights since the gate was opened, steps, the next row."""
    loss, losses, weights, step, row = read(scratch(), LAST, ROW + 1).tolist()
    return loss, losses, weights, int(step), int(row)


@for_reals
def sum_slices(real):
    """Groups of threads take every SUM_SLICES-th slice; the first adds the sums of the others."""

    @kernel(
        int32, int32, boolean, float64[::1], real[::1], real[:, ::1], real[::1],
        threads=SUM_OUTPUTS * SUM_SLICES,
    )  # fmt: skip
    def sum_slices(slices, size, add, gate, work, dw, db):
        if not is_open(gate):
            return
        shared = cuda.shared.array((SUM_SLICES, SUM_OUTPUTS), real)
        lane, group = cuda.threadIdx.x % SUM_OUTPUTS, cuda.threadIdx.x // SUM_OUTPUTS
        k, m = dw.shape
        for first in range(cuda.blockIdx.x * SUM_OUTPUTS, size, cuda.gridDim.x * SUM_OUTPUTS):
            i, total = first + lane, real(0)
            if i < size:
                for s in range(group, slices, SUM_SLICES):
                    total += work[s * size + i]
            shared[group, lane] = total
            cuda.syncthreads()
            if group == 0 and i < size:
                for g in range(1, SUM_SLICES):
                    total += shared[g, lane]
                if i < k * m:
                    dw[i // m, i % m] = dw[i // m, i % m] + total if add else total
                elif db.size > 0:
                    db[i - k * m] = db[i - k * m] + total if add else total
            cuda.syncthreads()

    return sum_slices


def launch_slices(slices, size, add, work, dw, db):
    """dw then db = or += the sum over slices of `work` (slices, size)."""
    grid = min(blocks(size, SUM_OUTPUTS), SUM_BLOCKS)
    sum_slices[dw.dtype](grid, slices, size, add, gate(), work, dw, db)
