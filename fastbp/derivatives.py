"""Derivatives of a network by its inputs, and losses that contain them.

Each is a graph (fastbp/graph) of the layers, compiled at the first call for layers of these sizes
and activations, and kept on disk for the next process.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import graph
from .checks import Array, as_input, check_count, check_finite
from .layers import Dense
from .training import DivergenceError, too_large

if TYPE_CHECKING:
    from .network import Sequential

ROWS = 1024  # a batch is taken in such pieces: what lies between the layers stays small
TOGETHER = 4  # inputs whose second derivatives go forward together; of more, one after the other
Architecture = tuple[tuple[int, int, Any, bool], ...]


def input_gradient(net: "Sequential", x: Array, output: int | None = None) -> Array:
    """The derivatives (n, in_features) of one output by the inputs.

    Parameters
    ----------
    x : (n, in_features) array
        Finite.
    output : int, optional
        Which one; may be left out where there is only one.

    Raises
    ------
    ValueError
        If x has the wrong shape or holds NaN or infinity, or if there are several outputs and none
        is named.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(2, 1, dtype="float64"))
    >>> net.layers[0].w[:] = [[3.0], [4.0]]
    >>> net.input_gradient(np.zeros((1, 2)))
    array([[3., 4.]])
    """
    count = net.out_features
    if output is None and count > 1:
        raise ValueError(
            f"output: expected a number 0...{count - 1}, the network has {count} outputs; "
            "jacobian(x) has the derivatives of all"
        )
    chosen = check_count("output", 0 if output is None else output, 0)
    if chosen >= count:
        raise ValueError(f"output: expected a number 0...{count - 1}, got {chosen}")
    result = np.empty((len(checked(net, x)), net.in_features), net.dtype)
    along(net, x, "rows of the jacobian", np.eye(count, dtype=net.dtype)[chosen], result)
    return result


def jacobian(net: "Sequential", x: Array) -> Array:
    """All derivatives (n, out_features, in_features) of the outputs by the inputs.

    A backward pass for each output, or a forward one for each input, whichever are fewer.

    Parameters
    ----------
    x : (n, in_features) array
        Finite.

    Raises
    ------
    TypeError, ValueError
        If x is no such array of the network's type, or holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(2, 3, dtype="float64"))
    >>> bool((net.jacobian(np.ones((5, 2))) == net.layers[0].w.T).all())
    True
    """
    m, k = net.out_features, net.in_features
    result = np.empty((len(checked(net, x)), m, k), net.dtype)
    if m <= k:
        for j, unit in enumerate(np.eye(m, dtype=net.dtype)):
            along(net, x, "rows of the jacobian", unit, result[:, j])
    else:
        for i, unit in enumerate(np.eye(k, dtype=net.dtype)):
            along(net, x, "columns of the jacobian", unit, result[:, :, i])
    return result


def laplacian(net: "Sequential", x: Array) -> Array:
    """The sum (n, out_features) of the second derivatives of each output along all inputs.

    Of relu and leaky_relu the second derivative is 0, also at the kink, where there is none: the
    Laplacian of a network of such layers is 0 everywhere. elu has one at each side.

    Parameters
    ----------
    x : (n, in_features) array
        Finite.

    Raises
    ------
    TypeError, ValueError
        If x is no such array of the network's type, or holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(1, 1, activation="sin", dtype="float64"))
    >>> net.layers[0].w[:] = 1.0
    >>> x = np.array([[0.5]])
    >>> bool(np.isclose(net.laplacian(x), -np.sin(x)))
    True
    """
    result = np.zeros((len(checked(net, x)), net.out_features), net.dtype)
    if net.in_features <= TOGETHER:
        along(net, x, "laplacian", None, result)
        return result
    part = np.empty_like(result)
    for unit in np.eye(net.in_features, dtype=net.dtype):
        along(net, x, "second derivative", unit, part)
        result += part
    return result


def checked(net: "Sequential", x: Array) -> Array:
    """x, which must be finite: relu hides a NaN from a derivative."""
    x = as_input("x", x, ("n", net.in_features), net.dtype)
    check_finite("x", x)
    return x


def along(net: "Sequential", x: Array, what: str, direction: Array | None, out: Array) -> None:
    """One of FORMULAS for all rows of x, written to `out`."""
    call = function(net, what, architecture(net))
    fixed = [] if direction is None else [direction]
    weights = parameter_arrays(net)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        out[rows] = call(x[rows], *fixed, *weights)


def architecture(net: "Sequential") -> Architecture:
    """What the compiled functions of a network depend on: sizes, activation, bias of each layer."""
    return tuple((*x.w.shape, x.activation, x.bias) for x in dense_layers(net))


def dense_layers(net: "Sequential") -> list[Dense]:
    """The layers that have parameters."""
    return [layer for layer in net.layers if isinstance(layer, Dense)]


def parameter_arrays(net: "Sequential") -> list[Array]:
    """The arrays for `graph.network_parameters`."""
    return [array for x in dense_layers(net) for array in ((x.w, x.b) if x.bias else (x.w,))]


def jacobian_row(y: graph.Node, x: graph.Node, v: graph.Node) -> graph.Node:
    """v @ J for each row."""
    seed: graph.Node = graph.broadcast(v, y.shape)
    found: graph.Node = graph.vjp(y, x, seed)
    return found


def jacobian_column(y: graph.Node, x: graph.Node, v: graph.Node) -> graph.Node:
    """J @ v for each row."""
    found: graph.Node = graph.jvp(y, x, graph.broadcast(v, x.shape))
    return found


def second_derivative(y: graph.Node, x: graph.Node, v: graph.Node) -> graph.Node:
    """d^2/dt^2 y(x + t v) at t = 0."""
    return graph.taylor(y, x, graph.broadcast(v, x.shape), 2)[2]


# What is computed along a direction, with the size of that: the outputs', or the inputs'.
FORMULAS: dict[str, tuple[Callable[..., graph.Node], str]] = {
    "rows of the jacobian": (jacobian_row, "m"),
    "columns of the jacobian": (jacobian_column, "k"),
    "second derivative": (second_derivative, "k"),
    "laplacian": (graph.laplacian, ""),
}


def function(net: "Sequential", what: str, layers: Architecture) -> Callable[..., Array]:
    """A function (x, direction, *parameters) on the network's device."""
    outputs, inputs = formula(what, layers, net.dtype)
    return evaluator(net.device, outputs, inputs)


