"""Heads of linear layers, no activation between them, so one affine map: the LAION aesthetic predictors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.bulk import score_many
from tastemaker.models.layers import Floats, read_layers

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor

MAX_NORM_ERROR = 0.02
"""How far from 1 an embedding's length may be: float16 rounding stays below 0.002, a missing normalisation does not."""

MAX_UNIT_ERROR = 2e-3
"""How far from 1 the length of a unit vector may be that was rounded to float16: it stays below."""

BULK_ROWS = 16_384
"""From so many rows on, embeddings are scored by `tastemaker.models.bulk`."""

Layer = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


class AestheticPredictor:
    """Scores embeddings of unit length; called, it is `score`.

    Args:
        layers: (weight (outputs, inputs), bias (outputs,)) of each linear layer, first to last.

    Attributes:
        layers: As given, float64.
        weight: float64 (d,), the affine map that the layers amount to: ``score = weight . embedding + bias``.
        bias: Its constant: the score of the zero vector.

    Raises:
        ModelError: The layers do not fit each other, do not end in one number, or hold a NaN.

    Example:
        >>> predictor = AestheticPredictor([(np.eye(2), np.zeros(2)), (np.array([[3.0, 4.0]]), np.array([5.0]))])
        >>> predictor.score(np.array([[0.6, 0.8]], np.float32))
        array([10.], dtype=float32)
    """

    def __init__(self, layers: list[tuple[npt.ArrayLike, npt.ArrayLike]]) -> None:
        self.layers: list[Layer] = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in layers]
        check_layers(self.layers)
        weight, bias = self.layers[0]
        for layer_weight, layer_bias in self.layers[1:]:
            weight, bias = layer_weight @ weight, layer_weight @ bias + layer_bias
        self.weight: npt.NDArray[np.float64] = weight[0]
        self.bias = float(bias[0])

    @classmethod
    def from_file(cls, path: Path) -> AestheticPredictor:
        """Return the predictor in a file of linear layers, in any layout that `read_layers` knows.

        Raises:
            ModelError: The file cannot be read, or holds another kind of predictor.
        """
        return cls(list(read_layers(path, "linear").layers))

    @property
    def embedding_size(self) -> int:
        """Length of the embeddings that it scores."""
        return len(self.weight)

    def __call__(self, embeddings: npt.NDArray[np.float32]) -> Floats:
        """Return the scores of embeddings, as a `tastemaker.models.records.Head` is to."""
        return self.score(embeddings)

    def score(self, embeddings: npt.ArrayLike) -> Floats:
        """Return the scores of embeddings.

        Args:
            embeddings: float (n, d), each row of unit length.

        Returns:
            float32 (n,), roughly 1 to 10. Each row is computed by itself: a score does not depend on the rows around
            it. Up to 16,384 rows in float64; more, of float16 or float32, in float32 and many times as fast.

        Raises:
            ModelError: Another dimension, a NaN, or a length far from 1.
        """
        array = _check_shape(embeddings, self.embedding_size)
        if len(array) >= BULK_ROWS and array.dtype in (np.float16, np.float32):
            scores, lengths = score_many(array, self.weight)
            _check_lengths(lengths)
            return scores + np.float32(self.bias)
        _check_lengths(_lengths(array))
        # Not a matrix product: BLAS may add up a row in another order when there are more rows.
        products = (array.astype(np.float64, order="C") * self.weight).sum(axis=1)
        exact: Floats = (products + self.bias).astype(np.float32)
        return exact


def score_of_any_length(predict: Predictor, embeddings: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return the scores of embeddings that may have any length, and their lengths.

    A row whose length differs from 1 by more than rounding to float16 explains (`MAX_UNIT_ERROR`) is divided by its
    length. Each row is computed by itself.

    Args:
        predict: The head, of any kind.
        embeddings: float16 or float32 (n, d). May be memory-mapped.

    Returns:
        Scores, float32 (n,), NaN where a row is zero or holds a NaN or an infinity; lengths, float32 (n,).

    Raises:
        ModelError: The embeddings have another dimension or type.
    """
    if isinstance(predict, AestheticPredictor):
        array = _check_shape(embeddings, predict.embedding_size)
        scores, lengths = score_many(array, predict.weight)
        is_usable = np.isfinite(lengths) & (lengths > 0)
        is_off = is_usable & (np.abs(lengths - 1) > MAX_UNIT_ERROR)
        scores[is_off] /= lengths[is_off]
        scores += np.float32(predict.bias)
        scores[~is_usable] = np.nan
        return scores, lengths
    lengths = _lengths(embeddings).astype(np.float32)
    is_usable = np.isfinite(lengths) & (lengths > 0)
    scores = np.full(len(lengths), np.nan, np.float32)
    scores[is_usable] = predict(embeddings[is_usable].astype(np.float32) / lengths[is_usable, None])
    return scores, lengths


def check_embeddings(embeddings: npt.ArrayLike, size: int) -> npt.NDArray[np.floating]:
    """Return embeddings as an array (n, size), once they are sound.

    Raises:
        ModelError: Another dimension, a NaN, an infinity, or a length far from 1; says which row, and what to do.
    """
    array = _check_shape(embeddings, size)
    _check_lengths(_lengths(array))
    return array


def _check_shape(embeddings: npt.ArrayLike, size: int) -> npt.NDArray[np.floating]:
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.shape[1] != size or not np.issubdtype(array.dtype, np.floating):
        raise ModelError(
            f"embeddings must be floating-point numbers of shape (n, {size}), not {array.dtype} {array.shape}; "
            "a predictor scores the embeddings of the model that it was trained on"
        )
    return array


def _lengths(array: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))
    return lengths


def _check_lengths(lengths: npt.NDArray[np.floating]) -> None:
    broken = ~np.isfinite(lengths)
    if broken.any():
        row = int(broken.argmax())
        raise ModelError(f"embedding {row} holds a NaN or an infinity; embed that image again, in f32")
    wrong = np.abs(lengths - 1) > MAX_NORM_ERROR
    if wrong.any():
        row = int(wrong.argmax())
        raise ModelError(
            f"embedding {row} has length {lengths[row]:.3g} instead of 1; divide embeddings by their L2 norm before "
            "scoring them (scores of 20 to 30 come from forgetting that)"
        )


def check_layers(layers: list[Layer]) -> None:
    """Raise `ModelError` unless layers fit each other, end in one number, and hold no NaN."""
    inputs_of_next = [*(weight.shape[-1:] for weight, _ in layers[1:]), (1,)]
    for (weight, bias), outputs in zip(layers, inputs_of_next, strict=False):
        if weight.ndim != 2 or not bias.shape == weight.shape[:1] == outputs:
            shapes = ", ".join(f"{w.shape} + {b.shape}" for w, b in layers)
            raise ModelError(f"the predictor's layers do not fit each other, or do not end in one number: {shapes}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ModelError("the predictor's weights hold a NaN or an infinity; fetch the file again")
    if not layers:
        raise ModelError("a predictor needs at least one layer")
