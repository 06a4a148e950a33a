"""Solve Burgers' equation with a network: a wave that steepens until it is almost a jump.

usage: python examples/burgers.py [PICTURE.png]

u_t + u u_x = (0.01 / pi) u_xx for -1 <= x <= 1 and 0 <= t <= 1, with u(x, 0) = -sin(pi x) and
u = 0 at both ends (Raissi, Perdikaris & Karniadakis 2019, "Physics-informed neural networks"). The
trial function u = -sin(pi x) + t (1 - x**2) N(x, t) fulfils the conditions whatever the network N
is. First Adam on new points in each step, then L-BFGS on many fixed ones. The exact solution is an
integral (Hopf 1950, Cole 1951).
"""

import sys
import time

import numpy as np
from scipy.optimize import minimize

import fastbp
from fastbp import graph

NU = 0.01 / np.pi


def solution(x, t):
    """Hopf and Cole's integral, by Gauss and Hermite's quadrature. x, t: equal shapes, t > 0."""
    nodes, weights = np.polynomial.hermite.hermgauss(100)
    shifted = x[..., None] - np.sqrt(4 * NU * t[..., None]) * nodes
    # exp(-cos(pi y) / (2 pi nu)) overflows nothing when its largest value, 1, is taken out.
    heat = weights * np.exp(-(np.cos(np.pi * shifted) + 1) / (2 * np.pi * NU))
    return -(np.sin(np.pi * shifted) * heat).sum(-1) / heat.sum(-1)


def trial(net, points):
    """u (n,), as a graph for nodes and as numbers for an array. points: (n, 2) of x and t."""
    symbolic = isinstance(points, graph.Node)
    y = graph.network(net, points) if symbolic else net.predict(points)
    x, t = points[:, 0], points[:, 1]
    start = -(graph if symbolic else np).sin(np.pi * x)
    return start + t * (1 - x * x) * y[:, 0]


def residual(u, points):
    """u_t + u u_x - nu u_xx."""
    along_x, along_t = (graph.broadcast(axis, points.shape) for axis in np.eye(2))
    _, u_x, u_xx = graph.taylor(u, points, along_x, 2)
    return graph.jvp(u, points, along_t) + u * u_x - NU * u_xx


def sample(rng, count):
    """Random points, half of them where the wave steepens."""
    points = rng.uniform((-1, 0), (1, 1), (count, 2))
    points[::2, 0] *= 0.15
    return points


def main(steps=3000, iterations=3000, count=2048, seed=0, picture=None):
    """Solve, and say how far u is from the solution; returns the relative error in the mean."""
    net = fastbp.Sequential(
        fastbp.Dense(2, 32, activation="tanh", dtype="float64", rng=seed),
        fastbp.Dense(32, 32, activation="tanh", dtype="float64", rng=seed + 1),
        fastbp.Dense(32, 32, activation="tanh", dtype="float64", rng=seed + 2),
        fastbp.Dense(32, 1, dtype="float64", rng=seed + 3),
    )
    points = graph.variable("points", (None, 2))
    start = time.perf_counter()
    loss = net.objective(graph.mean(residual(trial(net, points), points) ** 2), [points])
    compiled, start = time.perf_counter() - start, time.perf_counter()

    rng, adam = np.random.default_rng(seed), fastbp.Adam(0.003)
    for _ in range(steps):
        loss(sample(rng, count))
        net.update(adam)
    fixed = sample(rng, 4 * count)

    def value_and_gradient(parameters):
        net.parameters[:] = parameters
        return loss(fixed), net.gradients.copy()

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0, "gtol": 0, "maxcor": 50}
    found = minimize(
        value_and_gradient, net.parameters.copy(), jac=True, method="L-BFGS-B", options=options
    )
    net.parameters[:] = found.x
    seconds = time.perf_counter() - start

    x, t = np.meshgrid(np.linspace(-1, 1, 257), np.linspace(0.01, 1, 100), indexing="ij")
    solved = trial(net, np.stack([x.ravel(), t.ravel()], axis=1)).reshape(x.shape)
    exact = solution(x, t)
    error = np.linalg.norm(solved - exact) / np.linalg.norm(exact)
    print(
        f"compiled in {compiled:.1f} s; {steps} steps of Adam and {found.nfev} evaluations of "
        f"L-BFGS in {seconds:.1f} s: residual {np.sqrt(found.fun):.2g}, error of u {error:.2g} "
        f"in the mean, {np.abs(solved - exact).max():.2g} at most"
    )
    if picture is not None:
        draw(solved, solved - exact, picture)
    return error


def draw(solved, error, path):
    """Solution and error side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = zip(figure.subplots(1, 2), (solved, error), ("u", "error of u"), strict=True)
    for axes, values, title in panels:
        image = axes.imshow(values, origin="lower", extent=(0, 1, -1, 1), aspect="auto")
        figure.colorbar(image, ax=axes)
        axes.set(title=title, xlabel="t", ylabel="x")
    figure.savefig(path, dpi=110)
    print(f"written {path}")


if __name__ == "__main__":
    main(picture=sys.argv[1] if len(sys.argv) > 1 else None)
