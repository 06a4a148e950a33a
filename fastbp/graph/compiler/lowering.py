"""What the compiler sees: dense layers found, operations without a loop of their own spelt out."""

import operator
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from typing import Any

from ...kernels import codes
from .. import functions as f
from ..node import Node, build
from ..rewriting import rebuilt, simplify
from ..walk import topological

PLAIN = (("activation", "identity"),)
NARROW = 4  # a product with fewer rows or columns than that is a loop: a tile would be mostly empty


def lowered(outputs: Sequence[Node]) -> list[Node]:
    """The outputs simplified, and all nodes in terms that the compiler has loops or kernels for."""
    # Simplified after this, a softmax would be one again.
    return with_activations(rebuilt(simplify(outputs), {}, lower))


def lower(node: Node) -> Node:
    """One node in such terms."""
    change = LOWER.get(node.op)
    return node if change is None else change(node, **dict(node.parameters))


def exponentials(x: Node, axes: tuple[int, ...]) -> tuple[Node, Node]:
    """exp(x - max(x)), where an infinite maximum counts as 0 below itself, and max(x)."""
    peak = f.max(x, axes, True)
    return f.exp(f.where(f.equal(x, peak), 0.0, x - peak)), peak


def softmax(node: Node, axes: tuple[int, ...]) -> Node:
    """e / sum(e)."""
    e, _ = exponentials(node.operands[0], axes)
    return e / f.sum(e, axes, True)


def logsumexp(node: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """max(x) + log(sum(e))."""
    e, peak = exponentials(node.operands[0], axes)
    return f.reshape(peak + f.log(f.sum(e, axes, True)), node.shape)


def matmul(node: Node) -> Node:
    """Stacks of matrices as a sum of products: they have no kernel."""
    a, b = node.operands
    if a.ndim == b.ndim == 2:
        return node
    return f.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def add(node: Node) -> Node:
    """x @ w + b is a dense layer."""
    for product, b in (node.operands, node.operands[::-1]):
        if product.op == "matmul" and product.ndim == 2 and b.shape == product.shape[1:]:
            x, w = product.operands
            if "transpose" not in (x.op, w.op):
                return f.dense(x, w, b)
    return node


def with_activations(outputs: Sequence[Node]) -> list[Node]:
    """f(z) of a layer z in one node, where nothing else needs z or the kernel can write both."""
    order = topological(outputs)
    uses = Counter(operand for node in order for operand in node.operands)
    uses.update(outputs)
    new: dict[Node, Node] = {}
    for node in order:
        operands = tuple(new[operand] for operand in node.operands)
        z = operands[0] if operands else node
        same = operands == node.operands
        new[node] = node if same else build(node.op, operands, **dict(node.parameters))
        code = codes.ACTIVATIONS.get(node.op)
        layer = code is not None and z.op == "dense" and z.parameters == PLAIN
        if layer and (uses[node.operands[0]] == 1 or code in codes.KEEPS_Z):
            new[node] = build("dense", z.operands, activation=node.op)
    return [new[node] for node in outputs]


def stop_gradient(node: Node) -> Node:
    """x: nothing is differentiated any more."""
    return node.operands[0]


def narrowed(node: Node) -> Node:
    """A narrow product, x @ w or x.T @ dz with up to NARROW rows or columns, as sums of products.

    A loop can do it where it computes what the product needs, or what is computed from it.
    """
    if node.op == "dense":
        return narrow_layer(node)
    if node.op != "matmul" or node.ndim != 2:
        return node
    a, b = node.operands
    (n, k), m = a.shape, b.shape[1]
    if k is None and n is not None and m is not None:  # x.T @ dz, a sum over rows
        x, dz = a.operands[0] if a.op == "transpose" else f.swap(a), b
        if m <= NARROW:
            sums = [f.reshape(f.sum(x * dz[:, j : j + 1], 0), (n, 1)) for j in range(m)]
            return joined(sums, 1)
        sums = [f.sum(x[:, j : j + 1] * dz, 0, True) for j in range(n)] if n <= NARROW else []
        return joined(sums, 0) if sums else node
    if k is not None and 0 < k <= NARROW:
        return reduce(operator.add, (a[:, j : j + 1] * b[j : j + 1] for j in range(k)))
    if m is not None and 0 < m <= NARROW:
        return joined([f.sum(a * f.swap(b[:, j : j + 1]), 1, True) for j in range(m)], 1)
    return node


def narrow_layer(node: Node) -> Node:
    """A layer whose product is narrow, spelt out."""
    x, w = node.operands[:2]
    z = narrowed(build("matmul", (x, w)))
    if z.op == "matmul":
        return node
    for b in node.operands[2:]:
        z = z + b
    activation = dict(node.parameters)["activation"]
    return z if activation == "identity" else build(activation, (z,))


def joined(parts: Sequence[Node], axis: int) -> Node:
    """Parts side by side; one alone as it is."""
    return parts[0] if len(parts) == 1 else f.concatenate(parts, axis)


LOWER: dict[str, Any] = {
    "softmax": softmax,
    "logsumexp": logsumexp,
    "matmul": matmul,
    "add": add,
    "stop_gradient": stop_gradient,
}
