"""Layers and losses for those who keep their own NumPy arrays: check, allocate, launch.

Arrays are C-contiguous, all of one dtype, float32 or float64; inputs may be read-only. Errors:
TypeError for what is no array or of another dtype, ValueError for shapes, memory layout and names.

Arrays on a GPU (Numba's, CuPy's, PyTorch's, JAX's: all of a call, or none) are computed there, on
the stream of `fastbp.gpu.using`, and so lie the results: docs/cuda.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import expressions, losses
from .backends import check_precision
from .checks import Array, as_input, as_output, on_gpu
from .kernels import codes, cpu
from .parallel import start_threads
from .scratch import scratch

Activation = str | expressions.Activation | Callable[..., Any]
Out = Array | tuple[Array | None, ...] | None


def activation_code(activation: object, dtype: np.dtype[Any]) -> int:
    """The kernels' number of an activation: a name, or an expression as in `Dense`."""
    found = expressions.activation(activation, dtype)
    return codes.ACTIVATIONS[found] if isinstance(found, str) else found.code


def _gpu_code(activation: object) -> int:
    """The code of an activation that the kernels for GPUs know: a name's."""
    if not isinstance(activation, str):
        expressions.check_device("activation", "cuda")
    return activation_code(activation, np.dtype(np.float32))


def absent(ndim: int, dtype: np.dtype[Any]) -> Array:
    """An array of size 0: how the kernels' contract leaves an operand out."""
    return np.empty((0,) * ndim, dtype)


def _outputs(out: Out, names: tuple[str, ...]) -> tuple[Array | None, ...]:
    """`out` as one array or None per result; a bare array stands for the first, as in NumPy."""
    given = out if isinstance(out, tuple) else (out,)
    if len(given) > len(names):
        raise ValueError(f"out: expected at most ({', '.join(names)}), got {len(given)} arrays")
    return given + (None,) * (len(names) - len(given))


def _output(
    name: str,
    given: Array | None,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    others: list[Array],
) -> Array:
    """The checked array to write to, or a new one."""
    if given is None:
        return np.empty(shape, dtype)
    array = as_output(name, given, shape, dtype)
    if any(np.may_share_memory(array, other) for other in others):
        raise ValueError(
            f"{name}: expected memory of its own, got memory shared with an input or another output"
        )
    return array


def dense_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    activation: Activation = "identity",
    out: Out = None,
    *,
    precision: str | None = None,
) -> tuple[Array, Array]:
    """A dense layer: y = f(x @ w + b).

    Parameters
    ----------
    x : (n, k) array
        The batch, a row per sample.
    w : (k, m) array
        Weights.
    b : (m,) array, optional
        Bias.
    activation : str or function
        One of identity, relu, leaky_relu, elu, sigmoid, tanh, softplus, silu, gelu, gelu_tanh, sin;
        or an expression as in `Dense`.
    out : array or (y, saved), optional
        Arrays to write to, each (n, m); None entries are allocated. `saved` is used only by
        activations that keep z (silu, gelu, gelu_tanh, sin), and by expressions.
    precision : {"float32", "tf32", "bf16"}, optional
        Of the product, for arrays in float32 on a GPU; default: exact.

    Returns
    -------
    y : (n, m) array
        The output.
    saved : (n, m) array
        What `dense_backward` needs: y itself, z for the activations that keep z, or f'(z) of an
        expression.

    Raises
    ------
    TypeError
        For what is no array, or of another type than w.
    ValueError
        For a wrong shape or layout, an unknown activation or precision, and an `out` that is
        read-only or shares memory with another array.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> y, saved = fastbp.functional.dense_forward(np.ones((1, 2)), np.eye(2), activation="relu")
    >>> y
    array([[1., 1.]])
    """
    if type(x) is not np.ndarray and on_gpu(x):
        from . import gpu_functional

        given = _outputs(out, ("y", "saved"))
        return gpu_functional.dense_forward(x, w, b, _gpu_code(activation), given, precision)
    w = as_input("w", w, ("k", "m"))
    code = activation_code(activation, w.dtype)
    if precision is not None:
        check_precision(precision, "cpu", w.dtype)
    k, m = w.shape
    x = as_input("x", x, ("n", k), w.dtype)
    b = absent(1, w.dtype) if b is None else as_input("b", b, (m,), w.dtype)

    given_y, given_z = _outputs(out, ("y", "saved"))
    y = _output("y", given_y, (len(x), m), w.dtype, [x, w, b])
    if codes.keeps_array(code):
        z = _output("saved", given_z, y.shape, w.dtype, [x, w, b, y])
    else:
        z = absent(2, w.dtype)

    start_threads()
    work = scratch(cpu.dense_forward_work(len(x), k, m), w.dtype)
    cpu.dense_forward(x, w, b, code, work, z, y)
    return y, (z if codes.keeps_array(code) else y)


