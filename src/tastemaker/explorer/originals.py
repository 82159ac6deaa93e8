"""The originals of rows for pages: read by the reader of selections, and in a few words why there is none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from tastemaker.errors import UnreadableImageError
from tastemaker.scores.schema import original_name
from tastemaker.scores.sources import OriginalsReader, SkippedError
from tastemaker.scores.table import ScoreTable
from tastemaker.storage import is_remote

MAX_SIDECAR_BYTES = 2**20
"""A longer sidecar is told by its size."""

_SHOWN_CHARACTERS = 65_536
"""Of a long sidecar, the beginning is shown."""

CHANGED = "the file has changed since it was scored"


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


def read_sidecar(row: Mapping[str, Any], number: int, reader: OriginalsReader) -> str:
    """Return the text of a sidecar, its beginning where it is long; what is no text, or too long, is told by its size.

    Args:
        row: With `tastemaker.scores.sources.NEEDED_COLUMNS`.
        number: Which of its sidecars.
        reader: Reads it.

    Raises:
        UnreadableImageError: It is gone, or has changed.
    """
    size = row["sidecars"][number]["size"]
    if size > MAX_SIDECAR_BYTES:
        return f"{size:,} bytes, too long to show"
    data = reader.read_sidecar(row, number)
    if b"\0" in data:
        return f"{size:,} bytes, no text"
    text = data.decode("utf-8", "replace")
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}\n... ({size:,} bytes in all)"


def stamp(row: Mapping[str, Any]) -> str:
    """Return what identifies the bytes of a row's picture: place and hash, and when a local file was changed last."""
    source = original_name(row["shard"] or row["image_path"])
    try:
        status = os.stat(source)
        changed = f"{status.st_mtime_ns}/{status.st_size}"
    except (OSError, ValueError):
        changed = ""  # not on this machine, or gone
    return "\n".join(map(str, (source, row["image_path"], row["offset"], row["size"], row["xxh3"], changed)))


def recorded_size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the width and height that a picture has to have: of rows without a hash, by which it is known already."""
    return (row["width"], row["height"]) if row["width"] and row["height"] and not row["xxh3"] else None


def table_stamp(table: ScoreTable) -> str:
    """Return what changes when the table does, for addresses that browsers may remember."""
    digest = hashlib.sha256()
    for source in table.sources:
        changed = 0 if is_remote(source.path) else os.stat(source.path).st_mtime_ns
        digest.update(f"{source.path}\n{source.rows}\n{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]
