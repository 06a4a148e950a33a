"""Measure a step that keeps all activations beside one that computes some again (recompute=True).

    python bench/recompute.py              # some seconds; prints a table and writes nothing

Both take turns; what is shown are medians of `train_step`, in float32. Bytes are those of
`Sequential.memory`: the activations of a panel of rows alone, and all scratch of a step.
"""

import sys
from pathlib import Path

import numpy as np

# This folder would stand before the repository's root, which has fastbp, installed or not.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import fastbp  # noqa: E402
from fastbp.benchmarks.measure import Contender, race  # noqa: E402

# width, layers, rows, activation
NETS = [
    (64, 32, 512, "relu"),
    (64, 32, 512, "gelu"),
    (64, 100, 512, "relu"),
    (1024, 16, 512, "relu"),
]
ROUNDS, BUDGET = 25, 0.03  # turns of each, seconds of one


def measured(width, layers, rows, activation):
    """(seconds of a step, bytes of activations, bytes of all scratch), each kept and recomputed."""
    rng = np.random.default_rng(0)
    net = fastbp.Sequential(
        *(fastbp.Dense(width, width, activation=activation, rng=rng) for _ in range(layers))
    )
    x, optimizer = rng.standard_normal((rows, width), np.float32), fastbp.SGD(1e-9)

    def step(recompute):
        return lambda: net.train_step(x, x, "squared_error", optimizer, recompute=recompute)

    times = race({r: Contender(step(r)) for r in (False, True)}, ROUNDS, BUDGET)["seconds"]
    told = net.memory(rows)
    activations = [4 * min(rows, 512) * plan.kept for plan in net.plans]
    return list(times.values()), activations, (told.keeping, told.recomputing)


def main():
    print(
        "| net | rows | step, ms | recomputed, ms | ratio | activations, MB | recomputed, MB |",
        end="",
    )
    print(" all scratch, MB | recomputed, MB |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for net in NETS:
        (kept, again), activations, scratch = measured(*net)
        width, layers, rows, activation = net
        sizes = " | ".join(f"{size / 2**20:.1f}" for size in (*activations, *scratch))
        print(
            f"| {layers} x {width}, {activation} | {rows} | {kept * 1e3:.2f} | {again * 1e3:.2f} "
            f"| {again / kept:.2f} | {sizes} |"
        )


if __name__ == "__main__":
    main()
