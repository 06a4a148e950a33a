"""The order of a compiled graph: which nests of loops and which kernels there are, and when.

A level is a number for each array: larger than that of what must be complete before. Nests of one
space and level are one nest; then nests with the same rows share the loop over them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..node import Node
from ..table import Shape
from . import calls, regions
from .indexing import Index, loop_index
from .loops import Nest, reads_of, space_of
from .regions import REDUCTIONS, is_barrier, needs_arrays, untransposed


@dataclass
class Call:
    """A kernel or a copy: the nodes that it writes, and those that it reads."""

    roots: list[Node]
    reads: set[Node]
    lines: Callable[[calls.Names], Sequence[str]]


@dataclass
class Rows:
    """Nests that share the loop over their first axis; without one for numbers and single nests."""

    nests: list[Nest]


Step = Call | Rows


def backwards(order: Sequence[Node]) -> dict[Node, tuple[Node | None, Node | None]]:
    """For each x.T @ dz the sum of dz and dz @ w.T that the same sweep can write: (db, dx)."""
    found: dict[Node, tuple[Node | None, Node | None]] = {}
    products = [node for node in order if node.op == "matmul"]
    for dw in products:
        left, dz = dw.operands
        x = untransposed(left)
        if x is left or untransposed(dz) is not dz:
            continue
        dx = next((p for p in products if _is_dx(p, dw, x)), None)
        db = next((s for s in order if s.op == "sum" and _is_db(s, dz)), None)
        taken = {node for pair in found.values() for node in pair}
        members = [node for node in (dw, db, dx) if node is not None and node not in taken]
        needed = [x, dz, *([untransposed(dx.operands[1])] if dx is not None else [])]
        if max(node.number for node in needed) < min(node.number for node in members):
            found[dw] = (db if db in members else None, dx if dx in members else None)
    return found


def _is_dx(product: Node, dw: Node, x: Node) -> bool:
    dz, right = product.operands
    w = untransposed(right)
    return (
        dz is dw.operands[1] and w is not right and w.shape == dw.shape and product.shape == x.shape
    )


def _is_db(total: Node, dz: Node) -> bool:
    return total.operands[0] is dz and total.parameters == (("axes", (0,)), ("keepdims", False))


def schedule(plan: regions.Plan) -> list[Step]:
    """Nests and calls, each after what it reads; nests of one space and level are one nest."""
    roots = [node for node in plan.order if node in plan.arrays]
    joined = backwards(plan.order)
    leader = {m: dw for dw, pair in joined.items() for m in (dw, *pair) if m is not None}
    reads: dict[Node, Any] = {}
    level: dict[Node, int] = {}
    single: list[tuple[int, Call]] = []
    nests: dict[tuple[int, Shape], Nest] = {}
    for root in roots:
        if root in level:
            continue
        if root in leader or (is_barrier(root) and root.op not in REDUCTIONS):
            call = _call(root, leader, joined)
            at = max((level[r] + 1 for r in call.reads if r in level), default=0)
            single.append((at, call))
            level |= dict.fromkeys(call.roots, at)
            continue
        reads[root] = reads_of(root, plan.arrays)
        space = space_of(root)
        at = max((level[r] + _waits(r, i, space, leader) for r, i in reads[root]), default=0)
        level[root] = at
        nest = nests.setdefault((at, space), Nest(space, [], set()))
        nest.roots.append(root)
        nest.reads |= reads[root]
    steps: list[tuple[int, int, Any]] = [(at, 1, call) for at, call in single]
    steps += [(at, 0, nest) for (at, _), nest in nests.items()]
    steps.sort(key=lambda step: step[:2])
    return _rows([step for _, _, step in steps])


def _call(root: Node, leader: dict[Node, Node], joined: dict[Node, Any]) -> Call:
    dw = leader.get(root)
    if dw is None:
        reads = set(needs_arrays(root))
        return Call([root], reads, lambda name: calls.CALLS[root.op](name, root))
    db, dx = joined[dw]
    members = [node for node in (dw, db, dx) if node is not None]
    reads = {untransposed(o) for node in members for o in node.operands}
    return Call(members, reads, lambda name: calls.backward(name, dw, db, dx))


def _waits(root: Node, at: Index, space: Shape, leader: dict[Node, Node]) -> int:
    """0 for an array that the same nest may compute: element by element, at the same index."""
    loop = is_barrier(root) or root in leader or root.op in REDUCTIONS
    return int(loop or root.shape != space or at != loop_index(space))


def _rows(steps: Iterable[Any]) -> list[Step]:
    """Nests with the same rows as an earlier one, which they read row by row, share its loop."""
    result: list[Step] = []
    for step in steps:
        if isinstance(step, Call):
            result.append(step)
            continue
        read = {node for node, _ in step.reads}
        for earlier in reversed(result):
            if isinstance(earlier, Rows) and _joins(earlier, step):
                earlier.nests.append(step)
                break
            if read & written(earlier):
                result.append(Rows([step]))
                break
        else:
            result.append(Rows([step]))
    return result


def read_by(step: Step) -> set[Node]:
    """The arrays and leaves that a step reads."""
    return step.reads if isinstance(step, Call) else {n for x in step.nests for n, _ in x.reads}


def written(step: Step) -> set[Node]:
    """The arrays that a step computes."""
    return set(step.roots if isinstance(step, Call) else (r for n in step.nests for r in n.roots))


def _joins(rows: Rows, nest: Nest) -> bool:
    first = rows.nests[0]
    if 0 not in first.axes or 0 not in nest.axes or first.space[0] != nest.space[0]:
        return False
    inside = {root: own for own in rows.nests for root in own.roots}
    return all(
        at[:1] == ("i0",) and inside[root].kept(root)[0]
        for root, at in nest.reads
        if root in inside
    )
