"""Many embeddings scored at once, as fast as memory gives them: for tables of embeddings that exist already."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 1024
"""Rows in one go: they fit the processor's cache."""


def score_many(
    embeddings: npt.NDArray[np.floating], weight: npt.NDArray[np.float64], bias: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return ``weight . embedding + bias`` and the length of each embedding, computed in float32.

    float16 is widened in the processor's registers, which NumPy does a number at a time.

    Args:
        embeddings: float16 or float32 (n, d). May be memory-mapped: it is read once, in blocks.
        weight: float64 (d,).
        bias: Added to each score.

    Returns:
        Scores, float32 (n,), within 2e-6 of the float64 sum for unit vectors, and lengths, float32 (n,).
    """
    request = _compile(embeddings.dtype.name, embeddings.shape[1])
    row = np.ascontiguousarray(weight, np.float32)[None]
    scores, lengths = np.empty(len(embeddings), np.float32), np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), _BLOCK):
        block = np.ascontiguousarray(embeddings[start : start + _BLOCK])
        products, squares = request.infer([block, row], share_inputs=True).values()
        scores[start : start + len(block)], lengths[start : start + len(block)] = products[:, 0], squares[:, 0]
    return scores + np.float32(bias), np.sqrt(lengths)


@functools.cache
def _compile(dtype: str, size: int) -> Any:  # noqa: ANN401 - openvino ships no types
    import openvino as ov
    from openvino import opset13 as op

    embeddings = op.parameter([-1, size], {"float16": ov.Type.f16, "float32": ov.Type.f32}[dtype])
    weight = op.parameter([1, size], ov.Type.f32)
    wide, axis = op.convert(embeddings, "f32"), op.constant(np.array([1]))
    # Not a matrix product: that adds up a row in another order when there are more rows.
    products = op.reduce_sum(op.multiply(wide, weight), axis, True)
    squares = op.reduce_sum(op.multiply(wide, wide), axis, True)
    model = ov.Model([products, squares], [embeddings, weight], "scores")
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32}).create_infer_request()
