"""The benchmarks' arithmetic, checks and tables, on layers so small that they take no time."""

import importlib.util
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastbp.benchmarks import (
    dense,
    dense_contenders,
    limits,
    measure,
    plots,
    report,
    settling,
    step,
    step_contenders,
)
from fastbp.benchmarks.measure import Contender
from fastbp.benchmarks.step_contenders import Net
from fastbp.cli import main
from fastbp.kernels import codes

ROOT = Path(__file__).resolve().parents[1]
COMPILED = ("torch.compile",)  # seconds for each shape

LAYER = {
    "group": "table",
    "pass": "forward",
    "shape": [2, 3, 4],
    "flops": 48.0,
    "bytes": 60,
    "limits": {"peak": 48e9, "peak, 1 thread": 24e9, "copy": 60e9, "copy, 1 thread": 30e9},
    "seconds": {
        "fastbp": 2e-9,
        "fastbp, 1 thread": 8e-9,
        "NumPy": 6e-9,
        "PyTorch": 5e-9,
        "NumPy products": 1e-9,
    },
}
STEP = {
    "group": "table",
    "value": 2,
    "net": "3-4-2",
    "batch": 2,
    "activation": "relu",
    "loss": "softmax_cross_entropy",
    "flops": 72.0,
    "peak": 72e9,
    "seconds": {"fastbp": 4e-9, "NumPy": 3e-9, "JAX": 5e-9},
}
PINN = {
    "group": "table",
    "net": "2-4-1",
    "batch": 9,
    "dtype": "float32",
    "flops": 6e3,
    "peak": 12e9,
    "seconds": {"fastbp": 1e-6, "JAX, jet": 3e-6, "JAX, by hand": 1.5e-6},
}
ORIGIN = {
    "processor": "abacus",
    "threads": 2,
    "versions": {"fastbp": "0"},
    "missing": ["torch"],
}


def results(benchmark, *rows):
    facts = {"dtype": "float32", "activation": "relu", "rounds": 3, "provenance": ORIGIN}
    return {"benchmark": benchmark, "rows": list(rows)} | facts


def layers():
    passes = [LAYER | {"pass": name} for name in dense.PASSES]
    wider = [row | {"shape": [4, 3, 4]} for row in passes]
    return results("dense", *passes, *wider, *(row | {"group": "sweep"} for row in passes[:2]))


@pytest.fixture
def numpy_alone(monkeypatch):
    """As on a machine without PyTorch, JAX and scikit-learn."""
    for module in (measure, dense_contenders, step_contenders):
        monkeypatch.setattr(module, "installed", lambda package: package in ("numba", "numpy"))


# Timing


def test_race_takes_turns_and_prepares_each():
    order = []
    contenders = {
        "a": Contender(lambda: order.append("a"), lambda: order.append("prepare a")),
        "b": Contender(lambda: order.append("b")),
    }
    times = measure.race(contenders, rounds=3, budget=1e-9)
    # Each time once untimed, but for a turn that is longer than its budget by far.
    turns = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert turns[-9:] == ["prepare a", "a", "b"] * 3
    for name, seconds in times["seconds"].items():
        low, high = times["quartiles"][name]
        assert 0 < low <= seconds <= high


class Unsettled:
    """Moments that do not last, so many times."""

    def __init__(self, bad):
        self.bad = bad

    def wait(self):
        pass

    def lasted(self):
        self.bad -= 1
        return self.bad < 0


@pytest.mark.parametrize("bad", [0, 3, 1000])
def test_a_turn_in_a_bad_moment_is_taken_again(bad):
    prepared = []
    contenders = {"a": Contender(lambda: None, lambda: prepared.append(1))}
    times = measure.race(contenders, rounds=2, budget=1e-9, settling=Unsettled(bad))
    assert times["again"] == min(bad, 2 * measure.AGAIN)
    assert times["unsettled"] == (2 if bad == 1000 else 0)
    assert len(prepared) == 1 + 2 + times["again"]  # once before everything, and before each turn


