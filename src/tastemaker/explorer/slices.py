"""What a cut does to parts of a view: size, shape, format, source, ... A cut that is biased is seen here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tastemaker.explorer.dimensions import NOT_KNOWN, Dimension, code_rows, rank, sure_distance
from tastemaker.explorer.facets import Mask
from tastemaker.explorer.view import View
from tastemaker.scores.database import sql_name, sql_text
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.steps import Best, Left


@dataclass(frozen=True, slots=True)
class ViewSlice:
    """The scored images that have something in common.

    Attributes:
        name: What they have in common.
        where: SQL for its rows, as short as a person would write it.
        scored: Their number.
        kept: How many of them pass.
        difference: Their share less that of the whole.
        is_chance: Whether a random choice of as many images may well differ as much (999 times in 1,000).
        bars: Their scores on the axis of the whole, as `Chart.draw` draws them.
    """

    name: str
    where: str
    scored: int
    kept: int
    difference: float
    is_chance: bool
    bars: str


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of one kind, the largest differences first.

    Attributes:
        title: What they differ in.
        slices: As many as were asked for.
        others: How many more there are.
    """

    title: str
    slices: list[ViewSlice]
    others: int


def slice_view(table: ScoreTable, view: View, dimension: Dimension, keeps: Mask, most: int) -> Slices:
    """Return what a cut keeps of the slices of a view.

    Args:
        table: The rows.
        view: The pictures that are sliced; those that are rejected count nowhere.
        dimension: How.
        keeps: bool (n,): which of the view the cut keeps.
        most: Slices at most.
    """
    counts = ~view.is_rejected
    keys, codes = code_rows(table, dimension.key)
    codes, scores = codes[view.rows[counts]], view.scores[counts]
    is_kept = keeps[counts]
    scored = np.bincount(codes, minlength=len(keys)).tolist()
    kept = np.bincount(codes[is_kept], minlength=len(keys)).tolist()
    share = float(is_kept.mean()) if len(is_kept) else 0.0
    present = [code for code in range(len(keys)) if scored[code]]
    present.sort(key=lambda code: (*rank(kept[code], scored[code], share), keys[code]))
    names = dimension.shorten([keys[code] for code in present])
    slices = [
        ViewSlice(
            names[keys[code]],
            _condition(dimension, keys[code]),
            scored[code],
            kept[code],
            kept[code] / scored[code] - share,
            sure_distance(kept[code], scored[code], share) == 0,
            view.chart.draw(scores[codes == code][::-1]),
        )
        for code in present[:most]
    ]
    return Slices(dimension.name, slices, len(present) - len(slices))


@dataclass(frozen=True, slots=True)
class BothCuts:
    """A slice under the cut of the whole, and under a cut of its own.

    Attributes:
        name: The value that its images have in common.
        scored: Its images with a score.
        kept: How many of them the cut of the whole keeps.
        kept_per: How many the cut in each slice keeps.
        lowest: The lowest score of the latter; None where there is none.
    """

    name: str
    scored: int
    kept: int
    kept_per: int
    lowest: float | None

    @property
    def difference(self) -> float:
        """The share that its own cut keeps, less the share that the cut of the whole keeps."""
        return (self.kept_per - self.kept) / self.scored


def compare_cuts(table: ScoreTable, view: View, place: int, cut: Best) -> list[BothCuts]:
    """Return the slices of a view under two cuts, those first that change most.

    Args:
        table: The rows.
        view: The pictures, none of them rejected.
        place: How many of the view the cut of the whole keeps.
        cut: The cut in each slice.

    Raises:
        ConfigurationError: The slices are by no column or expression.
    """
    own = cut(table, Left(np.sort(view.rows).astype(np.int64), {})).rows
    per = str(cut.per)
    keys, codes = code_rows(table, Dimension("", sql_name(per) if per in table.columns else table.check(per)).key)
    scored, kept, kept_per = (
        np.bincount(codes[rows], minlength=len(keys)).tolist() for rows in (view.rows, view.rows[:place], own)
    )
    lowest = np.full(len(keys), np.inf)
    scores = np.full(len(table), np.inf)
    scores[view.rows] = view.scores
    np.minimum.at(lowest, codes[own], scores[own])
    parts = [
        BothCuts(keys[n], scored[n], kept[n], kept_per[n], float(lowest[n]) if kept_per[n] else None)
        for n in range(len(keys))
        if scored[n]
    ]
    return sorted(parts, key=lambda part: (-abs(part.difference), -part.scored, part.name))


def _condition(dimension: Dimension, key: str) -> str:
    sql = dimension.sql if dimension.sql.isidentifier() else f"({dimension.sql})"
    if key == NOT_KNOWN:
        return f"{sql} IS NULL"
    return f"{sql} = {sql_text(key)}"
