"""Many embeddings scored at once, as fast as memory gives them: for tables of embeddings that exist already."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.machine import usable_cores
from tastemaker.models.openvino_runtime import import_openvino

_BLOCK = 1024
"""Rows in one go: what is computed from them fits the processor's cache."""


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
    sums = _compile(embeddings.dtype.name, embeddings.shape[1])
    products, squares = sums.of_rows(embeddings, np.ascontiguousarray(weight, np.float32)[None])
    return products + np.float32(bias), np.sqrt(squares)


class _Sums:
    """The two sums of each row, in blocks of one size; each block is one core's, so that none waits for another.

    A block is never divided among cores: their waiting for each other costs more than half of the work again where
    other threads run, and a model of one fixed size needs a quarter less than one of any size.
    """

    def __init__(self, model: Any, size: int, dtype: str, cores: int) -> None:  # noqa: ANN401 - openvino ships no types
        self._requests = [model.create_infer_request() for _ in range(2 * cores)]
        self._padded = np.zeros((_BLOCK, size), dtype)
        self._lock = threading.Lock()

    def of_rows(
        self, embeddings: npt.NDArray[np.floating], weight: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the sums of products with ``weight`` (1, d), and those of squares, float32 (n,) each."""
        rows = len(embeddings)
        products, squares = np.empty(rows, np.float32), np.empty(rows, np.float32)

        def collect(start: int) -> None:
            request = self._requests[start // _BLOCK % len(self._requests)]
            request.wait()
            count = min(_BLOCK, rows - start)
            products[start : start + count] = request.get_output_tensor(0).data[:count, 0]
            squares[start : start + count] = request.get_output_tensor(1).data[:count, 0]

        ahead = len(self._requests) * _BLOCK
        with self._lock:
            try:
                for start in range(0, rows, _BLOCK):
                    if start >= ahead:
                        collect(start - ahead)
                    self._start(start // _BLOCK, embeddings[start : start + _BLOCK], weight)
                for start in range(max(0, -(-rows // _BLOCK) * _BLOCK - ahead), rows, _BLOCK):
                    collect(start)
            finally:
                for request in self._requests:  # the next caller finds them idle, whatever was raised here
                    request.wait()
        return products, squares

    def _start(self, number: int, block: npt.NDArray[np.floating], weight: npt.NDArray[np.float32]) -> None:
        block = np.ascontiguousarray(block)
        if len(block) < _BLOCK:
            self._padded[: len(block)] = block
            block = self._padded
        self._requests[number % len(self._requests)].start_async([block, weight], share_inputs=True)


@functools.cache
def _compile(dtype: str, size: int) -> _Sums:
    ov = import_openvino()
    op = ov.opset13

    embeddings = op.parameter([_BLOCK, size], {"float16": ov.Type.f16, "float32": ov.Type.f32}[dtype])
    weight = op.parameter([1, size], ov.Type.f32)
    wide, axis = op.convert(embeddings, "f32"), op.constant(np.array([1]))
    # Not a matrix product: that adds up a row in another order when there are more rows.
    products = op.reduce_sum(op.multiply(wide, weight), axis, True)
    squares = op.reduce_sum(op.multiply(wide, wide), axis, True)
    model = ov.Model([products, squares], [embeddings, weight], "scores")
    cores = usable_cores()
    settings = {"INFERENCE_PRECISION_HINT": ov.Type.f32, "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": cores}
    return _Sums(ov.Core().compile_model(model, "CPU", settings), size, dtype, cores)
