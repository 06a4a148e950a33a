"""A network as its kernels take it: a table of layers, and a recipe of what a step does."""

from collections.abc import Iterable

import numpy as np

from .kernels import codes
from .layers import Dense, Dropout, Layer
from .losses import Huber, Loss
from .optimizers import Optimizer
from .regularization import Clip


class Plan:
    """The arrays of `kernels.network_*` that describe a network; codes.py names their places.

    Attributes
    ----------
    table : (layers, 9) int64 array
    recipe : (5,) int64 array
    numbers : (8 + layers,) float64 array
    weights, kept : int
        Elements of all weights; of the activations that a row needs for the backward pass.
    """

    def __init__(self, layers: Iterable[Layer], in_features: int) -> None:
        layers = tuple(layers)
        dense = [layer for layer in layers if isinstance(layer, Dense)]
        self.dropouts = [(i, one) for i, one in enumerate(layers) if isinstance(one, Dropout)]
        self.weights = sum(layer.w.size for layer in dense)
        self.table = np.full((len(layers), 9), -1, np.int64)
        self.recipe = np.zeros(5, np.int64)
        self.recipe[codes.WEIGHTS] = self.weights
        self.numbers = np.zeros(codes.RATES + len(layers))
        at_w, at_b, kept, features = 0, self.weights, 0, in_features
        for row, layer in zip(self.table, layers, strict=True):
            row[codes.K] = features
            if isinstance(layer, Dense):
                features = layer.out_features
                row[codes.KIND], row[codes.ACTIVATION] = codes.DENSE, layer.code
                row[codes.W], at_w = at_w, at_w + layer.w.size
                if layer.bias:
                    row[codes.B], at_b = at_b, at_b + layer.b.size
            else:
                row[codes.KIND] = codes.DROPOUT
            row[codes.M], row[codes.Y], kept = features, kept, kept + features
            if isinstance(layer, Dense) and codes.keeps_array(layer.code):
                row[codes.Z], kept = kept, kept + features
        self.kept = kept

    def set_loss(self, loss: Loss, kernel: str, l2: float) -> None:
        """What is minimised, and a new mask for each dropout layer."""
        self.recipe[codes.LOSS] = loss.code(kernel)
        self.numbers[codes.L2] = l2
        if isinstance(loss, Huber):
            self.numbers[codes.DELTA] = loss.delta
        for i, layer in self.dropouts:
            self.table[i, codes.SEED] = layer.mask_seed(layer.passes + 1)
            self.numbers[codes.RATES + i] = layer.rate

    def set_update(self, optimizer: Optimizer, clip: Clip | None) -> None:
        """How the parameters change."""
        recipe, numbers = self.recipe, self.numbers
        limit = (codes.NO_CLIP, 0.0) if clip is None else clip.recipe()
        recipe[codes.CLIP], numbers[codes.LIMIT] = limit
        optimizer.describe(recipe, numbers)

    def passed(self, times: int) -> None:
        """Count forward passes in training for the masks of the dropout layers."""
        for _, layer in self.dropouts:
            layer.passes += times
