"""Nodes: what a graph is made of. Immutable, checked when built, and equal nodes are one object.

A node knows its operands and nobody knows the nodes above it, so a cycle cannot be written.
"""

import hashlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ..checks import check_dtype, check_plain
from .table import ALLOWED, KINDS, OPERATIONS, Shape

DTYPES = tuple(np.dtype(name) for name in ("float32", "float64", "int64", "bool"))


@dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Node:
    """A value in a graph: a variable, a constant, or an operation on other nodes.

    Nodes are made by `variable`, `constant`, operators and the functions of `fastbp.graph`. Two
    nodes with the same operation, operands and parameters are one object, so `is` compares
    expressions and a sub-expression that occurs twice is computed once.

    Attributes
    ----------
    op : str
        Name of the operation.
    operands : tuple of nodes
    parameters : tuple of (name, value)
        What the operation needs besides operands: axes, a shape, a name.
    shape : tuple
        None stands for the batch size, the same one in the whole graph.
    dtype : numpy.dtype
    number : int
        Counts nodes as they are built; operands have smaller numbers.

    Examples
    --------
    >>> from fastbp import graph
    >>> x = graph.variable("x", (None, 3))
    >>> (x * x).shape, x * x is x * x
    ((None, 3), True)
    """

    op: str
    operands: tuple["Node", ...]
    parameters: tuple[tuple[str, Any], ...]
    shape: Shape
    dtype: np.dtype[Any]
    number: int

    __array_ufunc__ = None  # array * node is node.__rmul__(array)
    __iter__ = None  # or a loop over a node would index it for ever

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def T(self) -> "Node":
        """All axes in reverse order."""
        return apply("transpose", self, axes=tuple(reversed(range(self.ndim))))

    def __repr__(self) -> str:
        from .text import title

        return f"<{title(self)}: {self.shape} {self.dtype}>"

    def __str__(self) -> str:
        from .text import listing

        return listing([self])

    def __reduce__(self) -> Any:
        from .walk import records, restore

        return restore, (records([self]),)

    def __copy__(self) -> "Node":
        return self

    def __deepcopy__(self, memo: Any) -> "Node":
        return self

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self.op}: a node has no truth value before it is evaluated; choose between two "
            "values with graph.where(condition, a, b)"
        )

    def __add__(self, other: Any) -> "Node":
        return apply("add", self, other)

    def __radd__(self, other: Any) -> "Node":
        return apply("add", other, self)

    def __sub__(self, other: Any) -> "Node":
        return apply("subtract", self, other)

    def __rsub__(self, other: Any) -> "Node":
        return apply("subtract", other, self)

    def __mul__(self, other: Any) -> "Node":
        return apply("multiply", self, other)

    def __rmul__(self, other: Any) -> "Node":
        return apply("multiply", other, self)

    def __truediv__(self, other: Any) -> "Node":
        return apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> "Node":
        return apply("divide", other, self)

    def __pow__(self, other: Any) -> "Node":
        return apply("power", self, other)

    def __rpow__(self, other: Any) -> "Node":
        return apply("power", other, self)

    def __neg__(self) -> "Node":
        return apply("negative", self)

    def __abs__(self) -> "Node":
        return apply("abs", self)

    def __lt__(self, other: Any) -> "Node":
        return apply("less", self, other)

    def __gt__(self, other: Any) -> "Node":
        return apply("less", other, self)

    def __le__(self, other: Any) -> "Node":
        return apply("less_equal", self, other)

    def __ge__(self, other: Any) -> "Node":
        return apply("less_equal", other, self)

    def __matmul__(self, other: Any) -> "Node":
        from .functions import matmul

        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> "Node":
        from .functions import matmul

        return matmul(other, self)

    def __getitem__(self, key: Any) -> "Node":
        from .functions import index

        return index(self, key)


def apply(op: str, *operands: Any, **parameters: Any) -> Any:
    """The value of an operation on arrays; with a node among the operands, a node.

    Raises
    ------
    TypeError
        For operands that are no numbers, or whose dtypes differ.
    ValueError
        For shapes that do not fit, with the operation's name.
    """
    operation = OPERATIONS[op]
    if not any(isinstance(operand, Node) for operand in operands):
        return operation.value(*operands, **parameters)
    nodes = as_nodes(op, operands)
    return build(op, nodes, **parameters)


def build(op: str, nodes: tuple[Node, ...], **parameters: Any) -> Node:
    """A node of an operation from operands whose dtypes are known to fit."""
    operation = OPERATIONS[op]
    try:
        shape = operation.shape(*(node.shape for node in nodes), **parameters)
    except ValueError as fault:
        raise ValueError(f"{op}: {fault}") from None
    given = parameters.get("dtype", operation.gives)
    like = nodes[operation.takes[0] == "b"]  # not the condition
    dtype = like.dtype if given is None else np.dtype(given)
    kept = tuple(sorted(parameters.items()))
    return intern((op, nodes, kept), op, nodes, kept, shape, dtype)


_nodes: WeakValueDictionary[Any, Node] = WeakValueDictionary()
_numbers = itertools.count()
_lock = threading.RLock()  # collecting garbage may build nodes again


def intern(
    key: Any,
    op: str,
    operands: tuple[Node, ...],
    parameters: tuple[tuple[str, Any], ...],
    shape: Shape,
    dtype: np.dtype[Any],
) -> Node:
    """The node with this key: the one that exists, or a new one."""
    with _lock:
        node = _nodes.get(key)
        if node is None:
            node = Node(op, operands, parameters, shape, dtype, next(_numbers))
            _nodes[key] = node
        return node


