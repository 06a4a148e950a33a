"""The progress bar of a training."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .training import History


@contextmanager
def bar(epochs: int) -> Iterator[Callable[["History"], None]]:
    """A function to call with the history after every epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("epoch"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    # What a callback prints stays on its stream, which may be a file.
    redirect = sys.stdout.isatty()
    console = Console(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=redirect) as progress:
        task = progress.add_task("", total=epochs)

        def report(history: "History") -> None:
            scores = {"loss": history.loss[-1]} | {
                f"validation {name}": column[-1] for name, column in history.validation.items()
            }
            text = "  ".join(f"{name} {score:.4g}" for name, score in scores.items())
            progress.update(task, advance=1, description=text)

        yield report


@contextmanager
def none(epochs: int) -> Iterator[Callable[["History"], None]]:
    """The same function where nothing is shown."""
    yield lambda history: None
