"""Results of the benchmarks as tables in the terminal and JSON files."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from . import dense, graph, pinn, step

Row = dict[str, Any]
SUMMARIES: dict[str, Callable[[Row], Row]] = {
    "dense": dense.summary,
    "step": step.summary,
    "graph": graph.summary,
    "pinn": pinn.summary,
}


def write_json(results: dict[str, Any], path: Path) -> None:
    """All seconds and figures, with where and when they were measured."""
    summary = SUMMARIES[results["benchmark"]]
    rows = [row | {"figures": summary(row)} for row in results["rows"]]
    path.write_text(json.dumps(results | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


def table(results: dict[str, Any]) -> Table:
    """A row per measurement, losing ones included.

    Examples
    --------
    >>> from fastbp.benchmarks.report import table
    >>> row = {
    ...     "group": "table",
    ...     "net": "2-1",
    ...     "batch": 1,
    ...     "activation": "relu",
    ...     "loss": "half_squared_error",
    ...     "flops": 8.0,
    ...     "peak": 4e9,
    ...     "seconds": {"fastbp": 1e-6, "NumPy": 2e-6},
    ... }
    >>> origin = {"threads": 1}
    >>> table({"benchmark": "step", "rows": [row], "provenance": origin}).row_count
    1
    """
    tables = {
        "dense": _dense_table,
        "step": _step_table,
        "graph": _graph_table,
        "pinn": _pinn_table,
    }
    return tables[results["benchmark"]](results)


def _table(title: str, names: Iterable[str], left: int) -> Table:
    """A table whose first `left` columns are words, the others numbers."""
    columns = Table(title=title)
    for i, name in enumerate(names):
        columns.add_column(name, justify="left" if i < left else "right", no_wrap=i < left)
    return columns


def _dense_table(results: dict[str, Any]) -> Table:
    title = f"one dense layer, {results['activation']}, {results['dtype']}, {_threads(results)}"
    names = ["n x k x m", "pass", "best other", "times faster", "GF/s", "% of peak", "% of copy"]
    columns = _table(title, [*names, "1 thread: % of its peak", "bare products"], 3)
    for row in results["rows"]:
        figures = dense.summary(row)
        columns.add_row(
            "x".join(map(str, row["shape"])),
            row["pass"],
            figures["best"],
            f"{figures['ratio']:.2f}",
            f"{figures['gflops']:.1f}",
            percent(figures["of_peak"]),
            percent(figures["of_copy"]),
            percent(figures["of_one_peak"]),
            f"{figures['products']:.2f}",
            end_section=row["pass"] == "both",
        )
    return columns


def _step_table(results: dict[str, Any]) -> Table:
    names = contenders_of(results["rows"])
    columns = _table(
        f"one training step, float32, microseconds, {_threads(results)}",
        ["net", "loss", "batch", *names, "times faster", "% of peak", "fit: times", "%"],
        2,
    )
    for row in results["rows"]:
        figures = step.summary(row)
        columns.add_row(
            row["net"],
            describe(row),
            str(row["batch"]),
            *(microseconds(row["seconds"].get(name)) for name in names),
            *(text for one in (figures, figures.get("fit", {})) for text in shares(one)),
        )
    return columns


def shares(figures: Row) -> tuple[str, str]:
    """How many times faster, and percent of the peak; nothing where it was not measured."""
    ratio = figures.get("ratio")
    return "" if ratio is None else f"{ratio:.2f}", percent(figures.get("of_peak"))


def _graph_table(results: dict[str, Any]) -> Table:
    timed = contenders_of(results["rows"])
    slopes = ("back-propagation", "gradient as a graph")
    columns = _table(
        "derivatives of graphs of numbers, microseconds",
        ["graph", "nodes", "edges", *timed, *(f"{name}: us an edge" for name in slopes)],
        1,
    )
    for row in results["rows"]:
        figures = graph.summary(row)
        columns.add_row(
            row["net"],
            str(row["nodes"]),
            str(row["value"]),
            *(microseconds(row["seconds"][name]) for name in timed),
            *(f"{figures[name]:.2f}" for name in slopes),
        )
    return columns


def _pinn_table(results: dict[str, Any]) -> Table:
    names = contenders_of(results["rows"])
    columns = _table(
        f"a step with u_xx + u_yy in the loss, microseconds, {_threads(results)}",
        ["net", "dtype", "points", *names, "% of peak", "times faster", "than by hand", "at peak"],
        2,
    )
    for row in results["rows"]:
        figures = pinn.summary(row)
        ratios = (figures.get(name) for name in ("ratio", "ratio by hand", "bound by hand"))
        columns.add_row(
            row["net"],
            row["dtype"],
            str(row["batch"]),
            *(microseconds(row["seconds"].get(name)) for name in names),
            percent(figures["of_peak"]),
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    return columns


LOSS_NAMES = {
    "softmax_cross_entropy": "softmax",
    "binary_cross_entropy": "logistic",
    "half_squared_error": "squares",
}


def describe(row: Row) -> str:
    """Activation and loss of a net, in two words."""
    return f"{row['activation']}, {LOSS_NAMES[row['loss']]}"


def contenders_of(rows: list[Row]) -> list[str]:
    """Names of all contenders of some rows, in the order of the first that has most."""
    most = max(len(row["seconds"]) for row in rows)
    return next(list(row["seconds"]) for row in rows if len(row["seconds"]) == most)


def microseconds(seconds: float | None) -> str:
    """Seconds as microseconds in three digits, or a dash for None.

    Examples
    --------
    >>> from fastbp.benchmarks.report import microseconds
    >>> microseconds(4.9012e-5), microseconds(0.0934971), microseconds(None)
    ('49.0', '93,497', '-')
    """
    if seconds is None:
        return "-"
    value = 1e6 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def percent(share: float | None) -> str:
    """A share in whole percent, with one decimal below ten; nothing for None."""
    if share is None:
        return ""
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.1f}"


def lost(rows: list[Row], label: Callable[[Row], str]) -> list[str]:
    """The rows in which another contender is faster, each with its ratio and its winner."""
    entries = [(label(row), row["figures"]) for row in rows]
    return [f"{name} ({f['ratio']:.2f}, {f['best']})" for name, f in entries if f["ratio"] < 1]


def missing(results: dict[str, Any]) -> str:
    """A sentence about the packages that were not installed, or nothing."""
    names = results["provenance"]["missing"]
    return f"Not installed for this run: {', '.join(names)}." if names else ""


def _threads(results: dict[str, Any]) -> str:
    count = results["provenance"]["threads"]
    return f"{count} thread{'s' * (count > 1)}"
