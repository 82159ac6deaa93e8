"""Stars for what is selected: into sidecars beside the originals, or into the copies that a selection makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import MetadataError
from tastemaker.imaging.jpeg_metadata import embed_rating
from tastemaker.scores.copies import Members
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.edits import Edits, TakenBack
from tastemaker.selections.marks import Marks, marks_path, ratings_of
from tastemaker.selections.selection import Selection, choose_rows
from tastemaker.selections.stars import DEFAULT_BOUNDS, StarsReport, stars_by_percentile, write_xmp_sidecars

_JPEG_MARK = b"\xff\xd8\xff"


@dataclass(frozen=True)
class StarOptions:
    """How scores become stars.

    Attributes:
        bounds: The share of all scored images of the table that gets 5 stars, 4 or more, and so on.
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
    stars, is_said, labels = _choose_stars(table, selection.rank_by, options)
    known = [name for name in ("image_path", "shard", "size", "xxh3") if name in table.columns]
    images = table.take(rows, known)
    said, overwrite = is_said[rows], options.overwrite
    edits = _edits_of(table)
    return write_xmp_sidecars(
        images,
        stars[rows],
        table.originals,
        edits,
        by_hand=said,
        labels={place: label for place, row in enumerate(rows.tolist()) if (label := labels.get(row))},
        overwrite=overwrite,
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


def _choose_stars(
    table: ScoreTable, rank_by: str | None, options: StarOptions
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_], dict[int, str]]:
    """Return the stars of each row, -1 for rejected; whether a person gave them in the explorer; row -> its label."""
    with closing(Marks(table)) as stored:
        marks = stored.current()
    labels = {row: mark.label for row, mark in marks.items() if mark.label}
    is_said = np.zeros(len(table), np.bool_)
    is_said[[row for row, mark in marks.items() if mark.is_rating]] = True
    by_score = stars_by_percentile(table.values(rank_by), options.bounds)
    return np.where(is_said, ratings_of(table, marks), by_score), is_said, labels


class StarEmbedder:
    """Puts stars into the bytes of JPEGs that are about to be copied.

    Attributes:
        counts: ``embedded``, ``already_rated``, ``without_stars``, ``no_jpeg`` or ``failed`` -> images.
        problems: Path of an image -> why it could not be rated. Its copy is the original's bytes.
    """

    def __init__(self, table: ScoreTable, rank_by: str | None, options: StarOptions) -> None:
        self._stars, self._is_said, _ = _choose_stars(table, rank_by, options)
        self._overwrites = self._is_said | options.overwrite
        self.counts: Counter[str] = Counter()
        self.problems: dict[str, str] = {}

    def embed(self, row_id: int, row: Mapping[str, Any], members: Members) -> Members:
        """Return the members of a sample, the image first, with the stars of its row in it where it is a JPEG.

        An image that has a rating, inside or in a sidecar, stays as it is unless a person gave another one in the
        explorer, or ratings are to be replaced.
        """
        name, image = next(iter(members.items()))
        assert isinstance(image, bytes)
        overwrites = bool(self._overwrites[row_id])
        outcome = self._refuse(row, image, rating := int(self._stars[row_id]), overwrites)
        if not outcome:
            try:
                by_score = not self._is_said[row_id]
                rated = embed_rating(image, rating, overwrite=overwrites, by_score=by_score)
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
