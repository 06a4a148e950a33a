"""Derivatives of graphs: cost against the number of edges, and a graph with 2**50 paths."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import graph
from ..graph.walk import topological
from .measure import Contender, provenance, race

LENGTHS = (10, 30, 100, 300, 1000, 3000)  # of a chain whose links have four nodes and seven edges
DOUBLINGS = 50


def chain(length: int) -> graph.Node:
    """A number whose links share what is below: x, then 0.9 sin(x) + x sin(x) / 9 ..."""
    node = graph.variable("x")
    for _ in range(length):
        s = graph.sin(node)
        node = 0.9 * s + node * s / 9
    return node


def doublings(count: int = DOUBLINGS) -> graph.Node:
    """x + x, and so on: 2**count paths from x to the end, over 2 count edges."""
    node = graph.variable("x")
    for _ in range(count):
        node = node + node
    return node


def edges_of(y: graph.Node) -> int:
    """Operands of all nodes that a node needs, constants left out: no derivative goes there."""
    order = topological([y])
    return sum(operand.op != "constant" for node in order for operand in node.operands)


def contenders(build: Callable[[], graph.Node]) -> dict[str, Contender]:
    """What is timed: to build the graph, its value, both kinds of derivative."""
    y, x = build(), graph.variable("x")
    feed = {x: 0.5}
    return {
        "build": Contender(build),
        "value": Contender(lambda: graph.evaluate(y, feed)),
        "back-propagation": Contender(lambda: graph.value_and_gradient(y, x, feed)),
        "gradient as a graph": Contender(lambda: graph.gradient(y, x)),
    }


def check(y: graph.Node) -> None:
    """Raise unless both kinds of derivative agree with each other and with a difference."""
    x, step = graph.variable("x"), 1e-6
    _, numbers = graph.value_and_gradient(y, x, {x: 0.5})
    symbols = graph.evaluate(graph.gradient(y, x), {x: 0.5})
    ahead, back = (graph.evaluate(y, {x: 0.5 + s}) for s in (step, -step))
    difference = (ahead - back) / (2 * step)
    for name, got in (("symbols", symbols), ("a difference", difference)):
        if not np.isclose(got, numbers, rtol=1e-4, atol=1e-9):
            raise AssertionError(f"{name} give {got:g}, not {numbers:g}; nothing was timed")


def run(rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """All rows, as they are written to JSON."""
    plan = [("edges", f"{n} links", lambda n=n: chain(n)) for n in LENGTHS]
    rows = []
    for group, name, build in [*plan, ("paths", f"2**{DOUBLINGS} paths", doublings)]:
        report(name)
        y = build()
        check(y)
        facts = {"group": group, "net": name, "value": edges_of(y), "nodes": len(topological([y]))}
        rows.append(facts | race(contenders(build), rounds))
    return {
        "benchmark": "graph",
        "dtype": "float64",
        "rounds": rounds,
        "provenance": provenance(),
        "rows": rows,
    }


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Microseconds an edge, by what was timed."""
    return {name: 1e6 * seconds / row["value"] for name, seconds in row["seconds"].items()}
