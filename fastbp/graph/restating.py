"""Expressions stated again: from new variables, and in terms that have loops within a row."""

import itertools

from . import functions as f
from .evaluation import name_of
from .node import Node, build, constant, intern
from .rewriting import like, number_of

WHOLE = ("slice", None, None, None)
_numbers = itertools.count()


def afresh(value: Node, *variables: Node) -> list[Node]:
    """New variables of the same names, and the expression built of them, left to right.

    The numbers of its nodes then follow from the expression alone, not from what the process has
    built before, and with them the order of sums in its derivative and of lines in its code.
    """
    new = {x: _own(x) for x in variables}
    stack = [value]
    while stack:
        node = stack[-1]
        missing = [operand for operand in node.operands if operand not in new]
        stack += reversed(missing)
        if not missing:
            stack.pop()
            operands = tuple(new[operand] for operand in node.operands)
            if node not in new:
                new[node] = like(node, operands) if operands else node
    return [*(new[x] for x in variables), new[value]]


def _own(x: Node) -> Node:
    """A variable that nobody else has, of the same name."""
    key = "variable", name_of(x), next(_numbers)
    return intern(key, "variable", (), x.parameters, x.shape, x.dtype)


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
