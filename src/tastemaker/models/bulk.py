"""Many embeddings scored at once, as fast as memory delivers them: for tables of embeddings that exist already."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.machine import usable_cores
from tastemaker.models.openvino_graph import import_openvino

_BLOCK = 2048
"""Rows in one inference: what is computed from them fits the processor's cache."""


def score_many(
    embeddings: npt.NDArray[np.floating], weight: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return ``weight . embedding`` and the length of each embedding, computed in float32.

    OpenVINO widens float16 in the processor's registers; NumPy converts one number at a time.

    Args:
        embeddings: float16 or float32 (n, d). May be memory-mapped: it is read once, in blocks.
        weight: float64 (d,).

    Returns:
        Products, float32 (n,), within 2e-6 of the float64 sum for unit vectors, and lengths, float32 (n,).
    """
    queue, lock = _compile(embeddings.dtype.name, embeddings.shape[1])
    weights = np.ascontiguousarray(weight, np.float32)[None]
    sums = np.empty((2, len(embeddings)), np.float32)

    def keep(request: Any, task: tuple[int, object]) -> None:  # noqa: ANN401 - openvino ships no types
        start, _ = task
        for found, tensor in zip(sums[:, start : start + _BLOCK], request.output_tensors, strict=True):
            found[:] = tensor.data[: len(found), 0]

    with lock:
        queue.set_callback(keep)
        try:
            for start in range(0, len(embeddings), _BLOCK):
                block = np.ascontiguousarray(embeddings[start : start + _BLOCK])
                if len(block) < _BLOCK:
                    block = np.resize(block, (_BLOCK, block.shape[1]))
                block = np.asarray(_Lent(block))
                queue.start_async([block, weights], (start, block), share_inputs=True)  # which keeps the block alive
        finally:
            queue.wait_all()  # the next caller finds it idle, whatever was raised here
    return sums[0], np.sqrt(sums[1])


class _Lent:
    """An array that seems writeable: OpenVINO copies those that are read only, as mapped files are, and writes to none.

    Args:
        array: What it is made of.
    """

    def __init__(self, array: npt.NDArray[np.floating]) -> None:
        self.array = array  # stays as long as what numpy makes of this
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


@functools.cache
def _compile(dtype: str, size: int) -> tuple[Any, threading.Lock]:
    """Return a queue of inferences that sum up the rows of one block each, and the lock of whoever uses it.

    One core computes a whole block. To divide a block among cores costs more than half of the work again where other
    threads run, and a model of one fixed size needs a quarter less than one of any size.
    """
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
    return ov.AsyncInferQueue(ov.Core().compile_model(model, "CPU", settings), 2 * cores), threading.Lock()
