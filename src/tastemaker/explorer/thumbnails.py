"""Small pictures made on demand: decoded with care, encoded again as JPEG, kept in a cache of bounded size."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from threading import Lock
from typing import Any

import platformdirs

from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.originals import read_picture, recorded_size, stamp
from tastemaker.explorer.reduced import encode_small
from tastemaker.scores.named import NamedPlaces
from tastemaker.scores.sources import OriginalsReader

HEIGHTS = (160, 320, 640, 960, 1280, 1920, 2560)
"""Heights of pictures in pixels; one in between is rounded up, and beyond them a picture comes with all its pixels."""

KEPT = (160, 320, 640)
"""Pictures of these heights are kept on disk; each is made of the next larger one that is there."""

WIDEST = 8
"""A picture is at most so many times as wide as high, and fits into that box."""

MAX_CACHE_BYTES = 2**30

_WHOLE = 65_500
"""The height of a JPEG at most."""

_FIRST = 320
"""At least so high is the first thumbnail of an original: decoding costs more than it, and others follow from it."""

_QUALITY, _LARGE_QUALITY = 82, 90


class Thumbnails:
    """Small pictures of originals, made once and then read from disk; large ones are made each time.

    Args:
        folder: Of the cache; None for the user's cache directory.
        max_bytes: Beyond this, those that were made first are deleted.
        named: Where originals may be read; None for nowhere.
    """

    def __init__(
        self,
        folder: Path | None = None,
        max_bytes: int = MAX_CACHE_BYTES,
        named: NamedPlaces | None = None,
    ) -> None:
        self._named = named or NamedPlaces()
        self._folder = folder or Path(platformdirs.user_cache_dir("tastemaker")) / "thumbnails"
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._bytes: int | None = None  # counted before the first is written

    def make(self, row: dict[str, Any], height: int) -> bytes:
        """Return a JPEG that fits a box of this height, rounded up to one of `HEIGHTS`, and `WIDEST` times as wide.

        Args:
            row: As `RowLookup.rows` returns it.
            height: In pixels.

        Raises:
            UnreadableImageError: The original is gone, has changed since it was scored, or cannot be decoded.
        """
        height = next((h for h in HEIGHTS if h >= height), _WHOLE)
        if height not in KEPT:
            width = min(WIDEST * height, _WHOLE)
            return encode_small(self._read(row), width, height, _LARGE_QUALITY, recorded_size(row))
        identity = stamp(row)
        for larger in KEPT[KEPT.index(height) :]:
            with contextlib.suppress(OSError):
                data = self._path(identity, larger).read_bytes()
                return data if larger == height else self._reduce(data, None, identity, height)
        data = self._reduce(self._read(row), recorded_size(row), identity, max(height, _FIRST))
        return data if height >= _FIRST else self._reduce(data, None, identity, height)

    def _read(self, row: dict[str, Any]) -> bytes:
        if row["size"] is None and row["reason"]:
            raise UnreadableImageError(row["reason"])
        with OriginalsReader(self._named) as reader:
            return read_picture(row, reader)

    def _reduce(self, data: bytes, recorded: tuple[int, int] | None, identity: str, height: int) -> bytes:
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
