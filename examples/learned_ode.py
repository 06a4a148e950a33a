"""Learn the right-hand side of an ODE from a trajectory, then solve the ODE with the network in it.

usage: python examples/learned_ode.py

Predators and prey (Lotka 1925, Volterra 1926) are observed at intervals; a network learns
y -> dy/dt from central differences, and a Runge-Kutta method integrates the network. Learning and
integrating are one @njit function.
"""

import time

import numpy as np
from numba import njit

import fastbp

DT = 0.02
POINTS = 1500


@njit
def lotka_volterra(y, dy):
    """The truth that the network never sees."""
    dy[0, 0] = y[0, 0] - 0.5 * y[0, 0] * y[0, 1]
    dy[0, 1] = 0.3 * y[0, 0] * y[0, 1] - 0.8 * y[0, 1]


@njit
def observe():
    """The trajectory (POINTS, 2), by Runge and Kutta's method of fourth order."""
    y, path = np.array([[1.0, 1.0]]), np.empty((POINTS, 2))
    a, b, c, d = np.empty((1, 2)), np.empty((1, 2)), np.empty((1, 2)), np.empty((1, 2))
    for i in range(POINTS):
        path[i] = y[0]
        lotka_volterra(y, a)
        lotka_volterra(y + DT / 2 * a, b)
        lotka_volterra(y + DT / 2 * b, c)
        lotka_volterra(y + DT * c, d)
        y += DT / 6 * (a + 2 * b + 2 * c + d)
    return path


@njit
def learn_and_solve(predict, step, space, path, steps):
    """Train on the observed path, then integrate the network from its first point."""
    x = np.ascontiguousarray(path[1:-1])
    slopes = (path[2:] - path[:-2]) / (2 * DT)
    for _ in range(steps):
        loss = step(space, x, slopes)

    y, solved = path[:1].copy(), np.empty_like(path)
    a, b, c, d = np.empty((1, 2)), np.empty((1, 2)), np.empty((1, 2)), np.empty((1, 2))
    for i in range(len(path)):
        solved[i] = y[0]
        predict(space, y, a)
        predict(space, y + DT / 2 * a, b)
        predict(space, y + DT / 2 * b, c)
        predict(space, y + DT * c, d)
        y += DT / 6 * (a + 2 * b + 2 * c + d)
    return loss, solved


def main(steps=6000, seed=0):
    """Learn, solve, and say how far the solution is from the truth; returns the largest error."""
    net = fastbp.Sequential(
        fastbp.Dense(2, 32, activation="tanh", dtype="float64", rng=seed),
        fastbp.Dense(32, 32, activation="tanh", dtype="float64", rng=seed + 1),
        fastbp.Dense(32, 2, dtype="float64", rng=seed + 2),
    )
    path = observe()
    space = net.workspace(POINTS, loss="squared_error", optimizer=fastbp.Adam(0.003))
    functions = net.njit_predict(), net.njit_step()
    learn_and_solve(*functions, space, path, 1)  # compiled
    start = time.perf_counter()
    loss, solved = learn_and_solve(*functions, space, path, steps)
    error = np.abs(solved - path).max()
    print(
        f"{steps} training steps and {4 * POINTS} evaluations in "
        f"{time.perf_counter() - start:.1f} s: loss {loss:.2g}, largest error of the solution "
        f"{error:.3f} (populations up to {path.max():.1f})"
    )
    return error


if __name__ == "__main__":
    main()
