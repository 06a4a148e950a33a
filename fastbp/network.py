"""A network of layers over one flat array of parameters and one of gradients.

The flat arrays hold the weights of all layers, then the biases of all layers, so that an optimiser
is one pass over memory and the L2 penalty one pass over its first part.
"""

import math
from functools import partial
from typing import Any

import numpy as np

from . import (
    compiled,
    derivatives,
    expressions,
    losses,
    memory,
    prediction,
    storage,
    training,
)
from .backends import BACKENDS, check_precision, kernels_for
from .chain import check_chain
from .checks import Array, as_input, check_choice, check_finite, check_flag, check_number, on_gpu
from .fixed import Fixed
from .interop import empty, home
from .layers import Dense, Layer
from .losses import Given, Loss
from .optimizers import Optimizer
from .plan import Plan
from .regularization import Clip
from .scratch import aligned, zeros
from .step import Step


class Sequential(Fixed):
    """Layers one after the other, trained by back-propagation.

    Parameters
    ----------
    *layers : Dense or Dropout
        All of one dtype, each as wide as the one before.
    device : {"cpu", "reference", "cuda"}
        Where the kernels run; "reference" is the plain NumPy twin.
    precision : {"float32", "tf32", "bf16"}, optional
        Of the products of wide layers in float32, with device="cuda": exact, or on tensor cores,
        which round the factors to 10 or 7 bits and sum in float32. Parameters, gradients and state
        stay in float32. Default: exact.

    Attributes
    ----------
    parameters, gradients : (size,) arrays
        All weights, then all biases. The layers' w, b, dw, db are views of them: write into them.
    layers : tuple
    history : History or None
        Of the last `fit`, also when it was interrupted or diverged.

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(
    ...     fastbp.Dense(2, 8, activation="tanh", rng=0), fastbp.Dense(8, 1, rng=1)
    ... )
    >>> net
    Sequential(
      Dense(2 -> 8, tanh, w (2, 8), b (8,), float32)
      Dense(8 -> 1, identity, w (8, 1), b (1,), float32)
    ) 33 parameters on cpu
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> t = np.array([0, 1, 1, 0], np.float32)
    >>> history = net.fit(
    ...     x,
    ...     t,
    ...     loss="binary_cross_entropy",
    ...     optimizer=fastbp.Adam(0.05),
    ...     epochs=200,
    ...     batch_size=4,
    ...     seed=0,
    ... )
    >>> (net.predict_proba(x) > 0.5).ravel()
    array([False,  True,  True, False])
    """

    _fixed = "parameters", "gradients", "layers"

    def __init__(self, *layers: Layer, device: str = "cpu", precision: str | None = None) -> None:
        self.dtype, self.in_features, self.out_features = check_chain(layers)
        self.layers = layers
        self.to(device, precision)
        self.loss: Loss | None = None
        self.history: training.History | None = None
        self.plans = self.new_plan(), self.new_plan(recompute=True)

        dense = [layer for layer in layers if isinstance(layer, Dense)]
        self._last_dense = dense[-1]
        size = sum(layer.w.size + layer.b.size for layer in dense)
        self.parameters, self.gradients = aligned(size, self.dtype), zeros(size, self.dtype)
        self.weight_count = self.plans[0].weights
        at_w, at_b = 0, self.weight_count
        for layer in dense:
            w, b = slice(at_w, at_w + layer.w.size), slice(at_b, at_b + layer.b.size)
            layer.bind(
                self.parameters[w].reshape(layer.w.shape),
                self.parameters[b],
                self.gradients[w].reshape(layer.w.shape),
                self.gradients[b],
            )
            at_w, at_b = w.stop, b.stop
        for each in layers:
            each.owned = True

    def __repr__(self) -> str:
        lines = "".join(f"  {layer!r}\n" for layer in self.layers)
        return f"Sequential(\n{lines}) {self.parameters.size} parameters on {self.device}"

    def to(self, device: str, precision: str | None = None) -> "Sequential":
        """Compute on another device or in another precision from now on; returns the network.

        Parameters
        ----------
        device, precision
            As in `Sequential`.

        Raises
        ------
        ValueError
            If the device or the precision is unknown, or cannot be used here.

        Examples
        --------
        >>> import fastbp
        >>> net = fastbp.Sequential(fastbp.Dense(2, 1)).to("reference")
        >>> net.device
        'reference'
        """
        check_choice("device", device, BACKENDS)
        self._check_device(device)
        precision = check_precision(precision, device, self.dtype)
        self._kernels = kernels_for(device, precision)
        self.device, self.precision = device, precision
        self._step: Step | None = None
        self._operands = prediction.Operands()
        return self

    def _check_device(self, device: str) -> None:
        """Raise ValueError for an activation that the device's kernels do not know."""
        for layer in self.layers:
            if isinstance(layer, Dense) and not isinstance(layer.activation, str):
                expressions.check_device("activation", device)

    # Training

    def loss_and_gradients(
        self,
        x: Array,
        t: Array,
        loss: Given,
        *,
        sample_weight: Array | None = None,
        l2: float = 0.0,
        recompute: bool = False,
    ) -> tuple[float, Array]:
        """The loss of a batch, with every gradient of it in `gradients`.

        Parameters
        ----------
        x : (n, in_features) array
        t : array
            Targets as the loss takes them: (n, out_features), (n,) for one output, or (n,) integer
            labels for softmax_cross_entropy.
        loss : str, Loss or function
            squared_error, half_squared_error, huber, binary_cross_entropy, softmax_cross_entropy.
            The cross-entropies take logits: the last layer's activation is then identity.
            A function is an expression, as in `fastbp.functional.expression_loss`.
        sample_weight : (n,) array, optional
        l2 : float
            Adds l2 * sum(w**2) over all weights, not biases.
        recompute : bool
            As in `fit`.

        Returns
        -------
        loss : float
        dx : (n, in_features) array
            The gradient of the loss with respect to x.

        Raises
        ------
        TypeError, ValueError
            For wrong arrays or names; for NaN or infinity in x, t or sample_weight.
        DivergenceError
            If the loss is not finite though the data are.

        Examples
        --------
        >>> import numpy as np, fastbp
        >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros", dtype="float64"))
        >>> net.loss_and_gradients(np.array([[2.0]]), np.array([[3.0]]), loss="squared_error")
        (9.0, array([[0.]]))
        >>> net.layers[0].dw
        array([[-12.]])
        """
        batch = self.check_batch(x, t, loss, sample_weight, l2)
        value, dx = self.step_gradients(*batch, l2=l2, need_dx=True, recompute=recompute)
        return value, dx

    def train_step(
        self,
        x: Array,
        t: Array,
        loss: Given,
        optimizer: Optimizer,
        *,
        sample_weight: Array | None = None,
        l2: float = 0.0,
        clip: float | Clip | None = None,
        recompute: bool = False,
    ) -> float:
        """One step of the optimiser on one batch; returns the loss before it.

        Parameters
        ----------
        x, t, loss, sample_weight, l2
            As in `loss_and_gradients`.
        optimizer : Optimizer
            An instance such as fastbp.SGD(0.1): it keeps its state between the calls.
        clip : float, ClipNorm or ClipValue, optional
            Limits the gradients; a number is a global norm.
        recompute : bool
            As in `fit`.

        Raises
        ------
        TypeError, ValueError
            As in `loss_and_gradients`, and for a wrong optimizer or setting of it.
        DivergenceError
            If the loss is not finite though the data are. In each case the parameters and the
            optimizer are as they were.

        Examples
        --------
        >>> import numpy as np, fastbp
        >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros", dtype="float64"))
        >>> x, t = np.array([[2.0]]), np.array([[3.0]])
        >>> net.train_step(x, t, loss="squared_error", optimizer=fastbp.SGD(0.1))
        9.0
        >>> net.layers[0].w
        array([[1.2]])
        """
        step = self._step
        if step is None or not step.is_for(loss, optimizer, l2, clip, recompute):
            step = self._step = Step(self, loss, optimizer, l2, clip, recompute)
        return step(self, x, t, sample_weight)

    fit = training.fit
    memory = memory.memory

    def check_batch(
        self, x: object, t: object, loss: Given, sample_weight: object, l2: float
    ) -> tuple[Loss, str, Array, Array, Array]:
        """(loss, its kernel, x, t, sample_weight), checked and as the kernels take them."""
        batch, found = self.check_input(x), self.check_loss(loss, l2)
        kernel, t, weights = self.check_targets(found, batch, t, sample_weight)
        return found, kernel, batch, t, weights

    def check_loss(self, loss: Given, l2: float) -> Loss:
        """The loss that was meant, if this network can have it."""
        check_number("l2", l2, 0)
        found = losses.for_outputs(loss, self.out_features, self.dtype)
        if isinstance(found, losses.ExpressionLoss):
            expressions.check_device("loss", self.device)
        if found.link and self._last_dense.activation != "identity":
            raise ValueError(
                f"loss: {found.name} takes logits, so the last layer needs activation='identity', "
                f"got {self._last_dense.activation!r}; predict_proba applies the {found.link}"
            )
        return found

    def check_input(self, x: object) -> Any:
        """The checked batch: of the host, or with device="cuda" of the GPU."""
        check = as_input
        if self.device == "cuda" and on_gpu(x):
            from .interop import as_gpu as check
        return check("x", x, ("n", self.in_features), self.dtype)

    def check_targets(
        self, loss: Loss, x: Array, t: object, sample_weight: object
    ) -> tuple[str, Array, Array]:
        """(the loss's kernel, t, sample_weight), checked, on the device of the checked batch x."""
        shape = len(x), self.out_features
        if on_gpu(x):
            from . import gpu_losses

            return gpu_losses.check(loss, shape, self.dtype, t, sample_weight)
        return loss.check(shape, self.dtype, t, sample_weight)

    def step_gradients(
        self,
        loss: Loss,
        kernel: str,
        x: Array,
        t: Array,
        sample_weight: Array,
        *,
        l2: float,
        need_dx: bool,
        recompute: bool = False,
    ) -> tuple[float, Array]:
        """The loss and dx of a checked batch; fills `gradients`."""
        plan = self.plan_for(recompute)
        plan.set_loss(loss, kernel, l2)
        dx = empty(x.shape if need_dx else (0, 0), self.dtype, like=x)
        value = self._kernels.network_loss_gradients(
            *(x, t, sample_weight, plan.table, plan.recipe, plan.numbers),
            *(self.parameters, plan.work(self._kernels, len(x), self.dtype), self.gradients, dx),
        )
        self.check_value(value, loss, x, t, sample_weight)
        plan.passed(1)
        return value, dx

    def plan_for(self, recompute: object) -> Plan:
        """The network as the kernels take it, its activations kept or computed again."""
        return self.plans[check_flag("recompute", recompute)]

    def check_value(
        self, value: float, loss: Loss, x: Array, t: Array, sample_weight: Array
    ) -> None:
        """Raise for a loss that is not finite: for the data, if they are why, or for divergence."""
        if not math.isfinite(value):
            loss.explain({"x": home(x)}, home(t), home(sample_weight), self.out_features)
            raise training.DivergenceError(self.why_not_finite(value, loss))

    def why_not_finite(self, value: float, loss: Loss) -> str:
        """What a DivergenceError says of a loss, or its gradient, on finite data."""
        own = isinstance(loss, losses.ExpressionLoss) or any(
            isinstance(one, Dense) and not isinstance(one.activation, str) for one in self.layers
        )
        what = "the loss or its gradient is NaN or infinite" if own else f"the loss is {value}"
        return training.too_large(what, own)

    # Prediction

    predict = prediction.predict

    def predict_proba(self, x: Array, loss: Given | None = None) -> Array:
        """Probabilities (n, out_features): softmax or sigmoid of the logits, as the loss says.

        Parameters
        ----------
        x : (n, in_features) array
        loss : str or Loss, optional
            binary_cross_entropy or softmax_cross_entropy; default: the one of the last `fit`.

        Raises
        ------
        TypeError, ValueError
            For a wrong x, for another loss, and for none before the first `fit`.

        Examples
        --------
        >>> import numpy as np, fastbp
        >>> net = fastbp.Sequential(fastbp.Dense(2, 2, init="zeros"))
        >>> net.predict_proba(np.ones((1, 2), np.float32), loss="softmax_cross_entropy")
        array([[0.5, 0.5]], dtype=float32)
        """
        link = self._loss_or_last(loss).link
        if link is None:
            raise ValueError(
                "loss: expected binary_cross_entropy or softmax_cross_entropy for probabilities, "
                f"got {self._loss_or_last(loss).name}; use predict(x)"
            )
        y = self.predict(x)
        getattr(self._kernels, link)(y, y)
        return y

    def evaluate(
        self,
        x: Array,
        t: Array,
        loss: Given | None = None,
        *,
        sample_weight: Array | None = None,
    ) -> dict[str, float]:
        """The mean loss, and for cross-entropies the accuracy, without training.

        Parameters
        ----------
        x, t, sample_weight
            As in `loss_and_gradients`.
        loss : str, Loss or function, optional
            Default: the one of the last `fit`.

        Raises
        ------
        TypeError, ValueError, DivergenceError
            As `loss_and_gradients` does; ValueError if no loss is named before the first `fit`.

        Examples
        --------
        >>> import numpy as np, fastbp
        >>> net = fastbp.Sequential(fastbp.Dense(1, 1, init="zeros"))
        >>> x = np.ones((2, 1), np.float32)
        >>> net.evaluate(x, 2 * x, loss="squared_error")
        {'loss': 4.0}
        """
        batch = self.check_batch(x, t, self._loss_or_last(loss), sample_weight, 0.0)
        found, _, x, *rest = batch
        if on_gpu(x):
            from . import gpu_losses

            gpu_losses.check_input(x)
        else:
            check_finite("x", x)  # a saturated unit would hide an infinity from the loss
        scores = self.evaluate_checked(*batch)
        self.check_value(scores["loss"], found, x, *rest)
        return scores

    def evaluate_checked(
        self, loss: Loss, kernel: str, x: Array, t: Array, sample_weight: Array
    ) -> dict[str, float]:
        """`evaluate` for a checked batch."""
        if on_gpu(x):
            from . import gpu_losses

            batch = loss, kernel, x, t, sample_weight
            return gpu_losses.evaluate(partial(prediction.forward, self), self.out_features, batch)
        value, correct, total = 0.0, 0.0, 0.0
        for rows, y in prediction.pieces(self, x):
            s = sample_weight[rows]
            weight = float(s.sum(dtype=np.float64)) if s.size else float(len(y))
            if weight == 0:
                continue
            piece = loss.launch(self._kernels, kernel, y, t[rows], s, np.empty_like(y))
            if not np.isfinite(piece):
                loss.explain({"x": x}, t, sample_weight, self.out_features)
            value, total = value + weight * piece, total + weight
            if loss.link:
                hits = loss.hits(y, t[rows])
                correct += float(np.dot(s, hits) if s.size else hits.sum())
        scores = {"loss": value} | ({"accuracy": correct} if loss.link else {})
        return {name: score / total if total else 0.0 for name, score in scores.items()}

    def _loss_or_last(self, loss: Given | None) -> Loss:
        if loss is not None:
            return losses.for_outputs(loss, self.out_features, self.dtype)
        if self.loss is None:
            raise ValueError("loss: expected a name before the first fit, got None")
        return self.loss

    # Derivatives by the inputs, and losses that contain them

    input_gradient = derivatives.input_gradient
    jacobian = derivatives.jacobian
    laplacian = derivatives.laplacian
    objective = derivatives.objective
    update = derivatives.update

    # Inside compiled code

    workspace = compiled.workspace
    low_level_callable = compiled.low_level_callable
    njit_predict = compiled.njit_predict
    njit_loss_and_gradients = compiled.njit_loss_and_gradients
    njit_step = compiled.njit_step

    def new_plan(self, recompute: bool = False) -> Plan:
        """A description of the network that is nobody else's."""
        return Plan(self.layers, self.in_features, recompute)

    save = storage.save

    def __reduce__(self) -> tuple[Any, ...]:
        return storage.reduce(self)
