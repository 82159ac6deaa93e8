"""Pictures reduced to fit a box: no more is decoded than that takes, and nothing is cropped."""

from __future__ import annotations

import contextlib

import numpy as np
import simplejpeg
from PIL import Image

from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.originals import CHANGED
from tastemaker.imaging.decode import (
    MAX_IMAGE_PIXELS,
    PILLOW_READERS,
    decode_image,
    name_format,
    read_orientation,
)
from tastemaker.imaging.room import ROOM

_MARGIN = 1.5
"""So many times as wide and high as wanted a JPEG is decoded at least: the rest is for the better filter."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@ROOM.hold()
def reduce_image(data: bytes, width: int, height: int, *, recorded: tuple[int, int] | None = None) -> Image.Image:
    """Return a picture that fits into a box, upright as its EXIF says, and never enlarged.

    Args:
        data: The encoded original.
        width: Of the box, in pixels.
        height: Of the box, in pixels.
        recorded: Width and height that it had when it was scored, in either order; None where they are not compared.

    Raises:
        UnreadableImageError: It cannot be decoded, or has another size than it had.
    """
    name = name_format(data)
    orientation = read_orientation(data, name) if name in PILLOW_READERS else 1
    box = (height, width) if orientation >= 5 else (width, height)
    image, size = _load(data, name, box)
    if recorded is not None and sorted(size) != sorted(recorded):
        raise UnreadableImageError(CHANGED)
    image = image.resize(_fit(size, box), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def encode_small(data: bytes, width: int, height: int, quality: int, recorded: tuple[int, int] | None = None) -> bytes:
    """Return an image as a JPEG that fits into a box, upright as its EXIF says, and never enlarged.

    Args:
        data: The encoded original.
        width: Of the box, in pixels.
        height: Of the box, in pixels.
        quality: Of the JPEG, 1 to 100.
        recorded: As in `reduce_image`.

    Raises:
        UnreadableImageError: As `reduce_image` does.
    """
    return encode_jpeg(reduce_image(data, width, height, recorded=recorded), quality)


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Return a picture as a JPEG."""
    pixels = np.ascontiguousarray(image)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420", fastdct=False)
    return encoded


def _fit(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a picture in a box."""
    scale = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _load(data: bytes, name: str | None, box: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """Return the picture as stored, but a raw upright; perhaps with fewer pixels, and the size that it has with all."""
    if name == "JPEG" and (reduced := _load_jpeg(data, box)) is not None:
        return reduced
    image = Image.fromarray(decode_image(data, apply_exif_rotation=name not in PILLOW_READERS).pixels)
    return image, image.size


def _load_jpeg(data: bytes, box: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]] | None:
    """Return a JPEG with no more pixels than it takes, by scaling its coefficients; None for what is not decoded so."""
    with contextlib.suppress(ValueError, KeyError, MemoryError):
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if width * height <= MAX_IMAGE_PIXELS and colorspace not in ("CMYK", "YCCK"):
            scale = min(1.0, _MARGIN * min(box[0] / width, box[1] / height))
            wanted = {"min_width": int(scale * width), "min_height": int(scale * height)}
            return Image.fromarray(simplejpeg.decode_jpeg(data, strict=False, **wanted)), (width, height)
    return None
