"""Derivatives along a direction, Jacobians and Hessians.

The forward mode needs no rule of its own. A slope is linear in g, so its transpose, which carries a
tangent from the operand to the result, is the derivative of the slope by g: the same rules again.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from ..checks import check_count
from . import functions as f
from .derivatives import (
    Nodes,
    Table,
    check_influence,
    check_node,
    check_scalar,
    flows,
    gradient,
    influenced,
    leading,
    no_derivative,
    prepared,
    seed_of,
    sum_to,
    symbols,
    vjp,
    zeros,
)
from .evaluation import as_list
from .node import Node, build, constant
from .rewriting import hole, number_of, simplify, substitute
from .table import OPERATIONS
from .walk import topological


def transposed(node: Node, i: int, tangent: Node) -> Node:
    """What a tangent of operand i adds to that of the node."""
    operation = OPERATIONS[node.op]
    if isinstance(operation.slopes, str):
        raise ValueError(no_derivative(node))
    g = hole(node)
    part = operation.slope(i)(g, node, *node.operands, **dict(node.parameters))
    part = sum_to(part, node.operands[i].shape)
    order = topological([part], after=g.number - 1)  # older nodes know nothing of g
    found: Node = symbols(order, influenced(order, [g]), {part: tangent})[g]
    return found


def push(order: Sequence[Node], tangents: Table) -> Table:
    """Tangents of all nodes of a topological order, from those in the table up."""
    for node in order:
        if node in tangents:
            continue
        for i, operand in enumerate(node.operands):
            if operand in tangents and flows(node, i):
                part = transposed(node, i, tangents[operand])
                tangents[node] = tangents[node] + part if node in tangents else part
    return tangents


def jvp(ys: Nodes, xs: Nodes, vs: Any, *, unused: str = "raise") -> Any:
    """The derivatives of nodes along a direction: the Jacobian times a vector.

    Parameters
    ----------
    ys : node or sequence of nodes
    xs : node or sequence of nodes
        They count as independent.
    vs : node, array or number, or a sequence of them
        The direction: of the shape of each of xs.
    unused : {"raise", "zeros"}
        What happens where one of ys does not depend on one of xs.

    Returns
    -------
    node, or list of nodes for a sequence
        With the shapes of ys.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (2,))
    >>> graph.evaluate(graph.jvp(x[0] * x[1], x, np.array([1.0, 0.0])), {x: np.array([3.0, 4.0])})
    np.float64(4.0)
    """
    wanted, inputs = as_list("ys", ys), as_list("xs", xs)
    directions = [vs] if isinstance(xs, Node) else list(vs)
    if len(directions) != len(inputs):
        raise ValueError(f"vs: expected {len(inputs)} directions, got {len(directions)}")
    tangents = {x: seed_of("vs", v, x) for x, v in zip(inputs, directions, strict=True)}
    simple = simplify(wanted, keep=inputs)
    order = topological(simple)
    for y in simple:
        check_influence(order, y, inputs, unused)
    needed = influenced(order, inputs) & leading(order, simple)
    push([node for node in order if node in needed], tangents)
    results = simplify([tangents.get(y, zeros(y)) for y in simple], keep=inputs)
    return results[0] if isinstance(ys, Node) else results


def taylor(y: Node, x: Node, v: Any, order: int) -> list[Node]:
    """The derivatives of y along a straight line: d^k/dt^k y(x + t v) at t = 0, k = 0...order.

    Parameters
    ----------
    y, x : nodes
    v : node, array or number
        The direction, of the shape of x; it counts as constant.
    order : int
        The last derivative. Each differentiates the one before.

    Examples
    --------
    >>> from fastbp import graph
    >>> x = graph.variable("x")
    >>> [float(d) for d in graph.evaluate(graph.taylor(x**3, x, 1.0, 4), {x: 2.0})]
    [8.0, 12.0, 12.0, 6.0, 0.0]
    """
    check_node("x", x)
    direction = f.stop_gradient(seed_of("v", v, x))
    found = [y]
    for k in range(check_count("order", order, 0)):
        found.append(jvp(found[-1], x, direction, unused="zeros" if k else "raise"))
    return found


def curvature(node: Node, tangents: Table) -> Node | None:
    """The second derivative of a node alone, along the tangents of its operands; None for 0.

    For y = f(z): f''(z) times the tangent squared.
    """
    places = [hole(operand) for operand in node.operands]
    moving = [i for i, o in enumerate(node.operands) if o in tangents and flows(node, i)]
    ways = {i: hole(node.operands[i]) for i in moving}
    alone = build(node.op, tuple(places), **dict(node.parameters))
    at, along = [places[i] for i in moving], list(ways.values())
    second = jvp(jvp(alone, at, along), at, along, unused="zeros")
    if number_of(second) == 0:
        return None
    real = dict(zip(places, node.operands, strict=True))
    real |= {way: tangents[node.operands[i]] for i, way in ways.items()}
    return substitute([second], real)[0]


def laplacian(y: Node, x: Node, *, unused: str = "raise") -> Node:
    """The sum of the second derivatives of y along all axes of x, of the shape of y.

    The values, all first derivatives and one sum of second derivatives go forward together, which
    takes fewer products than a second derivative for each axis (Li et al. 2023, "Forward
    Laplacian").

    Parameters
    ----------
    y : node
        With a row for each row of x, which depends on that row of x alone.
    x : node of shape (None, k)
    unused : {"raise", "zeros"}
        What happens where y does not depend on x.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (None, 2))
    >>> u = x[:, 0] ** 3 * x[:, 1] ** 2
    >>> graph.evaluate(graph.laplacian(u, x), {x: np.array([[1.0, 2.0], [2.0, 1.0]])})
    array([26., 28.])
    """
    check_node("y", y)
    check_node("x", x)
    shape = _known_size("x", x, True)
    if y.shape[:1] != (None,):
        raise ValueError(f"y: expected a row for each row of x, got shape {y.shape}")
    y, (x,), order, reached = prepared(y, [x], unused)
    through = reached & leading(order, [y])
    needed = [node for node in order if node in through and node is not x]
    firsts = [push([x, *needed], {x: unit}) for unit in _units(x, shape, True)]
    seconds: Table = {}
    for node in needed:
        parts = [
            transposed(node, i, seconds[o])
            for i, o in enumerate(node.operands)
            if o in seconds and flows(node, i)
        ]
        parts += [part for first in firsts if (part := curvature(node, first)) is not None]
        if parts:
            seconds[node] = reduce(add, parts)
    (result,) = simplify([seconds.get(y, zeros(y))], keep=[x])
    return result


def hessian_vector_product(y: Node, xs: Nodes, vs: Any, *, unused: str = "raise") -> Any:
    """The Hessian of a number times a vector, without the Hessian.

    Parameters
    ----------
    y : node of shape ()
    xs, vs, unused
        As in `jvp`.

    Returns
    -------
    node, or list of nodes for a sequence
        With the shapes of xs.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (2,))
    >>> product = graph.hessian_vector_product(x[0] ** 2 * x[1], x, np.array([1.0, 0.0]))
    >>> graph.evaluate(product, {x: np.array([3.0, 4.0])})
    array([8., 6.])
    """
    return jvp(gradient(y, xs, unused=unused), xs, vs, unused="zeros")


def _known_size(name: str, node: Node, batch: bool) -> tuple[int, ...]:
    """The shape of one row for `batch`, else the whole shape; all sizes known."""
    shape = node.shape[1:] if batch else node.shape
    if batch and node.shape[:1] != (None,):
        raise ValueError(f"{name}: batch=True expects shape (None, ...), got {node.shape}")
    if None in shape:
        raise ValueError(
            f"{name}: expected a known size, got {node.shape}; batch=True gives a Jacobian "
            "for each row, where a row of y depends on the same row of x alone"
        )
    return tuple(size for size in shape if size is not None)


def _units(like: Node, shape: tuple[int, ...], batch: bool) -> Iterator[Node]:
    """Unit vectors for all elements of a shape, each repeated for the batch."""
    for i in range(int(np.prod(shape))):
        unit = np.zeros(shape, like.dtype)
        unit.reshape(-1)[i] = 1
        yield f.broadcast(constant(unit), (None, *shape)) if batch else constant(unit)


def jacobian(y: Node, x: Node, *, batch: bool = False, unused: str = "raise") -> Node:
    """All derivatives of y by x, of shape y.shape + x.shape.

    Row by row by back-propagation, or column by column forward where x is not larger than y.

    Parameters
    ----------
    y, x : nodes
    batch : bool
        A Jacobian for each row, (None, ...y, ...x): each row of y must depend on the same row of x
        alone, else the derivatives by other rows are added.
    unused : {"raise", "zeros"}
        What happens where y does not depend on x.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (None, 2))
    >>> y = graph.stack([x[:, 0] * x[:, 1], x[:, 0] ** 2], axis=1)
    >>> graph.evaluate(graph.jacobian(y, x, batch=True), {x: np.array([[3.0, 4.0]])})
    array([[[4., 3.],
            [6., 0.]]])
    """
    check_node("y", y)
    check_node("x", x)
    rows = _known_size("y", y, batch)
    if batch:
        _known_size("x", x, batch)
    y, (x,), order, reached = prepared(y, [x], unused)
    if y not in reached:
        before = (None,) if batch else ()
        columns = _known_size("x", x, batch) if batch else x.shape
        return f.broadcast(constant(0.0, y.dtype), (*before, *rows, *columns))
    first = int(batch)  # where the axis of the single derivatives is put
    known = None not in x.shape[first:]
    if known and np.prod([size or 0 for size in x.shape[first:]]) <= np.prod(rows):
        through = reached & leading(order, [y])
        needed = [node for node in order if node in through]
        columns = _known_size("x", x, batch)
        parts = [push(needed, {x: unit})[y] for unit in _units(x, columns, batch)]
        axis = y.ndim
    else:
        parts = [
            symbols(order, reached, {y: unit}).get(x, zeros(x)) for unit in _units(y, rows, batch)
        ]
        axis = first
    shape = (*y.shape, *x.shape[first:])
    stacked = f.stack(parts, axis) if parts else f.broadcast(constant(0.0, y.dtype), shape)
    (result,) = simplify([f.reshape(stacked, shape)], keep=[x])
    return result


def hessian(y: Node, x: Node, *, batch: bool = False, unused: str = "raise") -> Node:
    """All second derivatives of a number by x, of shape x.shape + x.shape.

    Parameters
    ----------
    y : node of shape (), or (None,) for batch
    x : node
    batch : bool
        A Hessian for each row, (None, ...x, ...x), as in `jacobian`.
    unused : {"raise", "zeros"}
        What happens where y does not depend on x.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (2,))
    >>> graph.evaluate(graph.hessian(x[0] ** 2 * x[1], x), {x: np.array([3.0, 4.0])})
    array([[8., 6.],
           [6., 0.]])
    """
    check_node("y", y)
    check_node("x", x)
    if not batch:
        check_scalar(y)
    elif y.shape != (None,):
        raise ValueError(f"y: batch=True expects shape (None,), got {y.shape}")
    one = f.broadcast(constant(1.0, y.dtype), y.shape)
    slope = vjp(y, x, one, unused=unused)
    return jacobian(slope, x, batch=batch, unused="zeros")
