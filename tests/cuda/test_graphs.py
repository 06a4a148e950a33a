"""A recorded step, repeated, is the step: all that changes between two lies on the GPU.

In the simulator a graph is the list of its launches with the arguments of the first time. What the
driver is asked for on a GPU is tested with a stand-in that writes down its calls.
"""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from fastbp.kernels import codes, cuda
from fastbp.kernels.cuda import graphs, launch, target

from .test_network import Case, at, home

DOUBLE = np.dtype(float)


def epochs(case, recorder, count=4, shuffled=True):
    """Sums of some epochs, then table, recipe, gradients, parameters and state."""
    table, recipe, numbers, *rest = case.arrays(cuda, DOUBLE)
    x, t, s = case.data(cuda, DOUBLE)
    rooms = at(cuda, np.empty_like(case.x[:5]), np.empty_like(case.t[:5]), np.empty(5))
    seen, (order,) = [], at(cuda, np.zeros(len(case.x) if shuffled else 0, int))
    with launch.using(stream=target.host.stream(), recorder=recorder):
        for epoch in range(count):
            sums = np.zeros(3)
            cuda.shuffle(epoch, order)
            end = cuda.network_epoch(
                *(x, t, s, order, 0, 9, table, recipe, numbers, *rooms, *rest, sums)
            )
            seen.append([end, *sums])
    return [np.array(seen), table, recipe, *map(home, rest[1:])]


@pytest.mark.parametrize(
    ("name", "options", "shuffled"),
    [
        ("narrow", {"dropout": 0.4, "optimizer": "adamw", "weights": True}, True),
        ("narrow", {"labels": True, "optimizer": "nesterov", "l2": 0.01}, False),
        ("wide", {"dropout": 0.4, "optimizer": "adamw", "clip": "norm"}, True),
    ],
    ids=str,
)
def test_repeated_steps_are_the_steps_launched_one_by_one(name, options, shuffled):
    case, recorder = Case(name, DOUBLE, **options), graphs.Recorder()
    plain, recorded = epochs(case, None, 3, shuffled), epochs(case, recorder, 3, shuffled)
    assert sum(graph is not None for graph in recorder.graphs.values()) == 1 + (len(case.x) % 5 > 0)
    for one, other in zip(plain, recorded, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_that_weighs_nothing_and_a_bad_loss_are_the_same_when_repeated():
    case = Case("narrow", DOUBLE, weights=True, optimizer="adamw")
    case.s[5:10] = 0
    case.t[-1] = np.nan
    plain, recorded = epochs(case, None, 3), epochs(case, graphs.Recorder(), 3)
    assert not np.isfinite(plain[0][:, 3]).all()
    for one, other in zip(plain, recorded, strict=True):
        np.testing.assert_array_equal(one, other)


class Written:
    """The driver's functions, which write down their calls; `refuses` is the one that fails."""

    def __init__(self, refuses=""):
        self.calls, self.refuses = [], refuses

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if name == self.refuses:
                raise RuntimeError(
                    f"Call to {name} results in CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
                )
            return {"cuStreamEndCapture": "graph", "cuGraphInstantiate": "executable"}.get(name)

        return call


@pytest.fixture
def written(monkeypatch):
    """A recorder over written-down driver calls, on stream 7."""

    def make(refuses=""):
        calls = Written(refuses)
        modes = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")
        binding = SimpleNamespace(CUstreamCaptureMode=modes)
        module = SimpleNamespace(driver=calls, binding=binding)
        host = SimpleNamespace(
            cudadrv=SimpleNamespace(driver=module), defer_cleanup=contextlib.nullcontext
        )
        monkeypatch.setattr(graphs, "host", host)
        monkeypatch.setattr(graphs, "SIMULATED", False)
        monkeypatch.setattr(launch, "synchronize", lambda: calls.calls.append(("wait",)))
        return graphs.Recorder(), calls

    class Stream:
        def __int__(self):
            return 7

    with launch.using(stream=Stream()):
        yield make


RECORD = [
    ("cuStreamBeginCapture", 7, "relaxed"),
    ("launch",),
    ("cuStreamEndCapture", 7),
    ("cuGraphInstantiate", "graph", 0),
    ("cuGraphDestroy", "graph"),
]


def test_the_second_time_is_recorded_and_the_third_repeated(written):
    recorder, driver = written()
    for _ in range(4):
        recorder.run("step", lambda: driver.calls.append(("launch",)))
    repeat = ("cuGraphLaunch", "executable", 7)
    assert driver.calls == [("launch",), *RECORD, repeat, repeat, repeat]
    recorder.close()
    assert driver.calls[-2:] == [("wait",), ("cuGraphExecDestroy", "executable")]
    assert not recorder.graphs


def test_another_key_is_another_graph_and_the_oldest_goes(written):
    recorder, driver = written()
    for key in range(graphs.Recorder.MOST + 1):
        recorder.run(key, lambda: None)
        recorder.run(key, lambda: None)
    assert len(recorder.graphs) == graphs.Recorder.MOST
    assert 0 not in recorder.graphs
    assert [name for name, *_ in driver.calls].count("cuGraphExecDestroy") == 1


@pytest.mark.parametrize(
    "refuses", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"]
)
def test_where_the_driver_refuses_every_step_is_launched_and_one_warning_says_so(refuses, written):
    recorder, driver = written(refuses)

    def launches():
        driver.calls.append(("launch",))

    recorder.run("step", launches)
    with pytest.warns(RuntimeWarning, match=f"records no CUDA graph .*{refuses}.*every step is"):
        recorder.run("step", launches)
    for _ in range(2):
        recorder.run("step", launches)
    recording = 0 if refuses == "cuStreamBeginCapture" else 1
    assert driver.calls.count(("launch",)) == 4 + recording  # what was recorded has not run
    assert ("cuGraphDestroy", "graph") in driver.calls or refuses != "cuGraphInstantiate"
    assert not [call for call in driver.calls if call[0] == "cuGraphLaunch"]


def test_a_launch_that_fails_ends_the_recording(written):
    recorder, driver = written()

    def launches():
        if ("cuStreamBeginCapture", 7, "relaxed") in driver.calls:
            raise KeyboardInterrupt

    recorder.run("step", launches)
    with pytest.raises(KeyboardInterrupt):
        recorder.run("step", launches)
    assert driver.calls[-2:] == [("cuStreamEndCapture", 7), ("cuGraphDestroy", "graph")]


def test_without_a_stream_of_its_own_nothing_is_recorded():
    recorder = graphs.Recorder()
    for _ in range(3):
        recorder.run("step", lambda: None)
    assert not recorder.graphs


def test_what_a_graph_refers_to_lives_as_long_as_it_does():
    recorder, stream = graphs.Recorder(), target.host.stream()
    (y,) = at(cuda, np.ones(5, np.float32))
    with launch.using(stream=stream):
        for _ in range(2):
            recorder.run("step", lambda: cuda.activate(codes.SIGMOID, y))
    ((_, kept),) = recorder.graphs.values()
    assert any(argument is y for _, arguments in kept for argument in arguments)
