"""The score table: the rows of one or many runs as one table, queried where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ConfigurationError
from tastemaker.scores.conditions import Condition, check_condition, explain_refusal
from tastemaker.scores.cutoff import Cutoff, TableSummary, Top, Values, describe_values, find_cutoff
from tastemaker.scores.database import EMBEDDING as EMBEDDING, NO_EMBEDDINGS, Database, sql_name
from tastemaker.scores.locations import (
    ROW_ID,
    IntArray,
    Provenance,
    RowsSource,
    Source,
    as_list,
    fetch_rows,
    find_rows,
    list_provenances,
)
from tastemaker.scores.named import NamedPlaces, find_noted
from tastemaker.scores.schema import DELETED, score_columns
from tastemaker.scores.vectors import Vectors
from tastemaker.storage import expand_path

_PRESENT = f"(status IS DISTINCT FROM '{DELETED}')"
"""SQL: whether the picture of a row is still there. What is gone is neither counted, cut nor selected."""


class ScoreTable:
    """The rows of one or many runs.

    Nothing is read but the files' footers until something is asked for, and then only the columns that are needed.
    Runs may have different columns: what a run does not have is null. May be used by several threads.

    Args:
        source: A directory that `tastemaker score` or `filter` wrote, a file, a URL, or several of them.
        storage_options: For URLs; see docs/remote-data.md.
        originals: Places that originals may be read from, beside the inputs of runs of this user whose rows these are.

    Attributes:
        sources: The files, in the order of the rows.
        columns: Name -> Arrow type of every column but ``row_id``, which numbers the rows from 0.

    Raises:
        ConfigurationError: There are no rows, or a file has none of Tastemaker's.

    Example::

        table = ScoreTable("scores/")
        table.cutoff(top=0.2)
        table.query("SELECT image_path, aesthetic_score FROM rows ORDER BY 2 DESC LIMIT 10")
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        *,
        storage_options: Mapping[str, Any] | None = None,
        originals: Source | Sequence[Source] = (),
    ) -> None:
        self.storage_options = dict(storage_options or {})
        self._originals = [expand_path(place) for place in as_list(originals)]
        self.sources: list[RowsSource] = find_rows(source, storage_options)
        try:
            merged = pa.unify_schemas([s.schema.remove_metadata() for s in self.sources], promote_options="permissive")
            self.columns: dict[str, pa.DataType] = {field.name: field.type for field in merged}
            self._database = Database(self.sources, self.columns, self.storage_options)
        except (pa.ArrowException, duckdb.Error) as error:
            raise ConfigurationError(f"the rows cannot be read together: {error}") from error
        self._values: dict[str, Values] = {}

    def __len__(self) -> int:
        return sum(source.rows for source in self.sources)

    def __repr__(self) -> str:
        return f"ScoreTable({len(self):,} rows in {len(self.sources):,} files)"

    @cached_property
    def originals(self) -> NamedPlaces:
        """The places that originals of these rows may be read from."""
        noted = find_noted((source.path for source in self.sources), self.storage_options)
        return NamedPlaces(self._originals, noted, self.storage_options)

    @cached_property
    def provenance(self) -> list[Provenance]:
        """What made the scores: one entry for each run that differs."""
        return list_provenances(self.sources)

    @cached_property
    def rankings(self) -> list[str]:
        """The columns that images can be ranked by: of the scorers in the order of the runs, then technical quality."""
        scores = dict.fromkeys(name for entry in self.provenance for name in score_columns(entry.entries))
        return [name for name in (*scores, "technical_quality") if name in self.columns] or list(scores)

    @cached_property
    def ranking(self) -> str:
        """The column that images are ranked by unless another is named: the first of `rankings` that has a value."""
        with_values = (name for name in self.rankings if name in self.columns and np.isfinite(self.values(name)).any())
        return next(with_values, self.rankings[0])

    def query(
        self,
        sql: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        limit_s: float | None = None,
    ) -> pa.Table:
        """Return the result of one SELECT over the relation ``rows``.

        ``SELECT *`` leaves the embedding out; a query that names it has it. Nothing can be written, and no other file
        can be read.

        Args:
            sql: In DuckDB's dialect.
            parameters: Values for ``?`` or ``$name`` in it.
            limit_s: Seconds after which it is stopped; None for never. With a condition that `check` returned, it is
                stopped at once, and so it is by Ctrl-C; else between blocks of 2,048 rows.

        Raises:
            ConfigurationError: It is no single SELECT, DuckDB refuses it, or it was stopped. The message says why.
        """
        try:
            return self._database.ask(sql, parameters, limit_s)
        except duckdb.Error as error:
            why = explain_refusal(str(error), self.columns)
            raise ConfigurationError(f"the query cannot be answered: {why}") from error

    def to_arrow(
        self, columns: Sequence[str] | None = None, where: str | None = None, *, limit_s: float | None = None
    ) -> pa.Table:
        """Return rows in the order of the table.

        Args:
            columns: Their names, also ``row_id``; None for all but the embedding.
            where: A condition in SQL, for example ``"width >= 512 and aesthetic_score < 9"``.
            limit_s: As in `query`.

        Raises:
            ConfigurationError: A column is not there, the condition is none, or the query was stopped.
        """
        names = "* EXCLUDE (row_id)" if columns is None else ", ".join(sql_name(self._known(name)) for name in columns)
        return self.query(f"SELECT {names} FROM rows {self.where_clause(where)}", limit_s=limit_s)

    def take(self, row_ids: Sequence[int] | IntArray, columns: Sequence[str] | None = None) -> pa.Table:
        """Return single rows, in the order in which they are asked for, reading the row groups that hold them.

        Args:
            row_ids: Their numbers, each from 0 to below the length of the table; one may occur several times.
            columns: As in `to_arrow`.

        Raises:
            ConfigurationError: A column is not there, or a number is out of range.
        """
        wanted, places = np.unique(np.asarray(row_ids, np.int64), return_inverse=True)
        tables = list(self.iterate(wanted, columns))
        if not tables:
            return pa.schema(self._types(columns).items()).empty_table()
        return pa.concat_tables(tables).take(pa.array(places))

    def iterate(self, row_ids: IntArray, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield single rows, a table for each row group that has any.

        Args:
            row_ids: int64 (n,), ascending.
            columns: As in `to_arrow`.

        Raises:
            ConfigurationError: A column is not there, or a number is out of range.
        """
        types = self._types(columns)
        if len(row_ids) and not 0 <= row_ids[0] <= row_ids[-1] < len(self):
            raise ConfigurationError(f"row {row_ids[-1]} is not in a table of {len(self)} rows")
        return fetch_rows(self.sources, row_ids, types)

    @cached_property
    def embeddings(self) -> Vectors:
        """The embeddings. They are kept in memory where they are needed again and there is room.

        Raises:
            ConfigurationError: The rows have none, or state that two models made them: these do not compare.
        """
        if EMBEDDING not in self.columns:
            raise ConfigurationError(NO_EMBEDDINGS)
        made_by = list_provenances([source for source in self.sources if EMBEDDING in source.schema.names])
        scores = [made for entry in made_by for made in entry.entries.get("scores", {}).values()]
        backbones = sorted({made["backbone"] for made in scores if made.get("backbone")})
        if len(backbones) > 1:
            raise ConfigurationError(
                f"{' and '.join(backbones)} made the embeddings of these rows, which do not compare: name the rows of "
                "one of them"
            )
        return Vectors(self.sources, EMBEDDING, self.columns[EMBEDDING])

    def values(self, column: str | None = None, where: str | None = None) -> Values:
        """Return a column of numbers, in the order of the table: float (n,), NaN for nulls and pictures that are gone.

        Args:
            column: Its name, or an SQL expression over columns, such as ``0.7 * aesthetic_score + 3 * clip_score`` or
                ``rank_average(aesthetic_score, clip_score)``, the mean of the two ranks (0 for the lowest of the
                pictures, 1 for the highest); None for `ranking`.
            where: Of the rows that meet this condition only.

        Raises:
            ConfigurationError: The column is not there, or has no numbers; the expression is none, or says more than a
                condition may say.
        """
        column = self.ranking if column is None else column
        if column not in self._values:
            self._values[column] = self._read_values(column)
        values = self._values[column]
        if where is None:
            return values
        rows = self.query(f"SELECT {ROW_ID} FROM rows {self.where_clause(where)}").column(0).to_numpy()
        chosen: Values = values[rows]
        return chosen

    def _read_values(self, column: str) -> Values:
        is_column = column in self.columns or column.isidentifier()
        kind = self.columns.get(self._known(column), pa.int64()) if is_column else pa.float64()
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise ConfigurationError(f"the column {column} has no numbers, but {kind}")
        sql = sql_name(column) if is_column else f"(\n{self.check(column)}\n)::DOUBLE"
        found = self.query(f"SELECT {ROW_ID}, {sql} AS value FROM rows WHERE {_PRESENT}")
        single = pa.types.is_floating(kind) and kind.bit_width <= 32
        stored = found["value"].cast(pa.float32() if single else pa.float64(), safe=False)
        values: Values = np.full(len(self), np.nan, np.float32 if single else np.float64)
        values[found[ROW_ID].to_numpy()] = pc.fill_null(stored, np.nan).to_numpy()
        values.flags.writeable = False
        return values

    def slices(self, expression: str) -> IntArray:
        """Return a number for each row: the same where a column or SQL expression has the same value: int64 (n,).

        NULL counts as a value.

        Raises:
            ConfigurationError: It is none, or says more than a condition may say.
        """
        expression = sql_name(expression) if expression in self.columns else self.check(expression)
        values = self.query(f"SELECT CAST((\n{expression}\n) AS VARCHAR) FROM rows").column(0).combine_chunks()
        codes: IntArray = values.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
        return codes

    def present_rows(self, where: str | None = None) -> IntArray:
        """Return the numbers of the rows that meet a condition and whose pictures are not gone: int64 (n,), ascending.

        Raises:
            ConfigurationError: The condition is none.
        """
        condition = f"{self.where_clause(where)} AND {_PRESENT}" if where is not None else f"WHERE {_PRESENT}"
        rows: IntArray = self.query(f"SELECT {ROW_ID} FROM rows {condition}").column(0).to_numpy()
        return rows

    def lacks_value(self, column: str) -> str:
        """Return SQL over ``rows``: whether a picture that is not gone has no number in a column, or there is none."""
        if column in self.columns:
            return f"({_PRESENT} AND ({sql_name(column)} IS NULL OR isnan({sql_name(column)})))"
        if column.isidentifier():
            return _PRESENT
        valued = f"SELECT {ROW_ID} AS id, (\n{self.check(column)}\n)::DOUBLE AS value FROM rows WHERE {_PRESENT}"
        return f"{ROW_ID} IN (SELECT id FROM ({valued}) WHERE value IS NULL OR isnan(value))"

    def summary(self, column: str | None = None, where: str | None = None) -> TableSummary:
        """Return counts by status and reason, and how a column's values are spread.

        Args:
            column: Of numbers; None for `ranking`.
            where: Of these rows only.
        """
        clause, column = self.where_clause(where), self.ranking if column is None else column
        counts, reasons = self._count(clause)
        figures: dict[str, Any] = {**counts, **describe_values(self.values(column, where))}
        return TableSummary(column, reasons=reasons, **figures)

    def _count(self, clause: str) -> tuple[dict[str, int], dict[str, int]]:
        """Return how many rows there are of each status, and of each kind of reason, the commonest first."""
        names = ("kept", "dropped", "failed", DELETED)
        statuses = ", ".join(f"count(*) FILTER (status = '{status}') AS {status}" for status in names)
        counted = self.query(
            f"SELECT reason_kind, count(*) FILTER ({_PRESENT}) AS images, {statuses} FROM rows {clause} "
            "GROUP BY reason_kind ORDER BY images DESC, reason_kind"
        ).to_pylist()
        counts = {name: sum(row[name] for row in counted) for name in ("images", *names)}
        reasons = {row["reason_kind"]: row["images"] for row in counted if row["reason_kind"] and row["images"]}
        return counts, reasons

    def cutoff(
        self,
        *,
        top: float | None = None,
        keep: int | None = None,
        min_score: float | None = None,
        column: str | None = None,
        where: str | None = None,
    ) -> Cutoff:
        """Return where a cut lies, and how many images pass it.

        Every row with a value counts, also those that an earlier cut dropped; failed ones have no score. Rows of
        pictures that are gone count nowhere. Null and NaN never pass. ``top`` and ``keep`` keep exactly so many: of
        images with the score at the cut, the first in the table.

        Args:
            top: Keep this share of the scored images, in (0, 1].
            keep: Or this many.
            min_score: Or all with this score or more, compared as float32, as scores are stored.
            column: Cut by this column of numbers; None for `ranking`.
            where: Of these rows only.

        Raises:
            ConfigurationError: Not exactly one of the three is given, or it is out of its range.
        """
        if sum(value is not None for value in (top, keep, min_score)) != 1:
            raise ConfigurationError("say where to cut: top=0.2, or keep=1000, or min_score=5.5")
        return find_cutoff(self.values(column, where), Top(keep, top) if min_score is None else min_score)

    def where_clause(self, where: str | None) -> str:
        """Return a condition as the WHERE clause of a query over ``rows``; empty where there is none.

        Raises:
            ConfigurationError: It is not one condition, or says more than one may say.
        """
        return "" if where is None else f"WHERE (\n{self.check(where)}\n)"

    def check(self, text: str) -> Condition:
        """Return a condition or another expression over the columns of a row, once it is sure that it may be asked.

        Raises:
            ConfigurationError: It is none, or says more than a condition may say.
        """
        return text if isinstance(text, Condition) else check_condition(text, self._database.cursor(), self.columns)

    def _types(self, columns: Sequence[str] | None) -> dict[str, pa.DataType]:
        names = [name for name in self.columns if name != EMBEDDING] if columns is None else columns
        return {name: self.columns.get(self._known(name), pa.int64()) for name in names}

    def _known(self, column: str) -> str:
        if column not in self.columns and column != ROW_ID:
            raise ConfigurationError(f"there is no column {column!r}; there are {', '.join(self.columns)}")
        return column
