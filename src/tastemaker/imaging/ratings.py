"""The star rating that a picture has: in a sidecar, in its own XMP, or in its EXIF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tastemaker.imaging.embedded import Embedded, read_embedded
from tastemaker.imaging.xmp import read_rating


def find_rating(embedded: Embedded, sidecars: Mapping[str, bytes], extension: str) -> int | None:
    """Return the rating of a picture: -1 (rejected), 0 (no stars), 1 to 5; None where nothing says.

    The first that has one counts: ``<whole name>.xmp``, ``<stem>.xmp``, the XMP inside the file, its EXIF. Programs
    that write sidecars leave what is inside the file as it was, so the sidecar is the newer one.

    Args:
        embedded: What the file says of itself.
        sidecars: What follows the stem or the key (``jpg.xmp``, ``xmp``) -> bytes.
        extension: What follows it in the picture's own name.
    """
    lower = {name.lower(): content for name, content in sidecars.items()}
    whole, stem = f"{extension}.xmp".lower(), f"{extension.rpartition('.')[0]}.xmp".lower().lstrip(".")
    own = extension.rpartition(".")[2]
    for name, belongs_to in ((whole, ""), (stem, own)):
        rating = read_rating(lower[name], belongs_to) if name in lower else None
        if rating is not None:
            return rating
    rating = read_rating(embedded.xmp)
    return embedded.rating if rating is None else rating


def file_rating(path: Path) -> int | None:
    """Return the rating of a picture on disk, as `find_rating` does.

    Raises:
        OSError: A file cannot be read.
    """
    sidecars: dict[str, bytes] = {}
    for stem in (path.name, path.stem):
        for extension in (".xmp", ".XMP"):
            sidecar = path.with_name(stem + extension)
            if sidecar.is_file():
                sidecars.setdefault(f"{stem}{extension}"[len(path.stem) + 1 :].lower(), sidecar.read_bytes())
    return find_rating(read_embedded(path.read_bytes()), sidecars, path.suffix[1:])
