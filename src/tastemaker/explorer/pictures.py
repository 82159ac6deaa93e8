"""Small pictures inside a page: read from the originals, reduced, and made to fit the room that there is."""

from __future__ import annotations

import base64
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from tastemaker.errors import UnreadableImageError
from tastemaker.explorer.reduced import encode_jpeg, reduce_image

HEIGHTS = (320, 256, 200, 160, 128, 96, 64)
"""Heights of a small picture, in pixels, largest first: twice what a page shows, for screens of high density."""

MAX_SLOT_ASPECT, MIN_SLOT_ASPECT = 4.5, 0.5
"""Width by height of the place that a picture gets. Wider and taller ones are shown whole within it."""

_QUALITY = 80


@dataclass(frozen=True, slots=True)
class Source:
    """Where the encoded bytes of a picture come from, and what is known of it.

    Attributes:
        read: Returns the bytes; raises `UnreadableImageError` or `OSError` where they cannot be had.
        size: (width, height) in which it is seen: the shape of its place where there is none. None where not known.
        recorded: As `reduce_image` takes it.
        uses: How often the page shows it; each time it takes its room.
    """

    read: Callable[[], bytes]
    size: tuple[int, int] | None = None
    recorded: tuple[int, int] | None = None
    uses: int = 1


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


def make_thumbnails(sources: Mapping[int, Source], max_bytes: int, threads: int = 2) -> Iterator[tuple[int, Thumbnail]]:
    """Yield a small picture for each source, in order; together they stay below ``max_bytes`` as data URIs.

    What is left is shared out among those that are still to come, so a few pictures are large and many are small.
    The same sources give the same bytes.

    Args:
        sources: Number -> source. Reading goes in this order.
        max_bytes: For all of them together, as base64.
        threads: Pictures that are decoded at the same time.
    """
    left = max_bytes * 3 // 4  # base64 makes 4 characters of 3 bytes
    waiting = sum(source.uses for source in sources.values())
    for number, reduced in _reduce_all(sources, threads):
        uses = sources[number].uses
        if isinstance(reduced, str):
            thumbnail = _placeholder(sources[number], reduced)
        else:
            thumbnail = encode_thumbnail(reduced, left // waiting)
        left, waiting = left - uses * (len(thumbnail.data) + 2), waiting - uses  # base64 fills up to threes
        yield number, thumbnail


def encode_thumbnail(image: Image.Image, max_bytes: int) -> Thumbnail:
    """Return the largest JPEG of an image that fits into so many bytes.

    Where even the smallest does not, it is the place of the picture, with the reason.
    """
    for height in HEIGHTS:
        small = _fit(image, height)
        data = encode_jpeg(small, _QUALITY)
        if len(data) <= max_bytes:
            return Thumbnail(data, small.width, small.height)
    return Thumbnail(b"", image.width, image.height, "left out: there are too many pictures for one page")


def _reduce_all(sources: Mapping[int, Source], threads: int) -> Iterator[tuple[int, Image.Image | str]]:
    """Yield each picture reduced to what a page can use, or why there is none; few are in memory at a time.

    They are read here, one after another, and decoded in threads.
    """
    waiting: deque[tuple[int, Future[Image.Image | str]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for number, source in sources.items():
            waiting.append((number, pool.submit(_reduce, _read(source), source.recorded)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        for number, future in waiting:
            yield number, future.result()


def _read(source: Source) -> bytes | str:
    """Return the encoded bytes, or why there are none."""
    try:
        return source.read()
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


def _fit(image: Image.Image, height: int) -> Image.Image:
    """Return a copy that fits into the place of this height; a smaller one stays as large as it is."""
    small = image.copy()
    small.thumbnail(_box(height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small


def _box(height: int) -> tuple[int, int]:
    return round(height * MAX_SLOT_ASPECT), height


def _placeholder(source: Source, problem: str) -> Thumbnail:
    width, height = source.size or (0, 0)
    if width < 1 or height < 1:
        width, height = 4, 3
    return Thumbnail(b"", width, height, problem)
