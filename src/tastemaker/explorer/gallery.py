"""One self-contained HTML page with pictures in the order of a score. It opens from disk and loads nothing."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tastemaker.imaging.decode import decode_image
from tastemaker.scores.files import write_whole

THUMBNAIL_HEIGHT = 240
"""Height of a picture in the page, in pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a gallery.

    Attributes:
        encoded: The image file's bytes.
        name: Shown under it, and read out in its place.
        score: Shown under it.
        is_kept: Whether it passes the cut.
    """

    encoded: bytes
    name: str
    score: float
    is_kept: bool


def write_gallery(path: Path, title: str, finding: str, note: str, pictures: Iterable[Picture]) -> None:
    """Write the page: pictures uncropped in justified rows, best first, with a line where the cut is.

    Args:
        path: The page's file.
        title: Its heading.
        finding: One sentence below it: what the page shows.
        note: A paragraph at its end: where the scores come from.
        pictures: In the order in which they are shown.
    """
    items: list[str] = []
    was_kept = True
    for rank, picture in enumerate(pictures, 1):
        if was_kept and not picture.is_kept and rank > 1:
            items.append('<li class="cut" role="separator"><span>cut-off</span></li>')
        was_kept = picture.is_kept
        items.append(_figure(rank, picture))
    page = _PAGE.format(
        title=html.escape(title), finding=html.escape(finding), note=html.escape(note), items="\n".join(items)
    )
    write_whole(path, page.encode())


def _figure(rank: int, picture: Picture) -> str:
    image = Image.fromarray(decode_image(picture.encoded).pixels)
    image.thumbnail((10 * THUMBNAIL_HEIGHT, THUMBNAIL_HEIGHT), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    source = base64.b64encode(file.getvalue()).decode()
    name = html.escape(picture.name)
    aspect = image.width / image.height
    return (
        f'<li class="{"kept" if picture.is_kept else "dropped"}" style="--aspect:{aspect:.4f}">'
        f'<figure><img src="data:image/jpeg;base64,{source}" width="{image.width}" height="{image.height}" '
        f'alt="{name}, score {picture.score:.3f}"><figcaption><b>{picture.score:.3f}</b> '
        f"<span>{rank}. {name}</span></figcaption></figure></li>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark;
  --ground: #fafafa; --ink: #1b1b1b; --quiet: #6a6a6a; --line: #d9d9d9; --accent: #1d4f91; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: #141414; --ink: #ececec; --quiet: #9a9a9a; --line: #333; --accent: #e0a33c; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; padding: 40px max(24px, 4vw) 64px; background: var(--ground); color: var(--ink);
  font: 13px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }}
header {{ padding-bottom: 20px; margin-bottom: 24px; border-bottom: 1px solid var(--line); }}
h1 {{ margin: 0 0 4px; font-size: 20px; font-weight: 600; line-height: 1.3; }}
p {{ margin: 0; max-width: 72ch; }}
ol {{ list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 20px 12px; }}
li {{ flex: calc(var(--aspect) * 100) 1 calc(var(--aspect) * 190px); max-width: calc(var(--aspect) * 240px); }}
figure {{ margin: 0; }}
img {{ display: block; width: 100%; height: auto; aspect-ratio: var(--aspect); background: var(--line); }}
figcaption {{ padding-top: 4px; display: flex; gap: 8px; }}
figcaption span {{ color: var(--quiet); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
b {{ font-weight: 600; }}
.kept b {{ color: var(--accent); }}
.cut {{ flex: 1 0 100%; max-width: none; display: flex; align-items: center; gap: 12px; color: var(--accent); }}
.cut::before, .cut::after {{ content: ""; flex: 1; border-top: 1px solid var(--accent); }}
footer {{ margin-top: 40px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--quiet); }}
@media (max-width: 600px) {{ li {{ flex-basis: calc(var(--aspect) * 105px); }} }}
@media print {{ body {{ padding: 0; }} li {{ break-inside: avoid; }} }}
</style>
<header><h1>{title}</h1><p>{finding}</p></header>
<main><ol>
{items}
</ol></main>
<footer><p>{note}</p></footer>
</html>
"""
