"""Everything that is known of one picture: its columns, sidecars and technical signals."""

from __future__ import annotations

import json
from typing import Any

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.scores.named import NamedPlaces
from tastemaker.scores.sources import OriginalsReader

_SHOWN_ELSEWHERE = {"caption", "json", "metadata", "sidecars", "kept", *SIGNAL_NAMES}
_MAX_TEXT = 20_000
"""Characters of a text that are shown."""

MAX_SIDECAR_BYTES = 2**20
"""A longer sidecar is told by its size."""


def describe_picture(row: dict[str, Any], named: NamedPlaces) -> dict[str, Any]:
    """Return a row as the page shows it: groups of names and values, all of them text.

    Args:
        row: With all its columns.
        named: Where sidecars may be read.
    """
    return {
        "caption": row.get("caption") or "",
        "columns": [
            [name, _shown(value)] for name, value in row.items() if name not in _SHOWN_ELSEWHERE and value != []
        ],
        "signals": [[name, f"{row[name]:.3f}"] for name in SIGNAL_NAMES if row.get(name) is not None],
        "sidecars": _read_sidecars(row, named),
        "metadata": _pretty(row.get("metadata")),
    }


def _read_sidecars(row: dict[str, Any], named: NamedPlaces) -> list[list[str]]:
    """Return extension and text of each sidecar."""
    extensions = [sidecar["extension"] for sidecar in row.get("sidecars") or ()]
    with OriginalsReader(named) as reader:
        return [[extension, _sidecar_text(row, number, reader)] for number, extension in enumerate(extensions)]


def _sidecar_text(row: dict[str, Any], number: int, reader: OriginalsReader) -> str:
    """Return the text of a sidecar; what is no text, too long or gone is told in a few words."""
    sidecar = row["sidecars"][number]
    if sidecar["size"] > MAX_SIDECAR_BYTES:
        return f"{sidecar['size']:,} bytes, too long to show"
    try:
        data = reader.read_sidecar(row, number)
    except (UnreadableImageError, OSError) as error:
        return f"cannot be read: {error}"
    if b"\0" in data:
        return f"{sidecar['size']:,} bytes, no text"
    text = data.decode("utf-8", "replace")
    if sidecar["extension"].rpartition(".")[2].lower() == "json":
        return _pretty(text)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}\n... ({sidecar['size']:,} bytes in all)"


def _pretty(text: str | None) -> str:
    """Return JSON with one entry a line; other text, and JSON that is nested without end, as it is."""
    try:
        pretty = json.dumps(json.loads(text), indent=2, ensure_ascii=False)[:_MAX_TEXT] if text else ""
    except (ValueError, RecursionError):
        return (text or "")[:_MAX_TEXT]
    return pretty.encode("utf-8", "backslashreplace").decode()  # half an emoji, as of a cut caption


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever a column holds
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)[:_MAX_TEXT]
