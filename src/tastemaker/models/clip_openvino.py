"""A vision tower as an OpenVINO graph, built from the weights with OpenVINO's own operations."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.models.openvino_graph import TransformerGraph, compile_graph, import_openvino
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Backbone
from tastemaker.models.vit import (
    PRECISIONS,
    Embeddings,
    Pixels,
    VitDimensions,
    check_pixels,
    fold_pixel_scale,
    make_inference_lock,
    read_dimensions,
)
from tastemaker.models.weights import WeightsFile

MICRO_BATCH = 8
"""Images in one inference. Larger batches gain nothing on a processor (measured; see docs/decisions)."""


class OpenVinoClip:
    """A vision tower on a processor. Needs neither torch nor a conversion step. Threads may share one.

    An image's embedding does not depend on the images around it, nor on the number of threads: the results are equal
    bit for bit (docs/decisions/0003-batch-invariance.md).

    Args:
        weights: The backbone's file; read through a memory map.
        precision: ``auto`` (bf16 where the processor multiplies it in hardware, else f32), ``f32``, ``bf16`` or
            ``fp16`` (where the processor has it), or ``int8`` (docs/decisions/0009-int8.md).
        threads: Threads for inference; None for all cores.
        backbone: What the file holds.

    Raises:
        ConfigurationError: The processor does not have the precision, or there are fewer than 1 threads.
        ModelError: The weights do not fit.
    """

    device = "cpu"
    batch_size = MICRO_BATCH
    concurrency = 1  # one inference takes all cores

    def __init__(
        self,
        weights: Path,
        precision: str = "auto",
        threads: int | None = None,
        backbone: Backbone = CLIP_VIT_L14,
    ) -> None:
        self.backbone = backbone
        self.dimensions = read_dimensions(weights, backbone)
        capabilities = processor_capabilities()
        self.precision = choose_precision(precision, capabilities)
        arithmetic = choose_precision("auto", capabilities) if self.precision == "int8" else self.precision
        self._weights = WeightsFile(weights)  # the compiled model reads the mapped file, so it must stay open
        graph = build_graph(self._weights, backbone, self.dimensions, is_int8=self.precision == "int8")
        self._compiled = compile_graph(graph, arithmetic, threads)
        self._weights.release_memory()
        self._request = self._compiled.create_infer_request()
        self._is_cancelled = False
        self._is_first = True
        self._lock = make_inference_lock()  # a request refuses a second caller instead of letting it wait

    def embed(self, pixels: Pixels) -> Embeddings:
        """Return the embeddings, float32 (n, d), of uint8 (n, s, s, 3) pixels; see `VisionTower.embed`."""
        check_pixels(pixels, self.dimensions.image_size)
        embeddings = np.empty((len(pixels), self.dimensions.dimension), np.float32)
        for start in range(0, len(pixels), MICRO_BATCH):
            chunk = pixels[start : start + MICRO_BATCH]
            number = len(chunk)
            if self.precision == "int8" and number < MICRO_BATCH:  # fewer rows are multiplied by another kernel
                chunk = np.concatenate([chunk, np.zeros((MICRO_BATCH - number, *chunk.shape[1:]), np.uint8)])
            embeddings[start : start + number] = self._infer(chunk)[:number]
        return embeddings

    def describe(self) -> dict[str, str]:
        """Return the backend, device, precision and version, for the provenance of rows."""
        ov = import_openvino()

        version = ov.get_version().split("-")[0]
        return {"backend": "openvino", "backend_version": version, "device": "cpu", "precision": self.precision}

    def cancel(self) -> None:
        """Make an `embed` that runs in another thread, and every later one, raise `ModelError` soon."""
        self._is_cancelled = True
        self._request.cancel()

    def _infer(self, chunk: Pixels) -> Embeddings:
        with self._lock:
            if self._is_cancelled:
                raise ModelError("the inference was cancelled")
            try:
                result: Embeddings = self._request.infer([np.ascontiguousarray(chunk)], share_inputs=True)[0]
            except RuntimeError as error:
                if not self._is_cancelled:
                    raise
                raise ModelError("the inference was cancelled") from error
            if self._is_first:  # the compiled model has made its own arrangement of nearly all weights
                self._weights.release_memory()
                self._is_first = False
        return result


@functools.cache
def processor_capabilities() -> list[str]:
    """Return what OpenVINO says that this processor multiplies in hardware: ``BF16``, ``INT8`` and so on."""
    ov = import_openvino()

    return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def choose_precision(wanted: str, capabilities: list[str]) -> str:
    """Return ``f32``, ``bf16``, ``fp16`` or ``int8`` for a processor with these OpenVINO capabilities.

    Raises:
        ConfigurationError: The processor lacks the precision, or there is none of that name.
    """
    check_choice("precision", wanted, PRECISIONS)
    if wanted == "auto":
        return "bf16" if "BF16" in capabilities else "f32"
    if {"f32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}[wanted] not in capabilities:
        raise ConfigurationError(f"this processor has no {wanted} arithmetic; use precision='f32'")
    return wanted


def build_graph(weights: WeightsFile, backbone: Backbone, dimensions: VitDimensions, *, is_int8: bool = False) -> Any:  # noqa: ANN401 - openvino ships no types
    """Return the whole tower as an OpenVINO model: uint8 (n, s, s, 3) in, float32 (n, p) unit vectors out.

    The normalisation of pixels, ``(x / 255 - mean) / std``, is folded into the patch embedding: then the input
    of the first matrix product is whole numbers up to 255, which bf16 holds exactly. Where there is a class token, the
    last layer computes it only, since nothing else of it is used (3.5% of the work saved, the same result).
    """
    ov = import_openvino()

    names = backbone.vit.names
    graph = TransformerGraph(weights, backbone.vit, dimensions.width, is_int8=is_int8)
    side = dimensions.image_size
    pixels = graph.op.parameter([-1, side, side, 3], ov.Type.u8, name="pixels")
    tokens = _embed_patches(graph, pixels, backbone, dimensions)
    if names.first_norm:
        tokens = graph.layer_norm(tokens, names.first_norm)
    for layer in range(dimensions.layers):
        is_last = layer == dimensions.layers - 1
        tokens = graph.transformer_layer(tokens, layer, first_only=is_last and not names.pool)
    tokens = graph.layer_norm(tokens, names.last_norm)
    pooled = graph.pool(tokens, names.pool) if names.pool else graph.op.squeeze(tokens, [1])
    return ov.Model([graph.project(pooled)], [pixels], "vision_tower")


def _embed_patches(graph: TransformerGraph, pixels: Any, backbone: Backbone, dimensions: VitDimensions) -> Any:  # noqa: ANN401
    """Return the tokens of ``n`` images, (n, t, d): the class token, if there is one, then one for each patch."""
    op, c, names = graph.op, dimensions, backbone.vit.names
    covered = c.grid * c.patch
    x = pixels if covered == c.image_size else op.slice(pixels, [0, 0], [covered, covered], [1, 1], [1, 2])
    x = op.reshape(x, [0, c.grid, c.patch, c.grid, c.patch * 3], special_zero=True)
    x = op.transpose(x, [0, 1, 3, 2, 4])  # (n, grid, grid, patch, patch * 3)
    x = op.reshape(x, [0, c.grid**2, c.patch**2 * 3], special_zero=True)
    weight, bias = fold_pixel_scale(graph.weights, backbone)
    x = op.matmul(op.convert(x, "f32"), op.constant(weight), False, True)  # (n, grid * grid, d)

    position = graph.weights.tensor(names.positions)  # (t, d)
    x = op.add(x, op.constant((position[c.class_tokens :] + bias)[None]))
    if not names.class_token:
        return x
    class_token = graph.weights.tensor(names.class_token) + position[0]
    return op.concat([graph.repeat(class_token.reshape(1, 1, -1), pixels), x], 1)
