"""Write the tables of speed into README.md and docs/, from what is in bench/results.

usage: python bench/table.py [FOLDER [DOCUMENT...]]

Each pair of markers in a document holds the table of one benchmark; a table whose results are not
there stays as it is.
"""

import itertools
import json
import sys
import textwrap
from pathlib import Path

from fastbp.benchmarks.dense import SELECTIONS, is_whole
from fastbp.benchmarks.report import (
    contenders_of,
    describe,
    lost,
    microseconds,
    missing,
    percent,
    shares,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
DOCUMENTS = ROOT / "README.md", ROOT / "docs" / "cpu.md", ROOT / "docs" / "graph.md"


def main(folder=RESULTS, *documents):
    """Replace what stands between markers for which there are results."""
    for document in map(Path, documents or DOCUMENTS):
        text = document.read_text(encoding="utf-8")
        found = [table for table in TABLES if f"<!-- bench {table}:" in text]
        if not found:
            raise SystemExit(f"{document.name}: expected one of {', '.join(TABLES)} in markers")
        for table in found:
            name, lines = TABLES[table]
            path = Path(folder) / f"{name}.json"
            if path.exists():
                text = between(text, table, "\n".join(lines(load(path), Path(folder))))
                print(f"{document.name}: the table {table} holds the figures of {path.name}")
            else:
                print(f"{document.name}: no {path.name}, the table {table} stays as it is")
        document.write_text(text, encoding="utf-8")


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def between(text, name, content):
    """The text with new content between the two markers of a name."""
    begin, end = f"<!-- bench {name}:begin -->", f"<!-- bench {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"expected one {begin} and one {end}")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def table_of_layers(results, folder):
    """A row per shape, the passes side by side: share of the peak, and times faster than others."""
    rows = [row for row in results["rows"] if row["group"] == "table"]
    shapes = {}
    for row in rows:
        shapes.setdefault(tuple(row["shape"]), {})[row["pass"]] = row["figures"]
    passes = ("forward", "backward", "both")
    lines = [
        f"| n x k x m | {' | '.join(f'{name}, % of peak | faster' for name in passes)} |",
        "|---|" + "--:|--:|" * len(passes),
    ]
    for shape, figures in shapes.items():
        cells = [
            f"{percent(figures[name]['of_peak'])} | {figures[name]['ratio']:.2f}" for name in passes
        ]
        lines.append(f"| {' x '.join(map(str, shape))} | {' | '.join(cells)} |")
    return [
        *lines,
        *footnote(
            f"One dense layer, {results['activation']}, {results['dtype']}: share of the "
            "multiply-add peak measured in the same run, and how many times faster fastbp is than "
            f"the fastest other: {', '.join(filter(is_whole, rows[0]['seconds']))}.",
            verdict(rows, lambda row: f"{'x'.join(map(str, row['shape']))} {row['pass']}"),
            origin(results, "fastbp bench dense"),
        ),
    ]


def table_of_steps(results, folder):
    """A row per net: a step and an epoch's step, each beside the fastest other."""
    rows = results["rows"]
    others = [name for name in contenders_of(rows) if not name.startswith("fastbp")]
    alone = folder / "step-1-thread.json"
    rows_alone = load(alone)["rows"] if alone.exists() else []
    of_one_thread = {(row["net"], row["batch"]): row["figures"] for row in rows_alone}
    head = ["net", "batch"]
    for name in ("a step, us", "in `fit`, us"):
        head += [name, "fastest other", "faster", "1 thread", "% of peak"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for row in rows:
        seconds, figures = row["seconds"], row["figures"]
        one = of_one_thread.get((row["net"], row["batch"]), {})
        cells = [f"{row['net']}, {describe(row)}", str(row["batch"])]
        for name, both, single in (
            ("fastbp", figures, one),
            ("fastbp, fit", figures.get("fit", {}), one.get("fit", {})),
        ):
            best = f"{both['best']} {microseconds(seconds[both['best']])}" if both else ""
            ratio, share = shares(both)
            cells += [microseconds(seconds.get(name)), best, ratio, shares(single)[0], share]
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        *footnote(
            "One training step (forward, loss, backward, gradient descent), float32, microseconds, "
            f"beside the fastest of {'; '.join(others)}. NumPy is the reference twin, in place is "
            "written by hand. Faster: its time over ours; 1 thread: the same ratio when everyone "
            "has one thread; % of peak: share of the multiply-add peak that the run measured. "
            "`fit` and scan: steps in one call, an epoch; fit is compared with everything.",
            *(
                f"{what}: {verdict(measured, name_of_step)}"
                for what, measured in (
                    ("A step", rows),
                    ("In an epoch", in_epochs(rows)),
                    ("A step with one thread", rows_alone),
                    ("In an epoch with one thread", in_epochs(rows_alone)),
                )
                if measured
            ),
            origin(results, "fastbp bench step"),
        ),
    ]


def in_epochs(rows):
    """The rows that have `fit`, with its figures."""
    return [row | {"figures": row["figures"]["fit"]} for row in rows if "fit" in row["figures"]]


def name_of_step(row):
    return f"{row['net']} batch {row['batch']}"


def footnote(*sentences):
    """Lines of the README's width, an empty one first."""
    lines = [textwrap.wrap(text, 108, break_on_hyphens=False) for text in sentences]
    return ["", *itertools.chain(*lines)]


def verdict(rows, label):
    """Which rows are lost, each by name."""
    losses = lost(rows, label)
    if not losses:
        return f"Fastest in all {len(rows)} measurements."
    return f"Lost, {len(losses)} of {len(rows)}: {'; '.join(losses)}."


def origin(results, command):
    """Where the numbers come from."""
    facts = results["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts = [
        f"{facts['processor']}, {facts['threads']} threads for everyone, medians of "
        f"{results['rounds']} rounds in turn; {versions}; `{command}`.",
        missing(results),
    ]
    return " ".join(filter(None, parts))


def machine_of(results):
    return results["provenance"]["processor"], results["provenance"]["threads"]


def table_of_runs(results, folder):
    """A row per class of shapes and run of `fastbp bench dense`: from the least to the largest."""
    names = ("large", "medium", "small", "few rows", "odd and round sizes")
    selections = ("large", "medium", "small", "few", "odd")
    lines = [
        "The classes are those of `--shapes`; `fastbp/benchmarks/dense.py` lists them.",
        "",
        "| shapes | layer | forward, % of peak | backward | both | faster | lost |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    runs = [load(path) for path in sorted(folder.glob("dense-*.json"))]
    runs = [run for run in runs if machine_of(run) == machine_of(results)]  # the footnote names one
    for label, selection in zip(names, selections, strict=True):
        wanted = set(SELECTIONS[selection])
        for run in runs:
            if (run["selection"] == "odd") != (selection == "odd"):
                continue
            rows = [
                row
                for row in run["rows"]
                if row["group"] == "table" and tuple(row["shape"]) in wanted
            ]
            if rows:
                shares = (
                    spread([r["figures"]["of_peak"] for r in rows if r["pass"] == name], percent)
                    for name in ("forward", "backward", "both")
                )
                ratios = [row["figures"]["ratio"] for row in rows]
                faster, losses = spread(ratios, "{:.2f}".format), sum(r < 1 for r in ratios)
                cells = [label, f"{run['activation']}, {run['dtype']}", *shares, faster]
                lines.append(f"| {' | '.join(cells)} | {losses} of {len(rows)} |")
    return [*lines, *footnote(origin(results, "fastbp bench dense").split(";")[0] + ".")]


def spread(values, text):
    """The least and the largest value."""
    return f"{text(min(values))} to {text(max(values))}"


def table_of_ceilings(results, folder):
    """A row per net: how much faster a step is, and would be at the peak."""
    lines = [
        "| net | batch | faster | % of peak | faster at the peak | in `fit`: faster | % of peak |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results["rows"]:
        figures = row["figures"]
        ratio, share = shares(figures)
        at_peak = f"{figures['ratio'] / figures['of_peak']:.1f}"
        cells = [ratio, share, at_peak, *shares(figures.get("fit", {}))]
        lines.append(f"| {row['net']} | {row['batch']} | {' | '.join(cells)} |")
    return [*lines, *footnote(origin(results, "fastbp bench step").split(";")[0] + ".")]


def table_of_equations(results, folder):
    """A row per net: a step with second derivatives, beside the best that derive and by hand."""
    lines = [
        "| net | type | points | fastbp, us | % of peak | fastest that derives itself, us | faster "
        "| fastest by hand, us | faster | at the peak |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results["rows"]:
        seconds, figures = row["seconds"], row["figures"]
        cells = [row["net"], row["dtype"], f"{row['batch']:,}", microseconds(seconds["fastbp"])]
        cells += [percent(figures["of_peak"])]
        for best, ratio in (("best", "ratio"), ("best by hand", "ratio by hand")):
            cells += [f"{figures[best]} {microseconds(seconds[figures[best]])}"]
            cells += [f"{figures[ratio]:.2f}"]
        lines.append(f"| {' | '.join(cells)} | {figures['bound by hand']:.2f} |")
    others = [name for name in results["rows"][0]["seconds"] if name != "fastbp"]
    return [
        *lines,
        *footnote(
            "A step (loss and all gradients) with u_xx + u_yy in the loss, tanh; beside "
            f"{'; '.join(others)}. By hand: the forward Laplacian of this very network was written "
            "out, which fastbp derives by itself; at the peak: how many times faster than that the "
            "matrix products alone would be, done at the multiply-add peak.",
            origin(results, "fastbp bench pinn"),
        ),
    ]


# Which results a table holds, and how it is made.
TABLES = {
    "dense-float32": ("dense-float32", table_of_layers),
    "step": ("step", table_of_steps),
    "layers": ("dense-float32", table_of_runs),
    "ceilings": ("step", table_of_ceilings),
    "pinn": ("pinn", table_of_equations),
}


if __name__ == "__main__":
    main(*sys.argv[1:])
