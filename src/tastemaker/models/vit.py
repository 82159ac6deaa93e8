"""What all towers share: the dimensions of a vision transformer, its interface, and checks of what goes in.

Two towers implement `VisionTower`: `OpenVinoClip` (processors, the base install) and `TorchClip` (CUDA, ROCm and Apple
GPUs, the extra ``tastemaker[torch]``). `tastemaker.models.clip` picks one. Both read the vision half of a
``model.safetensors`` straight from the memory-mapped file; a text half is never loaded.
"""

from __future__ import annotations

import atexit
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.records import Backbone
from tastemaker.models.weights import WeightsFile

QUICK_GELU_SLOPE = 1.702
"""QuickGELU is ``x * sigmoid(1.702 * x)`` (OpenAI's CLIP, ``clip/model.py``)."""

EXIT_TIMEOUT_S = 30
"""How long the end of the process waits for an inference in another thread. One takes a second or two at most."""

PRECISIONS = ("auto", "f32", "bf16", "fp16", "int8")

Pixels = npt.NDArray[np.uint8]
Embeddings = npt.NDArray[np.float32]
Affine = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class VitDimensions:
    """The dimensions of a vision transformer, read from its weights.

    Attributes:
        width: Length of a token (1024 for ViT-L/14).
        layers: Number of transformer layers (24).
        heads: Attention heads a layer (16).
        mlp: Width of the hidden layer of each MLP (4096).
        patch: Side of a patch in pixels (14).
        image_size: Side of the square input in pixels (224).
        dimension: Length of the embedding (768).
        class_tokens: Tokens that are of no patch (1).
    """

    width: int
    layers: int
    heads: int
    mlp: int
    patch: int
    image_size: int
    dimension: int
    class_tokens: int = 1

    @property
    def grid(self) -> int:
        """Whole patches along one side of the input (16). What is left of the pixels is not looked at."""
        return self.image_size // self.patch

    @property
    def tokens(self) -> int:
        """Tokens of one image: the class token, if there is one, and one for each patch (257)."""
        return self.grid**2 + self.class_tokens


class VisionTower(Protocol):
    """Pixels in, unit vectors out: what both towers offer."""

    backbone: Backbone
    dimensions: VitDimensions
    precision: str
    device: str

    @property
    def batch_size(self) -> int:
        """Images that it takes at once. Calls of `embed` with a multiple of it are the quickest."""
        ...

    @property
    def concurrency(self) -> int:
        """Calls of `embed` at the same time that keep the device busy. More only wait."""
        ...

    def embed(self, pixels: Pixels) -> Embeddings:
        """Return the embedding of each image.

        Args:
            pixels: uint8 (n, s, s, 3), RGB, as `tastemaker.preprocess` makes them for the backbone. n may be 0.

        Returns:
            float32 (n, d), each row of unit length.

        Raises:
            ModelError: The array has another shape or type.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Return the backend, device, precision and versions, for the provenance of rows."""
        ...

    def cancel(self) -> None:
        """Make an `embed` that runs in another thread, and every later one, raise `ModelError` soon."""
        ...


def read_dimensions(weights: Path, backbone: Backbone) -> VitDimensions:
    """Return the dimensions of the vision transformer in a safetensors file.

    Args:
        weights: ``model.safetensors``.
        backbone: What should be in it.

    Raises:
        ModelError: Tensors are missing, or do not fit each other or the record.
    """
    file = WeightsFile(weights)
    problems = file.find_misfits(backbone.required_tensors)
    if problems:
        raise ModelError(f"{weights} holds no vision tower of {backbone.id}: {'; '.join(problems[:3])}")
    names, shapes = backbone.vit.names, file.shapes
    width, _, patch, _ = shapes[names.patches]
    if width % backbone.vit.head_width:
        raise ModelError(f"{weights}: a width of {width} cannot be split into heads of {backbone.vit.head_width}")
    dimensions = VitDimensions(
        width=width,
        layers=names.count_layers(shapes),
        heads=width // backbone.vit.head_width,
        mlp=shapes[f"{names.layers}.0.{names.fc1}.weight"][0],
        patch=patch,
        image_size=backbone.preprocess.size,
        dimension=backbone.dimension,
        class_tokens=1 if names.class_token else 0,
    )
    tokens = shapes[names.positions][0]
    if tokens != dimensions.tokens:
        side = math.isqrt(max(tokens - dimensions.class_tokens, 0)) * patch
        others = "a class token and " if names.class_token else ""
        raise ModelError(
            f"{weights}: {tokens} positions are not {others}the patches of an input of "
            f"{dimensions.image_size} pixels, {dimensions.tokens} in all (they would be of one of about {side} pixels)"
        )
    return dimensions


def fold_pixel_scale(
    weights: WeightsFile, backbone: Backbone
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the patch embedding as a linear layer that takes whole-number pixels, ``(x / 255 - mean) / std`` included.

    Its input is then exact in bf16 and fp16, which hold every whole number up to 255.

    Returns:
        weight: float32 (width, patch * patch * 3), the inputs in the order row, column, channel.
        bias: float32 (width,).
    """
    names = backbone.vit.names
    weight = weights.tensor(names.patches)  # (d, 3, patch, patch)
    std = np.asarray(backbone.preprocess.std, np.float64)[:, None, None]
    mean = np.asarray(backbone.preprocess.mean, np.float64)[:, None, None]
    folded = (weight / (255 * std)).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    bias = -(weight * (mean / std)).sum(axis=(1, 2, 3))
    if names.patches_bias:
        bias += weights.tensor(names.patches_bias)
    return folded.astype(np.float32), bias.astype(np.float32)


def split_pool_attention(weights: WeightsFile, pool: str) -> tuple[npt.NDArray[np.float32], list[Affine]]:
    """Return what the attention of a pooling asks all tokens, and the two linear layers that answer.

    Args:
        weights: The backbone's file.
        pool: What stands before the names of the pooling's tensors.

    Returns:
        The query, float32 (1, 1, d): it is made of the probe, and so is the same for every image. Weight, (d, d), and
        bias, (d,), of the keys and of the values.
    """
    parts = (np.split(weights.tensor(f"{pool}.attention.in_proj_{part}"), 3) for part in ("weight", "bias"))
    (weight, bias), *answers = zip(*parts, strict=True)
    return weights.tensor(f"{pool}.probe") @ weight.T + bias, answers


def check_pixels(pixels: Pixels, side: int) -> None:
    """Raise `ModelError` unless ``pixels`` is an array uint8 (n, side, side, 3)."""
    dtype, shape = getattr(pixels, "dtype", type(pixels).__name__), getattr(pixels, "shape", ())
    if dtype != np.uint8 or len(shape) != 4 or shape[1:] != (side, side, 3):
        raise ModelError(
            f"the model takes an array of uint8 pixels of shape (n, {side}, {side}, 3), not {dtype} {shape}; "
            "tastemaker.preprocess makes them from an image of any size"
        )


def make_inference_lock() -> threading.Lock:
    """Return a lock to hold during inference. The end of the process takes it and keeps it.

    Both libraries crash a process that ends while one of its daemon threads runs their code (an interrupted pipeline).
    The end therefore waits for the inference under way, and lets no other begin.
    """
    lock = threading.Lock()
    atexit.register(lock.acquire, timeout=EXIT_TIMEOUT_S)
    return lock
