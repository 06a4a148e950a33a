"""The backward pass of a narrow layer in one kernel: x, y and dy are read once, dz is never stored.

A block goes over a slice of the rows, panel by panel. The panels of x and dz lie in shared memory,
its part of dw (inputs x outputs) stays in registers from the first row to the last, and dx leaves
with every panel. Blocks beside each other along k take the same rows: the second finds dy in the
L2 cache. dw and db of all slices are then summed in their order (sums.py).
"""

from collections import namedtuple

from numba.types import boolean, int32

from .activations import slope
from .blocks import SWEEPS, threads_of_sweep
from .launch import REALS, kernel, variants
from .ptx import load4
from .target import cuda, device
from .tiles import fetch, fetch_dz, hold

Panels = namedtuple("Panels", "load keep_x keep_dz held_x held_dz shape_x shape_dz")
Weights = namedtuple("Weights", "clear add write shape sums")
Input = namedtuple("Input", "multiply write shape shape_w")


def panels(real, sweep):
    """How panels of x and dz come to shared memory, through registers."""
    inputs, outputs, rows, *_ = sweep
    threads = threads_of_sweep(sweep)
    x_line, dz_line = inputs // 4, outputs // 4
    x_fours, dz_fours = rows * x_line // threads, rows * dz_line // threads  # of a thread

    @device
    def load(x, dy, saved, activation, row, k0, end, wide_x, wide_dy, hx, hz):
        """The next panel of x and dz, from global memory into registers."""
        for u in range(x_fours):
            v = cuda.threadIdx.x + threads * u
            i, j = row + v // x_line, k0 + v % x_line * 4
            hold(hx, u, fetch(x, i, j, end, wide_x))
        for u in range(dz_fours):
            v = cuda.threadIdx.x + threads * u
            i, j = row + v // dz_line, v % dz_line * 4
            hold(hz, u, fetch_dz(True, dy, saved, activation, i, j, end, wide_dy))

    def keeper(fours, line):
        @device
        def keep(held, target):
            """A panel from registers to shared memory."""
            for u in range(fours):
                v = cuda.threadIdx.x + threads * u
                for c in range(4):
                    target[v // line, v % line * 4 + c] = held[4 * u + c]

        return keep

    keepers = keeper(x_fours, x_line), keeper(dz_fours, dz_line)
    return Panels(load, *keepers, 4 * x_fours, 4 * dz_fours, (rows, inputs), (rows, outputs))


def weights(real, sweep):
    """dw and db of a block, in registers from the first row to the last."""
    inputs, outputs, rows, thread_inputs, thread_outputs, *_ = sweep
    threads = threads_of_sweep(sweep)
    across, down = outputs // thread_outputs, inputs // thread_inputs
    sums = -(-outputs // threads)  # columns of db that a thread has

    @device
    def clear(dw, db):
        for i in range(thread_inputs):
            for j in range(thread_outputs):
                dw[i, j] = real(0)
        for u in range(sums):
            db[u] = real(0)

    @device
    def add(xs, dzs, with_bias, dw, db):
        """dw += xs.T @ dzs, db += dzs.sum(0) of this thread."""
        left, right = cuda.local.array(thread_inputs, real), cuda.local.array(thread_outputs, real)
        ty, tx = cuda.threadIdx.x // across, cuda.threadIdx.x % across
        for r in range(rows):
            for u in range(thread_inputs // 4):
                hold(left, u, load4(xs, (r, 4 * (u * down + ty))))
            for u in range(thread_outputs // 4):
                hold(right, u, load4(dzs, (r, 4 * (u * across + tx))))
            for i in range(thread_inputs):
                for j in range(thread_outputs):
                    dw[i, j] += left[i] * right[j]
        if with_bias:
            for u in range(sums):
                if cuda.threadIdx.x + threads * u < outputs:
                    for r in range(rows):
                        db[u] += dzs[r, cuda.threadIdx.x + threads * u]

    @device
    def write(dw, db, k0, k, m, out):
        """The slice of this block in `out`: dw, then db from the block of the first inputs."""
        base, t = cuda.blockIdx.x * (k + 1) * m, cuda.threadIdx.x
        for i in range(thread_inputs):
            for j in range(thread_outputs):
                p = k0 + 4 * (i // 4 * down + t // across) + i % 4
                q = 4 * (j // 4 * across + t % across) + j % 4
                if p < k and q < m:
                    out[base + p * m + q] = dw[i, j]
        for u in range(sums):
            q = t + threads * u
            if k0 == 0 and q < m:
                out[base + k * m + q] = db[u]

    return Weights(clear, add, write, (thread_inputs, thread_outputs), sums)


def toward_input(real, sweep):
    """dx of a panel, in registers: `chunk` columns of w at a time are in shared memory, turned."""
    inputs, outputs, rows, _, _, chunk, dx_rows = sweep
    threads = threads_of_sweep(sweep)
    dx_columns = rows * inputs // (threads * dx_rows)
    dx_across, w_line, w_fours = inputs // dx_columns, chunk // 4, chunk * inputs // 4

    @device
    def turn_weights(w, k0, j0, wide, ws):
        """ws[j, i] = w[k0 + i, j0 + j]: (chunk, inputs) of w.T."""
        four = cuda.local.array(4, real)
        for v in range(cuda.threadIdx.x, w_fours, threads):
            i, j = v // w_line, v % w_line * 4
            hold(four, 0, fetch(w, k0 + i, j0 + j, w.shape[0], wide))
            for c in range(4):
                ws[j + c, i] = four[c]

    @device
    def add(dzs, ws, j0, dx):
        """dx += dzs[:, j0 : j0 + chunk] @ ws of this thread."""
        left = cuda.local.array(4, real)
        r0, i0 = cuda.threadIdx.x // dx_across * dx_rows, cuda.threadIdx.x % dx_across
        for j in range(0, chunk, 4):
            for r in range(dx_rows):
                hold(left, 0, load4(dzs, (r0 + r, j0 + j)))
                for c in range(4):
                    for i in range(dx_columns):
                        dx[r, i] += left[c] * ws[j + c, i0 + dx_across * i]

    @device
    def multiply(dzs, w, k0, wide, first, ws, dx):
        """dx = dzs @ w.T of this thread; `first`: nothing of w is there yet."""
        for r in range(dx_rows):
            for i in range(dx_columns):
                dx[r, i] = real(0)
        for j0 in range(0, outputs, chunk):
            if chunk < outputs or first:  # else all of w is there
                cuda.syncthreads()
                turn_weights(w, k0, j0, wide, ws)
                cuda.syncthreads()
            add(dzs, ws, j0, dx)

    @device
    def write(part, row, k0, end, below, f_below, dx):
        """dx of a panel, times f' of the layer below if asked for."""
        for r in range(dx_rows):
            i = row + cuda.threadIdx.x // dx_across * dx_rows + r
            for c in range(dx_columns):
                j = k0 + cuda.threadIdx.x % dx_across + dx_across * c
                if i < end and j < dx.shape[1]:
                    v = part[r, c]
                    dx[i, j] = v * slope(f_below, below[i, j]) if below.size > 0 else v

    return Input(multiply, write, (dx_rows, dx_columns), (chunk, inputs + 4))


def sweeper(real, sweep):
    """Blocks: slices of the rows, parts of k."""
    inputs, rows, threads = sweep.inputs, sweep.panel, threads_of_sweep(sweep)
    load, keep_x, keep_dz, held_x, held_dz, shape_x, shape_dz = panels(real, sweep)
    clear, add, write, shape_dw, sums = weights(real, sweep)
    multiply, write_dx, shape_dx, shape_w = toward_input(real, sweep)

    @kernel(
        real[:, ::1], real[:, ::1], real[:, ::1], real[:, ::1], int32, real[:, ::1], int32, int32,
        boolean, boolean, boolean, real[::1], real[:, ::1], threads=threads,
    )  # fmt: skip
    def backward_sweep(
        dy, x, w, saved, activation, below, f_below, slice_rows, wide_dy, wide_x, wide_w, out, dx
    ):  # fmt: skip
        xs = cuda.shared.array(shape_x, real, alignment=16)
        dzs = cuda.shared.array(shape_dz, real, alignment=16)
        ws = cuda.shared.array(shape_w, real, alignment=16)
        dw, db = cuda.local.array(shape_dw, real), cuda.local.array(sums, real)
        hx, hz = cuda.local.array(held_x, real), cuda.local.array(held_dz, real)
        part = cuda.local.array(shape_dx, real)
        k0, begin = cuda.blockIdx.y * inputs, cuda.blockIdx.x * slice_rows
        end = min(begin + slice_rows, x.shape[0])
        clear(dw, db)
        load(x, dy, saved, activation, begin, k0, end, wide_x, wide_dy, hx, hz)
        for row in range(begin, end, rows):
            keep_x(hx, xs)
            keep_dz(hz, dzs)
            cuda.syncthreads()
            if row + rows < end:
                load(x, dy, saved, activation, row + rows, k0, end, wide_x, wide_dy, hx, hz)
            add(xs, dzs, k0 == 0, dw, db)
            if dx.size > 0:
                multiply(dzs, w, k0, wide_w, row == begin, ws, part)
                write_dx(part, row, k0, end, below, f_below, dx)
            cuda.syncthreads()
        write(dw, db, k0, x.shape[1], dy.shape[1], out)

    return backward_sweep


SWEEPERS = variants(
    sweeper, [(dtype, sweep) for dtype in REALS for sweep in SWEEPS[dtype.itemsize]]
)
