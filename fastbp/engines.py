"""Which engine runs the dense layers on the CPU: forced, or chosen by a table measured here.

The table lives in a JSON file per machine and settings. It is read once, before the first kernel,
and measured only when a user asks for it (`fastbp warmup`).
"""

import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from . import machine
from .checks import Array, check_choice
from .kernels import codes, cpu
from .kernels.cpu.engines import LAYER_SIZES, ROW_SIZES, choices
from .kernels.cpu.jit import source_stamp

ENGINES = ("auto", "tiles", "blas")
ALL_TILES, ALL_BLAS = 0, -1  # every bit of the table in memory

DIRECTIONS = ("forward", "backward")
DTYPES = ("float32", "float64")
ROWS = (4, 32, 256, 1024)  # n of the measured layers
SIDES = (32, 128, 512, 1024)  # their k and m
ROUNDS = 5
TURN = 0.003  # seconds of a turn, about
REST = 0.002  # seconds before a turn: threads of the other engine spin for a while
LIMIT = 0.15  # seconds of a layer on one engine, about: the largest get fewer turns, at least 3
MARGIN = 1.05  # BLAS must be so much faster: a tie is no reason to change results by a rounding

# What else decides how many threads a BLAS uses.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS")

Progress = Callable[[str, int, int], None]  # what is done next, how many are done, of how many


@dataclass(frozen=True)
class Row:
    """Seconds of one layer on each engine."""

    direction: str
    dtype: str
    n: int
    k: int
    m: int
    tiles: float
    blas: float

    @property
    def faster(self) -> str:
        """The engine that the table names for it."""
        return "blas" if self.blas * MARGIN < self.tiles else "tiles"


@dataclass(frozen=True)
class Table:
    """What was measured, when, and under which settings it holds."""

    settings: dict[str, Any]
    date: str
    seconds: float
    rows: tuple[Row, ...]


_forced: str | None = None  # by set_engine
_threads: int | None = None  # that the table in memory is for; None before the first kernel
_table: Table | None = None


def set_engine(engine: str) -> None:
    """Choose what computes the dense layers on the CPU, from now on and for all callers.

    The default is the environment variable FASTBP_ENGINE, else "auto". The engines agree to
    rounding, not to the bit.

    Parameters
    ----------
    engine : {"auto", "tiles", "blas"}
        "tiles": fastbp's own register tiles. "blas": SciPy's BLAS with fused passes around it.
        "auto": for each size the faster one, once `fastbp.warmup` has measured this machine;
        until then the tiles.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> import fastbp
    >>> before = fastbp.get_engine()
    >>> fastbp.set_engine("blas")
    >>> fastbp.get_engine()
    'blas'
    >>> fastbp.set_engine(before)
    """
    global _forced
    _forced = check_choice("engine", engine, ENGINES)
    _apply()


def get_engine() -> str:
    """The engine that was asked for: "auto", "tiles" or "blas".

    Examples
    --------
    >>> import fastbp
    >>> fastbp.get_engine() in ("auto", "tiles", "blas")
    True
    """
    if _forced is not None:
        return _forced
    asked = os.environ.get("FASTBP_ENGINE", "auto")
    if asked not in ENGINES:
        raise ValueError(f"FASTBP_ENGINE: expected auto, tiles or blas, got {asked!r}")
    return asked


def load(threads: int) -> None:
    """Make the kernels follow `get_engine` and the table for this number of threads."""
    global _threads
    _threads = threads
    _apply()


def table() -> Table | None:
    """The measured table that the kernels follow with "auto"; None if there is none."""
    return _table


def _apply() -> None:
    global _table
    engine = get_engine()
    _table = None
    if engine == "auto" and _threads is not None:
        _table = read(settings(_threads))
    if _table is None:
        choices[...] = ALL_BLAS if engine == "blas" else ALL_TILES
    else:
        choices[...] = bits(_table)


def bits(table: Table) -> Array:
    """The table as the kernels read it: what was measured nearest, on a scale of powers of two."""
    words = np.zeros_like(choices)
    n, size = np.arange(ROW_SIZES)[:, None, None], np.arange(LAYER_SIZES)[:, None]
    for direction in DIRECTIONS:
        for dtype in DTYPES:
            rows = [row for row in table.rows if (row.direction, row.dtype) == (direction, dtype)]
            at_n, at_size = np.log2([(row.n, row.k * row.m) for row in rows]).T
            nearest = np.argmin(abs(n - at_n) + abs(size - at_size), axis=2)
            blas = np.array([row.faster == "blas" for row in rows])[nearest]
            place = DIRECTIONS.index(direction), DTYPES.index(dtype)
            words[place] = (blas.astype(np.int64) << np.arange(LAYER_SIZES)).sum(axis=1)
    return words


# On disk


def cache_folder() -> Path:
    """Where measured tables are kept: FASTBP_CACHE_DIR, else the user's cache folder."""
    asked = os.environ.get("FASTBP_CACHE_DIR")
    if asked:
        return Path(asked)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fastbp"


