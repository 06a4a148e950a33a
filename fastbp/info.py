"""What `fastbp info` says: versions, machine, threads, caches, engines."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import __version__, engines, machine
from .kernels.cpu import threads
from .parallel import get_num_threads, start_threads
from .warmup import kernel_folder

PACKAGES = ("numpy", "numba", "llvmlite", "scipy")


def collect() -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    start_threads()  # loads the table, too
    measured = engines.table()
    return {
        "versions": {"python": platform.python_version(), "fastbp": __version__}
        | {package: metadata.version(package) for package in PACKAGES},
        "processor": machine.processor(),
        "vector_bits": machine.vector_bits(),
        "vector_bits_forced": bool(os.environ.get("FASTBP_SIMD")),
        "threads": threads.count(),  # that run, if more were asked for
        "processors": machine.processors(),
        "blas": {"scipy": machine.scipy_blas(), "numpy": machine.numpy_blas()},
        "kernel_cache": _kernel_cache(),
        "engine": engines.get_engine(),
        "engines": {
            "path": str(engines.path_of(engines.settings(get_num_threads()))),
            "measured": None if measured is None else measured.date,
            "layers": []
            if measured is None
            else [vars(row) | {"faster": row.faster} for row in measured.rows],
        },
    }


def _kernel_cache() -> dict[str, Any]:
    folder = kernel_folder()
    if folder is None:
        return {"path": None, "writable": False, "files": 0}
    return {"path": str(folder), "writable": _writable(folder), "files": _files(folder)}


def _writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(existing, os.W_OK | os.X_OK)


def _files(folder: Path) -> int:
    return sum(path.suffix in (".nbi", ".nbc") for path in folder.glob("*"))


def render(found: dict[str, Any]) -> Group:
    """What `collect` found, for a terminal."""
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(found).items():
        facts.add_row(name, Text(value))
    return Group(facts, _engines(found))


def _facts(found: dict[str, Any]) -> dict[str, str]:
    cache = found["kernel_cache"]
    forced = ", forced by FASTBP_SIMD" if found["vector_bits_forced"] else ""
    state = "writable" if cache["writable"] else "not writable: every process compiles anew"
    return found["versions"] | {
        "processor": f"{found['processor']}, {found['processors']} for this process",
        "vectors": f"{found['vector_bits']} bits{forced}",
        "threads": str(found["threads"]),
        "BLAS of SciPy": found["blas"]["scipy"] + " (the engine `blas`)",
        "BLAS of NumPy": found["blas"]["numpy"],
        "kernel cache": f"{cache['path']}: {state}, {cache['files']} files",
        "engine": f"{found['engine']}: {_engine_in_words(found)}",
    }


def _engine_in_words(found: dict[str, Any]) -> str:
    measured = found["engines"]["measured"]
    if found["engine"] != "auto":
        return "forced; what was measured does not matter"
    if measured is None:
        return "tiles, since nothing was measured here; `fastbp warmup` measures it"
    return f"the faster one, as measured on {measured} ({found['engines']['path']})"


def _engines(found: dict[str, Any]) -> Table | Text:
    layers = found["engines"]["layers"]
    if not layers:
        return Text("")
    table = Table(title="microseconds of a relu layer: tiles / BLAS", box=SIMPLE)
    for name in ("dtype", "n x k x m", *engines.DIRECTIONS):
        table.add_column(name, justify="right", no_wrap=True)
    by_layer: dict[tuple[str, str], dict[str, Text]] = {}
    for row in layers:
        shape = f"{row['n']} x {row['k']} x {row['m']}"
        by_layer.setdefault((row["dtype"], shape), {})[row["direction"]] = _race(row)
    for layer, cells in by_layer.items():
        table.add_row(*layer, *(cells[direction] for direction in engines.DIRECTIONS))
    return table


def _race(row: dict[str, Any]) -> Text:
    """The times of both engines, the one that runs in green."""
    styles = {engine: "green" if row["faster"] == engine else "" for engine in ("tiles", "blas")}
    times = {engine: 1e6 * row[engine] for engine in styles}
    parts = [
        (f"{times[engine]:,.{1 if times[engine] < 100 else 0}f}", style)
        for engine, style in styles.items()
    ]
    return Text.assemble(parts[0], " / ", parts[1])
