"""A policy network learns to balance a pole on a cart, in one compiled loop.

usage: python examples/cart_pole.py

The cart and its equations are those of Barto, Sutton & Anderson (1983), the learning rule is
REINFORCE (Williams 1992): raise the log-probability of an action by how much better than usual the
rewards after it were. Simulation, policy and training step all run inside one @njit function.
"""

import time
from math import cos, sin

import numpy as np
from numba import njit

import fastbp

STEPS = 500  # that count as balanced
EPISODES = 10  # per training step
ROWS = STEPS * EPISODES


@njit
def move(state, push):
    """The cart 0.02 s later; state: position, velocity, angle, angular velocity."""
    x, v, angle, spin = state
    force, cart, pole, half = (10.0 if push == 1 else -10.0), 1.0, 0.1, 0.5
    total = cart + pole
    shove = (force + pole * half * spin**2 * sin(angle)) / total
    turn = (9.8 * sin(angle) - cos(angle) * shove) / (
        half * (4 / 3 - pole * cos(angle) ** 2 / total)
    )
    push_back = shove - pole * half * turn * cos(angle) / total
    state[0], state[1] = x + 0.02 * v, v + 0.02 * push_back
    state[2], state[3] = angle + 0.02 * spin, spin + 0.02 * turn
    return abs(state[0]) <= 2.4 and abs(state[2]) <= 0.2095  # 12 degrees


@njit
def train(predict, learn, space, rng, most):
    """Play and learn; returns the mean length of the episodes of each training step."""
    x, t = np.empty((ROWS, 4), np.float32), np.empty((ROWS, 2), np.float32)
    logits, lengths = np.empty((1, 2), np.float32), np.zeros(most)
    returns = np.empty(ROWS, np.float32)
    for iteration in range(most):
        rows = 0
        for _ in range(EPISODES):
            state, first, alive = rng.uniform(-0.05, 0.05, 4), rows, True
            while alive and rows - first < STEPS:
                x[rows] = state
                predict(space, x[rows : rows + 1], logits)
                push = rng.random() < 1 / (1 + np.exp(logits[0, 0] - logits[0, 1]))
                t[rows, 0], t[rows, 1] = 1 - push, push
                alive = move(state, 1 if push else 0)
                rows += 1
            ahead = np.float32(0)
            for row in range(rows - 1, first - 1, -1):
                ahead = 1 + np.float32(0.99) * ahead
                returns[row] = ahead
        lengths[iteration] = rows / EPISODES
        if lengths[iteration] >= 0.95 * STEPS:
            return lengths[: iteration + 1]
        better = (returns[:rows] - returns[:rows].mean()) / (returns[:rows].std() + 1e-6)
        for row in range(rows):  # the loss -sum(t log p): its gradient is better * (p - action)
            t[row] *= better[row]
        learn(space, x[:rows], t[:rows])
    return lengths


def main(seed=0, most=300):
    """Train and say how it went; returns the lengths of the episodes."""
    net = fastbp.Sequential(
        fastbp.Dense(4, 64, activation="tanh", rng=seed),
        fastbp.Dense(64, 2, rng=seed + 1),
    )
    space = net.workspace(ROWS, loss="softmax_cross_entropy", optimizer=fastbp.Adam(0.01))
    functions = net.njit_predict(), net.njit_step()
    rng = np.random.default_rng(seed)
    train(*functions, space, rng, 0)  # compiled
    start = time.perf_counter()
    lengths = train(*functions, space, rng, most)
    print(
        f"{len(lengths)} training steps in {time.perf_counter() - start:.1f} s: "
        f"episodes of {lengths[0]:.0f} steps became {lengths[-1]:.0f} of {STEPS}"
    )
    return lengths


if __name__ == "__main__":
    main()
