"""One self-contained HTML page with pictures in the order of a score. It opens from disk and loads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tastemaker import __version__
from tastemaker.explorer.page import Figure, render_page
from tastemaker.explorer.pictures import Source, make_thumbnails
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place

MAX_BYTES = 15 * 10**6
"""Of all pictures in a page."""


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
    shown = list(pictures)
    sources = {number: Source(lambda data=picture.encoded: data) for number, picture in enumerate(shown)}  # type: ignore[misc]
    figures = [
        Figure(small, f"{p.name}, score {p.score:.3f}", p.name, f"{p.score:.3f}", p.is_kept, rank)
        for rank, (p, (_, small)) in enumerate(zip(shown, make_thumbnails(sources, MAX_BYTES), strict=True), 1)
    ]
    page = render_page(
        "gallery.html",
        styles=("look.css", "page.css"),
        version=__version__,
        title=title,
        finding=finding,
        note=note,
        figures=figures,
    )
    OwnFiles.write_one_file(Place.of(path), page)
