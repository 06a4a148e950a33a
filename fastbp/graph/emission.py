"""The source of a compiled graph: which loops there are, in which order, and their text."""

import itertools
import keyword
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import calls, regions
from .evaluation import name_of, variables_of
from .indexing import Index, loop_index, parameter
from .loops import Body, Nest, extent, gathered, indented, reads_of, space_of, stack_loops, start
from .node import Node
from .regions import LEAVES, REDUCTIONS, is_barrier, needs_arrays, untransposed
from .scalars import TYPES, literal
from .table import Shape


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


class Writer:
    """Names, and the text of all steps."""

    def __init__(self, plan: regions.Plan, outputs: Sequence[Node], steps: Sequence[Step]) -> None:
        self.plan, self.outputs, self.steps = plan, list(outputs), steps
        self.constants: dict[str, Any] = {}
        self.names: dict[Node, str] = {}
        self.rows: set[Node] = set()  # arrays of one row, which their loop alone needs
        self.flat: set[Node] | None = None
        self.count = 0
        self.unlocked: set[Node] = set()
        for node in plan.order:
            if node.op == "variable":
                self.names[node] = safe(name_of(node))
        used = set(self.names.values())
        for node in (node for node in plan.order if node in plan.arrays):
            fresh = (f"{node.op}_{i}" for i in itertools.count(1))
            self.names[node] = next(name for name in fresh if name not in used)
            used.add(self.names[node])
        self.readers: dict[Node, set[int]] = {}
        for i, step in enumerate(steps):
            read = step.reads if isinstance(step, Call) else _read_by(step)
            for node in read:
                self.readers.setdefault(node, set()).add(i)

    def fresh(self) -> str:
        """A name for a number."""
        self.count += 1
        return f"v{self.count}"

    def array(self, node: Node) -> str:
        """The name of an array for a kernel."""
        if node.op == "constant":
            return f"{self.constant(node)}.copy()"
        if node.op == "variable":
            self.unlocked.add(node)
        return self.names[node]

    def constant(self, node: Node) -> str:
        """The name of a constant array."""
        if node not in self.names:
            self.names[node] = f"C{len(self.constants) + 1}"
            self.constants[self.names[node]] = parameter(node, "value")
        return self.names[node]

    def read(self, node: Node, at: Index) -> str:
        """One element of an array or a leaf."""
        if node.op == "rows":
            return f"{TYPES[node.dtype.name]}(n)"
        if node.op == "constant":
            value = parameter(node, "value")
            if value.size == 1:
                return literal(value.reshape(-1)[0], node.dtype)
            if self.flat is not None and at == ("k",):
                return f"{self.constant(node)}.flat[k]"
            return f"{self.constant(node)}[{', '.join(at)}]"
        name = self.names[node]
        if not node.shape:
            return name
        if self.flat is not None and at == ("k",):
            self.flat.add(node)
            return f"{name}_flat[k]"
        if node in self.rows:
            at = at[1:]
            return name if not set(at) - {"0"} else f"{name}[{', '.join(at)}]"
        return f"{name}[{', '.join(at)}]"

    def write(self) -> list[str]:
        """The lines of all steps."""
        lines: list[str] = []
        for i, step in enumerate(self.steps):
            if isinstance(step, Call):
                lines += step.lines(self.array)
            else:
                lines += self.write_rows(i, step)
        return lines

    def write_rows(self, number: int, rows: Rows) -> list[str]:
        """One loop over rows, with all nests within."""
        inside = [(nest, root) for nest in rows.nests for root in nest.roots]
        alone = len(rows.nests) == 1 or 0 not in rows.nests[0].axes
        for nest, root in inside:
            private = root not in self.outputs and self.readers.get(root, set()) <= {number}
            if private and not alone and nest.kept(root)[0]:
                self.rows.add(root)
        before, body, after = [], [], []
        for nest in rows.nests:
            pre, inner, post = self.write_nest(nest, private_row=not alone)
            before, body, after = before + pre, body + inner, after + post
        if not rows.nests[0].axes:
            return [*before, *body, *after]
        head = f"for i0 in range({extent(rows.nests[0].space[0])}):"
        if 0 not in rows.nests[0].axes:
            return [*before, *body, *after]
        return [*before, head, *indented(body), *after]

    def write_nest(self, nest: Nest, private_row: bool) -> tuple[list[str], ...]:
        """Lines before the loop over rows, within it, and after it."""
        body = Body(self.plan.arrays, self.read, self.fresh)
        at = loop_index(nest.space)
        before: dict[int, list[str]] = {}
        after: dict[int, list[str]] = {}
        makes: list[str] = []
        for root in nest.roots:
            makes += self.make(root)
            if root.op not in REDUCTIONS:
                text = body.value(root, at, nest.roots)
                if root.shape:
                    body.lines.append(f"{self.read(root, at)} = {text}")
                else:
                    body.lines.append(f"{self.names[root]} = {text}")
                continue
            term = body.value(root.operands[0], at, nest.roots)
            settled = nest.settled(root)
            target = self.read(root, self.kept_index(nest, root))
            if settled is None:
                first = 1 if root in self.rows else 0
                fill = f"{self.names[root]}[:] = {start(root)}"
                before.setdefault(first, []).append(fill)
                body.lines.append(f"{target} = {gathered(root, target, term)}")
            else:
                gather = target if target.isidentifier() else self.fresh()
                before.setdefault(settled, []).append(f"{gather} = {start(root)}")
                body.lines.append(f"{gather} = {gathered(root, gather, term)}")
                if gather != target:
                    after.setdefault(settled, []).append(f"{target} = {gather}")
        axes = nest.axes
        names, sizes = [f"i{axis}" for axis in axes], [extent(nest.space[axis]) for axis in axes]
        loops = stack_loops(
            names, sizes, body.lines, lambda d: before.get(d, []), lambda d: after.get(d, [])
        )
        pre, post = [*makes, *before.get(0, [])], after.get(0, [])
        if axes and axes[0] == 0:
            return pre, [line.removeprefix("    ") for line in loops[1:]], post
        return pre, loops, post

    def kept_index(self, nest: Nest, root: Node) -> Index:
        """Where a reduction's element lies."""
        gone, keep = parameter(root, "axes"), parameter(root, "keepdims")
        at = loop_index(nest.space)
        if keep:
            return tuple("0" if axis in gone else t for axis, t in enumerate(at))
        return tuple(t for axis, t in enumerate(at) if axis not in gone)

    def make(self, root: Node) -> list[str]:
        """A line that allocates an array, if it is one."""
        if not root.shape:
            return []
        if root not in self.rows:
            return [calls.empty(self.names[root], root.shape, root)]
        rest = root.shape[1:]
        if all(size == 1 for size in rest):
            return []
        return [calls.empty(self.names[root], rest, root)]


