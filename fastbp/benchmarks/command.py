"""The command `fastbp bench`: its arguments, and what it measures, prints and writes."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..checks import check_count
from ..kernels import codes
from ..parallel import get_num_threads

TABLE_WIDTH = 170  # columns of text: on a narrower terminal lines wrap, but no number is cut


def _dense_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes",
        default="main",
        metavar="LIST",
        help="large, medium, small, few (rows), odd (sizes), all, main (all but odd, and speed "
        "against the batch), or NxKxM; several with commas (default: %(default)s)",
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--activation", choices=codes.ACTIVATIONS, default="relu")


def _step_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes",
        default="nets",
        metavar="LIST",
        help="nets, growth (cost against depth, width and batch), or networks as SIZES@BATCH, "
        "such as 784-128-10@32, with commas (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", choices=("1", "all"), default="all", help="for every contender alike"
    )


def _dense(arguments: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    from . import dense

    return dense.run(
        arguments.shapes,
        arguments.dtype,
        arguments.activation,
        get_num_threads(),
        arguments.rounds,
        report,
    )


def _dense_name(arguments: argparse.Namespace) -> str:
    parts = [arguments.dtype]
    parts += [arguments.activation] * (arguments.activation != "relu")
    parts += [arguments.shapes.replace(",", "+")] * (arguments.shapes != "main")
    return "-".join(["dense", *parts])


def _step(arguments: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    from . import step

    threads = 1 if arguments.threads == "1" else get_num_threads()
    return step.run(arguments.shapes, threads, arguments.rounds, report)


def _step_name(arguments: argparse.Namespace) -> str:
    parts = ["1-thread"] * (arguments.threads == "1")
    parts += [arguments.shapes.replace(",", "+")] * (arguments.shapes != "nets")
    return "-".join(["step", *parts])


def _graph(arguments: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    from . import graph

    return graph.run(arguments.rounds, report)


def _pinn(arguments: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    from . import pinn

    return pinn.run(get_num_threads(), arguments.rounds, report)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: help, arguments, what measures, the name of its files, a footnote."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace, Callable[[str], None]], dict[str, Any]]
    name: Callable[[argparse.Namespace], str]
    footnote: str


BENCHMARKS = {
    "dense": Benchmark(
        "one layer: forward, backward, both",
        _dense_arguments,
        _dense,
        _dense_name,
        "best other: the fastest other contender; times faster: its time over ours. % of copy: "
        "bytes that must move over the rate of copying, for few rows; above 100, operands lie in "
        "the caches. bare products: time of the best BLAS for the matrix products alone, over ours "
        "for all of it.",
    ),
    "step": Benchmark(
        "one training step of whole networks",
        _step_arguments,
        _step,
        _step_name,
        "times faster: the time of the fastest other over ours. NumPy: device='reference'; in "
        "place: written by hand, without an allocation. fit, scan: steps in one call, fit compared "
        "with everything. The losses: softmax and logistic "
        "cross-entropy, half the sum of squares; all averaged over the batch.",
    ),
    "pinn": Benchmark(
        "a training step whose loss holds second derivatives by the inputs",
        lambda parser: None,
        _pinn,
        lambda arguments: "pinn",
        "times faster: the time of the fastest other that differentiates by itself, over ours. By "
        "hand: the fastest for which the forward Laplacian of this network was written out; at "
        "peak: what its time would be over that of the products alone at the peak. "
        "torch.compile does not differentiate twice.",
    ),
    "graph": Benchmark(
        "derivatives of graphs of numbers: cost against edges",
        lambda parser: None,
        _graph,
        lambda arguments: "graph",
        "us an edge: of back-propagation, and of the gradient as a graph. A link is 0.9 sin(x) + "
        "x sin(x) / 9. All in Python, an operation on one number at a time.",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand per benchmark to the parser of `fastbp bench`."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, benchmark in BENCHMARKS.items():
        one = commands.add_parser(name, help=benchmark.help, description=f"{benchmark.help}.")
        benchmark.add_arguments(one)
        one.add_argument(
            "--rounds",
            type=int,
            default=9,
            metavar="N",
            help="turns of each contender; medians are shown (default: %(default)s)",
        )
        one.add_argument(
            "--output",
            type=Path,
            default=Path("fastbp-bench"),
            metavar="DIR",
            help="folder for the JSON file and the pictures (default: %(default)s)",
        )


def run(arguments: argparse.Namespace) -> None:
    """Measure, show the table, write JSON and pictures."""
    from . import plots, report

    benchmark, console = BENCHMARKS[arguments.what], Console()
    check_count("--rounds", arguments.rounds)
    with console.status("") as status:
        results = benchmark.measure(arguments, status.update)
    shown = [row for row in results["rows"] if row["group"] != "sweep"]
    wide = Console(width=max(console.width, TABLE_WIDTH))
    wide.print(report.table(results | {"rows": shown}))
    console.print(f"{benchmark.footnote} {report.missing(results)}".strip(), style="dim")
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = benchmark.name(arguments)
    path = arguments.output / f"{name}.json"
    report.write_json(results, path)
    for written in (path, *plots.plot(results, arguments.output, name)):
        console.print(f"written {written.resolve()}", soft_wrap=True)
