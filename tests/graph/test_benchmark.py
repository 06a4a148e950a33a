"""`fastbp bench graph`: what it counts, checks, prints and writes."""

import json

import pytest

from fastbp import graph
from fastbp.benchmarks import graph as bench
from fastbp.cli import main


def test_edges():
    assert bench.edges_of(bench.doublings()) == 100
    assert bench.edges_of(bench.chain(3)) == 3 * 7
    assert bench.summary({"value": 4, "seconds": {"build": 8e-6}}) == {"build": 2}


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "LENGTHS", (2, 4))
    assert main(["bench", "graph", "--rounds", "1", "--output", str(tmp_path)]) == 0
    read = json.loads((tmp_path / "graph.json").read_text())
    assert [row["value"] for row in read["rows"]] == [14, 28, 100]
    assert all(figure > 0 for row in read["rows"] for figure in row["figures"].values())
    assert read["provenance"]["versions"]["numpy"]
    assert (tmp_path / "graph.png").stat().st_size > 10_000
    assert "2**50 paths" in capsys.readouterr().out


def test_wrong_derivatives_are_not_timed(monkeypatch):
    monkeypatch.setattr(bench.graph, "gradient", lambda y, x: 2 * y)
    monkeypatch.setattr(bench, "race", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(AssertionError, match=r"symbols give .*, not .*; nothing was timed"):
        bench.run(1, lambda message: None)
    assert graph.gradient is bench.graph.gradient
