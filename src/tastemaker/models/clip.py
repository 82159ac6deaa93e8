"""The CLIP vision tower: its configuration, its interface, and the one function that picks a backend.

Two backends implement `VisionTower`: `OpenVinoClip` (processors, the base install) and `TorchClip`
(CUDA, ROCm and Apple GPUs, the extra ``tastemaker[torch]``). Both read the vision half of a Hugging Face
``model.safetensors`` straight from the memory-mapped file; the text half is never loaded.
"""

from __future__ import annotations

import atexit
import json
import math
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError, MissingExtraError, ModelError
from tastemaker.models import device as devices
from tastemaker.models.hub import CLIP_VIT_L14, check_weights
from tastemaker.models.weights import WeightsFile

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of each RGB channel of CLIP's training pixels, in [0, 1] (OpenAI's CLIP, ``clip/clip.py``)."""
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of each RGB channel of CLIP's training pixels (same source)."""
LAYER_NORM_EPS = 1e-5
"""Epsilon of every layer norm (PyTorch's default, which CLIP was trained with)."""
QUICK_GELU_SLOPE = 1.702
"""QuickGELU is ``x * sigmoid(1.702 * x)`` (OpenAI's CLIP, ``clip/model.py``)."""

EXIT_TIMEOUT_S = 30
"""How long the end of the process waits for an inference in another thread. One takes a second or two at most."""

PRECISIONS = ("auto", "f32", "bf16", "fp16", "int8")
DEVICES = ("auto", "cpu", "cuda", "mps")

_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.")

Pixels = npt.NDArray[np.uint8]
Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """The dimensions of a CLIP vision tower, read from its weights.

    Attributes:
        width: Length of a token (1024 for ViT-L/14).
        layers: Number of transformer layers (24).
        heads: Attention heads a layer (16).
        mlp: Width of the hidden layer of each MLP (4096).
        patch: Side of a patch in pixels (14).
        image_size: Side of the square input in pixels (224).
        projection: Length of the embedding (768).
    """

    width: int
    layers: int
    heads: int
    mlp: int
    patch: int
    image_size: int
    projection: int

    @property
    def grid(self) -> int:
        """Patches along one side of the input (16)."""
        return self.image_size // self.patch

    @property
    def tokens(self) -> int:
        """Tokens of one image: the class token and one for each patch (257)."""
        return self.grid**2 + 1


class VisionTower(Protocol):
    """Pixels in, unit vectors out: what both backends offer."""

    config: ClipConfig
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
        """Return the CLIP embedding of each image.

        Args:
            pixels: uint8 (n, 224, 224, 3), RGB, as `tastemaker.imaging.preprocess` makes them. n may be 0.

        Returns:
            float32 (n, 768), each row of unit length.

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


def read_config(weights: Path) -> ClipConfig:
    """Return the dimensions of the vision tower in a safetensors file.

    All but the number of heads follow from the tensors' shapes. Heads come from ``config.json`` beside the
    file where there is one, else from CLIP's constant head size of 64.

    Args:
        weights: ``model.safetensors`` in the Hugging Face layout (``vision_model.*``, ``visual_projection.weight``).

    Raises:
        ModelError: Tensors are missing or do not fit each other, or ``config.json`` is of another architecture.
    """
    problems = check_weights(CLIP_VIT_L14, weights).problems
    if problems:
        raise ModelError(f"{weights} holds no CLIP ViT-L/14 vision tower: {'; '.join(problems[:3])}")
    shapes = WeightsFile(weights).shapes
    width, _, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
    tokens, _ = shapes["vision_model.embeddings.position_embedding.weight"]
    grid = math.isqrt(tokens - 1)
    if grid**2 + 1 != tokens:
        raise ModelError(f"{weights}: {tokens} positions are not a class token and a square of patches")
    return ClipConfig(
        width=width,
        layers=len({m[1] for m in map(_LAYER.match, shapes) if m}),
        heads=_read_heads(weights, width),
        mlp=shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
        patch=patch,
        image_size=grid * patch,
        projection=shapes["visual_projection.weight"][0],
    )


def fold_pixel_scale(weights: WeightsFile) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the patch embedding as a linear layer that takes whole-number pixels, ``(x / 255 - mean) / std`` included.

    Its input is then exact in bf16 and fp16, which hold every whole number up to 255.

    Returns:
        weight: float32 (width, patch * patch * 3), the inputs in the order row, column, channel.
        bias: float32 (width,).
    """
    weight = weights.tensor("vision_model.embeddings.patch_embedding.weight")  # (d, 3, patch, patch)
    std = np.asarray(PIXEL_STD, np.float64)[:, None, None]
    mean = np.asarray(PIXEL_MEAN, np.float64)[:, None, None]
    folded = (weight / (255 * std)).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    bias = -(weight * (mean / std)).sum(axis=(1, 2, 3))
    return folded.astype(np.float32), bias.astype(np.float32)