def _read_by(rows: Rows) -> set[Node]:
    return {node for nest in rows.nests for node, _ in nest.reads}


def safe(name: str) -> str:
    """A variable's name that means nothing else in a generated module."""
    taken = name in RESERVED or keyword.iskeyword(name) or re.fullmatch(r"[Civ]\d+", name)
    return f"{name}_" if taken else name


# What a generated module imports or names itself.
RESERVED = frozenset(
    """
    np numba inf nan f32 f64 n k best work right bool abs min max len range compiled OPTIONS
    larger plus smaller unlocked dense_forward dense_forward_work dense_backward dense_backward_work
    elu gelu gelu_tanh leaky_relu relu silu cos erf exp expm1 log1p sigmoid sin softplus tanh
    """.split()
)


def constant_lines(constants: dict[str, np.ndarray[Any, Any]]) -> list[str]:
    """Constant arrays as text."""
    lines = []
    for name, value in constants.items():
        numbers = ", ".join(repr(x) for x in value.reshape(-1).tolist())
        lines.append(f"{name} = np.array([{numbers}], np.{value.dtype}).reshape({value.shape})")
    return lines


def function_text(
    outputs: Sequence[Node], inputs: Sequence[Node], plan: regions.Plan, name: str, one: bool
) -> tuple[list[str], dict[str, Any]]:
    """The lines of the function, and its constant arrays."""
    writer = Writer(plan, outputs, schedule(plan))
    body = writer.write()
    names = {node: safe(name_of(node)) for node in inputs}
    results = []
    for i, node in enumerate(outputs):
        text = writer.names[node] if node not in LEAVES and node.op not in LEAVES else ""
        if node.op in LEAVES:
            text = writer.read(node, ()) if not node.shape else f"{writer.array(node)}"
            text += ".copy()" if node.shape and node.op == "variable" else ""
        elif node in outputs[:i] and node.shape:
            text += ".copy()"
        results.append(text)
    opening = [*check_lines(inputs, names)]
    opening += [f"{names[x]} = unlocked({names[x]})" for x in inputs if x in writer.unlocked]
    returned = results[0] if one else f"({', '.join(results)},)"
    arguments = ", ".join(names[x] for x in inputs)
    lines = [f"def {name}({arguments}):", *indented([*opening, *body, f"return {returned}"])]
    return lines, writer.constants


def check_lines(inputs: Sequence[Node], names: dict[Node, str]) -> list[str]:
    """The batch size, and an error for another shape than that of the variables."""
    lines, known = [], False
    for x in inputs:
        for axis, size in enumerate(x.shape):
            place = f"{names[x]}.shape[{axis}]"
            if size is None and not known:
                lines.append(f"n = {place}")
                known = True
                continue
            lines.append(f"if {place} != {extent(size)}:")
            lines.append(f'    raise ValueError("{name_of(x)}: expected shape {x.shape}")')
    return lines


def free_variables(outputs: Sequence[Node]) -> dict[str, Node]:
    """The variables that the outputs need, by name."""
    from .walk import topological

    return variables_of(topological(outputs))
