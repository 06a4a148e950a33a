"""Layers: parameters and their gradients.

A layer works alone (`forward`, `backward`) or inside a `Sequential`, which moves the layer's
parameters into its own flat arrays and describes it by a row of a table.
"""

from typing import Any, ClassVar

import numpy as np

from . import expressions, functional, initializers
from .checks import (
    Array,
    as_generator,
    as_input,
    check_count,
    check_dtype,
    check_flag,
    check_number,
)
from .fixed import Fixed
from .functional import Activation, activation_code
from .kernels import codes, cpu


class _Free:
    """A base of layers, whose copies belong to no network."""

    def __getstate__(self) -> dict[str, Any]:
        """What copy and pickle take."""
        return vars(self) | {"owned": False}


class Dense(_Free, Fixed):
    """A fully connected layer: y = activation(x @ w + b).

    Parameters
    ----------
    in_features, out_features : int
        Sizes k and m of the input and the output.
    activation : str or function
        One of identity, relu, leaky_relu, elu, sigmoid, tanh, softplus, silu, gelu, gelu_tanh, sin;
        or an expression, such as `lambda z: z * graph.sigmoid(1.702 * z)`: the function is called
        once, with a node of `fastbp.graph`, and its derivative follows (docs/graph.md).
    bias : bool
        False leaves b out.
    init : str or callable, optional
        A name of `fastbp.initializers.INITIALIZERS`, or a function (rng, in_features,
        out_features) -> (k, m) array. Default: He uniform before rectifiers, else Glorot uniform,
        also before an expression.
    dtype : {"float32", "float64"}
        The float type of the layer and of its inputs.
    rng : numpy.random.Generator or int, optional
        What the weights are drawn from; biases start at zero.

    Attributes
    ----------
    w : (k, m) array
    b : (m,) array, empty without bias
    dw, db : arrays
        Gradients of the last backward pass, shaped like w and b.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> layer = fastbp.Dense(3, 2, activation="relu", rng=0)
    >>> layer
    Dense(3 -> 2, relu, w (3, 2), b (2,), float32)
    >>> y = layer.forward(np.ones((5, 3), np.float32))
    >>> dx = layer.backward(np.ones_like(y))
    >>> dx.shape, layer.dw.shape, layer.db.shape
    ((5, 3), (3, 2), (2,))
    """

    kind: ClassVar[str] = "dense"
    _fixed = "w", "b", "dw", "db", "activation", "bias"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: Activation = "identity",
        bias: bool = True,
        init: str | initializers.Initializer | None = None,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        self.in_features = check_count("in_features", in_features)
        self.out_features = check_count("out_features", out_features)
        self.bias = check_flag("bias", bias)
        self.dtype = check_dtype(dtype)
        self.activation = expressions.activation(activation, self.dtype)
        self.owned = False  # by a network, which then holds the parameters

        weights, biases = self.parameter_shapes()
        self.w = np.empty(weights, self.dtype)
        self.b = np.zeros(biases, self.dtype)
        self.dw = np.zeros(weights, self.dtype)
        self.db = np.zeros(biases, self.dtype)
        draw = initializers.resolve(init, self.activation)
        start = np.asarray(draw(as_generator(rng), self.in_features, self.out_features))
        if start.shape != weights:
            raise ValueError(f"init: expected an array of shape {weights}, got {start.shape}")
        if start.dtype.kind not in "fiu":
            raise TypeError(f"init: expected real numbers, got {start.dtype}; return floats")
        with np.errstate(over="ignore"):
            self.w[...] = start
        if not np.isfinite(self.w).all():
            raise ValueError(
                f"init: expected weights that are finite in {self.dtype}, got NaN or infinity; "
                "return smaller numbers"
            )
        self._x: Array | None = None
        self._saved: Array | None = None

    def __repr__(self) -> str:
        b = f"b {self.b.shape}" if self.bias else "no bias"
        sizes = f"{self.in_features} -> {self.out_features}"
        return f"Dense({sizes}, {self.activation}, w {self.w.shape}, {b}, {self.dtype})"

    @property
    def code(self) -> int:
        """The kernels' number of the activation."""
        return activation_code(self.activation, self.dtype)

    def parameter_shapes(self) -> tuple[tuple[int, int], tuple[int, ...]]:
        """Shapes of w and b."""
        return (self.in_features, self.out_features), (self.out_features if self.bias else 0,)

    def bind(self, w: Array, b: Array, dw: Array, db: Array) -> None:
        """Move the parameters into the arrays of a network; the layer keeps views."""
        w[...], b[...], dw[...], db[...] = self.w, self.b, self.dw, self.db
        self.w, self.b, self.dw, self.db = w, b, dw, db
        self.owned = True

    def forward(self, x: Array) -> Array:
        """The output (n, m) for a batch x (n, k), which is kept for `backward`.

        Raises
        ------
        TypeError, ValueError
            If x is not a C-contiguous array (n, k) of the layer's dtype.
        """
        self._x = as_input("x", x, ("n", self.in_features), self.dtype)
        b = self.b if self.bias else None
        y, self._saved = functional.dense_forward(self._x, self.w, b, self.activation)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        """dx (n, k) for dy (n, m); fills dw and db. Without `need_dx`, None.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        TypeError, ValueError
            If dy does not match the last output.
        """
        if self._x is None or self._saved is None:
            raise RuntimeError("backward: expected a forward pass before it; call forward(x) first")
        dx, _, _ = functional.dense_backward(
            dy,
            self._x,
            self.w,
            self._saved,
            self.activation,
            bias=self.bias,
            need_dx=need_dx,
            out=(None, self.dw, self.db if self.bias else None),
        )
        return dx

    def config(self) -> dict[str, Any]:
        """What `Sequential.save` writes of this layer besides its parameters."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "activation": self.activation
            if isinstance(self.activation, str)
            else self.activation.data(),
            "bias": self.bias,
        }


class Dropout(_Free):
    """Zeroes a share of its input in training and scales up the rest (Srivastava et al. 2014).

    The mask is a hash of a seed and the position: it is computed again in the backward pass and
    never stored. Every training pass has a new mask. Predictions pass through unchanged.

    Parameters
    ----------
    rate : float
        The share that is dropped, 0 <= rate < 1.
    rng : numpy.random.Generator or int, optional
        What the seed of the masks is drawn from.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> layer = fastbp.Dropout(0.5, rng=0)
    >>> layer
    Dropout(0.5)
    >>> layer.forward(np.ones((1, 6)))
    array([[2., 2., 2., 0., 2., 0.]])
    """

    kind: ClassVar[str] = "dropout"

    def __init__(self, rate: float, rng: object = None) -> None:
        self.rate = check_number("rate", rate, 0, 1, below=True)
        self.seed = int(as_generator(rng).integers(2**62))
        self.passes = 0
        self.in_features = self.out_features = None
        self.dtype = None
        self.owned = False

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"

    def parameter_shapes(self) -> None:
        """No parameters."""
        return None

    def mask_seed(self, number: int) -> int:
        """The seed of the mask of one pass in training, counted from 1."""
        return (self.seed + number * codes.NEXT_SEED) % 2**63

    def _launch(self, x: Array) -> Array:
        y = np.empty_like(x)
        cpu.dropout(x.reshape(-1), self.rate, self.mask_seed(self.passes), y.reshape(-1))
        return y

    def forward(self, x: Array, training: bool = True) -> Array:
        """x (n, k) with a fresh mask, or x itself outside of training."""
        x = as_input("x", x, ("n", "k"))
        if not training:
            return x
        self.passes += 1
        return self._launch(x)

    def backward(self, dy: Array) -> Array:
        """dx (n, k) for dy (n, k), with the mask of the last forward pass in training.

        Raises
        ------
        RuntimeError
            If there was no such pass.
        """
        if not self.passes:
            raise RuntimeError("backward: expected a forward pass before it; call forward(x) first")
        dy = as_input("dy", dy, ("n", "k"))
        return self._launch(dy)

    def config(self) -> dict[str, Any]:
        """What `Sequential.save` writes of this layer."""
        return {"rate": self.rate, "seed": self.seed, "passes": self.passes}


Layer = Dense | Dropout
