"""Files of heads, by the names of their tensors, and heads that are more than one affine map.

Source of the names: the state dicts of C. Schuhmann, "Improved Aesthetic Predictor", 2022, and of LAION-AI,
"CLIP-based-NSFW-Detector", 2022. Dropout layers do nothing in evaluation, hence gaps in the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.aesthetic import (
    BULK_ROWS,
    AestheticPredictor,
    Floats,
    check_embeddings,
    check_layers,
    read_tensors,
)

RELU_NUMBERS = (0, 3, 6, 9, 11)
"""Numbers of the linear layers in the state dict where a ReLU follows each but the last."""

_DETECTOR = ("linear_1", "linear_2", "linear_3", "linear_4")

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


def read_relu(path: Path) -> Network:
    """Return a head of linear layers with ReLUs, ``layers.{0,3,6,9,11}``.

    Raises:
        ModelError: The file cannot be read, or holds something else.
    """
    return _read(path, read_tensors(path), [f"layers.{number}" for number in RELU_NUMBERS])


def read_detector(path: Path) -> Network:
    """Return a head like LAION's NSFW detector: ``norm.mean``, ``norm.variance`` and ``linear_{1,2,3,4}``.

    An embedding is normalised by fixed numbers first, and a sigmoid makes a probability of the last layer.

    Raises:
        ModelError: The file cannot be read, or holds something else.
    """
    tensors = read_tensors(path)
    mean, variance = (tensors.pop(f"norm.{name}", None) for name in ("mean", "variance"))
    layers = _read(path, tensors, _DETECTOR).layers
    shape = layers[0][0].shape[1:]
    if mean is None or variance is None or not mean.shape == variance.shape == shape:
        raise ModelError(f"{path}: norm.mean and norm.variance must hold {shape[0]} numbers each")
    return Network(layers, mean.astype(np.float64), np.sqrt(variance.astype(np.float64)), is_probability=True)


def read_head(path: Path) -> AestheticPredictor | Network:
    """Return the head in a file: in the layout of `read_relu`, `read_detector` or `AestheticPredictor.from_file`.

    Raises:
        ModelError: The file cannot be read, or has none of them.
    """
    names = read_tensors(path).keys()
    if f"layers.{RELU_NUMBERS[1]}.weight" in names:
        return read_relu(path)
    return read_detector(path) if "norm.mean" in names else AestheticPredictor.from_file(path)


def _read(path: Path, tensors: Mapping[str, Floats], layers: Sequence[str]) -> Network:
    wanted = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    if set(tensors) != wanted:
        raise ModelError(
            f"{path}: not the head that was wanted; it must hold {', '.join(layers)}, and it holds "
            f"{', '.join(sorted(tensors)[:12]) or 'nothing'}"
        )
    pairs = [(tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]) for layer in layers]
    return Network([(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in pairs])
