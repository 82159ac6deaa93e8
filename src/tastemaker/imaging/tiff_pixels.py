"""What Pillow leaves to do for TIFFs: which page it is, kinds that it gets wrong, and values of more than 8 bits.

Pillow's ``convert`` cuts them off at 255: a picture of 16 bits comes out white, and one of floats from 0 to 1 black.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from tastemaker.errors import ReasonKind, UnreadableImageError

_WHITE_IS_ZERO, _IN_PLANES, _SIGNED = 0, 2, 2
"""Values of the TIFF tags PhotometricInterpretation, PlanarConfiguration and SampleFormat."""

_NEW_SUBFILE_TYPE, _REDUCED = 254, 1
_SEARCHED_PAGES = 8

_LEAST_BRIGHT = 16
"""Floats of which none reaches this are no picture of 8 bits, which would be black, but rather one of high range."""


def choose_page(image: ImageFile.ImageFile) -> None:
    """Go to the first page of a TIFF that is not marked as a small version of another; where all are, stay."""
    for page in range(_SEARCHED_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        if not _tags_of(image).get(_NEW_SUBFILE_TYPE, 0) & _REDUCED:
            return
    image.seek(0)


def check_tiff(image: ImageFile.ImageFile) -> None:
    """Raise where Pillow would give other pixels than those of a TIFF that was opened and not decoded yet.

    Raises:
        UnreadableImageError: It has signed values of 8 or 16 bits; or 16 bits in planes without compression; or 32 bits
            in the order of a Motorola processor with compression.
    """
    tags = _tags_of(image)
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    is_packed = any(tile.codec_name == "libtiff" for tile in image.tile)
    kind = ""
    if _SIGNED in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()) and bits <= 16:
        kind = f"signed values of {bits} bits"
    elif bits > 8 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _IN_PLANES and not is_packed:
        kind = f"{bits} bits in planes, not compressed"
    elif bits > 16 and tags.prefix == b"MM" and is_packed:
        kind = f"{bits} bits in big-endian order, compressed"
    if kind:
        raise UnreadableImageError(f"TIFF of a kind that is not read: {kind}", ReasonKind.UNSUPPORTED)


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
    is_inverted = _tags_of(image).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    grey = _high_bits(image)
    return Image.fromarray(~grey if is_inverted else grey)


def _high_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        bits = _tags_of(image).get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]  # a TIFF may have 12
        return np.asarray(values.astype(np.uint16) >> (bits - 8), np.uint8)
    low, high = float(values.min()), float(values.max())  # NaN where there is any
    if 0 <= low <= high <= 255 and not (image.mode == "F" and 1 < high < _LEAST_BRIGHT):
        return (values * np.float32(255) if image.mode == "F" and high <= 1 else values).astype(np.uint8)
    if image.mode == "I" and 0 <= low <= high < 2**16:
        return (values >> 8).astype(np.uint8)
    kind = "floating-point" if image.mode == "F" else "32-bit"
    raise UnreadableImageError(
        f"{kind} pixels from {low:.6g} to {high:.6g}: no known range; "
        f"known are 0 to 255 and {'0 to 1' if image.mode == 'F' else '0 to 65535'}",
        ReasonKind.UNSUPPORTED,
    )


def _tags_of(image: Image.Image) -> Any:  # noqa: ANN401 - Pillow's directory of tags, or an empty dictionary
    return getattr(image, "tag_v2", {})
