"""Simplification: the same values from fewer or stabler operations.

Equal expressions are one node already (node.py). Here a table of rewrites goes over a graph once,
operands first. A rewrite keeps shape and dtype, and every value with it, NaN and infinity included;
what the stable forms change is in docs/graph.md: they are finite where exp over- or underflows.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from . import functions as f
from .node import Node, build, constant, intern
from .table import OPERATIONS
from .walk import topological

Rewrite = Callable[[Node], Node | None]
FOLDED = 64  # elements of a folded constant, where its operands have fewer

_holes = itertools.count()


def hole(like: Node) -> Node:
    """A variable that nobody else has, in the place of a node."""
    key = ("variable", f"_{next(_holes)}")
    return intern(key, "variable", (), (("name", key[1]),), like.shape, like.dtype)


def substitute(outputs: Sequence[Node], replaced: Mapping[Node, Node]) -> list[Node]:
    """The outputs with other nodes in the place of some.

    Examples
    --------
    >>> from fastbp import graph
    >>> x, y = graph.variable("x"), graph.variable("y")
    >>> print(*graph.substitute([x * graph.exp(x)], {x: y}))
    y * exp(y)
    """
    for old, new in replaced.items():
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(f"replaced: expected shape and dtype of {old!r}, got {new!r}")
    return rebuilt(outputs, replaced, lambda node: node)


def simplify(outputs: Sequence[Node], keep: Iterable[Node] = ()) -> list[Node]:
    """The outputs by fewer or stabler operations.

    Parameters
    ----------
    outputs : sequence of nodes
    keep : nodes
        They stay as they are, so that one can still differentiate by them.

    Examples
    --------
    >>> from fastbp import graph
    >>> x = graph.variable("x", (None, 3))
    >>> print(*graph.simplify([graph.log(graph.sum(graph.exp(x * 1), axis=1)) + 0]))
    logsumexp(x, axes=(1,))
    """
    holes = {node: hole(node) for node in keep if node.operands}
    results = rebuilt(outputs, holes, rewritten)
    back = {place: node for node, place in holes.items()}
    return substitute(results, back) if back else results


def rebuilt(
    outputs: Sequence[Node], replaced: Mapping[Node, Node], improve: Callable[[Node], Node]
) -> list[Node]:
    """The outputs built again, operands first, each node passed through a function."""
    new = dict(replaced)
    for node in topological(outputs):
        if node not in new:
            operands = tuple(new[operand] for operand in node.operands)
            same = operands == node.operands
            again = node if same else build(node.op, operands, **dict(node.parameters))
            new[node] = improve(again)
    return [new[node] for node in outputs]


def like(node: Node, operands: tuple[Node, ...]) -> Node:
    """The node's operation on other operands."""
    return build(node.op, operands, **dict(node.parameters))


def rewritten(node: Node, more: Mapping[str, tuple[Rewrite, ...]] | None = None) -> Node:
    """A node after all rewrites that apply to it, those of another table among them."""
    while node.operands:
        others = () if more is None else more.get(node.op, ())
        tries = (*REWRITES.get(node.op, ()), *others, narrowed, uniform, folded)
        found = next((r for rewrite in tries if (r := rewrite(node)) is not None), None)
        if found is None:
            break
        assert (found.shape, found.dtype) == (node.shape, node.dtype), node
        node = found
    return node


def number_of(node: Node) -> Any:
    """The number that all elements of a node are, or None."""
    while node.op in ("broadcast", "reshape"):
        (node,) = node.operands
    if node.op != "constant":
        return None
    value = node.parameters[0][1].reshape(-1)
    return value[0].item() if value.size and (value == value[0]).all() else None


def folded(node: Node) -> Node | None:
    """The value of an operation on constants."""
    known = all(operand.op == "constant" for operand in node.operands)
    if not known or None in node.shape or node.op == "stop_gradient":
        return None
    if _size(node) > max(FOLDED, *(_size(operand) for operand in node.operands)):
        return None
    arrays = [operand.parameters[0][1] for operand in node.operands]
    with np.errstate(all="ignore"):
        value = OPERATIONS[node.op].value(*arrays, **dict(node.parameters))
    return constant(np.asarray(value, node.dtype))


def _size(node: Node) -> int:
    return prod(size or 0 for size in node.shape)


def narrowed(node: Node) -> Node | None:
    """An elementwise operation without a broadcast that it does anyway."""
    if not OPERATIONS[node.op].elementwise:
        return None
    for i, operand in enumerate(node.operands):
        if operand.op == "broadcast":
            fewer = (*node.operands[:i], operand.operands[0], *node.operands[i + 1 :])
            better = like(node, fewer)
            if better.shape == node.shape:
                return better
    return None


def uniform(node: Node) -> Node | None:
    """An elementwise operation on numbers that were broadcast: the broadcast of its number."""
    if not OPERATIONS[node.op].elementwise or not any(o.op == "broadcast" for o in node.operands):
        return None
    numbers = [number_of(operand) for operand in node.operands]
    if None in numbers:
        return None
    parts = [constant(c, o.dtype) for c, o in zip(numbers, node.operands, strict=True)]
    return f.broadcast(rewritten(like(node, tuple(parts))), node.shape)


