"""The kernels in plain NumPy: specification, oracle of the tests, baseline of the benchmarks."""

from .activations import activate, activation_gradient
from .dense import (
    dense_backward,
    dense_backward_add,
    dense_backward_work,
    dense_forward,
    dense_forward_work,
)
from .dropout import dropout
from .expressions import expression_loss
from .losses import (
    binary_cross_entropy,
    half_squared_error,
    huber,
    sigmoid,
    softmax,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
    squared_error,
)
from .network import (
    network_epoch,
    network_forward,
    network_loss_gradients,
    network_step,
    network_update,
    network_work,
)
from .optimizers import adam, adamw, rmsprop, sgd
from .regularization import clip_by_global_norm, clip_by_value, l2_penalty
from .shuffle import shuffle

__all__ = [
    "activate",
    "activation_gradient",
    "adam",
    "adamw",
    "binary_cross_entropy",
    "clip_by_global_norm",
    "clip_by_value",
    "dense_backward",
    "dense_backward_add",
    "dense_backward_work",
    "dense_forward",
    "dense_forward_work",
    "dropout",
    "expression_loss",
    "half_squared_error",
    "huber",
    "l2_penalty",
    "network_epoch",
    "network_forward",
    "network_loss_gradients",
    "network_step",
    "network_update",
    "network_work",
    "rmsprop",
    "sgd",
    "shuffle",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "sparse_softmax_cross_entropy",
    "squared_error",
]
