"""Layers one after the other: what a network asks of them."""

from itertools import pairwise
from typing import Any

import numpy as np

from .layers import Dense, Dropout


def check_chain(layers: tuple[Any, ...]) -> tuple[np.dtype[Any], int, int]:
    """(dtype, in_features, out_features) of layers that fit each other."""
    for i, layer in enumerate(layers):
        if not isinstance(layer, Dense | Dropout):
            hint = "; pass the layers one by one: Sequential(*layers)"
            raise TypeError(
                f"layers[{i}]: expected Dense or Dropout, got {type(layer).__name__}"
                f"{hint if isinstance(layer, list | tuple) else ''}"
            )
        if layer.owned or any(layer is other for other in layers[:i]):
            raise ValueError(
                f"layers[{i}]: expected a layer of its own, got one that is already part of a "
                "network; make a new layer"
            )
    dense = [(i, layer) for i, layer in enumerate(layers) if isinstance(layer, Dense)]
    if not dense:
        raise ValueError("layers: expected at least one Dense layer, got none")
    _, first = dense[0]
    for (_, below), (i, layer) in pairwise(dense):
        if layer.in_features != below.out_features:
            raise ValueError(
                f"layers[{i}]: expected in_features={below.out_features}, the width of the layer "
                f"below, got {layer.in_features}"
            )
        if layer.dtype != first.dtype:
            raise TypeError(f"layers[{i}]: expected dtype {first.dtype}, got {layer.dtype}")
    return first.dtype, first.in_features, dense[-1][1].out_features
