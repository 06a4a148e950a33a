"""Sums whose order depends on the shapes alone: of slices of gradients, and of flat arrays.

A flat sum runs in float64: every block leaves a partial sum in `scratch`, then one block adds them.

A step must change nothing once a loss is not finite, and the host shall not wait to see it: what
changes parameters, state or gradients asks a gate on the GPU first. `account` closes it.
"""

from contextlib import contextmanager
from functools import cache

import numpy as np
from numba.types import boolean, float64, int32

from .blocks import FLAT, FLAT_BLOCKS, SUM_BLOCKS, SUM_OUTPUTS, SUM_SLICES, blocks, flat_grid
from .elementary import isfinite
from .launch import allocate, current_device, for_reals, kernel, read
from .target import cuda, device, host

# Places in scratch: results; the gate (0: open) and what went through it, as the last loss, the
# weighted losses, the weights and the number of steps; then the partial sums.
LOSS, WEIGHT, PENALTY, NORM, CHECK, GATE, LAST, LOSSES, WEIGHTS, STEPS, PARTIALS = range(11)
PLAIN, SQUARES, DIFFERENCES = range(3)  # sum a, sum a**2, sum (a - a): 0 if all are finite


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
    return _gates[-1]() if _gates[-1] else _always_on(current_device())


@device
def is_open(gate):
    """Whether all losses up to this step were finite."""
    return gate[GATE] == 0 and isfinite(gate[LOSS])


@kernel(float64[::1], threads=1)
def open_gate(scratch):
    for place in range(GATE, PARTIALS):
        scratch[place] = 0


@kernel(float64[::1], threads=1)
def spoil_loss(scratch):
    """A loss whose x is not finite is NaN: a saturated unit would hide an infinity from it."""
    scratch[LOSS] += scratch[CHECK]


@kernel(float64, boolean, float64[::1], threads=1)
def account(weight, penalised, scratch):
    """Adds a step to the sums, or closes the gate if its loss is not finite."""
    if scratch[GATE] == 0:
        loss = scratch[LOSS] + (scratch[PENALTY] if penalised else 0.0)
        scratch[LAST] = loss
        if isfinite(loss):
            scratch[LOSSES] += weight * loss
            scratch[WEIGHTS] += weight
            scratch[STEPS] += 1
        else:
            scratch[GATE] = 1


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
    @kernel(real[::1], int32, float64[::1], threads=FLAT)
    def sum_flat(a, what, scratch):
        shared = cuda.shared.array(FLAT, float64)
        total = 0.0
        for i in range(cuda.grid(1), a.size, cuda.gridsize(1)):
            v = float64(a[i])
            total += v if what == PLAIN else (v * v if what == SQUARES else v - v)
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
    """The last loss, the weighted losses, the weights and the steps since the gate was opened."""
    return read(scratch(), LAST, STEPS + 1).tolist()


@for_reals
def sum_slices(real):
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
