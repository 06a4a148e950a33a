"""Gradients against central differences, with the names and defaults of PyTorch's gradcheck."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .checks import Array, check_array, check_number
from .layers import Dense, Dropout
from .losses import Given
from .network import Sequential


class GradcheckError(AssertionError):
    """A gradient differs from its finite difference."""


def gradcheck(
    func: Callable[..., Any] | Dense | Dropout | Sequential,
    inputs: Array | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    loss: Given | None = None,
) -> bool:
    """Compare every gradient with the central difference (f(v + eps) - f(v - eps)) / (2 eps).

    Parameters
    ----------
    func : layer, network or function
        A Dense or Dropout layer: the gradients dx, dw, db of a random projection of its output. A
        Sequential: dx and `gradients`, of the loss if one is named, else of a random projection.
        A function: returns (value, gradients), the gradients being one array or a tuple with one
        per leading float64 input, None for inputs that are not differentiated; so every loss of
        `fastbp.functional` fits.
    inputs : array or tuple of arrays
        What func is called with: x for a layer, (x, t) for a network with a loss. Float arrays
        must be float64.
    eps : float
        Half the step of the difference.
    atol, rtol : float
        |analytic - numeric| <= atol + rtol |numeric| must hold everywhere.
    raise_exception : bool
        False returns False in place of raising.
    nondet_tol : float
        How far two calls with the same input may differ.
    loss : str, Loss or function, optional
        For a Sequential.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        With the name, the index and both numbers of the worst entry.
    TypeError
        If a float input is not float64: differences in float32 say nothing.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> rng = np.random.default_rng(0)
    >>> layer = fastbp.Dense(3, 2, activation="gelu", dtype="float64", rng=rng)
    >>> fastbp.gradcheck(layer, rng.standard_normal((4, 3)))
    True
    >>> z, t = rng.standard_normal((4, 3)), np.array([0, 2, 1, 1])
    >>> fastbp.gradcheck(fastbp.functional.softmax_cross_entropy, (z, t))
    True
    """
    for name, number in (("eps", eps), ("atol", atol), ("rtol", rtol), ("nondet_tol", nondet_tol)):
        check_number(name, number, 0, above=name == "eps")
    arguments = inputs if isinstance(inputs, tuple | list) else (inputs,)
    for i, value in enumerate(arguments):
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.dtype != np.float64:
            raise TypeError(
                f"inputs[{i}]: expected float64, got {value.dtype}; finite differences need it: "
                "pass it as float64, to a layer with dtype='float64'"
            )
    try:
        evaluate, variables = _problem(func, list(arguments), loss)
        _compare(evaluate, variables, eps, atol, rtol, nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


# A problem: a function of no arguments that returns (value, gradients by name), and the arrays by
# name which it reads and which may be changed in place.
Evaluate = Callable[[], tuple[float, dict[str, Array]]]


def _problem(
    func: Any, arguments: list[Any], loss: Given | None
) -> tuple[Evaluate, dict[str, Array]]:
    if isinstance(func, Sequential):
        return _network_problem(func, arguments, loss)
    if isinstance(func, Dense | Dropout):
        return _layer_problem(func, arguments)
    return _function_problem(func, arguments)


def _layer_problem(
    layer: Dense | Dropout, arguments: list[Any]
) -> tuple[Evaluate, dict[str, Array]]:
    x = check_array("inputs", arguments[0], ("n", "k"), np.dtype(np.float64)).copy()
    direction = _direction(layer.forward(x).shape)
    passes = getattr(layer, "passes", 0)

    def evaluate() -> tuple[float, dict[str, Array]]:
        if isinstance(layer, Dropout):
            layer.passes = passes
        value = float(np.vdot(layer.forward(x), direction))
        gradients = {"dx": layer.backward(direction)}
        if isinstance(layer, Dense):
            gradients |= {"dw": layer.dw.copy(), "db": layer.db.copy()}
        return value, gradients  # type: ignore[return-value]

    variables = {"dx": x}
    if isinstance(layer, Dense):
        variables |= {"dw": layer.w, "db": layer.b}
    return evaluate, variables


def _network_problem(
    net: Sequential, arguments: list[Any], loss: Given | None
) -> tuple[Evaluate, dict[str, Array]]:
    if loss is not None and len(arguments) != 2:
        raise ValueError(f"inputs: expected (x, t) with a loss, got {len(arguments)} of them")
    x = check_array("inputs[0]", arguments[0], ("n", net.in_features), np.dtype(np.float64)).copy()
    # Without a loss: half the mean of (y - t)**2 for a random t projects y - t.
    chosen = "half_squared_error" if loss is None else loss
    t = _direction((len(x), net.out_features)) if loss is None else arguments[1]
    dropouts = {layer: layer.passes for layer in net.layers if isinstance(layer, Dropout)}

    def evaluate() -> tuple[float, dict[str, Array]]:
        for layer, passes in dropouts.items():
            layer.passes = passes
        value, dx = net.loss_and_gradients(x, t, loss=chosen)
        return value, {"dx": dx, "gradients": net.gradients.copy()}

    return evaluate, {"dx": x, "gradients": net.parameters}


def _function_problem(
    func: Callable[..., Any], arguments: list[Any]
) -> tuple[Evaluate, dict[str, Array]]:
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]

    def evaluate() -> tuple[float, dict[str, Array]]:
        value, gradients = func(*copies)
        if not isinstance(gradients, tuple | list):
            gradients = (gradients,)
        named = {f"inputs[{i}]": np.array(g) for i, g in enumerate(gradients) if g is not None}
        return float(value), named

    _, gradients = evaluate()
    return evaluate, {name: copies[int(name[7:-1])] for name in gradients}


def _direction(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


def _compare(
    evaluate: Evaluate,
    variables: dict[str, Array],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
) -> None:
    value, gradients = evaluate()
    again, repeated = evaluate()
    for name in variables:
        apart = np.max(np.abs(gradients[name] - repeated[name]), initial=abs(value - again))
        if apart > nondet_tol:
            raise GradcheckError(
                f"{name}: two calls with the same input differ by {apart:g}, more than "
                f"nondet_tol={nondet_tol:g}"
            )
    for name, variable in variables.items():
        numeric = np.empty_like(variable)
        for i in np.ndindex(variable.shape):
            kept = variable[i]
            try:
                variable[i] = kept + eps
                above, _ = evaluate()
                variable[i] = kept - eps
                below, _ = evaluate()
            finally:  # a layer's own parameter must survive an error
                variable[i] = kept
            numeric[i] = (above - below) / (2 * eps)
        analytic = gradients[name].reshape(variable.shape)
        excess = np.abs(analytic - numeric) - (atol + rtol * np.abs(numeric))
        if excess.size and not np.max(excess) <= 0:  # a NaN counts as wrong
            worst = np.unravel_index(
                int(np.argmax(np.nan_to_num(excess, nan=np.inf))), excess.shape
            )
            raise GradcheckError(
                f"{name}: the gradient at {tuple(map(int, worst))} is {analytic[worst]:.9g}, its "
                f"finite difference {numeric[worst]:.9g}"
            )
