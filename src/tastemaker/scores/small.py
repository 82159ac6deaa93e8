"""Small pictures of originals, for the page and the report: whole, upright, decoded with no more pixels than needed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.decode import MAX_IMAGE_PIXELS, decode_image
from tastemaker.imaging.embedded import PILLOW_READERS, read_orientation
from tastemaker.imaging.formats import name_format
from tastemaker.imaging.room import ROOM
from tastemaker.scores.sources import OriginalsReader, SkippedError

CHANGED = "the file has changed since it was scored"

_MARGIN = 1.5
"""A JPEG is decoded at least this many times as wide and high as wanted: the better filter needs the rest."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(row: Mapping[str, Any], reader: OriginalsReader) -> bytes:
    """Return the encoded bytes of the picture in a row, as they were scored.

    Args:
        row: As `OriginalsReader.read_image` takes it.
        reader: Reads them.

    Raises:
        UnreadableImageError: The source is gone, or has changed since it was scored. The message does not repeat its
            name, which stands beside the picture.
    """
    try:
        return reader.read_image(row)
    except SkippedError as error:
        raise UnreadableImageError(CHANGED if error.kind == "changed" else f"the file {error.problem}") from error


def recorded_size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the width and height that a row's picture must have; None where its hash tells whether it is the same."""
    return (row["width"], row["height"]) if row["width"] and row["height"] and not row["xxh3"] else None


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
    image = resize_image(image, fit_into(size, box))
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def fit_into(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the size, (width, height) in pixels, of a picture of another size in a box; it is never enlarged."""
    scale = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def resize_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture with this width and height in pixels."""
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Return a picture as a JPEG of a quality from 1 to 100."""
    pixels = np.ascontiguousarray(image)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420", fastdct=False)
    return encoded


def _load(data: bytes, name: str | None, box: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """Return the picture as stored (a raw upright), perhaps with fewer pixels; and the size that it has with all."""
    if name == "JPEG" and (reduced := _load_jpeg(data, box)) is not None:
        return reduced
    image = Image.fromarray(decode_image(data, apply_exif_rotation=name not in PILLOW_READERS).pixels)
    return image, image.size


def _load_jpeg(data: bytes, box: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]] | None:
    """Return a JPEG decoded at a fraction of its size, as far as the box allows; None for what cannot be decoded so."""
    with contextlib.suppress(ValueError, KeyError, MemoryError):
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if width * height <= MAX_IMAGE_PIXELS and colorspace not in ("CMYK", "YCCK"):
            scale = min(1.0, _MARGIN * min(box[0] / width, box[1] / height))
            wanted = {"min_width": int(scale * width), "min_height": int(scale * height)}
            return Image.fromarray(simplejpeg.decode_jpeg(data, strict=False, **wanted)), (width, height)
    return None
