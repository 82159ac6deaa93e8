"""Which rows are meant: a condition, then the best of each group, then a cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tastemaker.checks import check_numbers
from tastemaker.errors import ConfigurationError
from tastemaker.scores.cutoff import Top, mark_best
from tastemaker.scores.fetch import ROW_ID, IntArray
from tastemaker.scores.groups import MIN_SIMILARITY, group_table
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.selections.marks import REJECTED, ratings_of

GROUP = "group"
"""The column of what is selected that has the group of each row: the ``row_id`` of the group's first row."""


@dataclass(frozen=True)
class Selection:
    """Which rows of a table are meant. First the condition, then the best of each group, then the cut among those.

    What a person rejected, in the explorer or in the picture's file, is not meant.

    Attributes:
        where: A condition in SQL over the columns.
        min_score: Rows with this value or more, compared as float32.
        top: Or the best of them; of equal values the first in the table.
        rank_by: The column that the cut is by.
        row_ids: Only these rows, by number.
        best_of_group: Of pictures that look alike, only the best by ``rank_by``. A row without an embedding is alone
            in its group; one without a value is never the best.
        min_similarity: Cosine from which on pictures look alike, in (0, 1].
        with_rejected: Take what was rejected like the others.
    """

    where: str | None = None
    min_score: float | None = None
    top: Top | None = None
    rank_by: str = "aesthetic_score"
    row_ids: Sequence[int] | None = None
    best_of_group: bool = False
    min_similarity: float = MIN_SIMILARITY
    with_rejected: bool = False

    def __post_init__(self) -> None:
        check_numbers(self)
        if not isinstance(self.top, Top | None):
            raise ConfigurationError(
                f"top={self.top!r} is of type {type(self.top).__name__}; it must be what parse_top('20%') or "
                "parse_top('1000') returns, or None"
            )
        if self.min_score is not None and self.top is not None:
            raise ConfigurationError("give a minimum score or a top share, not both")
        chosen = (self.where, self.min_score, self.top, self.row_ids, self.best_of_group or None)
        if all(value is None for value in chosen):
            raise ConfigurationError(
                "say what to select: --min-score 5.5, --top 20%, --top 1000, --where CONDITION or --best-of-group"
            )
        if not 0 < self.min_similarity <= 1:
            raise ConfigurationError(f"a similarity of {self.min_similarity} is not in (0, 1]")


class Chosen:
    """The rows that are meant.

    Attributes:
        rows: Their numbers, int64 (n,), ascending.
        schema: Their columns: all of the table but the embedding, and ``group`` where they were grouped. A column of
            that name that the table has is then called ``given_group``, or where that is taken ``given_group_2`` and
            so on.
    """

    def __init__(self, table: ScoreTable, rows: IntArray, groups: IntArray | None = None) -> None:
        self.rows = rows
        self._table, self._groups = table, groups
        self._names = [name for name in table.columns if name != EMBEDDING]
        fields = [(self._renamed(name), table.columns[name]) for name in self._names]
        self.schema = pa.schema(fields if groups is None else [*fields, (GROUP, pa.int64())])

    def __len__(self) -> int:
        return len(self.rows)

    def iterate(self) -> Iterator[tuple[IntArray, pa.Table]]:
        """Yield numbers of rows, ascending, and the rows."""
        for part in self._table.iterate(self.rows, [ROW_ID, *self._names]):
            numbers = part[ROW_ID].to_numpy()
            columns = part.select(self._names).columns
            if self._groups is not None:
                columns = [*columns, pa.chunked_array([self._groups[np.searchsorted(self.rows, numbers)]])]
            yield numbers, pa.table(columns, schema=self.schema)

    def _renamed(self, name: str) -> str:
        if name != GROUP or self._groups is None:
            return name
        others = (f"given_{GROUP}", *(f"given_{GROUP}_{number}" for number in range(2, len(self._names) + 2)))
        return next(other for other in others if other not in self._names)


def choose_rows(table: ScoreTable, selection: Selection) -> Chosen:
    """Return the rows that are meant.

    Raises:
        ConfigurationError: The condition is none, a column is not there, or there are no embeddings to group by.
        MissingExtraError: So many rows are to be grouped that it needs the extra ``groups``.
    """
    rows = _candidates(table, selection)
    if not selection.best_of_group:
        return Chosen(table, _cut(table, rows, selection))
    groups, is_best = _group(table, rows, selection)
    best = _cut(table, rows[is_best], selection)
    return Chosen(table, best, groups[np.searchsorted(rows, best)])


def _candidates(table: ScoreTable, selection: Selection) -> IntArray:
    rows = table.present_rows(selection.where)
    if selection.row_ids is not None:
        rows = np.intersect1d(rows, np.asarray(selection.row_ids, np.int64))
    return rows if selection.with_rejected else rows[ratings_of(table)[rows] != REJECTED]


def _group(table: ScoreTable, rows: IntArray, selection: Selection) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Return the group of each row, by the number of its first row, and whether the row is the best of it."""
    table.values(selection.rank_by)  # raises where there are no numbers to be the best by
    names = [EMBEDDING, selection.rank_by] if EMBEDDING in table.columns else [selection.rank_by]
    parts = list(table.iterate(rows, names))
    if not parts:
        return rows, np.zeros(0, np.bool_)
    groups, is_best = group_table(
        pa.concat_tables(parts), min_similarity=selection.min_similarity, rank_by=selection.rank_by
    )
    return rows[groups.to_numpy()], is_best.to_numpy(zero_copy_only=False)


def _cut(table: ScoreTable, rows: IntArray, selection: Selection) -> IntArray:
    if selection.min_score is None and selection.top is None:
        return rows
    values = table.values(selection.rank_by)[rows]
    if selection.top is not None:
        return rows[mark_best(values, selection.top)]
    return rows[values >= values.dtype.type(selection.min_score)]
