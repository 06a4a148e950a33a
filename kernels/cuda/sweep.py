"""The backward pass of a narrow layer in one kernel: x, y and dy are read once, dz is never stored.

A block goes over a slice of the rows, panel by panel. The panels of x and dz lie in shared memory,
its part of dw (inputs x outputs) stays in registers from the first row to the last, and dx leaves
with every panel. Blocks beside each other along k take the same rows: the second finds dy in the
L2 cache. dw and db of all slices are then summed in their order (sums.py).
"""

from numba.types import boolean, int32

from .activations import slope
from .blocks import SWEEPS, threads_of_sweep
from .launch import REALS, kernel, variants
from .ptx import load4
from .target import cuda, device
from .tiles import fetch, fetch_dz, hold


def sweeper(real, sweep):
    """Blocks: slices of the rows, parts of k."""
    inputs, outputs, panel, thread_inputs, thread_outputs, chunk, dx_rows = sweep
    threads = threads_of_sweep(sweep)
    across, down = outputs // thread_outputs, inputs // thread_inputs
    dx_columns = panel * inputs // (threads * dx_rows)
    dx_across = inputs // dx_columns
    x_fours, dz_fours = panel * inputs // 4 // threads, panel * outputs // 4 // threads
    w_fours = chunk * inputs // 4  # of the block
    x_held, dz_held = 4 * x_fours, 4 * dz_fours
    x_line, dz_line, w_line = inputs // 4, outputs // 4, chunk // 4
    x_shape, dz_shape, w_shape = (panel, inputs), (panel, outputs), (chunk, inputs + 4)
    dw_shape, dx_shape = (thread_inputs, thread_outputs), (dx_rows, dx_columns)
    sums = -(-outputs // threads)  # columns of db that a thread has

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

    @device
    def keep(fours, line, held, target):
        """A panel from registers to shared memory."""
        for u in range(fours):
            v = cuda.threadIdx.x + threads * u
            for c in range(4):
                target[v // line, v % line * 4 + c] = held[4 * u + c]

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
    def add_products(xs, dzs, dw):
        """dw += xs.T @ dzs of this thread."""
        left, right = cuda.local.array(thread_inputs, real), cuda.local.array(thread_outputs, real)
        ty, tx = cuda.threadIdx.x // across, cuda.threadIdx.x % across
        for r in range(panel):
            for u in range(thread_inputs // 4):
                hold(left, u, load4(xs, (r, 4 * (u * down + ty))))
            for u in range(thread_outputs // 4):
                hold(right, u, load4(dzs, (r, 4 * (u * across + tx))))
            for i in range(thread_inputs):
                for j in range(thread_outputs):
                    dw[i, j] += left[i] * right[j]

    @device
    def add_toward_input(dzs, ws, j0, dx):
        """dx += dzs[:, j0 : j0 + chunk] @ ws of this thread."""
        left = cuda.local.array(4, real)
        r0, i0 = cuda.threadIdx.x // dx_across * dx_rows, cuda.threadIdx.x % dx_across
        for j in range(0, chunk, 4):
            for r in range(dx_rows):
                hold(left, 0, load4(dzs, (r0 + r, j0 + j)))
                for c in range(4):
                    for i in range(dx_columns):
                        dx[r, i] += left[c] * ws[j + c, i0 + dx_across * i]

    @kernel(
        real[:, ::1], real[:, ::1], real[:, ::1], real[:, ::1], int32, real[:, ::1], int32, int32,
        boolean, boolean, boolean, real[::1], real[:, ::1], threads=threads,
    )  # fmt: skip
    def backward_sweep(
        dy, x, w, saved, activation, below, f_below, slice_rows, wide_dy, wide_x, wide_w, out, dx
    ):  # fmt: skip
        xs = cuda.shared.array(x_shape, real, alignment=16)
        dzs = cuda.shared.array(dz_shape, real, alignment=16)
        ws = cuda.shared.array(w_shape, real, alignment=16)
        dw, db = cuda.local.array(dw_shape, real), cuda.local.array(sums, real)
        hx, hz = cuda.local.array(x_held, real), cuda.local.array(dz_held, real)
        part = cuda.local.array(dx_shape, real)
        (n, k), m, t = x.shape, dy.shape[1], cuda.threadIdx.x
        k0, begin = cuda.blockIdx.y * inputs, cuda.blockIdx.x * slice_rows
        end = min(begin + slice_rows, n)
        for i in range(thread_inputs):
            for j in range(thread_outputs):
                dw[i, j] = real(0)
        for u in range(sums):
            db[u] = real(0)
        load(x, dy, saved, activation, begin, k0, end, wide_x, wide_dy, hx, hz)
        for row in range(begin, end, panel):
            keep(x_fours, x_line, hx, xs)
            keep(dz_fours, dz_line, hz, dzs)
            cuda.syncthreads()
            if row + panel < end:
                load(x, dy, saved, activation, row + panel, k0, end, wide_x, wide_dy, hx, hz)
            add_products(xs, dzs, dw)
            if k0 == 0:
                for u in range(sums):
                    if t + threads * u < outputs:
                        for r in range(panel):
                            db[u] += dzs[r, t + threads * u]
            if dx.size > 0:
                for r in range(dx_rows):
                    for i in range(dx_columns):
                        part[r, i] = real(0)
                for j0 in range(0, outputs, chunk):
                    if chunk < outputs or row == begin:  # else all of w is there
                        cuda.syncthreads()
                        turn_weights(w, k0, j0, wide_w, ws)
                        cuda.syncthreads()
                    add_toward_input(dzs, ws, j0, part)
                for r in range(dx_rows):
                    i = row + t // dx_across * dx_rows + r
                    for c in range(dx_columns):
                        j = k0 + t % dx_across + dx_across * c
                        if i < end and j < k:
                            v = part[r, c]
                            dx[i, j] = v * slope(f_below, below[i, j]) if below.size > 0 else v
            cuda.syncthreads()
        base = cuda.blockIdx.x * (k + 1) * m
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

    return backward_sweep


SWEEPERS = variants(
    sweeper, [(dtype, sweep) for dtype in REALS for sweep in SWEEPS[dtype.itemsize]]
)
