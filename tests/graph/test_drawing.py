"""Pictures of graphs, with and without Graphviz."""

import re

import numpy as np
import pytest

from fastbp import graph

x = graph.variable("x", (None, 3))
y = graph.sum(graph.exp(x) * graph.exp(x)[:, :1] * np.array(2.0), axis=1)


def fake_dot(folder, monkeypatch, script):
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_source_has_a_line_per_node_and_per_edge():
    text = graph.source([y, x])
    assert len(re.findall(r"^  n\d+ \[label=", text, re.M)) == 7
    assert len(re.findall(r"^  n\d+ -> n\d+", text, re.M)) == 8 - 1
    assert text.count("peripheries=2") == 2
    assert 'label="x\\n(None, 3)", shape=box' in text
    assert 'label="index\\nkey=[:, :1]\\n(None, 1)"' in text
    assert 'label="sum\\naxes=(1,)\\nkeepdims=False\\n(None,)"' in text


def test_source_of_a_deep_graph():
    node = graph.variable("deep")
    for _ in range(5000):
        node = graph.sin(node)
    assert graph.source(node).count("->") == 5000


def test_without_graphviz_the_source_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert graph.show(y, tmp_path / "y.png") == [tmp_path / "y.gv"]
    assert (tmp_path / "y.gv").read_text() == graph.source(y) + "\n"
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_with_graphviz(ending, tmp_path, monkeypatch):
    fake_dot(tmp_path, monkeypatch, 'echo "$1 $(head -c 9 $4)" > "$3"')
    path = tmp_path / f"y.{ending}"
    assert graph.show(y, path) == [tmp_path / "y.gv", path]
    assert path.read_text() == f"-T{ending} digraph {{\n"


def test_a_name_in_the_current_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    graph.show(y)
    assert (tmp_path / "graph.gv").exists()


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="path: ending: expected one of gv, svg, png; got 'pdf'"):
        graph.show(y, tmp_path / "y.pdf")
    with pytest.raises(TypeError, match="outputs: expected a node"):
        graph.show("y", tmp_path / "y.gv")
    with pytest.raises(OSError, match="No such file"):
        graph.show(y, tmp_path / "nowhere" / "y.gv")
    fake_dot(tmp_path, monkeypatch, "echo no memory >&2; exit 3")
    with pytest.raises(OSError, match=r"dot could not draw .*y.svg: no memory"):
        graph.show(y, tmp_path / "y.svg")
