"""Which nodes become arrays, and which live as numbers inside the loops that need them.

An array are: outputs, what kernels read or write, reductions. A number inside loops is everything
else, as long as one loop needs it. What several loops need is stored or computed again: that is
the choice of `memory`, and the report says what each choice costs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..node import Node
from ..shapes import elements
from ..table import OPERATIONS, Shape
from ..walk import topological
from .indexing import Index, is_inline, loop_index, operand_index
from .layers import Sweep, forwards, sweeps, untransposed

LEAVES = ("variable", "constant", "rows")
REDUCTIONS = ("sum", "max")
# Operations that cost about as much as ten additions: an exponential, a logarithm, a division.
COSTLY = {"exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "erf", "power", "divide"}
COSTLY |= {"tanh", "sigmoid", "softplus", "elu", "silu", "gelu", "gelu_tanh"}
CHEAP = 3  # operations that take less time than to write an element and read it in another loop
Site = tuple[Shape, int, Index]  # loops: their space, how many barriers lie below; the index


class Shared(NamedTuple):
    """An expression that several loops need.

    Attributes
    ----------
    node : Node
    loops : int
        How many need it.
    bytes : int
        That an array of it takes, for the batch size that was asked for.
    operations : int
        That computing it in every loop but one takes, for the same batch; a costly one counts 10.
    stored : bool
        Whether it becomes an array.
    """

    node: Node
    loops: int
    bytes: int
    operations: int
    stored: bool


class Job(Protocol):
    """What computes several nodes at once: a call of the backward kernel, or panels of rows."""

    @property
    def members(self) -> list[Node]:
        """The nodes that it computes."""

    @property
    def reads(self) -> list[Node]:
        """The nodes that must be complete before."""


Jobs = dict[Node, Any]  # the Job of each node that one computes


class Given(NamedTuple):
    """A node that is there already: the Job of what a panel is given."""

    node: Node

    @property
    def members(self) -> list[Node]:
        """The node."""
        return [self.node]

    @property
    def reads(self) -> list[Node]:
        """Nothing."""
        return []


def size_of(shape: Shape, n: int) -> int:
    """Elements of a shape at batch size n."""
    count, power = elements(shape)
    return int(count * n**power)


def is_barrier(node: Node) -> bool:
    """Whether a loop that reads the node must wait until it is complete."""
    return node.op not in LEAVES and not is_inline(node)


def needs_arrays(node: Node, jobs: Jobs) -> Sequence[Node]:
    """What must be an array for a node: what kernels read, and what is read at unknown places."""
    if node in jobs:
        return list(jobs[node].reads)
    if node.op == "pick":
        return node.operands[:1]
    if node.op == "matmul":  # whose call copies transposes itself
        return tuple(untransposed(operand) for operand in node.operands)
    return node.operands if is_barrier(node) and node.op not in REDUCTIONS else ()


class Plan(NamedTuple):
    """All nodes in order, those that become arrays, what computes several, and what was shared."""

    order: list[Node]
    arrays: set[Node]
    jobs: Jobs
    forwards: dict[Node, Node]
    shared: list[Shared]


def plan(outputs: Sequence[Node], memory: str | int, n: int, jobs: Sequence[Job] = ()) -> Plan:
    """Choose the arrays of a lowered graph; bytes and operations are counted for n rows.

    The members of `jobs` are computed by those.
    """
    found: Jobs = {member: job for job in jobs for member in job.members}
    first = list(found)
    found |= sweeps([node for node in reached(outputs, found) if node not in found])
    order = reached(outputs, found)
    arrays = set(outputs) | set(first) | {node for node in order if is_barrier(node)}
    arrays |= {operand for node in order for operand in needs_arrays(node, found)}
    arrays = {node for node in arrays if node.op not in LEAVES}
    if memory == "recompute":
        chosen: set[Node] = set()
    else:
        _, everything = _visit(order, arrays, found, None, n)
        if memory == "store":
            chosen = {one.node for one in everything if _is_worth(one)}
            while more := _missed(_visit(order, arrays, found, chosen, n)[1]):
                chosen |= more
        else:
            chosen = _affordable(everything, int(memory))
    arrays, shared = _visit(order, arrays, found, chosen, n)
    layers = forwards([node for node in order if node not in first])
    return Plan(order, arrays, found, layers, shared)


def reached(outputs: Sequence[Node], jobs: Jobs) -> list[Node]:
    """The nodes that are computed, in order: what lies between a job and what it reads is not."""
    stack, seen = list(outputs), set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            job = jobs.get(node)
            stack += node.operands if job is None else [*job.reads, *job.members]
    panels = [job for job in jobs.values() if not isinstance(job, Sweep)]
    before = set(topological(read for job in panels for read in job.reads))
    return sorted(seen, key=lambda node: (_rank(node, jobs, before), node.number))


def _rank(node: Node, jobs: Jobs, before: set[Node]) -> int:
    """0 for what panels wait for, 1 for what they compute, 2 for all else."""
    panels = node in jobs and not isinstance(jobs[node], Sweep)
    return 1 if panels else 0 if node in before else 2


def _is_worth(one: Shared) -> bool:
    """Whether to read an array takes less time than to compute the expression again."""
    size = one.bytes // one.node.dtype.itemsize
    return one.operations > CHEAP * size * (one.loops - 1)


def _missed(shared: Sequence[Shared]) -> set[Node]:
    """What is no longer cheap, since what it is computed from is computed again."""
    return {one.node for one in shared if not one.stored and _is_worth(one)}


def _affordable(shared: Sequence[Shared], limit: int) -> set[Node]:
    """The expressions to store within a limit of bytes, those first that save most per byte."""
    chosen = set()
    for one in sorted(shared, key=lambda one: one.operations / max(one.bytes, 1), reverse=True):
        if one.bytes <= limit:
            limit -= one.bytes
            chosen.add(one.node)
    return chosen


def _visit(
    order: Sequence[Node],
    arrays: set[Node],
    jobs: Jobs,
    chosen: set[Node] | None,
    n: int,
) -> tuple[set[Node], list[Shared]]:
    """From the outputs down, each node after all that use it; None chooses every shared one."""
    depth: dict[Node, int] = {}
    for node in order:
        below = jobs[node].reads if node in jobs else node.operands
        depth[node] = max((depth[o] + (o in jobs or is_barrier(o)) for o in below), default=0)
    sites: dict[Node, set[Site]] = {node: set() for node in order}
    arrays, found = set(arrays), []
    for node in reversed(order):
        if node.op in LEAVES:
            continue
        if node not in arrays and OPERATIONS[node.op].elementwise:
            loops = {(space, below) for space, below, _ in sites[node]}
            if any(not set(loop_index(s)) - {"0"} <= set(at) for s, _, at in sites[node]):
                arrays.add(node)  # smaller than the loops around it: once, outside of them
            elif len(sites[node]) > 1:
                stored = chosen is None or node in chosen
                found.append((node, max(len(loops), 2), stored))
                if stored:
                    arrays.add(node)
        here = sites[node]
        if node in jobs or (is_barrier(node) and node.op not in REDUCTIONS):
            here = set()  # a kernel
        elif node in arrays:
            whole = node.operands[0] if node.op in REDUCTIONS else node
            here = {(whole.shape, depth[whole], loop_index(whole.shape))}
        for i, operand in enumerate(node.operands if here else ()):
            sites[operand] |= {(s, below, operand_index(node, i, at)) for s, below, at in here}
    shared = []
    for node, count, stored in found:
        size = size_of(node.shape, n)
        operations = size * (count - 1) * _work(node, arrays)
        shared.append(Shared(node, count, size * node.dtype.itemsize, operations, stored))
    return arrays, shared


def _work(node: Node, arrays: set[Node]) -> int:
    """Operations for one element of a node, down to arrays."""
    stack, seen = [node], set()
    while stack:
        one = stack.pop()
        seen.add(one)
        stack += [o for o in one.operands if o not in seen and o not in arrays]
    return sum(10 if one.op in COSTLY else 1 for one in seen if one.op in OPERATIONS)


def report(shared: Sequence[Shared], n: int) -> str:
    """The choices as text, a line for each."""
    lines = [
        f"{'stored' if one.stored else 'computed again'} in {one.loops} loops: {one.node!r}, "
        f"{one.bytes} bytes, {one.operations} operations saved by storing"
        for one in shared
    ]
    total = sum(one.bytes for one in shared if one.stored)
    again = sum(one.operations for one in shared if not one.stored)
    return "\n".join([*lines, f"{n} rows: {total} bytes stored, {again} operations more"])
