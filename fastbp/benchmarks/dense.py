"""One dense layer, forward and backward, beside its peers and the machine's limits."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import codes, reference
from .dense_contenders import ONE_THREAD, PACKAGES, Case, contenders, twin_passes
from .limits import Limits
from .measure import Contender, equal_threads, provenance, race

Shape = tuple[int, int, int]  # n, k, m: batch, inputs, outputs

# fmt: off
SELECTIONS: dict[str, list[Shape]] = {
    "large": [(512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (512, 1024, 1024),
              (128, 768, 3072), (128, 3072, 768)],
    "medium": [(128, 784, 512), (256, 256, 256), (200, 300, 100), (128, 256, 10)],
    "small": [(64, 64, 64), (32, 128, 128), (32, 784, 128)],
    "few": [(1, 256, 256), (1, 1024, 1024), (4, 512, 512), (8, 1024, 1024)],
    # Around tiles and blocks; rows of 4 KB, which share a cache set, and their neighbours.
    "odd": [*((size,) * 3 for size in (63, 64, 65, 128, 129, 1000, 1023, 1024)),
            (512, 1024, 1024), (512, 1000, 1000), (512, 1040, 1040)],
}
# fmt: on
SELECTIONS["main"] = [shape for name in list(SELECTIONS)[:4] for shape in SELECTIONS[name]]
SELECTIONS["all"] = list(dict.fromkeys(SELECTIONS["main"] + SELECTIONS["odd"]))

BATCHES: list[Shape] = [(2**i, 512, 512) for i in range(12)]  # of the picture over the batch
PASSES = {"forward": 1, "backward": 2, "both": 3}  # matrix products in each
FEW_ROWS = 16  # up to here a pass is a matter of memory: w is read, and dw written, for few rows


def shapes_of(selection: str) -> list[Shape]:
    """The shapes that a comma-separated selection names: names of `SELECTIONS`, or NxKxM.

    Raises
    ------
    ValueError
        For a name that is none, and for a size below 1.

    Examples
    --------
    >>> from fastbp.benchmarks.dense import shapes_of
    >>> shapes_of("small,1x20x30")
    [(64, 64, 64), (32, 128, 128), (32, 784, 128), (1, 20, 30)]
    """
    shapes: list[Shape] = []
    for name in selection.split(","):
        sizes = name.split("x")
        if name in SELECTIONS:
            shapes += SELECTIONS[name]
        elif len(sizes) == 3 and all(size.isdecimal() and int(size) for size in sizes):
            n, k, m = map(int, sizes)
            shapes.append((n, k, m))
        else:
            raise ValueError(
                f"--shapes: expected {', '.join(SELECTIONS)} or NxKxM such as 128x784x512, "
                f"separated by commas, got {name!r}"
            )
    return list(dict.fromkeys(shapes))


def operands(n: int, k: int, m: int, dtype: np.dtype[Any], activation: str = "relu") -> Case:
    """x, w, b, dy of one layer, and what its forward pass keeps for backward."""
    rng = np.random.default_rng(0)
    shapes = {"x": (n, k), "w": (k, m), "b": (m,), "dy": (n, m)}
    case: Case = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    case["w"] /= np.sqrt(k).astype(dtype)
    z = case["x"] @ case["w"] + case["b"]
    case["dy"][np.abs(z) < 1e-4] = 0  # next to a kink, rounding decides which slope is right
    y = z.copy()
    code = codes.ACTIVATIONS[activation]
    reference.activate(code, y.reshape(-1))
    return case | {"saved": z if code in codes.KEEPS_Z else y, "activation": activation}


def check(case: Case, candidates: dict[str, dict[str, Contender]]) -> None:
    """Raise unless all contenders that compute the whole layer agree with NumPy in float64."""
    exact = {
        name: value.astype(np.float64) if isinstance(value, np.ndarray) else value
        for name, value in case.items()
    }
    wanted = {direction: call() for direction, call in twin_passes(reference, exact).items()}
    for name, passes in candidates.items():
        if "products" in name:
            continue
        for direction, one in passes.items():
            results: Any = one.call()
            for got, expected in zip(results, wanted[direction], strict=True):
                apart = np.max(np.abs(np.asarray(got) - expected), initial=0.0)
                limit = 1e3 * np.finfo(case["x"].dtype).eps * max(1.0, np.max(np.abs(expected)))
                if not apart <= limit:
                    raise AssertionError(
                        f"{name}, {direction}, is off by {apart:g}; nothing was timed"
                    )


def run(
    selection: str,
    dtype: str,
    activation: str,
    threads: int,
    rounds: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """All rows and the machine's limits, as they are written to JSON.

    Rows have a `group`: those of the table, and those of the picture over the batch, for which
    nothing waits for torch.compile.
    """
    real = np.dtype(dtype)
    plan: list[tuple[str, Shape, list[str], tuple[str, ...]]] = [
        ("table", shape, list(PASSES), ()) for shape in shapes_of(selection)
    ]
    if selection == "main":
        plan += [("sweep", shape, ["forward", "backward"], ("torch.compile",)) for shape in BATCHES]
    rows = []
    with equal_threads(threads) as settling:
        limits = Limits(real, threads)
        for done, (group, shape, directions, without) in enumerate(plan, 1):
            report(f"{done} of {len(plan)}: {' x '.join(map(str, shape))}: compiling, checking")
            case = operands(*shape, real, activation)
            candidates = contenders(case, threads, without)
            check(case, candidates)
            for direction in directions:
                report(f"{done} of {len(plan)}: {' x '.join(map(str, shape))}, {direction}")
                each = {name: passes[direction] for name, passes in candidates.items()}
                times = race(each | limits.contenders, rounds, settling=settling)
                rows.append(
                    {
                        "group": group,
                        "pass": direction,
                        "shape": list(shape),
                        "flops": float(2 * PASSES[direction] * np.prod(shape)),
                        "bytes": must_move(shape, direction, real.itemsize),
                        "limits": limits.take_rates(times),
                    }
                    | times
                )
        origin = provenance(PACKAGES)
    return {
        "benchmark": "dense",
        "dtype": dtype,
        "activation": activation,
        "selection": selection,
        "rounds": rounds,
        "provenance": origin,
        "rows": rows,
    }


def must_move(shape: Shape, direction: str, itemsize: int) -> int:
    """Bytes that a pass reads and writes at least: every operand once, b and db left out.

    Examples
    --------
    >>> from fastbp.benchmarks.dense import must_move
    >>> must_move((1, 1024, 1024), "forward", 4)  # w, and 1024 elements each of x and y
    4202496
    """
    n, k, m = shape
    x, w, y = n * k, k * m, n * m
    elements = {
        "forward": x + w + y,
        "backward": (2 * y + x + w) + (w + x),  # dy, saved, x, w; dw, dx
        "both": (x + w + y) + (y + w + x),  # x, w, dy; y, dw, dx
    }
    return itemsize * elements[direction]


def is_whole(name: str) -> bool:
    """Whether a contender of another package computes the whole layer."""
    return not name.startswith("fastbp") and "products" not in name


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of a row.

    Returns
    -------
    dict
        `gflops`; `of_peak`, the share of the multiply-add peak of all threads; `of_one_peak`, what
        one thread reaches of its own; `of_copy`, the share of the copy rate, None unless the batch
        has few rows; `best`, the fastest other contender; `ratio`, its time over ours; `products`,
        the time of the fastest bare products over ours.
    """
    seconds, limits = row["seconds"], row["limits"]
    own = seconds["fastbp"]
    others = {name: s for name, s in seconds.items() if is_whole(name)}
    best = min(others, key=others.__getitem__)
    few = row["shape"][0] <= FEW_ROWS
    return {
        "gflops": row["flops"] / own / 1e9,
        "of_peak": row["flops"] / own / limits["peak"],
        "of_one_peak": row["flops"] / seconds.get(ONE_THREAD, own) / limits["peak, 1 thread"],
        "of_copy": row["bytes"] / own / limits["copy"] if few else None,
        "best": best,
        "ratio": others[best] / own,
        "products": min(s for name, s in seconds.items() if "products" in name) / own,
    }
