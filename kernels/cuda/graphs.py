"""Launches recorded once as a CUDA graph and repeated by one call of the driver.

A step of a small network is a few launches of some microseconds that cost the host ten times as
much. Recorded, they are one call. What a graph holds are the addresses and numbers of the launches
it has seen: so all that changes from step to step lies on the GPU (sums.py), and what else may
change is part of the key under which a graph is kept.

Every call of the driver that Numba has no name for stands in `Driver`.
"""

import warnings
from functools import partial

from . import launch
from .target import SIMULATED, host


class Driver:
    """The driver's functions for graphs, by the handle of a stream; each raises what it reports."""

    def __init__(self):
        module = host.cudadrv.driver
        self.call, self.binding = module.driver, module.binding

    def begin(self, stream):
        """From now on launches on the stream are recorded, and none runs."""
        mode = self.binding.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self.call.cuStreamBeginCapture(int(stream), mode)

    def end(self, stream, kept):
        """What was recorded; `kept`: the same as Python knows it."""
        return self.call.cuStreamEndCapture(int(stream))

    def executable(self, graph):
        """The graph as it can be launched."""
        return self.call.cuGraphInstantiate(graph, 0)

    def launch(self, executable, stream):
        """All of its launches, in their order."""
        self.call.cuGraphLaunch(executable, int(stream))

    def destroy(self, graph):
        """Forget what was recorded."""
        self.call.cuGraphDestroy(graph)

    def destroy_executable(self, executable):
        """Forget what can be launched."""
        self.call.cuGraphExecDestroy(executable)


class Simulated:
    """The same functions for the simulator: a graph is the list of its launches."""

    def begin(self, stream):
        """Launches are kept, see launch.recording."""

    def end(self, stream, kept):
        """What was recorded."""
        return kept

    def executable(self, graph):
        """The launches, with the arguments that they had."""
        return [partial(kernel, *arguments) for kernel, arguments in graph]

    def launch(self, executable, stream):
        """All of its launches, in their order."""
        for each in executable:
            each()

    def destroy(self, graph):
        """Nothing to give back."""

    def destroy_executable(self, executable):
        """Nothing to give back."""


def driver():
    """What records here."""
    return Simulated() if SIMULATED else Driver()


class Recorder:
    """The graphs of one training, by key.

    What is asked for the first time runs as it is: kernels are compiled, memory is found. The
    second time it is recorded, and from then on repeated. Where the driver refuses, it runs as it
    is for ever. `close` gives the graphs back.
    """

    MOST = 16  # graphs; a callback that changes the learning rate in every epoch leaves one each

    def __init__(self):
        self.driver, self.graphs, self.refused = driver(), {}, ""

    def run(self, key, launches):
        """Do what `launches()` launches."""
        if self.refused or not launch.stream():
            launches()
        elif key not in self.graphs:
            self._forget_the_oldest()
            self.graphs[key] = None
            launches()
        else:
            self.graphs[key] = self.graphs[key] or self._record(launches)
            if self.graphs[key]:
                self.driver.launch(self.graphs[key][0], launch.stream())
            else:
                launches()

    def _record(self, launches):
        """(executable, what its launches refer to), or None where the driver refuses."""
        stream, graph = launch.stream(), None
        try:
            self.driver.begin(stream)
            with launch.recording() as kept, host.defer_cleanup():  # no memory is freed meanwhile
                try:
                    launches()
                finally:
                    graph = self.driver.end(stream, kept)  # also after an error: the stream goes on
            return self.driver.executable(graph), kept
        except Exception as refusal:  # what is truly wrong shows again without a graph
            self.refused = str(refusal) or type(refusal).__name__
            warnings.warn(
                f"the driver records no CUDA graph ({self.refused}); every step is launched kernel "
                "by kernel, which takes a small network longer",
                RuntimeWarning, stacklevel=2,
            )  # fmt: skip
            return None
        finally:
            if graph is not None:
                self.driver.destroy(graph)

    def _forget_the_oldest(self):
        while len(self.graphs) >= self.MOST:
            self._destroy(self.graphs.pop(next(iter(self.graphs))))

    def _destroy(self, recorded):
        if recorded is not None:
            launch.synchronize()  # it may be running
            self.driver.destroy_executable(recorded[0])

    def close(self):
        """Give all graphs back; the recorder may go on."""
        while self.graphs:
            self._destroy(self.graphs.popitem()[1])
