"""Pixels of any size to CLIP's input: the short side to 224 by bicubic interpolation, then the centre square.

Two references differ in where the centre is. OpenAI's own (which the aesthetic predictor was trained and is used
with) rounds the crop's offset, ties to even; Hugging Face transformers' (which NeMo Curator uses) rounds it down. For
a quarter of all sizes, and on about 8% of photographs, whose sides are seldom in an odd ratio, that is one pixel. It
moves an embedding more than bf16 arithmetic does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tastemaker.checks import check_choice

INPUT_SIZE = 224
"""Side of CLIP ViT-L/14's square input, in pixels."""

PREPROCESSINGS = ("openai", "transformers")
RESIZES = ("auto", "pillow", "torch")
"""What resizes: ``auto`` is torch where this machine has a GPU that torch can use, else Pillow."""

_MAX_ASPECT = 32
"""Beyond this ratio of the sides only the crop is resized: the whole resized picture could fill the memory."""

Pixels = npt.NDArray[np.uint8]


def preprocess(pixels: Pixels, kind: str = "openai", size: int = INPUT_SIZE) -> Pixels:
    """Return the model's input for one image: resized with antialiased bicubic interpolation, centre-cropped.

    Identical to Pillow's ``resize`` and ``crop`` (for sides in a ratio beyond 32, within 2 of 255).

    Args:
        pixels: uint8 (H, W, 3), RGB, any size.
        kind: ``openai`` or ``transformers``: how the offset of the crop is rounded.
        size: Side of the result in pixels.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        ConfigurationError: ``kind`` is neither.

    Example:
        >>> preprocess(np.zeros((480, 640, 3), np.uint8)).shape
        (224, 224, 3)
    """
    height, width = pixels.shape[:2]
    plan = plan_resize(height, width, kind, size)
    left, top, right, bottom = plan.left, plan.top, plan.left + size, plan.top + size
    if plan.is_extreme:
        scale_x, scale_y = width / plan.width, height / plan.height
        return _resize_part(pixels, left * scale_x, top * scale_y, right * scale_x, bottom * scale_y, size)
    resized = Image.fromarray(pixels).resize((plan.width, plan.height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, right, bottom)))


class ResizePlan(NamedTuple):
    """What an image is resized to and where it is cropped.

    Attributes:
        width: Of the resized image, in pixels.
        height: The same.
        left: First column of the crop.
        top: First row of the crop.
        is_extreme: The resized image could fill the memory: only its crop must be made.
    """

    width: int
    height: int
    left: int
    top: int
    is_extreme: bool


def plan_resize(height: int, width: int, kind: str, size: int) -> ResizePlan:
    """Return how an image of a height and width becomes the model's input, whatever resizes it.

    Raises:
        ConfigurationError: ``kind`` is none of `PREPROCESSINGS`.

    Example:
        >>> plan_resize(480, 640, "openai", 224)
        ResizePlan(width=298, height=224, left=37, top=0, is_extreme=False)
    """
    check_choice("preprocess", kind, PREPROCESSINGS)
    short = min(height, width)
    new_width, new_height = int(size * width / short), int(size * height / short)
    left, top = _crop_offset(new_width - size, kind), _crop_offset(new_height - size, kind)
    return ResizePlan(new_width, new_height, left, top, max(new_width, new_height) > _MAX_ASPECT * size)


def _resize_part(pixels: Pixels, left: float, top: float, right: float, bottom: float, size: int) -> Pixels:
    """Return a part of the picture, in source pixels, resized to a square: along the rows first, as Pillow does it."""
    margin = int(2 * max((right - left) / size, 1)) + 2  # the filter reaches 2 pixels of the coarser side
    x, y = max(int(left) - margin, 0), max(int(top) - margin, 0)
    part = Image.fromarray(np.ascontiguousarray(pixels[y : int(bottom) + margin, x : int(right) + margin]))
    bicubic = Image.Resampling.BICUBIC
    part = part.resize((size, part.height), bicubic, box=(left - x, 0, right - x, part.height))
    return np.asarray(part.resize((size, size), bicubic, box=(0, top - y, size, bottom - y)))


def _crop_offset(excess: int, kind: str) -> int:
    """Return the first row or column of the crop; ``round`` takes ties to even."""
    return round(excess / 2) if kind == "openai" else excess // 2
