"""The pictures of a score table in the order of their scores, whole or filtered: ten bytes a picture, in memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.groups import Groups
from tastemaker.explorer.ratings import Ratings, rated_condition
from tastemaker.explorer.upright import LYING
from tastemaker.scores.conditions import Condition
from tastemaker.scores.cutoff import parse_top
from tastemaker.scores.limits import QueryLimit
from tastemaker.scores.table import ScoreTable, sql_text

STEPS = {"aesthetic_score": 0.01, "technical_quality": 0.001}
"""Column that pictures can be ranked by -> by how much an arrow key moves the cut-off."""

MAX_EDGES = 20_000
"""Cut-offs whose counts are sent to the page at most; where scores lie further apart, the step grows."""

ASPECT_UNIT = 1000
"""Aspect ratios travel as integers: width / height in thousandths."""

QUERY_SECONDS = 60.0
"""A condition that takes longer is stopped: some never end, and would keep a processor busy as long as the program."""

_KEPT_VIEWS = 8


@dataclass(frozen=True)
class Filter:
    """Which pictures are shown.

    Attributes:
        by: The column that they are ranked by; empty for the first that has values.
        where: A condition in SQL over the columns; empty for all.
        text: A part of the caption or of the path; empty for any.
        rated: ``rated``, ``unrated``, ``rejected``, ``1`` to ``5`` (so many stars at least), or empty for all.
        group: ``best`` for the best only of each group, among what passes the others; empty for all.
    """

    by: str = ""
    where: str = ""
    text: str = ""
    rated: str = ""
    group: str = ""

    def condition(self, table: ScoreTable, ratings: Ratings) -> Condition | None:
        """Return the same in SQL, None where all pictures are meant.

        Raises:
            ConfigurationError: ``where`` is not one condition.
        """
        table.where_clause(self.where.strip() or None)  # by itself, before it stands in brackets beside others
        parts = [self.where.strip(), _text_condition(self.text.strip()), rated_condition(self.rated, ratings)]
        return Condition(" AND ".join(f"(\n{part}\n)" for part in parts if part)) or None


@dataclass(frozen=True)
class View:
    """The scored pictures that pass a filter, the best first; of equal scores, those first in the table.

    Attributes:
        rows: Numbers of their rows, uint32 (n,).
        scores: float (n,), descending.
        step: By how much an arrow key moves the cut-off.
    """

    rows: npt.NDArray[np.uint32]
    scores: npt.NDArray[Any]
    step: float

    @cached_property
    def ascending(self) -> npt.NDArray[Any]:
        """The scores from the lowest to the highest."""
        return self.scores[::-1].copy()

    def count_from(self, score: float) -> int:
        """Return how many pictures have this score or more, compared in the precision of the stored scores."""
        return len(self.rows) - int(np.searchsorted(self.ascending, self.scores.dtype.type(score), side="left"))

    def counts(self, first: int, number: int) -> list[int]:
        """Return how many pictures each of the cut-offs ``first * step`` and following keeps."""
        below = np.searchsorted(self.ascending, self.edges(first, number), side="left")
        kept: list[int] = (len(self.rows) - below).tolist()
        return kept

    def edges(self, first: int, number: int) -> npt.NDArray[Any]:
        """Return the cut-offs ``first * step`` and following, in the precision of the stored scores."""
        digits = max(0, round(-math.log10(self.step)))
        return np.round((first + np.arange(number)) * self.step, digits).astype(self.scores.dtype)

    def cut(self, score: float | None, top: str | None) -> tuple[float | None, int]:
        """Return a cut-off and how many it keeps, for a score, or for a share or number such as ``20%`` or ``1000``.

        Raises:
            ConfigurationError: It is neither.
        """
        if top is not None:
            kept = parse_top(top).of(len(self.rows))
            return (float(self.scores[kept - 1]) if kept else None), kept
        if score is None or not math.isfinite(score):
            raise ConfigurationError("a cut-off is a score, a share such as 20%, or a number of images")
        return score, self.count_from(score)


class ScoreIndex:
    """The order of a table's pictures, and the views on it that were asked for last.

    Args:
        table: The rows.
        ratings: The user's own, for filters on them.
    """

    def __init__(self, table: ScoreTable, ratings: Ratings) -> None:
        self.table = table
        self.groups = Groups(table)
        self._ratings = ratings
        self._views: OrderedDict[tuple[Any, ...], View] = OrderedDict()
        self._lock = Lock()
        self.columns = [name for name in STEPS if self._has_values(name)]
        self._aspects = self._read_aspects()

    def view(self, chosen: Filter, limit: QueryLimit | None = None) -> View:
        """Return the pictures that pass a filter. The last few are remembered.

        Args:
            chosen: The filter.
            limit: When to stop looking for them; None for after `QUERY_SECONDS`.

        Raises:
            ConfigurationError: The condition is none or takes too long, or the column is not one to rank by.
        """
        by = self.ranked_by(chosen.by)
        if chosen.group not in ("", "best"):
            raise ConfigurationError(f"of groups only the best are shown, or all, not {chosen.group!r}")
        key = (by, chosen.where, chosen.text, chosen.rated, chosen.group, self._ratings.version if chosen.rated else 0)
        with self._lock:
            if key in self._views:
                self._views.move_to_end(key)
                return self._views[key]
        condition = chosen.condition(self.table, self._ratings)
        view = self._make_view(by, condition, bool(chosen.group), limit or QueryLimit(QUERY_SECONDS))
        with self._lock:
            self._views[key] = view
            while len(self._views) > _KEPT_VIEWS:
                self._views.popitem(last=False)
        return view

    def ranked_by(self, by: str = "") -> str:
        """Return the column to rank by: the one that is asked for, else the first that has values.

        Raises:
            ConfigurationError: Pictures are not ranked by that.
        """
        if by and by not in STEPS:
            raise ConfigurationError(f"pictures are ranked by {' or '.join(STEPS)}, not by {by!r}")
        return by or (self.columns[0] if self.columns else next(iter(STEPS)))

    def values(self, by: str) -> npt.NDArray[Any]:
        """Return a column to rank by: float (n,), NaN in all rows of a table that does not have it."""
        return self.table.values(by) if by in self.table.columns else np.full(len(self.table), np.nan, np.float32)

    def aspects(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
        """Return width / height of these rows, upright, in thousandths; 1,000 where it is not known."""
        return self._aspects[rows]

    def _has_values(self, column: str) -> bool:
        return column in self.table.columns and bool(np.isfinite(self.table.values(column)).any())

    def _make_view(self, by: str, condition: str | None, best_of_group: bool, limit: QueryLimit) -> View:
        values = self.values(by)
        chosen = ~np.isnan(values)
        if condition is not None:
            passing = np.zeros(len(values), np.bool_)
            passing[self.table.to_arrow(["row_id"], condition, limit=limit).column(0).to_numpy()] = True
            chosen &= passing
        rows = np.flatnonzero(chosen).astype(np.uint32)
        order = np.argsort(-values[rows], kind="stable")
        rows = rows[order]
        if best_of_group:
            rows = rows[self.groups.best(rows)]
        scores = values[rows]
        return View(rows, scores, _step(STEPS[by], scores))

    def _read_aspects(self) -> npt.NDArray[np.uint16]:
        names = [name for name in ("width", "height") if name in self.table.columns]
        if len(names) < 2:
            return np.full(len(self.table), ASPECT_UNIT, np.uint16)
        width, height = (self.table.values(name).astype(np.float32) for name in names)
        if "orientation" in self.table.columns:
            lies = self.table.values("orientation") >= LYING
            width, height = np.where(lies, height, width), np.where(lies, width, height)
        with np.errstate(divide="ignore", invalid="ignore"):
            aspects = np.clip(np.round(width / height * ASPECT_UNIT), 1, 65_535)
        return np.where(np.isfinite(aspects), aspects, ASPECT_UNIT).astype(np.uint16)


def describe_view(view: View) -> dict[str, Any]:
    """Return what the page needs of a view: the counts of every cut-off that an arrow key can reach."""
    finite = view.ascending[np.isfinite(view.ascending)]
    if not len(finite):
        return {"images": len(view.rows), "first": 0, "step": view.step, "kept": [], "low": 0.0, "high": 0.0}
    first, last = math.floor(finite[0] / view.step), math.floor(finite[-1] / view.step) + 1
    low, high = np.percentile(finite, (0.05, 99.95))
    return {
        "images": len(view.rows),
        "first": first,
        "step": view.step,
        "kept": view.counts(first, last - first + 1),
        "low": float(max(finite[0], low - (high - low) / 5)),  # a few far away do not stretch the axis
        "high": float(min(finite[-1], high + (high - low) / 5)),
    }


def _step(smallest: float, scores: npt.NDArray[Any]) -> float:
    """Return the smallest step, ten or a hundred times as large where the scores lie too far apart."""
    finite = scores[np.isfinite(scores)]
    width, step = (float(finite.max() - finite.min()) if len(finite) else 0.0), smallest
    while width / step > MAX_EDGES:
        step *= 10
    return step


def _text_condition(text: str) -> str:
    if not text:
        return ""
    literal = sql_text(text.lower())
    return f"contains(lower(image_path), {literal}) OR contains(lower(coalesce(caption, '')), {literal})"
