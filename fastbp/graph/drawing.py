"""Graphs as pictures: Graphviz source, and SVG or PNG where its program `dot` is installed."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checks import check_choice
from .evaluation import as_list
from .node import Node
from .text import INFIX, key_text, title, value_text
from .walk import topological

FORMATS = ("gv", "svg", "png")
LOOKS = {
    "variable": 'shape=box, style="rounded,filled", fillcolor="#dbeafe"',
    "constant": 'shape=box, style=filled, fillcolor="#f1f5f9"',
}
OUTPUT = "peripheries=2"


def source(outputs: Node | Sequence[Node]) -> str:
    """A graph in Graphviz's language: operands above, outputs with a double line.

    Examples
    --------
    >>> from fastbp import graph
    >>> x = graph.variable("x")
    >>> print(graph.source(x * graph.exp(x)))
    digraph {
      node [shape=ellipse, fontname="Helvetica", fontsize=11];
      n0 [label="x", shape=box, style="rounded,filled", fillcolor="#dbeafe"];
      n1 [label="exp"];
      n2 [label="*", peripheries=2];
      n0 -> n1;
      n0 -> n2 [label="1"];
      n1 -> n2 [label="2"];
    }
    """
    wanted = as_list("outputs", outputs)
    order = topological(wanted)
    names = {node: f"n{i}" for i, node in enumerate(order)}
    lines = ["digraph {", '  node [shape=ellipse, fontname="Helvetica", fontsize=11];']
    for node in order:
        looks = [_quoted(label(node)), LOOKS.get(node.op, ""), OUTPUT if node in wanted else ""]
        lines.append(f"  {names[node]} [label={', '.join(filter(None, looks))}];")
    for node in order:
        for i, operand in enumerate(node.operands, 1):
            place = f' [label="{i}"]' if len(node.operands) > 1 else ""
            lines.append(f"  {names[operand]} -> {names[node]}{place};")
    return "\n".join([*lines, "}"])


def label(node: Node) -> str:
    """What stands in a node of the picture: the operation, its parameters, its shape if any."""
    parameters = dict(node.parameters)
    if node.op == "constant":
        return value_text(parameters["value"])
    name = INFIX[node.op][0] if node.op in INFIX else {"negative": "-"}.get(node.op, title(node))
    words = [f"{key}={_word(key, value)}" for key, value in parameters.items() if key != "name"]
    return "\n".join([name, *words, *([str(node.shape)] if node.shape else [])])


def _word(key: str, value: Any) -> str:
    return f"[{key_text(value)}]" if key == "key" else str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def show(outputs: Node | Sequence[Node], path: str | Path = "graph.svg") -> list[Path]:
    """Write a picture of a graph: its Graphviz source, and the drawing where `dot` is installed.

    Parameters
    ----------
    outputs : node or sequence of nodes
    path : str or Path
        Of the drawing, ending in .svg or .png; or in .gv for the source alone. The source lies
        beside it, with the ending .gv.

    Returns
    -------
    list of Path
        What was written. Without Graphviz's program `dot` that is the source, which any viewer of
        Graphviz shows.

    Raises
    ------
    ValueError
        For another ending.
    OSError
        If a file cannot be written, or `dot` fails.

    Examples
    --------
    >>> import tempfile
    >>> from fastbp import graph
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in graph.show(graph.variable("x") + 1, folder + "/sum.gv")]
    ['sum.gv']
    """
    path = Path(path)
    check_choice("path: ending", path.suffix.removeprefix("."), FORMATS)
    written = [path.with_suffix(".gv")]
    written[0].write_text(source(outputs) + "\n", encoding="utf-8")
    dot = shutil.which("dot")
    if path.suffix != ".gv" and dot is not None:
        command = [dot, f"-T{path.suffix[1:]}", "-o", str(path), str(written[0])]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            raise OSError(f"dot could not draw {path}: {done.stderr.strip()}")
        written.append(path)
    return written