def settings(threads: int) -> dict[str, Any]:
    """What a measurement depends on."""
    return {
        "processor": machine.processor(),
        "processors": machine.processors(),
        "vector_bits": machine.vector_bits(),
        "threads": threads,
        "blas": machine.scipy_blas(),
        "blas_threads": {name: os.environ[name] for name in BLAS_THREADS if name in os.environ},
        "fastbp": _version(),
        "kernels": source_stamp()[:16],
        "numba": metadata.version("numba"),
    }


def _version() -> str:
    from . import __version__  # not there yet when this module is imported

    return __version__


def path_of(settings: dict[str, Any]) -> Path:
    """The file of these settings' table."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"engines-{digest[:16]}.json"


def read(settings: dict[str, Any]) -> Table | None:
    """The table measured under these settings; None, with a warning if its file is damaged."""
    path = path_of(settings)
    try:
        found = json.loads(path.read_bytes())
        rows = tuple(Row(**row) for row in found["rows"])
        table = Table(found["settings"], str(found["date"]), float(found["seconds"]), rows)
        _check(table, settings)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as fault:
        _notice(f"{path} cannot be used ({_one_line(fault)}); `fastbp warmup` measures it again")
        return None
    return table


def _check(table: Table, settings: dict[str, Any]) -> None:
    if table.settings != settings:
        raise ValueError("it was measured under other settings")
    missing = {(d, t) for d in DIRECTIONS for t in DTYPES}
    for row in table.rows:
        missing.discard((row.direction, row.dtype))
        if min(row.n, row.k, row.m) < 1 or not min(row.tiles, row.blas) > 0:
            raise ValueError(f"expected sizes and seconds above 0, got {row}")
    if missing:
        raise ValueError(f"nothing was measured for {sorted(missing)}")


def save(table: Table) -> Path | None:
    """Write the table for later processes, whole or not at all; None, with a warning, if not."""
    path = path_of(table.settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(table), file, indent=1)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as fault:
        _notice(
            f"the measured engines are not kept ({_one_line(fault)}); "
            "set FASTBP_CACHE_DIR to a writable folder"
        )
        return None
    return path


def _one_line(fault: BaseException) -> str:
    return " ".join(f"{type(fault).__name__}: {fault}".split())


def _notice(text: str) -> None:
    warnings.warn(f"fastbp: {text}", RuntimeWarning, stacklevel=3)


# The measurement


def measure(
    threads: int,
    progress: Progress | None = None,
    *,
    rows: tuple[int, ...] = ROWS,
    sides: tuple[int, ...] = SIDES,
    rounds: int = ROUNDS,
) -> Table:
    """Time both engines, taking turns, on a grid of layers; the kernels follow it from now on.

    Parameters
    ----------
    threads : int
        That the pool has.
    progress : function, optional
        Called before each layer with what it is, how many are done, and of how many.
    rows, sides : tuples of int
        The grid: n, and k = m.
    rounds : int
        Turns of each engine; what counts is their median.
    """
    global _table
    start, before = time.perf_counter(), choices.copy()
    grid = [(dtype, n, side) for dtype in DTYPES for n in rows for side in sides]
    found = []
    try:
        for done, (dtype, n, side) in enumerate(grid):
            if progress is not None:
                progress(f"{dtype} {n} x {side} x {side}", done, len(grid))
            for direction, call in zip(DIRECTIONS, _layer(dtype, n, side), strict=True):
                seconds = _race(call, rounds)
                found.append(Row(direction, dtype, n, side, side, *seconds))
    finally:
        choices[...] = before
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    measured = Table(settings(threads), date, time.perf_counter() - start, tuple(found))
    if get_engine() == "auto":
        _table = measured
        choices[...] = bits(measured)
    return measured


def _layer(dtype: str, n: int, side: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward and backward of a relu layer, as functions of no arguments."""
    rng = np.random.default_rng(0)
    shapes = (n, side), (side, side), (side,), (n, side)
    x, w, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    z, y, dw, db, dx = np.empty((0, 0), dtype), *(np.empty_like(a) for a in (dy, w, b, x))
    sizes = cpu.dense_forward_work(n, side, side), cpu.dense_backward_work(n, side, side)
    work = np.empty(max(sizes), dtype)
    return (
        lambda: cpu.dense_forward(x, w, b, codes.RELU, work, z, y),
        lambda: cpu.dense_backward(dy, x, w, y, codes.RELU, work, dw, db, dx),
    )


def _race(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of one call on the tiles and on BLAS."""
    times: dict[int, list[float]] = {ALL_TILES: [], ALL_BLAS: []}
    calls, slowest = {}, TURN
    for engine in times:
        choices[...] = engine
        call()
        once = max(seconds_of(call, 1), 1e-7)
        calls[engine], slowest = max(1, round(TURN / once)), max(slowest, 2 * once)
    rounds = min(rounds, max(3, round(LIMIT / slowest)))
    for _ in range(rounds):
        for engine, seconds in times.items():
            choices[...] = engine
            time.sleep(REST)
            call()  # untimed: the other one has the caches
            seconds.append(seconds_of(call, calls[engine]))
    return float(np.median(times[ALL_TILES])), float(np.median(times[ALL_BLAS]))


def seconds_of(call: Callable[[], object], calls: int) -> float:
    """Of one call, as the mean of some in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
