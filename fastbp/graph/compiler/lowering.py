"""What the compiler sees: dense layers found, operations without a loop of their own spelt out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...kernels import codes
from .. import functions as f
from ..node import Node, build
from ..rewriting import rebuilt, simplify
from ..walk import topological

PLAIN = (("activation", "identity"),)


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


LOWER: dict[str, Any] = {
    "softmax": softmax,
    "logsumexp": logsumexp,
    "matmul": matmul,
    "add": add,
    "stop_gradient": stop_gradient,
}
