"""Lines of generated code that are no fused loop: kernels of dense layers, changes of shape."""

from collections.abc import Callable, Sequence

from ...kernels import codes
from ..node import Node
from ..table import Shape
from .indexing import key_index, loop_index, parameter
from .loops import extent, stack_loops
from .regions import untransposed

Names = Callable[[Node], str]


def empty(name: str, shape: Shape, node: Node, how: str = "empty") -> str:
    """A line that makes an array."""
    sizes = ", ".join(map(extent, shape))
    comma = "," if len(shape) == 1 else ""
    return f"{name} = np.{how}(({sizes}{comma}), np.{node.dtype})"


def none(ndim: int, node: Node) -> str:
    """An operand that a kernel leaves out."""
    return f"np.empty({(0,) * ndim}, np.{node.dtype})"


def dense(name: Names, node: Node) -> list[str]:
    """y = f(x @ w + b) by the forward kernel."""
    x, w, *b = node.operands
    code = codes.ACTIVATIONS[parameter(node, "activation")]
    return forward(name(node), name(x), name(w), name(b[0]) if b else none(1, node), code, node)


def forward(y: str, x: str, w: str, b: str, code: int, node: Node) -> list[str]:
    """A call of dense_forward."""
    return [
        empty(y, node.shape, node),
        f"work = np.empty(dense_forward_work(len({x}), *{w}.shape), np.{node.dtype})",
        f"dense_forward({x}, {w}, {b}, {code}, work, {none(2, node)}, {y})",
    ]


def matmul(name: Names, node: Node) -> list[str]:
    """a @ b: x.T @ dz by the backward kernel, all else by the forward one."""
    a, b = node.operands
    if a is not untransposed(a):
        return backward(name, node, None, None)
    right = name(untransposed(b))
    if b is not untransposed(b):
        right = f"np.ascontiguousarray({right}.T)"
        return [
            f"right = {right}",
            *forward(name(node), name(a), "right", none(1, node), codes.IDENTITY, node),
        ]
    return forward(name(node), name(a), right, none(1, node), codes.IDENTITY, node)


def backward(name: Names, dw: Node, db: Node | None, dx: Node | None) -> list[str]:
    """dw = x.T @ dz, and db = dz.sum(0), dx = dz @ w.T where they are wanted, in one sweep."""
    x, dz = name(untransposed(dw.operands[0])), dw.operands[1]
    right = untransposed(dz)
    lines = [f"right = np.ascontiguousarray({name(right)}.T)"] if right is not dz else []
    delta = "right" if right is not dz else name(dz)
    w = name(untransposed(dx.operands[1])) if dx is not None else name(dw)
    for node in (dw, db, dx):
        lines += [empty(name(node), node.shape, node)] if node is not None else []
    b = name(db) if db is not None else none(1, dw)
    back = name(dx) if dx is not None else none(2, dw)
    k, m = map(extent, dw.shape)
    return [
        *lines,
        f"work = np.empty(dense_backward_work(len({x}), {k}, {m}), np.{dw.dtype})",
        f"dense_backward({delta}, {x}, {w}, {delta}, {codes.IDENTITY}, work, "
        f"{name(dw)}, {b}, {back})",
    ]


def reshape(name: Names, node: Node) -> list[str]:
    """The same elements in another shape."""
    sizes = ", ".join(map(extent, node.shape))
    return [f"{name(node)} = {name(node.operands[0])}.copy().reshape(({sizes},))"]


def concatenate(name: Names, node: Node) -> list[str]:
    """Parts one after the other."""
    axis, begin = parameter(node, "axis"), 0
    lines = [empty(name(node), node.shape, node)]
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
        empty(name(node), node.shape, node, "zeros"),
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
    make = [empty(name(node), node.shape, node)] if kept else []
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
