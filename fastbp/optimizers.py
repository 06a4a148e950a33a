"""Optimisers: the numbers that a user sets and the state that belongs to one network's parameters.

Formulas and sources: docs/optimisers.md. Names and defaults are PyTorch's, `learning_rate` spelled
out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from .checks import Array, check_choice, check_flag, check_number
from .kernels import codes
from .scratch import zeros


@dataclass
class Optimizer:
    """What all optimisers share: a step count and flat state arrays, made at the first step."""

    learning_rate: float
    step: int = field(default=0, init=False, repr=False)
    state: dict[str, Array] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_settings()

    def check_settings(self) -> None:
        """Raise TypeError or ValueError for a setting: a user may change each at any time."""
        check_number("learning_rate", self.learning_rate, 0)

    def check(self, parameters: Array) -> None:
        """Raise for the settings, or if the state belongs to a network of another size or dtype."""
        self.check_settings()
        for slot, array in self.state.items():
            if array.shape != parameters.shape or array.dtype != parameters.dtype:
                raise ValueError(
                    f"optimizer: expected a fresh one, got one whose {slot} belongs to a network "
                    f"of {array.size} {array.dtype} parameters (this one has {parameters.size} "
                    f"{parameters.dtype}); make a new {type(self).__name__}"
                )

    @property
    def code(self) -> int:
        """By which the kernels know it."""
        raise NotImplementedError

    def numbers(self) -> tuple[float, ...]:
        """What its kernel takes, in order."""
        raise NotImplementedError

    def slots(self) -> tuple[str, ...]:
        """Names of the state arrays."""
        raise NotImplementedError

    def describe(self, recipe: Array, numbers: Array) -> None:
        """Write what a step does where codes.py says."""
        recipe[codes.OPTIMIZER], recipe[codes.STEP] = self.code, self.step
        for place, number in enumerate(self.numbers(), codes.FIRST):
            numbers[place] = number

    def update(self, kernels: ModuleType, gradients: Array, parameters: Array) -> None:
        """One step: parameters and state (size,), checked before, change in place."""
        state, recipe, numbers = self.state_for(parameters), np.zeros(5, int), np.zeros(codes.RATES)
        self.step, self.state = self.step + 1, state
        self.describe(recipe, numbers)
        kernels.network_update(recipe, numbers, gradients, parameters, *slots(state, parameters))

    def state_for(self, parameters: Array) -> dict[str, Array]:
        """The state, or the zeros that it begins with."""
        if self.state or not (slots := self.slots()):
            return self.state
        return {slot: zeros(parameters.size, parameters.dtype) for slot in slots}


def slots(state: dict[str, Array], parameters: Array) -> tuple[Array, Array]:
    """The two state arrays that the kernels take, empty where there is none."""
    none = parameters[:0]
    first, second = none, none
    if state:
        first, second = (*state.values(), none)[:2]
    return first, second


@dataclass
class SGD(Optimizer):
    """Gradient descent, with momentum (Polyak 1964) or Nesterov's (1983) where asked for.

    With the gradient g, p -= learning_rate * g. With momentum v = momentum * v + g, and then
    p -= learning_rate * v, or with nesterov p -= learning_rate * (g + momentum * v)
    (docs/optimisers.md).

    Parameters
    ----------
    learning_rate : float
        learning_rate >= 0; with 0 no parameter changes.
    momentum : float
        0 <= momentum <= 1.
    nesterov : bool
        True needs momentum > 0.

    Attributes
    ----------
    step : int
        How many steps were taken.
    state : dict of (size,) arrays
        With momentum `velocity`, the v above; empty before the first step.

    Raises
    ------
    TypeError, ValueError
        For a setting of another type or out of its range; if it was set later, at its next use.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.SGD(learning_rate=0.1, momentum=0.9)
    SGD(learning_rate=0.1, momentum=0.9, nesterov=False)
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def check_settings(self) -> None:
        super().check_settings()
        check_number("momentum", self.momentum, 0, 1)
        if check_flag("nesterov", self.nesterov) and self.momentum == 0:
            raise ValueError("nesterov: expected momentum > 0 with it, got momentum=0")

    def slots(self) -> tuple[str, ...]:
        """Names of the state arrays."""
        return ("velocity",) if self.momentum else ()

    @property
    def code(self) -> int:
        """By which the kernels know it."""
        return codes.NESTEROV if self.nesterov else codes.SGD

    def numbers(self) -> tuple[float, ...]:
        """What its kernel takes, in order."""
        return self.learning_rate, self.momentum


