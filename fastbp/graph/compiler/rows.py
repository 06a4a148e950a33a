"""The lines of a loss that needs whole rows: loops over rows, or over blocks of short ones.

A row of few outputs fills no vector. A block of rows goes through one loop after the other, on
arrays that lie on the stack: exponentials and their like run over all outputs of the block at once,
those of a number for each row over its rows. What gathers a row, or needs its numbers, runs row by
row between them.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from ..node import Node
from ..table import Shape
from . import regions
from .emission import Writer, is_number, sizes
from .indexing import Index, loop_index
from .loops import Body, Nest, indented, reads_of
from .regions import COSTLY, LEAVES, Plan
from .scalars import TYPES
from .scheduling import Call, Rows, schedule

STACK = 2**15  # bytes of a row or a block on the stack: threads may have half a megabyte of it
FUNCTIONS = COSTLY - {"divide", "sqrt", "power"}  # instructions, and what has no vector code
ROWS = 9, 32  # of a block: fewer are faster one by one, more fill vectors no better
ELEMENTS = 1024  # of a block's array, at most: all its arrays stay in the first cache

Text = tuple[list[str], dict[str, Any]]  # lines, and the arrays of constants that they name
ARRAYS = ("y", "t", "dy")


def rows(names: dict[Node, str], row: Node, gradient: Node) -> Text:
    """Loops over rows, or over blocks of them where these are short and call functions."""
    plan = regions.plan([row, gradient], STACK, 1)
    joined = joined_rows(plan, row)
    split = apart(plan)
    loops = loops_of(split, joined_rows(split, row))
    most = rows_of(split.arrays)
    if len(loops) == 1 or most < ROWS[0]:
        return one_by_one(RowWriter(plan, [row, gradient], [joined]), names)
    return together(BlockWriter(split, [row, gradient], loops, most), names)


def joined_rows(plan: Plan, row: Node) -> Rows:
    """All loops of a plan, within one over rows."""
    steps = schedule(plan)
    if len(steps) > 1 or not isinstance(steps[0], Rows):
        found = next((step.roots[0].op for step in steps if isinstance(step, Call)), row.op)
        raise ValueError(f"loss: {found} has no loop within a row of the batch")
    return steps[0]


def one_by_one(writer: "RowWriter", names: dict[Node, str]) -> Text:
    """One loop over rows."""
    row, gradient = writer.outputs
    writer.names |= names | {row: "row", gradient: "dy"}
    writer.rows |= {row, *(node for node in names if node.ndim == 1)}
    written = writer.write()
    loop = written.index("for i0 in range(n):") + 1
    lines = [
        *(f"{name} = carray(at_{name}, (n, m))" for name in ARRAYS),
        *written[:loop],
        f"    scale = {TYPES[row.dtype.name]}(row_scale(s, share, i0))",
        *written[loop:],
        "    loss += scale * row",
    ]
    return lines, writer.constants


def together(writer: "BlockWriter", names: dict[Node, str]) -> Text:
    """Loops over blocks of rows, with the loops of a block within."""
    row, gradient = writer.outputs
    writer.names |= names | {row: "row", gradient: "dy"}
    (scale,) = (node for node in names if node.ndim == 1)
    written = writer.write()
    lines = [
        *writer.room,
        writer.on_stack(scale, (writer.most,)),
        f"for begin in range(0, n, {writer.most}):",
        f"    rows = min({writer.most}, n - begin)",
        *(f"    {name} = carray(at(at_{name}, begin * m), (rows, m))" for name in ARRAYS),
        "    for i0 in range(rows):",
        f"        scale[i0] = {TYPES[row.dtype.name]}(row_scale(s, share, begin + i0))",
        *indented(written),
        "    for i0 in range(rows):",
        "        loss += scale[i0] * row[i0]",
    ]
    return lines, writer.constants


def apart(plan: Plan) -> Plan:
    """The plan with arrays for functions, and for their arguments that need a row's numbers."""
    arrays = set(plan.arrays)
    for node in plan.order:
        if node.op in FUNCTIONS and None in node.shape:
            for argument in node.operands:
                known = argument.op in LEAVES or argument in arrays
                if not known and not is_flat(argument, arrays):
                    arrays.add(argument)
            arrays.add(node)
    return plan._replace(arrays=arrays)


def is_flat_function(node: Node, arrays: set[Node]) -> bool:
    """Whether one loop over all elements of a block can compute a node, and should."""
    return node.op in FUNCTIONS and is_flat(node, arrays)


