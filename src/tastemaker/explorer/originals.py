"""The bytes of originals, by the place that is recorded in their rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.shards import Member
from tastemaker.scores.schema import original_name
from tastemaker.tasks import ImageObject

MAX_SIDECAR_BYTES = 65_536
"""Of a longer sidecar, only the beginning is shown."""


def read_picture(row: dict[str, Any], options: Mapping[str, Any]) -> bytes:
    """Return the encoded bytes of the picture in a row.

    Args:
        row: With ``image_path``, ``shard``, ``position`` and ``size``.
        options: For URLs, as fsspec takes them.

    Raises:
        UnreadableImageError: The source is gone, or has changed since it was scored.
    """
    if row["size"] is None:
        raise UnreadableImageError(row["reason"] or "the row does not say where the picture lies")
    path = original_name(row["image_path"])
    return _read(original_name(row["shard"] or ""), path, row["position"] or 0, row["size"], options)


def read_sidecar(row: dict[str, Any], sidecar: dict[str, Any], options: Mapping[str, Any]) -> str:
    """Return the text of a sidecar, its beginning where it is long; what is no text is told by its size.

    Raises:
        UnreadableImageError: The source is gone, or has changed.
    """
    size = min(sidecar["size"], MAX_SIDECAR_BYTES)
    data = _read(original_name(row["shard"] or ""), original_name(sidecar["member"]), sidecar["offset"], size, options)
    if b"\0" in data:
        return f"{sidecar['size']:,} bytes, no text"
    text = data.decode("utf-8", "replace")
    return text if size == sidecar["size"] else f"{text}\n... ({sidecar['size']:,} bytes in all)"


def stamp(row: dict[str, Any]) -> str:
    """Return what identifies the bytes of a row's picture: their place, and when a local file was changed last."""
    source = original_name(row["shard"] or row["image_path"])
    try:
        status = os.stat(source)
        changed = f"{status.st_mtime_ns}/{status.st_size}"
    except (OSError, ValueError):
        changed = ""  # not on this machine, or gone
    return f"{source}\n{row['image_path']}\n{row['position']}\n{row['size']}\n{changed}"


def _read(shard: str, path: str, position: int, size: int, options: Mapping[str, Any]) -> bytes:
    image = ImageObject(
        image_path=path, shard=shard, member=Member(path, position, size), storage_options=dict(options)
    )
    data = image.read_encoded()
    if len(data) != size:
        raise UnreadableImageError(f"{shard or path} has changed since it was scored")
    return data