@dataclass
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015).

    With the gradient g, m = beta1 * m + (1 - beta1) * g and v = beta2 * v + (1 - beta2) * g**2. In
    step t, counted from 1, p -= learning_rate * m' / (sqrt(v') + eps), where
    m' = m / (1 - beta1**t) and v' = v / (1 - beta2**t) (docs/optimisers.md).

    Parameters
    ----------
    learning_rate : float
        learning_rate >= 0; with 0 no parameter changes.
    beta1, beta2 : float
        0 <= beta < 1.
    eps : float
        eps >= 0.

    Attributes
    ----------
    step : int
        How many steps were taken.
    state : dict of (size,) arrays
        `m` and `v`; empty before the first step.

    Raises
    ------
    TypeError, ValueError
        For a setting of another type or out of its range; if it was set later, at its next use.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.Adam(learning_rate=3e-4).beta2
    0.999
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def check_settings(self) -> None:
        super().check_settings()
        for name in ("beta1", "beta2"):
            check_number(name, getattr(self, name), 0, 1, below=True)
        check_number("eps", self.eps, 0)

    def slots(self) -> tuple[str, ...]:
        """Names of the state arrays."""
        return ("m", "v")

    @property
    def code(self) -> int:
        """By which the kernels know it."""
        return codes.ADAMW

    def numbers(self) -> tuple[float, ...]:
        """What its kernel takes, in order."""
        return self.learning_rate, self.beta1, self.beta2, self.eps, 0.0


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), of every parameter.

    p *= 1 - learning_rate * weight_decay, then a step of `Adam` (docs/optimisers.md).

    Parameters
    ----------
    learning_rate : float
        learning_rate >= 0; with 0 no parameter changes.
    beta1, beta2 : float
        0 <= beta < 1.
    eps : float
        eps >= 0.
    weight_decay : float
        weight_decay >= 0.

    Attributes
    ----------
    step : int
        How many steps were taken.
    state : dict of (size,) arrays
        `m` and `v`, as in `Adam`; empty before the first step.

    Raises
    ------
    TypeError, ValueError
        For a setting of another type or out of its range; if it was set later, at its next use.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.AdamW().weight_decay
    0.01
    """

    weight_decay: float = 0.01

    def check_settings(self) -> None:
        super().check_settings()
        check_number("weight_decay", self.weight_decay, 0)

    def numbers(self) -> tuple[float, ...]:
        """What its kernel takes, in order."""
        return self.learning_rate, self.beta1, self.beta2, self.eps, self.weight_decay


@dataclass
class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012).

    With the gradient g, s = alpha * s + (1 - alpha) * g**2, and then
    p -= learning_rate * g / (sqrt(s) + eps) (docs/optimisers.md).

    Parameters
    ----------
    learning_rate : float
        learning_rate >= 0; with 0 no parameter changes.
    alpha : float
        0 <= alpha <= 1.
    eps : float
        eps >= 0.

    Attributes
    ----------
    step : int
        How many steps were taken.
    state : dict of (size,) arrays
        `square`, the s above; empty before the first step.

    Raises
    ------
    TypeError, ValueError
        For a setting of another type or out of its range; if it was set later, at its next use.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.RMSprop().alpha
    0.99
    """

    learning_rate: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8

    def check_settings(self) -> None:
        super().check_settings()
        check_number("alpha", self.alpha, 0, 1)
        check_number("eps", self.eps, 0)

    def slots(self) -> tuple[str, ...]:
        """Names of the state arrays."""
        return ("square",)

    @property
    def code(self) -> int:
        """By which the kernels know it."""
        return codes.RMSPROP

    def numbers(self) -> tuple[float, ...]:
        """What its kernel takes, in order."""
        return self.learning_rate, self.alpha, self.eps


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}


def resolve(optimizer: object) -> Optimizer:
    """The optimiser itself, or a fresh one with its defaults for a name."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        name = optimizer.__name__
        raise TypeError(f"optimizer: expected an instance, got the class {name}; pass {name}()")
    return OPTIMIZERS[check_choice("optimizer", optimizer, OPTIMIZERS)]()
