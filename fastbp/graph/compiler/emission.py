"""The source of a compiled graph: which loops there are, in which order, and their text."""

import itertools
import keyword
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation import name_of
from ..node import Node
from ..table import OPERATIONS, Shape
from . import regions
from .arena import Arena
from .indexing import Index, loop_index, parameter
from .loops import Body, Nest, extent, gathered, indented, stack_loops, start
from .regions import REDUCTIONS
from .scalars import TYPES, literal
from .scheduling import Call, Rows, Step, read_by


class Writer:
    """Names, and the text of all steps."""

    backward = "dense_backward"
    batch = "n"  # the name of the batch size as a number

    def __init__(self, plan: regions.Plan, outputs: Sequence[Node], steps: Sequence[Step]) -> None:
        self.plan, self.outputs, self.steps = plan, list(outputs), steps
        self.constants: dict[str, Any] = {}
        self.names: dict[Node, str] = {}
        self.rows: set[Node] = set()  # arrays of one row, which their loop alone needs
        self.added: set[Node] = set()  # sums that are added to what is there
        self.arena = Arena()
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
            for node in read_by(step):
                self.readers.setdefault(node, set()).add(i)

    def extent(self, size: int | None) -> str:
        """A size as the end of a loop."""
        return extent(size)

    def fresh(self) -> str:
        """A name for a number."""
        self.count += 1
        return f"v{self.count}"

    def __call__(self, node: Node) -> str:
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
            return f"{TYPES[node.dtype.name]}({self.batch})"
        if node.op == "constant":
            value = parameter(node, "value")
            if value.size == 1:
                return literal(value.reshape(-1)[0], node.dtype)
            return f"{self.constant(node)}[{', '.join(at)}]"
        name = self.names[node]
        if not node.shape:
            return name
        if node in self.rows:
            at = at[1:]
            return name if is_number(node.shape[1:]) else f"{name}[{', '.join(at)}]"
        return f"{name}[{', '.join(at)}]"

    def write(self) -> list[str]:
        """The lines of all steps."""
        lines: list[str] = []
        for i, step in enumerate(self.steps):
            if isinstance(step, Call):
                lines += step.lines(self)
            else:
                lines += self.write_rows(i, step)
            for node in [n for n in self.arena.taken if max(self.readers.get(n, {i})) <= i]:
                self.arena.give(node)
        return [*self.arena.lines(), *lines]

    def write_rows(self, number: int, rows: Rows) -> list[str]:
        """One loop over rows, with all nests within."""
        first = rows.nests[0]
        for nest in rows.nests if len(rows.nests) > 1 else ():
            for root in nest.roots:
                private = root not in self.outputs and self.readers.get(root, set()) <= {number}
                if private and nest.kept(root)[0]:
                    self.rows.add(root)
        before, body, after = list[str](), list[str](), list[str]()
        for nest in rows.nests:
            pre, inner, post = self.write_nest(nest)
            before, body, after = before + pre, body + inner, after + post
        if 0 in first.axes:
            body = [f"for i0 in range({self.extent(first.space[0])}):", *indented(body)]
        return [*before, *body, *after]

    def write_nest(self, nest: Nest) -> tuple[list[str], ...]:
        """Lines before the loop over rows, within it, and after it."""
        body = Body(self.plan.arrays, self.read, self.fresh)
        at = loop_index(nest.space)
        before: dict[int, list[str]] = {}
        after: dict[int, list[str]] = {}
        makes: list[str] = []
        for root in nest.roots:
            makes += self.made(root)
            if root.op not in REDUCTIONS:
                text = body.value(root, at, nest.roots)
                body.lines.append(f"{self.read(root, at)} = {text}")
                continue
            term = body.value(root.operands[0], at, nest.roots)
            settled = nest.settled(root)
            target = self.read(root, self.kept_index(nest, root))
            if settled is None:
                first = 1 if root in self.rows else 0
                if root not in self.added:
                    fill = f"{self.names[root]}[:] = {start(root)}"
                    before.setdefault(first, []).append(fill)
                body.lines.append(f"{target} = {gathered(root, target, term)}")
            else:
                gather = target if target.isidentifier() else self.fresh()
                before.setdefault(settled, []).append(f"{gather} = {start(root)}")
                body.lines.append(f"{gather} = {gathered(root, gather, term)}")
                if gather != target:
                    more = gathered(root, target, gather) if root in self.added else gather
                    after.setdefault(settled, []).append(f"{target} = {more}")
        axes = nest.axes
        names, ends = [f"i{axis}" for axis in axes], [self.extent(nest.space[i]) for i in axes]
        loops = stack_loops(
            names, ends, body.lines, lambda d: before.get(d, []), lambda d: after.get(d, [])
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

    def panels(self, job: Any) -> list[str]:
        """The lines that take the batch in panels."""
        lines: list[str] = job.call(self)
        return lines

    def make(self, node: Node) -> list[str]:
        """The line that makes an array: memory of its own for outputs, a part of all for others."""
        if node in self.outputs:
            return [f"{self.names[node]} = np.empty({sizes(node.shape)}, np.{node.dtype})"]
        return [f"{self.names[node]} = {self.arena.take(node)}.reshape({sizes(node.shape)})"]

    def work(self, kernel: str, rows: str, shape: Shape, node: Node) -> list[str]:
        """The line that makes the scratch of a kernel for weights of a shape."""
        size = f"{kernel}_work(len({rows}), {', '.join(map(extent, shape))})"
        return [f"work = np.empty({size}, np.{node.dtype})"]

    def made(self, root: Node) -> list[str]:
        """The line that makes an array, if it is one: not for numbers, in rows or alone."""
        if root not in self.rows:
            return self.make(root) if root.shape else []
        rest = root.shape[1:]
        made = f"{self.names[root]} = np.empty({sizes(rest)}, np.{root.dtype})"
        return [] if is_number(rest) else [made]


def is_number(row: Shape) -> bool:
    """Whether a row of an array has one place: a number then."""
    return all(size == 1 for size in row)


def sizes(shape: Shape) -> str:
    """A shape in generated code."""
    return f"({', '.join(map(extent, shape))}{',' if len(shape) == 1 else ''})"


def safe(name: str) -> str:
    """A variable's name that means nothing else in a generated module."""
    taken = name in RESERVED or keyword.iskeyword(name) or re.fullmatch(r"[Civ]\d+", name)
    return f"{name}_" if taken else name


# What a generated module imports or names itself.
RESERVED = {"np", "numba", "inf", "nan", "f32", "f64", "n", "k", "best", "work", "left", "right"}
RESERVED |= {"abs", "min", "max", "len", "range", "bool", "compiled", "plus", "larger", "smaller"}
RESERVED |= {"memory_float32", "memory_float64", "memory_int64", "memory_bool"}
RESERVED |= {"unlocked", "dense_forward", "dense_backward", "dense_forward_work", "OPTIONS"}
RESERVED |= {"dense_backward_work", "dense_backward_add", *OPERATIONS}
RESERVED |= {"panel", "group", "groups", "job", "number", "numbers", "scratch", "rows", "first"}
RESERVED |= {"last", "count", "begin", "end", "i", "work_float32", "work_float64", "sums_float32"}
RESERVED |= {"sums_float64", "add_up", "array", "get", "keep", "part", "room", "run", "task_of"}
RESERVED |= {"words"}


def constant_lines(constants: dict[str, np.ndarray[Any, Any]]) -> list[str]:
    """Constant arrays as text."""
    lines = []
    for name, value in constants.items():
        numbers = ", ".join(repr(x) for x in value.reshape(-1).tolist())
        lines.append(f"{name} = np.array([{numbers}], np.{value.dtype}).reshape({value.shape})")
    return lines


def function_text(
    writer: Writer, outputs: Sequence[Node], inputs: Sequence[Node], name: str, one: bool
) -> list[str]:
    """The lines of the function."""
    body = writer.write()
    names = {node: safe(name_of(node)) for node in inputs}
    results = []
    for i, node in enumerate(outputs):
        text = writer(node) if node.shape else writer.read(node, ())
        again = node in outputs[:i] and node.op != "constant"  # whose name is a copy already
        results.append(
            f"{text}.copy()" if node.shape and (again or node.op == "variable") else text
        )
    opening = [*check_lines(inputs, names)]
    opening += [f"{names[x]} = unlocked({names[x]})" for x in inputs if x in writer.unlocked]
    returned = results[0] if one else f"({', '.join(results)},)"
    arguments = ", ".join(names[x] for x in inputs)
    lines = [f"def {name}({arguments}):", *indented([*opening, *body, f"return {returned}"])]
    return lines


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
