"""Loops of generated code: nests that walk one space, and rows that several nests walk together.

A nest computes all arrays of one space whose operands are complete; nests that read one another row
by row share the loop over rows, and what nobody else reads stays a row long.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..node import Node
from ..table import Shape
from .indexing import Index, loop_index, operand_index, parameter
from .regions import REDUCTIONS
from .scalars import literal, scalar

Reads = set[tuple[Node, Index]]
START = {"sum": 0.0, "max": float("-inf")}
MORE = {"sum": "plus", "max": "larger"}


def space_of(root: Node) -> Shape:
    """The shape that the loops of an array run over."""
    return root.operands[0].shape if root.op in REDUCTIONS else root.shape


def extent(size: int | None) -> str:
    """A size in generated code."""
    return "n" if size is None else str(size)


@dataclass
class Nest:
    """Arrays that one nest of loops computes."""

    space: Shape
    roots: list[Node]
    reads: Reads

    @property
    def axes(self) -> list[int]:
        """The axes with a loop: those of more than one place."""
        return [axis for axis, size in enumerate(self.space) if size != 1]

    def kept(self, root: Node) -> list[bool]:
        """For each loop, whether the root keeps its axis."""
        gone = parameter(root, "axes") if root.op in REDUCTIONS else ()
        return [axis not in gone for axis in self.axes]

    def settled(self, root: Node) -> int | None:
        """After how many outer loops a number gathers a reduction; None where an array has to."""
        kept = self.kept(root)
        count = kept.index(False) if False in kept else len(kept)
        return count if root.op in REDUCTIONS and not any(kept[count:]) else None


@dataclass
class Body:
    """Lines of a loop body, and which expressions they have named."""

    arrays: set[Node]
    read: Callable[[Node, Index], str]
    fresh: Callable[[], str]
    lines: list[str] = field(default_factory=list)
    names: dict[tuple[Node, Index], str] = field(default_factory=dict)
    reads: Reads = field(default_factory=set)

    def value(self, node: Node, at: Index, own: Iterable[Node] = ()) -> str:
        """A name or a number for one element; `own` are computed here, other arrays are read."""
        own = set(own)
        stack = [(node, at)]
        while stack:
            key = one, place = stack[-1]
            if key in self.names:
                stack.pop()
            elif not one.operands or (one in self.arrays and one not in own):
                self.reads.add(key)
                text = self.read(one, place)
                simple = text.isidentifier() or "[" not in text or "@" in text
                self.names[key] = text if simple else self.named(text)
                stack.pop()
            else:
                below = [(o, operand_index(one, i, place)) for i, o in enumerate(one.operands)]
                missing = [k for k in below if k not in self.names]
                stack += missing
                if not missing:
                    text = scalar(one, [self.names[k] for k in below], place)
                    self.names[key] = text if text.isidentifier() else self.named(text)
                    stack.pop()
        return self.names[node, at]

    def named(self, text: str) -> str:
        """A line that names an expression."""
        name = self.fresh()
        self.lines.append(f"{name} = {text}")
        return name


def reads_of(root: Node, arrays: set[Node]) -> Reads:
    """What an array's loops read: (array, index)."""
    body = Body(arrays, lambda node, at: "x" if node.op != "rows" else "n", lambda: "v")
    at = loop_index(space_of(root))
    if root.op in REDUCTIONS:
        body.value(root.operands[0], at)
    else:
        body.value(root, at, [root])
    return {(node, place) for node, place in body.reads if node in arrays}


def indented(lines: Sequence[str]) -> list[str]:
    """Lines one level deeper."""
    return [f"    {line}" for line in lines]


def stack_loops(
    names: Sequence[str],
    extents: Sequence[str],
    body: Sequence[str],
    before: Callable[[int], list[str]],
    after: Callable[[int], list[str]],
    depth: int = 0,
) -> list[str]:
    """Loops within each other, with lines before and after those of each depth."""
    if depth == len(names):
        return list(body)
    inner = [
        *before(depth + 1),
        *stack_loops(names, extents, body, before, after, depth + 1),
        *after(depth + 1),
    ]
    return [f"for {names[depth]} in range({extents[depth]}):", *indented(inner)]


def start(root: Node) -> str:
    """Where a reduction begins."""
    return literal(START[root.op], root.dtype)


def gathered(root: Node, so_far: str, term: str) -> str:
    """A reduction with one more term."""
    return f"{MORE[root.op]}({so_far}, {term})"
