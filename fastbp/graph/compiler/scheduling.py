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
from .layers import Sweep
from .loops import Nest, reads_of, space_of
from .regions import REDUCTIONS, is_barrier, needs_arrays


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


def schedule(plan: regions.Plan) -> list[Step]:
    """Nests and calls, each after what it reads; nests of one space and level are one nest."""
    roots = [node for node in plan.order if node in plan.arrays]
    writer = {z: y for y, z in plan.forwards.items()}
    reads: dict[Node, Any] = {}
    level: dict[Node, int] = {}
    single: list[tuple[int, Call]] = []
    nests: dict[tuple[int, Shape], Nest] = {}
    for root in roots:
        root = writer.get(root, root)
        if root in level:
            continue
        if root in plan.jobs or (is_barrier(root) and root.op not in REDUCTIONS):
            call = _call(root, plan)
            at = max((level[r] + 1 for r in call.reads if r in level), default=0)
            single.append((at, call))
            level |= dict.fromkeys(call.roots, at)
            continue
        reads[root] = reads_of(root, plan.arrays)
        space = space_of(root)
        at = max((level[r] + _waits(r, i, space, plan) for r, i in reads[root]), default=0)
        level[root] = at
        nest = nests.setdefault((at, space), Nest(space, [], set()))
        nest.roots.append(root)
        nest.reads |= reads[root]
    steps: list[tuple[int, int, Any]] = [(at, 1, call) for at, call in single]
    steps += [(at, 0, nest) for (at, _), nest in nests.items()]
    steps.sort(key=lambda step: step[:2])
    return _rows([step for _, _, step in steps])


def _call(root: Node, plan: regions.Plan) -> Call:
    job = plan.jobs.get(root)
    if job is not None:
        lines = calls.backward if isinstance(job, Sweep) else calls.panels
        return Call(job.members, set(job.reads), lambda name: lines(name, job))
    reads = set(needs_arrays(root, plan.jobs))
    z = plan.forwards.get(root)
    if z is not None:
        return Call([root, z], reads, lambda name: calls.dense(name, root, z))
    return Call([root], reads, lambda name: calls.CALLS[root.op](name, root))


def _waits(root: Node, at: Index, space: Shape, plan: regions.Plan) -> int:
    """0 for an array that the same nest may compute: element by element, at the same index."""
    elsewhere = root in plan.jobs or is_barrier(root)
    return int(elsewhere or root.shape != space or at != loop_index(space))


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
