"""The moment to measure: idle threads asleep, and every thread on a processor of its own.

The processors of a virtual machine are threads of its host, which may run two of them on one core
for a while: two threads then do the work of one, whoever computes. The host decides anew when a
processor wakes up, so the remedy is to sleep a little and to look again.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..kernels.cpu.peak import burn

REST = 0.02  # seconds of sleep after which idle threads are looked at: several ticks of the clock
LONGEST_REST = 0.5  # OpenBLAS's threads spin for a tenth of a second
BURN = 1e-3  # seconds for which threads compute, to see whether they slow one another down
SLOWER = 1.3  # than at the best moment seen: two on one core take 2.0, on two cores 1.0 to 1.1
TRIES = 25


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
        if self._pools:
            self._burn()  # compiles
            self._turns = max(1, round(self._turns * BURN / min(self._burn() for _ in range(9))))

    def wait(self) -> None:
        """Rest, and again until no thread slows another down.

        That is half a second if no moment is good, longer while idle threads still spin.
        """
        for _ in range(TRIES):
            rest()
            if not self._pools:
                return
            self._alone = self._pools[0].submit(self._burn).result()
            if self._are_apart():
                return

    def lasted(self) -> bool:
        """Whether the threads still run as fast as after `wait`."""
        return not self._pools or self._are_apart()

    def _are_apart(self) -> bool:
        running = [pool.submit(self._burn_together) for pool in self._pools]
        slower = max(1.0, max(one.result() for one in running) / self._alone)
        self._least = min(self._least, slower)
        return slower < SLOWER * self._least

    def _burn_together(self) -> float:
        self._together.wait()
        return self._burn()

    def _burn(self) -> float:
        start = time.thread_time()  # in which a thread that spins beside this one does not count
        burn(self._turns, np.zeros(1, np.float32))
        return time.thread_time() - start
