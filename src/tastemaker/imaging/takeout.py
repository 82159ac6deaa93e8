"""Which picture a JSON file of Google Takeout belongs to. Takeout spells their names in several ways."""

from __future__ import annotations

import os
import re

from tastemaker.imaging.formats import EXTENSIONS

_SUFFIX = "supplemental-metadata"
_MOST_CHARACTERS = 46
"""Of the name of a JSON file without ``.json``: Takeout cuts what is longer."""

_NUMBER = re.compile(r"\(\d+\)$")
_EDITED = re.compile(r"-edited(\(\d+\))?$")


def picture_of(name: str) -> str | None:
    """Return the name of the picture that a JSON file describes, where Takeout spelt it in a way of its own.

    Example:
        >>> [picture_of(name) for name in ("a.jpg.suppl.json", "a.jpg(1).json", "a.jpg.supplemental-metadata(2).json")]
        ['a.jpg', 'a(1).jpg', 'a(2).jpg']
        >>> picture_of("a.jpg.json") is None  # a sidecar as others name them, too
        True
    """
    stem, extension = os.path.splitext(name)
    if extension.lower() != ".json":
        return None
    found = _NUMBER.search(stem)
    number = found[0] if found else ""
    title = stem.removesuffix(number)
    head, dot, tail = title.rpartition(".")
    if dot and _SUFFIX.startswith(tail) and _is_picture(head):
        title = head
    root, kind = os.path.splitext(title)
    return f"{root}{number}{kind}" if title != stem and _is_picture(title) else None


def names_of(picture: str) -> list[str]:
    """Return other names by which the JSON of a picture may be known: that of what was edited, and names that were cut.

    Example:
        >>> names_of("a-edited(1).jpg")
        ['a(1).jpg']
    """
    stem, extension = os.path.splitext(picture)
    names = [f"{stem[: found.start()]}{found[1] or ''}{extension}"] if (found := _EDITED.search(stem)) else []
    return [*names, *(name[:_MOST_CHARACTERS] for name in (picture, *names) if len(name) > _MOST_CHARACTERS)]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1][1:].lower() in EXTENSIONS
