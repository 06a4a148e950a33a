"""What the tasks share: schedule, warm-up, saving with proof, and how the output looks."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import load
from ..checks import Array
from ..kernels import cpu
from ..network import Sequential
from . import DemoError

OURS, THEIRS = "#0072b2", "#e69f00"  # blue and orange of Okabe & Ito: also for the colour-blind
GREY = "#6b6b6b"


def cosine(start: float, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch 0..epochs-1: from `start` towards zero along half a cosine.

    Loshchilov & Hutter 2017, without restarts.

    Examples
    --------
    >>> from fastbp.demo.common import cosine
    >>> cosine(0.1, 0, 10), cosine(0.1, 5, 10)
    (0.1, 0.05)
    """
    return start * (1 + math.cos(math.pi * epoch / epochs)) / 2


def warm_up(action: Callable[[], object]) -> str:
    """Run `action` so that its kernels are compiled; says how long that took, and from where."""
    before = _compiled()
    start = time.perf_counter()
    with Console(stderr=True).status("compiling kernels (once: later runs read them from disk)"):
        action()
    seconds = time.perf_counter() - start
    count = _compiled() - before
    source = f"compiling {count} of them, once" if count else "all read from the cache"
    return f"ready after {seconds:.1f} s, {source}"


def _compiled() -> int:
    """How many kernels this process had to compile because its cache folder held none."""
    kernels = (getattr(cpu, name) for name in cpu.__all__)
    return sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels)


def saved(net: Sequential, path: Path, x: Array) -> Path:
    """Save the network, load it again, and make sure that it predicts the same bits for x.

    Raises
    ------
    DemoError
        If one bit differs.
    """
    target = net.save(path)
    if load(target).predict(x).tobytes() != net.predict(x).tobytes():
        raise DemoError(f"the network loaded from {target} predicts something else")
    return target


class Page:
    """Standard output: a title, tables and facts; plain text where it is no terminal."""

    def __init__(self, title: str, subtitle: str) -> None:
        self.console = Console(highlight=False)
        self.console.print(Text(title, style="bold"))
        self.console.print(Text(subtitle, style="dim"))

    def facts(self, rows: dict[str, str]) -> None:
        """Lines of a name and what is to be said of it."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column()
        for name, value in rows.items():
            grid.add_row(name, Text(value))
        self.console.print(grid)

    def table(self, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        """A table whose first column is text and whose others are numbers."""
        table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def gap(self) -> None:
        """An empty line."""
        self.console.print()

    def files(self, folder: Path, rows: dict[str, str]) -> None:
        """The folder, never wrapped so that it can be copied, and what was written to it."""
        self.console.print(Text.assemble(("Written to ", "bold"), str(folder)), soft_wrap=True)
        self.facts({f"  {name}": what for name, what in rows.items()})


def figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches, that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def write(picture: Any, path: Path) -> Path:
    """Save a figure as PNG."""
    picture.savefig(path, dpi=150)
    return path
