"""A graph as plain data for a file, and back: names, numbers and lists, nothing that could run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .node import Node
from .table import OPERATIONS
from .walk import LEAVES, records, restore

Data = list[list[Any]]


def to_data(node: Node) -> Data:
    """A node as lists of strings and numbers, which JSON can hold.

    Examples
    --------
    >>> from fastbp import graph
    >>> from fastbp.graph.data import to_data
    >>> to_data(graph.exp(graph.variable("x")))[-1]
    ['exp', [0], {}, [], '<f8']
    """
    return [
        [op, list(operands), {k: _plain(v) for k, v in parameters}, list(shape), dtype]
        for op, operands, parameters, shape, dtype in records([node])
    ]


def from_data(data: Sequence[Sequence[Any]]) -> Node:
    """The node that `to_data` wrote down.

    Raises
    ------
    ValueError
        For an operation that this library does not have.
    """
    flat = []
    for i, (op, operands, parameters, shape, dtype) in enumerate(data):
        if op not in OPERATIONS and op not in LEAVES:
            raise ValueError(f"unknown operation {op!r} in an expression")
        if not all(0 <= place < i for place in operands):
            raise ValueError(f"operands {operands} of {op} do not stand before it")
        known = tuple((name, _value(value)) for name, value in parameters.items())
        flat.append((op, tuple(operands), known, tuple(shape), dtype))
    return restore(flat)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {
            "dtype": value.dtype.str,
            "shape": list(value.shape),
            "values": value.ravel().tolist(),
        }
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return np.array(value["values"], value["dtype"]).reshape(value["shape"])
    return tuple(_value(part) for part in value) if isinstance(value, list) else value
