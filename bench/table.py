"""Write the table of training steps into README.md, from the results of `make bench`.

usage: python bench/table.py [bench/results/step.json]
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "step.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def number(microseconds):
    return f"{microseconds:,.0f}" if microseconds >= 100 else f"{microseconds:.1f}"


def steps(results):
    """Times in turn by (net, batch), and threads by contender."""
    rows, threads = {}, {}
    for benchmark in results["benchmarks"]:
        info = benchmark["extra_info"]
        if "in_turn" in info:
            rows[info["net"], info["batch"]] = info["in_turn"]
            threads[info["contender"]] = info["threads"]
    return rows, threads


def table(rows, threads, machine):
    """The lines between the markers."""
    lines = [
        "| net | batch | NumPy, us | fastbp, us | ratio |",
        "|---|--:|--:|--:|--:|",
    ]
    for (net, batch), times in rows.items():
        ours, theirs = number(times["fastbp"]), number(times["NumPy"])
        lines.append(f"| {net} | {batch} | {theirs} | {ours} | {times['ratio']:.2f} |")
    return [*lines, "", *footnote(machine, threads)]


def footnote(machine, threads):
    """Where the numbers come from."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    processor = machine["cpu"]["brand_raw"] or machine["cpu"]["arch"]
    each = ", ".join(f"{name} {count}" for name, count in sorted(threads.items()))
    return [
        "One training step (forward, loss, backward, gradient descent) in float32: medians of",
        'blocks of steps in turn. NumPy is `device="reference"`, the plain twin under the same',
        "API; ratio: how many times faster fastbp is, so below 1 it is slower.",
        f"{processor}; threads: {each}; {versions}; `make bench`.",
    ]


def main(path=RESULTS):
    """Replace what stands between the markers of README.md."""
    results = json.loads(Path(path).read_text(encoding="utf-8"))
    rows, threads = steps(results)
    if len(rows) < results["cases"]:  # a part of the table would leave rows out
        print(
            f"README.md stays as it is: {len(rows)} of {results['cases']} training steps measured"
        )
        return
    text = README.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"README.md: expected one {BEGIN} and one {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "\n".join(table(rows, threads, results["machine_info"]))
    README.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}", encoding="utf-8")
    print(f"README.md: the table holds the numbers of {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
