r"""Names on pages: each in a font of this machine that has its letters, and never a box in place of one.

A letter that no font has is written as Python writes it (``\u6771``), so that the name can still be read. So is one
that nobody would see, or that changes the order of the others.
"""

from __future__ import annotations

import os
import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont, features

FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "$WINDIR/Fonts",
    "~/AppData/Local/Microsoft/Windows/Fonts",
)
"""Where Linux, macOS and Windows keep fonts."""

_NO_LETTER, _UNASSIGNED = "\U0010ffff", "\u0378"
_JOINERS = "\u200c\u200d"


class Font:
    """A font in one size, and what it can write.

    Args:
        font: The font.
    """

    def __init__(self, font: ImageFont.FreeTypeFont) -> None:
        self.font = font
        self._plain = font.font_variant(layout_engine=ImageFont.Layout.BASIC)  # one that puts no circle below accents
        self._known: dict[str, bool] = {" ": True} | dict.fromkeys(_JOINERS, True)
        self._none = self._shape(_NO_LETTER)

    def has(self, letter: str) -> bool:
        """Return whether the font has a letter, and can write it among others."""
        if letter not in self._known:
            self._known[letter] = _is_visible(letter) and self.draws(letter)
        return self._known[letter]

    def draws(self, letter: str) -> bool:
        """Return whether the font has a shape of its own for a letter."""
        return self._shape(letter) != self._none

    def wrap(self, text: str, width: float, lines: int) -> str:
        """Return the text in lines of so many pixels, where it can be between words; what is left is three dots.

        Letters that the font lacks are escapes.
        """
        wrapped, line = [], ""
        for letter in text:
            piece = letter if self.has(letter) else letter.encode("ascii", "backslashreplace").decode()
            if line and self.font.getlength(line + piece) > width:
                words, _, word = line.rpartition(" ")
                wrapped.append(words or line)
                line = word if words else ""
            line += piece
        wrapped.append(line)
        if len(wrapped) > lines:
            wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][:-3] + "..."]
        return "\n".join(wrapped)

    def _shape(self, letter: str) -> tuple[bytes, tuple[int, int]]:
        mask, offset = self._plain.getmask2(letter)
        return bytes(mask), (int(offset[0]), int(offset[1]))


def draw_text(
    on: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    size: int,
    width: float,
    lines: int,
    folders: tuple[str, ...] = FONT_FOLDERS,
) -> None:
    """Write a text of any script onto a picture.

    Args:
        on: The picture.
        place: Its left upper corner.
        text: What is written.
        colour: Of the letters, RGB.
        size: Of the letters, in pixels.
        width: Of a line, in pixels.
        lines: So many at most.
        folders: Where fonts lie.
    """
    font = find_font(text, size, folders)
    on.text(place, font.wrap(text, width, lines), colour, font.font)


def find_font(text: str, size: int, folders: tuple[str, ...] = FONT_FOLDERS) -> Font:
    """Return the first font that has all letters of a text, or else the first of those that have most of them.

    Pillow's own comes first, and then those of the machine, short names before long ones: regular ones before bold.
    """
    letters, best = set(text), _open("", size)
    for path in _font_files(folders):
        if best and all(map(best.has, letters)):
            break
        font = _open(path, size)
        if font and (not best or sum(map(font.has, letters)) > sum(map(best.has, letters))):
            best = font
    assert best is not None
    return best


@cache
def _open(path: str, size: int) -> Font | None:
    """Return a font, Pillow's for an empty path; None where it cannot be used for text."""
    try:
        opened = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
        font = Font(opened) if isinstance(opened, ImageFont.FreeTypeFont) else None
    except (OSError, ValueError):
        return None
    return None if font is None or font.draws(_UNASSIGNED) else font  # it has a placeholder for every letter


@cache
def _font_files(folders: tuple[str, ...]) -> list[str]:
    found = [
        path
        for folder in folders
        for path in Path(os.path.expandvars(folder)).expanduser().rglob("*")
        if path.suffix.lower() in (".ttf", ".otf", ".ttc")
    ]
    return [str(path) for path in sorted(found, key=lambda path: (len(path.name), path.name))]


def _is_visible(letter: str) -> bool:
    """Return whether a letter is seen, and is right without a layout engine where there is none."""
    category = unicodedata.category(letter)
    is_simple = category[0] != "M" and unicodedata.bidirectional(letter) not in ("R", "AL", "AN")
    has_engine = bool(features.check_feature("raqm") and features.check_feature("fribidi"))
    return category[0] != "C" and (is_simple or has_engine)
