"""How many threads the CPU kernels use."""

import os

from . import engines, machine
from .checks import check_count
from .kernels.cpu import threads

_wanted: int | None = None


def set_num_threads(count: int) -> None:
    """Use this many threads in the CPU kernels, from now on and for all callers.

    The default is the environment variable FASTBP_NUM_THREADS, else every processor that this
    process may use. Results are the same bits for every number of threads.

    Parameters
    ----------
    count : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        If count is no integer of at least 1.

    Examples
    --------
    >>> import fastbp
    >>> before = fastbp.get_num_threads()
    >>> fastbp.set_num_threads(1)
    >>> fastbp.get_num_threads()
    1
    >>> fastbp.set_num_threads(before)
    """
    global _wanted
    _wanted = check_count("count", count)
    threads.start(_wanted)
    engines.load(_wanted)  # what was measured holds for a number of threads


def get_num_threads() -> int:
    """The number of threads that the CPU kernels use.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.get_num_threads() >= 1
    True
    """
    return _default() if _wanted is None else _wanted


def start_threads() -> None:
    """Bring engines and threads to life before the first kernel, threads again after a fork."""
    global _wanted
    if _are_started():
        return
    with threads.changing:  # one of several threads that call their first kernel
        if _wanted is None:
            wanted = _default()
            engines.load(wanted)
            _wanted = wanted
        if not _are_started():
            threads.start(_wanted)


def _are_started() -> bool:
    return _wanted is not None and threads.count() == min(_wanted, threads.MOST_WORKERS + 1)


def _default() -> int:
    asked = os.environ.get("FASTBP_NUM_THREADS")
    if asked is None:
        return machine.processors()
    if not (asked.isascii() and asked.isdecimal()) or int(asked) < 1:
        raise ValueError(f"FASTBP_NUM_THREADS: expected an integer >= 1, got {asked!r}")
    return int(asked)
