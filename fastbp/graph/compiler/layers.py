"""Dense layers in a lowered graph: which nodes one call of a kernel can compute."""

from collections.abc import Sequence
from typing import NamedTuple

from ...kernels import codes
from ..node import Node
from ..rewriting import hole, rebuilt, simplify
from ..table import OPERATIONS
from .lowering import lower


class Sweep(NamedTuple):
    """A call of the backward kernel: dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T.

    db and dx may be absent. Without a layer above it, dy is dz and the activation the identity.
    """

    dw: Node
    db: Node | None
    dx: Node | None
    x: Node
    w: Node | None
    dy: Node
    saved: Node
    activation: str

    @property
    def members(self) -> list[Node]:
        """The nodes that the call computes."""
        return [node for node in (self.dw, self.db, self.dx) if node is not None]

    @property
    def reads(self) -> list[Node]:
        """The arrays that it needs."""
        needed = (self.x, self.w, self.dy, self.saved)
        return [node for node in needed if node is not None]


def untransposed(node: Node) -> Node:
    """w for w.T, else the node."""
    return node.operands[0] if node.op == "transpose" and node.ndim == 2 else node


def sweeps(order: Sequence[Node]) -> dict[Node, Sweep]:
    """The calls of the backward kernel, by all nodes that they compute."""
    found: dict[Node, Sweep] = {}
    products = [node for node in order if node.op == "matmul"]
    layers = [node for node in order if node.op == "dense"]
    for dw in products:
        left, dz = dw.operands
        x = untransposed(left)
        if x is left or untransposed(dz) is not dz or dw in found:
            continue
        dx = next((p for p in products if _is_dx(p, dw, x) and p not in found), None)
        db = next((s for s in order if _is_db(s, dz) and s not in found), None)
        w = untransposed(dx.operands[1]) if dx is not None else None
        dy, saved, activation = _origin(dz, layers)
        alone = Sweep(dw, None, None, x, None, dz, dz, "identity")
        for sweep in (Sweep(dw, db, dx, x, w, dy, saved, activation), alone):
            # Nothing that the call reads may need what it writes.
            if max(n.number for n in sweep.reads) < min(n.number for n in sweep.members):
                found |= dict.fromkeys(sweep.members, sweep)
                break
    return found


def _is_dx(product: Node, dw: Node, x: Node) -> bool:
    dz, right = product.operands
    w = untransposed(right)
    fits = w.shape == dw.shape and product.shape == x.shape
    return dz is dw.operands[1] and w is not right and fits


def _is_db(total: Node, dz: Node) -> bool:
    whole = (("axes", (0,)), ("keepdims", False))
    return total.op == "sum" and total.operands == (dz,) and total.parameters == whole


def _origin(dz: Node, layers: Sequence[Node]) -> tuple[Node, Node, str]:
    """(dy, saved, activation) of dz = dy * f'(z) for one of the layers, else dz itself."""
    near = _layers_below(dz)
    for y in layers:
        activation = dict(y.parameters)["activation"]
        if activation == "identity" or y.operands not in near:
            continue
        z = _pre_activation(y, layers)
        keeps_z = codes.ACTIVATIONS[activation] in codes.KEEPS_Z
        if keeps_z and z is None:
            continue
        g = hole(y)
        slope = OPERATIONS[activation].slope(0)
        (pattern,) = rebuilt(simplify([slope(g, y, z)], keep=[y]), {}, lower)
        dy = matched(pattern, dz, g)
        if dy is not None:
            return dy, z if keeps_z and z is not None else y, activation
    return dz, dz, "identity"


def _layers_below(dz: Node) -> set[tuple[Node, ...]]:
    """Operands of the layers that a node depends on without another product between."""
    stack, seen, found = [dz], set(), set()
    while stack:
        node = stack.pop()
        seen.add(node)
        if node.op == "dense":
            found.add(node.operands)
        elif node.op != "matmul":
            stack += [operand for operand in node.operands if operand not in seen]
    return found


def _pre_activation(y: Node, layers: Sequence[Node]) -> Node | None:
    """z of a layer, where the graph has it as a node."""
    plain = (("activation", "identity"),)
    return next((z for z in layers if z.operands == y.operands and z.parameters == plain), None)


def forwards(order: Sequence[Node]) -> dict[Node, Node]:
    """Layers y whose kernel can write z too, which the graph has as well: z by y."""
    layers = [node for node in order if node.op == "dense"]
    found: dict[Node, Node] = {}
    for y in layers:
        z = _pre_activation(y, layers)
        keeps_z = codes.ACTIVATIONS[dict(y.parameters)["activation"]] in codes.KEEPS_Z
        if keeps_z and z is not None and z not in found.values():
            found[y] = z
    return found


def matched(pattern: Node, node: Node, g: Node) -> Node | None:
    """What stands for g where a node has the form of the pattern; None where it has not."""
    found = None
    stack = [(pattern, node)]
    while stack:
        wanted, got = stack.pop()
        if wanted is g:
            if found not in (None, got) or got.shape != g.shape:
                return None
            found = got
        elif wanted is not got:
            same = wanted.op == got.op and wanted.parameters == got.parameters
            if not same or not wanted.operands or len(wanted.operands) != len(got.operands):
                return None
            stack += zip(wanted.operands, got.operands, strict=True)
    return found
