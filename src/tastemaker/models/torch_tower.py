"""The arithmetic of a vision tower in PyTorch: pixels in, unit vectors out, on any device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from tastemaker.models.records import Backbone, VitConfig
from tastemaker.models.vit import QUICK_GELU_SLOPE, VitDimensions, fold_pixel_scale, split_pool_attention
from tastemaker.models.weights import WeightsFile

ALIGNMENT = 8
"""Tensor cores read rows of whole 16 bytes, 8 numbers of 16 bits. A patch has 588: four zeros are added."""

Tensor = torch.Tensor


class Norm(NamedTuple):
    """A layer norm of tokens, and the biases that they still lack.

    The products at the end of an attention and of an MLP are added to the tokens without their biases, which sum up to
    the same vector for every token. Every norm adds that sum while it reads the tokens. So no kernel passes over the
    tokens only to add something to them.
    """

    offset: Tensor  # (d,): the sum of all biases left out so far
    weight: Tensor  # (d,)
    bias: Tensor  # (d,)


class LayerWeights(NamedTuple):
    """The tensors of one transformer layer; pairs are in the order weight, bias.

    The norm before the attention belongs to the layer before: a layer ends with the norm that the next one begins with.
    """

    qkv: tuple[Tensor, Tensor]  # (3 d, d), (3 d,)
    out: Tensor  # (d, d)
    norm: Norm
    fc1: tuple[Tensor, Tensor]  # (mlp, d), (mlp,)
    fc2: Tensor  # (d, mlp)
    next_norm: Norm  # after the last layer, the norm before the pooling or the projection


class PoolWeights(NamedTuple):
    """The tensors of an attention pooling; pairs are in the order weight, bias."""

    query: Tensor  # (1, 1, d)
    keys_values: tuple[Tensor, Tensor]  # (2 d, d), (2 d,)
    out: tuple[Tensor, Tensor]  # (d, d), (d,)
    norm: Norm
    fc1: tuple[Tensor, Tensor]  # (mlp, d), (mlp,)
    fc2: tuple[Tensor, Tensor]  # (d, mlp), (d,)


class Kernels(NamedTuple):
    """What lies between the other matrix products: functions of torch, or what a compiler made of them.

    All layers have the same shapes. Compiled once, they serve all.

    Attributes:
        norm: Returns the norm of the tokens with their offset, (n, t, d).
        expand: Returns the hidden layer of an MLP, (n, t, mlp), its activation included.
    """

    norm: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    expand: Callable[[Tensor, Tensor, Tensor], Tensor]


def make_kernels(vit: VitConfig) -> Kernels:
    """Return the two functions as a backbone computes them."""
    eps = vit.eps

    def norm_tokens(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x + offset, (x.shape[-1],), weight, bias, eps)

    def expand_quick(normed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        hidden = F.linear(normed, weight, bias)
        return hidden * torch.sigmoid(QUICK_GELU_SLOPE * hidden)

    def expand(normed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.gelu(F.linear(normed, weight, bias), approximate=approximate)

    approximate = "tanh" if vit.activation == "gelu_tanh" else "none"
    return Kernels(norm_tokens, expand_quick if vit.activation == "quick_gelu" else expand)


class TorchTower:
    """The tower's tensors on a device, and the function that they make.

    Args:
        weights: The backbone's file; read through a memory map.
        backbone: What the file holds.
        dimensions: Of what it holds.
        device: Where the tensors go.
        dtype: What the arithmetic is done in. Matrix products add up in float32 whatever it is.
    """

    def __init__(
        self,
        weights: Path,
        backbone: Backbone,
        dimensions: VitDimensions,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.dimensions = dimensions
        self.dtype = dtype
        self.kernels = make_kernels(backbone.vit)
        self._names = names = backbone.vit.names
        self._file = WeightsFile(weights)
        self._device = device
        patches, bias = fold_pixel_scale(self._file, backbone)
        self._patches = F.pad(self._place(patches), (0, -patches.shape[1] % ALIGNMENT))
        self._patches_bias = self._place(bias)
        self._class_token = self._load(names.class_token) if names.class_token else None
        self._positions = self._load(names.positions)
        self._offset = np.zeros(dimensions.width)  # float64: of the norm that is loaded next
        self._pre_norm = self._load_norm(names.first_norm) if names.first_norm else None
        norms = [f"{names.layers}.{layer}.{names.norm1}" for layer in range(dimensions.layers)]
        norms.append(names.last_norm)
        self._first_norm = self._load_norm(norms[0])
        self._layers = [self._load_layer(number, norms[number + 1]) for number in range(dimensions.layers)]
        self._pool = self._load_pool(names.pool) if names.pool else None
        self._projection = self._load(names.projection) if names.projection else None

    def __call__(self, pixels: Tensor, kernels: Kernels | None = None) -> Tensor:
        """Return the embeddings, float32 (n, p) of unit length.

        Args:
            pixels: uint8 (n, s, s, 3), on the tower's device.
            kernels: What computes the parts that a compiler can improve; None for torch's own functions.
        """
        kernels = kernels or self.kernels
        x = self._embed_patches(pixels)  # (n, t, d)
        normed = kernels.norm(x, *self._first_norm)
        for weights in self._layers if self._pool else self._layers[:-1]:
            qkv = F.linear(normed, *weights.qkv)  # (n, t, 3 d)
            normed = self._finish_layer(x, self._attend(qkv, qkv), weights, kernels)
        if self._pool:
            pooled = self._pool_tokens(normed, self._pool)
        else:
            pooled = self._embed_class_token(x, normed, self._layers[-1])
        projected = pooled if self._projection is None else F.linear(pooled, self._projection)
        return F.normalize(projected.float(), dim=-1)

    def _pool_tokens(self, normed: Tensor, pool: PoolWeights) -> Tensor:
        """Return what the probe makes of all tokens, (n, d)."""
        keys_values = F.linear(normed, *pool.keys_values)  # (n, t, 2 d)
        x = F.linear(self._attend(pool.query.expand(len(normed), -1, -1), keys_values), *pool.out)  # (n, 1, d)
        hidden = self.kernels.expand(self.kernels.norm(x, *pool.norm), *pool.fc1)
        return (x + F.linear(hidden, *pool.fc2)).squeeze(1)

    def _embed_class_token(self, x: Tensor, normed: Tensor, weights: LayerWeights) -> Tensor:
        """Return the class token after the last layer, (n, d): nothing else of that layer is used."""
        parts = [self.dimensions.width, 2 * self.dimensions.width]
        (weight, kv_weight), (bias, kv_bias) = (tensor.split(parts) for tensor in weights.qkv)
        query = F.linear(normed.narrow(1, 0, 1), weight, bias)  # (n, 1, d)
        keys_values = F.linear(normed, kv_weight, kv_bias)  # (n, t, 2 d)
        class_token = x.narrow(1, 0, 1).clone(memory_format=torch.contiguous_format)
        return self._finish_layer(class_token, self._attend(query, keys_values), weights, self.kernels).squeeze(1)

    def _attend(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Return what tokens take from each other, (n, q, d); queries come first in their rows, values last."""
        heads, size = self.dimensions.heads, self.dimensions.width // self.dimensions.heads
        query = queries.unflatten(2, (-1, heads, size)).unbind(2)[0]  # (n, q, h, d / h): views, nothing is copied
        key, value = keys_values.unflatten(2, (-1, heads, size)).unbind(2)[-2:]
        attended = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
        return attended.transpose(1, 2).flatten(2)

    def _finish_layer(self, x: Tensor, attended: Tensor, weights: LayerWeights, kernels: Kernels) -> Tensor:
        """Change the tokens to what they are after a layer, but for the offset, and return their next norm."""
        _add_product(x, attended, weights.out)
        _add_product(x, kernels.expand(kernels.norm(x, *weights.norm), *weights.fc1), weights.fc2)
        return kernels.norm(x, *weights.next_norm)

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        c = self.dimensions
        covered = c.grid * c.patch
        x = pixels.narrow(1, 0, covered).narrow(2, 0, covered)  # not all sides are whole patches
        x = x.reshape(-1, c.grid, c.patch, c.grid, c.patch * 3).transpose(2, 3)
        x = x.reshape(len(pixels), c.grid**2, -1).to(self.dtype)  # (n, grid * grid, patch * patch * 3)
        x = F.pad(x, (0, self._patches.shape[1] - x.shape[2]))
        x = F.linear(x, self._patches, self._patches_bias)  # a convolution would be computed in TF32, even in f32
        if self._class_token is not None:
            x = torch.cat([self._class_token.expand(len(x), 1, -1), x], 1)  # (n, t, d)
        if self._pre_norm is None:
            return x + self._positions
        return self.kernels.norm(x, self._positions, *self._pre_norm[1:])

    def _load_layer(self, number: int, next_norm: str) -> LayerWeights:
        query, key, value, out_name, fc1_name, fc2_name = self._names.linears(number)
        parts = [self._pair(name) for name in (query, key, value)]
        qkv = torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
        out = self._load_product(out_name)
        norm = self._load_norm(f"{self._names.layers}.{number}.{self._names.norm2}")
        fc1 = self._pair(fc1_name)
        fc2 = self._load_product(fc2_name)
        return LayerWeights(qkv, out, norm, fc1, fc2, self._load_norm(next_norm))

    def _load_pool(self, pool: str) -> PoolWeights:
        query, answers = split_pool_attention(self._file, pool)
        weight, bias = (torch.cat([self._place(part) for part in parts]) for parts in zip(*answers, strict=True))
        self._offset = np.zeros_like(self._offset)  # the pooled token has all its biases
        norm = self._load_norm(f"{pool}.layernorm")
        out, fc1, fc2 = (self._pair(f"{pool}.{name}") for name in ("attention.out_proj", "mlp.fc1", "mlp.fc2"))
        return PoolWeights(self._place(query), (weight, bias), out, norm, fc1, fc2)

    def _load_product(self, name: str) -> Tensor:
        """Return the weight of a product that is added to the tokens; its bias goes into the norms that follow."""
        self._offset = self._offset + self._file.tensor(f"{name}.bias")
        return self._load(f"{name}.weight")

    def _load_norm(self, name: str) -> Norm:
        return Norm(self._place(self._offset), *self._pair(name))

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self._load(f"{name}.weight"), self._load(f"{name}.bias")

    def _load(self, name: str) -> Tensor:
        return self._place(self._file.tensor(name))

    def _place(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device, self.dtype)


def _add_product(x: Tensor, factors: Tensor, weight: Tensor) -> None:
    """Add a linear layer of other tokens to tokens, (n, t, d), inside of the matrix product and its float32 sums."""
    x.view(-1, x.shape[-1]).addmm_(factors.flatten(0, 1), weight.T)
