"""The benchmarks' own arithmetic, on a shape so small that it takes no time."""

import json

import numpy as np
import pytest

from fastbp.benchmarks import dense, measure, report

ROW = {
    "pass": "forward",
    "shape": [2, 3, 4],
    "flops": 48.0,
    "peak": 48e9,
    "seconds": {"fastbp": 2e-9, "NumPy": 6e-9, "PyTorch": 5e-9, "NumPy products": 1e-9},
}


def test_summary():
    figures = dense.summary(ROW)
    assert figures["gflops"] == pytest.approx(24)
    assert figures["of_peak"] == pytest.approx(0.5)
    assert figures["best"] == "PyTorch"
    assert figures["ratio"] == pytest.approx(2.5)
    assert figures["products"] == pytest.approx(0.5)


def test_contenders_agree_and_a_wrong_one_is_refused():
    case = dense.operands(9, 5, 7, np.dtype(np.float64))
    forward = {"fastbp": dense.twin_contenders(dense.cpu, case)[0]}
    backward = {"fastbp": dense.twin_contenders(dense.cpu, case)[1]}
    dense.check(case, forward, backward)
    wrong = {"fastbp": lambda: case["y"] + 1e-6}
    with pytest.raises(AssertionError, match="fastbp is off by 1e-06; nothing was timed"):
        dense.check(case, wrong, backward)


def test_race_takes_turns():
    order = []
    contenders = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = measure.race(contenders, rounds=3, budget=1e-9)
    assert order[-12:] == ["a", "a", "b", "b"] * 3  # each time once untimed
    assert all(s > 0 for s in seconds.values())


def test_peak_counts_what_it_burns():
    burn, flops = measure.fma_peak(np.dtype(np.float32))
    burn()
    seconds = measure.race({"peak": burn}, rounds=2, budget=1e-3)["peak"]
    assert 1e8 < flops / seconds < 1e14  # between a slide rule and a rack


def test_report(tmp_path):
    results = {
        "dtype": "float32",
        "copy_bytes_per_second": 1e10,
        "rows": [ROW, ROW | {"pass": "backward"}],
    }
    report.write_json(results, tmp_path / "dense.json")
    read = json.loads((tmp_path / "dense.json").read_text())
    assert read["rows"][0]["figures"]["best"] == "PyTorch"
    assert report.table(results).row_count == 2
    for path in report.plot(results, tmp_path):
        assert path.stat().st_size > 10_000


def test_provenance_names_versions_and_no_path():
    origin = measure.provenance()
    assert {"numpy", "numba", "scipy", "fastbp", "python"} <= origin["versions"].keys()
    assert origin["threads"] >= 1
    assert "/" not in json.dumps(origin | {"commit": "", "processor": ""})