def is_flat(node: Node, arrays: set[Node]) -> bool:
    """Whether an element follows from numbers, and from what lies at the same place of arrays."""
    body, here = Body(arrays, lambda one, at: "x", lambda: "v"), loop_index(node.shape)
    body.value(node, here, [node])
    if is_number(node.shape[1:]):
        return all(at[:1] == ("i0",) or one.shape == () for one, at in body.reads)
    alike = all(one.shape in (node.shape, ()) and at in (here, ()) for one, at in body.reads)
    return alike and node.ndim == 2


def loops_of(plan: Plan, joined: Rows) -> list[Rows]:
    """The loops over the rows of a block, or over all of its elements, each after what it reads."""
    found: dict[Node, tuple[int, Shape]] = {}  # after how many loops; the shape of flat ones
    for nest in joined.nests:
        for root in nest.roots:
            kind = root.shape if is_flat_function(root, plan.arrays) else ()
            below = [found[read] for read, _ in reads_of(root, plan.arrays)]
            found[root] = max((at + (other != kind) for at, other in below), default=0), kind
    loops = []
    for key in sorted(set(found.values()), key=lambda key: (key[0], len(key[1]))):
        loop = Rows([])
        for nest in joined.nests:
            roots = [root for root in nest.roots if found[root] == key]
            reads = {read for root in roots for read in reads_of(root, plan.arrays)}
            loop.nests += [Nest(nest.space, roots, reads)] if roots else []
        loops.append(loop)
    return loops


def rows_of(arrays: Iterable[Node]) -> int:
    """Rows of a block, by the sizes of its arrays."""
    elements = [(prod(size or 1 for size in node.shape), node.dtype.itemsize) for node in arrays]
    longest, taken = max(elements)[0], sum(count * size for count, size in elements)
    return min(ROWS[1], ELEMENTS // max(longest, 1), STACK // max(taken, 1))


class RowWriter(Writer):
    """A writer of one loop over rows: results have places, what a row needs lies on the stack."""

    def extent(self, size: int | None) -> str:
        """Where a loop ends: at `m`, since LLVM unrolls 10 turns before it looks for vectors.

        128 rows of 10 take 2.9 us in place of 4.7.
        """
        return "m" if size == self.outputs[1].shape[1] else super().extent(size)

    def made(self, root: Node) -> list[str]:
        """The line that makes an array of a row, if it is one."""
        rest = root.shape[1:]
        return [] if root in self.outputs or is_number(rest) else [self.on_stack(root, rest)]

    def on_stack(self, node: Node, shape: Shape) -> str:
        """The line that makes an array."""
        count = prod(size or 0 for size in shape)
        return f"{self.names[node]} = carray(room(np.{node.dtype}, {count}), {sizes(shape)})"


class BlockWriter(RowWriter):
    """A writer of the loops over a block of rows; `room` are the lines that make its arrays."""

    def __init__(self, plan: Plan, outputs: Sequence[Node], steps: Sequence[Rows], most: int):
        super().__init__(plan, outputs, steps)
        self.most, self.room = most, list[str]()

    def extent(self, size: int | None) -> str:
        """Where a loop ends."""
        return "rows" if size is None else super().extent(size)

    def made(self, root: Node) -> list[str]:
        """Nothing: `room` has the line that makes an array of the block."""
        if root in self.rows:
            return super().made(root)
        if root is not self.outputs[1]:
            self.room.append(self.on_stack(root, (self.most, *root.shape[1:])))
        return []

    def write_rows(self, number: int, rows: Rows) -> list[str]:
        """One loop over rows, or over all elements of the block."""
        roots = [root for nest in rows.nests for root in nest.roots]
        root = roots[0]
        if not is_flat_function(root, self.plan.arrays) or is_number(root.shape[1:]):
            return super().write_rows(number, rows)
        body, at = Body(self.plan.arrays, self.read_flat, self.fresh), loop_index(root.shape)
        for root in roots:
            self.made(root)
            body.lines.append(f"{self.read_flat(root, at)} = {body.value(root, at, roots)}")
        used = {self.names[node] for node in (*roots, *(r for r, _ in body.reads)) if node.shape}
        return [
            *(f"{name}_flat = flat_rows({name}, 0, rows)" for name in sorted(used)),
            f"for i in range(rows * {self.extent(root.shape[1])}):",
            *indented(body.lines),
        ]

    def read_flat(self, node: Node, at: Index) -> str:
        """One element of an array of the block, in the loop over all of them."""
        return f"{self.names[node]}_flat[i]" if node.shape else self.read(node, at)
