"""Solve Poisson's equation with a network, by a loss that contains its second derivatives.

usage: python examples/poisson.py [PICTURE.png]

u_xx + u_yy = f on the unit square and u = 0 on its edge (Lagaris, Likas & Fotiadis 1998). The trial
function u = x (1 - x) y (1 - y) N(x, y) fulfils the boundary whatever the network N is; the weights
follow from least squares on the equation. f is chosen so that u = sin(pi x) sin(pi y).
"""

import sys
import time

import numpy as np
from scipy.optimize import minimize

import fastbp
from fastbp import graph

POINTS = 16  # along each side


def solution(points):
    """The truth that the network never sees. points: (n, 2)."""
    return np.sin(np.pi * points).prod(axis=1)


def trial(net, points):
    """u (n,), as a graph for nodes and as numbers for an array."""
    y = graph.network(net, points) if isinstance(points, graph.Node) else net.predict(points)
    edge = points * (1 - points)
    return edge[:, 0] * edge[:, 1] * y[:, 0]


def grid(count):
    """Points (count**2, 2) inside of the square."""
    side = (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


def main(iterations=1000, seed=0, picture=None):
    """Solve, and say how far u is from the solution; returns the largest error."""
    net = fastbp.Sequential(
        fastbp.Dense(2, 16, activation="tanh", dtype="float64", rng=seed),
        fastbp.Dense(16, 16, activation="tanh", dtype="float64", rng=seed + 1),
        fastbp.Dense(16, 1, dtype="float64", rng=seed + 2),
    )
    points, f = graph.variable("points", (None, 2)), graph.variable("f", (None,))
    residual = graph.laplacian(trial(net, points), points) - f
    start = time.perf_counter()
    loss = net.objective(graph.mean(residual**2), [points, f])
    compiled = time.perf_counter() - start

    inside = grid(POINTS)
    right = -2 * np.pi**2 * solution(inside)

    def value_and_gradient(parameters):
        net.parameters[:] = parameters
        return loss(inside, right), net.gradients.copy()

    start, options = time.perf_counter(), {"maxiter": iterations, "ftol": 0}
    found = minimize(
        value_and_gradient, net.parameters.copy(), jac=True, method="L-BFGS-B", options=options
    )
    seconds = time.perf_counter() - start
    net.parameters[:] = found.x
    elsewhere = grid(37)  # between the points of the fit
    solved = trial(net, elsewhere)
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
