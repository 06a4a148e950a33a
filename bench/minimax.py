"""Derive the coefficients and split constants of kernels/cpu/coefficients.py.

    python bench/minimax.py             all, two minutes
    python bench/minimax.py tanh_q      one of them

A Remez exchange (Muller, Elementary Functions, chapter 3) over a grid, in 60 digits. Coefficients
are rounded one by one, lowest power first; the others then make up for what the rounding lost.
"""

import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 60
LN2, SLOPE = mp.log(2), 2 / mp.sqrt(mp.pi)
# f(x); what makes an error relative to the function that is wanted; intervals and numbers of
# coefficients, for float32 and float64; a constant that is rounded and subtracted first.
# fmt: off
TARGETS = {
    "expm1_q": (lambda r: (mp.expm1(r) - r) / r**2, lambda r: r**2 / mp.expm1(r),
                ((-0.347, 0.347), (-0.34658, 0.34658)), (5, 10), 0),
    "tanh_q": (lambda r: (mp.expm1(2 * r) / 2 - r - r**2) / r**3,
               lambda r: 2 * r**3 / mp.expm1(2 * r),
               ((-LN2 / 8 - 1e-6, 3 * LN2 / 8 + 1e-6),) * 2, (4, 9), 0),
    "log1p_q": (lambda z: (4 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 4) / z,
                lambda z: z * mp.sqrt(z) / mp.atanh(mp.sqrt(z)) / 4,
                ((0, mp.mpf(1) / 9),) * 2, (4, 10), 0),
    "erf_q": (lambda t: -mp.log(mp.erfc(t)) / t, lambda t: t * mp.erfc(t) / mp.erf(t),
              ((0, 3.95), (0, 6)), (9, 24), SLOPE),
    "sin_q": (lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
              lambda z: z * mp.sqrt(z) / mp.sin(mp.sqrt(z)),
              ((0, 0.85**2), (0, 0.79**2)), (3, 6), 0),
    "cos_q": (lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
              lambda z: z**2 / mp.cos(mp.sqrt(z)),
              ((0, 0.85**2), (0, 0.79**2)), (3, 6), 0),
}
# fmt: on


def grid(low, high, n):
    """n Chebyshev points of the open interval."""
    return [low + (high - low) * (1 - mp.cos(mp.pi * (i + 0.5) / n)) / 2 for i in range(n)]


def remez(xs, f, w, powers, start=()):
    """The coefficients with the least largest |w (f - sum c x**k)|; `start` if none are better."""

    def errors(c):
        sums = (mp.fdot(c, [x**k for k in powers]) for x in xs)
        return [wi * (fi - total) for fi, wi, total in zip(f, w, sums, strict=True)]

    n = len(powers) + 1
    nodes = [round((len(xs) - 1) * (1 - np.cos(np.pi * i / (n - 1))) / 2) for i in range(n)]
    best = (max(map(abs, errors(start))), start) if start else (mp.inf, start)
    for _ in range(40):
        rows = [[xs[i] ** k for k in powers] + [(-1) ** j / w[i]] for j, i in enumerate(nodes)]
        c = list(mp.lu_solve(mp.matrix(rows), mp.matrix([f[i] for i in nodes])))[:-1]
        error = errors(c)
        best = min(best, (max(map(abs, error)), c))
        cuts = [i for i in range(1, len(xs)) if error[i - 1] * error[i] < 0]
        runs = zip([0, *cuts], [*cuts, len(xs)], strict=True)
        previous, nodes = nodes, [max(range(*run), key=lambda i: abs(error[i])) for run in runs]
        while len(nodes) > n:  # the smaller end goes
            nodes.pop(0 if abs(error[nodes[0]]) < abs(error[nodes[-1]]) else -1)
        if len(nodes) < n or nodes == previous:
            break
    return best[1]


def minimax(f, weight, interval, count, constant, dtype):
    """The rounded coefficients and their largest weighted error."""
    xs = grid(*interval, 60 * count)
    shift = mp.mpf(float(dtype(float(constant))))
    w, values = [abs(weight(x)) for x in xs], [f(x) - shift for x in xs]
    done, free = [], remez(xs, values, w, range(count))
    while free:
        done.append(mp.mpf(float(dtype(float(free.pop(0))))))
        values = [v - done[-1] * x ** (len(done) - 1) for v, x in zip(values, xs, strict=True)]
        free = free and remez(xs, values, w, range(len(done), count), free)
    check = grid(*interval, 977)
    return done, max(abs(weight(x) * (f(x) - shift - mp.polyval(done[::-1], x))) for x in check)


def split(value, count, dtype):
    """The leading parts of a positive value, each rounded toward zero."""
    for _ in range(count):
        part = dtype(float(value))
        part = np.nextafter(part, dtype(0)) if mp.mpf(float(part)) > value else part
        value -= mp.mpf(float(part))
        yield part


for dtype, column in ((np.float32, 0), (np.float64, 1)):
    print(dtype.__name__, "ln2:", *split(LN2, 2, dtype), "pio2:", *split(mp.pi / 2, 3, dtype))
    for name in sys.argv[1:] or TARGETS:
        f, weight, intervals, counts, constant = TARGETS[name]
        c, error = minimax(f, weight, intervals[column], counts[column], constant, dtype)
        print(f"{name} {dtype.__name__}: error 2**{float(mp.log(error, 2)):.1f}")
        print(*(f"    {dtype(float(x))!s}," for x in c), sep="\n")