def check_pixels(pixels: Pixels, config: ClipConfig) -> None:
    """Raise `ModelError` unless ``pixels`` is an array uint8 (n, image_size, image_size, 3)."""
    side = config.image_size
    if not isinstance(pixels, np.ndarray):
        raise ModelError(f"the model takes a NumPy array of pixels, not {type(pixels).__name__}")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3):
        raise ModelError(
            f"the model takes uint8 pixels of shape (n, {side}, {side}, 3), not {pixels.dtype} {pixels.shape}; "
            "tastemaker.imaging.preprocess makes them from an image of any size"
        )


def load_clip(
    weights: Path,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
) -> VisionTower:
    """Return the vision tower on the best device of this machine.

    Args:
        weights: ``model.safetensors`` of CLIP (see `tastemaker.models.hub.ensure_weights`).
        device: ``auto`` (GPUs where torch can reach them, else the processor), ``cpu``, ``cuda`` (the first
            that this process sees), ``cuda:N`` or ``mps``.
        precision: ``auto`` is fp16 on a GPU, bf16 on processors that multiply it in hardware, else f32.
        threads: Processor threads for inference; None for all cores.
        batch_size: Images at a time on a GPU; None for 256. A processor chooses its own.

    Raises:
        ConfigurationError: An unknown device or precision, or one that this machine does not have.
        ModelError: The weights do not fit.
    """
    check_device(device)
    check_choice("precision", precision, PRECISIONS)
    chosen = devices.choose_device(device)
    if chosen == "cpu":
        from tastemaker.models.clip_openvino import OpenVinoClip

        return OpenVinoClip(weights, precision=precision, threads=threads)
    try:
        from tastemaker.models.clip_torch import TorchClip
    except ImportError as error:
        raise MissingExtraError(f'device={device!r} needs PyTorch: pip install "tastemaker[torch]"') from error
    return TorchClip(weights, "cuda:0" if chosen == "cuda" else chosen, precision, batch_size)


def resolve_precision(device: str, precision: str) -> str:
    """Return the precision that `load_clip` will run in on a device of this machine. Loads nothing.

    Args:
        device: What `tastemaker.models.device.choose_device` says.
        precision: One of `PRECISIONS`.

    Raises:
        ConfigurationError: An unknown precision, or one that the device does not have.
    """
    check_choice("precision", precision, PRECISIONS)
    if device == "cpu":
        from tastemaker.models.clip_openvino import choose_precision, processor_capabilities

        return choose_precision(precision, processor_capabilities())
    if precision == "int8":
        raise ConfigurationError(f"precision={precision!r} is not offered on {device}; use f32, bf16 or fp16")
    return "fp16" if precision == "auto" else precision


def make_inference_lock() -> threading.Lock:
    """Return a lock to hold during inference. The end of the process takes it and keeps it.

    Both libraries crash a process that ends while one of its daemon threads runs their code (an interrupted pipeline).
    The end therefore waits for the inference under way, and lets no other begin.
    """
    lock = threading.Lock()
    atexit.register(lock.acquire, timeout=EXIT_TIMEOUT_S)
    return lock


def check_device(device: str) -> None:
    """Raise `ConfigurationError` unless ``device`` is one of `DEVICES`, or ``cuda:N``."""
    if not re.fullmatch(r"cuda:\d+", device):
        check_choice("device", device, DEVICES)


def _read_heads(weights: Path, width: int) -> int:
    file = weights.with_name("config.json")
    if not file.is_file():
        return width // 64
    try:
        vision = json.loads(file.read_bytes()).get("vision_config") or {}
        activation = vision.get("hidden_act", "quick_gelu")
        heads = int(vision.get("num_attention_heads", width // 64))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{file} is not the configuration of a CLIP model ({error}); delete it or fetch it again"
        ) from error
    if activation != "quick_gelu":
        raise ModelError(f"{file}: hidden_act is {activation!r}; this tower computes quick_gelu only")
    if heads < 1 or width % heads:
        raise ModelError(f"{file}: a width of {width} cannot be split into {heads} attention heads")
    return heads
