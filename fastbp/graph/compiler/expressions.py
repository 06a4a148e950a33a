"""Activations and losses of networks as compiled functions, from a graph and its derivative.

The kernels call them by address (kernels/cpu/expressions.py says with which arguments). They lie in
modules like those of `compile`, so a second process loads them from the disk.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from numba import types
from numba.np import numpy_support

from ..node import Node
from ..restating import summed
from ..table import OPERATIONS
from ..walk import topological
from . import rows
from .compilation import HEADER, NAME, load, stamp
from .emission import constant_lines
from .indexing import Index, loop_index, parameter
from .loops import Body, indented
from .lowering import lowered
from .scalars import TYPES, literal

IMPORTS = """from numba import carray

from fastbp.kernels.cpu.losses import flat_rows, row_scale
from fastbp.kernels.cpu.pointers import at, number_of, room
"""
TOGETHER = 1024  # outputs whose losses are added before they become float64


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

    body = Body(set(), read, counted())
    names = [body.value(node, loop_index(node.shape)) for node in results.values()]
    written = [f"{array}[i] = {name}" for array, name in zip(results, names, strict=True)]
    return ["for i in range(size):", *indented([*body.lines, *written])]


def counted() -> Callable[[], str]:
    """Names for numbers: v1, v2 and so on."""
    count = itertools.count(1)
    return lambda: f"v{next(count)}"


def loss(y: Node, t: Node, scale: Node, row: Node, gradient: Node) -> int:
    """The address of a loss: `row` (None,) of y and t (None, m), `gradient` (None, m) times scale.

    Raises
    ------
    ValueError
        For an operation that has no loop within a row.
    """
    row, gradient = lowered([row, gradient])
    total, names = summed(row), {y: "y", t: "t", scale: "scale"}
    flat = is_flat(y, t, total, gradient)
    body, constants = elements(names, total, gradient) if flat else rows.rows(names, row, gradient)
    pointer = types.CPointer(numpy_support.from_dtype(y.dtype))
    signature = types.intp, types.intp, pointer, pointer, pointer, types.float64, pointer
    body = ["s = carray(at_s, n if number_of(at_s) != 0 else 0)", "loss = 0.0", *body]
    arguments = "n, m, at_y, at_t, at_s, share, at_dy"
    return compiled(arguments, [*body, "return loss"], constants, signature)


def is_flat(y: Node, t: Node, row: Node, gradient: Node) -> bool:
    """Whether a loss is the sum of what each output adds alone."""
    if row.op != "sum":
        return False
    order = topological([row.operands[0], gradient])
    varying = {y, t}
    for node in order:
        if not varying.isdisjoint(node.operands):
            varying.add(node)
            if not OPERATIONS[node.op].elementwise:
                return False
        elif node.op == "constant" and parameter(node, "value").size != 1:
            return False
    return True


def elements(names: dict[Node, str], row: Node, gradient: Node) -> tuple[list[str], dict[str, Any]]:
    """Loops over all outputs of equal weight: a row's, or without weights those of many rows.

    However narrow the rows are, they fill vectors.
    """
    (term,) = row.operands

    def read(node: Node, at: Index) -> str:
        if node not in names:
            return literal(parameter(node, "value").item(), node.dtype)
        return f"{names[node]}[i]" if node.ndim == 2 else names[node]

    body, number = Body(set(), read, counted()), TYPES[row.dtype.name]
    at = loop_index(gradient.shape)
    value, slope = body.value(term, at), body.value(gradient, at)
    lines = [
        f"step = {TOGETHER} if number_of(at_s) == 0 else max(m, 1)",
        "for turn, begin in enumerate(range(0, n * m, step)):",  # no division by m
        "    size = min(step, n * m - begin)",
        *(f"    {name} = carray(at(at_{name}, begin), size)" for name in ("y", "t", "dy")),
        f"    scale, part = {number}(row_scale(s, share, turn)), {number}(0)",
        "    for i in range(size):",
        *indented(indented([*body.lines, f"part = plus(part, {value})", f"dy[i] = {slope}"])),
        "    loss += scale * part",
    ]
    return lines, {}
