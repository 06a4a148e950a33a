"""Lines of generated code that are no fused loop: kernels of dense layers, changes of shape."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...kernels import codes
from ..node import Node
from ..table import Shape
from .indexing import key_index, loop_index, parameter
from .layers import Sweep, untransposed
from .loops import extent, stack_loops


class Names(Protocol):
    """What a writer knows of nodes: the name of each array, and the lines that make it."""

    backward: str  # the kernel of backward sweeps

    def __call__(self, node: Node) -> str:
        """The array's name."""

    def make(self, node: Node) -> list[str]:
        """The line that makes it, if it is not there."""

    def panels(self, job: Any) -> list[str]:
        """The lines that take a batch in panels; none within one."""

    def work(self, kernel: str, rows: str, shape: Shape, node: Node) -> list[str]:
        """The line that makes the scratch of a kernel for weights of a shape."""


def none(ndim: int, node: Node) -> str:
    """An operand that a kernel leaves out."""
    return f"np.empty({(0,) * ndim}, np.{node.dtype})"


def dense(name: Names, node: Node, z: Node | None = None) -> list[str]:
    """y = f(x @ w + b) by the forward kernel, and z where it is wanted."""
    x, w, *b = node.operands
    code = codes.ACTIVATIONS[parameter(node, "activation")]
    make = [] if z is None else name.make(z)
    bias, kept = name(b[0]) if b else none(1, node), none(2, node) if z is None else name(z)
    return [*make, *forward(name, node, name(x), name(w), w.shape, bias, code, kept)]


def forward(
    name: Names, node: Node, x: str, w: str, shape: Shape, b: str, code: int, z: str
) -> list[str]:
    """A call of dense_forward."""
    return [
        *name.make(node),
        *name.work("dense_forward", x, shape, node),
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
    shape, missing = node.operands[1].shape, (none(1, node), codes.IDENTITY, none(2, node))
    return [*lines, *forward(name, node, left, right, shape, *missing)]


def backward(name: Names, sweep: Sweep) -> list[str]:
    """A call of dense_backward."""
    dw, db, dx = sweep.dw, sweep.db, sweep.dx
    x, dy, saved = name(sweep.x), name(sweep.dy), name(sweep.saved)
    w = name(dw) if sweep.w is None else name(sweep.w)  # without dx nobody reads it
    db_text = none(1, dw) if db is None else name(db)
    dx_text = none(2, dw) if dx is None else name(dx)
    return [
        *(line for node in sweep.members for line in name.make(node)),
        *name.work("dense_backward", x, dw.shape, dw),
        f"{name.backward}({dy}, {x}, {w}, {saved}, {codes.ACTIVATIONS[sweep.activation]}, work, "
        f"{name(dw)}, {db_text}, {dx_text})",
    ]


def panels(name: Names, job: Any) -> list[str]:
    """What the panels of a graph need and give."""
    return name.panels(job)


def reshape(name: Names, node: Node) -> list[str]:
    """The same elements in another shape."""
    sizes = ", ".join(map(extent, node.shape))
    return [f"{name(node)} = {name(node.operands[0])}.copy().reshape(({sizes},))"]


def concatenate(name: Names, node: Node) -> list[str]:
    """Parts one after the other."""
    axis, begin = parameter(node, "axis"), 0
    lines = name.make(node)
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
        *name.make(node),
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
    make = name.make(node) if kept else []
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
