"""Activations and losses that users give as expressions: functions of the nodes of a graph.

Such a function is called with variables, once for each use; what it returns is checked,
differentiated, and compiled (graph/compiler/expressions.py). The kernels know the result by its
code, the address of the compiled function. Equal expressions are one node, and share one function,
which lives as long as the process.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from . import graph
from .checks import Array, check_choice
from .graph.compiler import expressions as compiler
from .graph.data import from_data, to_data
from .graph.evaluation import compute, name_of
from .graph.node import Node
from .graph.restating import afresh, condensed, within_row
from .graph.rewriting import number_of, rebuilt
from .graph.table import OPERATIONS
from .graph.walk import topological
from .kernels import codes
from .kernels.reference import activations as reference_activations
from .kernels.reference import expressions as reference_losses

HINT = (
    "the function gets nodes of fastbp.graph: graph.exp(z) in place of np.exp(z), and float(c) for "
    "a NumPy number c"
)
UNUSED = "; unused='zeros' gives zeros for it"  # advice that is none here
_lock = threading.RLock()  # networks may be made and trained by several threads


def text_of(node: Node) -> str:
    """An expression in one line."""
    return "; ".join(str(node).splitlines())


@dataclass(frozen=True, repr=False)
class Activation:
    """An activation f(z) from an expression, with its derivative.

    Attributes
    ----------
    z, value, slope : Node
        The variable, f(z) and f'(z).
    """

    z: Node
    value: Node
    slope: Node

    def __repr__(self) -> str:
        return text_of(self.value)

    def __reduce__(self) -> Any:
        return read_activation, (self.data(), self.z.dtype)

    @property
    def code(self) -> int:
        """By which the kernels know it."""
        with _lock:
            if self.value not in _codes:
                code = compiler.activation(self.z, self.value, self.slope)
                rules = (_in_numpy(self.z, self.value), _in_numpy(self.z, self.slope))
                reference_activations.RULES[code] = rules
                _codes[self.value] = code
            return _codes[self.value]

    def data(self) -> Any:
        """The expression as it is written to files."""
        return to_data(self.value)


@dataclass(frozen=True, repr=False)
class RowLoss:
    """The loss of a row from an expression, with its derivative.

    Attributes
    ----------
    y, t, scale : Node
        Variables: output and target (None, m), and what a row counts in the mean (None,).
    value : Node
        The loss of each row, (None,).
    gradient : Node
        The derivative of sum(scale * value) by y, (None, m).
    """

    y: Node
    t: Node
    scale: Node
    value: Node
    gradient: Node

    def __repr__(self) -> str:
        return text_of(self.value)

    def __reduce__(self) -> Any:
        return read_loss, (self.data(), self.m, self.y.dtype)

    @property
    def m(self) -> int:
        """Outputs of a row."""
        return self.y.shape[1] or 0

    @property
    def code(self) -> int:
        """By which the kernels know it."""
        with _lock:
            if self.value not in _codes:
                code = compiler.loss(self.y, self.t, self.scale, self.value, self.gradient)
                reference_losses.RULES[code] = self._in_numpy
                _codes[self.value] = code
            return _codes[self.value]

    def _in_numpy(self, y: Array, t: Array) -> tuple[Array, Array]:
        """The losses of rows, and their derivatives by y."""
        order, n = topological([self.value, self.gradient]), len(y)
        values = compute(order, {self.y: y, self.t: t, self.scale: np.ones(n, y.dtype)}, n)
        return values[self.value], values[self.gradient]

    def data(self) -> Any:
        """The expression as it is written to files."""
        return to_data(self.value)


@cache
def _variable(name: str, m: int | None, dtype: np.dtype[Any]) -> Node:
    return graph.variable(name, (None, m), dtype)


_codes: dict[Node, int] = {}
_known: dict[Node, Any] = {}  # by what a function returned


def _in_numpy(z: Node, node: Node) -> Callable[[Array, Array], None]:
    """An elementwise function of z as the reference kernels take it."""
    order = topological([node])

    def formula(x: Array, out: Array) -> None:
        np.copyto(out, compute(order, {z: x}, None)[node])

    return formula


def activation(given: object, dtype: np.dtype[Any]) -> str | Activation:
    """The name of a built-in activation, or an expression, checked.

    Raises
    ------
    TypeError
        If a function returns no node, or one of another dtype.
    ValueError
        For an unknown name, and if the expression is not an elementwise function of z alone or has
        no derivative.
    """
    if isinstance(given, Activation):
        _check_type("activation", given.z, dtype)
        return given
    if not callable(given):
        return check_choice("activation", given, codes.ACTIVATIONS)
    z = _variable("z", None, dtype)
    return _activation(z, _called("activation", given, z))


def _activation(z: Node, value: Node) -> str | Activation:
    if value not in _known:
        _check_variables("activation", value, [z])
        _check_type("activation", value, z.dtype)
        _check_elementwise(value)
        own, (z,) = afresh([value], [z])
        (simple,) = graph.simplify(own)
        name = _built_in(z, simple)
        _known[value] = name or Activation(z, simple, _slope(z, simple))
    found: str | Activation = _known[value]
    return found


def _slope(z: Node, value: Node) -> Node:
    """f'(z)."""
    given = _derivative("activation", lambda: graph.gradient(graph.sum(value), z))
    return condensed(given)


