"""The CLIP vision tower in plain NumPy, float32: slow and small. The others are held against it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.vit import QUICK_GELU_SLOPE, Embeddings, Pixels, check_pixels, read_dimensions
from tastemaker.models.weights import WeightsFile

Floats = npt.NDArray[np.float32]


class PlainClip:
    """CLIP's vision tower, one image at a time, weights straight from the mapped file: no memory of its own.

    Args:
        weights: ``model.safetensors`` in the Hugging Face layout; read through a memory map.

    Attributes:
        deadline: Time of `time.monotonic` after which `embed` gives up with a TimeoutError: infinity at first.

    Raises:
        ModelError: The weights do not fit.
    """

    def __init__(self, weights: Path) -> None:
        self.precision, self.device = "f32", "cpu"
        self.batch_size = self.concurrency = 1
        self.backbone = CLIP_VIT_L14
        self.dimensions = self.config = read_dimensions(weights, CLIP_VIT_L14)
        self._weights = WeightsFile(weights)
        self.deadline = math.inf
        self._is_cancelled = False

    def embed(self, pixels: Pixels) -> Embeddings:
        """Return the embeddings, float32 (n, 768), of uint8 (n, 224, 224, 3) pixels; see `VisionTower.embed`."""
        check_pixels(pixels, self.config.image_size)
        embeddings = np.empty((len(pixels), self.config.dimension), np.float32)
        for number, image in enumerate(pixels):
            embeddings[number] = self._embed_one(image)
        self._weights.release_memory()
        return embeddings

    def cancel(self) -> None:
        """Make an `embed` that runs in another thread, and every later one, raise `ModelError` soon."""
        self._is_cancelled = True

    def describe(self) -> dict[str, str]:
        """Return the backend, device, precision and version."""
        return {"backend": "numpy", "backend_version": np.__version__, "device": "cpu", "precision": "f32"}

    def _embed_one(self, image: Pixels) -> Floats:
        c, name = self.config, "vision_model.embeddings"
        values = (image.astype(np.float32) / 255 - np.array(CLIP_VIT_L14.preprocess.mean, np.float32)) / np.array(
            CLIP_VIT_L14.preprocess.std, np.float32
        )
        # As the convolution has them: (grid, grid, 3, patch, patch).
        patches = values.reshape(c.grid, c.patch, c.grid, c.patch, 3).transpose(0, 2, 4, 1, 3)
        kernel = self._weights.tensor(f"{name}.patch_embedding.weight").reshape(c.width, -1)
        x: Any = patches.reshape(c.grid**2, -1) @ kernel.T  # (t - 1, d)
        x = np.concatenate([self._weights.tensor(f"{name}.class_embedding")[None], x])
        x = self._norm(x + self._weights.tensor(f"{name}.position_embedding.weight"), "vision_model.pre_layrnorm")
        for layer in range(c.layers):
            if self._is_cancelled:
                raise ModelError("the inference was cancelled")
            if time.monotonic() > self.deadline:
                raise TimeoutError("the inference took too long")
            block = f"vision_model.encoder.layers.{layer}"
            x = x + self._attend(self._norm(x, f"{block}.layer_norm1"), f"{block}.self_attn")
            hidden = self._linear(self._norm(x, f"{block}.layer_norm2"), f"{block}.mlp.fc1")
            x = x + self._linear(hidden / (1 + np.exp(-QUICK_GELU_SLOPE * hidden)), f"{block}.mlp.fc2")
        pooled = self._norm(x[0], "vision_model.post_layernorm")
        embedding = self._weights.tensor("visual_projection.weight") @ pooled
        unit: Floats = embedding / np.linalg.norm(embedding)
        return unit

    def _attend(self, x: Floats, name: str) -> Floats:
        heads = self.config.heads
        q, k, v = (
            self._linear(x, f"{name}.{part}_proj").reshape(len(x), heads, -1).transpose(1, 0, 2) for part in "qkv"
        )  # each (h, t, d / h)
        logits = q @ k.transpose(0, 2, 1) / np.float32(q.shape[-1] ** 0.5)  # (h, t, t)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self._linear((weights @ v).transpose(1, 0, 2).reshape(len(x), -1), f"{name}.out_proj")

    def _norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(CLIP_VIT_L14.vit.eps))
        normed: Floats = scaled * self._weights.tensor(f"{name}.weight") + self._weights.tensor(f"{name}.bias")
        return normed

    def _linear(self, x: Floats, name: str) -> Floats:
        return x @ self._weights.tensor(f"{name}.weight").T + self._weights.tensor(f"{name}.bias")
