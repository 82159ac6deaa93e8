"""What the page can ask: each question is a method that returns plain data. The server only carries it."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError, ModelError, UnreadableImageError
from tastemaker.explorer.details import describe_cell, describe_picture
from tastemaker.explorer.dimensions import Dimension, list_dimensions
from tastemaker.explorer.exports import Exports
from tastemaker.explorer.facets import FACETS
from tastemaker.explorer.failures import group_failures, list_failures
from tastemaker.explorer.index import Filter, ScoreIndex
from tastemaker.explorer.learned import TASTE
from tastemaker.explorer.lookup import RowLookup, stamp_of
from tastemaker.explorer.report_data import DEFAULT_TOP
from tastemaker.explorer.slices import slice_view
from tastemaker.explorer.view import Cut
from tastemaker.scores.locations import name_of
from tastemaker.scores.marks import REJECTED, Mark, Marks
from tastemaker.scores.neighbours import nearest_rows
from tastemaker.scores.small import encode_jpeg, read_picture, recorded_size, reduce_image
from tastemaker.scores.sources import OriginalsReader
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.selections.select import select_images
from tastemaker.selections.selection import Selection

MAX_ROWS_AT_ONCE = 1000
NEIGHBOURS = 12
MAX_SLICES = 60
MAX_MEMBERS = 24
"""Pictures of a group that are shown beside one of them."""

WIDEST = 8
"""A small picture is at most this many times as wide as high."""

_LARGEST = 65_500
"""The width and height of a JPEG at most, in pixels."""

_SMALL = 640
"""Pictures up to this height are compressed more."""

_KEPT_COLUMNS = 4

_Json = dict[str, Any]


class Explorer:
    """A score table with all that the page shows of it.

    Args:
        sources: Directories, files or URLs of rows, as `ScoreTable` takes them.
        storage_options: For rows and originals that are URLs; see docs/remote-data.md.
        originals: Places that originals may be read from, beside the inputs of your own runs.
        rank_by: The column or SQL expression that pictures are ranked by at first; None for that of the first scorer.
        model_dir: Directory of models, for a search by words; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache.

    Raises:
        ConfigurationError: There are no rows, the ratings cannot be read, or there is nothing to rank by.
    """

    def __init__(
        self,
        sources: list[str],
        storage_options: Mapping[str, Any] | None = None,
        originals: Sequence[str] = (),
        rank_by: str | None = None,
        model_dir: str | None = None,
    ) -> None:
        self.table = ScoreTable(sources, storage_options=storage_options, originals=originals)
        self.name = name_of(sources)
        self.marks = Marks(self.table)
        self.index = ScoreIndex(self.table, self.marks, rank_by, model_dir)
        self.taste = self.index.taste
        self.lookup = RowLookup(self.table)
        self.exports = Exports()
        self.stamp = stamp_of(self.table.sources)
        self.failures = lru_cache(_KEPT_COLUMNS)(self._group_failures)

    def close(self) -> None:
        """Close what is open."""
        self.exports.close()
        self.marks.close()

    def describe(self) -> _Json:
        """Return what does not change while the page is open."""
        present = len(self.table.present_rows())
        return {
            "name": self.name,
            "images": present,
            "deleted": len(self.table) - present,
            "embeddings": EMBEDDING in self.table.columns,
            "columns": [[name, str(kind)] for name, kind in self.table.columns.items() if name != EMBEDDING],
            "groups": self.index.groups.are_offered,
            "ranked_by": [*self.index.columns, *([TASTE] if self.taste.version else [])],
            "orders": self.index.facets.orders,
            "stamp": self.stamp,
            "folder": os.getcwd(),
        }

    def view(self, chosen: Filter, cut: str = "") -> _Json:
        """Return how many pictures pass a filter, their shapes and scores, the cut, and how many rows have no score.

        ``shapes`` are the aspect ratios in the order of the view: uint16, little endian, thousandths, in base64.
        ``rated`` are the places of what has a rating, ``rejected`` of what a person rejected.

        Args:
            chosen: The filter.
            cut: A cut-off as `cut` takes it; the report's where it is none.
        """
        by = self.index.ranked_by(chosen.by)
        view = self.index.view(chosen)
        shapes = self.index.aspects(view.rows).astype("<u2").tobytes()
        return {
            "by": by,
            "like": chosen.like.strip(),
            "images": len(view.rows),
            "rejected": np.flatnonzero(view.is_rejected).tolist(),
            "rated": np.flatnonzero(self.index.ratings()[view.rows]).tolist(),
            "bars": view.chart.draw(view.ascending),
            "ghost": "" if view.whole is None else self._ghost(chosen),
            "ticks": [[text, view.chart.percent(float(text))] for text in view.chart.ticks()],
            **{name: getattr(view.chart, name) for name in ("low", "high", "first", "step", "decimals", "reaching")},
            "cut": self._as_json(self._cut_or_default(chosen, cut)),
            "shapes": base64.b64encode(shapes).decode(),
            "unscored": sum(group["images"] for group in self.failures(by)),
        }

    def rows(self, chosen: Filter, places: Sequence[int]) -> list[_Json]:
        """Return the pictures at some places of a view."""
        view = self.index.view(chosen)
        known = [place for place in places[:MAX_ROWS_AT_ONCE] if 0 <= place < len(view.rows)]
        items = self._short(view.rows[known].tolist(), view.scores[known].tolist())
        if chosen.is_best_only:
            for item, size in zip(items, self.index.groups.sizes(view.rows[known]).tolist(), strict=True):
                item["stack"] = size
        elif chosen.group:
            best, why = self._best_frame(view.rows.astype(np.int64), view.scores)
            for item in items:
                item["best"] = (why or "the only one that is not rejected") if item["row"] == best else ""
        return items

    def order(self, chosen: Filter, order: str) -> str:
        """Return the places of a view in another order, as `Facets.arrange` does: uint32, little endian, in base64."""
        places = self.index.facets.arrange(self.index.view(chosen).rows, order, self.index.ratings())
        return base64.b64encode(places.astype("<u4").tobytes()).decode()

    def facets(self, chosen: Filter, searches: Mapping[str, str]) -> list[_Json]:
        """Return the facets in which the rows differ, with their values, each with its pictures.

        Args:
            chosen: The filter.
            searches: Name of a facet -> a part of the names of its values; only those are returned.
        """
        ratings, found = self.index.ratings(), []
        for facet in FACETS:
            if self.index.facets.facet(facet, ratings).tells_apart:
                values, others = self.index.count_values(chosen, facet, searches.get(facet, ""))
                found.append({"name": facet, "values": [value._asdict() for value in values], "others": others})
        return found

    def cut(self, chosen: Filter, text: str) -> _Json:
        """Return where a view is cut, as `ScoreIndex.cut` does."""
        return self._as_json(self.index.cut(chosen, text))

    def _cut_or_default(self, chosen: Filter, text: str) -> Cut:
        try:
            return self.index.cut(chosen, text)
        except ConfigurationError:  # a mangled address: as if it had none
            return self.index.cut(chosen, str(DEFAULT_TOP))

    def _as_json(self, cut: Cut) -> _Json:
        score = cut.score if cut.score is None or np.isfinite(cut.score) else None
        return asdict(cut) | {"score": score, "text": cut.text}

    def picture(self, chosen: Filter, row: int) -> _Json:
        """Return everything known of one picture, with its rank among all that have a score, or a likeness.

        Raises:
            ConfigurationError: There is no such row.
        """
        self._check(row)
        everything = Filter(by=chosen.by, like=chosen.like)
        whole = self.index.view(everything)
        rank = self.index.places(everything, [row])[0] + 1
        score = float(whole.scores[rank - 1]) if rank else None
        below = 0 if score is None else int(np.searchsorted(whole.ascending, score, side="left"))
        return {
            **self._short([row], [score])[0],
            "place": self.index.places(chosen, [row])[0],
            "rank": rank,
            "of": len(whole.rows),
            "percentile": 100 * below / len(whole.rows) if rank else None,
            "group": self._group(row, everything),
            **describe_picture(self.table.take([row]).to_pylist()[0], self.table.originals),
        }

    def neighbours(self, chosen: Filter, row: int) -> list[_Json]:
        """Return the pictures that look most like one, with ``similarity``; none where it has no embedding.

        Their scores are those that a filter ranks by.
        """
        self._check(row)
        try:
            found, similarities = nearest_rows(self.table, row, NEIGHBOURS)
        except ModelError:
            return []
        short = self._scored(found.tolist(), chosen)
        return [{**item, "similarity": float(cosine)} for item, cosine in zip(short, similarities, strict=True)]

    def slices(self, chosen: Filter, name: str, cut: str) -> _Json:
        """Return the slices of a view by one dimension, and the names of all dimensions.

        Args:
            chosen: The view.
            name: Of the dimension; empty for the first.
            cut: A cut-off as `cut` takes it; the report's where it is none.

        Raises:
            ConfigurationError: There is no such dimension.
        """
        names = list(self._dimensions)
        if not names:
            return {"dimensions": [], "title": "", "slices": [], "others": 0}
        check_choice("dimension", name := name or names[0], names)
        view = self.index.view(chosen)
        keeps = view.keeps(self._cut_or_default(chosen, cut))
        found = slice_view(self.table, view, self._dimensions[name], keeps, MAX_SLICES)
        return {"dimensions": names, **asdict(found)}

    def _group_failures(self, by: str) -> list[_Json]:
        """Return the rows without a score, counted by reason."""
        return group_failures(self.table, self.index.column(by))

    @cached_property
    def _dimensions(self) -> dict[str, Dimension]:
        return {dimension.name: dimension for dimension in list_dimensions(self.table)}

    def failed_rows(self, by: str, kind: str, start: int) -> list[_Json]:
        """Return some of the rows without a score that have one kind of reason."""
        return list_failures(self.table, self.index.column(by), kind, max(0, start))

    def rate(self, chosen: Filter, changes: Mapping[int, Mapping[str, Any]]) -> list[_Json]:
        """Change what is said of rows in what is given, and return it, with the place of each in a view.

        Raises:
            ConfigurationError: There is no such row, or the rating cannot be saved.
        """
        for row in changes:
            self._check(row)
        self.marks.change(changes)
        places = self.index.places(chosen, list(changes))
        return [self._rating(row) | {"place": place} for row, place in zip(changes, places, strict=True)]

    def export(self, chosen: Filter, to: str, form: str, text: str) -> _Json:
        """Start to write what a cut-off keeps of a view, and return the export.

        Raises:
            ConfigurationError: There is no such cut-off, nothing is kept, or `Exports.start` refuses.
        """
        view, by, cut = self.index.view(chosen), self.index.column(chosen.by), self.index.cut(chosen, text)
        if not cut.kept:
            raise ConfigurationError("nothing is kept: there is nothing to export")
        if chosen.has_rows_of_its_own or cut.places is not None:
            selection = Selection(row_ids=view.rows[view.keeps(cut)].tolist(), rank_by=by)
        else:  # the record of the export then says what was asked for
            selection = Selection(chosen.condition(self.table), None if cut.top else cut.score, cut.top, by)
        return self.exports.start(to, cut.kept, partial(select_images, self.table, selection=selection, kind=form))

    def small_picture(self, row: int, height: int) -> bytes:
        """Return a row's picture as a JPEG that is at most this many pixels high, and `WIDEST` times as wide.

        Raises:
            ConfigurationError: There is no such row.
            UnreadableImageError: The original is gone, has changed since it was scored, or cannot be decoded.
        """
        self._check(row)
        (found,) = self.lookup.rows([row])
        if found["size"] is None and found["reason"]:
            raise UnreadableImageError(found["reason"])
        width, height = (min(pixels, _LARGEST) for pixels in (WIDEST * height, height))
        with OriginalsReader(self.table.originals) as reader:
            data = read_picture(found, reader)
        image = reduce_image(data, width, height, recorded=recorded_size(found))
        return encode_jpeg(image, 82 if height <= _SMALL else 90)

    def _ghost(self, chosen: Filter) -> str:
        """Return the bars of all pictures, whatever passes the filter."""
        whole = self.index.view(Filter(by=chosen.by, like=chosen.like))
        return whole.chart.draw(whole.ascending)

    def _group(self, row: int, chosen: Filter) -> _Json | None:
        """Return a row's group: why its best frame is that, whether it is this row, and the other pictures, best first.

        None where groups have not been looked for.
        """
        groups = self.index.groups
        if not (groups.are_offered and groups.are_known):
            return None
        members, values = groups.members(row), self.index.values(chosen)
        best, why = self._best_frame(members, values[members])
        others = members[members != row]
        order = np.lexsort((-values[others], others != best))[:MAX_MEMBERS]
        shown = self._scored(others[order].tolist(), chosen)
        return {"images": len(members), "why": why, "is_best": best == row, "others": shown}

    def _best_frame(self, members: npt.NDArray[np.int64], scores: npt.NDArray[Any]) -> tuple[int, str]:
        """Return the best frame of a group, as `Groups.best_frame` does; what a person rejected never is."""
        is_rejected = self.index.ratings()[members] == REJECTED
        return self.index.groups.best_frame(members, np.where(is_rejected, np.nan, scores))

    def _scored(self, numbers: list[int], chosen: Filter) -> list[_Json]:
        """Return rows as the page shows them, with what a filter ranks them by."""
        values = self.index.values(chosen)
        return self._short(numbers, [float(values[number]) for number in numbers])

    def _short(self, numbers: list[int], scores: list[Any]) -> list[_Json]:
        return [
            {
                "score": score if score is None or np.isfinite(score) else None,
                **describe_cell(found),
                **self._rating(found["row"]),
            }
            for found, score in zip(self.lookup.rows(numbers), scores, strict=True)
        ]

    def _rating(self, row: int) -> _Json:
        """Return the rating of a row that counts, who gave it (``page``, ``file``, or nobody), and its label."""
        rating, mark = int(self.index.ratings()[row]), self.marks.current().get(row, Mark())
        stars = mark.stars if mark.is_rating else max(rating, 0)
        said_by = "page" if mark.is_rating else "file" if rating else ""
        return {"row": row, "stars": stars, "rejected": rating == REJECTED, "label": mark.label, "said_by": said_by}

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.table):
            raise ConfigurationError(f"there is no row {row}")
