"""Values of a graph in NumPy: operands first, each node once, only what the outputs need."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..checks import Array, check_plain
from .node import Node, is_weak
from .table import OPERATIONS, Shape
from .walk import topological

Feed = Mapping[Any, Any]  # by variable, or by its name
Values = dict[Node, Any]


def evaluate(outputs: Node | Sequence[Node], feed: Feed | None = None) -> Any:
    """The values of nodes.

    Parameters
    ----------
    outputs : node or sequence of nodes
    feed : dict
        An array for each variable that the outputs need, by node or by name, with the variable's
        dtype and shape; a variable of shape () takes a Python number too. More may be fed.

    Returns
    -------
    array, or list of arrays for a sequence
        Each is its caller's own.

    Raises
    ------
    TypeError
        For what is no array, or of another dtype: nothing is cast.
    ValueError
        For a wrong shape, two batch sizes, a variable without a value, an unknown name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (None,))
    >>> graph.evaluate(graph.exp(x) - 1, {x: np.zeros(2)})
    array([0., 0.])
    """
    wanted = as_list("outputs", outputs)
    order = topological(wanted)
    given, n = check_feed(order, {} if feed is None else feed)
    left = Counter(operand for node in order for operand in node.operands)
    left.update(wanted)
    values = compute(order, given, n, left)
    results = [np.array(values[node])[()] for node in wanted]
    return results[0] if isinstance(outputs, Node) else results


def compute(
    order: Iterable[Node], given: Values, n: int | None, left: Counter[Node] | None = None
) -> Values:
    """The values of all nodes of a topological order; with `left` uses each, only those still used.

    A value that nobody needs any more is dropped, so memory is that of the widest place.
    """
    values = dict(given)
    with np.errstate(all="ignore"):  # NaN and infinity show in the values
        for node in order:
            if node not in values:
                arrays = [values[operand] for operand in node.operands]
                values[node] = _value(node, arrays, n)
            for operand in node.operands if left is not None else ():
                left[operand] -= 1  # type: ignore[index]
                if not left[operand]:  # type: ignore[index]
                    del values[operand]
    return values


def _value(node: Node, arrays: list[Any], n: int | None) -> Any:
    if node.op == "constant":
        return dict(node.parameters)["value"]
    if node.op == "rows":
        return node.dtype.type(_known(n))
    return OPERATIONS[node.op].value(*arrays, **parameters_of(node, n))


def parameters_of(node: Node, n: int | None) -> dict[str, Any]:
    """The parameters of an operation, with the batch size in place of None."""
    parameters = dict(node.parameters)
    if None in parameters.get("shape", ()):
        parameters["shape"] = sized(parameters["shape"], _known(n))
    return parameters


def sized(shape: Shape, n: int) -> tuple[int, ...]:
    """A shape at batch size n."""
    return tuple(n if size is None else size for size in shape)


def _known(n: int | None) -> int:
    if n is None:
        raise ValueError("feed: expected a variable that says how large the batch is, got none")
    return n


def as_list(name: str, nodes: Any) -> list[Node]:
    """One node or several as a list of nodes."""
    found = [nodes] if isinstance(nodes, Node) else nodes
    if not isinstance(found, Sequence) or not all(isinstance(node, Node) for node in found):
        kinds = {type(node).__name__ for node in found} if isinstance(found, Sequence) else {}
        got = f"a sequence of {', '.join(sorted(kinds))}" if kinds else type(found).__name__
        raise TypeError(f"{name}: expected a node or a sequence of nodes, got {got}")
    return list(found)


def name_of(node: Node) -> str:
    """The name of a variable."""
    return str(dict(node.parameters)["name"])


def variables_of(order: Iterable[Node]) -> dict[str, Node]:
    """The variables of a graph by name; each name must stand for one."""
    found: dict[str, Node] = {}
    for node in order:
        if node.op == "variable" and found.setdefault(name_of(node), node) is not node:
            other = found[name_of(node)]
            raise ValueError(
                f"variables: {name_of(node)!r} is the name of two, {other.shape} "
                f"{other.dtype} and {node.shape} {node.dtype}; give one another name"
            )
    return found


def check_feed(order: Iterable[Node], feed: Feed) -> tuple[Values, int | None]:
    """The fed arrays by node, and the batch size."""
    if not isinstance(feed, Mapping):
        raise TypeError(f"feed: expected a dict of arrays, got {type(feed).__name__}")
    variables = variables_of(order)
    values: Values = {}
    sizes: dict[str, int] = {}
    for key, value in feed.items():
        node = _fed(key, variables)
        if node in values:
            raise ValueError(f"feed: {name_of(node)} was fed twice, by node and by name")
        array = _check_fed(node, value)
        values[node] = array
        sizes |= {
            name_of(node): int(got)
            for size, got in zip(node.shape, array.shape, strict=True)
            if size is None
        }
        _one_batch(node, array, sizes)
    missing = [name for name, node in variables.items() if node not in values]
    if missing:
        raise ValueError(f"feed: expected values for {', '.join(variables)}; {missing[0]} has none")
    return values, next(iter(sizes.values()), None)


def _fed(key: Any, variables: dict[str, Node]) -> Node:
    if isinstance(key, Node):
        if key.op != "variable":
            raise ValueError(f"feed: expected variables as keys, got {key!r}")
        return key
    if key not in variables:
        known = ", ".join(variables) or "no variable"
        raise ValueError(f"feed: expected one of {known}; got {key!r}")
    return variables[key]


def _check_fed(node: Node, value: Any) -> Array:
    name = name_of(node)
    if is_weak(value) and not node.shape and node.dtype.kind == "f":
        return np.asarray(value, node.dtype)
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(
            f"{name}: expected a NumPy array, got {type(value).__name__}; "
            f"pass np.asarray({name}, dtype=np.{node.dtype})"
        )
    array = np.asarray(value)
    if isinstance(value, np.ndarray):
        check_plain(name, value)
    if array.dtype != node.dtype:
        raise TypeError(
            f"{name}: expected an array of {node.dtype}, got {array.dtype}; "
            f"pass {name}.astype(np.{node.dtype})"
        )
    fits = len(array.shape) == len(node.shape) and all(
        size in (None, got) for size, got in zip(node.shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape {node.shape}, got {array.shape}")
    return array


def _one_batch(node: Node, array: Array, sizes: dict[str, int]) -> None:
    got = {g for size, g in zip(node.shape, array.shape, strict=True) if size is None}
    (first, n), *_ = [*sizes.items(), ("", 0)]
    wrong = got - {n}
    if wrong:
        raise ValueError(
            f"{name_of(node)}: expected {n} for None in {node.shape} as in {first}, "
            f"got {wrong.pop()}"
        )
