"""Lines of generated code that are no fused loop: kernels of dense layers, changes of shape."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ...kernels import codes
from ..node import Node
from .indexing import key_index, loop_index, parameter
from .layers import Sweep, untransposed
from .loops import extent, stack_loops


class Names(Protocol):
    """What a writer knows of nodes: the name of each array, and a line that makes it."""

    def __call__(self, node: Node) -> str:
        """The array's name."""

    def make(self, node: Node) -> str:
        """A line that makes it."""


def none(ndim: int, node: Node) -> str:
    """An operand that a kernel leaves out."""
    return f"np.empty({(0,) * ndim}, np.{node.dtype})"


def dense(name: Names, node: Node, z: Node | None = None) -> list[str]:
    """y = f(x @ w + b) by the forward kernel, and z where it is wanted."""
    x, w, *b = node.operands
    code = codes.ACTIVATIONS[parameter(node, "activation")]
    make = [] if z is None else [name.make(z)]
    bias, kept = name(b[0]) if b else none(1, node), none(2, node) if z is None else name(z)
    return [*make, *forward(name, node, name(x), name(w), bias, code, kept)]


def forward(name: Names, node: Node, x: str, w: str, b: str, code: int, z: str) -> list[str]:
    """A call of dense_forward."""
    return [
        name.make(node),
        f"work = np.empty(dense_forward_work(len({x}), *{w}.shape), np.{node.dtype})",
        f"dense_forward({x}, {w}, {b}, {code}, work, {z}, {name(node)})",
    ]


def matmul(name: Names, node: Node) -> list[str]:
    """a @ b by the forward kernel, which takes no transpose: those are copied."""
    lines, texts = [], []
    for side, operand in zip(("left", "right"), node.operands, strict=True):
        plain = untransposed(operand)
        if plain is not operand:
            lines.append(f"{side} = np.ascontiguousarray({name(plain)}.T)")
        texts.append(name(operand) if plain is operand else side)
    left, right = texts
    return [*lines, *forward(name, node, left, right, none(1, node), codes.IDENTITY, none(2, node))]


def backward(name: Names, sweep: Sweep) -> list[str]:
    """A call of dense_backward."""
    dw, db, dx = sweep.dw, sweep.db, sweep.dx
    x, dy, saved = name(sweep.x), name(sweep.dy), name(sweep.saved)
    w = name(dw) if sweep.w is None else name(sweep.w)  # without dx nobody reads it
    k, m = map(extent, dw.shape)
    db_text = none(1, dw) if db is None else name(db)
    dx_text = none(2, dw) if dx is None else name(dx)
    return [
        *(name.make(node) for node in sweep.members),
        f"work = np.empty(dense_backward_work(len({x}), {k}, {m}), np.{dw.dtype})",
        f"dense_backward({dy}, {x}, {w}, {saved}, {codes.ACTIVATIONS[sweep.activation]}, work, "
        f"{name(dw)}, {db_text}, {dx_text})",
    ]


def reshape(name: Names, node: Node) -> list[str]:
    """The same elements in another shape."""
    sizes = ", ".join(map(extent, node.shape))
    return [f"{name(node)} = {name(node.operands[0])}.copy().reshape(({sizes},))"]


def concatenate(name: Names, node: Node) -> list[str]:
    """Parts one after the other."""
    axis, begin = parameter(node, "axis"), 0
    lines = [name.make(node)]
    for part in node.operands:
        size = part.shape[axis]
        assert size is not None
        place = ", ".join([":"] * axis + [f"{begin}:{begin + size}"])
        lines.append(f"{name(node)}[{place}] = {name(part)}")
        begin += size
    return lines


def place(name: Names, node: Node) -> list[str]:
    """Zeros, and g added at the places of a key."""
    (g,) = node.operands
    at = loop_index(g.shape)
    target = ", ".join(key_index(node.shape, parameter(node, "key"), at))
    read = f"{name(g)}[{', '.join(at)}]" if at else name(g)
    loops = [axis for axis, size in enumerate(g.shape) if size != 1]
    return [
        name.make(node),
        f"{name(node)}[:] = 0",
        *stack_loops(
            [f"i{axis}" for axis in loops],
            [extent(g.shape[axis]) for axis in loops],
            [f"{name(node)}[{target}] += {read}"],
            lambda depth: [],
            lambda depth: [],
        ),
    ]


def argmax(name: Names, node: Node) -> list[str]:
    """The place of the first maximum, or of the first NaN."""
    (x,) = node.operands
    axis = parameter(node, "axis")
    outer = [i for i in range(x.ndim) if i != axis]
    at = [f"i{i}" for i in range(x.ndim)]
    this, best = (
        f"{name(x)}[{', '.join([*at[:axis], i, *at[axis + 1 :]])}]" for i in ("k", "best")
    )
    kept = [f"i{i}" for i in outer]
    write = f"{name(node)}[{', '.join(kept)}] = best" if kept else f"{name(node)} = best"
    body = [
        "best = 0",
        f"for k in range(1, {extent(x.shape[axis])}):",
        f"    if {best} == {best} and not {this} <= {best}:",
        "        best = k",
        write,
    ]
    make = [name.make(node)] if kept else []
    sizes = [extent(x.shape[i]) for i in outer]
    return [*make, *stack_loops(kept, sizes, body, lambda depth: [], lambda depth: [])]


CALLS: dict[str, Callable[[Names, Node], Sequence[str]]] = {
    "dense": dense,
    "matmul": matmul,
    "reshape": reshape,
    "concatenate": concatenate,
    "place": place,
    "argmax": argmax,
}
