"""The one function that picks a vision tower for this machine."""

from __future__ import annotations

from pathlib import Path

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError
from tastemaker.models import device as devices
from tastemaker.models.hub import ensure_weights
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Backbone
from tastemaker.models.vit import PRECISIONS, VisionTower


def load_clip(
    weights: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
    backbone: Backbone = CLIP_VIT_L14,
) -> VisionTower:
    """Return the vision tower on the best device of this machine.

    Args:
        weights: The backbone's file; None for the one that `tastemaker.models.hub.ensure_weights` finds or fetches.
        device: ``auto`` (a GPU where torch can reach one, else the processor), ``cpu``, ``cuda`` (the first that this
            process sees), ``cuda:N`` or ``mps``.
        precision: ``auto`` is fp16 on a GPU, bf16 on processors that multiply it in hardware, else f32.
        threads: Processor threads for inference; None for all cores.
        batch_size: Images at a time on a GPU; None for 256. A processor chooses its own.
        backbone: What the file holds.

    Raises:
        ConfigurationError: An unknown device or precision, or one that this machine does not have.
        MissingExtraError: A GPU was asked for and torch is not installed.
        ModelError: The weights do not fit.
    """
    check_choice("precision", precision, PRECISIONS)
    chosen = devices.choose_device(device)
    weights = ensure_weights(backbone) if weights is None else weights
    if chosen == "cpu":
        from tastemaker.models.clip_openvino import OpenVinoClip

        return OpenVinoClip(weights, precision, threads, backbone=backbone)
    from tastemaker.models.clip_torch import TorchClip

    return TorchClip(weights, "cuda:0" if chosen == "cuda" else chosen, precision, batch_size, backbone=backbone)


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
