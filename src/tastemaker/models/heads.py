"""Heads that are more than one affine map, and what reads a head of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.aesthetic import BULK_ROWS, AestheticPredictor, check_embeddings, check_layers
from tastemaker.models.layers import Floats, StoredLayers, read_layers

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """Linear layers with a ReLU after each but the last. It is never folded into one map.

    Attributes:
        layers: (weight (outputs, inputs), bias (outputs,)) of each layer.
        mean: What is taken from an embedding first, (d,); None for nothing.
        scale: What it is divided by then, (d,).
        is_probability: A sigmoid follows the last layer.

    Raises:
        ModelError: The layers do not fit each other, do not end in one number, or hold a NaN.
    """

    layers: list[tuple[Numbers, Numbers]]
    mean: Numbers | None = None
    scale: Numbers | None = None
    is_probability: bool = False

    def __post_init__(self) -> None:
        check_layers(self.layers)

    @property
    def embedding_size(self) -> int:
        """Length of the embeddings that it scores."""
        return int(self.layers[0][0].shape[1])

    def __call__(self, embeddings: npt.NDArray[np.floating]) -> Floats:
        """Return the scores of embeddings.

        Args:
            embeddings: float (n, d), each row of unit length.

        Returns:
            float32 (n,). Up to 16,384 rows are computed in float64, so that a score does not depend on the rows around
            it; more in float32.

        Raises:
            ModelError: Another dimension, a NaN, or a length far from 1.
        """
        kind = np.float32 if len(embeddings) >= BULK_ROWS else np.float64
        x: npt.NDArray[Any] = check_embeddings(embeddings, self.embedding_size).astype(kind)
        if self.mean is not None and self.scale is not None:
            x = (x - self.mean.astype(kind, copy=False)) / self.scale.astype(kind, copy=False)
        for number, (weight, bias) in enumerate(self.layers):
            x = np.maximum(x, 0) if number else x
            x = x @ weight.T.astype(kind, copy=False) + bias.astype(kind, copy=False)
        if self.is_probability:
            x = 0.5 * (1 + np.tanh(0.5 * x))  # the logistic function, without overflow
        scores: Floats = x[:, 0].astype(np.float32)
        return scores


def read_head(path: Path, kind: str | None = None) -> AestheticPredictor | Network:
    """Return the head in a file of plain layers.

    Args:
        path: The file.
        kind: What it must be, as `tastemaker.models.layers.StoredLayers.kind`; None for any.

    Raises:
        ModelError: The file cannot be read, or holds something else.
    """
    stored = read_layers(path, kind)
    try:
        return _make_head(stored)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _make_head(stored: StoredLayers) -> AestheticPredictor | Network:
    if stored.kind == "linear":
        return AestheticPredictor(list(stored.layers))
    layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in stored.layers]
    if stored.mean is None or stored.variance is None:
        return Network(layers)
    size = layers[0][0].shape[1:]
    if not stored.mean.shape == stored.variance.shape == size:
        raise ModelError(f"norm.mean and norm.variance must hold {size[0]} numbers each")
    scale = np.sqrt(stored.variance.astype(np.float64))
    return Network(layers, stored.mean.astype(np.float64), scale, is_probability=True)
