"""Which element of an operand an element of a result needs: indices as text for generated loops."""

from typing import Any

from ..node import Node
from ..table import OPERATIONS, Shape

Index = tuple[str, ...]
WHOLE = ("slice", None, None, None)


def loop_index(shape: Shape) -> Index:
    """The index within loops over a shape: i0, i1 ..., and 0 where there is one place."""
    return tuple("0" if size == 1 else f"i{axis}" for axis, size in enumerate(shape))


def is_inline(node: Node) -> bool:
    """Whether an element of the node follows from one element of each operand."""
    if node.op == "reshape":
        return _without_ones(node.shape) == _without_ones(node.operands[0].shape)
    if node.op == "place":
        key = parameter(node, "key")
        return len(key) == node.ndim and all(
            isinstance(entry, int) or span(node, axis) is not None for axis, entry in enumerate(key)
        )
    known = ("transpose", "broadcast", "index", "unpick", "pick")
    return node.op in known or (node.op in OPERATIONS and OPERATIONS[node.op].elementwise)


def parameter(node: Node, name: str) -> Any:
    """A parameter of a node."""
    return dict(node.parameters)[name]


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def operand_index(node: Node, i: int, at: Index) -> Index:
    """The index of operand i for the element `at` of the node."""
    operand = node.operands[i]
    special = SPECIAL.get(node.op)
    if special is not None:
        return special(node, i, at)
    tail = at[len(at) - operand.ndim :]
    return tuple("0" if size == 1 else t for size, t in zip(operand.shape, tail, strict=True))


def _transpose(node: Node, i: int, at: Index) -> Index:
    axes = parameter(node, "axes")
    return tuple(at[axes.index(axis)] for axis in range(len(axes)))


def _reshape(node: Node, i: int, at: Index) -> Index:
    left = iter([t for size, t in zip(node.shape, at, strict=True) if size != 1])
    return tuple("0" if size == 1 else next(left) for size in node.operands[0].shape)


def _index(node: Node, i: int, at: Index) -> Index:
    return key_index(node.operands[0].shape, parameter(node, "key"), at)


def key_index(shape: Shape, key: tuple[Any, ...], at: Index) -> Index:
    """Where x[key][at] lies in x of a shape."""
    left, found = list(at), list[str]()
    for entry in key:
        if entry is None:
            left.pop(0)
            continue
        size = shape[len(found)]
        if isinstance(entry, int):
            found.append(
                str(entry) if entry >= 0 else f"{'n' if size is None else size} - {-entry}"
            )
        elif entry == WHOLE:
            found.append(left.pop(0))
        elif entry[0] == "slice":
            assert size is not None
            begin, _, step = slice(*entry[1:]).indices(size)
            found.append(_affine(begin, step, left.pop(0)))
        else:
            places = [p if p >= 0 or size is None else p + size for p in entry[1:]]
            found.append(f"{tuple(places)}[{left.pop(0)}]")
    return (*found, *left)


def _affine(begin: int, step: int, t: str) -> str:
    """begin + step * t, as short as it can be."""
    if t == "0":
        return str(begin)
    turn = t if step == 1 else f"{step} * {t}"
    return turn if begin == 0 else f"{begin} + {turn}"


def span(node: Node, axis: int) -> tuple[int, int] | None:
    """(begin, size) of a slice in the key of a place, None for another entry; (0, 0): all."""
    entry, size = parameter(node, "key")[axis], node.shape[axis]
    if entry == WHOLE:
        return 0, 0
    if not isinstance(entry, tuple) or entry[0] != "slice" or size is None:
        return None
    begin, end, step = slice(*entry[1:]).indices(size)
    return (begin, end - begin) if step == 1 and end > begin else None


def _place(node: Node, i: int, at: Index) -> Index:
    found = []
    for axis, t in enumerate(at):
        part = span(node, axis)
        if part is not None:
            begin, size = part
            inside = f"min(max({t} - {begin}, 0), {size - 1})"  # the test follows the reading
            found.append(t if size == 0 else "0" if size == 1 else inside)
    return tuple(found)


def _pick(node: Node, i: int, at: Index) -> Index:
    return at if i else (*at, "@")  # the place is known once i is


def _unpick(node: Node, i: int, at: Index) -> Index:
    return at[:-1]


SPECIAL = {
    "transpose": _transpose,
    "reshape": _reshape,
    "index": _index,
    "place": _place,
    "pick": _pick,
    "unpick": _unpick,
}
