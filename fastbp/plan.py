"""A network as its kernels take it: a table of layers, and a recipe of what a step does."""

from collections.abc import Collection, Iterable
from itertools import accumulate
from typing import Any

import numpy as np

from .checks import Array
from .kernels import codes
from .layers import Dense, Dropout, Layer
from .losses import Huber, Loss
from .optimizers import Optimizer
from .regularization import Clip
from .scratch import scratch


class Plan:
    """The arrays of `kernels.network_*` that describe a network; codes.py names their places.

    With `recompute` layers share places for their activations, which the backward pass computes
    again.

    Attributes
    ----------
    table : (layers, 10) int64 array
    recipe : (5,) int64 array
    numbers : (8 + layers,) float64 array
    weights, kept : int
        Elements of all weights; of the activations of a row that exist at the same time.
    """

    def __init__(self, layers: Iterable[Layer], in_features: int, recompute: bool = False) -> None:
        layers = tuple(layers)
        dense = [layer for layer in layers if isinstance(layer, Dense)]
        self.dropouts = [(i, one) for i, one in enumerate(layers) if isinstance(one, Dropout)]
        self.weights = sum(layer.w.size for layer in dense)
        self.table = np.full((len(layers), codes.COLUMNS), -1, np.int64)
        self.recipe = np.zeros(5, np.int64)
        self.recipe[codes.WEIGHTS] = self.weights
        self.numbers = np.zeros(codes.RATES + len(layers))
        self._asked: tuple[int, Any, int] = -1, None, 0
        at_w, at_b, features, sizes = 0, self.weights, in_features, []
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
            keeps = isinstance(layer, Dense) and codes.keeps_array(layer.code)
            row[codes.M], row[codes.Z] = features, 0 if keeps else -1
            sizes.append(2 * features if keeps else features)
        self.kept, begins, again = shared(sizes) if recompute else places(sizes, ())
        table, keeps_z = self.table, self.table[:, codes.Z] >= 0
        table[:, codes.Y], table[:, codes.AGAIN] = begins, again
        table[keeps_z, codes.Z] = (table[:, codes.Y] + table[:, codes.M])[keeps_z]

    def work(self, kernels: Any, n: int, dtype: np.dtype[Any]) -> Array:
        """Scratch for n rows; how much is asked once for calls that are alike."""
        asked = self._asked  # as a whole: another thread may ask for other rows
        if asked[0] != n or asked[1] is not kernels:
            asked = self._asked = n, kernels, int(kernels.network_work(n, self.table))
        return scratch(asked[2], dtype)

    def set_loss(self, loss: Loss, kernel: str, l2: float) -> None:
        """What is minimised, and a new mask for each dropout layer."""
        self.recipe[codes.LOSS] = loss.code(kernel)
        self.numbers[codes.L2] = l2
        if isinstance(loss, Huber):
            self.numbers[codes.DELTA] = loss.delta
        self.set_masks()

    def set_masks(self) -> None:
        """A new mask for each dropout layer."""
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


def places(sizes: list[int], kept: Collection[int]) -> tuple[int, list[int], list[int]]:
    """Where the activations of each layer lie: all elements, their begins, codes.AGAIN.

    Parameters
    ----------
    sizes : list of int
        Elements of a row of each layer.
    kept : collection of int
        Layers with a place of their own. Those between two of them share a room with those
        between others: what is left in it at the end are the layers after the last kept one.
    """
    begins, again, first, inside, room = [0] * len(sizes), [-1] * len(sizes), 0, 0, 0
    for i, size in enumerate(sizes):
        if i not in kept:
            begins[i], inside = inside, inside + size
            room = max(room, inside)
            continue
        if first < i < len(sizes) - 1:
            again[i] = first
        first, inside = i + 1, 0
    for i in sorted(kept):
        begins[i], room = room, room + sizes[i]
    return room, begins, again


def shared(sizes: list[int]) -> tuple[int, list[int], list[int]]:
    """The `places` of least memory.

    Rooms for one layer and for the last layers are tried: from the end on, layers go into it until
    it is full; the next one is kept, and the room is free again. For n equal layers the best room
    holds about sqrt(n) of them, and as many are kept.
    """
    best = places(sizes, ())
    for room in sorted({*sizes, *accumulate(reversed(sizes))}):
        if room >= best[0]:
            break
        kept, inside = set(), 0
        for i in reversed(range(len(sizes))):
            inside += sizes[i]
            if inside > room:
                kept.add(i)
                inside = 0
        found = places(sizes, kept)
        if found[0] < best[0]:
            best = found
    return best
