"""The arithmetic of the CLIP vision tower in PyTorch: pixels in, unit vectors out, on any device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from tastemaker.models.clip import LAYER_NORM_EPS, QUICK_GELU_SLOPE, ClipConfig, fold_pixel_scale
from tastemaker.models.weights import WeightsFile

ALIGNMENT = 8
"""Tensor cores read rows of whole 16 bytes, 8 numbers of 16 bits. A patch has 588: four zeros are added."""

Tensor = torch.Tensor


class LayerWeights(NamedTuple):
    """The tensors of one transformer layer, each in the order weight, bias.

    The norm before the attention belongs to the layer before: a layer ends with the norm that the next one begins
    with. So every norm stands beside the addition that it follows, and a compiler can make one kernel of the two.
    """

    qkv: tuple[Tensor, Tensor]  # (3 d, d), (3 d,)
    out: tuple[Tensor, Tensor]  # (d, d), (d,)
    norm: tuple[Tensor, Tensor]  # (d,), (d,)
    fc1: tuple[Tensor, Tensor]  # (mlp, d), (mlp,)
    fc2: tuple[Tensor, Tensor]  # (d, mlp), (d,)
    next_norm: tuple[Tensor, Tensor]  # (d,), (d,); after the last layer, the norm before the projection


Layer = Callable[[Tensor, Tensor, LayerWeights, int], tuple[Tensor, Tensor]]


def encoder_layer(x: Tensor, normed: Tensor, weights: LayerWeights, heads: int) -> tuple[Tensor, Tensor]:
    """Return the tokens after a layer, and their norm. All layers have the same shapes: compiled once, it serves all.

    Args:
        x: (n, t, d).
        normed: (n, t, d): x after the norm that the layer begins with.
        weights: The layer's.
        heads: Attention heads.
    """
    queries, keys, values = _split_heads(F.linear(normed, *weights.qkv), heads, 3)
    return _finish_layer(x, F.scaled_dot_product_attention(queries, keys, values), weights)


def class_token_layer(x: Tensor, normed: Tensor, weights: LayerWeights, heads: int) -> tuple[Tensor, Tensor]:
    """Return the class token after a layer, (n, 1, d), and its norm: nothing else of the last layer is used."""
    width = x.shape[-1]
    weight, bias = weights.qkv
    (queries,) = _split_heads(F.linear(normed[:, :1], weight[:width], bias[:width]), heads, 1)
    keys, values = _split_heads(F.linear(normed, weight[width:], bias[width:]), heads, 2)
    return _finish_layer(x[:, :1], F.scaled_dot_product_attention(queries, keys, values), weights)


def _split_heads(x: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """Return ``parts`` tensors (n, h, t, d / h) of one (n, t, parts * d); no copies are made."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4).unbind()


def _finish_layer(x: Tensor, attended: Tensor, weights: LayerWeights) -> tuple[Tensor, Tensor]:
    x = x + F.linear(attended.transpose(1, 2).flatten(2), *weights.out)
    hidden = F.linear(_layer_norm(x, weights.norm), *weights.fc1)  # (n, t, mlp)
    x = x + F.linear(hidden * torch.sigmoid(QUICK_GELU_SLOPE * hidden), *weights.fc2)
    return x, _layer_norm(x, weights.next_norm)


def _layer_norm(x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), *weights, LAYER_NORM_EPS)


class TorchTower:
    """The tower's tensors on a device, and the function that they make.

    Args:
        weights: ``model.safetensors`` in the Hugging Face layout; read through a memory map.
        config: Its dimensions.
        device: Where the tensors go.
        dtype: What the arithmetic is done in. Matrix products add up in float32 whatever it is.
    """

    def __init__(self, weights: Path, config: ClipConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.dtype = dtype
        self._file = WeightsFile(weights)
        self._device = device
        patches, bias = fold_pixel_scale(self._file)
        self._patches = F.pad(self._place(torch.from_numpy(patches)), (0, -patches.shape[1] % ALIGNMENT))
        self._patches_bias = self._place(torch.from_numpy(bias))
        self._class_token = self._load("vision_model.embeddings.class_embedding")
        self._positions = self._load("vision_model.embeddings.position_embedding.weight")
        self._pre_norm = self._pair("vision_model.pre_layrnorm")
        self._projection = self._load("visual_projection.weight")
        norms = [f"vision_model.encoder.layers.{layer}.layer_norm1" for layer in range(config.layers)]
        norms.append("vision_model.post_layernorm")
        self._first_norm = self._pair(norms[0])
        self._layers = [self._load_layer(number, norms[number + 1]) for number in range(config.layers)]

    def __call__(self, pixels: Tensor, layer: Layer = encoder_layer) -> Tensor:
        """Return the embeddings, float32 (n, p) of unit length.

        Args:
            pixels: uint8 (n, s, s, 3), on the tower's device.
            layer: What computes a layer: `encoder_layer`, or what a compiler made of it.
        """
        x = self._embed_patches(pixels)  # (n, t, d)
        normed = _layer_norm(x, self._first_norm)
        *others, last = self._layers
        for weights in others:
            x, normed = layer(x, normed, weights, self.config.heads)
        _, normed = class_token_layer(x, normed, last, self.config.heads)  # (n, 1, d)
        return F.normalize(F.linear(normed[:, 0], self._projection).float(), dim=-1)

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        c = self.config
        x = pixels.view(-1, c.grid, c.patch, c.grid, c.patch * 3).transpose(2, 3)
        x = x.reshape(len(pixels), c.grid**2, -1).to(self.dtype)  # (n, t - 1, patch * patch * 3)
        x = F.pad(x, (0, self._patches.shape[1] - x.shape[2]))
        x = F.linear(x, self._patches, self._patches_bias)  # a convolution would be computed in TF32, even in f32
        x = torch.cat([self._class_token.expand(len(x), 1, -1), x], 1) + self._positions  # (n, t, d)
        return _layer_norm(x, self._pre_norm)

    def _load_layer(self, number: int, next_norm: str) -> LayerWeights:
        name = f"vision_model.encoder.layers.{number}"
        parts = [self._pair(f"{name}.self_attn.{part}_proj") for part in "qkv"]
        return LayerWeights(
            qkv=(torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])),
            out=self._pair(f"{name}.self_attn.out_proj"),
            norm=self._pair(f"{name}.layer_norm2"),
            fc1=self._pair(f"{name}.mlp.fc1"),
            fc2=self._pair(f"{name}.mlp.fc2"),
            next_norm=self._pair(next_norm),
        )

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self._load(f"{name}.weight"), self._load(f"{name}.bias")

    def _load(self, name: str) -> Tensor:
        return self._place(torch.from_numpy(self._file.tensor(name)))

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self.dtype)