def dense_backward(
    dy: Array,
    x: Array,
    w: Array,
    saved: Array,
    activation: Activation = "identity",
    *,
    bias: bool = True,
    need_dx: bool = True,
    out: Out = None,
    precision: str | None = None,
) -> tuple[Array | None, Array, Array | None]:
    """Gradients of a dense layer, from dy = d(loss)/d(y).

    dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T (docs/backpropagation.md), in one
    sweep over the batch.

    Parameters
    ----------
    dy : (n, m) array
        The gradient of the loss with respect to the output.
    x, w, saved : arrays
        As given to and returned by `dense_forward`.
    activation : str or function
        The same as in the forward pass.
    bias : bool
        False leaves db out.
    need_dx : bool
        False leaves dx out, which a first layer does not need.
    out : (dx, dw, db), optional
        Arrays to write to; None entries are allocated.
    precision : {"float32", "tf32", "bf16"}, optional
        Of the products, for arrays in float32 on a GPU; default: exact.

    Returns
    -------
    dx : (n, k) array or None
    dw : (k, m) array
    db : (m,) array or None

    Raises
    ------
    TypeError, ValueError
        As in `dense_forward`.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> x, w = np.array([[1.0, 2.0]]), np.eye(2)
    >>> y, saved = fastbp.functional.dense_forward(x, w)
    >>> dx, dw, db = fastbp.functional.dense_backward(np.ones((1, 2)), x, w, saved)
    >>> dw
    array([[1., 1.],
           [2., 2.]])
    """
    if type(dy) is not np.ndarray and on_gpu(dy):
        from . import gpu_functional

        given, wanted = _outputs(out, ("dx", "dw", "db")), (bias, need_dx)
        code = _gpu_code(activation)
        return gpu_functional.dense_backward(dy, x, w, saved, code, wanted, given, precision)
    w = as_input("w", w, ("k", "m"))
    code = activation_code(activation, w.dtype)
    if precision is not None:
        check_precision(precision, "cpu", w.dtype)
    k, m = w.shape
    x = as_input("x", x, ("n", k), w.dtype)
    n = len(x)
    saved = as_input("saved", saved, (n, m), w.dtype)
    dy = as_input("dy", dy, (n, m), w.dtype)

    arrays = [dy, x, w, saved]
    given_dx, given_dw, given_db = _outputs(out, ("dx", "dw", "db"))
    dw = _output("dw", given_dw, (k, m), w.dtype, arrays)
    db = _output("db", given_db, (m,), w.dtype, [*arrays, dw]) if bias else None
    arrays += [dw] if db is None else [dw, db]
    dx = _output("dx", given_dx, (n, k), w.dtype, arrays) if need_dx else None
    start_threads()
    work = scratch(cpu.dense_backward_work(n, k, m), w.dtype)

    cpu.dense_backward(
        dy,
        x,
        w,
        saved,
        code,
        work,
        dw,
        absent(1, w.dtype) if db is None else db,
        absent(2, w.dtype) if dx is None else dx,
    )
    return dx, dw, db


def _loss(
    loss: losses.Loss, y: Array, t: Array, sample_weight: Array | None, out: Array | None, name: str
) -> tuple[float, Array]:
    if type(y) is not np.ndarray and on_gpu(y):
        from . import gpu_functional

        return gpu_functional.loss_and_gradient(loss, y, t, sample_weight, out, name)
    y = as_input(name, y, ("n", "m"))
    kernel, t, sample_weight = loss.check(y.shape, y.dtype, t, sample_weight)
    dy = _output("out", out, y.shape, y.dtype, [y, t, sample_weight])
    value = loss.launch(cpu, kernel, y, t, sample_weight, dy)
    if not np.isfinite(value):
        loss.explain({name: y}, t, sample_weight, y.shape[1])
    return value, dy


def squared_error(
    y: Array, t: Array, sample_weight: Array | None = None, out: Array | None = None
) -> tuple[float, Array]:
    """Mean over the batch of sum((y - t)**2), and its gradient dy.

    Parameters
    ----------
    y, t : (n, m) arrays
        Output and target; t may be (n,) when m is 1.
    sample_weight : (n,) array, optional
        Weights of the rows; the mean divides by their sum.
    out : (n, m) array, optional
        Where dy is written.

    Returns
    -------
    loss : float
    dy : (n, m) array

    Raises
    ------
    TypeError, ValueError
        For arrays of another kind, type, shape or layout; for NaN or infinity in them.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> fastbp.functional.squared_error(np.array([[3.0]]), np.array([[1.0]]))
    (4.0, array([[4.]]))
    """
    return _loss(losses.resolve("squared_error"), y, t, sample_weight, out, "y")