def test_settling_waits_until_threads_are_apart(monkeypatch):
    rests = []
    monkeypatch.setattr(settling, "rest", lambda: rests.append(1))
    moment = settling.Settling(2)
    slower = iter([1.0, 2.0, 1.9, 1.1, 2.0, 1.2])  # than alone
    moment._pools = [ThreadPoolExecutor(1)]
    monkeypatch.setattr(moment, "_burn", lambda: 1.0)
    monkeypatch.setattr(moment, "_burn_together", lambda: next(slower))
    monkeypatch.setattr(moment, "_are_near", lambda: True)
    moment.wait()  # 1.0
    assert len(rests) == 1
    moment.wait()  # 2.0, 1.9, 1.1
    assert len(rests) == 4
    assert not moment.lasted()  # 2.0
    assert moment.lasted()  # 1.2


def test_settling_gives_up(monkeypatch):
    rests = []
    monkeypatch.setattr(settling, "rest", lambda: rests.append(1))
    moment = settling.Settling(2)
    moment._pools, moment._least = [ThreadPoolExecutor(1)], 1.0
    monkeypatch.setattr(moment, "_burn", lambda: 1.0)
    monkeypatch.setattr(moment, "_burn_together", lambda: 2.0)
    moment.wait()
    assert len(rests) == settling.TRIES


def test_settling_waits_until_threads_are_near(monkeypatch):
    rests = []
    monkeypatch.setattr(settling, "rest", lambda: rests.append(1))
    moment = settling.Settling(2)
    distances = iter([1.0, 6.0, 5.0, 1.1, 6.0, *[6.0] * settling.TRIES])
    moment._pools = [ThreadPoolExecutor(1)] * 2
    monkeypatch.setattr(moment, "_burn", lambda: 1.0)
    monkeypatch.setattr(moment, "_are_apart", lambda: True)
    monkeypatch.setattr(moment, "_distance", lambda pool: next(distances))
    moment.wait()  # 1.0
    assert len(rests) == 1
    moment.wait()  # 6.0, 5.0, 1.1
    assert len(rests) == 4
    assert not moment.lasted()  # 6.0
    moment._patience = 0.0
    moment.wait()
    assert len(rests) == 4 + settling.TRIES


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no threads kept to processors")
def test_settling_burns_on_all_threads_at_once():
    moment = settling.Settling(2)
    moment.wait()
    assert moment._alone > 0
    assert 1 <= moment._least < 100
    assert 0 < moment._nearest < 10
    assert settling.Settling(1).lasted()  # one thread has nobody beside it


def test_use_threads_changes_the_pool_between_turns():
    before = measure.get_num_threads()
    try:
        measure.use_threads(before + 1)()
        assert measure.get_num_threads() == before + 1
    finally:
        measure.use_threads(before)()
    assert measure.get_num_threads() == before


def test_equal_threads_ends():
    before = measure.get_num_threads()
    with measure.equal_threads(before + 1):
        assert measure.get_num_threads() == before + 1
    assert measure.get_num_threads() == before


def test_limits_count_what_they_do():
    for threads in (1, 2):
        machine = limits.Limits(np.dtype(np.float32), threads)
        rates = machine.take_rates(measure.race(machine.contenders, rounds=2, budget=1e-3))
        assert sorted(rates) == sorted(LAYER["limits"])
        assert all(1e8 < rate < 1e14 for rate in rates.values())  # between a slide rule and a rack


def test_provenance_names_versions_and_no_path():
    origin = measure.provenance(["no_such_package"])
    assert {"numpy", "numba", "scipy", "fastbp", "python"} <= origin["versions"].keys()
    assert origin["missing"] == ["no_such_package"]
    assert origin["threads"] >= 1
    assert "/" not in json.dumps(origin | {"commit": "", "processor": ""})


# One layer


def test_summary_of_a_layer():
    figures = dense.summary(LAYER)
    assert figures["gflops"] == pytest.approx(24)
    assert figures["of_peak"] == pytest.approx(0.5)
    assert figures["of_one_peak"] == pytest.approx(0.25)
    assert figures["of_copy"] == pytest.approx(0.5)
    assert figures["best"] == "PyTorch"
    assert figures["ratio"] == pytest.approx(2.5)
    assert figures["products"] == pytest.approx(0.5)
    assert dense.summary(LAYER | {"shape": [17, 3, 4]})["of_copy"] is None


