"""HEIC and other HEIF files, by libheif, and camera raws, by LibRaw: the extras ``heif`` and ``raw``.

Of a raw, the JPEG preview that the camera made is the picture; where there is none, the raw is developed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.formats import sniff_format

if TYPE_CHECKING:
    import rawpy
    from PIL import ImageFile

Pixels = npt.NDArray[np.uint8]

PREVIEW, DEVELOPED = "preview", "developed"
"""Where the pixels of a raw came from."""

MIN_PREVIEW_SIDE = 224
"""Pixels: a smaller preview is a thumbnail, and the raw is developed instead."""

_FLIP_TO_ORIENTATION = (1, 2, 4, 3, 5, 8, 6, 7)
"""LibRaw's flip (bits: mirrored, upside down, transposed) as an EXIF orientation."""


def open_heif(file: io.BytesIO) -> ImageFile.ImageFile:
    """Return a HEIF file as Pillow's image, not decoded yet.

    Rotation is a property of the picture in this format, not a hint in its EXIF: libheif always applies it.

    Raises:
        UnreadableImageError: The extra is not installed.
        ValueError: The file is cut. Errors of the decoder are others.
    """
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        name = sniff_format(file.getvalue())
        raise UnreadableImageError(f"{name} needs tastemaker[heif]", ReasonKind.NEEDS_HEIF) from None
    _check_whole(file.getbuffer())
    image: ImageFile.ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call,unused-ignore]
    return image


def _check_whole(data: memoryview) -> None:
    """Raise where the file ends inside its picture: libheif would leave the missing tiles of a grid black."""
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4]), bytes(data[at + 4 : at + 8]), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        if size < head:
            return  # 0: up to the end of the file; anything else is no box, and libheif judges
        if kind in (b"meta", b"mdat") and at + size > len(data):
            raise ValueError(f"it has {len(data):,} bytes of {at + size:,}")
        at += size


def read_raw(
    data: bytes, name: str, make_room: Callable[[int, int], None], decode_jpeg: Callable[[bytes], Pixels]
) -> tuple[Pixels, str, int]:
    """Return the camera's preview; where it is missing or a thumbnail, the raw developed at half its size.

    The pixels, uint8 (height, width, 3), are as stored. With them come `PREVIEW` or `DEVELOPED`, and how to turn them,
    as an EXIF orientation: 1 to 8.

    Args:
        data: The whole file.
        name: Its format, for the messages.
        make_room: Called with the width and height of a raw that is to be developed; raises where that is too large.
        decode_jpeg: Returns the pixels of a JPEG, or raises `UnreadableImageError`.

    Raises:
        UnreadableImageError: The extra is not installed; the file is damaged, or of a camera that LibRaw does not know.
    """
    try:
        import rawpy
    except ImportError:
        raise UnreadableImageError(f"{name} needs tastemaker[raw]", ReasonKind.NEEDS_RAW) from None
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            orientation = _FLIP_TO_ORIENTATION[raw.sizes.flip & 7]
            preview = _read_preview(raw, decode_jpeg)
            if preview is None:
                return _develop(raw, make_room), DEVELOPED, orientation
            is_turned = orientation >= 5 and _is_upright(preview) != (raw.sizes.height > raw.sizes.width)
            return preview, PREVIEW, 1 if is_turned else orientation
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{name}: {error}", error.reason_kind) from error
    except Exception as error:
        raise UnreadableImageError(f"damaged or unsupported {name}: {_message(error)}") from error


def _read_preview(raw: rawpy.RawPy, decode_jpeg: Callable[[bytes], Pixels]) -> Pixels | None:
    """Return the largest preview; None where there is none that can be used."""
    import rawpy

    try:
        thumb = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError, rawpy.NotSupportedError):
        return None
    pixels = decode_jpeg(thumb.data) if isinstance(thumb.data, bytes) else np.asarray(thumb.data)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        return None
    developed_side = min(raw.sizes.width, raw.sizes.height) // 2
    return pixels if min(pixels.shape[:2]) >= min(MIN_PREVIEW_SIDE, developed_side) else None


def _develop(raw: rawpy.RawPy, make_room: Callable[[int, int], None]) -> Pixels:
    sizes = raw.sizes
    make_room(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height))
    pixels: Pixels = raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0, output_bps=8)
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels  # a camera without colours


def _is_upright(pixels: Pixels) -> bool:
    return bool(pixels.shape[0] > pixels.shape[1])


def _message(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    return first.decode("ascii", "replace") if isinstance(first, bytes) else str(error) or type(error).__name__
