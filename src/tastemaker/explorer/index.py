"""The pictures of a score table in the order of their scores, whole or filtered: eleven bytes a picture, in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.chart import step_of
from tastemaker.explorer.facets import FACETS, Facet, Facets, FacetValue, Mask
from tastemaker.explorer.groups import Groups
from tastemaker.explorer.learned import TASTE, OwnTaste
from tastemaker.explorer.upright import aspect_sql
from tastemaker.explorer.view import Cut, View
from tastemaker.explorer.words import Words
from tastemaker.models.published import find_scorer
from tastemaker.models.published.clip_score import CLIP_SCORE
from tastemaker.scores.conditions import Condition
from tastemaker.scores.cutoff import Top
from tastemaker.scores.database import sql_text
from tastemaker.scores.marks import REJECTED, Marks, Ratings, ratings_of
from tastemaker.scores.stacks import check_embeddings
from tastemaker.scores.table import ScoreTable
from tastemaker.scores.variety import LEAST_REACH, REACH, choose_varied

NEXT = "next"
"""A value of ``Filter.rated``: a dozen pictures that one should rate next."""

ASPECT_UNIT = 1000
"""Aspect ratios travel as integers: width / height in thousandths."""

MAX_VARIED = 500
"""Pictures that are unlike each other are chosen up to this number: it takes time with its square."""

FEW_VARIED = LEAST_REACH // REACH
"""Up to this number they are chosen among the same pictures: fewer are the first of more."""

QUERY_SECONDS = 60.0
"""A condition that takes longer is stopped."""

_KEPT_VIEWS, _KEPT_MASKS = 8, 4


@dataclass(frozen=True)
class Filter:
    """Which pictures are shown.

    Attributes:
        by: The column that they are ranked by, or `TASTE`; empty for the first column that has values.
        where: A condition in SQL over the columns; empty for all.
        text: A part of the caption or of the path; empty for any.
        like: Words that the pictures are ranked by, in place of ``by``: the likeness of each to them. Empty for none.
        rated, date, camera, lens, folder: Values of these facets, as `tastemaker.explorer.facets.parse_values` takes
            them; empty for all. A picture passes that has one of the values of each. ``rated`` may be `NEXT`, too.
        group: ``best`` for only the best of each group, of what passes the others and is not rejected; the number of a
            row for its group alone; empty for all.
        asked: Names the time from which the ratings are, so that nothing moves while one rates. Any text.
    """

    by: str = ""
    where: str = ""
    text: str = ""
    like: str = ""
    rated: str = ""
    date: str = ""
    camera: str = ""
    lens: str = ""
    folder: str = ""
    group: str = ""
    asked: str = ""

    def condition(self, table: ScoreTable) -> Condition | None:
        """Return what ``where`` and ``text`` ask for in SQL, None where they let all pass.

        Raises:
            ConfigurationError: ``where`` is not one condition.
        """
        where = self.where.strip()
        parts = [where and table.check(where), _text_condition(self.text.strip())]
        return Condition(" AND ".join(f"(\n{part}\n)" for part in parts if part)) or None

    @property
    def facets(self) -> dict[str, str]:
        """The facets that say anything."""
        return {name: text for name in FACETS if (text := getattr(self, name)) not in ("", NEXT)}

    @property
    def has_rows_of_its_own(self) -> bool:
        """Whether no condition on columns says which pictures pass."""
        return bool(self.facets or self.group or self.is_by_rating or self.like.strip() or self.by == TASTE)

    @property
    def is_by_rating(self) -> bool:
        """Whether a rating changes which pictures pass."""
        return bool(self.rated or self.is_best_only)

    @property
    def is_best_only(self) -> bool:
        """Whether one picture stands for each group."""
        return self.group == "best"


class ScoreIndex:
    """The order of a table's pictures, and the views on it that were asked for last.

    Args:
        table: The rows.
        marks: What a person says of them.
        rank_by: The column or SQL expression that is ranked by first; None for the table's own.
        model_dir: Directory of models, for what is ranked by words; None for the default.
    """

    def __init__(
        self, table: ScoreTable, marks: Marks, rank_by: str | None = None, model_dir: str | None = None
    ) -> None:
        self.table = table
        self._words = Words(table, model_dir)
        self.taste = OwnTaste(table, marks.path, self.ratings, model_dir)
        self.groups = Groups(table)
        with suppress(ConfigurationError):  # there are none, or two models made them: who asks for them is told
            table.embeddings.keep()
        self.facets = Facets(table)
        self._marks = marks
        self._ratings = (marks.version, ratings_of(table, marks.current()))
        self._kept_dozen = lru_cache(_KEPT_MASKS)(lambda asked: self.taste.next_rows())
        self._kept_view = lru_cache(_KEPT_VIEWS)(self._make_view)
        self._kept_mask = lru_cache(_KEPT_MASKS)(self._meets)
        self._first = rank_by or table.ranking
        self.columns = [name for name in dict.fromkeys([self._first, *table.rankings]) if self._has_values(name)]
        self._aspects = self._read_aspects()

    def view(self, chosen: Filter) -> View:
        """Return the pictures that pass a filter. The last few are remembered.

        Raises:
            ConfigurationError: The condition is none or takes too long, or the column is not one to rank by.
            TastemakerError: There are words, and `Words.likeness` refuses.
        """
        by = self.ranked_by(chosen.by)
        if not (chosen.group in ("", "best") or (chosen.group.isdecimal() and int(chosen.group) < len(self.table))):
            raise ConfigurationError(
                f"of groups only the best are shown, or all, or that of a row, not {chosen.group!r}"
            )
        asked = chosen.asked if chosen.is_by_rating else self.taste.version if by == TASTE else ""
        view = self._kept_view(replace(chosen, by=by, like=chosen.like.strip(), asked=asked))
        ratings = self.ratings()
        if view.version != self._marks.version:
            view.is_rejected, view.version = ratings[view.rows] == REJECTED, self._marks.version
        return view

    def cut(self, chosen: Filter, text: str) -> Cut:
        """Return where a view is cut by what a person typed: what `View.read_cut` takes, or ``varied 40``.

        The latter keeps the 40 best pictures that are unlike each other, as ``tastemaker select --varied 40`` does.

        Raises:
            ConfigurationError: It is no cut-off, or there are no embeddings, or too many are asked for.
        """
        view = self.view(chosen)
        varied = re.fullmatch(r"varied\s+(\d+)", text.strip(), re.IGNORECASE)
        return self._cut_varied(view, int(varied[1])) if varied else view.cut(*view.read_cut(text))

    def _cut_varied(self, view: View, count: int) -> Cut:
        if count > MAX_VARIED:
            raise ConfigurationError(f"the page chooses up to {MAX_VARIED:,} pictures that are unlike each other")
        if count < 1:
            raise ConfigurationError("say how many pictures that are unlike each other: 1 or more")
        asked = max(count, FEW_VARIED)
        if (view.version, asked) not in view.unlike:
            view.unlike = {(view.version, asked): self._choose_varied(view, asked)}
        places = sorted(view.unlike[view.version, asked][:count])
        last = places[-1] + 1 if places else 0
        lowest = float(view.scores[last - 1]) if places else None
        return Cut(lowest, last, len(places), f"{len(places)}", 0, Top(count), places)

    def _choose_varied(self, view: View, count: int) -> list[int]:
        check_embeddings(self.table)
        counts = np.flatnonzero(~view.is_rejected)
        counts = counts[np.argsort(view.rows[counts])]  # of equal pictures the first in the table is chosen
        rows = view.rows[counts].astype(np.int64)
        found = choose_varied(view.scores[counts], lambda at: self.table.embeddings.take_unit(rows[at]), count)
        return [int(place) for place in counts[found]]

    def places(self, chosen: Filter, rows: Sequence[int]) -> list[int]:
        """Return where rows are in a view, -1 for those that are not."""
        where = np.full(len(self.table), -1, np.int64)
        shown = self.view(chosen).rows
        where[shown] = np.arange(len(shown))
        return [int(place) for place in where[list(rows)]]

    def ratings(self) -> Ratings:
        """Return what a person says of each row, int8 (n,), as `ratings_of` does."""
        marks = self._marks.current()
        version = self._marks.version
        if self._ratings[0] != version:
            self._ratings = (version, ratings_of(self.table, marks))
        return self._ratings[1]

    def ranked_by(self, by: str = "") -> str:
        """Return what to rank by: what is asked for, else the first column that has values.

        Raises:
            ConfigurationError: Pictures are not ranked by that.
        """
        known = [self._first, *self.table.rankings, *([TASTE] if self.taste.version else [])]
        if by and by not in known:
            raise ConfigurationError(f"pictures are ranked by {' or '.join(dict.fromkeys(known))}, not by {by!r}")
        return by or self._first

    def column(self, by: str = "") -> str:
        """Return the column of a ranking; for a taste, which is none, the first one."""
        by = self.ranked_by(by)
        return self._first if by == TASTE else by

    def values(self, chosen: Filter) -> npt.NDArray[Any]:
        """Return what a filter ranks by: float (n,), NaN in all rows of a table that does not have the column."""
        if chosen.like.strip():
            return self._words.likeness(chosen.like.strip())
        by = self.ranked_by(chosen.by)
        if by == TASTE:
            return self.taste.scores()
        if by in self.table.rankings and by not in self.table.columns:
            return np.full(len(self.table), np.nan, np.float32)
        return self.table.values(by)

    def aspects(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
        """Return width / height of these rows, upright, in thousandths; 1,000 where it is not known."""
        return self._aspects[rows]

    def _has_values(self, column: str) -> bool:
        return bool(np.isfinite(self.values(Filter(by=column))).any())

    def count_values(self, chosen: Filter, name: str, search: str = "") -> tuple[list[FacetValue], int]:
        """Return the values of a facet with the number of pictures, as `Facet.count` does.

        The pictures counted are those that pass everything else; with ``group``, the groups that these are in.
        """
        facet = self.facets.facet(name, self.ratings())
        passes = self._passes(replace(chosen, **{name: ""}))
        if chosen.is_best_only:
            passes = self._one_of_each(passes, facet)
        return facet.count(chosen.facets.get(name, ""), passes, search)

    def _one_of_each(self, passes: Mask, facet: Facet) -> Mask:
        """Return one of the rows that pass for each group and value of a facet."""
        rows = np.flatnonzero(passes)
        pairs = self.groups.numbers()[rows] * (len(facet.values) + 1) + facet.codes[rows]
        _, first = np.unique(pairs, return_index=True)
        one: Mask = np.zeros_like(passes)
        one[rows[first]] = True
        return one

    def _passes(self, chosen: Filter) -> Mask:
        """Return bool (n,): which rows have what is ranked by, and pass the condition and the facets."""
        passes: Mask = ~np.isnan(self.values(chosen))
        condition = chosen.condition(self.table)
        if condition is not None:
            passes &= self._kept_mask(condition)
        if chosen.rated == NEXT:
            passes &= np.isin(np.arange(len(passes)), self._kept_dozen(chosen.asked))
        for name, wanted in chosen.facets.items():
            passes &= self.facets.facet(name, self.ratings()).meets(wanted)
        if chosen.is_best_only:
            passes &= self.ratings() != REJECTED
        elif chosen.group:
            numbers = self.groups.numbers()
            passes &= numbers == numbers[int(chosen.group)]
        return passes

    def _meets(self, condition: Condition) -> Mask:
        meets = np.zeros(len(self.table), np.bool_)
        meets[self.table.to_arrow(["row_id"], condition, limit_s=QUERY_SECONDS).column(0).to_numpy()] = True
        return meets

    def _make_view(self, chosen: Filter) -> View:
        values = self.values(chosen)
        rows = np.flatnonzero(self._passes(chosen)).astype(np.uint32)
        rows = rows[np.argsort(-values[rows], kind="stable")]
        if chosen.is_best_only:
            rows = rows[self.groups.best(rows)]
        # A likeness is a CLIP score, and a taste is on the scale of LAION's score.
        like = CLIP_SCORE.column if chosen.like else find_scorer().column if chosen.by == TASTE else chosen.by
        step = step_of(like, values)
        everything = Filter(by=chosen.by, like=chosen.like)
        whole = None if replace(chosen, asked="") == everything else self.view(everything).chart
        return View(rows, values[rows], step, self.ratings()[rows] == REJECTED, self._marks.version, whole)

    def _read_aspects(self) -> npt.NDArray[np.uint16]:
        aspects = np.full(len(self.table), ASPECT_UNIT, np.uint16)
        if {"width", "height"} <= self.table.columns.keys():
            thousandths = f"least(greatest(round({ASPECT_UNIT} * ({aspect_sql(self.table.columns)})), 1), 65535)"
            found = self.table.query(f"SELECT row_id, coalesce({thousandths}, {ASPECT_UNIT})::USMALLINT AS t FROM rows")
            aspects[found["row_id"].to_numpy()] = found["t"].to_numpy()
        return aspects


def _text_condition(text: str) -> str:
    if not text:
        return ""
    literal = sql_text(text.lower())
    return f"contains(lower(image_path), {literal}) OR contains(lower(coalesce(caption, '')), {literal})"
