"""Everything that is known of one picture: its columns, sidecars and technical signals."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.upright import upright_size
from tastemaker.imaging.cameras import DEVELOPED, PREVIEW
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.scores.named import NamedPlaces
from tastemaker.scores.sources import OriginalsReader

_SHOWN_ELSEWHERE = {"caption", "json", "metadata", "sidecars", "kept", *SIGNAL_NAMES}
_MAX_TEXT = 20_000
"""Characters of a text that are shown."""

_SLOW_S = 0.3
"""Exposure times below are shown as a fraction, as cameras do."""

_RAW_PIXELS = {PREVIEW: "the camera's preview, not the raw", DEVELOPED: "the raw, developed at half its size"}

MAX_SIDECAR_BYTES = 2**20
"""A longer sidecar is told by its size."""


def describe_picture(row: dict[str, Any], named: NamedPlaces) -> dict[str, Any]:
    """Return a row as the page shows it: groups of names and values, all of them text.

    Args:
        row: With all its columns.
        named: Where sidecars may be read.
    """
    with OriginalsReader(named) as reader:
        sidecars = [
            [sidecar["extension"], _sidecar_text(row, number, reader)]
            for number, sidecar in enumerate(row.get("sidecars") or ())
        ]
    return {
        "caption": row.get("caption") or "",
        "shot": describe_shot(row),
        "columns": [
            [name, _shown(value)] for name, value in row.items() if name not in _SHOWN_ELSEWHERE and value != []
        ],
        "signals": [[name, f"{row[name]:.3f}"] for name in SIGNAL_NAMES if row.get(name) is not None],
        "sidecars": sidecars,
        "metadata": _pretty(row.get("metadata")),
    }


def describe_cell(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the grid shows of a row: its names, and the size of the picture as it stands upright."""
    width, height = upright_size(row)
    name = row["image_id"] or row["image_path"] or ""
    return {
        "name": name,
        "file": os.path.basename(row["image_path"] or "") or name,
        "folder": os.path.dirname(row["image_id"] or ""),
        "alt": row["caption"] or "",
        "width": width,
        "height": height,
    }


def describe_shot(row: Mapping[str, Any]) -> list[str]:
    """Return in up to four lines when, with what and how a picture was taken, and how large it is at 100%.

    Example:
        >>> describe_shot({"camera": "NIKON D850", "exposure_time_s": 0.004, "aperture_f": 2.8, "iso": 400})
        ['NIKON D850', '1/250 s · f/2.8 · ISO 400']
        >>> describe_shot({"width": 1616, "height": 1080, "orientation": 8, "metadata": '{"raw_pixels": "preview"}'})
        ["1080 × 1616 pixels · the camera's preview, not the raw"]
    """
    taken, time, bias = row.get("captured_at"), row.get("exposure_time_s"), row.get("exposure_bias_ev")
    width, height = upright_size({"width": None, "height": None, "orientation": None} | dict(row))
    exposure = [
        f"{row['focal_length_mm']:.4g} mm" if row.get("focal_length_mm") else "",
        f"{f'1/{1 / time:.0f}' if time < _SLOW_S else f'{time:.3g}'} s" if time else "",
        f"f/{row['aperture_f']:.2g}" if row.get("aperture_f") else "",
        f"ISO {row['iso']}" if row.get("iso") else "",
        f"{bias:+.2g} EV" if bias else "",
    ]
    lines = (
        [f"{taken.day} {taken:%B %Y, %H:%M:%S}" if taken else ""],
        [row.get("camera") or "", row.get("lens") or ""],
        exposure,
        [f"{width} × {height} pixels" if (width and height) else "", _pixels_of_raw(row.get("metadata"))],
    )
    return [line for parts in lines if (line := " · ".join(filter(None, parts)))]


def _pixels_of_raw(metadata: str | None) -> str:
    """Return where the pixels of a raw came from; empty for other pictures."""
    with suppress(ValueError, RecursionError, AttributeError):
        return _RAW_PIXELS.get(json.loads(metadata or "{}").get("raw_pixels"), "")
    return ""


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
