"""Expressions stated again: from new variables, in terms that have loops within a row, in fewer."""

import itertools
from collections.abc import Sequence
from typing import Any

from . import functions as f
from .node import Node, build, constant, intern
from .rewriting import Rewrite, like, number_of, rebuilt, rewritten
from .walk import depth_first

WHOLE = ("slice", None, None, None)
_numbers = itertools.count()


def afresh(values: Sequence[Node], variables: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The expressions built of new variables of the same names, left to right, and those variables.

    The numbers of their nodes then follow from the expressions alone, not from what the process has
    built before, and with them the order of sums in a derivative and of lines in its code.
    """
    new = {x: _own(x) for x in variables}
    for node in depth_first(values):
        if node.op == "rows":  # which would keep its number, as a variable would
            new[node] = _own(node)
        elif node not in new:
            operands = tuple(new[operand] for operand in node.operands)
            new[node] = like(node, operands) if operands else node
    return [new[value] for value in values], [new[x] for x in variables]


def _own(x: Node) -> Node:
    """A variable, or the batch size, that nobody else has."""
    return intern((x.op, next(_numbers), "own"), x.op, (), x.parameters, x.shape, x.dtype)


def within_row(node: Node) -> Node:
    """An operation that has no loop within a row of the batch by others that have."""
    if node.op == "matmul" and node.ndim == 2:
        a, b = node.operands
        return f.sum(f.reshape(a, (*a.shape, 1)) * b, axis=1)
    if node.op == "index" and set(dict(node.parameters)["key"]) <= {None, WHOLE}:
        return f.reshape(node.operands[0], node.shape)  # new axes alone
    return node


def summed(row: Node) -> Node:
    """c * sum(x), -sum(x) and sum(x) / c as sums of scaled terms, which are known one by one."""
    scalings, total = [], row
    while total.op in ("multiply", "divide", "negative"):
        inner, *others = total.operands
        if total.op == "multiply" and number_of(inner) is not None:
            inner, others = others[0], [inner]
        numbers = [number_of(other) for other in others]
        if None in numbers:
            return row
        scalings.append((total.op, [constant(number, row.dtype) for number in numbers]))
        total = inner
    if total.op != "sum" or total.shape != row.shape:
        return row
    (term,) = total.operands
    for op, factors in reversed(scalings):
        term = build(op, (term, *factors))
    return like(total, (term,))


def condensed(slope: Node) -> Node:
    """A derivative of choices with one `where` for each condition, each product within its branch.

    A slope of huber takes 6 operations for 10. Products of 0, beside the branch that was taken, are
    0 then even where the slope of that branch is infinite.
    """
    return rebuilt([slope], {}, _better)[0]


def _better(node: Node) -> Node:
    return rewritten(node, CONDENSED)


def negated(node: Node) -> Node | None:
    """-x for -1 * x."""
    for c, x in (node.operands, node.operands[::-1]):
        if number_of(c) == -1 and x.shape == node.shape:
            return _better(build("negative", (x,)))
    return None


def abs_of(node: Node) -> Node | None:
    """x for abs(x) * sign(x)."""
    for a, b in (node.operands, node.operands[::-1]):
        while b.op == "stop_gradient":
            (b,) = b.operands
        if a.op == "abs" and b.op == "sign" and a.operands == b.operands:
            return a.operands[0]
    return None


def within_branch(*places: int) -> Rewrite:
    """where(c, g, 0) * p as where(c, g * p, 0), for a `where` at one of these places."""
    plain = {0, 1} if len(places) == 2 else {0}

    def rewrite(node: Node) -> Node | None:
        for i in places:
            choice = node.operands[i]
            if choice.op == "where" and choice.shape == node.shape and plain & {*_branches(choice)}:
                before, after = node.operands[:i], node.operands[i + 1 :]
                inside = [
                    branch if number == 0 else _better(like(node, (*before, branch, *after)))
                    for branch, number in zip(choice.operands[1:], _branches(choice), strict=True)
                ]
                return like(choice, (choice.operands[0], *inside))
        return None

    return rewrite


def _branches(choice: Node) -> list[Any]:
    """The numbers that the branches of a `where` are."""
    return [number_of(branch) for branch in choice.operands[1:]]


def joined(node: Node) -> Node | None:
    """where(c, a, b) + where(c, 0, d) as where(c, a, b + d)."""
    x, y = node.operands
    alike = x.op == y.op == "where" and x.operands[0] is y.operands[0] and x.shape == y.shape
    if not alike or 0 not in (*_branches(x), *_branches(y)):
        return None
    pairs = zip(x.operands[1:], y.operands[1:], strict=True)
    return like(x, (x.operands[0], *(_better(build("add", pair)) for pair in pairs)))


def doubled(node: Node) -> Node | None:
    """c * x + x * c as (2 * c) * x."""
    (c, x), (d, y) = map(_scaled, node.operands)
    return _better((c + d) * x) if x is y else None


def _scaled(node: Node) -> tuple[float, Node]:
    """(c, x) of c * x and x * c, (1, x) of others."""
    for i in (0, 1) if node.op == "multiply" else ():
        c, x = number_of(node.operands[i]), node.operands[1 - i]
        if c is not None and x.shape == node.shape:
            return c, x
    return 1.0, node


CONDENSED: dict[str, tuple[Rewrite, ...]] = {
    "multiply": (
        negated,
        abs_of,
        within_branch(0, 1),
    ),
    "divide": (within_branch(0),),
    "negative": (within_branch(0),),
    "add": (joined, doubled),
}