def test_bytes_of_a_pass():
    # x (2, 3), w (3, 4), y (2, 4): 6, 12 and 8 elements.
    assert dense.must_move((2, 3, 4), "forward", 8) == 8 * (6 + 12 + 8)
    assert dense.must_move((2, 3, 4), "backward", 8) == 8 * (2 * 8 + 2 * 6 + 2 * 12)
    assert dense.must_move((2, 3, 4), "both", 8) == 8 * 2 * (6 + 12 + 8)


@pytest.mark.filterwarnings("default")  # of the other packages
@pytest.mark.parametrize("activation", codes.ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_contenders_for_a_layer_agree(activation, dtype):
    case = dense.operands(9, 5, 7, np.dtype(dtype), activation)
    dense.check(case, dense_contenders.contenders(case, 2, COMPILED))


@pytest.mark.parametrize("direction", dense.PASSES)
def test_a_wrong_layer_stops_the_run_before_timing(direction, monkeypatch, numpy_alone):
    def one_is_off(case, threads, without):
        passes = dense_contenders.twin_passes(dense.reference, case)
        first, *others = passes[direction]()
        passes[direction] = lambda: (first + 0.1, *others)
        return {"abacus": {name: Contender(call) for name, call in passes.items()}}

    monkeypatch.setattr(dense, "contenders", one_is_off)
    monkeypatch.setattr(dense, "race", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(AssertionError, match=f"abacus, {direction}, is off by 0.1; nothing was"):
        dense.run("4x3x2", "float64", "tanh", 1, 1, lambda message: None)


@pytest.mark.parametrize("wrong", ["huge", "1x2", "0x1x1", "1x2x3,", "1x-2x3"])
def test_wrong_shapes(wrong):
    with pytest.raises(ValueError, match=r"--shapes: expected large, .* or NxKxM"):
        dense.shapes_of(wrong)


def test_selections():
    assert dense.shapes_of("main,all") == dense.SELECTIONS["all"]
    assert len(set(dense.SELECTIONS["all"])) == len(dense.SELECTIONS["all"])
    assert {(65, 65, 65), (512, 1040, 1040)} <= set(dense.SELECTIONS["odd"])


# A training step


def test_flops_of_a_net():
    # Products of 2 * 5 * 12 and 2 * 5 * 8 operations; three in each layer, two in the first.
    assert Net((3, 4, 2), 5).flops == 2 * 120 + 3 * 80


def test_summary_of_a_step():
    figures = step.summary(STEP)
    assert figures == {"of_peak": pytest.approx(0.25), "best": "NumPy", "ratio": 0.75}
    together = {"fastbp, fit": 2e-9, "JAX, scan": 1e-9}
    figures = step.summary(STEP | {"seconds": STEP["seconds"] | together})
    assert (figures["best"], figures["ratio"]) == ("NumPy", 0.75)
    assert (figures["fit"]["best"], figures["fit"]["ratio"]) == ("JAX, scan", 0.5)


@pytest.mark.filterwarnings("default")  # of the other packages
@pytest.mark.parametrize("activation", step_contenders.NUMPY_ACTIVATIONS)
@pytest.mark.parametrize(
    ("sizes", "loss"),
    [
        ((5, 4, 3), "softmax_cross_entropy"),
        ((5, 6, 4, 2), "softmax_cross_entropy"),
        ((5, 4, 1), "binary_cross_entropy"),
        ((5, 4, 3), "half_squared_error"),
        ((5, 4, 1), "half_squared_error"),
    ],
    ids=str,
)
def test_contenders_for_a_step_agree(sizes, loss, activation):
    start = step_contenders.problem(Net(sizes, 7, activation, loss))
    every = (*step_contenders.CONTENDERS, *step_contenders.TOGETHER)
    names = [name for name in every if name not in COMPILED]
    candidates = step_contenders.contenders(start, names, step.STEPS)
    assert {"fastbp", "fastbp, fit", "NumPy", "NumPy, in place"} <= candidates.keys()
    step.check(start, candidates)


def test_only_nets_that_scikit_learn_has():
    fits = step_contenders.ScikitLearn.fits
    assert not fits(Net((3, 2), 1))  # it has one logistic output for two classes
    assert not fits(Net((3, 2), 1, loss=step.LOGISTIC))
    assert fits(Net((3, 1), 1, loss=step.LOGISTIC))
    assert fits(Net((3, 2), 1, loss=step.SQUARES))


def test_a_wrong_step_stops_the_run_before_timing(monkeypatch, numpy_alone):
    class Hasty(step_contenders.NumPyInPlace):
        def __call__(self):
            super().__call__()
            self.w[0] -= 0.1 * self.dw[0]  # which holds the learning rate already

    monkeypatch.setattr(step, "contenders", lambda start, *_: {"Hasty": Hasty(start)})
    monkeypatch.setattr(step, "race", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(AssertionError, match=r"Hasty, 5-4-3, is off by .*; nothing was timed"):
        step.run("5-4-3@7", 1, 1, lambda message: None)


@pytest.mark.parametrize("wrong", ["huge", "5-4-3", "5@1", "5-0@1", "5-4@0", "5-4@1,"])
def test_wrong_nets(wrong):
    with pytest.raises(ValueError, match="--shapes: expected nets, growth or SIZES@BATCH"):
        step.plan_of(wrong)


# Commands and what they write


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["dense", "--shapes", "2x3x4", "--activation", "tanh"], "dense-float32-tanh-2x3x4"),
        (["step", "--shapes", "3-4-2@5", "--threads", "1"], "step-1-thread-3-4-2@5"),
    ],
    ids=["dense", "step"],
)
def test_command(arguments, name, tmp_path, numpy_alone, capsys):
    assert main(["bench", *arguments, "--rounds", "2", "--output", str(tmp_path)]) == 0
    read = json.loads((tmp_path / f"{name}.json").read_text())
    assert read["provenance"]["missing"]
    for row in read["rows"]:
        assert row["figures"]["ratio"] > 0
        assert row["seconds"].keys() == row["quartiles"].keys()
    assert "Not installed for this run: torch" in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("what", ["dense", "step"])
