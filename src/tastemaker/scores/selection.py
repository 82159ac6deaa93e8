"""Which rows are meant: a condition, then a cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tastemaker.errors import ConfigurationError
from tastemaker.scores.cutoff import Top, mark_best
from tastemaker.scores.fetch import IntArray
from tastemaker.scores.table import ScoreTable


@dataclass(frozen=True)
class Selection:
    """Which rows of a table are meant. First the condition, then the cut among what meets it.

    Attributes:
        where: A condition in SQL over the columns.
        min_score: Rows with this value or more, compared as float32.
        top: Or the best of them; of equal values the first in the table.
        rank_by: The column that the cut is by.
        row_ids: Only these rows, by number.
    """

    where: str | None = None
    min_score: float | None = None
    top: Top | None = None
    rank_by: str = "aesthetic_score"
    row_ids: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.min_score is not None and self.top is not None:
            raise ConfigurationError("give a minimum score or a top share, not both")
        if self.where is None and self.min_score is None and self.top is None and self.row_ids is None:
            raise ConfigurationError("say what to select: --min-score 5.5, --top 20%, --top 1000 or --where CONDITION")


def choose_rows(table: ScoreTable, selection: Selection) -> IntArray:
    """Return the numbers of the rows that are meant, int64 (n,), ascending.

    Raises:
        ConfigurationError: The condition is none, or a column is not there.
    """
    candidates = _candidates(table, selection)
    # What thins out the candidates by comparing them, such as the best of each group, belongs here.
    return _cut(table, candidates, selection)


def _candidates(table: ScoreTable, selection: Selection) -> IntArray:
    rows = table.present_rows(selection.where)
    if selection.row_ids is not None:
        rows = np.intersect1d(rows, np.asarray(selection.row_ids, np.int64))
    return rows


def _cut(table: ScoreTable, rows: IntArray, selection: Selection) -> IntArray:
    if selection.min_score is None and selection.top is None:
        return rows
    values = table.values(selection.rank_by)[rows]
    if selection.top is not None:
        return rows[mark_best(values, selection.top)]
    return rows[values >= values.dtype.type(selection.min_score)]
