"""The table of operations: shape, value in NumPy, and the derivative rule of each.

A slope is written once, as (g, y, *operands) -> what the operand gets of the gradient g of y, with
functions that take nodes and arrays alike. So the same rule makes the derivative as a graph and
back-propagates numbers. A slope may have the shape of the result: whoever follows the rule sums it
to the shape of the operand (derivatives.py), the one place that knows of broadcasting.

Slopes at kinks, zeros and infinities: docs/graph.md has the table.
"""

from typing import Any

import numpy as np

from ..kernels import codes
from ..kernels.codes import GELU_CUBIC, GELU_EDGE, GELU_SCALE, INV_SQRT_2PI, LEAKY_SLOPE, SQRT_HALF
from . import functions as f
from . import shapes, values
from .node import apply
from .table import OPERATIONS, Operation, Slope

TWO_OVER_SQRT_PI = 2 / np.sqrt(np.pi).item()
JUMPS = "it is constant but for jumps"


def elementwise(value: Any, *slopes: Slope | None, takes: str = "f") -> Operation:
    """A row for an operation whose operands broadcast."""
    return Operation(shapes.broadcast, value, slopes, takes, elementwise=True)


def flat(value: Any, takes: str, gives: str | None, why: str = JUMPS) -> Operation:
    """A row for an elementwise operation without a derivative."""
    return Operation(shapes.broadcast, value, why, takes, gives, elementwise=True)


def activation(name: str, slope: Slope) -> Operation:
    """A row for an activation of the kernels."""
    return elementwise(values.activation(codes.ACTIVATIONS[name]), slope)


# Slopes that need more than a line.


def power_base(g: Any, y: Any, a: Any, b: Any) -> Any:
    """b a**(b - 1), and 0 for b = 0, where a = 0 would make it 0 * inf."""
    zero = f.equal(b, 0.0)
    return g * f.where(zero, 0.0, b * f.power(a, f.where(zero, 1.0, b - 1)))


def power_exponent(g: Any, y: Any, a: Any, b: Any) -> Any:
    """y log(a), and 0 for a = 0."""
    return g * y * f.log(f.where(f.equal(a, 0.0), 1.0, a))


def silu_slope(g: Any, y: Any, z: Any) -> Any:
    """s + z s (1 - s), s = sigmoid(z)."""
    s = f.sigmoid(z)
    return g * (s * (1 + z * (1 - s)))


def gelu_slope(g: Any, y: Any, z: Any) -> Any:
    """The normal distribution function, plus z times its density."""
    density = INV_SQRT_2PI * f.exp(-0.5 * z * z)
    return g * (0.5 * (1 + f.erf(SQRT_HALF * z)) + z * density)


def gelu_tanh_slope(g: Any, y: Any, z: Any) -> Any:
    """The derivative of z / 2 (1 + tanh(u)); beyond the edge it is 0 or 1, and the cube large."""
    z = f.maximum(f.minimum(z, GELU_EDGE), -GELU_EDGE)
    t = f.tanh(GELU_SCALE * (z + GELU_CUBIC * z * z * z))
    inner = GELU_SCALE * (1 + 3 * GELU_CUBIC * z * z)
    return g * (0.5 * (1 + t + z * (1 - t * t) * inner))


