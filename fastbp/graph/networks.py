"""A network of layers as an expression, whose parameters are variables."""

from collections.abc import Iterator
from typing import Any

from . import functions as f
from .node import Node, variable
from .rewriting import rebuilt


def network(net: Any, x: Any, name: str = "net") -> Node:
    """The output of a network as a node, with its parameters as variables.

    Parameters
    ----------
    net : Sequential
        Its layers; Dropout is left out, as in a prediction.
    x : node or array (n, in_features)
        Of the network's dtype.
    name : str
        With which the names of the variables begin: another one for each network of a graph.

    Returns
    -------
    node of shape (n, out_features)
        It can be differentiated by x and by `network_parameters(net)`.

    Examples
    --------
    >>> import fastbp
    >>> from fastbp import graph
    >>> net = fastbp.Sequential(fastbp.Dense(2, 3, activation="tanh"), fastbp.Dense(3, 1))
    >>> x = graph.variable("x", (None, 2), "float32")
    >>> graph.network(net, x)
    <dense: (None, 1) float32>
    >>> print(graph.laplacian(graph.network(net, x), x).shape)
    (None, 1)
    """
    y = x
    for layer, parameters in _layers(net, name):
        w, *b = parameters
        bias = b[0] if b else None
        if isinstance(layer.activation, str):
            y = f.dense(y, w, bias, layer.activation)
        else:  # an expression
            z, own = f.dense(y, w, bias), layer.activation
            (y,) = rebuilt([own.value], {own.z: z}, lambda node: node)
    return y


def network_parameters(net: Any, name: str = "net") -> list[Node]:
    """The variables of a network: w and b of each layer, in order; b only where it has one.

    Examples
    --------
    >>> import fastbp
    >>> from fastbp import graph
    >>> net = fastbp.Sequential(fastbp.Dense(2, 3, bias=False), fastbp.Dense(3, 1))
    >>> [p.shape for p in graph.network_parameters(net)]
    [(2, 3), (3, 1), (1,)]
    """
    return [parameter for _, parameters in _layers(net, name) for parameter in parameters]


def _layers(net: Any, name: str) -> Iterator[tuple[Any, list[Node]]]:
    """Each dense layer with its variables."""
    dense = [layer for layer in net.layers if layer.kind == "dense"]
    for i, layer in enumerate(dense):
        arrays = {"w": layer.w, "b": layer.b} if layer.bias else {"w": layer.w}
        yield (
            layer,
            [variable(f"{name}_{letter}{i}", a.shape, a.dtype) for letter, a in arrays.items()],
        )