@lru_cache(maxsize=64)
def formula(
    what: str, layers: Architecture, dtype: np.dtype[Any]
) -> tuple[graph.Node, tuple[graph.Node, ...]]:
    """One of FORMULAS for a network as a graph, and its inputs."""
    like = SimpleNamespace(layers=[_Shapes(*layer, dtype) for layer in layers])
    k, m = layers[0][0], layers[-1][1]
    x = graph.variable("x", (None, k), dtype)
    rule, size = FORMULAS[what]
    direction = [graph.variable("v", ({"k": k, "m": m}[size],), dtype)] if size else []
    y = graph.network(like, x)
    return rule(y, x, *direction), (x, *direction, *graph.network_parameters(like))


class _Shapes:
    """What `graph.network` reads of a layer."""

    kind = "dense"

    def __init__(self, k: int, m: int, activation: Any, bias: bool, dtype: np.dtype[Any]) -> None:
        self.activation, self.bias = activation, bias
        self.w, self.b = np.empty((k, m), dtype), np.empty(m if bias else 0, dtype)


@lru_cache(maxsize=64)
def evaluator(
    device: str, outputs: graph.Node | tuple[graph.Node, ...], inputs: tuple[graph.Node, ...]
) -> Callable[..., Any]:
    """The outputs as a function of the inputs: compiled, or in NumPy for the reference."""
    if device == "cpu":
        compiled: Callable[..., Any] = graph.compile(outputs, inputs)
        return compiled
    if device == "reference":
        return lambda *arrays: graph.evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    raise ValueError(
        f"device: derivatives by inputs run on 'cpu' or 'reference', the network is on {device!r}; "
        "net.to('cpu') moves it"
    )


