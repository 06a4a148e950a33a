"""The moment to measure: idle threads asleep, the others each on a core of its own, all near.

The processors of a virtual machine are threads of its host, which may run two of them on one core
for a while: two threads then do the work of one, whoever computes. Or it runs them where they share
no cache: what one has written then reaches the other five times later. The host decides anew when a
processor wakes up, so the remedy is to sleep a little and to look again.
"""

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..kernels.cpu.peak import bounce, burn

REST = 0.02  # seconds of sleep after which idle threads are looked at: several ticks of the clock
LONGEST_REST = 0.5  # OpenBLAS's threads spin for a tenth of a second
BURN = 1e-3  # seconds for which threads compute, to see whether they slow one another down
SLOWER = 1.3  # than at the best moment seen: two on one core take 2.0, on two cores 1.0 to 1.1
FARTHER = 2.0  # than at the best moment seen: a word takes 55 ns to and fro within a cache, or 315
BOUNCES = 2_000
TRIES = 25
PATIENCE = 300.0  # seconds in all, beyond so many tries, for which turns wait for near processors


def rest() -> None:
    """Sleep until the idle threads of whoever was before have stopped to spin."""
    for _ in range(round(LONGEST_REST / REST)):
        spun = time.process_time()
        time.sleep(REST)
        if time.process_time() - spun < 0.1 * REST:
            return


class Settling:
    """Waits for a good moment before a turn, and tells after it whether the moment lasted.

    Parameters
    ----------
    threads : int
        That the contenders use. With one, or where threads cannot be kept to processors, waiting
        is a rest, and every moment lasts.

    Examples
    --------
    >>> from fastbp.benchmarks.settling import Settling
    >>> settling = Settling(threads=1)
    >>> settling.wait()
    >>> settling.lasted()
    True
    """

    def __init__(self, threads: int) -> None:
        known = hasattr(os, "sched_getaffinity") and threads > 1
        processors = sorted(os.sched_getaffinity(0))[:threads] if known else []
        self._pools = [
            ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {one}))
            for one in processors
        ]
        self._together = threading.Barrier(max(1, len(processors)))
        self._turns, self._alone, self._least = 20_000, 0.0, float("inf")
        self._nearest, self._patience = float("inf"), PATIENCE
        if self._pools:
            self._burn()  # compiles
            self._turns = max(1, round(self._turns * BURN / min(self._burn() for _ in range(9))))

    def wait(self) -> None:
        """Rest, and again until no thread slows another down and all are near one another.

        That is half a second if no moment is good, longer while idle threads still spin, or while
        there is patience left for processors that are far apart.
        """
        for tried in itertools.count(1):
            begin = time.monotonic()
            rest()
            if not self._pools:
                return
            self._alone = self._pools[0].submit(self._burn).result()
            apart = self._are_apart()
            if apart and self._are_near():
                return
            if tried >= TRIES:
                self._patience -= time.monotonic() - begin
                if self._patience < 0 or not apart:
                    return

    def lasted(self) -> bool:
        """Whether the threads still run as fast as after `wait`, and as near one another."""
        return not self._pools or (self._are_apart() and self._are_near())

    def _are_apart(self) -> bool:
        running = [pool.submit(self._burn_together) for pool in self._pools]
        slower = max(1.0, max(one.result() for one in running) / self._alone)
        self._least = min(self._least, slower)
        return slower < SLOWER * self._least

    def _are_near(self) -> bool:
        farthest = max(self._distance(pool) for pool in self._pools[1:])
        self._nearest = min(self._nearest, farthest)
        return farthest < FARTHER * self._nearest

    def _distance(self, pool: ThreadPoolExecutor) -> float:
        """Seconds that words take between the first thread and one of the others."""
        word, both = np.zeros(1, np.int64), threading.Barrier(2)

        def seconds(side: int) -> float:
            both.wait()
            start = time.perf_counter()
            bounce(word, side, BOUNCES)
            return time.perf_counter() - start

        running = [one.submit(seconds, side) for side, one in enumerate((self._pools[0], pool))]
        return min(one.result() for one in running)  # the other had to wait for the last to come

    def _burn_together(self) -> float:
        self._together.wait()
        return self._burn()

    def _burn(self) -> float:
        start = time.thread_time()  # in which a thread that spins beside this one does not count
        burn(self._turns, np.zeros(1, np.float32))
        return time.thread_time() - start