def neutral(number: float, *places: int) -> Rewrite:
    """x for an operation on x and a number, at one of these places, that changes nothing."""

    def rewrite(node: Node) -> Node | None:
        for i in places:
            x = node.operands[1 - i]
            if number_of(node.operands[i]) == number and x.shape == node.shape:
                return x
        return None

    return rewrite


def twice(node: Node) -> Node | None:
    """-(-x) is x."""
    (x,) = node.operands
    return x.operands[0] if x.op == node.op else None


def chosen(node: Node) -> Node | None:
    """where() with a known condition, or the same on both sides."""
    condition, a, b = node.operands
    known = number_of(condition)
    if known is None and a is not b:
        return None
    taken = b if known is False else a
    return taken if taken.shape == node.shape else f.broadcast(taken, node.shape)


def reordered(node: Node) -> Node | None:
    """One transposition for two, none for the order as it is."""
    (x,) = node.operands
    axes = dict(node.parameters)["axes"]
    if axes == tuple(range(x.ndim)):
        return x
    if x.op == "transpose":
        return f.transpose(x.operands[0], [dict(x.parameters)["axes"][axis] for axis in axes])
    return None


def reshaped(node: Node) -> Node | None:
    """One reshape or broadcast for two, none for the shape as it is."""
    (x,) = node.operands
    if x.shape == node.shape:
        return x
    return like(node, x.operands) if x.op == node.op else None


def unreduced(node: Node) -> Node | None:
    """x for its sum over no axes."""
    return None if dict(node.parameters)["axes"] else node.operands[0]


def uncast(node: Node) -> Node | None:
    """x for a cast to its own type."""
    (x,) = node.operands
    return x if x.dtype == node.dtype else None


def whole(node: Node) -> Node | None:
    """x for x[:]."""
    everything = all(entry == ("slice", None, None, None) for entry in dict(node.parameters)["key"])
    return node.operands[0] if everything else None


def same_rows(node: Node) -> Node | None:
    """The product of a matrix whose rows are all the same: one row of it, repeated."""
    a, b = node.operands
    if a.op != "broadcast" or b.ndim != 2:
        return None
    (row,) = a.operands
    if row.ndim > 1 and row.shape[:-1] != (1,) * (row.ndim - 1):
        return None
    if row.shape[-1:] != a.shape[-1:]:
        return None
    return f.broadcast(f.reshape(row, (1, row.shape[-1])) @ b, node.shape)


def log_of(node: Node) -> Node | None:
    """Stable forms of log: of exp, of a sum of exp, of a sigmoid, of 1 - sigmoid, of a softmax."""
    (inner,) = node.operands
    if inner.op == "exp":
        return inner.operands[0]
    if inner.op == "sum" and inner.operands[0].op == "exp":
        return build("logsumexp", inner.operands[0].operands, **dict(inner.parameters))
    if inner.op == "sigmoid":
        return -f.softplus(-inner.operands[0])
    if inner.op == "softmax":
        (x,), axes = inner.operands, dict(inner.parameters)["axes"]
        return x - f.logsumexp(x, axes, True)
    if inner.op == "subtract" and number_of(inner.operands[0]) == 1:
        s = inner.operands[1]
        return -f.softplus(s.operands[0]) if s.op == "sigmoid" and s.shape == node.shape else None
    if inner.op == "add":
        e = _beside_one(inner)
        return f.softplus(e.operands[0]) if e is not None and e.op == "exp" else None
    return None


def log1p_of(node: Node) -> Node | None:
    """Stable forms of log(1 + x): of exp, and of -sigmoid."""
    (inner,) = node.operands
    if inner.op == "exp":
        return f.softplus(inner.operands[0])
    if inner.op == "negative" and inner.operands[0].op == "sigmoid":
        return -f.softplus(inner.operands[0].operands[0])
    return None


def _beside_one(node: Node) -> Node | None:
    """x of x + 1 or 1 + x."""
    return neutral(1.0, 0, 1)(node)


def share_of(node: Node) -> Node | None:
    """exp(x) / sum(exp(x)) is a softmax, 1 / (1 + exp(-x)) a sigmoid."""
    a, b = node.operands
    if a.op == "exp" and b.op == "sum" and b.operands == (a,) and dict(b.parameters)["keepdims"]:
        return f.softmax(a.operands[0], dict(b.parameters)["axes"])
    if number_of(a) == 1 and b.op == "add" and b.shape == node.shape:
        e = _beside_one(b)
        if e is not None and e.op == "exp" and e.operands[0].op == "negative":
            return f.sigmoid(e.operands[0].operands[0])
    return None


REWRITES: dict[str, tuple[Rewrite, ...]] = {
    "add": (neutral(0.0, 0, 1),),
    "subtract": (neutral(0.0, 1),),
    "multiply": (neutral(1.0, 0, 1),),
    "divide": (neutral(1.0, 1), share_of),
    "power": (neutral(1.0, 1),),
    "negative": (twice,),
    "where": (chosen,),
    "transpose": (reordered,),
    "reshape": (reshaped,),
    "broadcast": (reshaped,),
    "matmul": (same_rows,),
    "sum": (unreduced,),
    "cast": (uncast,),
    "index": (whole,),
    "log": (log_of,),
    "log1p": (log1p_of,),
}
