"""What the page can ask: each question is a method that returns plain data. The server only carries it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.explorer import failures, slices
from tastemaker.explorer.details import describe_picture, read_row
from tastemaker.explorer.dimensions import Dimension, list_dimensions, shape_conditions
from tastemaker.explorer.exports import Exports
from tastemaker.explorer.index import Filter, ScoreIndex, describe_view
from tastemaker.explorer.lookup import RowLookup
from tastemaker.explorer.ratings import Picture, Rating, Ratings, ratings_path
from tastemaker.explorer.thumbnails import Thumbnails
from tastemaker.explorer.upright import upright_size
from tastemaker.scores.limits import QueryLimit
from tastemaker.scores.neighbours import nearest_rows
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.storage import is_remote

MAX_ROWS_AT_ONCE = 1000
NEIGHBOURS = 12
MAX_MEMBERS = 24
"""Pictures of a group that are shown beside one of them."""

_Json = dict[str, Any]


class Explorer:
    """A score table with all that the page shows of it.

    Args:
        sources: Directories, files or URLs of rows, as `ScoreTable` takes them.
        cache: Folder of the thumbnails; None for the user's cache directory.
        ratings: The file of the ratings; None for the one beside the table.
        storage_options: For rows and originals that are URLs; see docs/remote-data.md.

    Raises:
        ConfigurationError: There are no rows, or the ratings cannot be read.
    """

    def __init__(
        self,
        sources: list[str],
        cache: Path | None = None,
        ratings: Path | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.table = ScoreTable(sources, storage_options=storage_options)
        self.name = ", ".join(source.rstrip("/").rpartition("/")[2] or source for source in sources)
        self.ratings = Ratings(ratings or ratings_path(sources[0], not is_remote(sources[0])), self.table)
        self.index = ScoreIndex(self.table, self.ratings)
        self.lookup = RowLookup(self.table)
        self.thumbnails = Thumbnails(cache, storage_options=storage_options)
        self.exports = Exports()
        self.stamp = _stamp(self.table)
        self._unscored: dict[str, dict[str, int]] = {}
        self._dimensions: list[Dimension] | None = None

    def close(self) -> None:
        """Close what is open."""
        self.exports.close()
        self.lookup.close()
        self.ratings.close()

    def describe(self) -> _Json:
        """Return what does not change while the page is open, and the state of the ratings."""
        present = len(self.table.present_rows())
        return {
            "name": self.name,
            "images": present,
            "deleted": len(self.table) - present,
            "embeddings": EMBEDDING in self.table.columns,
            "columns": [[name, str(kind)] for name, kind in self.table.columns.items() if name != EMBEDDING],
            "groups": self.index.groups.are_offered,
            "shapes": shape_conditions(self.table.columns),
            "ranked_by": self.index.columns,
            "stamp": self.stamp,
            "folder": os.getcwd(),
            "ratings": {"path": str(self.ratings.path), **self.ratings.counts()},
        }

    def view(self, chosen: Filter, limit: QueryLimit | None = None) -> _Json:
        """Return the counts of a view, and those of the rows that have no score. ``limit`` can stop it."""
        by = self.index.ranked_by(chosen.by)
        if by not in self._unscored:
            self._unscored[by] = failures.count_without_score(self.table, by)
        return {
            "by": by,
            **describe_view(self.index.view(chosen, limit)),
            **self._unscored[by],
        }

    def shapes(self, chosen: Filter) -> bytes:
        """Return the aspect ratios of a view in its order: uint16, little endian, thousandths."""
        return self.index.aspects(self.index.view(chosen).rows).astype("<u2").tobytes()

    def rows(self, chosen: Filter, start: int, stop: int) -> list[_Json]:
        """Return the pictures from one place of a view to another."""
        view = self.index.view(chosen)
        start = max(0, start)
        stop = min(max(start, stop), len(view.rows), start + MAX_ROWS_AT_ONCE)
        numbers = view.rows[start:stop].tolist()
        return self._short(numbers, view.scores[start:stop].tolist())

    def cut(self, chosen: Filter, score: float | None, top: str | None) -> _Json:
        """Return the cut-off for a score, a share or a number."""
        value, kept = self.index.view(chosen).cut(score, top)
        return {"score": value if value is None or np.isfinite(value) else None, "kept": kept}

    def place(self, chosen: Filter, row: int) -> int:
        """Return where a row is in a view, -1 where it is not."""
        found = np.flatnonzero(self.index.view(chosen).rows == row)
        return int(found[0]) if len(found) else -1

    def picture(self, chosen: Filter, row: int) -> _Json:
        """Return everything known of one picture, with its rank among all that have a score.

        Raises:
            ConfigurationError: There is no such row.
        """
        self._check(row)
        by = self.index.ranked_by(chosen.by)
        whole = self.index.view(Filter(by=by))
        rank, below = self.place(Filter(by=by), row) + 1, 0
        if rank:
            below = int(np.searchsorted(whole.ascending, whole.scores[rank - 1], side="left"))
        score = float(whole.scores[rank - 1]) if rank else None
        return {
            **self._short([row], [score])[0],
            "place": self.place(chosen, row),
            "rank": rank,
            "of": len(whole.rows),
            "percentile": 100 * below / len(whole.rows) if rank else None,
            "group": self._group(row, by),
            **describe_picture(read_row(self.table, row), self.table.storage_options),
        }

    def neighbours(self, row: int) -> list[_Json]:
        """Return the pictures that look most like one, with ``similarity``; none where it has no embedding."""
        self._check(row)
        try:
            found, similarities = nearest_rows(self.table, row, NEIGHBOURS)
        except ModelError:
            return []
        short = self._scored(found.tolist(), self.index.ranked_by())
        return [{**item, "similarity": float(cosine)} for item, cosine in zip(short, similarities, strict=True)]

    def dimensions(self) -> list[str]:
        """Return the names of the ways to slice the table."""
        if self._dimensions is None:
            self._dimensions = list_dimensions(self.table)
        return [dimension.name for dimension in self._dimensions]

    def slices(self, chosen: Filter, name: str, first: int, number: int, kept: int) -> _Json:
        """Return the slices of a view by one dimension.

        Raises:
            ConfigurationError: There is no such dimension.
        """
        self.dimensions()
        found = [dimension for dimension in self._dimensions or [] if dimension.name == name]
        if not found:
            raise ConfigurationError(f"there are no slices by {name!r}")
        number, kept = min(max(number, 1), 100_000), max(kept, 0)
        return slices.slice_view(self.table, self.index.view(chosen), found[0], first, number, kept)

    def failures(self, by: str) -> list[_Json]:
        """Return the rows without a score, counted by reason."""
        return failures.group_failures(self.table, self.index.ranked_by(by))

    def failed_rows(self, by: str, kind: str, start: int) -> list[_Json]:
        """Return some of the rows without a score that have one kind of reason."""
        return failures.list_failures(self.table, self.index.ranked_by(by), kind, max(0, start))

    def rate(self, row: int, stars: int, rejected: bool) -> _Json:
        """Save a rating; return it with the counts of all.

        Raises:
            ConfigurationError: There is no such row, or the rating cannot be saved.
        """
        self._check(row)
        found = self.lookup.rows([row])[0]
        position = -1 if found["offset"] is None else found["offset"]
        picture = Picture(row, found["image_path"] or "", position, found["image_id"] or "")
        self.ratings.rate(picture, Rating(stars, rejected))
        return {"row": row, "stars": stars, "rejected": rejected, "ratings": self.ratings.counts()}

    def undo_rating(self) -> _Json:
        """Take the last rating back; return what it is now, with ``row`` None where there was nothing to take back."""
        undone = self.ratings.undo(self.table)
        row, rating = undone or (None, Rating())
        return {"row": row, "stars": rating.stars, "rejected": rating.rejected, "ratings": self.ratings.counts()}

    def original(self, row: int) -> _Json:
        """Return where a row's picture lies.

        Raises:
            ConfigurationError: There is no such row.
        """
        self._check(row)
        return self.lookup.rows([row])[0]

    def _group(self, row: int, by: str) -> _Json | None:
        """Return the other pictures of a row's group, the best first; None where groups have not been looked for."""
        groups = self.index.groups
        if not (groups.are_offered and groups.are_known):
            return None
        others = groups.members(row)
        others = others[others != row]
        order = np.argsort(-self.index.values(by)[others], kind="stable")[:MAX_MEMBERS]
        return {"images": len(others) + 1, "others": self._scored(others[order].tolist(), by)}

    def _scored(self, numbers: list[int], by: str) -> list[_Json]:
        """Return rows as the page shows them, with their values in a column."""
        values = self.index.values(by)
        return self._short(numbers, [float(values[number]) for number in numbers])

    def _short(self, numbers: list[int], scores: list[Any]) -> list[_Json]:
        items = []
        for found, score in zip(self.lookup.rows(numbers), scores, strict=True):
            rating = self.ratings.of(found["row"])
            width, height = upright_size(found)
            items.append(
                {
                    "row": found["row"],
                    "score": score if score is None or np.isfinite(score) else None,
                    "name": found["image_id"] or found["image_path"] or "",
                    "alt": found["caption"] or "",
                    "width": width,
                    "height": height,
                    "stars": rating.stars,
                    "rejected": rating.rejected,
                }
            )
        return items

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.table):
            raise ConfigurationError(f"there is no row {row}")


def _stamp(table: ScoreTable) -> str:
    """Return what changes when the table does, for addresses that browsers may remember."""
    digest = hashlib.sha256()
    for source in table.sources:
        changed = 0 if is_remote(source.path) else os.stat(source.path).st_mtime_ns
        digest.update(f"{source.path}\n{source.rows}\n{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]