def restored(g: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """What a reduction gave, with ones for the axes that it took."""
    return g if keepdims else f.reshape(g, shapes.reduce(x.shape, axes, True))


def sum_slope(g: Any, y: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """g for every element."""
    return f.broadcast(restored(g, x, axes, keepdims), x.shape)


def max_slope(g: Any, y: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """g in equal shares for all that are maximal."""
    hit = f.cast(f.equal(x, restored(y, x, axes, keepdims)), x.dtype)
    return restored(g, x, axes, keepdims) * hit / f.sum(hit, axes, True)


def logsumexp_slope(g: Any, y: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The softmax."""
    return restored(g, x, axes, keepdims) * f.softmax(x, axes)


def softmax_slope(g: Any, y: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """y (g - sum(g y)): the rows of diag(y) - y y.T."""
    return y * (g - f.sum(g * y, axes, True))


def concatenate_slope(i: int) -> Slope:
    """The i-th part of g."""

    def slope(g: Any, y: Any, *parts: Any, axis: int) -> Any:
        begin = sum(part.shape[axis] for part in parts[:i])
        return g[(slice(None),) * axis + (slice(begin, begin + parts[i].shape[axis]),)]

    return slope


def dense_delta(g: Any, y: Any, x: Any, w: Any, *b: Any, activation: str) -> Any:
    """dz = g * f'(z): by the slope of the activation, from y, or from z where f' needs it."""
    if activation == "identity":
        return g
    keeps_z = codes.ACTIVATIONS[activation] in codes.KEEPS_Z
    z = f.dense(x, w, *b) if keeps_z else None
    return OPERATIONS[activation].slope(0)(g, y, z)


def dense_x(g: Any, y: Any, x: Any, w: Any, *b: Any, activation: str) -> Any:
    """dx = dz @ w.T."""
    return dense_delta(g, y, x, w, *b, activation=activation) @ f.swap(w)


def dense_w(g: Any, y: Any, x: Any, w: Any, *b: Any, activation: str) -> Any:
    """dw = x.T @ dz."""
    return f.swap(x) @ dense_delta(g, y, x, w, *b, activation=activation)


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The order of axes that undoes an order of axes."""
    return tuple(int(axis) for axis in np.argsort(axes))


OPERATIONS |= {
    # arithmetic
    "add": elementwise(np.add, lambda g, y, a, b: g, lambda g, y, a, b: g),
    "subtract": elementwise(np.subtract, lambda g, y, a, b: g, lambda g, y, a, b: -g),
    "multiply": elementwise(np.multiply, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    "divide": elementwise(np.divide, lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
    "negative": elementwise(np.negative, lambda g, y, x: -g),
    "power": elementwise(values.power, power_base, power_exponent),
    # functions of one number
    "exp": elementwise(np.exp, lambda g, y, x: g * y),
    "expm1": elementwise(np.expm1, lambda g, y, x: g * f.exp(x)),
    "log": elementwise(np.log, lambda g, y, x: g / x),
    "log1p": elementwise(np.log1p, lambda g, y, x: g / (1 + x)),
    "sqrt": elementwise(np.sqrt, lambda g, y, x: 0.5 * g / y),
    "sin": elementwise(np.sin, lambda g, y, x: g * f.cos(x)),
    "cos": elementwise(np.cos, lambda g, y, x: -g * f.sin(x)),
    "erf": elementwise(values.erf, lambda g, y, x: g * (TWO_OVER_SQRT_PI * f.exp(-x * x))),
    "abs": elementwise(np.abs, lambda g, y, x: g * f.stop_gradient(f.sign(x))),
    # activations: the slopes follow from y where the kernels keep nothing else
    "tanh": activation("tanh", lambda g, y, z: g * (1 - y * y)),
    "sigmoid": activation("sigmoid", lambda g, y, z: g * (y * (1 - y))),
    "softplus": activation("softplus", lambda g, y, z: -g * f.expm1(-y)),
    "relu": activation("relu", lambda g, y, z: f.where(y > 0, g, 0.0)),
    "leaky_relu": activation("leaky_relu", lambda g, y, z: f.where(y > 0, g, LEAKY_SLOPE * g)),
    "elu": activation("elu", lambda g, y, z: f.where(y > 0, g, g * (y + 1))),
    "silu": activation("silu", silu_slope),
    "gelu": activation("gelu", gelu_slope),
    "gelu_tanh": activation("gelu_tanh", gelu_tanh_slope),
    # choices: at a tie the gradient goes where the slope from the left sends it
    "maximum": elementwise(
        np.maximum,
        lambda g, y, a, b: f.where(b < a, g, 0.0),
        lambda g, y, a, b: f.where(b < a, 0.0, g),
    ),
    "minimum": elementwise(
        np.minimum,
        lambda g, y, a, b: f.where(a <= b, g, 0.0),
        lambda g, y, a, b: f.where(a <= b, 0.0, g),
    ),
    "where": elementwise(
        np.where,
        None,
        lambda g, y, c, a, b: f.where(c, g, 0.0),
        lambda g, y, c, a, b: f.where(c, 0.0, g),
        takes="ba",
    ),
    # without a derivative
    "sign": flat(np.sign, "f", None),
    "floor": flat(np.floor, "f", None),
    "less": flat(np.less, "n", "bool", "a comparison is constant but for jumps"),
    "less_equal": flat(np.less_equal, "n", "bool", "a comparison is constant but for jumps"),
    "equal": flat(np.equal, "n", "bool", "a comparison is constant but for jumps"),
    "argmax": Operation(
        shapes.argmax, lambda x, axis: np.argmax(x, axis), "a place is an integer", "f", "int64"
    ),
    "stop_gradient": elementwise(lambda x: x, None, takes="a"),
    "cast": elementwise(
        lambda x, dtype: np.asarray(x).astype(dtype),
        lambda g, y, x, dtype: f.cast(g, x.dtype),
        takes="a",
    ),
    # matrices
    "matmul": Operation(
        shapes.matmul,
        np.matmul,
        (lambda g, y, a, b: g @ f.swap(b), lambda g, y, a, b: f.swap(a) @ g),
    ),
    "dense": Operation(shapes.dense, values.dense, (dense_x, dense_w, dense_delta)),
    # shapes
    "transpose": Operation(
        shapes.transpose,
        lambda x, axes: np.transpose(x, axes),
        (lambda g, y, x, axes: f.transpose(g, inverse(axes)),),
        "a",
    ),
    "reshape": Operation(
        shapes.reshape,
        lambda x, shape: np.reshape(x, shape),
        (lambda g, y, x, shape: f.reshape(g, x.shape),),
        "a",
    ),
    "broadcast": Operation(
        shapes.broadcast_to,
        lambda x, shape: np.broadcast_to(x, shape),
        (lambda g, y, x, shape: g,),
        "a",
    ),
    "concatenate": Operation(shapes.concatenate, values.concatenate, concatenate_slope, "a"),
    "index": Operation(
        shapes.index, values.index, (lambda g, y, x, key: f.place(g, key, x.shape),), "a"
    ),
    "place": Operation(
        shapes.place, values.place, (lambda g, y, x, key, shape: apply("index", g, key=key),)
    ),
    "pick": Operation(
        shapes.pick, values.pick, (lambda g, y, x, i: f.unpick(g, i, x.shape[-1]), None), "fi"
    ),
    "unpick": Operation(
        shapes.unpick, values.unpick, (lambda g, y, x, i, size: f.pick(g, i), None), "fi"
    ),
    # reductions
    "sum": Operation(shapes.reduce, values.total, (sum_slope,)),
    "max": Operation(shapes.reduce, values.largest, (max_slope,)),
    "logsumexp": Operation(shapes.reduce, values.logsumexp, (logsumexp_slope,)),
    "softmax": Operation(shapes.same, values.softmax, (softmax_slope,)),
}
