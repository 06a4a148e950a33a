"""Shape rules: from the shapes of the operands to that of the result.

None stands for the batch size. A ValueError says what does not fit; the name of the operation is
put before it where the node is built.
"""

from collections.abc import Sequence
from typing import Any

from ..kernels import codes
from .table import Shape

Key = tuple[Any, ...]  # of an index: numbers, None, ("slice", start, stop, step), ("take", ...)


def same(shape: Shape, **parameters: Any) -> Shape:
    """The operand's own shape."""
    return shape


def broadcast(*shapes: Shape, **parameters: Any) -> Shape:
    """The shape to which all broadcast, as in NumPy; for every elementwise operation."""
    result = shapes[0]
    for shape in shapes[1:]:
        if shape == result:  # as most are: half the cost of building a node lies here
            continue
        longest = max(len(result), len(shape))
        left, right = pad(result, longest), pad(shape, longest)
        for a, b in zip(left, right, strict=True):
            if a != b and 1 not in (a, b):
                raise ValueError(f"shapes {result} and {shape} do not broadcast")
        result = tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))
    return result


def pad(shape: Shape, ndim: int) -> Shape:
    """The shape with ones before it."""
    return (1,) * (ndim - len(shape)) + shape


def broadcast_to(given: Shape, shape: Shape) -> Shape:
    """The wanted shape, if the given one broadcasts to it."""
    if broadcast_or_none(given, shape) != shape:
        raise ValueError(f"shape {given} does not broadcast to {shape}")
    return shape


def broadcast_or_none(*shapes: Shape) -> Shape | None:
    """The common shape, or None where there is none."""
    try:
        return broadcast(*shapes)
    except ValueError:
        return None


def matmul(a: Shape, b: Shape) -> Shape:
    """(..., n, k) @ (..., k, m) = (..., n, m)."""
    if a[-1] != b[-2]:
        raise ValueError(
            f"shapes {a} and {b}: {a[-1]} columns meet {b[-2]} rows; expected (n, k) and (k, m)"
        )
    before = broadcast_or_none(a[:-2], b[:-2])
    if before is None:
        raise ValueError(f"shapes {a} and {b}: the axes before do not broadcast")
    return (*before, a[-2], b[-1])


def dense(x: Shape, w: Shape, *b: Shape, activation: str) -> Shape:
    """(n, k), (k, m) and (m,) give (n, m)."""
    if activation not in codes.ACTIVATIONS:
        names = ", ".join(codes.ACTIVATIONS)
        raise ValueError(f"activation: expected one of {names}; got {activation!r}")
    if len(x) != 2 or len(w) != 2 or x[1] != w[0] or any(len(s) != 1 or s[0] != w[1] for s in b):
        got = " and ".join(map(str, (x, w, *b)))
        raise ValueError(f"shapes {got}; expected x (n, k), w (k, m) and b (m,)")
    return (x[0], w[1])


def transpose(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """The axes in a new order."""
    if sorted(axes) != list(range(len(shape))):
        raise ValueError(f"shape {shape} has no order of axes {axes}")
    return tuple(shape[axis] for axis in axes)


def reshape(given: Shape, shape: Shape) -> Shape:
    """As many elements, whatever the batch size."""
    if elements(given) != elements(shape):
        raise ValueError(f"shape {given} cannot become {shape}: the number of elements differs")
    return shape


def elements(shape: Shape) -> tuple[int, int]:
    """(c, p) for c n**p elements at batch size n."""
    count, power = 1, 0
    for size in shape:
        count *= 1 if size is None else size
        power += size is None
    return count, power


def reduce(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape without the axes, or with ones in their place."""
    if keepdims:
        return tuple(1 if i in axes else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def normalize(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes as NumPy takes them (None: all, a number, several) as sorted numbers from 0."""
    if axis is None:
        return tuple(range(ndim))
    wanted = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    axes = [a + ndim if a < 0 else a for a in wanted]
    if any(not 0 <= a < ndim for a in axes) or len(set(axes)) < len(axes):
        raise ValueError(f"axis: expected different axes of {ndim} dimensions, got {axis}")
    return tuple(sorted(axes))


def argmax(shape: Shape, axis: int) -> Shape:
    """The shape without one axis."""
    return reduce(shape, (axis,), False)


def index(shape: Shape, key: Key) -> Shape:
    """The shape of x[key]; a slice of the batch must be whole."""
    result: list[int | None] = []
    axis = 0
    for entry in key:
        if entry is None:
            result.append(1)
            continue
        size = shape[axis]
        axis += 1
        if isinstance(entry, int):
            if size is not None and not -size <= entry < size:
                raise ValueError(f"shape {shape} has no place {entry} on axis {axis - 1}")
        elif entry[0] == "take":
            if size is not None and any(not -size <= i < size for i in entry[1:]):
                raise ValueError(f"shape {shape} has no places {entry[1:]} on axis {axis - 1}")
            result.append(len(entry) - 1)
        elif entry == ("slice", None, None, None):
            result.append(size)
        elif size is None:
            raise ValueError(f"shape {shape}: a slice of the batch has no known size; expected ':'")
        else:
            result.append(len(range(*slice(*entry[1:]).indices(size))))
    return (*result, *shape[axis:])


def place(given: Shape, key: Key, shape: Shape) -> Shape:
    """The shape of zeros, of which [key] is what was given."""
    if index(shape, key) != given:
        raise ValueError(f"shape {given} is not that of {index(shape, key)}")
    return shape


def concatenate(*shapes: Shape, axis: int) -> Shape:
    """The shapes one after the other along one axis."""
    first = shapes[0]
    for shape in shapes:
        if len(shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != axis
        ):
            raise ValueError(f"shapes {first} and {shape} differ beside axis {axis}")
    sizes = [shape[axis] for shape in shapes]
    if None in sizes:
        raise ValueError(f"shape {first}: axis {axis} is the batch, whose size is unknown")
    total = sum(size for size in sizes if size is not None)
    return (*first[:axis], total, *first[axis + 1 :])


def pick(x: Shape, i: Shape) -> Shape:
    """(..., m) and one place in m for each of (...)."""
    if not x or x[:-1] != i:
        raise ValueError(f"shapes {x} and {i}; expected (..., m) and (...)")
    return i


def unpick(g: Shape, i: Shape, size: int) -> Shape:
    """(...) and places (...) in (..., size)."""
    if g != i:
        raise ValueError(f"shapes {g} and {i} differ")
    return (*g, size)