def objective(
    net: "Sequential", loss: graph.Node, inputs: Sequence[graph.Node], name: str = "net"
) -> Callable[..., float]:
    """A loss of one's own, derivatives by inputs included, as a function that fills `gradients`.

    Parameters
    ----------
    loss : node of shape ()
        An expression of `graph.network(net, x)` and of variables.
    inputs : sequence of variables
        What the function takes, in this order.
    name : str
        That of `graph.network`.

    Returns
    -------
    function
        (*arrays) -> loss, for the parameters that the network has at each call; `gradients` then
        holds its derivatives. `net.update(optimizer)` takes a step with them.

    Raises
    ------
    ValueError
        Compiling: if the loss is no number, or needs other variables. Calling: for arrays of other
        shapes, and for NaN or infinity in them.
    DivergenceError
        Calling: if the loss is not finite though the arrays are.

    Examples
    --------
    u'' = -u with u(0) = 0 and u'(0) = 1 has the solution sin(x):

    >>> import numpy as np, fastbp
    >>> from fastbp import graph
    >>> net = fastbp.Sequential(
    ...     fastbp.Dense(1, 8, activation="tanh", dtype="float64", rng=0),
    ...     fastbp.Dense(8, 1, dtype="float64", rng=1),
    ... )
    >>> x = graph.variable("x", (None, 1))
    >>> u = x + x**2 * graph.network(net, x)
    >>> step = net.objective(graph.mean((graph.laplacian(u, x) + u) ** 2), [x])
    >>> points, adam = np.linspace(0, 2, 20)[:, None], fastbp.Adam(0.01)
    >>> for _ in range(500):
    ...     loss = step(points)
    ...     net.update(adam)
    >>> loss < 0.001
    True
    """
    given, parameters = list(inputs), graph.network_parameters(net, name)
    slopes = graph.gradient(loss, parameters, unused="zeros")
    weights = [slope for slope in slopes if slope.ndim == 2]
    biases = [slope for slope in slopes if slope.ndim == 1]
    flat = [graph.reshape(slope, (math.prod(slope.shape),)) for slope in (*weights, *biases)]
    outputs = loss, graph.concatenate(flat)
    call = evaluator(net.device, outputs, (*given, *parameters))
    arrays = parameter_arrays(net)

    def evaluate(*values: Array) -> float:
        if len(values) != len(given):
            raise TypeError(f"expected {len(given)} arrays, got {len(values)}")
        fed = [as_array(node, value) for node, value in zip(given, values, strict=True)]
        total, net.gradients[:] = call(*fed, *arrays)
        if not (math.isfinite(total) and np.isfinite(net.gradients).all()):
            for node, value in zip(given, fed, strict=True):
                check_finite(name_of(node), np.atleast_1d(value))
            raise DivergenceError(too_large("the loss or its gradient is NaN or infinite", True))
        return float(total)

    return evaluate


def as_array(node: graph.Node, value: Any) -> Any:
    """An argument as the compiled function takes it."""
    if not node.shape:
        return node.dtype.type(value)
    shape = tuple("n" if size is None else size for size in node.shape)
    if node.dtype.kind != "f":
        return value
    return as_input(name_of(node), value, shape, node.dtype)


def name_of(node: graph.Node) -> str:
    """The name of a variable."""
    return str(dict(node.parameters)["name"])


def update(net: "Sequential", optimizer: Any) -> None:
    """One step of an optimiser with the gradients that the network has.

    Parameters
    ----------
    optimizer : Optimizer
        An instance such as fastbp.Adam(): it keeps its state between the calls.

    Raises
    ------
    DivergenceError
        For a gradient that is NaN or infinite: no step is taken.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros"))
    >>> net.gradients[:] = 1.0
    >>> net.update(fastbp.SGD(0.5))
    >>> net.parameters
    array([-0.5, -0.5], dtype=float32)
    """
    optimizer.check(net.parameters)
    if not np.isfinite(net.gradients).all():
        raise DivergenceError(too_large("a gradient is NaN or infinite", True))
    optimizer.update(net._kernels, net.gradients, net.parameters)
