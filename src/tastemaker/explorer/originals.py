"""The encoded bytes of a picture, by the place that its row has recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.shards import ShardReader, open_shard
from tastemaker.scores.schema import original_name

CHANGED = "the file has changed since it was scored"


class OriginalReader:
    """Reads pictures from shards and loose files; keeps the last shard open, so rows of one shard go together."""

    def __init__(self) -> None:
        self._path = ""
        self._reader: ShardReader | None = None

    def __enter__(self) -> OriginalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, row: Mapping[str, Any]) -> bytes:
        """Return the encoded bytes of the picture in a row with ``image_path``, ``shard``, ``offset`` and ``size``.

        Raises:
            UnreadableImageError: They were not recorded, or the file has changed in size since.
            OSError: The file cannot be read.
        """
        if row["size"] is None:
            raise UnreadableImageError("where it lies was not recorded")
        path = original_name(row["shard"] or row["image_path"])
        if not row["shard"] and os.path.getsize(path) != row["size"]:
            raise UnreadableImageError(CHANGED)
        if path != self._path or self._reader is None:
            self._close()
            self._path, self._reader = path, open_shard(path)
        data = self._reader.read_at(row["offset"] or 0, row["size"])
        if len(data) != row["size"]:
            raise UnreadableImageError(CHANGED)
        return data

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._path, self._reader = "", None
