"""The command `fastbp`: arguments, messages and exit codes. What a subcommand does lives elsewhere.

Exit codes: 0 done, 1 it could not be done or a check failed, 2 wrong arguments, 130 Ctrl-C.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from rich.text import Text

from . import __version__, demo
from .benchmarks import command as bench
from .training import DivergenceError
from .warmup import warmup


@dataclass(frozen=True)
class Command:
    """A subcommand: its line of help, its arguments, and the function that does the work."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = "; ".join(f"{name}: {task.help}" for name, task in demo.TASKS.items())
    parser.add_argument("--task", choices=demo.TASKS, default="digits", help=tasks)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("fastbp-demo"),
        metavar="DIR",
        help="folder for the pictures and the network (default: %(default)s)",
    )
    epochs = ", ".join(f"{task.epochs} for {name}" for name, task in demo.TASKS.items())
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"passes over the data (default: {epochs})"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="start values and order of the batches (default: %(default)s)",
    )


def _demo(arguments: argparse.Namespace) -> None:
    demo.run(arguments.task, arguments.output, arguments.epochs, arguments.seed)


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _info(arguments: argparse.Namespace) -> None:
    from . import info

    found = info.collect()
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        Console().print(info.render(found))


def _warmup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-measure",
        dest="measure",
        action="store_false",
        help="only compile; do not measure which engine is faster",
    )


def _warmup(arguments: argparse.Namespace) -> None:
    console = Console()
    columns = "{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{what:<40}", completed=done, total=total)

        done = warmup(measure=arguments.measure, progress=show)
    where = done.folder or "nowhere: no cache folder is writable"
    lines = [
        f"{done.compiled} kernels compiled, {done.loaded} loaded from the cache, "
        f"{done.seconds:.1f} s",
        f"cache: {where}",
    ]
    if done.table is not None:
        rows = done.table.rows
        wins = sum(row.faster == "blas" for row in rows)
        lines.append(f"engines: BLAS is faster for {wins} of {len(rows)} layers; `fastbp info`")
    if done.table_path is not None:
        lines.append(f"written {done.table_path}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


COMMANDS = {
    "demo": Command("train a network and show what it learnt", _demo_arguments, _demo),
    "bench": Command("measure this machine beside its peers", bench.add_arguments, bench.run),
    "info": Command("say what fastbp runs on and with", _info_arguments, _info),
    "warmup": Command("compile the kernels and measure their engines", _warmup_arguments, _warmup),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastbp", description="Dense neural networks as fused Numba kernels."
    )
    parser.add_argument("--version", action="version", version=f"fastbp {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.help, description=f"{command.help}.")
        command.add_arguments(one)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors of users end without a traceback.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the command's name; default: those of this process.

    Examples
    --------
    >>> from fastbp.cli import main
    >>> main(["demo", "--epochs", "0"])  # the sentence that says why goes to standard error
    2
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        COMMANDS[arguments.command].run(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except ValueError as fault:
        return _fail(fault, 2)
    except (demo.DemoError, DivergenceError, OSError) as fault:
        return _fail(fault, 1)
    return 0


def _fail(what: object, code: int) -> int:
    sentence = Text(f"fastbp: {what}", style="red")
    Console(stderr=True).print(sentence, soft_wrap=True)
    return code
