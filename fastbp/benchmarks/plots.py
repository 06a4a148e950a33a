"""Pictures of the benchmarks. The top edge of a picture of speed is the machine's peak."""

from pathlib import Path
from typing import Any

from .report import contenders_of, describe

OURS = "fastbp"
Row = dict[str, Any]


def plot(results: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Write all pictures that the rows allow; their names begin with `name`.

    Raises
    ------
    ValueError
        If matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ValueError(
            'pictures need matplotlib; install it with pip install "fastbp[bench]"'
        ) from None
    groups: dict[str, list[Row]] = {}
    for row in results["rows"]:
        groups.setdefault(row["group"], []).append(row)
    pictures = {}
    if results["benchmark"] == "dense":
        pictures = {"shapes": _shapes(groups["table"]), "roofline": _roofline(groups["table"])}
        if "sweep" in groups:
            pictures["batch"] = _batches(groups["sweep"])
    elif results["benchmark"] == "graph":
        pictures[""] = _edges(groups["edges"])
    elif results["benchmark"] == "pinn":
        labels = [f"{row['net']}\n{row['batch']}, {row['dtype']}" for row in groups["table"]]
        pictures[""] = _nets(groups["table"], labels)
    elif "table" in groups:
        rows = groups["table"]
        labels = [f"{row['net']}\n{describe(row)}, batch {row['batch']}" for row in rows]
        pictures[""] = _nets(rows, labels)
    else:
        pictures[""] = _growth(groups)
    paths = []
    for what, figure in pictures.items():
        paths.append(folder / f"{'-'.join(filter(None, (name, what)))}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _line_style(name: str) -> dict[str, Any]:
    bare = "products" in name
    return {
        "label": name,
        "linestyle": "--" if bare else "-",
        "marker": "" if bare else "o",
        "markersize": 4,
        "linewidth": 2.5 if name == OURS else 1,
        "zorder": 3 if name == OURS else 2,
    }


def _by_pass(rows: list[Row]) -> dict[str, list[Row]]:
    passes: dict[str, list[Row]] = {}
    for row in rows:
        passes.setdefault(row["pass"], []).append(row)
    return passes


def _peak(rows: list[Row]) -> float:
    """GF/s of all threads: the largest, as a neighbour can only lower it."""
    return max(row["limits"]["peak"] for row in rows) / 1e9


def _speed(axes: Any, rows: list[Row], places: list[Any], peak: float) -> None:
    """A line per contender, GF/s below the peak."""
    for name in rows[0]["seconds"]:
        rates = [row["flops"] / row["seconds"][name] / 1e9 for row in rows]
        axes.plot(places, rates, **_line_style(name))
    axes.set(ylim=(0, peak), ylabel="GF/s (top edge: peak)", title=rows[0]["pass"])
    axes.grid(alpha=0.3)


def _shapes(rows: list[Row]) -> Any:
    """Speed for each shape of the table, one panel per pass."""
    passes = _by_pass(rows)
    figure = _figure(11, 3.2 * len(passes) + 0.8)
    panels = figure.subplots(len(passes), 1, sharex=True, squeeze=False)[:, 0]
    for axes, own in zip(panels, passes.values(), strict=True):
        _speed(axes, own, ["x".join(map(str, row["shape"])) for row in own], _peak(rows))
        axes.set_xmargin(0.02)
    panels[0].legend(fontsize=7, ncols=3)
    panels[-1].tick_params(axis="x", rotation=50, labelsize=8)
    return figure


def _batches(rows: list[Row]) -> Any:
    """Speed against the rows of the batch, for one k x m."""
    passes = _by_pass(rows)
    figure = _figure(5.5 * len(passes), 4.5)
    panels = figure.subplots(1, len(passes), squeeze=False)[0]
    for axes, own in zip(panels, passes.values(), strict=True):
        _speed(axes, own, [row["shape"][0] for row in own], _peak(rows))
        axes.set_xscale("log", base=2)
        axes.set_xlabel("rows of the batch")
    _, k, m = rows[0]["shape"]
    figure.suptitle(f"a layer of {k} x {m}")
    panels[0].legend(fontsize=7)
    return figure


def _roofline(rows: list[Row]) -> Any:
    """Our speed against operations per byte, below the two limits of the machine."""
    figure = _figure(7, 5)
    axes = figure.subplots()
    peak = _peak(rows)
    copy = max(row["limits"]["copy"] for row in rows) / 1e9
    intensities = sorted([0.125, peak / copy, 1024.0])
    axes.loglog(
        intensities,
        [min(peak, copy * i) for i in intensities],
        "k-",
        label=f"limit: copying {copy:.0f} GB/s, peak {peak:.0f} GF/s",
    )
    for (name, own), mark in zip(_by_pass(rows).items(), "osv", strict=False):
        places = [row["flops"] / row["bytes"] for row in own]
        rates = [row["flops"] / row["seconds"][OURS] / 1e9 for row in own]
        axes.loglog(places, rates, mark, label=name, alpha=0.8)
    axes.set(
        xlabel="operations per byte that must move",
        ylabel="GF/s",
        title="fastbp below the machine's limits (above the slope: operands in the caches)",
    )
    axes.title.set_size(10)
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def _nets(rows: list[Row], labels: list[str]) -> Any:
    """Time of every contender over ours, a group of bars per net."""
    names = [name for name in contenders_of(rows) if name != OURS]
    figure = _figure(11, 5)
    axes = figure.subplots()
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        measured = [(at, row) for at, row in enumerate(rows) if name in row["seconds"]]
        ratios = [row["seconds"][name] / row["seconds"][OURS] for _, row in measured]
        axes.bar([at + (i + 0.5) * width - 0.4 for at, _ in measured], ratios, width, label=name)
    axes.set_xticks(range(len(rows)), labels, rotation=50, ha="right", fontsize=7)
    axes.set_yscale("log")
    axes.axhline(1, color="k")
    axes.set(ylabel="time over that of fastbp (below 1: faster)", title="one training step")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    return figure


def _growth(groups: dict[str, list[Row]]) -> Any:
    """Time of a step against depth, width and batch, with the time that the peak allows."""
    figure = _figure(4.5 * len(groups), 4.5)
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (what, rows) in zip(panels, groups.items(), strict=True):
        values = [row["value"] for row in rows]
        for name in rows[0]["seconds"]:
            times = [1e6 * row["seconds"][name] for row in rows]
            axes.loglog(values, times, **_line_style(name))
        limit = [1e6 * row["flops"] / row["peak"] for row in rows]
        axes.loglog(values, limit, "k:", label="multiply-add peak")
        axes.set_xscale("log", base=2)
        axes.set(xlabel=what, ylabel="microseconds a step", title=_caption(what, rows))
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    return figure


def _edges(rows: list[Row]) -> Any:
    """Time against the edges of a graph, with a straight line to compare."""
    figure = _figure(6, 4.5)
    axes = figure.subplots()
    edges = [row["value"] for row in rows]
    for name in rows[0]["seconds"]:
        axes.loglog(edges, [1e6 * row["seconds"][name] for row in rows], "o-", label=name)
    slope = 1e6 * rows[-1]["seconds"]["back-propagation"] / edges[-1]
    axes.loglog(edges, [slope * count for count in edges], "k:", label="proportional to the edges")
    axes.set(xlabel="edges", ylabel="microseconds", title="derivatives of graphs of numbers")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def _caption(what: str, rows: list[Row]) -> str:
    first, last = rows[0], rows[-1]
    if what == "batch":
        return str(first["net"])
    return f"{first['net']} ... {last['net']}, batch {first['batch']}"
