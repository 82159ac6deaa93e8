"""Which rows are meant: steps that leave ever fewer of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tastemaker.checks import check_numbers
from tastemaker.errors import ConfigurationError
from tastemaker.scores.cutoff import Top
from tastemaker.scores.groups import MIN_SIMILARITY
from tastemaker.scores.locations import ROW_ID, IntArray
from tastemaker.scores.marks import REJECTED, ratings_of
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.scores.variety import VARIETY
from tastemaker.selections.steps import (
    Best,
    BestOfGroup,
    FunnelStep,
    Left,
    Reach,
    Step,
    Varied,
    Where,
    measure_funnel,
    parse_step,
    run_steps,
)


@dataclass(frozen=True)
class Selection:
    """Which rows of a table are meant. First the condition, then the best of each group, then the cut among those.

    Or the steps of a recipe, in their order. What a person rejected, in the explorer or in the picture's file, is not
    meant.

    Attributes:
        where: A condition in SQL over the columns.
        min_score: Rows with this value or more, compared as float32.
        top: Or the best of them; of equal values the first in the table.
        rank_by: The column that the cut is by; None for `ScoreTable.ranking`.
        row_ids: Only these rows, by number.
        best_of_group: Of pictures that look alike, only the best by ``rank_by``. A row without an embedding is alone
            in its group; one without a value is never the best.
        min_similarity: Cosine from which on pictures look alike, in (0, 1].
        with_rejected: Take what was rejected like the others.
        per: With ``top``: the best of each slice, of rows that have the same value in this column or SQL expression.
        varied: Of what all that leaves, so many that are unlike each other, by ``rank_by`` (`choose_varied`).
        variety: How much likeness counts against the score, from 0 (nothing) to 1.
        recipe: Steps, as `parse_step` takes them, in place of ``where``, ``min_score``, ``top`` and ``best_of_group``.
    """

    where: str | None = None
    min_score: float | None = None
    top: Top | None = None
    rank_by: str | None = None
    row_ids: Sequence[int] | None = None
    best_of_group: bool = False
    min_similarity: float = MIN_SIMILARITY
    with_rejected: bool = False
    per: str | None = None
    recipe: tuple[str, ...] | None = None
    varied: int | None = None
    variety: float = VARIETY

    def __post_init__(self) -> None:
        check_numbers(self)
        if not isinstance(self.top, Top | None):
            raise ConfigurationError(
                f"top={self.top!r} is of type {type(self.top).__name__}; it must be what parse_top('20%') or "
                "parse_top('1000') returns, or None"
            )
        if self.min_score is not None and self.top is not None:
            raise ConfigurationError("give a minimum score or a top share, not both")
        if self.per is not None and self.top is None:
            raise ConfigurationError("a cut per slice keeps a share or a number of each: add --top 20% or --top 1000")
        chosen = (self.where, self.min_score, self.top, self.best_of_group or None, self.varied)
        if self.recipe is not None and any(value is not None for value in chosen):
            raise ConfigurationError(
                "a recipe says all: leave --where, --min-score, --top, --best-of-group and --varied out"
            )
        if all(value is None for value in (*chosen, self.row_ids, self.recipe)):
            raise ConfigurationError(
                "say what to select: --min-score 5.5, --top 20%, --top 1000, --where CONDITION, --best-of-group, "
                "--varied 40 or --recipe FILE"
            )
        if not 0 < self.min_similarity <= 1:
            raise ConfigurationError(f"a similarity of {self.min_similarity} is not in (0, 1]")

    def steps(self, ranking: str) -> list[Step]:
        """Return what is done to the rows, in order; ``ranking`` is what they are ranked by unless it is said."""
        by = self.rank_by or ranking
        if self.recipe is not None:
            return [parse_step(text, by, self.min_similarity, self.variety) for text in self.recipe]
        steps: list[Step] = [] if self.where is None else [Where(self.where)]
        if self.best_of_group:
            steps.append(BestOfGroup(by, self.min_similarity))
        if self.top is not None:
            steps.append(Best(by, self.top, self.per))
        if self.min_score is not None:
            steps.append(Reach(by, self.min_score))
        if self.varied is not None:
            steps.append(Varied(by, self.varied, self.variety))
        return steps


class Chosen:
    """The rows that are meant.

    Attributes:
        rows: Their numbers, int64 (n,), ascending.
        schema: Their columns: all of the table but the embedding, and those that the steps added. A column of such a
            name that the table has is then called ``given_group``, or where that is taken ``given_group_2`` and so on.
        funnel: What each step of a recipe did; empty where there is no recipe.
    """

    def __init__(self, table: ScoreTable, left: Left, funnel: Sequence[FunnelStep] = ()) -> None:
        self.rows, self.funnel = left.rows, list(funnel)
        self._table, self._added = (
            table,
            {
                name: pa.array(values, pa.string() if values.dtype == object else None)
                for name, values in left.columns.items()
            },
        )
        self._names = [name for name in table.columns if name != EMBEDDING]
        fields = [(self._renamed(name), table.columns[name]) for name in self._names]
        self.schema = pa.schema([*fields, *((name, values.type) for name, values in self._added.items())])

    def __len__(self) -> int:
        return len(self.rows)

    def iterate(self) -> Iterator[tuple[IntArray, pa.Table]]:
        """Yield numbers of rows, ascending, and the rows."""
        for part in self._table.iterate(self.rows, [ROW_ID, *self._names]):
            numbers = part[ROW_ID].to_numpy()
            places = pa.array(np.searchsorted(self.rows, numbers))
            added = [pa.chunked_array([values.take(places)]) for values in self._added.values()]
            yield numbers, pa.table([*part.select(self._names).columns, *added], schema=self.schema)

    def _renamed(self, name: str) -> str:
        if name not in self._added:
            return name
        others = (f"given_{name}", *(f"given_{name}_{number}" for number in range(2, len(self._names) + 2)))
        return next(other for other in others if other not in self._names)


def choose_rows(table: ScoreTable, selection: Selection) -> Chosen:
    """Return the rows that are meant.

    Raises:
        ConfigurationError: A step is none, a column is not there, or there are no embeddings to group by.
        MissingExtraError: So many rows are to be grouped that it needs the extra ``groups``.
    """
    steps = selection.steps(table.ranking)
    stages = run_steps(table, _candidates(table, selection), steps)
    funnel = () if selection.recipe is None else measure_funnel(table, steps, stages)
    return Chosen(table, stages[-1], funnel)


def _candidates(table: ScoreTable, selection: Selection) -> IntArray:
    rows = table.present_rows()
    if selection.row_ids is not None:
        rows = np.intersect1d(rows, np.asarray(selection.row_ids, np.int64))
    return rows if selection.with_rejected else rows[ratings_of(table)[rows] != REJECTED]