def _built_in(z: Node, value: Node) -> str | None:
    """The name of an activation that an expression is."""
    if value is z:
        return "identity"
    if value.op == "maximum" and value.operands[0] is z and number_of(value.operands[1]) == 0:
        return "relu"
    return value.op if value.op in codes.ACTIVATIONS and value.operands == (z,) else None


def loss(given: Callable[..., Any], m: int, dtype: np.dtype[Any]) -> RowLoss:
    """The loss that a function of outputs and targets returns, checked.

    Raises
    ------
    TypeError
        If it returns no node, or one of another dtype.
    ValueError
        If that is no loss for each row, from this row of y and t alone, or has no derivative.
    """
    y, t = _variable("y", m, dtype), _variable("t", m, dtype)
    return _loss(y, t, _called("loss", given, y, t))


def _loss(y: Node, t: Node, value: Node) -> RowLoss:
    if value not in _known:
        _check_type("loss", value, y.dtype)
        if not (value.shape[:1] == (None,) and None not in value.shape[1:] and value.ndim <= 2):
            raise ValueError(
                f"loss: expected a loss for each row (None,), or one for each output {y.shape}, "
                f"got shape {value.shape}; graph.sum(..., axis=1) or graph.mean(..., axis=1) keep "
                "the rows, whose mean the kernels take"
            )
        _check_variables("loss", value, [y, t])
        _check_rows(value)
        scale = graph.variable("scale", (None,), y.dtype)
        own, (y, t, scale) = afresh([value], [y, t, scale])
        (inside,) = rebuilt(own, {}, within_row)
        (row,) = graph.simplify([graph.sum(inside, axis=1) if inside.ndim == 2 else inside])
        one = graph.broadcast(graph.constant(1.0, y.dtype), row.shape)
        slope = condensed(_derivative("loss", lambda: graph.vjp(row, y, one)))
        gradient = graph.reshape(scale, (None, 1)) * slope
        _known[value] = RowLoss(y, t, scale, row, gradient)
    found: RowLoss = _known[value]
    return found


def read_activation(data: Sequence[Any], dtype: np.dtype[Any]) -> str | Activation:
    """The activation that `data` wrote to a file."""
    return _activation(_variable("z", None, dtype), from_data(data))


def read_loss(data: Sequence[Any], m: int, dtype: np.dtype[Any]) -> RowLoss:
    """The loss that `data` wrote to a file."""
    return _loss(_variable("y", m, dtype), _variable("t", m, dtype), from_data(data))


def check_device(what: str, device: str) -> None:
    """Raise ValueError for a device whose kernels know no expressions."""
    if device == "cuda":
        raise ValueError(
            f"{what}: expected a built-in one for device='cuda', got an expression; "
            "expressions run on 'cpu' and 'reference'"
        )


def _called(what: str, function: Callable[..., Any], *variables: Node) -> Node:
    """What a user's function returns for variables: a node."""
    try:
        value = function(*variables)
    except TypeError as fault:
        raise TypeError(f"{what}: {fault}; {HINT}") from fault
    except ValueError as fault:
        raise ValueError(f"{what}: {fault}") from fault
    if not isinstance(value, Node):
        raise TypeError(f"{what}: expected a node, got {type(value).__name__}; {HINT}")
    return value


def _derivative(what: str, differentiate: Callable[[], Node]) -> Node:
    try:
        return differentiate()
    except ValueError as fault:
        raise ValueError(f"{what}: {str(fault).removesuffix(UNUSED)}") from fault


def _check_type(what: str, value: Node, dtype: np.dtype[Any]) -> None:
    if value.dtype != dtype:
        raise TypeError(
            f"{what}: expected an expression of {dtype}, got one of {value.dtype}; "
            "graph.cast(..., z.dtype) is the way from one type to another"
        )


def _check_variables(what: str, value: Node, known: Sequence[Node]) -> None:
    names = " and ".join(name_of(one) for one in known)
    for node in topological([value]):
        if node.op == "rows":
            raise ValueError(f"{what}: expected no batch size in it, got a mean over the rows")
        if node.op == "variable" and node not in known:
            raise ValueError(
                f"{what}: expected an expression of {names} alone, got the variable "
                f"{name_of(node)} too; numbers and arrays are constants"
            )


def _check_elementwise(value: Node) -> None:
    for node in topological([value]):
        if node.operands and not OPERATIONS[node.op].elementwise:
            got = node.op
        elif node.op == "constant" and node.shape != ():
            got = f"a constant of shape {node.shape}"
        else:
            continue
        raise ValueError(f"activation: expected a function of each element alone, got {got}")


def _check_rows(row: Node) -> None:
    """Each row of every node must follow from the same row of y and t."""
    order = topological([row])
    varying = {node for node in order if node.op == "variable"}
    for node in order:
        if varying.isdisjoint((node, *node.operands)):
            continue
        varying.add(node)
        parameters = dict(node.parameters)
        along = node.op == "softmax" and 0 in parameters["axes"]
        if along or node.shape[:1] != (None,) or None in node.shape[1:]:
            raise ValueError(
                f"loss: expected the loss of a row from this row alone, got {node.op} over the "
                "batch; axis=1 is that of the outputs"
            )
