"""Who takes a training step: fastbp, NumPy twice, PyTorch twice, JAX, scikit-learn.

Each contender is a class: its instances take one step (forward, loss, backward, gradient descent)
when called, and know their `parameters()`: w and b of each layer in turn, as NumPy arrays. Those of
TOGETHER take `steps` steps in one call, on a batch each from arrays that hold so many.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from scipy import special

from ..layers import Dense
from ..network import Sequential
from ..optimizers import SGD
from .measure import installed

LEARNING_RATE = 1e-3
PACKAGES = ("torch", "jax", "sklearn")
Parameters = list[np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Net:
    """A network, its batch and its loss; `activation` is that of all layers but the last.

    Examples
    --------
    >>> from fastbp.benchmarks.step_contenders import Net
    >>> print(Net((784, 128, 10), 32), Net((128,) * 8 + (10,), 1))
    784-128-10 128^8-10
    """

    sizes: tuple[int, ...]
    batch: int
    activation: str = "relu"
    loss: str = "softmax_cross_entropy"

    def __str__(self) -> str:
        runs = [(size, len(list(same))) for size, same in groupby(self.sizes)]
        return "-".join(
            f"{size}^{count}" if count > 4 else "-".join([str(size)] * count)
            for size, count in runs
        )

    @property
    def flops(self) -> float:
        """Operations of the matrix products of a step: the first layer needs no dx."""
        products = [2.0 * self.batch * k * m for k, m in pairwise(self.sizes)]
        return 3 * sum(products) - products[0]


@dataclass
class Problem:
    """The arrays of a net that all contenders start from."""

    net: Net
    x: Any
    t: Any
    parameters: Parameters

    def copies(self) -> Parameters:
        """Parameters for one contender alone."""
        return [array.copy() for array in self.parameters]

    def in_float64(self) -> "Problem":
        """The same numbers for a computation that rounds less."""
        t = self.t if self.t.dtype.kind == "i" else self.t.astype(np.float64)
        parameters = [array.astype(np.float64) for array in self.parameters]
        return Problem(self.net, self.x.astype(np.float64), t, parameters)


def problem(net: Net) -> Problem:
    """Random weights of variance 1/k, data and targets in float32, always the same numbers."""
    dtype = np.float32
    rng = np.random.default_rng(0)
    parameters = []
    for k, m in pairwise(net.sizes):
        parameters += [rng.standard_normal((k, m)) / np.sqrt(k), rng.standard_normal(m) / 10]
    x = rng.standard_normal((net.batch, net.sizes[0]))
    outputs = (net.batch, net.sizes[-1])
    t = {
        "softmax_cross_entropy": lambda: np.arange(net.batch) % net.sizes[-1],
        "binary_cross_entropy": lambda: rng.integers(0, 2, outputs).astype(dtype),
        "half_squared_error": lambda: rng.standard_normal(outputs).astype(dtype),
    }[net.loss]()
    return Problem(net, x.astype(dtype), t, [array.astype(dtype) for array in parameters])


class Fastbp:
    """`Sequential.train_step`, with the twin of kernels that `device` names."""

    steps = 1

    def __init__(self, problem: Problem, device: str = "cpu") -> None:
        net, sizes = problem.net, list(pairwise(problem.net.sizes))
        names = [net.activation] * (len(sizes) - 1) + ["identity"]
        dtype = problem.x.dtype.name
        layers = [
            Dense(k, m, activation=name, dtype=dtype)
            for (k, m), name in zip(sizes, names, strict=True)
        ]
        self.net = Sequential(*layers, device=device)
        for own, given in zip(self._arrays(), problem.parameters, strict=True):
            own[...] = given
        self.x, self.t, self.loss = problem.x, problem.t, net.loss
        self.optimizer = SGD(LEARNING_RATE)

    def __call__(self) -> object:
        return self.net.train_step(self.x, self.t, self.loss, self.optimizer)

    def _arrays(self) -> Parameters:
        dense = [layer for layer in self.net.layers if isinstance(layer, Dense)]
        return [array for layer in dense for array in (layer.w, layer.b)]

    def parameters(self) -> Parameters:
        return self._arrays()


class FastbpFit(Fastbp):
    """An epoch of `Sequential.fit`."""

    def __init__(self, problem: Problem, steps: int) -> None:
        super().__init__(problem)
        self.steps = steps
        self.x, self.t = (np.concatenate([a] * steps) for a in (problem.x, problem.t))
        self.batch = problem.net.batch

    def __call__(self) -> object:
        return self.net.fit(
            self.x, self.t, loss=self.loss, optimizer=self.optimizer, epochs=1,
            batch_size=self.batch, shuffle=False,
        )  # fmt: skip


class NumPyInPlace:
    """What a careful NumPy programmer writes: every array is made once, every pass is in place.

    In float64 it is what all others are checked against.
    """

    steps = 1

    def __init__(self, problem: Problem) -> None:
        self.x, self.t, self.net = problem.x, problem.t, problem.net
        n, dtype = self.net.batch, self.x.dtype
        arrays = problem.copies()
        self.w, self.b = arrays[::2], arrays[1::2]
        self.dw, self.db = [np.empty_like(w) for w in self.w], [np.empty_like(b) for b in self.b]
        self.y = [np.empty((n, m), dtype) for m in self.net.sizes[1:]]
        self.dz = [np.empty_like(y) for y in self.y]
        self.rows, self.column = np.arange(n), np.empty((n, 1), dtype)

    def __call__(self) -> object:
        inputs = [self.x, *self.y]
        last = len(self.w) - 1
        for i, (w, b, y) in enumerate(zip(self.w, self.b, self.y, strict=True)):
            np.matmul(inputs[i], w, out=y)
            y += b
            if i < last:
                NUMPY_ACTIVATIONS[self.net.activation](y, out=y)
        loss = getattr(self, self.net.loss)(self.y[last], self.dz[last])
        for i in reversed(range(last + 1)):
            dz = self.dz[i]
            np.matmul(inputs[i].T, dz, out=self.dw[i])
            np.sum(dz, axis=0, out=self.db[i])
            if i:
                below = np.matmul(dz, self.w[i].T, out=self.dz[i - 1])
                NUMPY_SLOPES[self.net.activation](self.y[i - 1])
                below *= self.y[i - 1]
        for value, gradient in zip(self.w + self.b, self.dw + self.db, strict=True):
            gradient *= LEARNING_RATE
            value -= gradient
        return loss

    def softmax_cross_entropy(self, z: Any, dz: Any) -> float:
        z -= np.max(z, axis=1, keepdims=True, out=self.column)
        np.exp(z, out=dz)
        total = np.sum(dz, axis=1, keepdims=True, out=self.column)
        dz /= total
        loss = np.mean(np.log(total[:, 0]) - z[self.rows, self.t])
        dz[self.rows, self.t] -= 1
        dz /= len(z)
        return float(loss)

    def binary_cross_entropy(self, z: Any, dz: Any) -> float:
        loss = np.sum(np.logaddexp(0, z) - self.t * z)
        special.expit(z, out=dz)
        dz -= self.t
        dz /= len(z)
        return float(loss) / len(z)

    def half_squared_error(self, y: Any, dy: Any) -> float:
        np.subtract(y, self.t, out=dy)
        loss = np.vdot(dy, dy) / (2 * len(y))
        dy /= len(y)
        return float(loss)

    def parameters(self) -> Parameters:
        return [array for pair in zip(self.w, self.b, strict=True) for array in pair]


def _tanh_slope(y: Any) -> None:
    np.multiply(y, y, out=y)
    np.subtract(1, y, out=y)


NUMPY_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": lambda z, out: np.maximum(z, 0, out=out),
    "tanh": np.tanh,
}
NUMPY_SLOPES: dict[str, Callable[[Any], Any]] = {
    "relu": lambda y: np.greater(y, 0, out=y),
    "tanh": _tanh_slope,
}


def _torch_loss(net: Net) -> Callable[[Any, Any, Any], Any]:
    """loss(parameters, x, t) of PyTorch."""
    import torch
    from torch.nn import functional as f

    activate = getattr(torch, net.activation)
    losses: dict[str, Callable[[Any, Any], Any]] = {
        "softmax_cross_entropy": f.cross_entropy,
        "binary_cross_entropy": f.binary_cross_entropy_with_logits,
        "half_squared_error": lambda y, t: ((y - t) ** 2).sum() / (2 * len(y)),
    }
    loss = losses[net.loss]

    def forward(parameters: Any, x: Any, t: Any) -> Any:
        *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
        for w, b in hidden:
            x = activate(torch.addmm(b, x, w))
        return loss(torch.addmm(last[1], x, last[0]), t)

    return forward


class PyTorch:
    """Autograd, then one fused call that updates all parameters."""

    steps = 1

    def __init__(self, problem: Problem) -> None:
        import torch

        self.torch = torch
        self.values = [torch.from_numpy(array) for array in problem.copies()]
        self.x, self.t = torch.from_numpy(problem.x), torch.from_numpy(problem.t)
        self.loss = _torch_loss(problem.net)
        self.start()

    def start(self) -> None:
        for value in self.values:
            value.requires_grad_()

    def __call__(self) -> object:
        torch = self.torch
        loss = self.loss(self.values, self.x, self.t)
        gradients = torch.autograd.grad(loss, self.values)
        with torch.no_grad():
            torch._foreach_add_(self.values, gradients, alpha=-LEARNING_RATE)
        return loss

    def parameters(self) -> Parameters:
        return [value.detach().numpy() for value in self.values]


class PyTorchCompiled(PyTorch):
    """Loss, gradients and update as one compiled function, for the one shape."""

    def start(self) -> None:
        torch = self.torch
        torch.compiler.reset()  # after eight nets it would fall back to eager
        differentiate = torch.func.grad_and_value(self.loss)

        def step(values: Any, x: Any, t: Any) -> Any:
            gradients, loss = differentiate(values, x, t)
            for value, gradient in zip(values, gradients, strict=True):
                value.sub_(gradient, alpha=LEARNING_RATE)
            return loss

        self.step = torch.compile(step, dynamic=False, fullgraph=True)

    def __call__(self) -> object:
        with self.torch.no_grad():
            return self.step(self.values, self.x, self.t)


class Jax:
    """The whole step under jit, which may write new parameters over the old."""

    steps = 1

    def __init__(self, problem: Problem) -> None:
        import jax
        import jax.numpy as jnp

        self.jax = jax
        jax.config.update("jax_enable_x64", True)
        self.values = [jnp.array(array) for array in problem.parameters]
        self.x, self.t = jnp.array(problem.x), jnp.array(problem.t)
        loss = _jax_loss(problem.net)

        def step(values: Any, x: Any, t: Any) -> Any:
            value, gradients = jax.value_and_grad(loss)(values, x, t)
            pairs = zip(values, gradients, strict=True)
            return [v - LEARNING_RATE * g for v, g in pairs], value

        self.start(step)

    def start(self, step: Callable[..., Any]) -> None:
        self.step = self.jax.jit(step, donate_argnums=0)

    def __call__(self) -> object:
        self.values, loss = self.step(self.values, self.x, self.t)
        return self.jax.block_until_ready((self.values, loss))

    def parameters(self) -> Parameters:
        return [np.asarray(value) for value in self.values]


class JaxScan(Jax):
    """Steps under one jit: a scan over the batches."""

    def __init__(self, problem: Problem, steps: int) -> None:
        self.steps = steps
        super().__init__(problem)

    def start(self, step: Callable[..., Any]) -> None:
        def epoch(values: Any, x: Any, t: Any) -> Any:
            return self.jax.lax.scan(lambda carry, batch: step(carry, *batch), values, (x, t))

        repeat = self.jax.numpy.stack
        self.x, self.t = repeat([self.x] * self.steps), repeat([self.t] * self.steps)
        super().start(epoch)


def _jax_loss(net: Net) -> Callable[[Any, Any, Any], Any]:
    """loss(parameters, x, t) of JAX."""
    import jax
    import jax.numpy as jnp

    activate = {"relu": jax.nn.relu, "tanh": jnp.tanh}[net.activation]

    def cross_entropy(z: Any, t: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(z), t[:, None], axis=1).mean()

    losses = {
        "softmax_cross_entropy": cross_entropy,
        "binary_cross_entropy": lambda z, t: (jax.nn.softplus(z) - t * z).sum() / len(z),
        "half_squared_error": lambda y, t: ((y - t) ** 2).sum() / (2 * len(y)),
    }

    def forward(parameters: Any, x: Any, t: Any) -> Any:
        *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
        for w, b in hidden:
            x = activate(x @ w + b)
        return losses[net.loss](x @ last[0] + last[1], t)

    return forward


class ScikitLearn:
    """`partial_fit` of MLPClassifier or MLPRegressor with plain gradient descent."""

    steps = 1

    def __init__(self, problem: Problem) -> None:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        net = problem.net
        regression = net.loss == "half_squared_error"
        self.model = (MLPRegressor if regression else MLPClassifier)(
            hidden_layer_sizes=net.sizes[1:-1],
            activation=net.activation,
            solver="sgd",
            alpha=0.0,
            batch_size=net.batch,
            learning_rate_init=LEARNING_RATE,
            shuffle=False,
            momentum=0.0,
            nesterovs_momentum=False,
        )
        self.x, self.t = problem.x, problem.t
        if net.sizes[-1] == 1:
            self.t = self.t.ravel()
        classes = {} if regression else {"classes": np.arange(max(2, net.sizes[-1]))}
        self.model.partial_fit(self.x, self.t, **classes)  # makes the arrays that it keeps
        for own, given in zip(self.parameters(), problem.parameters, strict=True):
            own[...] = given

    @staticmethod
    def fits(net: Net) -> bool:
        """Two classes have one output there, and logistic outputs are for classes."""
        outputs = net.sizes[-1]
        few = {"softmax_cross_entropy": outputs > 2, "binary_cross_entropy": outputs == 1}
        return few.get(net.loss, True)

    def __call__(self) -> object:
        return self.model.partial_fit(self.x, self.t)

    def parameters(self) -> Parameters:
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return [array for pair in pairs for array in pair]


# Name: the package that it needs, and what makes it.
CONTENDERS: dict[str, tuple[str, Callable[[Problem], Any]]] = {
    "fastbp": ("numba", Fastbp),
    "NumPy, in place": ("numpy", NumPyInPlace),
    "NumPy": ("numpy", partial(Fastbp, device="reference")),
    "PyTorch": ("torch", PyTorch),
    "torch.compile": ("torch", PyTorchCompiled),
    "JAX": ("jax", Jax),
    "scikit-learn": ("sklearn", ScikitLearn),
}


TOGETHER: dict[str, tuple[str, Callable[..., Any]]] = {
    "fastbp, fit": ("numba", FastbpFit),
    "JAX, scan": ("jax", JaxScan),
}


def contenders(start: Problem, names: Collection[str], steps: int) -> dict[str, Any]:
    """Those of the names that are installed and can train the net, by name.

    Those of TOGETHER take so many steps in a call.
    """
    makers: dict[str, tuple[str, Callable[[Problem], Any]]] = dict(CONTENDERS)
    for name, (package, together) in TOGETHER.items():
        makers[name] = package, partial(together, steps=steps)
    return {
        name: make(start)
        for name, (package, make) in makers.items()
        if name in names
        and installed(package)
        and (name != "scikit-learn" or ScikitLearn.fits(start.net))
    }
