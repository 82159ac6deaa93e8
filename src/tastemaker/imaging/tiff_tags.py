"""The tags of TIFF structures: TIFF files, most camera raws, and EXIF blocks. Values are read only when asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MAKE, MODEL, ORIENTATION, SUB_DIRECTORIES, XMP = 271, 272, 274, 330, 700
RATING, RATING_PERCENT, EXIF, GPS, DNG_VERSION = 0x4746, 0x4749, 0x8769, 0x8825, 50706
PHOTOMETRIC = 262

_MAX_DIRECTORIES = 32
_MAX_TAGS = 1024
"""No camera writes so many; a damaged file may say anything."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
_NUMBERS = {**_CODES, 5: "II", 10: "ii", 11: "f", 12: "d"}


@dataclass(slots=True)
class TiffDirectory:
    """The tags of one image of a TIFF structure.

    Attributes:
        data: The whole structure.
        order: ``<`` or ``>``, as `struct` has it.
        tags: Tag -> type, count, and where its value lies. Types that are not needed here are left out.
        following: Where the next directory begins; 0 behind the last.
    """

    data: bytes
    order: str
    tags: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    following: int = 0

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a value; empty where there is none, or not all of it."""
        kind, count, at = self.tags.get(tag, (1, 0, 0))
        value = self.data[at : at + _SIZES[kind] * count]
        return value if len(value) == _SIZES[kind] * count else b""

    def integers(self, tag: int) -> tuple[int, ...]:
        """Return the numbers of a value; none where there are none."""
        value, kind = self.raw(tag), self.tags.get(tag, (1, 0, 0))[0]
        if kind not in _CODES:
            return ()
        return struct.unpack(f"{self.order}{len(value) // _SIZES[kind]}{_CODES[kind]}", value)

    def number(self, tag: int) -> float | None:
        """Return the first number of a value, of any type; None where there is none, or its denominator is 0."""
        value, kind = self.raw(tag), self.tags.get(tag, (1, 0, 0))[0]
        if kind not in _NUMBERS or not value:
            return None
        numerator, *denominator = struct.unpack_from(self.order + _NUMBERS[kind], value)
        if not denominator:
            return float(numerator)
        return float(numerator / denominator[0]) if denominator[0] else None

    def text(self, tag: int) -> str:
        """Return a value as text, up to its first zero. Bytes that are no UTF-8 become U+FFFD."""
        return self.raw(tag).partition(b"\0")[0].decode("utf-8", "replace").strip()


def read_directories(data: bytes) -> Iterator[TiffDirectory]:
    """Yield the directories of a TIFF structure, each before those below it. What is damaged ends the reading.

    Example:
        >>> list(read_directories(b"no TIFF"))
        []
    """
    head = data[:8]
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return
    waiting, seen = [struct.unpack(f"{order}I", head[4:])[0]], set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        at = waiting.pop(0)
        if at in seen or not 0 < at < len(data) - 2:
            continue
        seen.add(at)
        directory = _read_directory(data, order, at)
        yield directory
        waiting += [directory.following, *directory.integers(SUB_DIRECTORIES)[:_MAX_DIRECTORIES]]


def directories_below(main: TiffDirectory) -> Iterator[TiffDirectory]:
    """Yield the directories of the exposure and of the position, which the first directory of an EXIF block names."""
    for tag in (EXIF, GPS):
        for at in main.integers(tag)[:1]:
            if 0 < at < len(main.data) - 2:
                yield _read_directory(main.data, main.order, at)


def _read_directory(data: bytes, order: str, at: int) -> TiffDirectory:
    directory = TiffDirectory(data, order)
    count = min(struct.unpack(f"{order}H", data[at : at + 2])[0], _MAX_TAGS)
    block = data[at + 2 : at + 2 + 12 * count + 4]
    for entry in range(0, min(12 * count, len(block) - 11), 12):
        tag, kind, number, value = struct.unpack_from(f"{order}HHII", block, entry)
        if kind in _SIZES:
            is_inline = _SIZES[kind] * number <= 4
            directory.tags.setdefault(tag, (kind, number, at + 2 + entry + 8 if is_inline else value))
    if len(block) == 12 * count + 4:
        directory.following = struct.unpack_from(f"{order}I", block, 12 * count)[0]
    return directory