def variable(name: Any, shape: Sequence[int | None] = (), dtype: Any = "float64") -> Node:
    """A named input of a graph.

    Parameters
    ----------
    name : str
        By which it is fed and printed. The same name, shape and dtype give the same node.
    shape : tuple
        Sizes; None stands for the batch size, which is one number for the whole graph.
    dtype : str or numpy.dtype
        float32, float64; int64 for labels, bool for conditions.

    Examples
    --------
    >>> from fastbp import graph
    >>> graph.variable("x", shape=(None, 3), dtype="float32")
    <x: (None, 3) float32>
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name: expected an identifier such as 'x', got {name!r}")
    found = _dtype(dtype)
    sizes = check_shape("shape", shape)
    key = ("variable", name, sizes, found.str)
    return intern(key, "variable", (), (("name", name),), sizes, found)


def constant(value: Any, dtype: Any = None) -> Node:
    """A node with a value of its own.

    Parameters
    ----------
    value : array or number
        Copied. A Python float or int becomes float64 unless `dtype` says otherwise; an array keeps
        its dtype.
    dtype : str or numpy.dtype, optional

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> graph.constant(np.eye(2))
    <constant: (2, 2) float64>
    """
    if isinstance(value, Node):
        raise TypeError("constant: expected an array or a number, got a node")
    weak = is_weak(value)
    if not weak and not isinstance(value, np.ndarray | np.generic):
        raise TypeError(
            f"constant: expected a NumPy array or a number, got {type(value).__name__}; "
            "pass np.asarray(..., dtype=np.float64)"
        )
    if isinstance(value, np.ndarray):
        check_plain("constant", value)
    if weak:
        usual = np.bool_ if isinstance(value, bool) else np.float64
        found = np.dtype(usual) if dtype is None else _dtype(dtype)
        if found.kind != "f" and not isinstance(value, bool if found.kind == "b" else int):
            raise TypeError(f"constant: expected a number of type {found}, got {value!r}")
    else:
        found = _dtype(value.dtype)
        if dtype is not None and found != _dtype(dtype):
            raise TypeError(
                f"constant: expected {_dtype(dtype)}, got an array of {found}; "
                f"pass .astype(np.{_dtype(dtype)})"
            )
    array = np.array(value, found, order="C")  # a copy
    array.flags.writeable = False
    content = array.tobytes()
    if len(content) > 64:
        content = hashlib.sha256(content).digest()
    key = ("constant", array.shape, found.str, content)
    return intern(key, "constant", (), (("value", array),), array.shape, found)


def rows(dtype: np.dtype[Any]) -> Node:
    """The batch size as a number of a float type: what a mean over the batch divides by."""
    return intern(("rows", dtype.str), "rows", (), (), (), dtype)


def is_weak(value: Any) -> bool:
    """Whether a value is a Python number, which takes the dtype of its neighbours."""
    return isinstance(value, bool | int | float) and not isinstance(value, np.generic)


def _dtype(dtype: Any) -> np.dtype[Any]:
    """One of the dtypes that a graph knows."""
    known = [
        found for found in DTYPES if isinstance(dtype, str | type | np.dtype) and found == dtype
    ]
    return known[0] if known else check_dtype(dtype)


def check_shape(name: str, shape: Any) -> Shape:
    """A tuple of sizes >= 0 and None."""
    if isinstance(shape, int | np.integer) or shape is None:
        raise TypeError(f"{name}: expected a tuple such as (None, 3), got {shape!r}")
    sizes = tuple(shape)
    for size in sizes:
        whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if size is not None and not (whole and size >= 0):
            raise ValueError(f"{name}: expected sizes >= 0 or None, got {size!r} in {sizes}")
    return tuple(None if size is None else int(size) for size in sizes)


def as_nodes(op: str, operands: Sequence[Any]) -> tuple[Node, ...]:
    """The operands of an operation as nodes of fitting dtypes.

    Python numbers take the dtype of the others; nothing else is cast, and two dtypes never mix.
    """
    takes = OPERATIONS[op].takes
    letters = takes + takes[-1] * (len(operands) - len(takes))
    strong = [operand for operand in operands if not is_weak(operand)]
    for operand in strong:
        if not isinstance(operand, Node | np.ndarray | np.generic):
            raise TypeError(
                f"{op}: expected a node, a NumPy array or a number, got {type(operand).__name__}"
            )
        check_node(op, operand)
    common = _common(op, operands, letters)
    nodes = []
    for operand, letter in zip(operands, letters, strict=True):
        if is_weak(operand):
            operand = constant(operand, np.bool_ if letter == "b" else common)
        elif not isinstance(operand, Node):
            operand = constant(operand)
        if operand.dtype.kind not in ALLOWED[letter]:
            raise TypeError(f"{op}: expected {KINDS[letter]}, got {operand.dtype}")
        nodes.append(operand)
    return tuple(nodes)


def check_node(op: str, operand: Any) -> None:
    """Raise TypeError for arrays of a dtype that a graph does not know."""
    if operand.dtype not in DTYPES:
        raise TypeError(
            f"{op}: expected an array of float32 or float64, got {operand.dtype}; "
            "pass .astype(np.float64)"
        )


def _common(op: str, operands: Sequence[Any], letters: str) -> np.dtype[Any] | None:
    """The one dtype of all operands but conditions and indices."""
    found = [
        operand.dtype
        for operand, letter in zip(operands, letters, strict=True)
        if letter not in "bi" and not is_weak(operand)
    ]
    different = list(dict.fromkeys(found))
    if len(different) > 1:
        first, second, *_ = map(str, different)
        raise TypeError(
            f"{op}: {first} and {second} do not mix; pass one of them through "
            f"graph.cast(..., {second!r})"
        )
    return different[0] if different else None