def test_command_names_a_wrong_argument(what, tmp_path, capsys):
    arguments = ["bench", what, "--output", str(tmp_path)]
    assert main([*arguments, "--shapes", "huge"]) == 2
    assert "--shapes: expected" in capsys.readouterr().err
    assert main([*arguments, "--rounds", "0"]) == 2
    assert "--rounds: expected" in capsys.readouterr().err


@pytest.mark.parametrize("measured", [layers(), results("step", STEP)], ids=["dense", "step"])
def test_report(measured, tmp_path):
    report.write_json(measured, tmp_path / "some.json")
    read = json.loads((tmp_path / "some.json").read_text())
    assert read["rows"][0]["figures"]["ratio"] > 0
    assert report.table(measured).row_count == len(measured["rows"])
    for path in plots.plot(measured, tmp_path, "some"):
        assert path.stat().st_size > 10_000


def test_growth_is_drawn(tmp_path):
    rows = [STEP | {"group": "depth", "value": value} for value in (1, 2)]
    (path,) = plots.plot(results("step", *rows), tmp_path, "growth")
    assert path.stat().st_size > 10_000


# README.md


@pytest.fixture
def table():
    """bench/table.py as a module."""
    spec = importlib.util.spec_from_file_location("table", ROOT / "bench" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MARKERS = (
    "before\n<!-- bench dense-float32:begin -->\nold layers\n<!-- bench dense-float32:end -->\n"
    "between\n<!-- bench step:begin -->\nold steps\n<!-- bench step:end -->\nafter\n"
)


def test_tables_of_the_readme(table, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKERS)
    report.write_json(layers(), tmp_path / "dense-float32.json")
    table.main(tmp_path, readme)
    text = readme.read_text()
    assert "old layers" not in text
    assert "old steps" in text  # no results, no change
    assert "| 2 x 3 x 4 | 50 | 2.50 | 50 | 2.50 | 50 | 2.50 |" in text
    assert "Fastest in all 6 measurements." in text
    assert "Not installed for this run: torch." in " ".join(text.split())

    report.write_json(results("step", STEP), tmp_path / "step.json")
    one = STEP | {"seconds": {"fastbp": 1e-9, "NumPy": 2e-9}}
    report.write_json(results("step", one), tmp_path / "step-1-thread.json")
    table.main(tmp_path, readme)
    again = readme.read_text()
    lines = [line for line in again.splitlines() if line in ("before", "between", "after")]
    assert lines == ["before", "between", "after"]
    assert (
        "| 3-4-2, relu, softmax | 2 | 0.0 | NumPy 0.0 | 0.75 | 2.00 | 25 | - |  |  |  |  |" in again
    )
    assert "Lost, 1 of 1: 3-4-2 batch 2 (0.75, NumPy)." in again
    assert "A step with one thread: Fastest in all 1 measurements." in again
    lines = [line for line in again.splitlines() if not line.startswith("|")]
    assert max(map(len, lines)) <= 110
    table.main(tmp_path, readme)
    assert readme.read_text() == again


def test_readme_without_markers_stays(table, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no table\n")
    report.write_json(results("step", STEP), tmp_path / "step.json")
    with pytest.raises(SystemExit, match="expected one of dense-float32, step"):
        table.main(tmp_path, readme)
    assert readme.read_text() == "no table\n"


def test_our_documents_have_the_markers(table):
    text = "".join(document.read_text(encoding="utf-8") for document in table.DOCUMENTS)
    for name in table.TABLES:
        assert table.between(text, name, "").count(f"<!-- bench {name}:") == 2


def test_tables_of_the_notes(table, tmp_path):
    notes = tmp_path / "cpu.md"
    notes.write_text(
        "<!-- bench layers:begin -->\n<!-- bench layers:end -->\n"
        "<!-- bench ceilings:begin -->\n<!-- bench ceilings:end -->\n"
        "<!-- bench pinn:begin -->\n<!-- bench pinn:end -->\n"
    )
    tanh = layers() | {"activation": "tanh", "selection": "main"}
    for row in tanh["rows"]:
        row["shape"] = [64, 64, 64]
    report.write_json(tanh, tmp_path / "dense-float32.json")
    for name, other in (("elsewhere", {"processor": "slide rule"}), ("alone", {"threads": 1})):
        run = tanh | {"activation": name, "provenance": ORIGIN | other}
        report.write_json(run, tmp_path / f"dense-{name}.json")
    report.write_json(results("step", STEP), tmp_path / "step.json")
    report.write_json(results("pinn", PINN), tmp_path / "pinn.json")
    table.main(tmp_path, notes)
    text = notes.read_text()
    cells = "50 to 50 | 50 to 50 | 50 to 50 | 2.50 to 2.50 | 0 of 6 |"
    assert f"| small | tanh, float32 | {cells}" in text
    assert "| elsewhere, float32" not in text  # measured on another machine
    assert "| alone, float32" not in text
    assert "| 3-4-2 | 2 | 0.75 | 25 | 3.0 |  |  |" in text
    cells = "1.0 | 50 | JAX, jet 3.0 | 3.00 | JAX, by hand 1.5 | 1.50 | 3.00 |"
    assert f"| 2-4-1 | float32 | 9 | {cells}" in text


# A step with second derivatives in the loss


def test_pinn_contenders_agree_by_hand():
    from fastbp.benchmarks import pinn

    net, x, f = pinn.problem((2, 6, 5, 1), 9, "float64")
    parameters = [p for layer in net.layers for p in (layer.w, layer.b)]
    laplacian = pinn.by_hand(parameters, x, np.tanh)
    np.testing.assert_allclose(laplacian, net.to("reference").laplacian(x)[:, 0], rtol=1e-10)
    ours = pinn.ours(net, x, f)
    assert ours()[0] == pytest.approx(np.mean((laplacian - f) ** 2))
    steps = {pinn.OURS: ours, "another": ours}
    pinn.check(steps, "float64")
    with pytest.raises(AssertionError, match=r"another is .* off; nothing was timed"):
        pinn.check(steps | {"another": lambda: (0.0, ours()[1])}, "float64")


def test_pinn_table_and_picture(tmp_path):
    made = {"benchmark": "pinn", "rows": [PINN], "provenance": {"threads": 2}}
    assert report.SUMMARIES["pinn"](PINN) == {
        "of_peak": pytest.approx(0.5),
        "best": "JAX, jet",
        "ratio": pytest.approx(3.0),
        "best by hand": "JAX, by hand",
        "ratio by hand": pytest.approx(1.5),
        "bound by hand": pytest.approx(3.0),
    }
    assert report.table(made).row_count == 1
    (picture,) = plots.plot(made, tmp_path, "pinn")
    assert picture.stat().st_size > 10_000
