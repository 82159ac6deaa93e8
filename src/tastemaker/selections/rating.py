"""Stars for what is selected: into sidecars beside the originals, or into the copies that a selection makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.errors import MetadataError
from tastemaker.imaging.jpeg_metadata import embed_rating
from tastemaker.scores.copies import Members
from tastemaker.scores.marks import REJECTED, Mark, Marks, marks_path
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.edits import Edits, TakenBack
from tastemaker.selections.selection import Selection, choose_rows
from tastemaker.selections.stars import DEFAULT_BOUNDS, Rating, StarsReport, stars_by_percentile, write_xmp_sidecars

_JPEG_MARK = b"\xff\xd8\xff"


@dataclass(frozen=True)
class StarOptions:
    """How scores become stars.

    Attributes:
        bounds: The share of all scored images of the table that gets 5 stars, 4 or more, and so on. Empty for no stars
            by scores: only what a person said in the explorer is written.
        overwrite: Replace ratings that are there.
    """

    bounds: Sequence[float] = DEFAULT_BOUNDS
    overwrite: bool = False


def write_stars(
    table: ScoreTable, selection: Selection, options: StarOptions | None = None, *, dry_run: bool = False
) -> StarsReport:
    """Write stars into XMP sidecars beside the selected originals, and return what was done.

    Stars, rejections and colours from the explorer are written as they are, over what the file says. Other images get
    stars by their scores: how many depends on all scores of the table, not on what else is selected.

    Args:
        table: The rows.
        selection: Which images.
        options: How scores become stars; the column is the selection's ``rank_by``.
        dry_run: Write nothing.

    Raises:
        ConfigurationError: Options make no sense, or selected images lie in tars.
    """
    options = options or StarOptions()
    rows = choose_rows(table, selection).rows
    rating_of = _choose_ratings(table, selection.rank_by, options)
    known = [name for name in ("image_path", "shard", "size", "xxh3") if name in table.columns]
    return write_xmp_sidecars(
        table.take(rows, known),
        map(rating_of, rows.tolist()),
        table.originals,
        _edits_of(table),
        overwrite=options.overwrite,
        dry_run=dry_run,
    )


def take_back_stars(table: ScoreTable, *, dry_run: bool = False) -> TakenBack:
    """Take back everything that `write_stars` wrote for a table: sidecars are as they were, and new ones are gone.

    A sidecar that somebody changed since is left as it is.

    Args:
        table: The rows.
        dry_run: Change nothing.
    """
    return _edits_of(table).take_back(table.originals, dry_run=dry_run)


def _edits_of(table: ScoreTable) -> Edits:
    """Return the record of what was written beside a table's originals. It lies beside the ratings."""
    return Edits(marks_path(table).with_suffix(".stars.jsonl"))


def _choose_ratings(table: ScoreTable, rank_by: str | None, options: StarOptions) -> Callable[[int], Rating]:
    """Return what tells what a row is given: what a person said in the explorer, or else the stars of its score."""
    with closing(Marks(table)) as stored:
        marks = stored.current()
    by_score = stars_by_percentile(table.values(rank_by), options.bounds) if options.bounds else np.zeros(len(table))

    def rating_of(row: int) -> Rating:
        mark = marks.get(row, Mark())
        stars = REJECTED if mark.rejected else mark.stars or int(by_score[row])
        return Rating(stars, mark.is_rating, mark.label)

    return rating_of


class StarEmbedder:
    """Puts stars into the bytes of JPEGs that are about to be copied.

    Attributes:
        counts: ``embedded``, ``already_rated``, ``without_stars``, ``no_jpeg`` or ``failed`` -> images.
        problems: Path of an image -> why it could not be rated. Its copy is the original's bytes.
    """

    def __init__(self, table: ScoreTable, rank_by: str | None, options: StarOptions) -> None:
        self._rating_of, self._overwrite = _choose_ratings(table, rank_by, options), options.overwrite
        self.counts: Counter[str] = Counter()
        self.problems: dict[str, str] = {}

    def embed(self, row_id: int, row: Mapping[str, Any], members: Members) -> Members:
        """Return the members of a sample, the image first, with the stars of its row in it where it is a JPEG.

        An image that has a rating, inside or in a sidecar, stays as it is unless a person gave another one in the
        explorer, or ratings are to be replaced.
        """
        name, image = next(iter(members.items()))
        assert isinstance(image, bytes)
        rating = self._rating_of(row_id)
        overwrites = rating.by_hand or self._overwrite
        outcome = self._refuse(row, image, rating.stars, overwrites)
        if not outcome:
            try:
                rated = embed_rating(image, rating.stars, overwrite=overwrites, by_score=not rating.by_hand)
                outcome = "embedded" if rated != image else "already_rated"
                members = {**members, name: rated}
            except MetadataError as error:
                outcome = "failed"
                self.problems[row["image_path"]] = str(error)
        self.counts[outcome] += 1
        return members

    def _refuse(self, row: Mapping[str, Any], image: bytes, rating: int, overwrites: bool) -> str:
        """Return why nothing is to be embedded; empty where it is."""
        if image[:3] != _JPEG_MARK:
            return "no_jpeg"
        if rating == 0:
            return "without_stars"
        return "already_rated" if not overwrites and row.get("rating") else ""
