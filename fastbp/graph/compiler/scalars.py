"""Operations on single numbers as text of generated loops."""

from math import nan
from typing import Any

import numpy as np

from ..node import Node
from .indexing import parameter, span

# Functions come from the kernels where they have vector code, else from runtime.py or NumPy.
CODE = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "negative": "-{}",
    "where": "{1} if {0} else {2}",
    "less": "{} < {}",
    "less_equal": "{} <= {}",
    "equal": "{} == {}",
    "maximum": "larger({}, {})",
    "minimum": "smaller({}, {})",
    "transpose": "{}",
    "reshape": "{}",
    "broadcast": "{}",
    "index": "{}",
    "abs": "abs({})",
    "sqrt": "np.sqrt({})",
    "floor": "np.floor({})",
    "sign": "sign({})",
} | {
    name: name + "({})"
    for name in (
        *("exp", "expm1", "log", "log1p", "sin", "cos", "erf", "tanh", "sigmoid", "softplus"),
        *("relu", "leaky_relu", "elu", "silu", "gelu", "gelu_tanh"),
    )
}
POWERS = {2.0: "{0} * {0}", 3.0: "{0} * {0} * {0}", 0.5: "np.sqrt({0})"}
TYPES = {"float32": "f32", "float64": "f64", "int64": "np.int64", "bool": "bool"}


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """A number of a type: a bare 0.5 would turn float32 arithmetic into float64."""
    plain = repr(value.item() if isinstance(value, np.generic) else value)
    return plain if dtype in (np.float64, np.int64, np.bool_) else f"{TYPES[dtype.name]}({plain})"


def scalar(node: Node, texts: list[str], at: tuple[str, ...]) -> str:
    """One element of a node from those of its operands, at an index."""
    special = SPECIAL.get(node.op)
    return CODE[node.op].format(*texts) if special is None else special(node, texts, at)


def _power(node: Node, texts: list[str], at: tuple[str, ...]) -> str:
    exponent = node.operands[1]
    if exponent.op == "constant" and exponent.shape == ():
        number = parameter(exponent, "value").item()
        if number == -1:
            return f"{literal(1.0, node.dtype)} / {texts[0]}"
        if number in POWERS:
            return POWERS[number].format(texts[0])
    return "{} ** {}".format(*texts)


def _cast(node: Node, texts: list[str], at: tuple[str, ...]) -> str:
    return f"{TYPES[node.dtype.name]}({texts[0]})"


def _place(node: Node, texts: list[str], at: tuple[str, ...]) -> str:
    tests = []
    for axis, (entry, t) in enumerate(zip(parameter(node, "key"), at, strict=True)):
        begin, size = span(node, axis) or (0, 0)
        if isinstance(entry, int):
            rows = "n" if node.shape[axis] is None else node.shape[axis]
            tests.append(f"{t} == {entry if entry >= 0 else f'{rows} - {-entry}'}")
        elif size:
            tests.append(f"{begin} <= {t} < {begin + size}")
    return f"{texts[0]} if {' and '.join(tests) or 'True'} else {literal(0.0, node.dtype)}"


def _pick(node: Node, texts: list[str], at: tuple[str, ...]) -> str:
    x, i = texts
    size = node.operands[0].shape[-1]
    return f"{x.replace('@', i)} if 0 <= {i} < {size} else {literal(nan, node.dtype)}"


def _unpick(node: Node, texts: list[str], at: tuple[str, ...]) -> str:
    g, i = texts
    zero, missing = literal(0.0, node.dtype), literal(nan, node.dtype)
    inside = f"0 <= {i} < {node.shape[-1]}"
    return f"({g} if {i} == {at[-1]} else {zero}) if {inside} else {missing}"


SPECIAL = {
    "power": _power,
    "cast": _cast,
    "place": _place,
    "pick": _pick,
    "unpick": _unpick,
}
