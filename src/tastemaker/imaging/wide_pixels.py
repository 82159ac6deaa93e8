"""Grey values of more than 8 bits, brought down to 8: 16-bit, 32-bit and floating-point images.

Pillow's ``convert`` cuts them off at 255: a picture of 16 bits comes out white, and one of floats from 0 to 1 black.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from tastemaker.errors import ReasonKind, UnreadableImageError

_LEAST_BRIGHT = 16
"""Floats of which none reaches this are no picture of 8 bits, which would be black, but rather one of high range."""


def is_wide(image: Image.Image) -> bool:
    """Return whether the values of an image may need more than 8 bits; of colours, Pillow reduces them by itself."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def reduce_to_8_bits(image: Image.Image) -> Image.Image:
    """Return a wide image in grey of 8 bits.

    Of 16 bits the high byte is taken, as Pillow itself does for colour. 32-bit integers are values of 8 bits where they
    lie in 0 to 255, and of 16 bits up to 65,535. Floats in 0 to 1 are scaled by 255, others in 0 to 255 are left as
    they are.

    Raises:
        UnreadableImageError: The values lie in none of these ranges, so that nothing tells what is black and white.

    Example:
        >>> reduce_to_8_bits(Image.fromarray(np.array([[0, 0.5, 1]], np.float32))).tobytes().hex()
        '007fff'
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]  # a TIFF may have 12
        return _grey(values.astype(np.uint16) >> (bits - 8))
    low, high = float(values.min()), float(values.max())  # NaN where there is any
    if 0 <= low <= high <= 255 and not (image.mode == "F" and 1 < high < _LEAST_BRIGHT):
        return _grey(values * np.float32(255) if image.mode == "F" and high <= 1 else values)
    if image.mode == "I" and 0 <= low <= high < 2**16:
        return _grey(values >> 8)
    kind = "floating-point" if image.mode == "F" else "32-bit"
    raise UnreadableImageError(
        f"{kind} pixels from {low:.6g} to {high:.6g}: no known range; "
        f"known are 0 to 255 and {'0 to 1' if image.mode == 'F' else '0 to 65535'}",
        ReasonKind.UNSUPPORTED,
    )


def _grey(values: npt.NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))
