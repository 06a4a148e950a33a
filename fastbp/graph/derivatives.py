"""Derivatives of any order by the rules of operations.py, as numbers or as new graphs.

`sweep` is back-propagation: one pass from the output to the inputs, each edge once. It follows the
rules with whatever the nodes stand for: with arrays it gives numbers, with the nodes themselves it
gives the derivative as a graph.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import functions as f
from .evaluation import Feed, as_list, check_feed, compute, name_of, parameters_of
from .node import Node, constant
from .rewriting import simplify
from .table import OPERATIONS, Shape
from .walk import depth_first, topological

Table = dict[Node, Any]
Nodes = Node | Sequence[Node]


def sum_to(g: Any, shape: Shape) -> Any:
    """g summed over the axes along which an operand of this shape was broadcast."""
    if g.shape == shape:
        return g
    added = len(g.shape) - len(shape)
    ones = [
        i + added
        for i, (size, wide) in enumerate(zip(shape, g.shape[added:], strict=True))
        if size == 1 and wide != 1
    ]
    return f.reshape(f.sum(g, (*range(added), *ones)), shape)


def flows(node: Node, i: int) -> bool:
    """Whether a derivative flows between a node and its operand i."""
    slopes = OPERATIONS[node.op].slopes
    blocked = isinstance(slopes, tuple) and slopes[i] is None
    return not blocked and node.operands[i].dtype.kind == node.dtype.kind == "f"


def influenced(order: Iterable[Node], xs: Iterable[Node]) -> set[Node]:
    """The nodes of a topological order to which a derivative flows from one of xs."""
    reached = set(xs)
    for node in order:
        if any(operand in reached and flows(node, i) for i, operand in enumerate(node.operands)):
            reached.add(node)
    return reached


def leading(order: Sequence[Node], ys: Iterable[Node]) -> set[Node]:
    """The nodes of a topological order from which a derivative flows to one of ys."""
    reached = set(ys)
    for node in reversed(order):
        if node in reached:
            reached.update(o for i, o in enumerate(node.operands) if flows(node, i))
    return reached


def sweep(
    order: Sequence[Node],
    reached: set[Node],
    table: Table,
    value: Callable[[Node], Any],
    parameters: Callable[[Node], Mapping[str, Any]],
) -> Table:
    """Back-propagation: the gradient table, from the outputs in it down to all nodes in `reached`.

    Parameters
    ----------
    order : list of nodes
        In topological order; each edge among `reached` is followed once, and paths that meet in a
        node are summed there.
    reached : set of nodes
        Where gradients are wanted, and all between them and the outputs.
    table : dict
        The gradients of the outputs.
    value, parameters : functions of a node
        What the rules work on: the nodes themselves, or their values.
    """
    for node in reversed(order):
        if not node.operands or node not in table or node not in reached:
            continue
        operation, g = OPERATIONS[node.op], table[node]
        for i, operand in enumerate(node.operands):
            if operand not in reached or not flows(node, i):
                continue
            if isinstance(operation.slopes, str):
                raise ValueError(no_derivative(node))
            operands = [value(o) for o in node.operands]
            part = operation.slope(i)(g, value(node), *operands, **parameters(node))
            part = sum_to(part, operands[i].shape)
            table[operand] = table[operand] + part if operand in table else part
    return table


def no_derivative(node: Node) -> str:
    """Why an operation stops a derivative, and the way out."""
    why = OPERATIONS[node.op].slopes
    return (
        f"{node.op} has no derivative: {why}; "
        "graph.stop_gradient(...) around it makes it a constant"
    )


def symbols(order: Sequence[Node], reached: set[Node], table: Table) -> Table:
    """The sweep on nodes: it gives nodes."""
    return sweep(order, reached, table, lambda node: node, lambda node: dict(node.parameters))


def check_influence(order: Sequence[Node], y: Node, xs: Sequence[Node], unused: str) -> None:
    """Raise ValueError where an input does not influence the output, and say what stopped it."""
    if unused not in ("raise", "zeros"):
        raise ValueError(f"unused: expected 'raise' or 'zeros', got {unused!r}")
    for x in xs:
        if x.dtype.kind != "f":
            raise TypeError(f"xs: expected float32 or float64, got {x!r}")
    if y.dtype.kind != "f":
        operation = OPERATIONS.get(y.op)
        stops = operation is not None and isinstance(operation.slopes, str)
        raise ValueError(no_derivative(y) if stops else f"{label(y)} is {y.dtype}, no float type")
    if unused == "zeros":
        return
    useful = leading(order, [y])
    for x in xs:
        if x in useful:
            continue
        stopped = _stops(order, x)
        why = f" but through {stopped.op}, and {_why(stopped)}" if stopped is not None else ""
        raise ValueError(
            f"{label(x)} does not influence {label(y)}{why}; unused='zeros' gives zeros for it"
        )


def _stops(order: Sequence[Node], x: Node) -> Node | None:
    """The first node that depends on x and hands no derivative on."""
    reached = influenced(order, [x])
    for node in order:
        if node not in reached and any(operand in reached for operand in node.operands):
            return node
    return None


def _why(node: Node) -> str:
    why = OPERATIONS[node.op].slopes
    return why if isinstance(why, str) else "no derivative flows through that operand"


def label(node: Node) -> str:
    """A node in an error: the name of a variable, else what it is."""
    return name_of(node) if node.op == "variable" else repr(node)


class Sweep(NamedTuple):
    """What a backward pass from one output needs, prepared once."""

    y: Node
    xs: list[Node]
    order: list[Node]
    reached: set[Node]


def prepared(y: Any, xs: list[Node], unused: str) -> Sweep:
    """The output simplified, its nodes in order, and those that carry gradients."""
    check_node("y", y)
    (y,) = simplify([y], keep=xs)
    order = depth_first([y])  # in which terms are added
    check_influence(order, y, xs, unused)
    return Sweep(y, xs, order, influenced(order, xs))


def check_node(name: str, node: Any) -> None:
    """Raise TypeError for what is no node."""
    if not isinstance(node, Node):
        raise TypeError(f"{name}: expected a node, got {type(node).__name__}")


def check_scalar(y: Any) -> None:
    """Raise unless y is a node of shape ()."""
    check_node("y", y)
    if y.shape != ():
        raise ValueError(
            f"y: expected a number, got shape {y.shape}; graph.sum(y) has a gradient, "
            "graph.jacobian(y, x) has all derivatives, graph.vjp(y, xs, v) those of sum(v * y)"
        )


def gradient(y: Node, xs: Nodes, *, unused: str = "raise") -> Any:
    """The derivatives of a number by nodes, as nodes that can be differentiated again.

    Parameters
    ----------
    y : node of shape ()
    xs : node or sequence of nodes
        Variables, or other nodes on the way from them to y.
    unused : {"raise", "zeros"}
        What happens where y does not depend on one of xs.

    Returns
    -------
    node, or list of nodes for a sequence
        With the shapes of xs.

    Raises
    ------
    ValueError
        If y is no number, does not depend on one of xs, or depends on it through an operation
        without a derivative: floor, sign, argmax, a comparison, the places of `pick`.

    Examples
    --------
    >>> from fastbp import graph
    >>> x = graph.variable("x")
    >>> dy = graph.gradient(x**3, x)
    >>> print(dy, graph.gradient(dy, x), sep="; ")
    3.0 * x ** 2.0; 3.0 * (2.0 * x)
    """
    check_scalar(y)
    return vjp(y, xs, 1.0, unused=unused)


def vjp(y: Node, xs: Nodes, v: Any, *, unused: str = "raise") -> Any:
    """The derivatives of sum(v * y) by nodes: a vector times the Jacobian.

    Parameters
    ----------
    y : node
    xs : node or sequence of nodes
    v : node, array or number
        Of the shape of y.
    unused : {"raise", "zeros"}
        What happens where y does not depend on one of xs.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (2,))
    >>> graph.evaluate(graph.vjp(x * x, x, np.array([1.0, 10.0])), {x: np.array([3.0, 4.0])})
    array([ 6., 80.])
    """
    wanted = as_list("xs", xs)
    y, _, order, reached = prepared(y, wanted, unused)
    table = symbols(order, reached, {y: seed_of("v", v, y)} if y in reached else {})
    found = [table[x] if x in table else zeros(x) for x in wanted]
    results = simplify(found, keep=wanted)
    return results[0] if isinstance(xs, Node) else results


def seed_of(name: str, v: Any, y: Node) -> Node:
    """A given vector as a node of the shape and dtype of y."""
    seed = v if isinstance(v, Node) else constant(v, y.dtype)
    if seed.shape != y.shape or seed.dtype != y.dtype:
        raise ValueError(f"{name}: expected {y.shape} {y.dtype}, got {seed.shape} {seed.dtype}")
    return seed


def zeros(like: Node) -> Node:
    """Zeros of the shape of a node."""
    zero = constant(0.0, like.dtype)
    return zero if like.shape == () else f.broadcast(zero, like.shape)


def value_and_gradient(
    y: Node, xs: Nodes, feed: Feed | None = None, *, unused: str = "raise"
) -> tuple[Any, Any]:
    """The value of a number and its derivatives, as numbers: back-propagation.

    Parameters
    ----------
    y, xs, unused
        As in `gradient`.
    feed : dict
        As in `evaluate`.

    Returns
    -------
    value : number
    gradients : array, or list of arrays for a sequence

    Examples
    --------
    >>> from fastbp import graph
    >>> x = graph.variable("x")
    >>> y = x
    >>> for _ in range(50):
    ...     y = y + y  # 2**50 paths from x to y, and 100 edges
    >>> value, slope = graph.value_and_gradient(y, x, {x: 1.0})
    >>> slope == 2**50
    np.True_
    """
    check_scalar(y)
    wanted = as_list("xs", xs)
    given, n = check_feed(topological([y, *wanted]), {} if feed is None else feed)
    y, _, order, reached = prepared(y, wanted, unused)
    values = compute(order, given, n)
    with np.errstate(all="ignore"):
        table = sweep(
            order,
            reached,
            {y: np.ones((), y.dtype)} if y in reached else {},
            values.__getitem__,
            lambda node: parameters_of(node, n),
        )
    found = [np.array(table[x] if x in table else np.zeros_like(values[x]))[()] for x in wanted]
    return values[y][()], found[0] if isinstance(xs, Node) else found
