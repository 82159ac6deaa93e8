"""Colour profiles: pixels of a wide gamut as sRGB has them, on demand. The reference programs ignore profiles."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from tastemaker.imaging.jpeg_metadata import read_segments

_APP2 = 0xE2
_MARK = b"ICC_PROFILE\0"


def jpeg_profile(data: bytes) -> bytes:
    """Return the profile of a JPEG, which may lie in several segments; empty where there is none.

    Source: ICC.1:2022, B.4: behind the mark of a segment stand its number and how many there are, a byte each.
    """
    bodies = (segment.body(data) for segment in read_segments(data) if segment.marker == _APP2)
    parts = sorted(body[len(_MARK) :] for body in bodies if body.startswith(_MARK))
    return b"".join(part[2:] for part in parts)


def to_srgb(pixels: npt.NDArray[np.uint8], profile: bytes) -> npt.NDArray[np.uint8]:
    """Return pixels in sRGB, by LittleCMS with the perceptual intent; as they are where the profile is not of RGB.

    Args:
        pixels: uint8 (H, W, 3), RGB as the profile means it.
        profile: An ICC profile.

    Raises:
        ImageCms.PyCMSError: The profile is damaged.
        OSError: The same.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if source.profile.xcolor_space.strip() != "RGB":
        return pixels
    converted = ImageCms.profileToProfile(Image.fromarray(pixels), source, ImageCms.createProfile("sRGB"))
    return pixels if converted is None else np.asarray(converted)
