"""Pixels of any size to a model's input: with Pillow, which is the reference, or with torch.

torch takes half to a third of the time, and differs by 2 of 255 at most. It is for machines with a GPU, which must not
wait for the processors. Rows say which one it was.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from tastemaker.errors import ModelError
from tastemaker.imaging.model_input import Preprocess, plan_resize

RESIZES = ("auto", "pillow", "torch")
"""What resizes: ``auto`` is torch where this machine has a GPU that torch can use, else Pillow."""

Pixels = npt.NDArray[np.uint8]


def as_pixels(image: object) -> Pixels:
    """Return an image as pixels, uint8 (H, W, 3), RGB; one of Pillow's is converted.

    Raises:
        ModelError: It is something else; the message says what is wanted.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            return image
        given = f"{image.dtype} {image.shape}"
    else:
        given = type(image).__name__
    raise ModelError(f"pixels must be uint8 (H, W, 3), RGB, as decode_image returns them, or a PIL image, not {given}")


def preprocess(pixels: Pixels | Image.Image, how: Preprocess) -> Pixels:
    """Return the model's input for one image: resized with antialiasing, and cropped where the model wants that.

    Identical to Pillow's ``resize`` and ``crop`` (for sides in a ratio beyond 32, within 2 of 255).

    Args:
        pixels: uint8 (H, W, 3), RGB, any size; or an image of Pillow's, which is converted to RGB.
        how: What the model wants, for example ``CLIP_VIT_L14.preprocess``.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        ModelError: These are no such pixels: another type, grey, with alpha, floats, channels first, or none.

    Example:
        >>> from tastemaker import CLIP_VIT_L14
        >>> preprocess(np.zeros((480, 640, 3), np.uint8), CLIP_VIT_L14.preprocess).shape
        (224, 224, 3)
    """
    pixels = as_pixels(pixels)
    height, width = pixels.shape[:2]
    plan, size = plan_resize(height, width, how), how.size
    kernel = Image.Resampling[how.interpolation.upper()]
    left, top, right, bottom = plan.left, plan.top, plan.left + size, plan.top + size
    if plan.is_extreme:
        scale_x, scale_y = width / plan.width, height / plan.height
        return _resize_part(pixels, left * scale_x, top * scale_y, right * scale_x, bottom * scale_y, size, kernel)
    resized = Image.fromarray(pixels).resize((plan.width, plan.height), kernel)
    return np.asarray(resized.crop((left, top, right, bottom)))


def _resize_part(
    pixels: Pixels, left: float, top: float, right: float, bottom: float, size: int, kernel: Image.Resampling
) -> Pixels:
    """Return a part of the picture, in source pixels, resized to a square: along the rows first, as Pillow does it."""
    margin = int(2 * max((right - left) / size, 1)) + 2  # the filter reaches 2 pixels of the coarser side
    x, y = max(int(left) - margin, 0), max(int(top) - margin, 0)
    part = Image.fromarray(np.ascontiguousarray(pixels[y : int(bottom) + margin, x : int(right) + margin]))
    part = part.resize((size, part.height), kernel, box=(left - x, 0, right - x, part.height))
    return np.asarray(part.resize((size, size), kernel, box=(0, top - y, size, bottom - y)))


def preprocess_with_torch(pixels: Pixels, how: Preprocess) -> Pixels:
    """Return the model's input for one image, within 2 of 255 of what `preprocess` returns.

    torch resizes bytes in the thread that calls it, without Python's lock: any number of threads may, and neither
    `torch.set_num_threads` nor the number of cores matters.

    Three kinds of images are left to Pillow: smaller ones than the result, where torch is off more often; ones more
    than twice as tall as wide, of which Pillow resizes the columns first and torch always the rows (on noise, that
    is 25 of 255); and sides in a ratio beyond 32. See docs/decisions/0008-resize-on-gpu-machines.md.

    Args:
        pixels: uint8 (H, W, 3), RGB, any size.
        how: What the model wants.

    Returns:
        uint8 (size, size, 3), RGB.

    Example:
        >>> from tastemaker import CLIP_VIT_L14
        >>> preprocess_with_torch(np.zeros((480, 640, 3), np.uint8), CLIP_VIT_L14.preprocess).shape
        (224, 224, 3)
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    height, width = pixels.shape[:2]
    plan, size = plan_resize(height, width, how), how.size
    if plan.is_extreme or min(height, width) < size or height > 2 * width:
        return preprocess(pixels, how)
    # Each call of torch, and each copy in NumPy, gives Python's lock away, and with a dozen threads each waits for it
    # longer than the call takes. So the views are NumPy's. The stride of the batch dimension (which `[None]` would make
    # 0) tells torch that channels are last: it resizes the three together, in half the time, and leaves them there.
    planes = np.require(pixels, requirements=["C", "W"]).reshape(1, height, width, 3).transpose(0, 3, 1, 2)
    resized = F.interpolate(torch.from_numpy(planes), (plan.height, plan.width), mode=how.interpolation, antialias=True)
    crop = resized.numpy()[0, :, plan.top : plan.top + size, plan.left : plan.left + size].transpose(1, 2, 0)
    return crop.copy() if plan.width > 2 * size else crop  # a view keeps the whole resized image in memory
