"""Small pictures made on demand: decoded with care, encoded again as JPEG, kept in a cache of bounded size."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import platformdirs
import simplejpeg
from PIL import ExifTags, Image, JpegImagePlugin

from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.originals import read_picture, stamp
from tastemaker.imaging.decode import MAX_IMAGE_PIXELS, decode_image, sniff_format

HEIGHTS = range(40, 1281, 40)
"""Heights of thumbnails in pixels; one in between is rounded up."""

VIEW_SIZES = range(400, 3201, 400)
"""Long sides of the large picture, in pixels."""

WIDEST = 8
"""A thumbnail is at most so many times as wide as high, and fits into that box."""

MAX_CACHE_BYTES = 2**30

_QUALITY, _VIEW_QUALITY = 82, 90
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Thumbnails:
    """Thumbnails of originals, made once and then read from disk.

    Args:
        folder: Of the cache; None for the user's cache directory.
        max_bytes: Beyond this, those that were made first are deleted.
        storage_options: For originals that are URLs, as fsspec takes them.
    """

    def __init__(
        self,
        folder: Path | None = None,
        max_bytes: int = MAX_CACHE_BYTES,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = dict(storage_options or {})
        self._folder = folder or Path(platformdirs.user_cache_dir("tastemaker")) / "thumbnails"
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._bytes: int | None = None  # counted before the first is written

    def thumbnail(self, row: dict[str, Any], height: int) -> bytes:
        """Return a JPEG that fits into a box of this height (rounded up) and `WIDEST` times its width.

        Raises:
            UnreadableImageError: The original is gone, or cannot be decoded.
        """
        height = next((h for h in HEIGHTS if h >= height), HEIGHTS[-1])
        key = hashlib.sha256(f"{stamp(row)}\n{height}".encode("utf-8", "surrogateescape")).hexdigest()
        path = self._folder / key[:2] / f"{key}.jpg"
        with contextlib.suppress(OSError):
            return path.read_bytes()
        data = encode_small(read_picture(row, self._options), WIDEST * height, height, _QUALITY)
        with contextlib.suppress(OSError):  # a full disk shows pictures all the same
            self._keep(path, data)
        return data

    def view(self, row: dict[str, Any], size: int) -> bytes:
        """Return a JPEG whose long side is at most this many pixels (rounded up to one of `VIEW_SIZES`); not cached.

        Raises:
            UnreadableImageError: The original is gone, or cannot be decoded.
        """
        size = next((s for s in VIEW_SIZES if s >= size), VIEW_SIZES[-1])
        return encode_small(read_picture(row, self._options), size, size, _VIEW_QUALITY)

    def _keep(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}-{id(data)}")
        draft.write_bytes(data)
        draft.replace(path)
        with self._lock:
            self._bytes = len(data) + (self._bytes if self._bytes is not None else self._count())
            if self._bytes > self._max_bytes:
                self._bytes = self._prune()

    def _count(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _prune(self) -> int:
        """Delete the oldest until a fifth of the room is free; return how many bytes are left."""
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= 0.8 * self._max_bytes:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                left -= size
        return left

    def _files(self) -> list[tuple[float, int, str]]:
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(OSError):
                    status = os.stat(os.path.join(folder, name))
                    found.append((status.st_mtime, status.st_size, os.path.join(folder, name)))
        return found


def encode_small(data: bytes, width: int, height: int, quality: int) -> bytes:
    """Return an image as a JPEG that fits into a box, upright as its EXIF says, and never enlarged.

    Args:
        data: The encoded original.
        width: Of the box, in pixels.
        height: Of the box, in pixels.
        quality: Of the JPEG, 1 to 100.

    Raises:
        UnreadableImageError: It cannot be decoded.
    """
    image, orientation = _decode(data, width, height)
    box = (height, width) if orientation >= 5 else (width, height)
    image.thumbnail(box, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    pixels = np.ascontiguousarray(image)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420", fastdct=False)
    return encoded


def _decode(data: bytes, width: int, height: int) -> tuple[Image.Image, int]:
    """Return the pixels, and the EXIF orientation that is left to apply.

    Of a JPEG no more pixels are decoded than it takes, which is several times as fast.
    """
    if sniff_format(data) == "JPEG":
        with contextlib.suppress(ValueError, KeyError, MemoryError):
            full_height, full_width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            if full_width * full_height <= MAX_IMAGE_PIXELS and colorspace not in ("CMYK", "YCCK"):
                scale = min(1.0, max(width, height) / max(full_width, full_height))
                wanted = {"min_width": int(scale * full_width), "min_height": int(scale * full_height)}
                pixels = simplejpeg.decode_jpeg(data, strict=False, **wanted)
                return Image.fromarray(pixels), _orientation(data)
    return Image.fromarray(decode_image(data, apply_exif_rotation=True).pixels), 1


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG, 1 where there is none that can be read."""
    try:
        return int(JpegImagePlugin.JpegImageFile(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - the pixels are sound, whatever the EXIF is
        return 1


def no_picture(error: UnreadableImageError | OSError) -> str:
    """Return why there is no picture, in a line for people."""
    return str(error).splitlines()[0][:300] or type(error).__name__
