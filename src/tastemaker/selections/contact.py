"""The contact sheet: selected pictures on pages of A4, each with its file's name, its score and its stars."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tastemaker.checks import check_positive
from tastemaker.errors import ConfigurationError, UnreadableImageError
from tastemaker.progress import Progress
from tastemaker.scores.locations import IntArray
from tastemaker.scores.marks import REJECTED, ratings_of
from tastemaker.scores.small import read_picture, recorded_size, reduce_image
from tastemaker.scores.sources import NEEDED_COLUMNS, OriginalsReader
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.lettering import draw_text, find_font

SHEETS = (".pdf",)

_DPI = 150
_PAGE = (1240, 1754)
_MARGIN, _GAP = 70, 20
_LETTER, _LINE, _LINES = 19, 25, 3
_STAR = 9
_INK, _QUIET, _LIGHT = (0, 0, 0), (90, 90, 90), (225, 225, 225)

_COLUMNS = ("row_id", *NEEDED_COLUMNS, "width", "height")


@dataclass(frozen=True)
class Grid:
    """How many pictures a page has, side by side and one below the other; at most 12 of each."""

    columns: int = 4
    rows: int = 5

    def __post_init__(self) -> None:
        for name in ("columns", "rows"):
            check_positive(name, getattr(self, name))
        if max(self.columns, self.rows) > 12:
            raise ConfigurationError(f"a page of {self.columns}x{self.rows} pictures: 12x12 is the most")

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Return the grid that ``4x5`` names, the columns first.

        Raises:
            ConfigurationError: It names none.
        """
        numbers = text.lower().split("x")
        if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers):
            raise ConfigurationError(f"{text!r} is no grid such as 4x5: columns, then rows")
        return cls(*map(int, numbers))


def write_contact_sheet(
    path: Path,
    title: str,
    table: ScoreTable,
    rows: IntArray,
    rank_by: str,
    grid: Grid,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, str]:
    """Write pictures into a PDF, the best first, and return path -> why, of those that could not be shown.

    Their places have the reason. The same rows and originals give the same bytes.

    Args:
        path: The file.
        title: Stands at the foot of each page.
        table: The rows.
        rows: Numbers of those that are meant, (n,).
        rank_by: The column or SQL expression whose values stand below the pictures.
        grid: How many a page has.
        on_progress: Called after each picture.
    """
    values, ratings = table.values(rank_by), ratings_of(table)
    order = rows[np.argsort(-values[rows], kind="stable")]
    pages = [
        order[start : start + grid.columns * grid.rows] for start in range(0, len(order), grid.columns * grid.rows)
    ]
    problems: dict[str, str] = {}
    known = [name for name in _COLUMNS if name == "row_id" or name in table.columns]
    done = 0
    with OriginalsReader(table.originals) as reader:
        for number, numbers in enumerate(pages or [order]):
            page = _Page(grid, f"{title}: page {number + 1} of {max(len(pages), 1)}")
            for place, row in enumerate(table.take(numbers, known).to_pylist()):
                picture = _picture(dict.fromkeys(_COLUMNS) | row, reader, page.box)
                if isinstance(picture, str):
                    problems[row["image_path"]] = picture
                page.draw(place, picture, _name(row), _say(values[row["row_id"]]), int(ratings[row["row_id"]]))
                done += 1
                if on_progress is not None:
                    on_progress(Progress(done, images_total=len(order)))
            page.save(path, is_first=number == 0, title=title)
    return problems


class _Page:
    """One page that is drawn.

    Attributes:
        box: Width and height that a picture has, in pixels.
    """

    def __init__(self, grid: Grid, foot: str) -> None:
        self._grid = grid
        self._image = Image.new("RGB", _PAGE, (255, 255, 255))
        self._draw = ImageDraw.Draw(self._image)
        self._cell = (
            (_PAGE[0] - 2 * _MARGIN + _GAP) // grid.columns,
            (_PAGE[1] - 2 * _MARGIN - _LINE) // grid.rows,
        )
        self.box = (self._cell[0] - _GAP, max(self._cell[1] - _LINES * _LINE - _GAP, 20))
        self._write((_MARGIN, _PAGE[1] - _MARGIN), foot, lines=1, width=_PAGE[0] - 2 * _MARGIN)

    def draw(self, place: int, picture: Image.Image | str, name: str, score: str, rating: int) -> None:
        """Draw a picture, or why there is none, with what stands below it."""
        left = _MARGIN + place % self._grid.columns * self._cell[0]
        top = _MARGIN + place // self._grid.columns * self._cell[1]
        if isinstance(picture, str):
            self._draw.rectangle((left, top, left + self.box[0] - 1, top + self.box[1] - 1), outline=_LIGHT)
            self._write((left + 8, top + 8), picture, lines=self.box[1] // _LINE, width=self.box[0] - 16)
        else:
            self._image.paste(picture, (left, top + self.box[1] - picture.height))
        below = top + self.box[1] + 5
        self._write((left, below), score, lines=1, colour=_INK)
        beside = left + find_font(score, _LETTER).font.getlength(f"{score}  ")
        if rating == REJECTED:
            self._write((beside, below), "rejected", lines=1)
        for n in range(max(rating, 0)):
            self._draw_star(beside + _STAR * (2.3 * n + 1), below + 11)
        self._write((left, below + _LINE), name, lines=2)

    def save(self, path: Path, *, is_first: bool, title: str) -> None:
        """Write the page behind those that are in the file."""
        dates = {"creationDate": None, "modDate": None}  # the same rows give the same bytes
        options: dict[str, Any] = {"title": title, **dates} if is_first else {"append": True, **dates}
        self._image.save(path, "PDF", resolution=_DPI, quality=88, **options)

    def _write(
        self,
        place: tuple[float, float],
        text: str,
        *,
        lines: int,
        width: int = 0,
        colour: tuple[int, int, int] = _QUIET,
    ) -> None:
        draw_text(self._draw, place, text, colour, _LETTER, width or self.box[0], lines)

    def _draw_star(self, x: float, y: float) -> None:
        points: Sequence[tuple[float, float]] = [
            (x + radius * sin(n * pi / 5), y - radius * cos(n * pi / 5))
            for n in range(10)
            for radius in [_STAR if n % 2 == 0 else 0.42 * _STAR]
        ]
        self._draw.polygon(points, _INK)


def _picture(row: dict[str, Any], reader: OriginalsReader, box: tuple[int, int]) -> Image.Image | str:
    """Return a row's picture as it fits into a box, or why there is none."""
    if row["size"] is None:
        return row["reason"] or "there is no picture"
    try:
        return reduce_image(read_picture(row, reader), *box, recorded=recorded_size(row))
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _name(row: dict[str, Any]) -> str:
    return os.path.basename(row["image_path"] or "") or row["image_id"] or ""


def _say(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}" if abs(value) >= 1.5 else f"{value:.3f}"
