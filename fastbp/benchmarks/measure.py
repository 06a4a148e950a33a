"""Interleaved timing, equal threads for all, and what a result must say of its origin."""

import importlib.util
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..engines import seconds_of
from ..machine import processor, vector_bits
from ..parallel import get_num_threads, set_num_threads
from .settling import Settling

LONG = 5  # times the budget of a turn: a call that takes so long fills the caches on its way
ROUNDS = 9
AGAIN = 4  # times that a turn in a bad moment is taken again


@dataclass(frozen=True)
class Contender:
    """What is timed, and what is called before each of its turns, outside of the timed part."""

    call: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    times: int = 1  # that a call does what is timed


Contenders = dict[str, Contender]


def race(
    contenders: Contenders,
    rounds: int = ROUNDS,
    budget: float = 0.01,
    settling: Settling | None = None,
) -> dict[str, Any]:
    """Seconds of one call of each contender, all taking turns: medians and quartiles.

    Parameters
    ----------
    contenders : dict
        Contenders by name; each is called a few times before anything is timed.
    rounds : int
        Turns of each.
    budget : float
        Seconds of one turn, about.
    settling : Settling, optional
        Waits for a good moment before each turn, and has a turn taken again that it did not last.
        `equal_threads` gives one. Default: a rest before each turn.

    Returns
    -------
    dict
        `again`: turns of all that were taken again; `unsettled`: turns that no moment lasted;
        `seconds`: the median by name; `quartiles`: [lower, upper] by name.

    Examples
    --------
    >>> from fastbp.benchmarks.measure import Contender, race
    >>> times = race({"nothing": Contender(lambda: None)}, rounds=3, budget=1e-6)
    >>> low, high = times["quartiles"]["nothing"]
    >>> low <= times["seconds"]["nothing"] <= high
    True
    """
    calls = {}
    for name, one in contenders.items():
        one.prepare()
        one.call()  # it may compile
        seconds = seconds_of(one.call, 1)
        if seconds < LONG * budget:
            seconds = seconds_of(one.call, 2)
        calls[name] = max(1, round(budget / max(seconds, 1e-7)))
    settling, again, unsettled = settling or Settling(1), 0, 0
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, one in contenders.items():
            for left in range(AGAIN, -1, -1):
                one.prepare()
                settling.wait()
                if not times[name] or times[name][-1] < LONG * budget:
                    one.call()  # untimed: the one before has the caches
                seconds = seconds_of(one.call, calls[name])
                lasted = settling.lasted()
                if lasted or not left:
                    break
                again += 1
            unsettled += not lasted
            times[name].append(seconds)
    quartiles = {
        name: [float(s) / one.times for s in np.percentile(times[name], [25, 50, 75])]
        for name, one in contenders.items()
    }
    return {
        "again": again,
        "unsettled": unsettled,
        "seconds": {name: middle for name, (_, middle, _) in quartiles.items()},
        "quartiles": {name: [low, high] for name, (low, _, high) in quartiles.items()},
    }


def use_threads(count: int) -> Callable[[], None]:
    """Give the kernels so many threads from the next turn on: a contender's `prepare`."""

    def prepare() -> None:
        if get_num_threads() != count:  # the pool starts anew
            set_num_threads(count)

    return prepare


@contextmanager
def equal_threads(count: int) -> Iterator[Settling]:
    """As many threads for the kernels, NumPy's BLAS, PyTorch and, if it starts here, JAX.

    Raises
    ------
    ValueError
        If threadpoolctl is missing, which alone can limit NumPy's BLAS.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise ValueError(
            'equal threads need threadpoolctl; install it with pip install "fastbp[bench]"'
        ) from None
    before = get_num_threads()
    os.environ["NPROC"] = str(count)  # what XLA asks for the size of its pool
    set_num_threads(count)
    if installed("torch"):
        # One process compiles for torch.compile: a pool of them would run beside the others.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        import torch

        torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield Settling(count)
    finally:
        set_num_threads(before)


def installed(package: str) -> bool:
    """Whether a package that only a benchmark needs is there."""
    return importlib.util.find_spec(package) is not None


def provenance(packages: Iterable[str] = ()) -> dict[str, Any]:
    """When, where and with what a benchmark ran; `missing` names the packages that were not there.

    Examples
    --------
    >>> from fastbp.benchmarks.measure import provenance
    >>> provenance(["no_such_package"])["missing"]
    ['no_such_package']
    """
    versions = {"python": platform.python_version(), "fastbp": __version__}
    missing = [package for package in packages if not installed(package)]
    for package in ("numpy", "scipy", "numba", *packages):
        if package not in missing:
            versions[package] = metadata.version(_DISTRIBUTIONS.get(package, package))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": processor(),
        "vector_bits": vector_bits(),
        "threads": get_num_threads(),
        "versions": versions,
        "missing": missing,
    }


_DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where the name to install is not the one to import


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
