"""Small pictures made on demand: decoded with care, encoded again as JPEG, kept in a cache of bounded size."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import platformdirs
import simplejpeg

from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.originals import read_picture, recorded_size, stamp
from tastemaker.explorer.reduced import reduce_image
from tastemaker.scores.sources import OriginalsReader

HEIGHTS = (160, 320, 640, 1280)
"""Heights of thumbnails in pixels; one in between is rounded up. Each is made of the next larger one that is there."""

VIEW_SIZES = range(400, 3201, 400)
"""Long sides of the large picture, in pixels."""

WIDEST = 8
"""A thumbnail is at most so many times as wide as high, and fits into that box."""

MAX_CACHE_BYTES = 2**30

_FIRST = 320
"""At least so high is the first thumbnail of an original: decoding costs more than it, and others follow from it."""

_QUALITY, _VIEW_QUALITY = 82, 90


class Thumbnails:
    """Thumbnails of originals, made once and then read from disk.

    Args:
        folder: Of the cache; None for the user's cache directory.
        max_bytes: Beyond this, those that were made first are deleted.
        storage_options: For originals that are URLs; see docs/remote-data.md.
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

        Args:
            row: As `RowLookup.rows` returns it.
            height: In pixels.

        Raises:
            UnreadableImageError: The original is gone, has changed since it was scored, or cannot be decoded.
        """
        height = next((h for h in HEIGHTS if h >= height), HEIGHTS[-1])
        identity = stamp(row)
        for larger in HEIGHTS[HEIGHTS.index(height) :]:
            with contextlib.suppress(OSError):
                data = self._path(identity, larger).read_bytes()
                return data if larger == height else self._make(data, None, identity, height)
        original = self._read(row)
        data = self._make(original, recorded_size(row), identity, max(height, _FIRST))
        return data if height >= _FIRST else self._make(data, None, identity, height)

    def view(self, row: dict[str, Any], size: int) -> bytes:
        """Return a JPEG whose long side is at most this many pixels (rounded up to one of `VIEW_SIZES`); not cached.

        Raises:
            UnreadableImageError: As `thumbnail` does.
        """
        size = next((s for s in VIEW_SIZES if s >= size), VIEW_SIZES[-1])
        return encode_small(self._read(row), size, size, _VIEW_QUALITY, recorded_size(row))

    def _read(self, row: dict[str, Any]) -> bytes:
        if row["size"] is None and row["reason"]:
            raise UnreadableImageError(row["reason"])
        with OriginalsReader(self._options) as reader:
            return read_picture(row, reader)

    def _make(self, data: bytes, recorded: tuple[int, int] | None, identity: str, height: int) -> bytes:
        small = encode_small(data, WIDEST * height, height, _QUALITY, recorded)
        with contextlib.suppress(OSError):  # a full disk shows pictures all the same
            self._keep(self._path(identity, height), small)
        return small

    def _path(self, identity: str, height: int) -> Path:
        key = hashlib.sha256(f"{identity}\n{height}".encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / key[:2] / f"{key}.jpg"

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
    pixels = np.ascontiguousarray(reduce_image(data, width, height, recorded=recorded))
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420", fastdct=False)
    return encoded


def no_picture(error: UnreadableImageError | OSError) -> str:
    """Return why there is no picture, in a line for people."""
    return str(error).splitlines()[0][:300] or type(error).__name__