def half_squared_error(
    y: Array, t: Array, sample_weight: Array | None = None, out: Array | None = None
) -> tuple[float, Array]:
    """Mean over the batch of sum((y - t)**2) / 2, and its gradient dy; see `squared_error`.

    Raises
    ------
    TypeError, ValueError
        As in `squared_error`.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> fastbp.functional.half_squared_error(np.array([[3.0]]), np.array([[1.0]]))
    (2.0, array([[2.]]))
    """
    return _loss(losses.resolve("half_squared_error"), y, t, sample_weight, out, "y")


def huber(
    y: Array,
    t: Array,
    sample_weight: Array | None = None,
    out: Array | None = None,
    *,
    delta: float = 1.0,
) -> tuple[float, Array]:
    """Mean over the batch of Huber's loss (1964), and its gradient dy; see `squared_error`.

    With d = y - t: d**2 / 2 where |d| <= delta, delta (|d| - delta / 2) beyond.

    Parameters
    ----------
    delta : float
        delta > 0: where the square ends.

    Raises
    ------
    TypeError, ValueError
        As in `squared_error`, and for a delta that is no finite number > 0.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> fastbp.functional.huber(np.array([[3.0]]), np.array([[1.0]]))
    (1.5, array([[1.]]))
    """
    return _loss(losses.Huber(delta), y, t, sample_weight, out, "y")


def expression_loss(
    y: Array,
    t: Array,
    loss: Callable[..., Any],
    sample_weight: Array | None = None,
    out: Array | None = None,
) -> tuple[float, Array]:
    """Mean over the batch of a loss that is given as an expression, and its gradient dy.

    Parameters
    ----------
    y, t : (n, m) arrays
        Output and target; t may be (n,) when m is 1.
    loss : function
        It gets y and t as nodes (None, m) of `fastbp.graph`, and returns the loss of each row
        (None,), or of each output (None, m): a row's loss is then their sum.
    sample_weight : (n,) array, optional
        Weights of the rows; the mean divides by their sum.
    out : (n, m) array, optional
        Where dy is written.

    Returns
    -------
    loss : float
    dy : (n, m) array

    Raises
    ------
    TypeError, ValueError
        For an expression that is no loss for each row, or has no derivative (docs/graph.md).

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> y, t = np.array([[3.0]]), np.array([[1.0]])
    >>> fastbp.functional.expression_loss(y, t, lambda y, t: (y - t) ** 4)
    (16.0, array([[32.]]))
    """
    y = as_input("y", y, ("n", "m"))
    found = losses.for_outputs(loss, y.shape[1], y.dtype)
    return _loss(found, y, t, sample_weight, out, "y")


def binary_cross_entropy(
    z: Array, t: Array, sample_weight: Array | None = None, out: Array | None = None
) -> tuple[float, Array]:
    """Mean over the batch of the cross-entropy of sigmoid(z) against t, and its gradient dz.

    Parameters
    ----------
    z : (n, m) array
        Logits, a column per label. Stable for any finite logit.
    t : (n, m) array
        Targets in [0, 1]; may be (n,) when m is 1.
    sample_weight : (n,) array, optional
        Weights of the rows; the mean divides by their sum.
    out : (n, m) array, optional
        Where dz is written.

    Returns
    -------
    loss : float
    dz : (n, m) array
        (sigmoid(z) - t) / n.

    Raises
    ------
    TypeError, ValueError
        For arrays of another kind, type, shape or layout; for NaN or infinity in them, and for
        targets outside of [0, 1].

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> loss, dz = fastbp.functional.binary_cross_entropy(np.zeros((1, 1)), np.ones((1, 1)))
    >>> round(loss, 6), dz
    (0.693147, array([[-0.5]]))
    """
    return _loss(losses.resolve("binary_cross_entropy"), z, t, sample_weight, out, "z")


def softmax_cross_entropy(
    z: Array, t: Array, sample_weight: Array | None = None, out: Array | None = None
) -> tuple[float, Array]:
    """Mean over the batch of the cross-entropy of softmax(z) against t, and its gradient dz.

    Parameters
    ----------
    z : (n, m) array
        Logits, a column per class. Stable for any finite logit.
    t : (n,) integer array or (n, m) array
        Labels in 0..m-1, or one-hot or probability targets.
    sample_weight : (n,) array, optional
        Weights of the rows; the mean divides by their sum.
    out : (n, m) array, optional
        Where dz is written.

    Returns
    -------
    loss : float
    dz : (n, m) array
        (softmax(z) - t) / n for targets that sum to one.

    Raises
    ------
    TypeError, ValueError
        For arrays of another kind, type, shape or layout; for NaN or infinity in them, and for
        labels outside of 0..m-1.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> loss, dz = fastbp.functional.softmax_cross_entropy(np.zeros((1, 2)), np.array([1]))
    >>> round(loss, 6), dz
    (0.693147, array([[ 0.5, -0.5]]))
    """
    return _loss(losses.resolve("softmax_cross_entropy"), z, t, sample_weight, out, "z")
