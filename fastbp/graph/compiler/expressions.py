"""Activations and losses of networks as compiled functions, from a graph and its derivative.

The kernels call them by address (kernels/cpu/expressions.py says with which arguments). They lie in
modules like those of `compile`, so a second process loads them from the disk.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from numba import types
from numba.np import numpy_support

from .. import functions as f
from ..node import Node
from ..rewriting import rebuilt
from . import regions
from .compilation import HEADER, NAME, load, stamp
from .emission import Writer, constant_lines, is_number, sizes
from .indexing import Index, loop_index, parameter
from .loops import Body, indented
from .lowering import lowered
from .scalars import TYPES, literal
from .scheduling import Rows, schedule

IMPORTS = """from numba import carray

from fastbp.kernels.cpu.losses import row_scale
from fastbp.kernels.cpu.pointers import number_of, room
"""
STACK = 2**15  # bytes of a row that a loss stores: threads may have stacks of half a megabyte


def compiled(arguments: str, body: Sequence[str], constants: dict[str, Any], signature: Any) -> int:
    """The address of a function of these lines; its module stays loaded for good."""
    opening = [HEADER.format(stamp=stamp()), IMPORTS, *constant_lines(constants), "", ""]
    lines = [f"def {NAME}({arguments}):", *indented(body), ""]
    module = load("\n".join([*opening, "@numba.njit(cache=True, **OPTIONS)", *lines]))
    dispatcher = getattr(module, NAME)
    if not dispatcher.signatures:
        dispatcher.compile(signature)
    function = dispatcher.overloads[signature]
    address: int = function.library.get_pointer_to_function(function.fndesc.llvm_func_name)
    return address


def activation(z: Node, value: Node, slope: Node) -> int:
    """The address of an activation: `value` and `slope` are elementwise functions of z."""
    simple = lowered([value, slope])
    body = [
        "z = carray(y, size)",
        "if number_of(kept) == 0:",
        *indented(elementwise(z, {"z": simple[0]})),
        "else:",
        "    slope = carray(kept, size)",
        *indented(elementwise(z, {"z": simple[0], "slope": simple[1]})),
    ]
    pointer = types.CPointer(numpy_support.from_dtype(z.dtype))
    return compiled("size, kept, y", body, {}, (types.intp, pointer, pointer))


def elementwise(z: Node, results: dict[str, Node]) -> list[str]:
    """A loop that writes nodes to arrays by name, from the array z, which may be one of them."""

    def read(node: Node, at: Index) -> str:
        return "z[i]" if node is z else literal(parameter(node, "value").item(), node.dtype)

    count = iter(range(1, 10**6))
    body = Body(set(), read, lambda: f"v{next(count)}")
    names = [body.value(node, loop_index(node.shape)) for node in results.values()]
    written = [f"{array}[i] = {name}" for array, name in zip(results, names, strict=True)]
    return ["for i in range(size):", *indented([*body.lines, *written])]


def loss(y: Node, t: Node, scale: Node, row: Node, gradient: Node) -> int:
    """The address of a loss: `row` (None,) of y and t (None, m), `gradient` (None, m) times scale.

    Raises
    ------
    ValueError
        For an operation that has no loop within a row.
    """
    simple = lowered(rebuilt([row, gradient], {}, product))
    plan = regions.plan(simple, STACK, 1)
    steps = schedule(plan)
    for step in steps:
        if not isinstance(step, Rows) or len(steps) > 1:
            roots = (
                [r for n in step.nests for r in n.roots] if isinstance(step, Rows) else step.roots
            )
            raise ValueError(f"loss: {roots[0].op} has no loop within a row of the batch")
    writer = RowWriter(plan, simple, steps)
    writer.names |= {y: "y", t: "t", scale: "scale", simple[0]: "row", simple[1]: "dy"}
    writer.rows |= {scale, simple[0]}
    lines = writer.write()
    loop = lines.index("for i0 in range(n):") + 1
    shape, number = f"(n, {y.shape[1]})", TYPES[y.dtype.name]
    body = [
        *(f"{name} = carray(at_{name}, {shape})" for name in ("y", "t", "dy")),
        "s = carray(at_s, n if number_of(at_s) != 0 else 0)",
        "loss = 0.0",
        *lines[:loop],
        f"    scale = {number}(row_scale(s, share, i0))",
        *lines[loop:],
        "    loss += scale * row",
        "return loss",
    ]
    pointer = types.CPointer(numpy_support.from_dtype(y.dtype))
    signature = types.intp, pointer, pointer, pointer, types.float64, pointer
    return compiled("n, at_y, at_t, at_s, share, at_dy", body, writer.constants, signature)


def product(node: Node) -> Node:
    """A product with a matrix as a sum, which has a loop within a row."""
    if node.op != "matmul":
        return node
    a, b = node.operands
    return f.sum(a[:, :, None] * b[None], axis=1)


class RowWriter(Writer):
    """A writer of one loop over rows: results have places, what a row needs lies on the stack."""

    def made(self, root: Node) -> list[str]:
        """The line that makes an array of a row, if it is one."""
        rest = root.shape[1:]
        if root in self.outputs or is_number(rest):
            return []
        count = prod(size or 0 for size in rest)
        return [f"{self.names[root]} = carray(room(np.{root.dtype}, {count}), {sizes(rest)})"]
