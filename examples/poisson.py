"""Solve Poisson's equation with a network, by derivatives of any order and one compiled function.

usage: python examples/poisson.py [PICTURE.png]

u_xx + u_yy = f on the unit square and u = 0 on its edge (Lagaris, Likas & Fotiadis 1998). The trial
function u = x (1 - x) y (1 - y) N(x, y) fulfils the boundary whatever the network N is; the weights
follow from least squares on the equation. f is chosen so that u = sin(pi x) sin(pi y).
"""

import sys
import time
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize

from fastbp import graph

SIZES = (2, 16, 16, 1)
POINTS = 16  # along each side
SHAPES = [shape for k, m in pairwise(SIZES) for shape in ((k, m), (m,))]  # w, b of each layer


def solution(points):
    """The truth that the network never sees. points: (n, 2)."""
    return np.sin(np.pi * points).prod(axis=1)


def trial(points, parameters):
    """u (n,) as a graph."""
    y, layers = points, list(zip(parameters[::2], parameters[1::2], strict=True))
    for i, (w, b) in enumerate(layers):
        y = graph.dense(y, w, b, "tanh" if i < len(layers) - 1 else "identity")
    edge = points * (1 - points)
    return edge[:, 0] * edge[:, 1] * y[:, 0]


def laplacian(u, points):
    """u_xx + u_yy: second derivatives along the axes."""
    axes = (graph.broadcast(axis, points.shape) for axis in np.eye(2))
    return sum(graph.taylor(u, points, axis, 2)[2] for axis in axes)


def grid(count):
    """Points (count**2, 2) inside of the square."""
    side = (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


def main(iterations=1000, seed=0, picture=None):
    """Solve, and say how far u is from the solution; returns the largest error."""
    points, f = graph.variable("points", (None, 2)), graph.variable("f", (None,))
    parameters = [graph.variable(f"p{i}", shape) for i, shape in enumerate(SHAPES)]
    u = trial(points, parameters)
    loss = graph.mean((laplacian(u, points) - f) ** 2)
    start = time.perf_counter()
    step = graph.compile([loss, *graph.gradient(loss, parameters)], [points, f, *parameters])
    value = graph.compile(u, [points, *parameters])
    compiled = time.perf_counter() - start

    inside, rng = grid(POINTS), np.random.default_rng(seed)
    right = -2 * np.pi**2 * solution(inside)
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES])

    def split(flat):
        parts = np.split(flat, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, SHAPES, strict=True)]

    def objective(flat):
        total, *slopes = step(inside, right, *split(flat))
        return total, np.concatenate([slope.ravel() for slope in slopes])

    first = np.concatenate(
        [rng.normal(size=s).ravel() / np.sqrt(s[0]) if len(s) > 1 else np.zeros(s) for s in SHAPES]
    )
    start = time.perf_counter()
    found = minimize(
        objective, first, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "ftol": 0}
    )
    seconds = time.perf_counter() - start
    elsewhere = grid(37)  # between the points of the fit
    solved = value(elsewhere, *split(found.x))
    error = np.abs(solved - solution(elsewhere)).max()
    print(
        f"compiled in {compiled:.1f} s; {found.nfev} evaluations of loss and gradient in "
        f"{seconds:.1f} s: residual {np.sqrt(found.fun):.2g}, largest error of u {error:.2g}"
    )
    if picture is not None:
        draw(solved.reshape(37, 37), (solved - solution(elsewhere)).reshape(37, 37), picture)
    return error


def draw(solved, error, path):
    """Solution and error side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = zip(figure.subplots(1, 2), (solved, error), ("u", "error of u"), strict=True)
    for axes, values, title in panels:
        image = axes.imshow(values.T, origin="lower", extent=(0, 1, 0, 1))
        figure.colorbar(image, ax=axes)
        axes.set(title=title, xlabel="x", ylabel="y")
    figure.savefig(path, dpi=110)
    print(f"written {path}")


if __name__ == "__main__":
    main(picture=sys.argv[1] if len(sys.argv) > 1 else None)
