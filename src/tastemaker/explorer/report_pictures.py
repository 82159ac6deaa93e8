"""The small pictures inside a report: together they fit the room that there is."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.upright import upright_size
from tastemaker.scores.small import (
    encode_jpeg,
    fit_into,
    read_picture,
    recorded_size,
    reduce_image,
    resize_image,
)
from tastemaker.scores.sources import OriginalsReader

Row = Mapping[str, Any]

HEIGHTS = (320, 256, 200, 160, 128, 96, 64)
"""Heights of a small picture in pixels, largest first: twice what a page shows, for screens of high density."""

MAX_SLOT_ASPECT, MIN_SLOT_ASPECT = 4.5, 0.5
"""Width by height of the place that a picture gets. Wider and taller ones are shown whole within it."""

_QUALITY = 80


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture, or why there is none.

    Attributes:
        data: JPEG bytes; empty where there is none.
        width: Of the small picture, in pixels; of its place where there is none.
        height: As ``width``.
        problem: Why there is none; empty if there is one.
    """

    data: bytes
    width: int
    height: int
    problem: str = ""

    @property
    def aspect(self) -> float:
        """Width by height of the place that it gets."""
        return min(max(self.width / self.height, MIN_SLOT_ASPECT), MAX_SLOT_ASPECT)

    @property
    def is_extreme(self) -> bool:
        """Whether the picture is wider or taller than its place, and does not fill it."""
        return not MIN_SLOT_ASPECT <= self.width / self.height <= MAX_SLOT_ASPECT

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.data).decode()}"


def make_thumbnails(
    rows: Mapping[int, Row], uses: Mapping[int, int], max_bytes: int, reader: OriginalsReader, threads: int = 2
) -> dict[int, Thumbnail]:
    """Return a small picture for each row; together they stay below ``max_bytes`` as data URIs.

    What is left is shared out among those that are still to come, so a few pictures are large and many are small.
    The same rows give the same bytes.

    Args:
        rows: Number -> row, with what names the original and its size. They are read in the order of their places.
        uses: Number -> how often the page shows it; each time it takes its room.
        max_bytes: For all of them together, as base64.
        reader: Reads the originals.
        threads: Pictures that are decoded at the same time.
    """
    left = max_bytes * 3 // 4  # base64 makes 4 characters of 3 bytes
    waiting = sum(uses[number] for number in rows)
    made = {}
    for number, reduced in _reduce_all(rows, reader, threads):
        if isinstance(reduced, str):
            width, height = upright_size(rows[number])
            thumbnail = Thumbnail(b"", *((width, height) if width and height else (4, 3)), reduced)
        else:
            thumbnail = _encode(reduced, left // waiting)
        left -= uses[number] * (len(thumbnail.data) + 2)  # base64 fills up to threes
        waiting -= uses[number]
        made[number] = thumbnail
    return made


def _encode(image: Image.Image, max_bytes: int) -> Thumbnail:
    """Return the largest JPEG of an image that fits into so many bytes; only its place where none does."""
    for height in HEIGHTS:
        small = resize_image(image, fit_into(image.size, _box(height)))
        data = encode_jpeg(small, _QUALITY)
        if len(data) <= max_bytes:
            return Thumbnail(data, small.width, small.height)
    return Thumbnail(b"", image.width, image.height, "left out: there are too many pictures for one page")


def _reduce_all(
    rows: Mapping[int, Row], reader: OriginalsReader, threads: int
) -> Iterator[tuple[int, Image.Image | str]]:
    """Yield each picture reduced to what a page can use, or why there is none.

    Originals are read here, one after another and a few at a time, and decoded in threads.
    """
    numbers = sorted(rows, key=lambda n: (rows[n]["shard"] or rows[n]["image_path"], rows[n]["offset"] or 0))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(numbers), 4 * threads):
            some = numbers[start : start + 4 * threads]
            data = [_read(rows[number], reader) for number in some]
            yield from zip(some, pool.map(_reduce, data, map(recorded_size, map(rows.__getitem__, some))), strict=True)


def _read(row: Row, reader: OriginalsReader) -> bytes | str:
    """Return the encoded bytes, or why there are none."""
    try:
        return read_picture(row, reader)
    except UnreadableImageError as error:
        return str(error)
    except FileNotFoundError:
        return "the file is gone"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else f"it cannot be read: {error}"


def _reduce(data: bytes | str, recorded: tuple[int, int] | None) -> Image.Image | str:
    if isinstance(data, str):
        return data
    try:
        return reduce_image(data, *_box(HEIGHTS[0]), recorded=recorded)
    except UnreadableImageError as error:
        return str(error)


def _box(height: int) -> tuple[int, int]:
    return round(height * MAX_SLOT_ASPECT), height
