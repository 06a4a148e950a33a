"""Functions of nodes or of arrays: with a node they build a node, with arrays alone they compute.

The derivative rules of operations.py are written with them, so one rule serves symbols and values.
"""

from collections.abc import Sequence
from functools import reduce
from operator import mul
from typing import Any

import numpy as np

from . import shapes
from .node import Node, apply, check_shape, constant, rows
from .shapes import normalize


def exp(x: Any) -> Any:
    """e**x."""
    return apply("exp", x)


def expm1(x: Any) -> Any:
    """e**x - 1, exact for small x."""
    return apply("expm1", x)


def log(x: Any) -> Any:
    """The natural logarithm."""
    return apply("log", x)


def log1p(x: Any) -> Any:
    """log(1 + x), exact for small x."""
    return apply("log1p", x)


def sqrt(x: Any) -> Any:
    """The square root; its derivative at 0 is infinite."""
    return apply("sqrt", x)


def sin(x: Any) -> Any:
    """The sine."""
    return apply("sin", x)


def cos(x: Any) -> Any:
    """The cosine."""
    return apply("cos", x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return apply("tanh", x)


def erf(x: Any) -> Any:
    """The error function."""
    return apply("erf", x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e**-x)."""
    return apply("sigmoid", x)


def softplus(x: Any) -> Any:
    """log(1 + e**x), for any x."""
    return apply("softplus", x)


def relu(x: Any) -> Any:
    """max(x, 0); its derivative at 0 is 0."""
    return apply("relu", x)


def leaky_relu(x: Any) -> Any:
    """x where x > 0, else x / 100; its derivative at 0 is 1 / 100."""
    return apply("leaky_relu", x)


def elu(x: Any) -> Any:
    """x where x > 0, else e**x - 1."""
    return apply("elu", x)


def silu(x: Any) -> Any:
    """x sigmoid(x)."""
    return apply("silu", x)


def gelu(x: Any) -> Any:
    """x times the normal distribution function of x."""
    return apply("gelu", x)


def gelu_tanh(x: Any) -> Any:
    """The approximation of gelu by tanh."""
    return apply("gelu_tanh", x)


def abs(x: Any) -> Any:
    """|x|; its derivative at 0 is 0."""
    return apply("abs", x)


def sign(x: Any) -> Any:
    """-1, 0 or 1; without a derivative."""
    return apply("sign", x)


def floor(x: Any) -> Any:
    """The largest integer that is not above x; without a derivative."""
    return apply("floor", x)


def square(x: Any) -> Any:
    """x * x."""
    return x * x


def add(a: Any, b: Any) -> Any:
    """a + b."""
    return apply("add", a, b)


def subtract(a: Any, b: Any) -> Any:
    """a - b."""
    return apply("subtract", a, b)


def multiply(a: Any, b: Any) -> Any:
    """a * b."""
    return apply("multiply", a, b)


def divide(a: Any, b: Any) -> Any:
    """a / b."""
    return apply("divide", a, b)


def negative(x: Any) -> Any:
    """-x."""
    return apply("negative", x)


def power(a: Any, b: Any) -> Any:
    """a**b; the derivative of x**0 is 0 everywhere."""
    return apply("power", a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two; at a tie the derivative goes to the second, and a number stands second."""
    return apply("maximum", *_number_last(a, b))


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two; at a tie the derivative goes to the first, and a number stands second."""
    return apply("minimum", *_number_last(a, b))


def _number_last(a: Any, b: Any) -> tuple[Any, Any]:
    """(a, b), or (b, a) where a alone is a number: the slope at a tie is then the one of x."""

    def known(value: Any) -> bool:
        return not isinstance(value, Node) or value.op == "constant"

    return (b, a) if known(a) and not known(b) else (a, b)


def less(a: Any, b: Any) -> Any:
    """a < b."""
    return apply("less", a, b)


def less_equal(a: Any, b: Any) -> Any:
    """a <= b."""
    return apply("less_equal", a, b)


def equal(a: Any, b: Any) -> Any:
    """a == b, element by element; `==` itself asks whether two nodes are the same node."""
    return apply("equal", a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b; a NaN in what is not taken stays out of the value.

    It does not stay out of the derivative: a slope that is infinite where its branch is not taken
    gives 0 * inf = NaN. Keep the argument of that branch away from there too:
    `where(x > 0, log(where(x > 0, x, 1)), 0)`.

    Examples
    --------
    >>> from fastbp import graph
    >>> x = graph.variable("x")
    >>> y = graph.where(x > 0, graph.log(x), 0.0)
    >>> float(graph.evaluate(y, {x: -1.0}))
    0.0
    """
    return apply("where", condition, a, b)


def cast(x: Any, dtype: Any) -> Any:
    """x as another type: the only way from one to another.

    Examples
    --------
    >>> from fastbp import graph
    >>> graph.cast(graph.variable("x"), "float32")
    <cast: () float32>
    """
    return apply("cast", x, dtype=np.dtype(dtype).name)


def stop_gradient(x: Any) -> Any:
    """x itself, as a constant for derivatives."""
    return apply("stop_gradient", x)


def matmul(a: Any, b: Any) -> Any:
    """The product of matrices, or of stacks of them, or with a vector, as `a @ b` in NumPy.

    Examples
    --------
    >>> from fastbp import graph
    >>> a = graph.variable("a", (None, 3))
    >>> graph.matmul(a, graph.variable("b", (3, 4)))
    <matmul: (None, 4) float64>
    """
    if not isinstance(a, Node) and not isinstance(b, Node):
        return np.matmul(a, b)
    if 0 in (np.ndim(a), np.ndim(b)):
        raise ValueError("matmul: expected vectors or matrices, got a number; write a * b")
    left, right = np.ndim(a) == 1, np.ndim(b) == 1
    product = apply("matmul", a[None, :] if left else a, b[:, None] if right else b)
    if right:
        product = product[..., 0]
    return product[..., 0] if left and right else product[..., 0, :] if left else product


def dense(x: Any, w: Any, b: Any = None, activation: str = "identity") -> Any:
    """A dense layer as one node: activation(x @ w + b).

    Parameters
    ----------
    x, w, b : (n, k), (k, m) and (m,) nodes or arrays
        The bias may be left out.
    activation : str
        As in `fastbp.functional.dense_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (None, 2))
    >>> graph.dense(x, np.eye(2), np.zeros(2), "relu")
    <dense: (None, 2) float64>
    """
    operands = (x, w) if b is None else (x, w, b)
    return apply("dense", *operands, activation=activation)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """x with its axes in another order, by default in reverse.

    Examples
    --------
    >>> from fastbp import graph
    >>> graph.transpose(graph.variable("x", (2, 3))).shape
    (3, 2)
    """
    order = tuple(reversed(range(x.ndim))) if axes is None else tuple(axes)
    return apply("transpose", x, axes=tuple(a + x.ndim if a < 0 else a for a in order))


def swap(x: Any) -> Any:
    """x with its last two axes exchanged."""
    *first, n, k = range(x.ndim)
    return transpose(x, (*first, k, n))


def reshape(x: Any, shape: Any) -> Any:
    """x in another shape with as many elements, whatever the batch size; None is the batch size.

    Examples
    --------
    >>> from fastbp import graph
    >>> graph.reshape(graph.variable("x", (None, 2, 3)), (None, 6)).shape
    (None, 6)
    """
    return apply("reshape", x, shape=check_shape("reshape", shape))


def broadcast(x: Any, shape: Any) -> Any:
    """x repeated to a shape, as in NumPy; None is the batch size, and the result then a node.

    Examples
    --------
    >>> from fastbp import graph
    >>> graph.broadcast(graph.variable("b", (3,)), (None, 3)).shape
    (None, 3)
    """
    sizes = check_shape("broadcast", shape)
    if None in sizes and not isinstance(x, Node):
        x = constant(x)
    return apply("broadcast", x, shape=sizes)


def concatenate(parts: Sequence[Any], axis: int = 0) -> Any:
    """The parts one after the other along an axis.

    Examples
    --------
    >>> from fastbp import graph
    >>> a = graph.variable("a", (None, 3))
    >>> graph.concatenate([a, 2 * a], axis=1).shape
    (None, 6)
    """
    if not parts:
        raise ValueError("concatenate: expected at least one part, got none")
    (place,) = _axes("concatenate", axis, parts[0].ndim)
    return apply("concatenate", *parts, axis=place)


def stack(parts: Sequence[Any], axis: int = 0) -> Any:
    """The parts side by side along a new axis.

    Examples
    --------
    >>> from fastbp import graph
    >>> a = graph.variable("a", (None, 3))
    >>> graph.stack([a, 2 * a], axis=1).shape
    (None, 2, 3)
    """
    if not parts:
        raise ValueError("stack: expected at least one part, got none")
    (place,) = _axes("stack", axis, parts[0].ndim + 1)
    key = (slice(None),) * place + (None,)
    return concatenate([part[key] for part in parts], place)


def _axes(op: str, axis: Any, ndim: int) -> tuple[int, ...]:
    try:
        return normalize(axis, ndim)
    except ValueError as fault:
        raise ValueError(f"{op}: {fault}") from None


def _reduced(op: str, x: Any, axis: Any, keepdims: bool) -> Any:
    return apply(op, x, axes=_axes(op, axis, np.ndim(x)), keepdims=bool(keepdims))


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum over an axis, several or all.

    Examples
    --------
    >>> from fastbp import graph
    >>> a = graph.variable("a", (None, 3))
    >>> graph.sum(a, axis=1).shape, graph.sum(a).shape
    ((None,), ())
    """
    return _reduced("sum", x, axis, keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean over an axis, several or all; NaN over none.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> float(graph.mean(np.array([1.0, 2.0, 6.0])))
    3.0
    """
    axes = _axes("mean", axis, np.ndim(x))
    sizes = [rows(x.dtype) if x.shape[a] is None else x.shape[a] for a in axes]
    return sum(x, axes, keepdims) / (reduce(mul, sizes) if sizes else 1)


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The maximum over axes, -inf over none; equal maxima share the derivative equally.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (3,))
    >>> graph.evaluate(graph.gradient(graph.max(x), x), {x: np.array([1.0, 5.0, 5.0])})
    array([0. , 0.5, 0.5])
    """
    return _reduced("max", x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The minimum over axes, inf over none; equal minima share the derivative equally."""
    return -max(-x, axis, keepdims)


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over axes, for any x."""
    return _reduced("logsumexp", x, axis, keepdims)


def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) / sum(exp(x)) over axes, for any x.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> graph.softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    return apply("softmax", x, axes=_axes("softmax", axis, np.ndim(x)))


def argmax(x: Any, axis: int = -1) -> Any:
    """The place of the first maximum along an axis; without a derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> int(graph.argmax(np.array([1.0, 5.0, 5.0])))
    1
    """
    (place,) = _axes("argmax", axis, np.ndim(x))
    return apply("argmax", x, axis=place)


def pick(x: Any, i: Any) -> Any:
    """x[..., i]: of each row of the last axis the element that an int64 node or array names.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x, t = graph.variable("x", (None, 3)), graph.variable("t", (None,), "int64")
    >>> loss = graph.mean(graph.logsumexp(x, axis=1) - graph.pick(x, t))
    >>> float(graph.evaluate(loss, {x: np.zeros((2, 3)), t: np.array([0, 2])})).__round__(6)
    1.098612
    """
    return apply("pick", x, i)


def unpick(g: Any, i: Any, size: int) -> Any:
    """Zeros (..., size), and g (...) at the places i: what `pick` gives back."""
    return apply("unpick", g, i, size=size)


def index(x: Any, key: Any) -> Any:
    """x[key] for numbers, slices, None, `...` and one list or array of places; all constants."""
    return apply("index", x, key=_key(x.ndim, key if isinstance(key, tuple) else (key,)))


def place(g: Any, key: Any, shape: Any) -> Any:
    """Zeros of a shape, and g added at [key]: what `index` gives back."""
    return apply("place", g, key=key, shape=shape)


def _key(ndim: int, key: tuple[Any, ...]) -> shapes.Key:
    """An index whose parts are hashable and stand for one axis each."""
    named = [entry for entry in key if entry is not None and entry is not Ellipsis]
    dots = [i for i, entry in enumerate(key) if entry is Ellipsis]
    if len(named) > ndim or len(dots) > 1:
        raise ValueError(f"index: expected at most {ndim} indices and one '...', got {len(named)}")
    at = dots[0] if dots else len(key)
    whole = (slice(None),) * (ndim - len(named))
    entries = tuple(_entry(entry) for entry in (*key[:at], *whole, *key[at + 1 :]))
    lists = [entry for entry in entries if isinstance(entry, tuple) and entry[0] == "take"]
    if len(lists) > 1 or (lists and any(isinstance(entry, int) for entry in entries)):
        raise ValueError(
            "index: expected one list of places and slices beside it; index in two steps"
        )
    return entries


def _entry(entry: Any) -> Any:
    if entry is None:
        return None
    if isinstance(entry, slice):
        return ("slice", entry.start, entry.stop, entry.step)
    if isinstance(entry, Node):
        raise TypeError(
            "index: expected numbers, slices or constant lists, got a node; "
            "graph.pick(x, i) takes places that are known later"
        )
    places = np.asarray(entry)
    if places.dtype.kind not in "iu" or places.ndim > 1:
        raise TypeError(f"index: expected integers, slices, None or '...', got {entry!r}")
    return int(places) if places.ndim == 0 else ("take", *places.tolist())
