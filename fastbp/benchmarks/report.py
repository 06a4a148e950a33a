"""Results of `fastbp bench dense` as a table in the terminal, a JSON file, and two pictures."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from .dense import summary

OURS = "fastbp"


def table(results: dict[str, Any]) -> Table:
    """A row per shape and direction, losing ones included.

    Examples
    --------
    >>> from fastbp.benchmarks.report import table
    >>> row = {
    ...     "pass": "forward",
    ...     "shape": [1, 1, 1],
    ...     "flops": 2.0,
    ...     "peak": 4e9,
    ...     "seconds": {"fastbp": 1e-9, "NumPy": 2e-9, "NumPy products": 5e-10},
    ... }
    >>> table({"rows": [row], "dtype": "float32"}).row_count
    1
    """
    columns = Table(title=f"one dense layer, relu, {results['dtype']}")
    columns.add_column("n x k x m", no_wrap=True)
    columns.add_column("pass")
    for name in ("GF/s", "% of peak", "best other", "times faster", "bare products"):
        columns.add_column(name, justify="left" if name == "best other" else "right")
    for row in results["rows"]:
        figures = summary(row)
        columns.add_row(
            "x".join(map(str, row["shape"])),
            row["pass"],
            f"{figures['gflops']:.1f}",
            f"{100 * figures['of_peak']:.0f}",
            figures["best"],
            f"{figures['ratio']:.2f}",
            f"{figures['products']:.2f}",
        )
    return columns


def write_json(results: dict[str, Any], path: Path) -> None:
    """All seconds and figures, with where and when they were measured."""
    rows = [row | {"figures": summary(row)} for row in results["rows"]]
    path.write_text(json.dumps(results | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Speed of each contender with the peak as the top edge, and the roofline of our own rows.

    Raises
    ------
    ValueError
        If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(
            'pictures need matplotlib; install it with pip install "fastbp[bench]"'
        ) from None
    forward = [row for row in results["rows"] if row["pass"] == "forward"]
    backward = [row for row in results["rows"] if row["pass"] == "backward"]
    peak = max(row["peak"] for row in results["rows"]) / 1e9

    speed = Figure(figsize=(11, 7), layout="constrained")
    for axes, rows in zip(speed.subplots(2, 1), (forward, backward), strict=True):
        names = [" x ".join(map(str, row["shape"])) for row in rows]
        for contender in rows[0]["seconds"]:
            rates = [row["flops"] / row["seconds"][contender] / 1e9 for row in rows]
            bare = "products" in contender
            axes.plot(
                names, rates, "--" if bare else "-o", label=contender,
                linewidth=2.5 if contender == OURS else 1, alpha=0.5 if bare else 1,
            )  # fmt: skip
        axes.set(ylim=(0, peak), ylabel="GF/s (top: peak)", title=rows[0]["pass"])
        axes.tick_params(axis="x", rotation=40, labelsize=7)
        axes.legend(fontsize=7, ncols=3)

    roof = Figure(figsize=(7, 5), layout="constrained")
    axes = roof.subplots()
    itemsize = 4 if results["dtype"] == "float32" else 8
    rate = results["copy_bytes_per_second"]
    intensities = [2.0**i for i in range(-3, 11)]
    roofs = [min(peak * 1e9, rate * i) / 1e9 for i in intensities]
    axes.loglog(intensities, roofs, "k-", label="limit: copy rate, FMA peak")
    for rows, mark in ((forward, "o"), (backward, "s")):
        moved = [_bytes(row, itemsize) for row in rows]
        rates = [row["flops"] / row["seconds"][OURS] / 1e9 for row in rows]
        axes.loglog(
            [row["flops"] / b for row, b in zip(rows, moved, strict=True)], rates, mark,
            label=rows[0]["pass"],
        )  # fmt: skip
    axes.set(xlabel="operations per byte that must move", ylabel="GF/s", title="roofline")
    axes.legend()
    paths = [folder / "dense_speed.png", folder / "dense_roofline.png"]
    for figure, path in zip((speed, roof), paths, strict=True):
        figure.savefig(path, dpi=130)
    return paths


def _bytes(row: dict[str, Any], itemsize: int) -> int:
    """What a pass must at least read and write: every operand once."""
    n, k, m = row["shape"]
    if row["pass"] == "forward":
        return itemsize * (n * k + k * m + m + n * m)
    return itemsize * (2 * n * m + 2 * n * k + 2 * k * m + m)
