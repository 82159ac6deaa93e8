"""The CLIP vision tower in PyTorch, for GPUs (the extra ``tastemaker[torch]``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.models.clip import (
    LAYER_NORM_EPS,
    QUICK_GELU_SLOPE,
    Embeddings,
    Pixels,
    check_pixels,
    fold_pixel_scale,
    make_inference_lock,
    read_config,
)
from tastemaker.models.weights import WeightsFile

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Tensor = torch.Tensor


class TorchClip:
    """CLIP's vision tower on a GPU, or on a processor where its numbers are to be compared.

    Args:
        weights: ``model.safetensors`` in the Hugging Face layout; read through a memory map.
        device: ``cuda``, ``mps`` or ``cpu``.
        precision: ``auto`` (fp16 on a GPU, as OpenAI's own inference; else f32), ``f32``, ``bf16`` or ``fp16``.
        batch_size: Images in one inference.

    Raises:
        ConfigurationError: The precision is not offered here, or ``batch_size`` is less than 1.
        ModelError: The weights do not fit.
    """

    def __init__(self, weights: Path, device: str = "cuda", precision: str = "auto", batch_size: int = 32) -> None:
        if precision == "auto":
            precision = "f32" if device == "cpu" else "fp16"
        if batch_size < 1:
            raise ConfigurationError(f"batch_size={batch_size} is less than 1")
        if precision not in DTYPES:
            raise ConfigurationError(f"precision={precision!r} is not offered on {device}; use f32, bf16 or fp16")
        self.config = read_config(weights)
        self.precision = precision
        self.device = device
        self.batch_size = batch_size
        self._dtype = DTYPES[precision]
        self._is_cancelled = False
        self._lock = make_inference_lock()
        self._tensors = self._load(weights)

    def embed(self, pixels: Pixels) -> Embeddings:
        """Return the embeddings, float32 (n, 768), of uint8 (n, 224, 224, 3) pixels; see `VisionTower.embed`."""
        check_pixels(pixels, self.config)
        if not len(pixels):
            return np.empty((0, self.config.projection), np.float32)
        with self._lock:
            return self._embed(pixels)

    def cancel(self) -> None:
        """Make an `embed` that runs in another thread, and every later one, raise `ModelError` soon."""
        self._is_cancelled = True

    def describe(self) -> dict[str, str]:
        """Return the backend, device, precision and version, for the provenance of rows."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else self.device
        version = torch.__version__
        return {"backend": "torch", "backend_version": version, "device": name, "precision": self.precision}

    def _load(self, weights: Path) -> dict[str, Tensor]:
        file = WeightsFile(weights)
        vision = [n for n in file.shapes if n.startswith(("vision_model.", "visual_projection."))]
        tensors = {n: file.tensor(n) for n in vision if not n.endswith(("position_ids", "patch_embedding.weight"))}
        tensors["patches.weight"], tensors["patches.bias"] = fold_pixel_scale(file)
        placed = {n: torch.from_numpy(values).to(self.device, self._dtype) for n, values in tensors.items()}
        for layer in range(self.config.layers):
            _fuse_qkv(placed, f"vision_model.encoder.layers.{layer}.self_attn")
        return placed

    @torch.inference_mode()
    def _embed(self, pixels: Pixels) -> Embeddings:
        chunks = (pixels[start : start + self.batch_size] for start in range(0, len(pixels), self.batch_size))
        # np.require: torch wants memory in order, and warns of what it cannot write to. One wait, at the end.
        embedded = [self._forward(torch.from_numpy(np.require(chunk, requirements=["C", "W"]))) for chunk in chunks]
        result: Embeddings = torch.cat(embedded).cpu().numpy().copy()  # no tensor is left to be freed without the lock
        return result

    def _forward(self, chunk: Tensor) -> Tensor:
        if self._is_cancelled:
            raise ModelError("the inference was cancelled")
        c, name = self.config, "vision_model.embeddings"
        x = chunk.to(self.device).view(-1, c.grid, c.patch, c.grid, c.patch * 3).transpose(2, 3)
        x = x.reshape(len(chunk), c.grid**2, -1).to(self._dtype)  # (n, t - 1, patch * patch * 3)
        x = self._linear(x, "patches")  # (n, t - 1, d); a convolution would be computed in TF32, even in f32
        class_token = self._tensors[f"{name}.class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([class_token, x], 1) + self._tensors[f"{name}.position_embedding.weight"]  # (n, t, d)
        x = self._layer_norm(x, "vision_model.pre_layrnorm")
        for layer in range(c.layers):
            x = self._transformer_layer(x, layer, class_token_only=layer == c.layers - 1)
        pooled = self._layer_norm(x[:, 0], "vision_model.post_layernorm")  # (n, d)
        embedding = F.linear(pooled, self._tensors["visual_projection.weight"]).float()  # (n, p)
        return F.normalize(embedding, dim=-1)

    def _transformer_layer(self, x: Tensor, layer: int, *, class_token_only: bool) -> Tensor:
        name = f"vision_model.encoder.layers.{layer}"
        normed = self._layer_norm(x, f"{name}.layer_norm1")
        heads = self._linear(normed, f"{name}.self_attn.qkv")
        heads = heads.view(*normed.shape[:2], 3, self.config.heads, -1)  # (n, t, 3, h, d / h)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each (n, h, t, d / h)
        if class_token_only:  # nothing but the class token of the last layer is used
            x, queries = x[:, :1], queries[:, :, :1]
        attended = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        x = x + self._linear(attended, f"{name}.self_attn.out_proj")
        hidden = self._linear(self._layer_norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        return x + self._linear(hidden * torch.sigmoid(QUICK_GELU_SLOPE * hidden), f"{name}.mlp.fc2")

    def _layer_norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return F.layer_norm(x, (self.config.width,), weight, bias, LAYER_NORM_EPS)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])


def _fuse_qkv(tensors: dict[str, Tensor], name: str) -> None:
    for kind in ("weight", "bias"):
        parts = [tensors.pop(f"{name}.{part}_proj.{kind}") for part in "qkv"]
        tensors[f"{name}.qkv.{kind}"] = torch.cat(parts)
