"""The shape in which a picture is seen: tables have the size as it is stored, and the EXIF orientation beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

LYING = 5
"""From this EXIF orientation on, a picture is seen as high as it is stored wide."""


def upright_size(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the width and height in which the picture of a row is seen.

    Args:
        row: With ``width``, ``height`` and ``orientation``, each of which may be None.
    """
    width, height = row["width"], row["height"]
    return (height, width) if (row["orientation"] or 1) >= LYING else (width, height)


def aspect_sql(columns: Collection[str]) -> str:
    """Return SQL for width / height as a picture is seen, null where it is not known.

    Args:
        columns: Of the table, with ``width`` and ``height``.
    """
    ratio = "width::DOUBLE / nullif(height, 0)"
    if "orientation" not in columns:
        return ratio
    return f"CASE WHEN orientation >= {LYING} THEN height::DOUBLE / nullif(width, 0) ELSE {ratio} END"
