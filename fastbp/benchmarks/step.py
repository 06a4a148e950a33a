"""One training step of whole networks: forward, loss, backward, gradient descent."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .limits import Limits
from .measure import Contender, equal_threads, provenance, race
from .step_contenders import (
    CONTENDERS,
    PACKAGES,
    TOGETHER,
    Net,
    NumPyInPlace,
    Problem,
    contenders,
    problem,
)

LOGISTIC, SQUARES = "binary_cross_entropy", "half_squared_error"
NETS = [
    Net((16, 64, 64, 4), 1),
    Net((4, 64, 64, 2), 64),
    Net((24, 8, 2), 200, "tanh"),
    Net((4, 32, 16, 4), 10_000, "tanh"),
    Net((784, 128, 10), 32),
    Net((784, 128, 10), 128),
    Net((784, 512, 512, 10), 128),
    Net((256, 256, 256, 256, 10), 256),
    Net((13, 512, 256, 128), 2048, loss=SQUARES),
    Net((479, 1024, 1024, 512, 256, 1), 2048, loss=LOGISTIC),
    Net((1024, 1024, 1024, 1024), 512, loss=SQUARES),
]
# How cost grows: by the name of what grows, a net for each value.
GROWTH = {
    "depth": {d: Net((128,) * d + (10,), 128) for d in (1, 2, 4, 8, 16)},
    "width": {w: Net((w, w, w, 10), 128) for w in (8, 16, 32, 64, 128, 256, 512, 1024)},
    "batch": {n: Net((256, 256, 256, 10), n) for n in (1, 4, 16, 64, 256, 1024, 4096)},
}
# The others would take too long: torch.compile needs ten seconds a net to start.
GROWTH_CONTENDERS = ("fastbp", "NumPy, in place", "PyTorch", "JAX", *TOGETHER)
STEPS = 3  # that are compared
EPOCH = 1e9  # operations of the steps that are timed in one call, about
FEWEST, MOST = 10, 2000  # of these steps: an epoch has some work of its own
Plan = list[tuple[str, int, Net, tuple[str, ...]]]


def plan_of(selection: str) -> Plan:
    """Rows of a selection: group, what the net's size is there, net, contenders.

    A selection is `nets`, `growth`, or networks as SIZES@BATCH, separated by commas.

    Raises
    ------
    ValueError
        For what is none of them.

    Examples
    --------
    >>> from fastbp.benchmarks.step import plan_of
    >>> [(group, str(net)) for group, _, net, _ in plan_of("784-128-10@32,4-2@1")]
    [('table', '784-128-10'), ('table', '4-2')]
    """
    if selection == "growth":
        return [
            (what, value, net, GROWTH_CONTENDERS)
            for what, nets in GROWTH.items()
            for value, net in nets.items()
        ]
    nets = NETS if selection == "nets" else list(_nets(selection))
    return [("table", net.batch, net, (*CONTENDERS, *TOGETHER)) for net in nets]


def _nets(selection: str) -> Iterator[Net]:
    for text in selection.split(","):
        sizes, _, batch = text.partition("@")
        numbers = [*sizes.split("-"), batch]
        if len(numbers) < 3 or not all(n.isdecimal() and int(n) for n in numbers):
            raise ValueError(
                "--shapes: expected nets, growth or SIZES@BATCH such as 784-128-10@32, separated "
                f"by commas, got {text!r}"
            )
        *layers, rows = map(int, numbers)
        yield Net(tuple(layers), rows)


def check(start: Problem, candidates: dict[str, Any]) -> None:
    """Raise unless all contenders move the parameters as NumPy does in float64."""
    exact = NumPyInPlace(start.in_float64())
    for candidate in [exact, *candidates.values()]:
        for _ in range(0, STEPS, candidate.steps):
            candidate()
    before = start.in_float64().parameters
    moved = [after - b for after, b in zip(exact.parameters(), before, strict=True)]
    eps = np.finfo(start.x.dtype).eps
    for name, candidate in candidates.items():
        for got, b, wanted in zip(candidate.parameters(), before, moved, strict=True):
            apart = np.max(np.abs(got - b - wanted))
            # Rounded once per step; the gradient may miss a hundredth at the kinks of relu.
            limit = 1e-2 * np.max(np.abs(wanted)) + 2 * STEPS * eps * np.max(np.abs(b))
            if not apart <= limit:
                raise AssertionError(f"{name}, {start.net}, is off by {apart:g}; nothing was timed")


def run(selection: str, threads: int, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """All rows, as they are written to JSON, in float32."""
    plan, rows = plan_of(selection), []
    with equal_threads(threads) as settling:
        limits = Limits(np.dtype(np.float32), threads)
        peak = {"peak": limits.contenders["peak"]}
        for done, (group, value, net, names) in enumerate(plan, 1):
            label = f"{done} of {len(plan)}: {net}, batch {net.batch}"
            report(f"{label}: compiling, checking")
            start = problem(net)
            candidates = contenders(start, names, STEPS)
            check(start, candidates)
            epoch = max(FEWEST, min(round(EPOCH / net.flops), MOST))
            candidates |= contenders(start, [name for name in names if name in TOGETHER], epoch)
            report(label)
            each = {name: Contender(one, times=one.steps) for name, one in candidates.items()}
            times = race(each | peak, rounds, settling=settling)
            del times["quartiles"]["peak"]
            rows.append(
                {
                    "group": group,
                    "value": value,
                    "net": str(net),
                    "batch": net.batch,
                    "activation": net.activation,
                    "loss": net.loss,
                    "flops": net.flops,
                    "peak": limits.amounts["peak"] / times["seconds"].pop("peak"),
                }
                | times
            )
        origin = provenance(PACKAGES)
    return {
        "benchmark": "step",
        "dtype": "float32",
        "selection": selection,
        "rounds": rounds,
        "provenance": origin,
        "rows": rows,
    }


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of a row, of single steps and of those in one call of `fit`.

    `of_peak`: share of the multiply-add peak, `best`: the fastest other, `ratio`: its time over
    ours. Those of `fit` are compared with everything.
    """
    seconds = row["seconds"]
    others = {name: s for name, s in seconds.items() if not name.startswith("fastbp")}
    alone = {name: s for name, s in others.items() if name not in TOGETHER}
    result = figures(row, seconds["fastbp"], alone)
    if "fastbp, fit" in seconds:
        result["fit"] = figures(row, seconds["fastbp, fit"], others)
    return result


def figures(row: dict[str, Any], own: float, others: dict[str, float]) -> dict[str, Any]:
    """Share of the peak, best other and ratio of one time."""
    best = min(others, key=others.__getitem__)
    return {"of_peak": row["flops"] / own / row["peak"], "best": best, "ratio": others[best] / own}
